//! The sandbox of a run: made for it, or a client's that it has for a while.

use super::drive::Driver;
use super::failure::{Halt, Step, sandbox_gone, unavailable};
use crate::sandboxes::LiveSandbox;
use crownest_api::sandbox::{CreateSandbox, DestroyedReason, SandboxStatus};
use crownest_api::workspace_run::FailureReason;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Label of a run's own sandbox: whose it is, for clients and for a server that was killed between
/// making it and noting it.
const LABEL: &str = "crownest.workspaceRunId";
/// How long a run's own sandbox lives beyond its command: for unpacking and collecting.
const SANDBOX_MARGIN_MS: u64 = 600_000;
impl Driver {
    /// The sandbox of a run that begins.
    pub(super) async fn sandbox(&mut self) -> Step<Arc<LiveSandbox>> {
        if let Some(id) = self.record.spec.sandbox_id.clone() {
            return self.take(&id);
        }
        for left in self.app.sandboxes.of_org(&self.record.row.org_id) {
            if self.is_own(&left) {
                self.end_sandbox(&left).await;
            }
        }
        let ttl_max_ms = self.who.plan.limits(&self.app.config).create_ttl_max_ms;
        let asked = CreateSandbox {
            project_id: Some(self.record.row.project_id.clone()),
            template: Some(self.record.spec.template.slug.clone()),
            template_version_id: Some(self.record.spec.template.version_id.clone()),
            ttl_ms: Some((self.record.spec.timeout_ms + SANDBOX_MARGIN_MS).min(ttl_max_ms)),
            metadata: Some(BTreeMap::from([(
                LABEL.to_owned(),
                self.record.row.id.clone(),
            )])),
            ..CreateSandbox::default()
        };
        let (app, who, request) = (
            self.app.clone(),
            Arc::clone(&self.who),
            self.request.clone(),
        );
        let making = self.app.finish_anyway(async move {
            let creation = app.check_creation(&who, asked)?;
            app.create_sandbox(&who, &request, creation).await
        });
        // To its end also when the run is canceled: whoever takes it away must know it.
        let made = tokio::select! {
            biased;
            () = self.app.stopping.cancelled() => return Err(Halt::Suspended),
            made = making => made,
        };
        if self.canceled.is_cancelled() {
            return Err(Halt::Canceled);
        }
        let sandbox = made.map_err(|error| unavailable(&error))?;
        self.app.sandboxes.get(&sandbox.id).ok_or_else(sandbox_gone)
    }

    /// The sandbox of a run that goes on.
    pub(super) fn sandbox_again(&mut self) -> Step<Option<Arc<LiveSandbox>>> {
        let Some(id) = self.record.state.sandbox_id.clone() else {
            return Ok(None);
        };
        if self.record.spec.sandbox_id.is_some() {
            return match self.take(&id) {
                Err(Halt::Failed(failure))
                    if failure.reason == FailureReason::SandboxUnavailable =>
                {
                    Ok(None)
                }
                other => other.map(Some),
            };
        }
        Ok(self.app.sandboxes.get(&id))
    }

    /// A client's sandbox, for this run alone among runs.
    pub(super) fn take(&mut self, id: &str) -> Step<Arc<LiveSandbox>> {
        let live = self.app.sandboxes.get(id).ok_or_else(sandbox_gone)?;
        if live.ending.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(sandbox_gone());
        }
        if self.taken.is_none() {
            if !self.app.workspace_runs.take(id) {
                let message = "another workspace run has this sandbox";
                return Err(Halt::failed(FailureReason::SandboxConflict, message));
            }
            self.taken = Some(id.to_owned());
        }
        Ok(live)
    }

    pub(super) fn is_own(&self, live: &LiveSandbox) -> bool {
        live.row().metadata.get(LABEL) == Some(&self.record.row.id)
            && self.record.spec.sandbox_id.is_none()
    }

    /// False when its end could not be recorded yet.
    pub(super) async fn end_sandbox(&self, live: &Arc<LiveSandbox>) -> bool {
        let (status, reason) = (SandboxStatus::Destroyed, DestroyedReason::PlatformCleanup);
        let (app, ending) = (self.app.clone(), Arc::clone(live));
        self.app
            .finish_anyway(async move { app.end(&ending, status, reason).await })
            .await;
        live.recorded.load(std::sync::atomic::Ordering::Relaxed)
    }
}
