//! What the host is told at start.

use super::kernels::{Kernel, Runtimes};
use super::spawner::{Limits, Network, Spawner};
use super::types::TemplateRef;
use crate::egress::Policy;
use std::sync::Arc;
use std::time::Duration;

/// Configuration of a [`super::Host`].
#[derive(Debug, Clone)]
pub struct HostConfig {
    pub spawner: Arc<dyn Spawner>,
    /// Sandboxes on this node, pooled ones included.
    pub sandboxes_max: usize,
    /// Egress rules of every sandbox that sets none of its own.
    pub egress: Arc<Policy>,
    pub pool: PoolConfig,
}

impl HostConfig {
    /// The usual configuration around a spawner, without a pool.
    #[must_use]
    pub fn new(spawner: Arc<dyn Spawner>, egress: Arc<Policy>) -> Self {
        Self {
            spawner,
            sandboxes_max: 4_000,
            egress,
            pool: PoolConfig::default(),
        }
    }
}

/// How many sandboxes are kept ready, and how fast they are replaced.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    pub templates: Vec<PoolTemplate>,
    /// Sandboxes made per second, at most.
    pub refill_per_second: u32,
    /// Sandboxes being made at the same time.
    pub refill_concurrency: usize,
    /// No refill while the machine's available memory is below this.
    pub memory_available_bytes_min: u64,
    /// An entry older than this is replaced, so that the address layout it shares with its zygote
    /// does not live for ever.
    pub entry_age_max: Duration,
}

/// Oldest pool entry that is handed out, by default.
pub const POOL_ENTRY_AGE_MAX: Duration = Duration::from_secs(30 * 60);

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            templates: Vec::new(),
            refill_per_second: 50,
            refill_concurrency: 2,
            memory_available_bytes_min: 1 << 30,
            entry_age_max: POOL_ENTRY_AGE_MAX,
        }
    }
}

/// What is kept ready of one template.
#[derive(Debug, Clone)]
pub struct PoolTemplate {
    pub template: TemplateRef,
    /// 0: none.
    pub size: usize,
    pub limits: Limits,
    pub network: Network,
    /// The versions of its drivers: those that a sandbox has that asks for none.
    pub runtimes: Runtimes,
    /// Drivers that it has before it is asked for. Those that are forked are there at once; the
    /// others are started one after the other, when nothing else is missing.
    pub drivers: Vec<&'static Kernel>,
}
