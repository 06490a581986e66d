//! How sandboxes come and go: create, extend, end, expire, and what a restart finds.
//!
//! Order of a creation: quota, processes, row. Processes without a row are killed at the next
//! start; a row without processes is never written. Order of an ending: no new work, processes,
//! row; whoever asks later finds the tombstone. Every live sandbox has one task that waits for
//! its deadline and for its death; nothing polls.

use crate::app::App;
use crate::audit::Deed;
use crate::auth::{Principal, micros};
use crate::checks;
use crate::error::{ApiError, ApiResult};
use crate::host::{
    ClosedReason, KnownSandbox, Limits, Network, SandboxKey, SandboxSpec, TemplateRef,
};
use crate::metrics;
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use crate::templates::Template;
use crownest_api::sandbox::{
    CreateSandbox, DestroyedReason, NetworkMode, Resources, Sandbox, SandboxStatus,
};
use crownest_api::{ErrorCode, IdKind, Timestamp, limits, metadata, new_id};
use crownest_store as store;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Init ends a sandbox this much after its time, in case no server did.
const INIT_GRACE_MS: u64 = 2_000;
/// Usage metric written at the end of a sandbox. Whole milliseconds: seconds would lose the short
/// sandboxes, which are most.
pub(crate) const COMPUTE_METRIC: &str = "compute_unit_milliseconds";

/// What the row remembers for a restart; `runtime` in the store.
#[derive(Debug, Serialize, Deserialize)]
struct RuntimeNote {
    /// Digest of the template's root.
    template: String,
}

/// A creation whose request has been checked.
#[derive(Debug)]
pub(crate) struct Creation {
    request: CreateSandbox,
    ttl_ms: u64,
    limits: Limits,
    network: Network,
}

impl App {
    /// Checks what can be checked without asking anybody.
    pub(crate) fn check_creation(&self, request: CreateSandbox) -> ApiResult<Creation> {
        if request.restore_from.is_some() {
            let message = "backups are not enabled on this server";
            return Err(ApiError::new(ErrorCode::FeatureNotEnabled, message)
                .with_details(json!({ "field": "restoreFrom" })));
        }
        let max = self.config.ttl_max_ms;
        let ttl_ms = request
            .ttl_ms
            .unwrap_or_else(|| limits::SANDBOX_TTL_DEFAULT_MS.min(max));
        check_ttl(ttl_ms, max)?;
        if let Some(map) = &request.metadata {
            metadata::check(map)?;
        }
        if let Some(env) = &request.env {
            checks::environment(env)?;
        }
        let limits = self.limits(request.resources.unwrap_or_default())?;
        let network = match request.network.unwrap_or_default() {
            NetworkMode::Proxy => Network::Proxy,
            NetworkMode::None => Network::None,
        };
        Ok(Creation {
            request,
            ttl_ms,
            limits,
            network,
        })
    }

    fn limits(&self, asked: Resources) -> ApiResult<Limits> {
        let (default, max, min) = (
            self.config.limits_default,
            self.config.limits_max,
            Limits::MIN,
        );
        Ok(Limits {
            memory_bytes: bounded(
                "memoryBytes",
                asked.memory_bytes,
                default.memory_bytes,
                min.memory_bytes,
                max.memory_bytes,
            )?,
            cpu_millis: bounded(
                "cpuMillis",
                asked.cpu_millis,
                default.cpu_millis,
                min.cpu_millis,
                max.cpu_millis,
            )?,
            pids: bounded("pids", asked.pids, default.pids, min.pids, max.pids)?,
            disk_bytes: bounded(
                "diskBytes",
                asked.disk_bytes,
                default.disk_bytes,
                min.disk_bytes,
                max.disk_bytes,
            )?,
            ..default
        })
    }

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
        let slot = self
            .sandboxes
            .slot(&who.org_id, self.config.sandboxes_per_org_max)?;
        let created_at = Timestamp::now();

        let mut env = self.config.sandbox_env.clone();
        env.extend(creation.request.env.clone().unwrap_or_default());
        let spec = SandboxSpec {
            key: None,
            template: template.reference(),
            limits: creation.limits,
            network: creation.network,
            env,
            deadline: Duration::from_millis(creation.ttl_ms + INIT_GRACE_MS),
        };
        let (host, timings) = self.host.create(spec).await?;
        let row = creation.row(self, who, &template, project_id, host.key(), created_at);
        if let Err(error) = self.store.insert_sandbox(&row).await {
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
        self.note_usage(&live, "sandbox_creates", 1);
        let deed = deed("sandbox.create", &live, "ok");
        self.audit
            .by_key(who, request, deed, &json!({ "template": template.slug }));
        Ok(live.wire())
    }

