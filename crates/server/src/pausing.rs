//! Pause and resume of a sandbox: everything in it stops, its memory is kept.
//!
//! Order of a pause: no new work, init's clock, processes, row. Order of a resume: init's deadline
//! and clock, processes, row. A server that dies in between leaves a row that says *paused* or
//! does not, and the next one makes the processes agree with it ([`App::recover`]): it lets all go
//! on to take them up, and stops those again whose row says so.
//!
//! A paused sandbox ends at its time like any other, and is charged for like any other: its memory
//! is taken. What was asked for before is delayed, not refused; timeouts of runs and commands do
//! not run while it is paused.

use crate::app::App;
use crate::audit::{AuditLog, Deed};
use crate::auth::Principal;
use crate::error::{ApiError, ApiResult};
use crate::lifecycle::{self, INIT_GRACE_MS};
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use crownest_api::sandbox::Sandbox;
use crownest_api::{ErrorCode, Timestamp};
use crownest_store as store;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl App {
    /// Stops everything in a sandbox; it is stopped, and on record as such, when this returns.
    /// Goes to its end whether or not anybody waits.
    ///
    /// # Errors
    /// `sandbox_paused` when it is, `sandbox_destroyed` when it has ended, `unavailable` when it
    /// could not be stopped: then it goes on.
    pub(crate) async fn pause_sandbox(
        &self,
        who: &Principal,
        request: &RequestContext,
        live: &Arc<LiveSandbox>,
    ) -> ApiResult<Sandbox> {
        let event = AuditLog::event_by_key(who, request, done("sandbox.pause", live), &json!({}));
        let (app, live) = (self.clone(), Arc::clone(live));
        self.finish_anyway(async move {
            app.pause(&live).await?;
            app.audit.push(event);
            Ok(live.wire())
        })
        .await
    }

    /// Lets everything in a paused sandbox go on.
    ///
    /// # Errors
    /// `sandbox_not_paused` when it is not, `sandbox_destroyed` when it has ended, `unavailable`
    /// when it could not be continued: then it stays paused.
    pub(crate) async fn resume_sandbox(
        &self,
        who: &Principal,
        request: &RequestContext,
        live: &Arc<LiveSandbox>,
    ) -> ApiResult<Sandbox> {
        let event = AuditLog::event_by_key(who, request, done("sandbox.resume", live), &json!({}));
        let (app, live) = (self.clone(), Arc::clone(live));
        self.finish_anyway(async move {
            app.resume(&live).await?;
            app.audit.push(event);
            Ok(live.wire())
        })
        .await
    }

    async fn pause(&self, live: &LiveSandbox) -> ApiResult<()> {
        let _turn = live.turn.lock().await;
        check_kept(live)?;
        live.check_not_paused()?;
        live.paused.store(true, Ordering::Relaxed);
        let outcome = self.stop_and_record(live).await;
        if outcome.is_err() {
            live.paused.store(false, Ordering::Relaxed);
        }
        outcome
    }

    async fn stop_and_record(&self, live: &LiveSandbox) -> ApiResult<()> {
        live.host.pause().await?;
        let recorded = self.record_status(live, store::SandboxStatus::Paused).await;
        if recorded.is_err()
            && let Err(error) = live.host.resume(time_left(live)).await
        {
            tracing::warn!(%error, sandbox = %live.id, "taking a pause back failed");
            live.host.go_on_at_last().await;
        }
        recorded
    }

    async fn resume(&self, live: &LiveSandbox) -> ApiResult<()> {
        let _turn = live.turn.lock().await;
        check_kept(live)?;
        if !live.paused.load(Ordering::Relaxed) {
            let message = "the sandbox is not paused";
            return Err(ApiError::new(ErrorCode::SandboxNotPaused, message));
        }
        live.host.resume(time_left(live)).await?;
        let recorded = self.record_status(live, store::SandboxStatus::Ready).await;
        if recorded.is_ok() {
            live.paused.store(false, Ordering::Relaxed);
        } else if let Err(error) = live.host.pause().await {
            tracing::error!(%error, sandbox = %live.id, "taking a resume back failed");
        }
        recorded
    }

    async fn record_status(
        &self,
        live: &LiveSandbox,
        status: store::SandboxStatus,
    ) -> ApiResult<()> {
        if !self.store.set_sandbox_status(&live.id, status).await? {
            return Err(ApiError::destroyed());
        }
        let mut row = live.row();
        // Its end may have been written between the two.
        if !row.status.is_terminal() {
            row.status = status;
        }
        Ok(())
    }

    /// After a restart: stops a sandbox again whose row says that it is paused. If that fails it
    /// is not, and its row says so.
    pub(crate) async fn pause_again(&self, live: &LiveSandbox) -> ApiResult<()> {
        let _turn = live.turn.lock().await;
        let Err(error) = live.host.pause().await else {
            return Ok(());
        };
        tracing::error!(%error, sandbox = %live.id, "a paused sandbox could not be stopped again");
        live.paused.store(false, Ordering::Relaxed);
        self.record_status(live, store::SandboxStatus::Ready).await
    }
}

fn check_kept(live: &LiveSandbox) -> ApiResult<()> {
    if live.ending.load(Ordering::Relaxed) {
        return Err(ApiError::destroyed());
    }
    Ok(())
}

/// Until init ends it by itself.
pub(crate) fn time_left(live: &LiveSandbox) -> Duration {
    let left = Timestamp::now().millis_until(*live.expiry.borrow());
    Duration::from_millis(left + INIT_GRACE_MS)
}

fn done<'a>(action: &'static str, live: &'a LiveSandbox) -> Deed<'a> {
    lifecycle::deed(action, live, "ok")
}
