//! A sandbox that is asked for: the request checked, its project found, its row made.

use crate::app::App;
use crate::auth::{Principal, micros};
use crate::checks;
use crate::egress::SandboxRules;
use crate::error::{ApiError, ApiResult};
use crate::host::{self, Limits, Network};
use crate::metering;
use crate::recovery::RuntimeNote;
use crate::templates::Template;
use crownest_api::sandbox::{CreateSandbox, NetworkMode, Resources};
use crownest_api::{ErrorCode, IdKind, Timestamp, limits, metadata};
use crownest_store as store;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

/// A creation whose request has been checked.
#[derive(Debug)]
pub(crate) struct Creation {
    pub(crate) request: CreateSandbox,
    pub(crate) ttl_ms: u64,
    pub(crate) limits: Limits,
    pub(crate) network: Network,
    /// Egress rules of its own.
    pub(crate) egress: Option<SandboxRules>,
    /// The variable of its environment in which it finds its own id.
    pub(crate) id_variable: Option<&'static str>,
    /// What a dialect remembers of the request; nobody else reads it.
    pub(crate) dialect: Option<Value>,
    /// What its files are at first; none: the template's alone.
    pub(crate) snapshot: Option<store::Snapshot>,
}

impl App {
    /// Checks what can be checked without asking anybody.
    pub(crate) fn check_creation(
        &self,
        who: &Principal,
        request: CreateSandbox,
    ) -> ApiResult<Creation> {
        if request.restore_from.is_some() {
            let message = "backups are not enabled on this server";
            return Err(ApiError::new(ErrorCode::FeatureNotEnabled, message)
                .with_details(json!({ "field": "restoreFrom" })));
        }
        let max = who.plan.limits(&self.config).create_ttl_max_ms;
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
            egress: None,
            id_variable: None,
            dialect: None,
            snapshot: None,
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

    /// The project that a new sandbox belongs to.
    pub(crate) async fn project_of(
        &self,
        who: &Principal,
        asked: Option<&str>,
    ) -> ApiResult<String> {
        let id = match (asked, &who.project_ids) {
            (Some(id), _) => id,
            (None, Some(ids)) if ids.len() == 1 => &ids[0],
            (None, _) => {
                let id = self.default_project_of(&who.org_id).await?;
                if who.may_touch(&id) {
                    return Ok(id);
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
}

/// Organizations whose default project is remembered; above it all are forgotten at once, which
/// costs one read each.
const DEFAULTS_CACHED_MAX: usize = 4_096;

/// The default projects of organizations, by organization. One is made together with its
/// organization and is never another, so nothing has to be forgotten.
#[derive(Debug, Default)]
pub(crate) struct DefaultProjects(Mutex<HashMap<String, String>>);

impl DefaultProjects {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().expect("no panic while it is held")
    }
}

impl App {
    async fn default_project_of(&self, org_id: &str) -> ApiResult<String> {
        if let Some(id) = self.default_projects.lock().get(org_id) {
            return Ok(id.clone());
        }
        let id = self.store.default_project(org_id).await?.id;
        let mut known = self.default_projects.lock();
        if known.len() >= DEFAULTS_CACHED_MAX {
            known.clear();
        }
        known.insert(org_id.to_owned(), id.clone());
        Ok(id)
    }
}

impl Creation {
    /// The row of the sandbox that was made.
    pub(crate) fn row(
        &self,
        app: &App,
        who: &Principal,
        template: &Template,
        project_id: String,
        host: &host::Sandbox,
        created_at: Timestamp,
    ) -> store::Sandbox {
        let ready_at = Timestamp::now();
        let note = RuntimeNote {
            template: template.digest.clone(),
            languages: template.languages.clone(),
            runtimes: host.runtimes().as_ref().clone(),
            ready_ticks_ms: Some(metering::ticks_ms()),
            disk_bytes: Some(self.limits.disk_bytes),
            egress: self.egress.clone(),
            dialect: self.dialect.clone(),
        };
        store::Sandbox {
            id: format!("{}_{}", IdKind::Sandbox.prefix(), host.key()),
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

/// Refuses a time to live that is none, or over `max`.
pub(crate) fn check_ttl(ttl_ms: u64, max: u64) -> ApiResult<()> {
    if ttl_ms == 0 {
        return Err(ApiError::field("ttlMs", "ttlMs must be a positive integer"));
    }
    if ttl_ms > max {
        return Err(ttl_exceeded(max, "ttlMs is at most"));
    }
    Ok(())
}

pub(crate) fn ttl_exceeded(max: u64, what: &str) -> ApiError {
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
    fn resources_are_bounded_on_both_sides() {
        assert_eq!(bounded("pids", None, 5, 1, 9).unwrap(), 5);
        assert_eq!(bounded("pids", Some(9), 5, 1, 9).unwrap(), 9);
        for bad in [0, 10] {
            let error = bounded("pids", Some(bad), 5, 1, 9).unwrap_err();
            assert_eq!(error.details.unwrap()["field"], "resources.pids");
        }
    }
}
