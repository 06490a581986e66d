//! Detached code runs: begun, followed and fetched by different requests. All of it is an extension
//! of the contract.

use crate::code::{CodeError, CodeOutput, InputRequest, Notice, RunCodeResult};
use crate::error::ErrorCode;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Where a detached run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CodeRunStatus {
    /// It waits for its turn in its context.
    Queued,
    Running,
    /// An exception in the code is a completed run.
    Completed,
    /// By a request to its context.
    Interrupted,
    /// By a request to itself.
    Canceled,
    TimedOut,
    OutOfMemory,
    /// The interpreter ended under it, or the sandbox did.
    ContextDied,
    /// It could not be begun, or what became of it is not known: `failure` says why.
    Failed,
}

impl CodeRunStatus {
    /// Whether the run has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// A detached run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CodeRun {
    #[schema(example = "crun_06f3m2c9r7x8k4e1t5w0q2z6ya")]
    pub id: String,
    pub sandbox_id: String,
    pub context_id: String,
    pub language: String,
    pub status: CodeRunStatus,
    pub created_at: Timestamp,
    /// When its turn came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When it was first asked to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canceled_at: Option<Timestamp>,
    /// When the run, its result and its events are forgotten: a day after its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Bytes that were printed and that its events do not have any more, or never had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_omitted_bytes: Option<u64>,
    /// What it brought, once it has ended; not in lists. Of each stream it holds the first MiB,
    /// or what `outputBudget` leaves; the events have all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<RunCodeResult>)]
    pub result: Option<Box<RawValue>>,
    /// Why there is no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<CodeRunFailure>,
}

/// Why a detached run has no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodeRunFailure {
    pub code: ErrorCode,
    pub message: String,
}

/// Answer with one detached run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CodeRunAnswer {
    pub run: CodeRun,
}

/// One event of a detached run. Those with `seq` can be resumed behind: their SSE `id` is `seq`.
/// The last one is `complete`, or an `error` without `seq` when the stream itself broke off.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(
    tag = "type",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum CodeRunEvent {
    Stdout {
        seq: u64,
        data: String,
        created_at: Timestamp,
    },
    Stderr {
        seq: u64,
        data: String,
        created_at: Timestamp,
    },
    Output {
        seq: u64,
        data: CodeOutput,
        created_at: Timestamp,
    },
    Notice {
        seq: u64,
        data: Notice,
        created_at: Timestamp,
    },
    InputRequest {
        seq: u64,
        data: InputRequest,
        created_at: Timestamp,
    },
    /// Nothing has happened for a while.
    Heartbeat { created_at: Timestamp },
    /// What the run was reported with; or why this stream broke off, then `name` is an error code.
    Error {
        data: CodeError,
        created_at: Timestamp,
    },
    /// It has ended.
    Complete {
        data: Box<CodeRun>,
        created_at: Timestamp,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_shape_of_a_stream_and_a_number() {
        let event = CodeRunEvent::Stdout {
            seq: 7,
            data: "hi\n".into(),
            created_at: Timestamp::from_millis(0),
        };
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"type":"stdout","seq":7,"data":"hi\n","createdAt":"1970-01-01T00:00:00.000Z"}"#
        );
    }
}
