//! The live sandboxes of clients: rows joined to processes, by id.
//!
//! A request about a live sandbox is answered from here without asking the store. Owns who may
//! see which sandbox. Does not own how one comes and goes ([`crate::lifecycle`]).

use crate::app::App;
use crate::auth::Principal;
use crate::code::Contexts;
use crate::error::{ApiError, ApiResult};
use crate::host;
use crate::metering;
use crate::recovery;
use crate::terminals;
use crownest_api::sandbox::{DestroyedReason, Sandbox, SandboxStatus};
use crownest_api::{ErrorCode, IdKind, Timestamp};
use crownest_store as store;
use serde_json::json;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{OnceCell, watch};

/// A sandbox that can be used.
#[derive(Debug)]
pub(crate) struct LiveSandbox {
    pub id: String,
    pub org_id: String,
    pub project_id: String,
    pub host: Arc<host::Sandbox>,
    /// Languages of its template.
    pub languages: Vec<String>,
    pub(crate) contexts: Contexts,
    row: Mutex<store::Sandbox>,
    /// When it was ready, by the clock of [`metering::ticks_ms`].
    ready_ticks_ms: i64,
    /// When it ends; the task that ends it listens.
    pub(crate) expiry: watch::Sender<Timestamp>,
    /// Runs and commands.
    active: AtomicU32,
    /// When its processor time was looked at last, and how much it was.
    pub(crate) cpu_seen: Mutex<Option<CpuSeen>>,
    /// No new work: it is being ended.
    pub(crate) ending: AtomicBool,
    /// No new work until it is resumed.
    pub(crate) paused: AtomicBool,
    /// Held by whoever stops or continues its processes, or changes its time to live.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Set when it has been ended.
    pub(crate) ended: OnceCell<()>,
    /// Set when the store knows that.
    pub(crate) recorded: AtomicBool,
    /// Places for clients of its terminals.
    pub(crate) terminal_clients: terminals::Places,
    /// Held by whoever changes its labels.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Its place in the quota of its organization.
    _slot: OrgSlot,
}

impl LiveSandbox {
    pub(crate) fn new(
        row: store::Sandbox,
        host: Arc<host::Sandbox>,
        languages: Vec<String>,
        slot: OrgSlot,
    ) -> Self {
        let lived = || metering::charged_by_wall_clock_ms(&row, Timestamp::now());
        let ready_ticks_ms =
            recovery::ready_ticks_ms(&row).unwrap_or_else(|| metering::ticks_ms() - lived());
        let paused = row.status == store::SandboxStatus::Paused;
        Self {
            id: row.id.clone(),
            org_id: row.org_id.clone(),
            project_id: row.project_id.clone(),
            host,
            languages,
            contexts: Contexts::default(),
            terminal_clients: terminals::Places::default(),
            expiry: watch::Sender::new(Timestamp::from_millis(row.expires_at / 1_000)),
            row: Mutex::new(row),
            ready_ticks_ms,
            active: AtomicU32::new(0),
            cpu_seen: Mutex::new(None),
            ending: AtomicBool::new(false),
            paused: AtomicBool::new(paused),
            turn: tokio::sync::Mutex::default(),
            ended: OnceCell::new(),
            recorded: AtomicBool::new(false),
            changing: tokio::sync::Mutex::default(),
            _slot: slot,
        }
    }

    pub(crate) fn row(&self) -> MutexGuard<'_, store::Sandbox> {
        self.row.lock().expect("no panic while it is held")
    }

    /// As clients see it.
    pub(crate) fn wire(&self) -> Sandbox {
        let mut sandbox = wire(&self.row());
        let at_rest = sandbox.status.is_over() || sandbox.status == SandboxStatus::Paused;
        if !at_rest && self.active.load(Ordering::Relaxed) > 0 {
            sandbox.status = SandboxStatus::Running;
        }
        sandbox
    }

    /// Milliseconds that are charged for until now. Setting the machine's clock changes nothing.
    pub(crate) fn charged_ms(&self) -> i64 {
        metering::charged_ms(&self.row(), metering::ticks_ms() - self.ready_ticks_ms)
    }

    /// Refuses new work while it is paused.
    pub(crate) fn check_not_paused(&self) -> ApiResult<()> {
        if self.paused.load(Ordering::Relaxed) {
            let message = "the sandbox is paused: resume it first";
            return Err(ApiError::new(ErrorCode::SandboxPaused, message));
        }
        Ok(())
    }

    /// Counts work until the guard is dropped.
    pub(crate) fn work(self: &Arc<Self>) -> Work {
        self.active.fetch_add(1, Ordering::Relaxed);
        Work(Arc::clone(self))
    }
}

