//! Commands: processes with a record.

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

/// A command.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    pub id: String,
    pub sandbox_id: String,
    pub command: String,
    pub cwd: String,
    pub env: BTreeMap<String, String>,
    pub status: CommandStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_truncated: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_truncated: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collect_status: Option<CollectStatus>,
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
    #[schema(minimum = 1, maximum = 600_000)]
    pub timeout_ms: Option<u64>,
    /// Files to keep as artifacts; not available yet.
    #[schema(value_type = Option<Vec<Object>>)]
    pub collect: Option<Vec<serde_json::Value>>,
    /// Only with `POST …/commands`; true is not available yet.
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
