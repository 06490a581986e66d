//! How sandboxes come and go: create, extend, end, expire.
//!
//! Order of a creation: quota, processes, row. Processes without a row are killed at the next
//! start; a row without processes is never written. Order of an ending: no new work, processes,
//! row; whoever asks later finds the tombstone. Every live sandbox has one task that waits for
//! its deadline and for its death; nothing polls.

use crate::app::App;
use crate::audit::{AuditLog, Deed};
use crate::auth::{Principal, micros};
use crate::creation::{Creation, check_ttl, ttl_exceeded};
use crate::error::{ApiError, ApiResult};
use crate::host::{ClosedReason, SandboxSpec};
use crate::metrics;
use crate::request::RequestContext;
use crate::runtimes::{self, Share};
use crate::sandboxes::LiveSandbox;
use crate::snapshots;
use crownest_api::sandbox::{DestroyedReason, Sandbox, SandboxStatus};
use crownest_api::{IdKind, Timestamp, new_id};
use crownest_store as store;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Init ends a sandbox this much after its time, in case no server did.
pub(crate) const INIT_GRACE_MS: u64 = 2_000;
/// Usage metric written at the end of a sandbox. Whole milliseconds: seconds would lose the short
/// sandboxes, which are most.
pub(crate) const COMPUTE_METRIC: &str = "compute_unit_milliseconds";

impl App {
    /// Makes a sandbox; it can be used when this returns.
    pub(crate) async fn create_sandbox(
        &self,
        who: &Principal,
        request: &RequestContext,
        creation: Creation,
    ) -> ApiResult<Sandbox> {
        let started = Instant::now();
        let asked = &creation.request;
        let project_id = self.project_of(who, asked.project_id.as_deref()).await?;
        let slug = asked
            .template
            .as_deref()
            .unwrap_or(&self.config.default_template);
        let template = self
            .templates
            .resolve(slug, asked.template_version_id.as_deref())
            .await?;
        self.check_credit(who).await?;
        let limits = who.plan.limits(&self.config);
        let slot = self.sandboxes.slot(&who.org_id, limits.sandboxes_max)?;
        let created_at = Timestamp::now();

        let asked_env = creation.request.env.clone().unwrap_or_default();
        let configured_env = &self.config.sandbox_env;
        let chosen = runtimes::choose(&template, configured_env, &asked_env)?;
        let env = runtimes::environment(
            &template,
            &chosen,
            Share::here(creation.limits.cpu_millis),
            configured_env,
            &asked_env,
        );
        let spec = SandboxSpec {
            key: None,
            template: template.reference(),
            limits: creation.limits,
            network: creation.network,
            snapshot: creation.snapshot.as_ref().and_then(snapshots::key),
            runtimes: chosen,
            env,
            egress: creation.egress.clone(),
            key_variable: creation
                .id_variable
                .map(|name| (name, format!("{}_", IdKind::Sandbox.prefix()))),
            deadline: Duration::from_millis(creation.ttl_ms + INIT_GRACE_MS),
        };
        let (host, timings) = self.host.create(spec).await?;
        let row = creation.row(self, who, &template, project_id, &host, created_at);
        let deed = Deed {
            action: "sandbox.create",
            resource_kind: "sandbox",
            resource_id: &row.id,
            project_id: Some(&row.project_id),
            outcome: "ok",
        };
        let details = json!({ "template": template.slug });
        let records = store::Records {
            usage: &usage(&row, "sandbox_creates", 1),
            audit: Some(&AuditLog::event_by_key(who, request, deed, &details)),
        };
        if let Err(error) = self.store.begin_sandbox(&row, records).await {
            if let Err(error) = self.host.destroy(host.key()).await {
                tracing::error!(%error, sandbox = %row.id, "taking a creation back failed");
            }
            return Err(error.into());
        }
        let live = Arc::new(LiveSandbox::new(row, host, template.languages, slot));
        self.adopt(&live);

        let source = if timings.pooled { "pool" } else { "cold" };
        self.metrics
            .create_seconds
            .get_or_create(&metrics::Source { source })
            .observe(started.elapsed().as_secs_f64());
        Ok(live.wire())
    }

    /// Makes a sandbox known, and starts the task that ends it.
    pub(crate) fn adopt(&self, live: &Arc<LiveSandbox>) {
        self.sandboxes.insert(live);
        self.metrics
            .sandboxes_live
            .set(i64::try_from(self.sandboxes.len()).unwrap_or(i64::MAX));
        let (app, live) = (self.clone(), Arc::clone(live));
        self.tasks.spawn(async move { app.watch(&live).await });
    }

