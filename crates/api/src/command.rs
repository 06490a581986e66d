//! Commands: processes with a record.

use crate::error::ErrorCode;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Where a command is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandStatus {
    Queued,
    Starting,
    Running,
    /// It ended by itself, whatever its exit code.
    Exited,
    /// It could not be started.
    Failed,
    Canceled,
    TimedOut,
    Killed,
}

/// What became of the files that a command should leave as artifacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CollectStatus {
    NotRequested,
    Pending,
    Skipped,
    Succeeded,
    Partial,
    Failed,
}

impl CommandStatus {
    /// Whether the command has ended.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Starting | Self::Running)
    }
}

/// How a command is to be canceled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CancelMode {
    /// SIGTERM to its process group, SIGKILL after two seconds.
    #[default]
    Graceful,
    /// SIGKILL to everything in its session.
    Force,
}

impl CancelMode {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Graceful => "graceful",
            Self::Force => "force",
        }
    }
}

/// When the files that a command should leave become artifacts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CollectOn {
    /// When it exited with 0.
    #[default]
    Success,
    Always,
}

/// A file that a command should leave as an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectItem {
    /// Inside the workspace; relative to it or absolute.
    #[schema(min_length = 1)]
    pub path: String,
    /// Name of the artifact; default: the last part of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A file that did not become an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectError {
    /// `artifact_collect_failed`, `file_not_found` or `path_outside_workspace`.
    pub code: String,
    pub message: String,
    pub path: String,
}

/// A command.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    pub id: String,
    pub sandbox_id: String,
    pub command: String,
    pub cwd: String,
    /// What the request said. Values are not kept: in everything but the answer to that request
    /// they are empty.
    pub env: BTreeMap<String, String>,
    pub status: CommandStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_mode: Option<CancelMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canceled_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// From its beginning, once it has ended: everything up to 32 MiB in the answer to the request
    /// that waited for it, up to 256 KiB elsewhere. The log has the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_truncated: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_truncated: Option<bool>,
    /// Extension: how many bytes `stdout` leaves out, when it is truncated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_omitted_bytes: Option<u64>,
    /// Extension: how many bytes `stderr` leaves out, when it is truncated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_omitted_bytes: Option<u64>,
    /// Extension: bytes that were printed and that the log does not have (any more).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_omitted_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collect_status: Option<CollectStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collect_errors: Option<Vec<CollectError>>,
    /// `sandbox_destroyed` when the sandbox ended under the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed_reason: Option<String>,
    /// `SIGKILL`, `SIGTERM` or the name of another signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_signal: Option<String>,
}

/// `POST /v1/sandboxes/{id}/commands/run`, and `/commands` with `background` false.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunCommand {
    /// Run by `sh -c`; not empty.
    #[schema(min_length = 1, example = "python3 main.py")]
    pub command: String,
    /// Inside the workspace; default `/workspace`.
    pub cwd: Option<String>,
    /// Added to the sandbox's environment for this command.
    pub env: Option<BTreeMap<String, String>>,
    /// 1 to 600,000 and 60,000 by default when the command is waited for. A background command has
    /// none by default, and may ask for up to a week: it ends with its sandbox in any case.
    #[schema(minimum = 1)]
    pub timeout_ms: Option<u64>,
    /// Files to keep as artifacts when it has ended; not for background commands.
    pub collect: Option<Vec<CollectItem>>,
    pub collect_on: Option<CollectOn>,
    /// Only with `POST …/commands`: do not wait for its end.
    pub background: Option<bool>,
    /// The client is about to read the command's log, so `command:read` is required up front.
    #[serde(rename = "_crownestRequireCommandRead")]
    #[schema(rename = "_crownestRequireCommandRead")]
    pub require_command_read: Option<bool>,
}

/// Answer with one command.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CommandAnswer {
    pub command: Command,
}

/// `POST /v1/commands/{id}/cancel`
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct CancelCommand {
    #[serde(default)]
    pub mode: Option<CancelMode>,
}

/// Which of a command's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// A piece of what a command printed; never ends inside a character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogChunk {
    pub command_id: String,
    pub created_at: Timestamp,
    /// Bytes that are not UTF-8 are replaced here; the download has them as they were.
    pub data: String,
    /// Counts the pieces of both streams from 1.
    pub seq: u64,
    pub stream: LogStream,
}

/// `GET /v1/commands/{id}/logs`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogPage {
    pub data: Vec<LogChunk>,
    /// Whether there is more already.
    pub has_more: bool,
    /// Number of the last piece on this page: `afterSeq` of the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_seq: Option<u64>,
    /// Extension: bytes that the log does not have (any more).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_bytes: Option<u64>,
}

/// One event of `GET /v1/commands/{id}/stream`.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(
    tag = "type",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum CommandEvent {
    Log {
        seq: u64,
        stream: LogStream,
        data: String,
        #[serde(rename = "createdAt")]
        created_at: Timestamp,
    },
    Heartbeat {
        #[serde(rename = "createdAt")]
        created_at: Timestamp,
    },
    /// Always the last, unless there was an error.
    Terminal {
        command: Box<Command>,
        #[serde(rename = "createdAt")]
        created_at: Timestamp,
    },
    Error {
        code: ErrorCode,
        message: String,
        #[serde(rename = "createdAt")]
        created_at: Timestamp,
    },
}

/// `POST /v1/commands/{id}/logs/download-url`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogDownloadUrl {
    pub url: String,
    /// `GET`
    pub method: String,
    pub expires_at: Timestamp,
}
