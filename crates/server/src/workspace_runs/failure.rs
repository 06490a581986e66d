//! Why a run does not go on, and what the ends of its parts mean for it. Pure.

use super::record::Failure;
use crate::archive::ArchiveError;
use crate::error::ApiError;
use crate::host::HostError;
use crownest_api::ErrorCode;
use crownest_api::workspace_run::{ArtifactError, FailureReason};
use crownest_store as store;

/// Why a run does not go on.
#[derive(Debug)]
pub(super) enum Halt {
    Failed(Failure),
    Canceled,
    /// The server stops, or cannot record anything: the next one goes on.
    Suspended,
}

impl Halt {
    pub(super) fn failed(reason: FailureReason, message: impl AsRef<str>) -> Self {
        Self::Failed(Failure::new(reason, message))
    }
}

pub(super) type Step<T> = Result<T, Halt>;

pub(super) fn sandbox_gone() -> Halt {
    let message = "the sandbox has ended";
    Halt::failed(FailureReason::SandboxUnavailable, message)
}

pub(super) fn unavailable(error: &ApiError) -> Halt {
    let message = format!("no sandbox could be made: {}", error.message);
    Halt::failed(FailureReason::SandboxUnavailable, message)
}

pub(super) fn unpacking_failed(error: &ArchiveError) -> Halt {
    let reason = match error {
        ArchiveError::Invalid(_) => FailureReason::ArchiveInvalid,
        ArchiveError::TooLarge(_) => FailureReason::ArchiveTooLarge,
        ArchiveError::Refused(HostError::File { .. } | HostError::Invalid(_)) => {
            FailureReason::ExtractionFailed
        }
        ArchiveError::Refused(_) => FailureReason::SandboxUnavailable,
        ArchiveError::Source(_) | ArchiveError::Canceled => FailureReason::InternalError,
    };
    if reason == FailureReason::InternalError {
        tracing::error!(%error, "an archive could not be unpacked");
    }
    Halt::failed(reason, error.to_string())
}

/// What an ended command means for its run.
pub(super) fn failure_of(row: &store::Command, timeout_ms: u64) -> Option<Failure> {
    let failed = |reason, message: String| Some(Failure::new(reason, message));
    match row.status {
        store::CommandStatus::Exited if row.exit_code == Some(0) => None,
        store::CommandStatus::Exited => failed(
            FailureReason::CommandExit,
            format!("the command exited with {}", row.exit_code.unwrap_or(-1)),
        ),
        store::CommandStatus::TimedOut => failed(
            FailureReason::Timeout,
            format!("the command was ended after {timeout_ms} ms"),
        ),
        store::CommandStatus::Killed
            if row.killed_reason.as_deref() == Some("sandbox_destroyed") =>
        {
            failed(
                FailureReason::SandboxUnavailable,
                "the sandbox ended under the command".to_owned(),
            )
        }
        store::CommandStatus::Killed => failed(
            FailureReason::CommandExit,
            format!(
                "the command was ended by {}",
                row.killed_reason
                    .as_deref()
                    .or(row.termination_signal.as_deref())
                    .unwrap_or("a signal")
            ),
        ),
        _ => failed(
            FailureReason::InternalError,
            "the command could not be started".to_owned(),
        ),
    }
}

pub(super) fn artifact_error(error: &ApiError, path: String) -> ArtifactError {
    let code = match error.code {
        ErrorCode::FileNotFound | ErrorCode::ParentDirectoryNotFound => "file_not_found",
        ErrorCode::PathOutsideWorkspace => "path_outside_workspace",
        _ => "artifact_collect_failed",
    };
    ArtifactError {
        code: code.to_owned(),
        message: error.message.clone(),
        path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::FileErrorKind;

    fn reason(error: &ArchiveError) -> FailureReason {
        match unpacking_failed(error) {
            Halt::Failed(failure) => failure.reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_failure_of_an_archive_has_its_reason() {
        let words = || "words".to_owned();
        let refused = |error| ArchiveError::Refused(error);
        let file = HostError::File {
            kind: FileErrorKind::IsDirectory,
            message: words(),
        };
        for (error, expected) in [
            (
                ArchiveError::Invalid(words()),
                FailureReason::ArchiveInvalid,
            ),
            (
                ArchiveError::TooLarge(words()),
                FailureReason::ArchiveTooLarge,
            ),
            (refused(file), FailureReason::ExtractionFailed),
            (
                refused(HostError::Invalid(words())),
                FailureReason::ExtractionFailed,
            ),
            (
                refused(HostError::SandboxGone),
                FailureReason::SandboxUnavailable,
            ),
            (
                refused(HostError::LinkLost),
                FailureReason::SandboxUnavailable,
            ),
            (
                ArchiveError::Source(std::io::ErrorKind::TimedOut.into()),
                FailureReason::InternalError,
            ),
        ] {
            assert_eq!(reason(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn messages_are_bounded() {
        let failure = Failure::new(FailureReason::ArchiveInvalid, "é".repeat(5_000));
        assert_eq!(failure.message.chars().count(), 1_000);
    }
}
