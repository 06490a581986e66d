//! The record of a detached run: how it is to run, how it ended, and both as clients see them.

use crate::auth::micros;
use crate::error::{ApiError, ApiResult};
use crate::host::{RunDone, RunOutcome as HostOutcome};
use crate::output_budget::Budget;
use crate::outputs::OutputPolicy;
use crate::run_answer;
use crate::run_result::{Keeping, RunPlace};
use crownest_api::Timestamp;
use crownest_api::code::{RunCodeResult, RunOutcome};
use crownest_api::detached_run::{CodeRun, CodeRunFailure, CodeRunStatus};
use crownest_store as store;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How long a run is kept after its end.
pub(super) const RUN_KEEP_MS: u64 = 24 * 3_600_000;
/// Each stream of a result without a budget, and its outputs: a result is a row, and the events
/// have everything.
const STREAM_BYTES_MAX: usize = 1024 * 1024;
const OUTPUTS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How a run is to run; in its row as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunOptions {
    pub cwd: Option<String>,
    pub timeout_ms: u64,
    pub input: bool,
    pub policy: OutputPolicy,
    pub budget: Option<Budget>,
    pub keep_full_output: bool,
    pub code_bytes: u64,
    /// Known when it has begun.
    pub context_reset: bool,
}

impl RunOptions {
    pub(super) fn of_row(row: &store::CodeRun) -> ApiResult<Self> {
        serde_json::from_str(&row.options).map_err(ApiError::internal)
    }

    pub(super) fn stored(&self) -> ApiResult<String> {
        serde_json::to_string(self).map_err(ApiError::internal)
    }

    pub(super) fn keeping(&self) -> Keeping {
        Keeping {
            stream_bytes_max: STREAM_BYTES_MAX,
            outputs_bytes_max: OUTPUTS_BYTES_MAX,
            budget: self.budget,
        }
    }

    pub(super) fn place(&self, row: &store::CodeRun) -> RunPlace {
        RunPlace {
            sandbox_id: row.sandbox_id.clone(),
            context_id: row.context_id.clone(),
            language: row.language.clone(),
            context_reset: self.context_reset,
            code_bytes: self.code_bytes,
        }
    }
}

/// When a run is forgotten, once it has ended.
pub(super) fn expires_at(row: &store::CodeRun) -> Option<store::Micros> {
    let keep = i64::try_from(RUN_KEEP_MS).unwrap_or(i64::MAX);
    let ended = row.finished_at?;
    Some(ended.saturating_add(keep.saturating_mul(1_000)))
}

/// A run that went with its sandbox.
pub(super) fn gone(cause: &str) -> RunDone {
    RunDone {
        outcome: HostOutcome::ContextDied {
            death: crate::host::Death::default(),
            cause: cause.to_owned(),
        },
        execution_count: 0,
        duration: std::time::Duration::ZERO,
        cpu: None,
        usage: None,
        background_dropped: 0,
    }
}

/// Writes the end of a run that has a result.
pub(super) fn end_with_result(row: &mut store::CodeRun, result: RunCodeResult) -> ApiResult<()> {
    let canceled = row.canceled_at.is_some();
    let status = match result.outcome {
        RunOutcome::Completed => store::CodeRunStatus::Completed,
        RunOutcome::Interrupted if canceled => store::CodeRunStatus::Canceled,
        RunOutcome::Interrupted => store::CodeRunStatus::Interrupted,
        RunOutcome::TimedOut => store::CodeRunStatus::TimedOut,
        RunOutcome::OutOfMemory => store::CodeRunStatus::OutOfMemory,
        RunOutcome::ContextDied => store::CodeRunStatus::ContextDied,
    };
    end(row, status);
    row.result = Some(run_answer::stored_result(result)?);
    Ok(())
}

/// Writes the end of a run that has none.
pub(super) fn end_without_result(row: &mut store::CodeRun, error: &ApiError) {
    end(row, store::CodeRunStatus::Failed);
    let failure = CodeRunFailure {
        code: error.code,
        message: error.message.clone(),
    };
    row.failure = serde_json::to_string(&failure).ok();
}

pub(super) fn end(row: &mut store::CodeRun, status: store::CodeRunStatus) {
    row.status = status;
    row.code = None;
    row.finished_at = Some(micros(Timestamp::now()).max(row.created_at));
}

/// A row as clients see it, with its result.
pub(super) fn wire(row: &store::CodeRun) -> ApiResult<CodeRun> {
    let result = row.result.clone().map(RawValue::from_string).transpose();
    let failure = row.failure.as_deref().map(serde_json::from_str).transpose();
    Ok(CodeRun {
        result: result.map_err(ApiError::internal)?,
        failure: failure.map_err(ApiError::internal)?,
        ..list_item(row)
    })
}

/// The same in a list.
pub(crate) fn list_item(row: &store::CodeRun) -> CodeRun {
    let time = |micros: i64| Timestamp::from_millis(micros / 1_000);
    CodeRun {
        id: row.id.clone(),
        sandbox_id: row.sandbox_id.clone(),
        context_id: row.context_id.clone(),
        language: row.language.clone(),
        status: status(row.status),
        created_at: time(row.created_at),
        started_at: row.begun_at.map(time),
        finished_at: row.finished_at.map(time),
        canceled_at: row.canceled_at.map(time),
        expires_at: expires_at(row).map(time),
        log_omitted_bytes: u64::try_from(row.log_omitted_bytes)
            .ok()
            .filter(|bytes| *bytes > 0),
        result: None,
        failure: None,
    }
}

fn status(status: store::CodeRunStatus) -> CodeRunStatus {
    match status {
        store::CodeRunStatus::Queued => CodeRunStatus::Queued,
        store::CodeRunStatus::Running => CodeRunStatus::Running,
        store::CodeRunStatus::Completed => CodeRunStatus::Completed,
        store::CodeRunStatus::Interrupted => CodeRunStatus::Interrupted,
        store::CodeRunStatus::Canceled => CodeRunStatus::Canceled,
        store::CodeRunStatus::TimedOut => CodeRunStatus::TimedOut,
        store::CodeRunStatus::OutOfMemory => CodeRunStatus::OutOfMemory,
        store::CodeRunStatus::ContextDied => CodeRunStatus::ContextDied,
        store::CodeRunStatus::Failed => CodeRunStatus::Failed,
    }
}
