//! What init answers and tells: replies, errors, how things ended, what a path is.

use super::is_false;
use serde::{Deserialize, Serialize};

/// Success or failure of a call.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ReplyResult {
    Ok(Reply),
    Error(CallError),
}

/// What a successful call brings; most bring nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Reply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stat: Option<FileStat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<FileEntry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// Why a call failed.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct CallError {
    pub code: CallErrorCode,
    pub message: String,
}

/// Reasons that the server tells apart.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum CallErrorCode {
    ContextUnknown,
    ContextExists,
    ContextBusy,
    ContextDead,
    /// The run is over, or it waits for no line; the process is over, or reads no input.
    InputNotAwaited,
    NoSpare,
    TooMany,
    UnknownTarget,
    /// The program or driver could not be started.
    SpawnFailed,
    PathOutsideWorkspace,
    FileNotFound,
    ParentNotFound,
    PathIsDirectory,
    PathNotDirectory,
    /// A device, socket or pipe where a file was meant.
    PathNotRegular,
    DirectoryNotEmpty,
    FileExists,
    FileTooLarge,
    PermissionDenied,
    NoSpace,
    /// A move between two file systems of the sandbox.
    OtherFileSystem,
    /// Nothing listens on that port.
    PortClosed,
    Invalid,
    Internal,
}

/// A context in [`EventKind::Hello`](super::EventKind::Hello).
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct ContextState {
    pub context: String,
    pub language: String,
}

/// A run or process in [`EventKind::Hello`](super::EventKind::Hello).
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct TargetState {
    pub target: u64,
    /// The context when it is a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Last sequence number that has been given out.
    pub seq: u64,
    pub done: bool,
    /// A run that was started to outlive its server ([`RunOptions::keep`](crate::cell::RunOptions::keep)).
    #[serde(default, skip_serializing_if = "is_false")]
    pub kept: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RunOutcome {
    /// The driver answered: value or error, both are results.
    Completed,
    /// Interrupted by request; state is kept.
    Interrupted,
    /// At its timeout. `context_alive` false: it had to be killed.
    TimedOut { context_alive: bool },
    /// The driver died under the run.
    Died(Death),
}

/// How a process ended.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ExecOutcome {
    Exited {
        code: i32,
    },
    Signaled {
        signal: i32,
    },
    /// Killed at its timeout.
    TimedOut {
        signal: i32,
    },
}

/// How a driver died, as far as init can tell. Out of memory is seen from outside, by the
/// sandbox's cgroup.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Death {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why init killed it, when it did: `bad_frame`, `closed` (by request), `control_closed` (it
    /// gave up its control socket), `not_ready`, `timeout`, `unclaimed` (a spare).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a path is.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct FileStat {
    /// Absolute, as it is inside the sandbox, after following links.
    pub path: String,
    pub kind: FileKind,
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
    /// When it was made; where the file system does not know, when it was changed last.
    pub created_ms: i64,
    pub uid: u32,
    pub gid: u32,
}

/// One entry of a directory, not followed when it is a link.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct FileEntry {
    pub name: String,
    #[serde(flatten)]
    pub stat: FileStat,
}

/// Kind of a path.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Other,
}