/// Processor time of a sandbox at some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuSeen {
    pub at: std::time::Instant,
    pub cpu_us: u64,
    /// What it used of its processors, when that was looked at.
    pub used_pct: f64,
}

/// See [`LiveSandbox::work`].
#[derive(Debug)]
pub(crate) struct Work(Arc<LiveSandbox>);

impl Work {
    /// Where it is done.
    pub(crate) fn sandbox(&self) -> &Arc<LiveSandbox> {
        &self.0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A row as clients see it.
pub(crate) fn wire(row: &store::Sandbox) -> Sandbox {
    let time = |micros: i64| Timestamp::from_millis(micros / 1_000);
    Sandbox {
        id: row.id.clone(),
        org_id: row.org_id.clone(),
        project_id: row.project_id.clone(),
        status: status(row.status),
        template_id: row.template_id.clone(),
        template_slug: row.template_slug.clone(),
        template_version: row.template_version.clone(),
        template_version_id: row.template_version_id.clone(),
        ttl_ms: u64::try_from(row.ttl_ms).unwrap_or(0),
        expires_at: time(row.expires_at),
        metadata: row.metadata.clone(),
        created_at: Some(time(row.created_at)),
        destroyed_at: row.destroyed_at.map(time),
        destroyed_reason: row.destroyed_reason.as_deref().and_then(reason),
    }
}

fn status(status: store::SandboxStatus) -> SandboxStatus {
    match status {
        store::SandboxStatus::Creating => SandboxStatus::Creating,
        store::SandboxStatus::Starting => SandboxStatus::Starting,
        store::SandboxStatus::Ready => SandboxStatus::Ready,
        store::SandboxStatus::Running => SandboxStatus::Running,
        store::SandboxStatus::Idle => SandboxStatus::Idle,
        store::SandboxStatus::Paused => SandboxStatus::Paused,
        store::SandboxStatus::Expiring => SandboxStatus::Expiring,
        store::SandboxStatus::Destroyed => SandboxStatus::Destroyed,
        store::SandboxStatus::Failed => SandboxStatus::Failed,
    }
}

fn reason(stored: &str) -> Option<DestroyedReason> {
    [
        DestroyedReason::IdleExpired,
        DestroyedReason::PlatformCleanup,
        DestroyedReason::TtlExpired,
        DestroyedReason::UserKilled,
    ]
    .into_iter()
    .find(|reason| reason.as_str() == stored)
}

/// What an id names, for a caller that may know.
#[derive(Debug)]
pub(crate) enum Found {
    Live(Arc<LiveSandbox>),
    /// It has ended; this is what is left.
    Ended(Box<store::Sandbox>),
}

impl App {
    /// The sandbox of that id, live or ended, if the caller may see it.
    pub(crate) async fn find_sandbox(&self, who: &Principal, id: &str) -> ApiResult<Found> {
        let unknown = || ApiError::not_found("sandbox");
        if !IdKind::Sandbox.matches(id) {
            return Err(unknown());
        }
        if let Some(live) = self.sandboxes.get(id) {
            let visible = live.org_id == who.org_id && who.may_touch(&live.project_id);
            return if visible {
                Ok(Found::Live(live))
            } else {
                Err(unknown())
            };
        }
        let row = self.store.sandbox(&who.org_id, id).await?;
        if !who.may_touch(&row.project_id) {
            return Err(unknown());
        }
        if row.destroyed_at.is_none() {
            // Another node's, or one whose creation is being taken back.
            return Err(ApiError::new(
                ErrorCode::Unavailable,
                "the sandbox is not reachable from this server",
            ));
        }
        Ok(Found::Ended(Box::new(row)))
    }

    /// The sandbox of that id, if it can be used: one that is paused cannot.
    pub(crate) async fn live_sandbox(
        &self,
        who: &Principal,
        id: &str,
    ) -> ApiResult<Arc<LiveSandbox>> {
        let live = self.kept_sandbox(who, id).await?;
        live.check_not_paused()?;
        Ok(live)
    }

    /// Refuses what would wait for the programs of a sandbox that is paused.
    pub(crate) fn check_not_paused(&self, id: &str) -> ApiResult<()> {
        let live = self.sandboxes.get(id);
        live.map_or(Ok(()), |live| live.check_not_paused())
    }

    /// The sandbox of that id, if it has not ended, paused or not.
    pub(crate) async fn kept_sandbox(
        &self,
        who: &Principal,
        id: &str,
    ) -> ApiResult<Arc<LiveSandbox>> {
        match self.find_sandbox(who, id).await? {
            Found::Live(live) if !live.ending.load(Ordering::Relaxed) => Ok(live),
            Found::Live(_) | Found::Ended(_) => Err(ApiError::destroyed()),
        }
    }
}

/// Live sandboxes by id, and how many each organization has.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    by_id: Mutex<HashMap<String, Arc<LiveSandbox>>>,
    per_org: Arc<Mutex<HashMap<String, u64>>>,
}

impl Registry {
    fn by_id(&self) -> MutexGuard<'_, HashMap<String, Arc<LiveSandbox>>> {
        self.by_id.lock().expect("no panic while it is held")
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<LiveSandbox>> {
        self.by_id().get(id).cloned()
    }

