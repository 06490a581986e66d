//! What the host counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the host; read through [`HostMetrics`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) pool_hits: AtomicU64,
    pub(super) pool_misses: AtomicU64,
    pub(super) pool_discarded: AtomicU64,
    pub(super) pool_refill_failures: AtomicU64,
    pub(super) creates: AtomicU64,
    pub(super) create_failures: AtomicU64,
    pub(super) destroys: AtomicU64,
    pub(super) destroy_failures: AtomicU64,
    pub(super) inits_lost: AtomicU64,
    pub(super) protocol_errors: AtomicU64,
    pub(super) reconnects: AtomicU64,
    pub(super) events_dropped: AtomicU64,
    pub(super) runs: AtomicU64,
    pub(super) runs_abandoned: AtomicU64,
    pub(super) runs_recovered: AtomicU64,
    pub(super) execs: AtomicU64,
    pub(super) forks: AtomicU64,
    pub(super) spares_started: AtomicU64,
    pub(super) spares_claimed: AtomicU64,
}

/// A reading of the host's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostMetrics {
    /// Sandboxes handed out and not gone.
    pub live: u64,
    /// Runs that are not over.
    pub runs_alive: u64,
    /// Prepared sandboxes that wait.
    pub pool_size: u64,
    /// Those of them that have every driver that they should have.
    pub pool_complete: u64,
    pub pool_hits: u64,
    pub pool_misses: u64,
    /// Prepared sandboxes that died or grew too old.
    pub pool_discarded: u64,
    pub pool_refill_failures: u64,
    pub creates: u64,
    pub create_failures: u64,
    pub destroys: u64,
    /// Destroys that the spawner did not confirm; init's deadline ends those sandboxes.
    pub destroy_failures: u64,
    /// Sandboxes whose init ended by itself (deadline) or was killed.
    pub inits_lost: u64,
    /// Sandboxes ended because their init broke the protocol.
    pub protocol_errors: u64,
    pub reconnects: u64,
    /// Malformed or unknown events of drivers.
    pub events_dropped: u64,
    pub runs: u64,
    /// Runs whose consumer went away before the end.
    pub runs_abandoned: u64,
    /// Runs found after a restart and interrupted, since nobody waits for them.
    pub runs_recovered: u64,
    pub execs: u64,
    /// Drivers forked from a zygote.
    pub forks: u64,
    /// Drivers started before anybody asked for them.
    pub spares_started: u64,
    /// Those of them that a context got.
    pub spares_claimed: u64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// The counters as they are; the gauges are the host's to fill in.
    pub(super) fn read(&self) -> HostMetrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HostMetrics {
            live: 0,
            runs_alive: 0,
            pool_size: 0,
            pool_complete: 0,
            pool_hits: get(&self.pool_hits),
            pool_misses: get(&self.pool_misses),
            pool_discarded: get(&self.pool_discarded),
            pool_refill_failures: get(&self.pool_refill_failures),
            creates: get(&self.creates),
            create_failures: get(&self.create_failures),
            destroys: get(&self.destroys),
            destroy_failures: get(&self.destroy_failures),
            inits_lost: get(&self.inits_lost),
            protocol_errors: get(&self.protocol_errors),
            reconnects: get(&self.reconnects),
            events_dropped: get(&self.events_dropped),
            runs: get(&self.runs),
            runs_abandoned: get(&self.runs_abandoned),
            runs_recovered: get(&self.runs_recovered),
            execs: get(&self.execs),
            forks: get(&self.forks),
            spares_started: get(&self.spares_started),
            spares_claimed: get(&self.spares_claimed),
        }
    }
}
