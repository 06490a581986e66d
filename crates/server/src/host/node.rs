//! The host itself: making, finding, ending and finding again the sandboxes of this node.

use super::config::HostConfig;
use super::counters::{Counters, HostMetrics, count};
use super::error::HostError;
use super::making::{DESTROYS_MAX, Inner, Recipe, Unfinished, generated_key};
use super::pool::Pool;
use super::retry::retried;
use super::sandbox::{Sandbox, Shared, millis};
use super::spawner::SandboxKey;
use super::types::{ClosedReason, CreateTimings, KnownSandbox, Recovered, SandboxSpec};
use crate::egress::SandboxRules;
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Inits that are connected to at the same time after a restart.
const RECOVERS_MAX: usize = 16;
/// Longest wait for pooled sandboxes to go at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// A driver that a sandbox was handed out with and that no context has claimed for so long is
/// wanted by nobody: it ends, and a context that comes later starts its own.
const SPARE_IDLE_MAX: Duration = Duration::from_secs(5 * 60);

/// The live sandboxes of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    pub(super) inner: Arc<Inner>,
}

impl Host {
    /// Starts the host; the pool begins to fill. Call [`Host::recover`] before the first request.
    ///
    /// # Errors
    /// When the configuration of the pool is not sound.
    pub async fn start(config: HostConfig) -> Result<Self, HostError> {
        let shared = Shared {
            spawner: config.spawner,
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

    /// Makes a sandbox: from the pool when one there fits, else cold. When
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
        let environment = |key: &SandboxKey| {
            let mut env = spec.env.clone();
            if let Some((name, prefix)) = &spec.key_variable {
                env.insert((*name).to_owned(), format!("{prefix}{key}"));
            }
            env
        };
        let recipe = Recipe {
            template: spec.template,
            limits: spec.limits,
            network: spec.network,
            runtimes: spec.runtimes,
            snapshot: spec.snapshot,
        };
        if spec.key.is_none()
            && recipe.snapshot.is_none()
            && let Some((pooled, cpu_millis)) = self.inner.take_pooled(&recipe)
        {
            let mut made = Unfinished::new(&self.inner, pooled);
            made.sandbox.set_runtimes(recipe.runtimes.clone());
            narrow(&made.sandbox, spec.egress.as_ref())?;
            let env = environment(made.sandbox.key());
            let configured = tokio::try_join!(
                configure(&made.sandbox, env, spec.deadline, true),
                limit(&made.sandbox, cpu_millis),
            );
            if configured.is_ok() {
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
        narrow(&made.sandbox, spec.egress.as_ref())?;
        configure(
            &made.sandbox,
            environment(made.sandbox.key()),
            spec.deadline,
            false,
        )
        .await?;
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

    /// After a restart: takes up the sandboxes that the store knows, and has those killed that
    /// nobody does, in the background.
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
                    self.destroy_later(&sandbox.key);
                    recovered.gone.push(sandbox.key.clone());
                }
            }
        }
        let known: HashSet<&SandboxKey> = known.iter().map(|sandbox| &sandbox.key).collect();
        for key in listed.iter().filter(|key| !known.contains(key)) {
            let ours = inner.owned().contains(key);
            if !ours {
                self.destroy_later(key);
                recovered.killed_unknown += 1;
            }
        }
        Ok(recovered)
    }

    /// Nobody who starts a server waits for what others left behind.
    fn destroy_later(&self, key: &SandboxKey) {
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        self.inner
            .tasks
            .spawn(async move { inner.destroy_now(&key).await });
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
        metrics.pool_complete = self.inner.pool.complete() as u64;
        metrics
    }
}

/// Gives a new sandbox its own egress rules, before anything of a tenant's runs in it.
fn narrow(sandbox: &Sandbox, rules: Option<&SandboxRules>) -> Result<(), HostError> {
    if let Some(rules) = rules {
        let policy = sandbox.narrowed_egress(rules);
        let policy = policy.map_err(|error| HostError::Invalid(error.to_string()))?;
        sandbox.set_egress_policy(policy);
    }
    Ok(())
}

/// Gives a sandbox of the pool the processor time that was asked for.
async fn limit(sandbox: &Sandbox, cpu_millis: Option<u32>) -> Result<(), HostError> {
    if let Some(cpu_millis) = cpu_millis {
        let spawner = &sandbox.shared.spawner;
        retried(|| spawner.set_cpu(sandbox.key(), cpu_millis)).await?;
    }
    Ok(())
}

/// Gives a new sandbox its environment and its end.
async fn configure(
    sandbox: &Sandbox,
    env: BTreeMap<String, String>,
    deadline: Duration,
    pooled: bool,
) -> Result<(), HostError> {
    sandbox.spares.fit(&env);
    let unclaimed = async {
        // One may be on its way without being counted yet.
        if pooled {
            sandbox.end_spares_after(SPARE_IDLE_MAX).await
        } else {
            Ok(())
        }
    };
    let environment = async {
        if env.is_empty() {
            Ok(())
        } else {
            sandbox.set_environment(env).await
        }
    };
    tokio::try_join!(environment, sandbox.set_deadline(deadline), unclaimed).map(drop)
}
