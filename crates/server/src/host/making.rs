//! One sandbox from its key to its burial: made in the spawner, given an object and a task, ended,
//! destroyed. Whatever stops in between leaves nothing behind.

use super::counters::count;
use super::error::HostError;
use super::inbox::Inbox;
use super::kernels::Runtimes;
use super::link::Link;
use super::link_task::{Hello, connect, read_link, recovered_target_floor, take_hello};
use super::pool::Pool;
use super::retry::retried;
use super::sandbox::{Identity, Sandbox, Shared, deadline};
use super::spawner::{
    CreateSpec, Created, Limits, Network, SandboxKey, SpawnerError, TemplateDigest,
};
use super::types::{ClosedReason, KnownSandbox, TemplateRef};
use crownest_init::link::Request;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Destroys in the spawner at the same time; callers of `destroy` wait above it.
pub(super) const DESTROYS_MAX: usize = 32;
/// Longest wait for a place when the pool gives one up.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries to destroy one sandbox, beyond those for a spawner that is away.
const DESTROY_TRIES_MAX: u32 = 3;
/// Length of a generated key: 16 random bytes in base 32.
const KEY_CHARS: usize = 26;

/// What all clones of a [`super::Host`] share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) sandboxes: Mutex<HashMap<SandboxKey, Arc<Sandbox>>>,
    /// Keys that this process has made and not yet destroyed, pooled ones included.
    pub(super) owned: Mutex<HashSet<SandboxKey>>,
    pub(super) sandboxes_max: usize,
    pub(super) places: Arc<Semaphore>,
    pub(super) destroys: Semaphore,
    pub(super) pool: Pool,
    pub(super) tasks: TaskTracker,
    pub(super) stopping: CancellationToken,
}

/// What a new sandbox is made of.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) template: TemplateRef,
    pub(super) limits: Limits,
    pub(super) network: Network,
    /// Chosen when it is handed out: a pooled one fits whatever they are.
    pub(super) runtimes: Runtimes,
    /// What its files are at first; none: the template's alone.
    pub(super) snapshot: Option<SandboxKey>,
}

/// 26 random letters and digits.
pub(super) fn generated_key() -> Result<SandboxKey, HostError> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random = [0u8; KEY_CHARS];
    let got = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    if got != Ok(KEY_CHARS) {
        return Err(HostError::Invalid("no random numbers".into()));
    }
    let text: String = random
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
        .collect();
    SandboxKey::new(&text).ok_or_else(|| HostError::Invalid("the generated key".into()))
}

/// A sandbox that is being made: destroyed when dropped before it is finished.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) sandbox: Arc<Sandbox>,
    inner: Arc<Inner>,
    armed: bool,
}

impl Unfinished {
    pub(super) fn new(inner: &Arc<Inner>, sandbox: Arc<Sandbox>) -> Self {
        Self {
            sandbox,
            inner: Arc::clone(inner),
            armed: true,
        }
    }

    pub(super) fn finished(&mut self) -> Arc<Sandbox> {
        self.armed = false;
        Arc::clone(&self.sandbox)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.armed {
            self.inner.sandboxes().remove(&self.sandbox.key);
            self.sandbox.close(ClosedReason::Destroyed);
        }
    }
}

/// A key in the spawner without an object: destroyed when dropped before it is claimed.
struct Unclaimed {
    key: Option<SandboxKey>,
    inner: Arc<Inner>,
    place: Option<OwnedSemaphorePermit>,
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let inner = Arc::clone(&self.inner);
            let place = self.place.take();
            self.inner.tasks.spawn(async move {
                inner.destroy_now(&key).await;
                drop(place);
            });
        }
    }
}

