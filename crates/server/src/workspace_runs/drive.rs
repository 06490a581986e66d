//! Carries a run out: sandbox, archive, command, artifacts, end.
//!
//! Each step is entered in the record before it is done. A server that takes a run up again begins
//! the step anew that the record names, and that does no harm: a sandbox that was being made for
//! the run is found by its label and replaced, files are written once more, a command is never
//! started a second time, artifacts are kept from where it stopped.

use super::events::last_record;
use super::failure::{Halt, Step, failure_of, sandbox_gone, unpacking_failed};
use super::record::{LogPlace, Record};
use super::{deed, object_key};
use crate::app::App;
use crate::archive::{self, ArchiveError, Limits, Pieces};
use crate::audit::AuditLog;
use crate::auth::Principal;
use crate::commands::{CheckedCommand, Found, Wait};
use crate::error::{ApiError, ApiResult};
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use crownest_api::command::CancelMode;
use crownest_api::workspace_run::FailureReason;
use crownest_api::{ErrorCode, IdKind, new_id};
use crownest_store as store;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use store::WorkspaceRunStatus as Status;
use tokio_util::sync::CancellationToken;

/// How long an archive may take: a sandbox that keeps its init from running must not keep others
/// from theirs.
const UNPACK_MAX: Duration = Duration::from_secs(300);
/// Between two tries to record a step that the store did not take.
const RECORD_PAUSE: Duration = Duration::from_millis(500);

impl App {
    /// Carries a run out from where its record is, in the background.
    pub(super) fn carry_out(&self, record: Record, who: Arc<Principal>, request: RequestContext) {
        let Some(canceled) = self.workspace_runs.begin(record.id()) else {
            return;
        };
        if record.state.canceled {
            canceled.cancel();
        }
        let driver = Driver {
            app: self.clone(),
            who,
            request,
            record,
            canceled,
            taken: None,
        };
        self.tasks.spawn(driver.drive());
    }
}

pub(super) struct Driver {
    pub app: App,
    pub who: Arc<Principal>,
    pub request: RequestContext,
    pub record: Record,
    pub canceled: CancellationToken,
    /// A sandbox of the client's that this run has.
    pub taken: Option<String>,
}

impl Driver {
    async fn drive(mut self) {
        let (status, failure) = match self.steps().await {
            Ok(()) => (Status::Succeeded, None),
            Err(Halt::Failed(failure)) => (Status::Failed, Some(failure)),
            Err(Halt::Canceled) => (Status::Canceled, None),
            Err(Halt::Suspended) => return self.leave(),
        };
        if self.finish(status, failure).await.is_ok() {
            let outcome = status.as_str();
            let details = json!({ "sandboxId": self.record.state.sandbox_id });
            let deed = deed("workspace_run.end", &self.record, outcome);
            let event = AuditLog::event_by_system(&self.record.row.org_id, deed, &details);
            self.app.audit.push(event);
        }
        self.leave();
    }

    fn leave(self) {
        if let Some(sandbox_id) = &self.taken {
            self.app.workspace_runs.give_back(sandbox_id);
        }
        self.app.workspace_runs.active().remove(self.record.id());
        self.app.workspace_runs.notify(self.record.id());
        self.app.sweep_run_uploads();
    }

    async fn steps(&mut self) -> Step<()> {
        let live = if self.record.row.status == Status::Starting {
            let live = Box::pin(self.sandbox()).await?;
            self.record(|record| {
                record.state.sandbox_id = Some(live.id.clone());
                vec![record.enter(Status::Extracting)]
            })
            .await?;
            Some(live)
        } else {
            self.sandbox_again()?
        };
        if self.record.row.status == Status::Extracting {
            let live = live.as_ref().ok_or_else(sandbox_gone)?;
            Box::pin(self.extract(live)).await?;
            self.record(|record| {
                record.state.command_id = Some(new_id(IdKind::Command));
                let entered = record.enter(Status::Running);
                let base = record.state.last_seq;
                record.state.log = Some(LogPlace { base, count: None });
                vec![entered]
            })
            .await?;
            self.start(live).await?;
            // From here on there is a log to follow.
            self.app.workspace_runs.notify(self.record.id());
        }
        if self.record.row.status == Status::Running {
            self.wait().await?;
        }
        self.collect(live.as_ref()).await?;
        match self.record.state.failure.clone() {
            None => Ok(()),
            Some(failure) => Err(Halt::Failed(failure)),
        }
    }

    /// What `work` comes to, unless the run is canceled or the server stops before.
    pub(super) async fn unless_ended<T>(&self, work: BoxFuture<'_, T>) -> Step<T> {
        tokio::select! {
            biased;
            () = self.app.stopping.cancelled() => Err(Halt::Suspended),
            () = self.canceled.cancelled() => Err(Halt::Canceled),
            value = work => Ok(value),
        }
    }

    /// Records a step. A store that is away is waited for.
    pub(super) async fn record(
        &mut self,
        mut change: impl FnMut(&mut Record) -> Vec<store::WorkspaceRunEvent>,
    ) -> Step<()> {
        loop {
            let changed = self
                .app
                .change_run(self.record.clone(), |record| Ok(Some(change(record))))
                .await;
            let error = match changed {
                Ok(record) => {
                    self.record = record;
                    return Ok(());
                }
                Err(error) => error,
            };
            tracing::warn!(
                ?error,
                run = self.record.id(),
                "a step of a run could not be recorded"
            );
            let passes = matches!(error.code, ErrorCode::Unavailable | ErrorCode::StorageFull);
            if !passes || self.app.stopping.is_cancelled() {
                return Err(Halt::Suspended);
            }
            tokio::time::sleep(RECORD_PAUSE).await;
        }
    }