    /// The project that a new sandbox belongs to.
    async fn project_of(&self, who: &Principal, asked: Option<&str>) -> ApiResult<String> {
        let id = match (asked, &who.project_ids) {
            (Some(id), _) => id,
            (None, Some(ids)) if ids.len() == 1 => &ids[0],
            (None, _) => {
                let project = self.store.default_project(&who.org_id).await?;
                if who.may_touch(&project.id) {
                    return Ok(project.id);
                }
                return Err(ApiError::field(
                    "projectId",
                    "projectId is required: this key is restricted to several projects",
                ));
            }
        };
        if !who.may_touch(id) {
            return Err(ApiError::new(
                ErrorCode::Forbidden,
                "this key may not touch that project",
            ));
        }
        if !IdKind::Project.matches(id) {
            return Err(ApiError::not_found("project"));
        }
        Ok(self.store.project(&who.org_id, id).await?.id)
    }

    /// Makes a sandbox known, and starts the task that ends it.
    fn adopt(&self, live: &Arc<LiveSandbox>) {
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
        live: &Arc<LiveSandbox>,
        ttl_ms: u64,
    ) -> ApiResult<Sandbox> {
        check_ttl(ttl_ms, self.config.extend_max_ms)?;
        let now = Timestamp::now();
        let expires_at = now.plus_millis(ttl_ms);
        let born = Timestamp::from_millis(live.row().created_at / 1_000);
        if born.millis_until(expires_at) > self.config.session_max_ms {
            return Err(ttl_exceeded(
                self.config.session_max_ms,
                "a sandbox lives at most",
            ));
        }
        // Init first when the time grows, so that it never ends a sandbox too early; it also
        // refuses for one that is gone.
        live.host
            .set_deadline(Duration::from_millis(ttl_ms + INIT_GRACE_MS))
            .await?;
        let expiry = store::Expiry {
            ttl_ms: i64::try_from(ttl_ms).unwrap_or(i64::MAX),
            expires_at: micros(expires_at),
        };
        let row = self
            .store
            .extend_sandbox(&live.org_id, &live.id, expiry)
            .await?;
        *live.row() = row.ok_or_else(ApiError::destroyed)?;
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
        let now = Timestamp::now();
        {
            let mut row = live.row();
            row.status = stored(status);
            row.destroyed_reason = Some(reason.as_str().to_owned());
            row.destroyed_at = Some(micros(now));
        }
        self.record_end(&live.id, status, reason, now).await;
        self.sandboxes.remove(&live.id);
        self.metrics
            .sandboxes_live
            .set(i64::try_from(self.sandboxes.len()).unwrap_or(i64::MAX));
        self.note_usage(live, COMPUTE_METRIC, lifetime_ms(&live.row(), now));
        if reason != DestroyedReason::UserKilled {
            let details = json!({ "reason": reason.as_str() });
            self.audit.by_system(
                &live.org_id,
                deed("sandbox.end", live, status.as_str()),
                &details,
            );
        }
    }

    /// Writes the tombstone.
    async fn record_end(
        &self,
        id: &str,
        status: SandboxStatus,
        reason: DestroyedReason,
        at: Timestamp,
    ) {
        let ending = store::Ending {
            status: stored(status),
            reason: reason.as_str(),
            at: micros(at),
        };
        if let Err(error) = self.store.end_sandbox(id, ending).await {
            tracing::error!(%error, sandbox = id, "writing a tombstone failed; the next start does it");
        }
        if let Err(error) = self.store.delete_contexts_of_sandbox(id).await {
            tracing::warn!(%error, sandbox = id, "removing the contexts of a sandbox failed");
        }
        self.metrics
            .sandboxes_ended
            .get_or_create(&metrics::Reason {
                reason: reason.as_str(),
            })
            .inc();
    }

    /// Writes a usage event beside the request.
    fn note_usage(&self, live: &LiveSandbox, metric: &'static str, amount: i64) {
        let event = store::UsageEvent {
            id: new_id(IdKind::AuditEvent),
            org_id: live.org_id.clone(),
            project_id: Some(live.project_id.clone()),
            resource_id: Some(live.id.clone()),
            metric: metric.to_owned(),
            amount,
            created_at: micros(Timestamp::now()),
        };
        let app = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = app.store.insert_usage_events(&[event]).await {
                tracing::error!(%error, metric, "writing a usage event failed");
            }
        });
    }

    /// Makes rows and processes agree after a start.
    ///
    /// # Errors
    /// When the store or the spawner cannot be asked.
    pub async fn recover(&self) -> ApiResult<()> {
        let rows = self
            .store
            .live_sandboxes_of_node(&self.config.node_id)
            .await?;
        let known: Vec<KnownSandbox> = rows.iter().filter_map(known).collect();
        let found = self.host.recover(&known).await?;
        let (mut kept, mut ended) = (0, 0);
        for row in rows {
            let alive = known_key(&row)
                .filter(|key| found.alive.contains(key))
                .and_then(|key| self.host.get(&key));
            match alive {
                Some(host) => {
                    self.readopt(row, host).await?;
                    kept += 1;
                }
                None => {
                    let expires_at = Timestamp::from_millis(row.expires_at / 1_000);
                    let now = Timestamp::now();
                    let (status, reason) = verdict(now, expires_at);
                    self.record_end(&row.id, status, reason, now).await;
                    ended += 1;
                }
            }
        }
        tracing::info!(
            kept,
            ended,
            unknown_killed = found.killed_unknown,
            "sandboxes reconciled"
        );
        Ok(())
    }

    /// Takes a sandbox of the server before into use; if its time is over, its task ends it.
    async fn readopt(&self, row: store::Sandbox, host: Arc<crate::host::Sandbox>) -> ApiResult<()> {
        let slot = self.sandboxes.slot(&row.org_id, None)?;
        let languages = self
            .templates
            .by_digest(&host.template().digest)
            .map_or_else(Vec::new, |template| template.languages);
        let live = Arc::new(LiveSandbox::new(row, host, languages, slot));
        self.restore_contexts(&live).await?;
        self.adopt(&live);
        Ok(())
    }
}