impl Inner {
    pub(super) fn sandboxes(&self) -> MutexGuard<'_, HashMap<SandboxKey, Arc<Sandbox>>> {
        self.sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn owned(&self) -> MutexGuard<'_, HashSet<SandboxKey>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a sandbox found by its key.
    pub(super) fn publish(&self, sandbox: &Arc<Sandbox>) {
        let mut sandboxes = self.sandboxes();
        // It may have died in between: then its supervisor has been here already.
        if sandbox.is_closed() {
            return;
        }
        if self.stopping.is_cancelled() {
            // Made while the server stops: it lives on for the next one, which finds its row.
            drop(sandboxes);
            sandbox.close(ClosedReason::ServerStopped);
            return;
        }
        sandboxes.insert(sandbox.key.clone(), Arc::clone(sandbox));
    }

    /// A fresh pooled sandbox; discards what it finds stale on the way.
    ///
    /// With it comes what its ceiling of processor time has to become.
    pub(super) fn take_pooled(&self, recipe: &Recipe) -> Option<(Arc<Sandbox>, Option<u32>)> {
        let taken = self.pool.take(recipe)?;
        for sandbox in taken.stale {
            count(&self.shared.counters.pool_discarded);
            sandbox.close(ClosedReason::Destroyed);
        }
        count(match taken.fresh {
            Some(_) => &self.shared.counters.pool_hits,
            None => &self.shared.counters.pool_misses,
        });
        taken.fresh.map(|sandbox| (sandbox, taken.cpu_millis))
    }

    /// Makes a sandbox from nothing. Returns it with the time that the spawner took.
    pub(super) async fn make_cold(
        self: &Arc<Self>,
        key: SandboxKey,
        recipe: &Recipe,
    ) -> Result<(Unfinished, Duration), HostError> {
        let digest = TemplateDigest::from_hex(&recipe.template.digest)
            .ok_or_else(|| HostError::Invalid("the template's digest".into()))?;
        let place = self.place().await?;
        if !self.owned().insert(key.clone()) {
            return Err(HostError::Invalid("a sandbox with this key exists".into()));
        }
        let mut unclaimed = Unclaimed {
            key: Some(key.clone()),
            inner: Arc::clone(self),
            place: Some(place),
        };
        let spec = CreateSpec {
            key: key.clone(),
            template: digest,
            limits: recipe.limits,
            network: recipe.network,
            snapshot: recipe.snapshot.clone(),
        };
        let started = Instant::now();
        let socket = self.create_in_spawner(&spec).await?.init_socket;
        let spawner = started.elapsed();
        let (link, inbox, hello) = connect(&socket).await?;
        let identity = Identity {
            key,
            template: recipe.template.clone(),
            digest,
            socket,
            egress: None,
        };
        unclaimed.key = None;
        let place = unclaimed.place.take();
        let sandbox = self.animate(identity, link, inbox, hello, place);
        sandbox.set_runtimes(recipe.runtimes.clone());
        Ok((Unfinished::new(self, sandbox), spawner))
    }

    /// Asks the spawner; a spawner that went away in the middle may have made it all the same.
    async fn create_in_spawner(&self, spec: &CreateSpec) -> Result<Created, SpawnerError> {
        let spawner = &self.shared.spawner;
        match spawner.create(spec).await {
            Err(SpawnerError::Disconnected(_)) => {
                retried(|| spawner.destroy(&spec.key)).await?;
                retried(|| spawner.create(spec)).await
            }
            other => other,
        }
    }

