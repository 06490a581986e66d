//! Detached code runs: begun by one request, followed and fetched by others, whoever is connected.
//!
//! Every run has one task ([`drive`]) from its record to its recorded end. Whoever follows it, asks
//! for its result or cancels it talks to that task through [`live::LiveRun`]. What it says is in
//! a log, as that of a command, before init is told that it was handled; its end is in the store
//! before init may forget it. After a restart [`recovery`] starts the tasks again: a run that has
//! begun is followed on, one that waits for its turn is begun, and none is begun twice.

mod drive;
mod events;
mod live;
mod log_event;
mod record;
mod recovery;
mod start;

pub(crate) use live::Registry;
pub(crate) use record::{RunOptions, list_item};
pub(crate) use start::DetachedRequest;

use crate::app::App;
use crate::audit::Deed;
use crate::auth::{Principal, micros};
use crate::error::{ApiError, ApiResult};
use crate::host::HostError;
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use crownest_api::detached_run::CodeRun;
use crownest_api::{ErrorCode, Timestamp};
use crownest_store as store;
use live::{Found, LiveRun};
use record::RUN_KEEP_MS;
use serde_json::json;
use start::Queued;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Runs of one sandbox that are not over.
const UNFINISHED_PER_SANDBOX_MAX: usize = 64;
/// How long a cancel waits for the end: code that catches its interrupt goes on.
const CANCEL_WAIT: Duration = Duration::from_secs(2);
/// Runs that are forgotten in one step.
const PURGE_ROWS_MAX: i64 = 100;

/// Who asked for a run; unknown once the server was restarted.
#[derive(Debug, Clone)]
struct By {
    who: Arc<Principal>,
    request: RequestContext,
}

impl By {
    fn of(by: Option<&Self>) -> Option<(&Principal, &RequestContext)> {
        by.map(|by| (&*by.who, &by.request))
    }
}

impl App {
    /// Puts a run on record and begins it, now or in its turn. Returns when it has its place among
    /// the runs of its context.
    pub(crate) async fn start_detached(
        &self,
        who: &Arc<Principal>,
        request: &RequestContext,
        live: &Arc<LiveSandbox>,
        asked: DetachedRequest,
    ) -> ApiResult<CodeRun> {
        let context = self
            .context_for_run(live, asked.context_id.as_deref(), asked.language)
            .await?;
        let number = live.host.run_number();
        let row = asked.row(who, live, &context.id, number)?;
        let writer = self.new_run_log(&row.id);
        let run = LiveRun::new(row.clone(), live, Arc::clone(writer.log()));
        if !self.detached.insert(&run, UNFINISHED_PER_SANDBOX_MAX) {
            let limit = UNFINISHED_PER_SANDBOX_MAX;
            let message = format!("{limit} detached runs of this sandbox are not over");
            return Err(ApiError::new(ErrorCode::QuotaExceeded, message)
                .with_details(json!({ "limit": limit })));
        }
        let queued = Queued {
            app: self.clone(),
            sandbox: Arc::clone(live),
            context,
            run,
            writer,
            options: asked.options,
            code: asked.code,
            by: Some(By {
                who: Arc::clone(who),
                request: request.clone(),
            }),
            work: live.work(),
        };
        let (accepted, accepts) = oneshot::channel();
        let inserted = row.clone();
        // A task of its own from the first step: a client that goes away in the middle must not
        // leave a record that nobody drives.
        self.tasks.spawn(async move {
            match queued.app.store.insert_code_run(&inserted).await {
                Ok(()) => queued.begin(Some(accepted)).await,
                Err(error) => {
                    queued.run.finish();
                    queued.app.detached.remove(&queued.run.id);
                    let error = match error {
                        store::StoreError::NotFound { .. } => ApiError::destroyed(),
                        other => other.into(),
                    };
                    let _ = accepted.send(Err(error));
                }
            }
        });
        accepts
            .await
            .map_err(|_| ApiError::internal("the task of a detached run ended early"))??;
        let details = json!({
            "sandboxId": live.id, "contextId": row.context_id, "language": row.language,
        });
        self.audit
            .by_key(who, request, deed("code.start", &row, "ok"), &details);
        record::wire(&row)
    }

    /// Interrupts a run, or takes it out of the queue, and waits a moment for its end. One that
    /// has ended is left as it is.
    pub(crate) async fn cancel_detached(
        &self,
        who: &Principal,
        request: &RequestContext,
        sandbox_id: &str,
        id: &str,
    ) -> ApiResult<CodeRun> {
        let found = self.find_detached(who, sandbox_id, id).await?;
        if let Found::Live(run) = &found {
            self.check_not_paused(sandbox_id)?;
            let now = Timestamp::now();
            if self.store.cancel_code_run(id, micros(now)).await? {
                self.cancel_live(run, now).await?;
                let row = run.row().clone();
                let details = json!({ "sandboxId": row.sandbox_id });
                self.audit
                    .by_key(who, request, deed("code.cancel", &row, "ok"), &details);
            }
            let _ = tokio::time::timeout(CANCEL_WAIT, run.wait()).await;
        }
        self.detached_record(who, sandbox_id, id).await
    }

    async fn cancel_live(&self, run: &Arc<LiveRun>, at: Timestamp) -> ApiResult<()> {
        if !run.cancel(micros(at)) {
            // It waits for its turn, and its task hears of it.
            return Ok(());
        }
        match run.host.interrupt_run(run.number).await {
            // It has ended meanwhile.
            Ok(()) | Err(HostError::SandboxGone) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A run as it is now, with its result once it has ended.
    pub(crate) async fn detached_record(
        &self,
        who: &Principal,
        sandbox_id: &str,
        id: &str,
    ) -> ApiResult<CodeRun> {
        let found = self.find_detached(who, sandbox_id, id).await?;
        record::wire(&found.row())
    }

    /// The detached runs of a sandbox, live or ended, newest first.
    pub(crate) async fn list_detached(
        &self,
        who: &Principal,
        sandbox_id: &str,
        page: &store::PageRequest,
    ) -> ApiResult<store::Page<store::CodeRun>> {
        // Says 404 for a sandbox that the caller may not see.
        self.find_sandbox(who, sandbox_id).await?;
        Ok(self.store.code_runs(&who.org_id, sandbox_id, page).await?)
    }

    /// Forgets runs that ended long ago, with what they said.
    pub(crate) async fn purge_code_runs(&self) -> ApiResult<()> {
        let keep = i64::try_from(RUN_KEEP_MS).unwrap_or(i64::MAX);
        let before = micros(Timestamp::now()).saturating_sub(keep.saturating_mul(1_000));
        loop {
            let over = self
                .store
                .code_runs_ended_before(before, PURGE_ROWS_MAX)
                .await?;
            for id in &over {
                // The log first: a row leads to it.
                let files = self.run_log_files(id);
                tokio::task::spawn_blocking(move || files.remove())
                    .await
                    .map_err(ApiError::internal)?
                    .map_err(ApiError::internal)?;
                self.store.delete_code_run(id).await?;
            }
            if over.is_empty() || self.stopping.is_cancelled() {
                return Ok(());
            }
        }
    }
}

/// What an audit event says of a run.
fn deed<'a>(action: &'static str, row: &'a store::CodeRun, outcome: &'static str) -> Deed<'a> {
    Deed {
        action,
        resource_kind: "code_run",
        resource_id: &row.id,
        project_id: Some(&row.project_id),
        outcome,
    }
}