impl Creation {
    fn row(
        &self,
        app: &App,
        who: &Principal,
        template: &Template,
        project_id: String,
        key: &SandboxKey,
        created_at: Timestamp,
    ) -> store::Sandbox {
        let ready_at = Timestamp::now();
        let note = RuntimeNote {
            template: template.digest.clone(),
        };
        store::Sandbox {
            id: format!("{}_{key}", IdKind::Sandbox.prefix()),
            org_id: who.org_id.clone(),
            project_id,
            node_id: app.config.node_id.clone(),
            status: store::SandboxStatus::Ready,
            template_slug: template.slug.clone(),
            template_id: template.id(),
            template_version: template.version.clone(),
            template_version_id: template.version_id.clone(),
            ttl_ms: i64::try_from(self.ttl_ms).unwrap_or(i64::MAX),
            created_at: micros(created_at),
            ready_at: Some(micros(ready_at)),
            expires_at: micros(ready_at.plus_millis(self.ttl_ms)),
            destroyed_at: None,
            destroyed_reason: None,
            metadata: self.request.metadata.clone().unwrap_or_default(),
            runtime: serde_json::to_string(&note).ok(),
            network_mode: match self.network {
                Network::Proxy => "proxy".to_owned(),
                Network::None => "none".to_owned(),
            },
            created_by: who.key_id.to_string(),
        }
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

/// Milliseconds that are charged for: from ready to the end, never past the expiry.
pub(crate) fn lifetime_ms(row: &store::Sandbox, now: Timestamp) -> i64 {
    let end = row.destroyed_at.unwrap_or_else(|| micros(now)).min(row.expires_at);
    (end - row.ready_at.unwrap_or(end)).max(0) / 1_000
}

/// How a sandbox ended that was found dead: at its time, or before.
fn verdict(now: Timestamp, expires_at: Timestamp) -> (SandboxStatus, DestroyedReason) {
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

fn known_key(row: &store::Sandbox) -> Option<SandboxKey> {
    SandboxKey::new(IdKind::Sandbox.suffix(&row.id)?)
}

fn known(row: &store::Sandbox) -> Option<KnownSandbox> {
    let note: RuntimeNote = serde_json::from_str(row.runtime.as_deref()?).ok()?;
    let template = TemplateRef {
        slug: row.template_slug.clone(),
        digest: note.template,
    };
    Some(KnownSandbox {
        key: known_key(row)?,
        template,
    })
}

fn check_ttl(ttl_ms: u64, max: u64) -> ApiResult<()> {
    if ttl_ms == 0 {
        return Err(ApiError::field("ttlMs", "ttlMs must be a positive integer"));
    }
    if ttl_ms > max {
        return Err(ttl_exceeded(max, "ttlMs is at most"));
    }
    Ok(())
}

fn ttl_exceeded(max: u64, what: &str) -> ApiError {
    ApiError::new(ErrorCode::SandboxTtlExceeded, format!("{what} {max} ms"))
        .with_details(json!({ "field": "ttlMs", "limit": max }))
}

fn bounded<T: PartialOrd + std::fmt::Display + Copy>(
    field: &str,
    asked: Option<T>,
    default: T,
    min: T,
    max: T,
) -> ApiResult<T> {
    match asked {
        None => Ok(default),
        Some(value) if value >= min && value <= max => Ok(value),
        Some(_) => Err(ApiError::field(
            &format!("resources.{field}"),
            format!("{field} must be between {min} and {max}"),
        )),
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

    #[test]
    fn resources_are_bounded_on_both_sides() {
        assert_eq!(bounded("pids", None, 5, 1, 9).unwrap(), 5);
        assert_eq!(bounded("pids", Some(9), 5, 1, 9).unwrap(), 9);
        for bad in [0, 10] {
            let error = bounded("pids", Some(bad), 5, 1, 9).unwrap_err();
            assert_eq!(error.details.unwrap()["field"], "resources.pids");
        }
    }
}