    /// Unpacks the archive. One for a client's sandbox is read to its end first, so that what is
    /// refused leaves nothing there.
    async fn extract(&self, live: &Arc<LiveSandbox>) -> Step<()> {
        let _work = live.work();
        let limits = Limits::default();
        let unpacking = async {
            if self.record.spec.sandbox_id.is_some() {
                archive::check(self.archive().await?, limits).await?;
            }
            archive::unpack(&live.host, self.archive().await?, limits).await
        };
        let unpacking = tokio::time::timeout(UNPACK_MAX, unpacking);
        let Ok(unpacked) = self.unless_ended(unpacking.boxed()).await? else {
            let message = format!("the sandbox took more than {UNPACK_MAX:?} for the archive");
            return Err(Halt::failed(FailureReason::ExtractionFailed, message));
        };
        let summary = unpacked.map_err(|error| unpacking_failed(&error))?;
        tracing::debug!(
            run = self.record.id(),
            entries = summary.entries,
            bytes = summary.bytes,
            "archive unpacked"
        );
        Ok(())
    }

    async fn archive(&self) -> Result<Pieces, ArchiveError> {
        let archive = self.record.state.archive.as_ref();
        let upload_id = archive.map_or("", |archive| &archive.upload_id);
        let object = self.app.objects.get(&object_key(upload_id), None).await;
        let object = object.map_err(|error| ArchiveError::Source(std::io::Error::other(error)))?;
        Ok(object.bytes)
    }

    /// Starts the command under the id that is on record.
    async fn start(&self, live: &Arc<LiveSandbox>) -> Step<()> {
        let started = async {
            let asked = json!({
                "command": self.record.spec.command,
                "timeoutMs": self.record.spec.timeout_ms,
            });
            let asked = serde_json::from_value(asked).map_err(ApiError::internal)?;
            let id = self.record.state.command_id.clone().unwrap_or_default();
            let checked = CheckedCommand::check(asked, Wait::Begin, &self.who)?.with_id(id);
            self.app
                .start_background(&self.who, &self.request, live, checked)
                .await
        }
        .await;
        match started {
            Ok(_) => Ok(()),
            Err(error) if error.code == ErrorCode::SandboxDestroyed => Err(sandbox_gone()),
            Err(error) => Err(Halt::failed(FailureReason::InternalError, &error.message)),
        }
    }

    /// Waits for the end of the command, whoever started it, and records it.
    async fn wait(&mut self) -> Step<()> {
        let found = match self.command().await {
            Ok(found) => found,
            Err(error) if error.code == ErrorCode::NotFound => {
                let message = "the server was restarted before the command began";
                return Err(Halt::failed(FailureReason::InternalError, message));
            }
            Err(error) => {
                tracing::error!(
                    ?error,
                    run = self.record.id(),
                    "its command cannot be found"
                );
                return Err(Halt::Suspended);
            }
        };
        if let Found::Live(command) = &found {
            let mut ended = command.watch_end();
            let waiting = async {
                // Fails only when the sender is gone, which `command` has.
                let _ = ended.wait_for(|ended| *ended).await;
            };
            match self.unless_ended(waiting.boxed()).await {
                Err(Halt::Canceled) => {
                    let canceling = self.app.cancel_command(
                        &self.who,
                        &self.request,
                        &command.id,
                        CancelMode::Graceful,
                    );
                    if let Err(error) = canceling.await {
                        tracing::warn!(?error, run = self.record.id(), "canceling its command");
                    }
                    let mut ended = command.watch_end();
                    tokio::select! {
                        () = self.app.stopping.cancelled() => return Err(Halt::Suspended),
                        _ = ended.wait_for(|ended| *ended) => {}
                    }
                }
                other => other?,
            }
        }
        self.command_ended(&found).await
    }

    pub(super) async fn command(&self) -> ApiResult<Found> {
        let id = self.record.state.command_id.as_deref().unwrap_or_default();
        self.app.find_command(&self.who, id).await
    }

    async fn command_ended(&mut self, found: &Found) -> Step<()> {
        let row = found.row();
        let count = self.log_count(found).await?;
        let failure = failure_of(&row, self.record.spec.timeout_ms);
        let exit_code = row.exit_code.and_then(|code| i32::try_from(code).ok());
        let canceled = self.canceled.is_cancelled() || row.status == store::CommandStatus::Canceled;
        self.record(|record| {
            record.close_log(count);
            record.state.exit_code = exit_code;
            if canceled {
                return Vec::new();
            }
            record.state.orchestrated = matches!(
                row.status,
                store::CommandStatus::Exited | store::CommandStatus::TimedOut
            ) || row.termination_signal.is_some();
            record.state.failure.clone_from(&failure);
            vec![record.enter(Status::Collecting)]
        })
        .await?;
        if canceled {
            Err(Halt::Canceled)
        } else {
            Ok(())
        }
    }

    pub(super) async fn log_count(&self, found: &Found) -> Step<u64> {
        let counted = match self.app.log_of(found).await {
            Ok((files, index)) => last_record(&files, &index).await.map_err(ApiError::from),
            Err(error) => Err(error),
        };
        match counted {
            Ok(count) => Ok(count),
            Err(error) => {
                tracing::error!(?error, run = self.record.id(), "its log cannot be read");
                Err(Halt::Suspended)
            }
        }
    }
}
