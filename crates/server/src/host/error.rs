//! Why the host could not do what a route asked. Routes turn these into wire errors; nothing here
//! knows a status code.

use super::spawner::SpawnerError;
use crownest_init::link::{CallError, CallErrorCode};
use std::time::Duration;

/// Longest message of an init that is passed on; init runs beside hostile code.
const INIT_MESSAGE_CHARS_MAX: usize = 1_024;

/// Failure of an operation on a sandbox of this node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HostError {
    /// The sandbox is not (or no longer) on this node: destroyed, expired, or its init died.
    #[error("the sandbox is gone")]
    SandboxGone,
    /// The node is shutting down and takes no new work.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// Too many sandboxes on this node.
    #[error("the node already runs {limit} sandboxes")]
    NodeFull {
        /// The configured limit.
        limit: usize,
    },
    /// A command to the spawner failed.
    #[error("spawner: {0}")]
    Spawner(#[from] SpawnerError),
    /// Connecting to the init of a sandbox failed.
    #[error("connect to init: {0}")]
    Connect(String),
    /// Init did not speak first, or spoke another protocol.
    #[error("hello of init: {0}")]
    Hello(String),
    /// Init broke the protocol; its sandbox is ended.
    #[error("init broke the link protocol: {0}")]
    Protocol(String),
    /// The link was lost between the call and its answer; whether it took effect is unknown.
    #[error("the link to the sandbox was lost during the call")]
    LinkLost,
    /// Init did not answer in time.
    #[error("init did not answer within {0:?}")]
    CallTimeout(Duration),
    /// No context of that id in this sandbox.
    #[error("no such context")]
    ContextUnknown,
    /// A context with that id is alive.
    #[error("the context exists already")]
    ContextExists,
    /// More runs wait for this context than [`super::RUNS_QUEUED_MAX`].
    #[error("too many runs wait for this context")]
    ContextBusy,
    /// The context's interpreter died and its state is lost: open a new context.
    #[error("the context is dead ({cause}); its state is lost, open a new one")]
    ContextDead {
        /// What killed it, as far as is known.
        cause: String,
    },
    /// The run is over, or it waits for no line.
    #[error("no line is awaited")]
    InputNotAwaited,
    /// No driver is installed for that language.
    #[error("no driver for language {0:?}")]
    LanguageUnsupported(String),
    /// No run or process of that number.
    #[error("no such run or process")]
    TargetUnknown,
    /// A limit of the sandbox (contexts, processes) is reached.
    #[error("too many in this sandbox: {0}")]
    TooMany(String),
    /// The program or driver could not be started.
    #[error("could not be started: {0}")]
    SpawnFailed(String),
    /// A file operation was refused.
    #[error("{kind}: {message}")]
    File {
        /// The reason that routes tell apart.
        kind: FileErrorKind,
        /// Init's words.
        message: String,
    },
    /// Nothing listens on that port of the sandbox.
    #[error("nothing listens on port {0}")]
    PortClosed(u16),
    /// An argument is out of range or malformed.
    #[error("invalid: {0}")]
    Invalid(String),
    /// What was asked does not fit into one frame.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its limit.
        limit: usize,
    },
    /// Init failed for a reason of its own.
    #[error("init: {0}")]
    Init(String),
}

/// Why a file operation was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileErrorKind {
    #[error("the path leads outside the workspace")]
    OutsideWorkspace,
    #[error("not found")]
    NotFound,
    #[error("the parent directory does not exist")]
    ParentNotFound,
    #[error("is a directory")]
    IsDirectory,
    #[error("is not a directory")]
    NotDirectory,
    /// A device, socket or pipe where a file was meant.
    #[error("is not a regular file")]
    NotRegular,
    #[error("the directory is not empty")]
    NotEmpty,
    #[error("exists already")]
    Exists,
    #[error("too large")]
    TooLarge,
    #[error("permission denied")]
    PermissionDenied,
    #[error("no space left in the sandbox")]
    NoSpace,
    #[error("the two places are on different file systems")]
    OtherFileSystem,
}

impl HostError {
    /// Whether a file operation found nothing at its path.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::File {
                kind: FileErrorKind::NotFound | FileErrorKind::ParentNotFound,
                ..
            }
        )
    }

    /// Gives init's refusal its name. `port` is what was dialled, where that is the call.
    pub(super) fn from_call(error: &CallError, port: u16) -> Self {
        let message = printable(&error.message);
        let file = |kind| Self::File {
            kind,
            message: message.clone(),
        };
        match error.code {
            CallErrorCode::ContextUnknown => Self::ContextUnknown,
            CallErrorCode::ContextExists => Self::ContextExists,
            CallErrorCode::ContextBusy => Self::ContextBusy,
            CallErrorCode::ContextDead => Self::ContextDead { cause: message },
            CallErrorCode::InputNotAwaited => Self::InputNotAwaited,
            CallErrorCode::TooMany => Self::TooMany(message),
            CallErrorCode::UnknownTarget => Self::TargetUnknown,
            CallErrorCode::SpawnFailed => Self::SpawnFailed(message),
            CallErrorCode::PathOutsideWorkspace => file(FileErrorKind::OutsideWorkspace),
            CallErrorCode::FileNotFound => file(FileErrorKind::NotFound),
            CallErrorCode::ParentNotFound => file(FileErrorKind::ParentNotFound),
            CallErrorCode::PathIsDirectory => file(FileErrorKind::IsDirectory),
            CallErrorCode::PathNotDirectory => file(FileErrorKind::NotDirectory),
            CallErrorCode::PathNotRegular => file(FileErrorKind::NotRegular),
            CallErrorCode::DirectoryNotEmpty => file(FileErrorKind::NotEmpty),
            CallErrorCode::FileExists => file(FileErrorKind::Exists),
            CallErrorCode::FileTooLarge => file(FileErrorKind::TooLarge),
            CallErrorCode::PermissionDenied => file(FileErrorKind::PermissionDenied),
            CallErrorCode::NoSpace => file(FileErrorKind::NoSpace),
            CallErrorCode::OtherFileSystem => file(FileErrorKind::OtherFileSystem),
            CallErrorCode::PortClosed => Self::PortClosed(port),
            CallErrorCode::Invalid => Self::Invalid(message),
            CallErrorCode::NoSpare | CallErrorCode::Internal => Self::Init(message),
        }
    }
}

/// Text from a sandbox, bounded and without control characters, fit for a log line.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(INIT_MESSAGE_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_init_are_bounded_and_printable() {
        let message = format!("a\u{1b}[31m\n{}", "x".repeat(5_000));
        let code = CallErrorCode::Invalid;
        let error = HostError::from_call(&CallError { code, message }, 0);
        let HostError::Invalid(text) = error else {
            panic!("{error:?}")
        };
        assert!(text.starts_with("a[31mxx"));
        assert_eq!(text.chars().count(), INIT_MESSAGE_CHARS_MAX);
    }
}