    pub(crate) fn insert(&self, live: &Arc<LiveSandbox>) {
        self.by_id().insert(live.id.clone(), Arc::clone(live));
    }

    pub(crate) fn remove(&self, id: &str) {
        self.by_id().remove(id);
    }

    pub(crate) fn of_org(&self, org_id: &str) -> Vec<Arc<LiveSandbox>> {
        self.by_id()
            .values()
            .filter(|live| live.org_id == org_id)
            .cloned()
            .collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<LiveSandbox>> {
        self.by_id().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id().len()
    }

    /// Takes a place in an organization's quota, before the sandbox is made.
    pub(crate) fn slot(&self, org_id: &str, max: Option<u64>) -> ApiResult<OrgSlot> {
        let mut counts = self.per_org.lock().expect("no panic while it is held");
        let count = counts.entry(org_id.to_owned()).or_insert(0);
        if let Some(limit) = max
            && *count >= limit
        {
            return Err(ApiError::new(
                ErrorCode::QuotaExceeded,
                format!("the organization has {limit} live sandboxes, which is its limit"),
            )
            .with_details(json!({ "limit": limit })));
        }
        *count += 1;
        Ok(OrgSlot {
            org_id: org_id.to_owned(),
            per_org: Arc::clone(&self.per_org),
        })
    }

    /// Live sandboxes of an organization, those being made included.
    pub(crate) fn count(&self, org_id: &str) -> u64 {
        let counts = self.per_org.lock().expect("no panic while it is held");
        counts.get(org_id).copied().unwrap_or(0)
    }
}

/// A place in an organization's quota, given back when dropped.
#[derive(Debug)]
pub(crate) struct OrgSlot {
    org_id: String,
    per_org: Arc<Mutex<HashMap<String, u64>>>,
}

impl Drop for OrgSlot {
    fn drop(&mut self) {
        let mut counts = self.per_org.lock().expect("no panic while it is held");
        if let Some(count) = counts.get_mut(&self.org_id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.org_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_per_organization_and_given_back() {
        let registry = Registry::default();
        let first = registry.slot("org_a", Some(1)).unwrap();
        let refused = registry.slot("org_a", Some(1)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::QuotaExceeded);
        assert_eq!(refused.details.unwrap(), json!({ "limit": 1 }));
        assert!(registry.slot("org_b", Some(1)).is_ok());
        drop(first);
        assert_eq!(registry.count("org_a"), 0);
        assert!(registry.slot("org_a", Some(1)).is_ok());
    }
}