    /// Waits for what ends a sandbox: its time, its death, or the server's.
    async fn watch(&self, live: &Arc<LiveSandbox>) {
        let mut expiry = live.expiry.subscribe();
        loop {
            let expires_at = *expiry.borrow_and_update();
            let left = Timestamp::now().millis_until(expires_at);
            tokio::select! {
                reason = live.host.closed() => {
                    if reason == ClosedReason::InitGone {
                        let (status, reason) = verdict(Timestamp::now(), expires_at);
                        self.end(live, status, reason).await;
                    }
                    return;
                }
                () = tokio::time::sleep(Duration::from_millis(left)) => {
                    // The wall clock decides, and it may have been set back meanwhile.
                    if Timestamp::now() >= expires_at && *live.expiry.borrow() == expires_at {
                        self.end(live, SandboxStatus::Destroyed, DestroyedReason::TtlExpired).await;
                        return;
                    }
                }
                changed = expiry.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.stopping.cancelled() => return,
            }
        }
    }

    /// Gives a sandbox a new time to live, from now.
    pub(crate) async fn extend_sandbox(
        &self,
        who: &Principal,
        live: &Arc<LiveSandbox>,
        ttl_ms: u64,
    ) -> ApiResult<Sandbox> {
        let limits = who.plan.limits(&self.config);
        check_ttl(ttl_ms, limits.extend_ttl_max_ms)?;
        let now = Timestamp::now();
        let expires_at = now.plus_millis(ttl_ms);
        let born = Timestamp::from_millis(live.row().created_at / 1_000);
        if born.millis_until(expires_at) > limits.session_ttl_max_ms {
            return Err(ttl_exceeded(
                limits.session_ttl_max_ms,
                "a sandbox lives at most",
            ));
        }
        let _turn = live.turn.lock().await;
        // Init first when the time grows, so that it never ends a sandbox too early; it also
        // refuses for one that is gone. That of a paused one hears of it when it is resumed.
        if !live.paused.load(Ordering::Relaxed) {
            live.host
                .set_deadline(Duration::from_millis(ttl_ms + INIT_GRACE_MS))
                .await?;
        }
        let expiry = store::Expiry {
            ttl_ms: i64::try_from(ttl_ms).unwrap_or(i64::MAX),
            expires_at: micros(expires_at),
        };
        let row = self
            .store
            .extend_sandbox(&live.org_id, &live.id, expiry)
            .await?;
        let row = row.ok_or_else(ApiError::destroyed)?;
        {
            // Its labels may have been changed meanwhile.
            let mut known = live.row();
            (known.ttl_ms, known.expires_at) = (row.ttl_ms, row.expires_at);
        }
        live.expiry.send_replace(expires_at);
        Ok(live.wire())
    }

    /// Ends a sandbox. Of several callers one does it, and all return when it is done.
    pub(crate) async fn end(
        &self,
        live: &Arc<LiveSandbox>,
        status: SandboxStatus,
        reason: DestroyedReason,
    ) {
        live.ending.store(true, Ordering::Relaxed);
        live.ended
            .get_or_init(|| self.end_once(live, status, reason))
            .await;
    }

    async fn end_once(
        &self,
        live: &Arc<LiveSandbox>,
        status: SandboxStatus,
        reason: DestroyedReason,
    ) {
        if let Err(error) = self.host.destroy(live.host.key()).await {
            tracing::error!(%error, sandbox = %live.id, "destroying a sandbox failed; its init ends it");
        }
        self.commands_end_with(&live.id).await;
        let now = Timestamp::now();
        {
            let mut row = live.row();
            row.status = stored(status);
            row.destroyed_reason = Some(reason.as_str().to_owned());
            row.destroyed_at = Some(micros(now));
        }
        let audit = (reason != DestroyedReason::UserKilled).then(|| {
            let details = json!({ "reason": reason.as_str() });
            let deed = deed("sandbox.end", live, status.as_str());
            AuditLog::event_by_system(&live.org_id, deed, &details)
        });
        let charged = live.charged_ms();
        let end = End::of(&live.row(), status, reason, now, charged, audit);
        if self.record_end(&end).await {
            self.forget(live);
        } else {
            // Until its tombstone is written it is known from here.
            let (live, end) = (Arc::clone(live), Arc::new(end));
            self.persist("a tombstone", move |app| {
                let (live, end) = (Arc::clone(&live), Arc::clone(&end));
                async move {
                    end.write(&app.store).await?;
                    app.forget(&live);
                    Ok(())
                }
            });
        }
        self.end_previews(&live.id, now).await;
        if let Some(counts) = live.host.egress_counters() {
            self.metrics.egress_ended.add(&counts);
        }
    }

