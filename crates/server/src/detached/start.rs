//! From a record to code that runs: the wait for a turn, and what ends it early.

use super::By;
use super::drive::Driving;
use super::live::LiveRun;
use super::record::{self, RunOptions};
use crate::app::App;
use crate::auth::{Principal, micros};
use crate::code::Context;
use crate::command_log::LogWriter;
use crate::error::{ApiError, ApiResult};
use crate::host::{KeptRun, RunSpec};
use crate::run_result::RunCollector;
use crate::runs;
use crate::sandboxes::{LiveSandbox, Work};
use crownest_api::{IdKind, Timestamp, new_id};
use crownest_store as store;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::oneshot;

/// A detached run whose request has been checked.
#[derive(Debug)]
pub(crate) struct DetachedRequest {
    pub context_id: Option<String>,
    pub language: &'static str,
    pub code: String,
    pub options: RunOptions,
}

impl DetachedRequest {
    pub(super) fn row(
        &self,
        who: &Principal,
        live: &LiveSandbox,
        context_id: &str,
        number: u64,
    ) -> ApiResult<store::CodeRun> {
        // As JSON: source may contain what no database takes as text.
        let code = serde_json::to_string(&self.code).map_err(ApiError::internal)?;
        Ok(store::CodeRun {
            id: new_id(IdKind::CodeRun),
            org_id: live.org_id.clone(),
            project_id: live.project_id.clone(),
            sandbox_id: live.id.clone(),
            context_id: context_id.to_owned(),
            language: self.language.to_owned(),
            run: i64::try_from(number).unwrap_or(i64::MAX),
            status: store::CodeRunStatus::Queued,
            code: Some(code),
            options: self.options.stored()?,
            created_at: micros(Timestamp::now()),
            begun_at: None,
            finished_at: None,
            canceled_at: None,
            log_omitted_bytes: 0,
            result: None,
            failure: None,
            created_by: who.key_id.to_string(),
        })
    }
}

/// A run that is on record and has not begun.
#[derive(Debug)]
pub(super) struct Queued {
    pub app: App,
    pub sandbox: Arc<LiveSandbox>,
    pub context: Arc<Context>,
    pub run: Arc<LiveRun>,
    pub writer: LogWriter,
    pub options: RunOptions,
    pub code: String,
    pub by: Option<By>,
    pub work: Work,
}

impl Queued {
    /// Waits for the run's turn, begins it and drives it to its end. `accepted` is told as soon as
    /// it has its place in the queue: runs begin in the order of their answers.
    pub(super) async fn begin(mut self, accepted: Option<oneshot::Sender<ApiResult<()>>>) {
        let spec = self.spec();
        let Some(begun) = self.wait_for_turn(&spec, accepted).await else {
            return;
        };
        match begun {
            Ok((kept, context_reset)) => {
                self.options.context_reset = context_reset;
                self.app.note_run_begun(&self.run, &self.options).await;
                self.drive(kept, spec).await;
            }
            Err(error) => self.give_up(Some(&error)).await,
        }
    }

    fn spec(&mut self) -> RunSpec {
        let row = self.run.row();
        RunSpec {
            context: self.context.id.clone(),
            code: std::mem::take(&mut self.code),
            timeout: Duration::from_millis(self.options.timeout_ms),
            cwd: self.options.cwd.clone(),
            language: runs::language_of_cell(&row.language),
            input: self.options.input,
            table_export: self.options.policy.exports(),
        }
    }

    /// None when the run does not begin in this server: it was canceled, or the server stops and
    /// the next one begins it.
    async fn wait_for_turn(
        &self,
        spec: &RunSpec,
        accepted: Option<oneshot::Sender<ApiResult<()>>>,
    ) -> Option<ApiResult<(KeptRun, bool)>> {
        let begun = {
            let number = self.run.number;
            let start = self
                .app
                .start_kept_run(&self.sandbox, &self.context, number, spec.clone());
            let mut start = pin!(start);
            // A run that was canceled before a restart does not begin after it.
            let first = if self.run.canceled.is_cancelled() {
                Poll::Pending
            } else {
                futures_util::poll!(start.as_mut())
            };
            if let Some(accepted) = accepted {
                // Nobody may wait for it any more.
                let _ = accepted.send(Ok(()));
            }
            match first {
                Poll::Ready(begun) => Some(begun),
                Poll::Pending => tokio::select! {
                    biased;
                    () = self.app.stopping.cancelled() => return None,
                    () = self.run.canceled.cancelled() => None,
                    begun = start => Some(begun),
                },
            }
        };
        match begun {
            // The sandbox was let go of because the server stops.
            Some(Err(_)) if self.app.stopping.is_cancelled() => None,
            Some(begun) => Some(begun),
            None => {
                self.give_up(None).await;
                None
            }
        }
    }

    async fn drive(self, kept: KeptRun, spec: RunSpec) {
        if self.run.canceled.is_cancelled() {
            // Asked for while it began. Its end will say whether it came in time.
            let _ = self.run.host.interrupt_run(self.run.number).await;
        }
        let driving = Driving {
            active: Some(self.context.activate(kept.id())),
            collector: RunCollector::new(self.options.policy, &self.options.keeping()),
            app: self.app,
            sandbox: self.sandbox,
            run: self.run,
            kept,
            writer: Some(self.writer),
            options: self.options,
            unbegun: Some(spec),
            by: self.by,
            work: self.work,
        };
        Box::pin(driving.drive()).await;
    }

    /// Ends a run that never began: canceled, or refused.
    async fn give_up(&self, error: Option<&ApiError>) {
        let row = {
            let mut row = self.run.row();
            match error {
                Some(error) => record::end_without_result(&mut row, error),
                None => record::end(&mut row, store::CodeRunStatus::Canceled),
            }
            row.clone()
        };
        if let Some(cause) = error.and_then(|error| error.cause.as_ref()) {
            tracing::warn!(%cause, run = %self.run.id, "a detached run could not begin");
        }
        self.app.record_code_run_end(&self.run, row).await;
    }
}
