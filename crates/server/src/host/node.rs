//! The host itself: making, finding, ending and finding again the sandboxes of this node.

use super::config::HostConfig;
use super::counters::{Counters, HostMetrics, count};
use super::error::HostError;
use super::link::{Inbox, Link};
use super::link_task::{Hello, connect, read_link, recovered_target_floor, take_hello};
use super::pool::Pool;
use super::retry::retried;
use super::sandbox::{Identity, Sandbox, Shared, millis};
use super::spawner::{CreateSpec, Limits, Network, SandboxKey, SpawnerError, TemplateDigest};
use super::types::{
    ClosedReason, CreateTimings, KnownSandbox, Recovered, SandboxSpec, TemplateRef,
};
use futures_util::StreamExt;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Destroys in the spawner at the same time; callers of `destroy` wait above it.
const DESTROYS_MAX: usize = 32;
/// Inits that are connected to at the same time after a restart.
const RECOVERS_MAX: usize = 16;
/// Longest wait for a place when the pool gives one up.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for pooled sandboxes to go at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Tries to destroy one sandbox, beyond those for a spawner that is away.
const DESTROY_TRIES_MAX: u32 = 3;
/// Length of a generated key: 16 random bytes in base 32.
const KEY_CHARS: usize = 26;

/// The live sandboxes of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    sandboxes: Mutex<HashMap<SandboxKey, Arc<Sandbox>>>,
    /// Keys that this process has made and not yet destroyed, pooled ones included.
    owned: Mutex<HashSet<SandboxKey>>,
    sandboxes_max: usize,
    places: Arc<Semaphore>,
    destroys: Semaphore,
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
}

impl Host {
    /// Starts the host; the pool begins to fill. Call [`Host::recover`] before the first request.
    ///
    /// # Errors
    /// When the configuration of the pool is not sound.
    pub async fn start(config: HostConfig) -> Result<Self, HostError> {
        let shared = Shared {
            spawner: config.spawner,
            drivers: config.drivers,
            forkable: config.forkable,
            egress: config.egress,
            counters: Counters::default(),
        };
        let inner = Arc::new(Inner {
            shared: Arc::new(shared),
            sandboxes: Mutex::default(),
            owned: Mutex::default(),
            sandboxes_max: config.sandboxes_max,
            places: Arc::new(Semaphore::new(config.sandboxes_max)),
            destroys: Semaphore::new(DESTROYS_MAX),
            pool: Pool::new(config.pool)?,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        });
        if !inner.pool.is_off() {
            inner.tasks.spawn(super::pool::refill(Arc::clone(&inner)));
        }
        Ok(Self { inner })
    }

    /// Makes a sandbox: from the pool when template, limits and network match, else cold. When
    /// the returned future is dropped, what was made so far is destroyed.
    ///
    /// # Errors
    /// [`HostError::NodeFull`], [`HostError::ShuttingDown`], [`HostError::Spawner`].
    pub async fn create(
        &self,
        spec: SandboxSpec,
    ) -> Result<(Arc<Sandbox>, CreateTimings), HostError> {
        if self.inner.stopping.is_cancelled() {
            return Err(HostError::ShuttingDown);
        }
        millis(spec.deadline, "the deadline")?;
        let made = self.make(spec).await;
        let counters = &self.inner.shared.counters;
        count(if made.is_ok() {
            &counters.creates
        } else {
            &counters.create_failures
        });
        made
    }

    async fn make(&self, spec: SandboxSpec) -> Result<(Arc<Sandbox>, CreateTimings), HostError> {
        let started = Instant::now();
        let recipe = Recipe {
            template: spec.template,
            limits: spec.limits,
            network: spec.network,
        };
        if spec.key.is_none()
            && let Some(pooled) = self.inner.take_pooled(&recipe)
        {
            let mut made = Unfinished::new(&self.inner, pooled);
            if configure(&made.sandbox, spec.env.clone(), spec.deadline)
                .await
                .is_ok()
            {
                self.inner.publish(&made.sandbox);
                let total = started.elapsed();
                let timings = CreateTimings {
                    pooled: true,
                    link: total,
                    total,
                    ..CreateTimings::default()
                };
                return Ok((made.finished(), timings));
            }
        }
        let _foreground = self.inner.pool.foreground();
        let key = match spec.key {
            Some(key) => key,
            None => generated_key()?,
        };
        let (mut made, spawner) = self.inner.make_cold(key, &recipe).await?;
        configure(&made.sandbox, spec.env, spec.deadline).await?;
        self.inner.publish(&made.sandbox);
        let total = started.elapsed();
        let timings = CreateTimings {
            pooled: false,
            spawner,
            link: total.saturating_sub(spawner),
            total,
        };
        Ok((made.finished(), timings))
    }

    /// A live sandbox.
    #[must_use]
    pub fn get(&self, key: &SandboxKey) -> Option<Arc<Sandbox>> {
        self.inner.sandboxes().get(key).cloned()
    }

    /// Ends a sandbox. It is not found any more at once; the processes are killed in the
    /// background, and this waits only while many others are being killed.
    ///
    /// # Errors
    /// None today; a sandbox that is not there is no error.
    pub async fn destroy(&self, key: &SandboxKey) -> Result<(), HostError> {
        let sandbox = self.inner.sandboxes().remove(key);
        if let Some(sandbox) = sandbox {
            sandbox.close(ClosedReason::Destroyed);
            let turn = self.inner.destroys.acquire().await;
            drop(turn);
        }
        Ok(())
    }