    /// A place on the node; a pooled sandbox gives way when all are taken.
    async fn place(&self) -> Result<OwnedSemaphorePermit, HostError> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let full = HostError::NodeFull {
            limit: self.sandboxes_max,
        };
        let Some(pooled) = self.pool.evict() else {
            return Err(full);
        };
        pooled.close(ClosedReason::Destroyed);
        let waiting = Arc::clone(&self.places).acquire_owned();
        match tokio::time::timeout(PLACE_TIMEOUT, waiting).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(full),
        }
    }

    /// Takes up a sandbox that an earlier server made.
    pub(super) async fn take_up(self: &Arc<Self>, known: &KnownSandbox) -> Result<(), HostError> {
        let digest = TemplateDigest::from_hex(&known.template.digest)
            .ok_or_else(|| HostError::Invalid("the template's digest".into()))?;
        // Never refused for want of a place: it is there already.
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        let socket = self.shared.spawner.init_socket(&known.key);
        // Paused, or a pause was cut short: only an init that runs says hello. A machine that
        // cannot stop anything cannot continue it either.
        if let Err(error) = retried(|| self.shared.spawner.freeze(&known.key, false)).await {
            tracing::debug!(sandbox = %known.key, %error, "continuing");
        }
        let (link, inbox, hello) = connect(&socket).await?;
        if hello.clock_stopped {
            // Numbers of calls that no caller has: their answers go nowhere.
            link.send(0, deadline(known.time_left)?)?;
            link.send(0, Request::ClockStart)?;
        }
        let floor = recovered_target_floor(&hello.targets);
        let identity = Identity {
            key: known.key.clone(),
            template: known.template.clone(),
            digest,
            socket,
            egress: known.egress.clone(),
        };
        self.owned().insert(known.key.clone());
        let sandbox = self.animate(identity, link, inbox, hello, place);
        sandbox.set_runtimes(known.runtimes.clone());
        sandbox.raise_targets(floor);
        self.publish(&sandbox);
        // A process that ended meanwhile may be the one that was killed for memory. (Or one before
        // it was: the count does not say whom.)
        let ended = sandbox.recovered_execs().iter().any(|exec| exec.done)
            || sandbox.recovered_runs().iter().any(|run| run.done);
        if !ended {
            sandbox.forget_oom_kills().await;
        }
        Ok(())
    }

    /// Makes the object and starts the task that reads its link and buries it.
    fn animate(
        self: &Arc<Self>,
        identity: Identity,
        link: Link,
        inbox: Inbox,
        hello: Hello,
        place: Option<OwnedSemaphorePermit>,
    ) -> Arc<Sandbox> {
        let link = Arc::new(link);
        let sandbox = Sandbox::new(identity, Arc::clone(&self.shared), Arc::clone(&link));
        take_hello(&sandbox, &link, hello);
        let inner = Arc::clone(self);
        let supervised = Arc::clone(&sandbox);
        self.tasks.spawn(async move {
            let reason = read_link(Arc::clone(&supervised), link, inbox).await;
            supervised.close(reason);
            inner.bury(&supervised).await;
            drop(place);
        });
        sandbox
    }

    async fn bury(&self, sandbox: &Arc<Sandbox>) {
        {
            let mut sandboxes = self.sandboxes();
            if sandboxes
                .get(&sandbox.key)
                .is_some_and(|s| Arc::ptr_eq(s, sandbox))
            {
                sandboxes.remove(&sandbox.key);
            }
        }
        match sandbox.closed().await {
            ClosedReason::ServerStopped => return,
            ClosedReason::InitGone => count(&self.shared.counters.inits_lost),
            ClosedReason::Destroyed => {}
        }
        self.pool.nudge();
        self.destroy_now(&sandbox.key).await;
    }

    /// Has the spawner kill and remove a sandbox, with patience.
    pub(super) async fn destroy_now(&self, key: &SandboxKey) {
        let _turn = self.destroys.acquire().await;
        for attempt in 1..=DESTROY_TRIES_MAX {
            match retried(|| self.shared.spawner.destroy(key)).await {
                Ok(()) => {
                    count(&self.shared.counters.destroys);
                    self.owned().remove(key);
                    return;
                }
                Err(error) => {
                    tracing::warn!(sandbox = %key, %error, attempt, "destroy failed");
                }
            }
        }
        // Its init ends it at its deadline, and the next recover kills what is left.
        count(&self.shared.counters.destroy_failures);
        self.owned().remove(key);
    }
}