    /// The store has its tombstone: from here on it is answered from there.
    fn forget(&self, live: &LiveSandbox) {
        live.recorded.store(true, Ordering::Relaxed);
        self.sandboxes.remove(&live.id);
        self.metrics
            .sandboxes_live
            .set(i64::try_from(self.sandboxes.len()).unwrap_or(i64::MAX));
    }

    /// Writes the end of a sandbox. False when the store could not take it.
    pub(crate) async fn record_end(&self, end: &End) -> bool {
        self.metrics
            .sandboxes_ended
            .get_or_create(&metrics::Reason {
                reason: end.reason.as_str(),
            })
            .inc();
        let written = end.write(&self.store).await;
        if let Err(error) = &written {
            tracing::error!(%error, sandbox = end.id, "writing a tombstone failed");
        }
        written.is_ok()
    }
}

/// The end of a sandbox: its tombstone, what it has used, and the audit event of an end that
/// nobody asked for.
#[derive(Debug)]
pub(crate) struct End {
    id: String,
    status: SandboxStatus,
    reason: DestroyedReason,
    at: Timestamp,
    usage: store::UsageEvent,
    audit: Option<store::AuditEvent>,
}

impl End {
    pub(crate) fn of(
        row: &store::Sandbox,
        status: SandboxStatus,
        reason: DestroyedReason,
        at: Timestamp,
        charged_ms: i64,
        audit: Option<store::AuditEvent>,
    ) -> Self {
        Self {
            id: row.id.clone(),
            status,
            reason,
            at,
            usage: usage(row, COMPUTE_METRIC, charged_ms),
            audit,
        }
    }

    /// In one commit, and once: nothing is added to a sandbox that has its tombstone.
    async fn write(&self, store: &store::Store) -> Result<(), store::StoreError> {
        let ending = store::Ending {
            status: stored(self.status),
            reason: self.reason.as_str(),
            at: micros(self.at),
        };
        let records = store::Records {
            usage: &self.usage,
            audit: self.audit.as_ref(),
        };
        store.end_sandbox_recorded(&self.id, ending, records).await
    }
}

impl App {
    /// Writes usage of a sandbox beside the request that caused it.
    pub(crate) fn note_usage(&self, row: &store::Sandbox, metric: &str, amount: i64) {
        let event = usage(row, metric, amount);
        let app = self.clone();
        self.tasks.spawn(async move {
            let events = [event];
            if let Err(error) = app.store.insert_usage_events(&events).await {
                tracing::warn!(%error, "writing a usage event failed");
                app.persist("a usage event", move |app| {
                    let events = events.clone();
                    async move { written(app.store.insert_usage_events(&events).await) }
                });
            }
        });
    }
}

/// An event that is there already was written by an earlier try.
fn written(outcome: Result<(), store::StoreError>) -> Result<(), store::StoreError> {
    match outcome {
        Err(store::StoreError::Conflict { .. }) => Ok(()),
        other => other,
    }
}

/// Usage of a sandbox, as of now.
fn usage(row: &store::Sandbox, metric: &str, amount: i64) -> store::UsageEvent {
    store::UsageEvent {
        id: new_id(IdKind::AuditEvent),
        org_id: row.org_id.clone(),
        project_id: Some(row.project_id.clone()),
        resource_id: Some(row.id.clone()),
        metric: metric.to_owned(),
        amount,
        created_at: micros(Timestamp::now()),
    }
}

/// What an audit event says of a sandbox.
pub(crate) fn deed<'a>(
    action: &'static str,
    live: &'a LiveSandbox,
    outcome: &'static str,
) -> Deed<'a> {
    Deed {
        action,
        resource_kind: "sandbox",
        resource_id: &live.id,
        project_id: Some(&live.project_id),
        outcome,
    }
}

/// How a sandbox ended that was found dead: at its time, or before.
pub(crate) fn verdict(now: Timestamp, expires_at: Timestamp) -> (SandboxStatus, DestroyedReason) {
    if now >= expires_at {
        (SandboxStatus::Destroyed, DestroyedReason::TtlExpired)
    } else {
        (SandboxStatus::Failed, DestroyedReason::PlatformCleanup)
    }
}

fn stored(status: SandboxStatus) -> store::SandboxStatus {
    if status == SandboxStatus::Failed {
        store::SandboxStatus::Failed
    } else {
        store::SandboxStatus::Destroyed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_found_dead_after_its_time_expired_and_before_it_failed() {
        let expiry = Timestamp::from_millis(1_000);
        let at = |ms| verdict(Timestamp::from_millis(ms), expiry);
        assert_eq!(
            at(1_000),
            (SandboxStatus::Destroyed, DestroyedReason::TtlExpired)
        );
        assert_eq!(
            at(999),
            (SandboxStatus::Failed, DestroyedReason::PlatformCleanup)
        );
    }
}