    /// After a restart: takes up the sandboxes that the store knows and kills those that nobody
    /// does.
    ///
    /// # Errors
    /// When the spawner cannot be asked.
    pub async fn recover(&self, known: &[KnownSandbox]) -> Result<Recovered, HostError> {
        let inner = &self.inner;
        let listed: HashSet<SandboxKey> = retried(|| inner.shared.spawner.list())
            .await?
            .into_iter()
            .collect();
        let mut recovered = Recovered::default();
        let (present, absent): (Vec<_>, Vec<_>) = known
            .iter()
            .partition(|sandbox| listed.contains(&sandbox.key));
        recovered
            .gone
            .extend(absent.into_iter().map(|sandbox| sandbox.key.clone()));
        let mut taken_up = futures_util::stream::iter(present)
            .map(|sandbox| async move { (sandbox, inner.take_up(sandbox).await) })
            .buffer_unordered(RECOVERS_MAX);
        while let Some((sandbox, result)) = taken_up.next().await {
            match result {
                Ok(()) => recovered.alive.push(sandbox.key.clone()),
                Err(error) => {
                    tracing::warn!(sandbox = %sandbox.key, %error, "not found again");
                    inner.destroy_now(&sandbox.key).await;
                    recovered.gone.push(sandbox.key.clone());
                }
            }
        }
        let known: HashSet<&SandboxKey> = known.iter().map(|sandbox| &sandbox.key).collect();
        for key in listed.iter().filter(|key| !known.contains(key)) {
            let ours = inner.owned().contains(key);
            if !ours {
                inner.destroy_now(key).await;
                recovered.killed_unknown += 1;
            }
        }
        Ok(recovered)
    }

    /// Stops. Sandboxes live on and are found again by [`Host::recover`]; pooled ones, which no
    /// tenant has seen, are killed.
    pub async fn shutdown(&self) {
        self.inner.stopping.cancel();
        for sandbox in self.inner.pool.drain() {
            sandbox.close(ClosedReason::Destroyed);
        }
        let live: Vec<_> = self
            .inner
            .sandboxes()
            .drain()
            .map(|(_, sandbox)| sandbox)
            .collect();
        for sandbox in live {
            sandbox.close(ClosedReason::ServerStopped);
        }
        self.inner.tasks.close();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.inner.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some sandboxes were still being destroyed at shutdown");
        }
    }

    /// A reading of the host's counters.
    #[must_use]
    pub fn metrics(&self) -> HostMetrics {
        let mut metrics = self.inner.shared.counters.read();
        let sandboxes = self.inner.sandboxes();
        metrics.live = sandboxes.len() as u64;
        metrics.runs_alive = sandboxes.values().map(|s| s.runs_alive() as u64).sum();
        metrics.pool_size = self.inner.pool.len() as u64;
        metrics
    }
}

/// Gives a new sandbox its environment and its end.
async fn configure(
    sandbox: &Sandbox,
    env: std::collections::BTreeMap<String, String>,
    deadline: Duration,
) -> Result<(), HostError> {
    let environment = async {
        if env.is_empty() {
            Ok(())
        } else {
            sandbox.set_environment(env).await
        }
    };
    tokio::try_join!(environment, sandbox.set_deadline(deadline)).map(drop)
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
    fn new(inner: &Arc<Inner>, sandbox: Arc<Sandbox>) -> Self {
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
    fn sandboxes(&self) -> MutexGuard<'_, HashMap<SandboxKey, Arc<Sandbox>>> {
        self.sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn owned(&self) -> MutexGuard<'_, HashSet<SandboxKey>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a sandbox found by its key.
    fn publish(&self, sandbox: &Arc<Sandbox>) {
        let mut sandboxes = self.sandboxes();
        // It may have died in between: then its supervisor has been here already.
        if !sandbox.is_closed() {
            sandboxes.insert(sandbox.key.clone(), Arc::clone(sandbox));
        }
    }

    /// A fresh pooled sandbox; discards what it finds stale on the way.
    fn take_pooled(&self, recipe: &Recipe) -> Option<Arc<Sandbox>> {
        let taken = self.pool.take(recipe)?;
        for sandbox in taken.stale {
            count(&self.shared.counters.pool_discarded);
            sandbox.close(ClosedReason::Destroyed);
        }
        count(match taken.fresh {
            Some(_) => &self.shared.counters.pool_hits,
            None => &self.shared.counters.pool_misses,
        });
        taken.fresh
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
        };
        unclaimed.key = None;
        let place = unclaimed.place.take();
        let sandbox = self.animate(identity, link, inbox, hello, place);
        Ok((Unfinished::new(self, sandbox), spawner))
    }

    /// Asks the spawner; a spawner that went away in the middle may have made it all the same.
    async fn create_in_spawner(
        &self,
        spec: &CreateSpec,
    ) -> Result<super::spawner::Created, SpawnerError> {
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
    async fn take_up(self: &Arc<Self>, known: &KnownSandbox) -> Result<(), HostError> {
        let digest = TemplateDigest::from_hex(&known.template.digest)
            .ok_or_else(|| HostError::Invalid("the template's digest".into()))?;
        // Never refused for want of a place: it is there already.
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        let socket = self.shared.spawner.init_socket(&known.key);
        let (link, inbox, hello) = connect(&socket).await?;
        let floor = recovered_target_floor(&hello.targets);
        let identity = Identity {
            key: known.key.clone(),
            template: known.template.clone(),
            digest,
            socket,
        };
        self.owned().insert(known.key.clone());
        let sandbox = self.animate(identity, link, inbox, hello, place);
        sandbox.raise_targets(floor);
        self.publish(&sandbox);
        sandbox.forget_oom_kills().await;
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
    async fn destroy_now(&self, key: &SandboxKey) {
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
