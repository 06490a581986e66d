//! Sandboxes made before they are asked for.
//!
//! An entry is handed out once and never comes back; it is untouched by any tenant. Filling is
//! slow on purpose: it waits for creates in progress, keeps a rate, and stops while the machine
//! is short of memory.
//!
//! An entry is there as soon as it has what can be forked. Runtimes that have to be started take a
//! hundred times longer: they follow one by one when no entry is missing, so that whoever asks for
//! many sandboxes in a row does not pay for languages that he does not use.

use super::config::{PoolConfig, PoolTemplate};
use super::counters::count;
use super::error::HostError;
use super::kernels::Kernel;
use super::making::{Inner, Recipe, generated_key};
use super::sandbox::Sandbox;
use super::shelf::Shelf;
use super::spawner::{Limits, TemplateDigest};
use super::types::ClosedReason;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// How often stale entries are looked for when nothing else happens.
const CHECK_PERIOD: Duration = Duration::from_secs(5);
/// Longest time that filling steps back behind creates in progress.
const FOREGROUND_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long after an entry was handed out no driver is started for another: whoever took it is about
/// to run the first cell, and a JVM that starts meanwhile takes a second of processor time from it.
const DRIVERS_STEP_BACK: Duration = Duration::from_millis(500);
/// So long it steps back in all, where entries are taken all the time.
const DRIVERS_STEP_BACK_MAX: Duration = Duration::from_secs(3);
/// Pause after a failed entry, doubled up to the largest.
const FAILURE_PAUSE_FIRST: Duration = Duration::from_millis(500);
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Entries of one template.
const SIZE_MAX: usize = 4_096;

/// The prepared sandboxes of all templates.
#[derive(Debug)]
pub(super) struct Pool {
    config: PoolConfig,
    slots: Vec<Slot>,
    /// Something was taken or went stale.
    wanted: Notify,
    foreground: AtomicUsize,
    foreground_idle: Notify,
    /// A driver of an entry is being started.
    completing: AtomicBool,
    taking: Mutex<Option<Taking>>,
}

/// Entries that were handed out soon after each other.
#[derive(Debug, Clone, Copy)]
struct Taking {
    first: Instant,
    last: Instant,
}

impl Taking {
    fn drivers_may_start(&self) -> Instant {
        (self.last + DRIVERS_STEP_BACK).min(self.first + DRIVERS_STEP_BACK_MAX)
    }
}

#[derive(Debug)]
struct Slot {
    template: PoolTemplate,
    shelf: Shelf<Arc<Entry>>,
    /// Being made.
    making: AtomicUsize,
}

/// A prepared sandbox, and what it still should get.
#[derive(Debug)]
struct Entry {
    sandbox: Arc<Sandbox>,
    /// Kernels whose driver has yet to be started, in their order.
    lacking: Mutex<VecDeque<&'static Kernel>>,
}

impl Entry {
    fn lacking(&self) -> MutexGuard<'_, VecDeque<&'static Kernel>> {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_complete(&self) -> bool {
        self.lacking().is_empty()
    }
}

/// What came off a shelf.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) fresh: Option<Arc<Sandbox>>,
    /// What its ceiling of processor time has to become.
    pub(super) cpu_millis: Option<u32>,
    /// To be destroyed.
    pub(super) stale: Vec<Arc<Sandbox>>,
}

/// A create in progress; filling steps back while there is one.
#[derive(Debug)]
pub(super) struct Foreground<'a>(&'a Pool);

impl Drop for Foreground<'_> {
    fn drop(&mut self) {
        if self.0.foreground.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.foreground_idle.notify_waiters();
        }
    }
}

/// Whether a sandbox with these limits can be had from one that was made with those of the pool.
/// Less processor time is a number that can be changed when it is handed out. More would show in
/// it fewer processors than it may use; memory its interpreters have planned with since they began,
/// and the rest are sizes of mounts.
fn fits(pooled: &Limits, asked: &Limits) -> bool {
    let with_its_time = Limits {
        cpu_millis: asked.cpu_millis,
        ..*pooled
    };
    *asked == with_its_time && asked.cpu_millis <= pooled.cpu_millis
}

fn is_alive(entry: &Arc<Entry>) -> bool {
    !entry.sandbox.is_closed()
}

impl Pool {
    pub(super) fn new(config: PoolConfig) -> Result<Self, HostError> {
        let mut slots = Vec::new();
        for template in &config.templates {
            if template.size > SIZE_MAX
                || TemplateDigest::from_hex(&template.template.digest).is_none()
            {
                return Err(HostError::Invalid(format!(
                    "pool of {}",
                    template.template.slug
                )));
            }
            if template.size > 0 {
                slots.push(Slot {
                    template: template.clone(),
                    shelf: Shelf::new(config.entry_age_max),
                    making: AtomicUsize::new(0),
                });
            }
        }
        Ok(Self {
            config,
            slots,
            wanted: Notify::new(),
            foreground: AtomicUsize::new(0),
            foreground_idle: Notify::new(),
            completing: AtomicBool::new(false),
            taking: Mutex::default(),
        })
    }

    pub(super) fn is_off(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.iter().map(|slot| slot.shelf.len()).sum()
    }

    /// Entries that lack nothing.
    pub(super) fn complete(&self) -> usize {
        let entries = self.slots.iter().flat_map(|slot| slot.shelf.all());
        entries.filter(|entry| entry.is_complete()).count()
    }

    pub(super) fn nudge(&self) {
        self.wanted.notify_one();
    }

    pub(super) fn foreground(&self) -> Foreground<'_> {
        self.foreground.fetch_add(1, Ordering::AcqRel);
        Foreground(self)
    }

    /// Takes a prepared sandbox; `None` when this recipe is not pooled.
    pub(super) fn take(&self, recipe: &Recipe) -> Option<Taken> {
        let slot = self.slots.iter().find(|slot| {
            slot.template.template.digest == recipe.template.digest
                && fits(&slot.template.limits, &recipe.limits)
                && slot.template.network == recipe.network
        })?;
        let (fresh, stale) = slot.shelf.take(is_alive, |entry| entry.is_complete());
        self.note_taking(Instant::now());
        self.nudge();
        let sandbox = |entry: Arc<Entry>| Arc::clone(&entry.sandbox);
        let asked = recipe.limits.cpu_millis;
        Some(Taken {
            fresh: fresh.map(sandbox),
            cpu_millis: (asked != slot.template.limits.cpu_millis).then_some(asked),
            stale: stale.into_iter().map(sandbox).collect(),
        })
    }

    fn taking(&self) -> MutexGuard<'_, Option<Taking>> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_taking(&self, now: Instant) {
        let mut taking = self.taking();
        let first = taking
            .filter(|taking| now < taking.last + DRIVERS_STEP_BACK)
            .map_or(now, |taking| taking.first);
        *taking = Some(Taking { first, last: now });
    }

    /// When drivers may be started again; none: now.
    fn drivers_wait_until(&self) -> Option<Instant> {
        let until = (*self.taking())?.drivers_may_start();
        (until > Instant::now()).then_some(until)
    }

    /// Gives one up, because its place is needed.
    pub(super) fn evict(&self) -> Option<Arc<Sandbox>> {
        self.slots
            .iter()
            .find_map(|slot| slot.shelf.take(|_| true, |_| false).0)
            .map(|entry| Arc::clone(&entry.sandbox))
    }

    pub(super) fn drain(&self) -> Vec<Arc<Sandbox>> {
        self.slots
            .iter()
            .flat_map(|slot| slot.shelf.drain())
            .map(|entry| Arc::clone(&entry.sandbox))
            .collect()
    }

    /// Waits until no create is in progress, but not for ever.
    async fn background_turn(&self) {
        let idle = self.foreground_idle.notified();
        if self.foreground.load(Ordering::Acquire) > 0 {
            let _ = tokio::time::timeout(FOREGROUND_WAIT_MAX, idle).await;
        }
    }

    /// The slot that lacks most of what it should have.
    fn most_wanting(&self) -> Option<usize> {
        self.slots
            .iter()
            .enumerate()
            .map(|(index, slot)| {
                let have = slot.shelf.len() + slot.making.load(Ordering::Acquire);
                (index, slot.template.size.saturating_sub(have))
            })
            .filter(|(_, missing)| *missing > 0)
            .max_by_key(|(_, missing)| *missing)
            .map(|(index, _)| index)
    }

    /// The entry to complete next: the one that lacks most.
    fn most_lacking(&self) -> Option<Arc<Entry>> {
        self.slots
            .iter()
            .flat_map(|slot| slot.shelf.all())
            .filter(|entry| !entry.is_complete())
            .max_by_key(|entry| entry.lacking().len())
    }
}

/// Keeps the pool full until the host stops.
pub(super) async fn refill(inner: Arc<Inner>) {
    let pool = &inner.pool;
    let places = Arc::new(Semaphore::new(pool.config.refill_concurrency.max(1)));
    let spacing = Duration::from_secs(1) / pool.config.refill_per_second.max(1);
    let failures = Arc::new(AtomicUsize::new(0));
    let mut next = Instant::now();
    while !inner.stopping.is_cancelled() {
        discard_stale(&inner);
        let Some(slot) = pool
            .most_wanting()
            .filter(|_| memory_allows(&pool.config, 0))
        else {
            let waiting = pool.drivers_wait_until();
            if waiting.is_none() {
                complete_one(&inner);
            }
            tokio::select! {
                () = inner.stopping.cancelled() => return,
                () = pool.wanted.notified() => {}
                () = tokio::time::sleep_until(waiting.unwrap_or_else(|| Instant::now() + CHECK_PERIOD)) => {}
            }
            continue;
        };
        let pause = failure_pause(failures.load(Ordering::Acquire));
        let turn = async {
            let place = Arc::clone(&places).acquire_owned().await;
            pool.background_turn().await;
            tokio::time::sleep_until(next.max(Instant::now() + pause)).await;
            place
        };
        let place = tokio::select! {
            () = inner.stopping.cancelled() => return,
            place = turn => place,
        };
        next = Instant::now() + spacing;
        pool.slots[slot].making.fetch_add(1, Ordering::AcqRel);
        let (maker, failures) = (Arc::clone(&inner), Arc::clone(&failures));
        inner.tasks.spawn(async move {
            if make_entry(&maker, slot).await {
                failures.store(0, Ordering::Release);
            } else {
                failures.fetch_add(1, Ordering::AcqRel);
            }
            maker.pool.slots[slot].making.fetch_sub(1, Ordering::AcqRel);
            drop(place);
            maker.pool.nudge();
        });
    }
}

fn failure_pause(failures: usize) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => FAILURE_PAUSE_MAX.min(FAILURE_PAUSE_FIRST * (1 << (n - 1).min(10))),
    }
}

fn discard_stale(inner: &Inner) {
    for slot in &inner.pool.slots {
        for entry in slot.shelf.sort_out(is_alive) {
            count(&inner.shared.counters.pool_discarded);
            entry.sandbox.close(ClosedReason::Destroyed);
        }
    }
}

/// Makes one entry and puts it on the shelf; false when that failed.
async fn make_entry(inner: &Arc<Inner>, slot: usize) -> bool {
    let template = &inner.pool.slots[slot].template;
    match prepared(inner, template).await {
        Ok(sandbox) => {
            let shelf = &inner.pool.slots[slot].shelf;
            let started = template.drivers.iter().filter(|kernel| !kernel.forkable);
            shelf.put(Arc::new(Entry {
                sandbox,
                lacking: Mutex::new(started.copied().collect()),
            }));
            // The host may have stopped between: then nobody empties the shelf but us.
            if inner.stopping.is_cancelled() {
                for entry in shelf.drain() {
                    entry.sandbox.close(ClosedReason::Destroyed);
                }
            }
            true
        }
        Err(error) => {
            count(&inner.shared.counters.pool_refill_failures);
            tracing::warn!(template = template.template.slug, %error, "pool entry failed");
            false
        }
    }
}

async fn prepared(inner: &Arc<Inner>, template: &PoolTemplate) -> Result<Arc<Sandbox>, HostError> {
    let recipe = Recipe {
        template: template.template.clone(),
        limits: template.limits,
        network: template.network,
        runtimes: template.runtimes.clone(),
        snapshot: None,
    };
    let (mut made, _) = inner.make_cold(generated_key()?, &recipe).await?;
    // Replaced when it is handed out; until then, a server that dies leaves nothing for ever.
    let lifetime = inner.pool.config.entry_age_max * 2;
    made.sandbox.set_deadline(lifetime).await?;
    for kernel in template.drivers.iter().filter(|kernel| kernel.forkable) {
        made.sandbox.add_spare_driver(kernel).await?;
    }
    Ok(made.finished())
}

/// Starts, beside everything else, one driver that some entry lacks, unless one is being started.
fn complete_one(inner: &Arc<Inner>) {
    let pool = &inner.pool;
    let Some(entry) = pool.most_lacking() else {
        return;
    };
    let next = entry.lacking().front().copied();
    let Some(kernel) = next.filter(|kernel| memory_allows(&pool.config, kernel.idle_bytes)) else {
        return;
    };
    if pool.completing.swap(true, Ordering::AcqRel) {
        return;
    }
    let maker = Arc::clone(inner);
    inner.tasks.spawn(async move {
        maker.pool.background_turn().await;
        tokio::select! {
            () = start_driver(&maker, &entry, kernel) => {}
            () = maker.stopping.cancelled() => {}
        }
        maker.pool.completing.store(false, Ordering::Release);
        maker.pool.nudge();
    });
}

async fn start_driver(inner: &Inner, entry: &Entry, kernel: &'static Kernel) {
    let started = entry.sandbox.add_spare_driver(kernel).await;
    // Also when it failed: the next entry is the next try.
    entry.lacking().pop_front();
    if let Err(error) = started
        && !entry.sandbox.is_closed()
    {
        count(&inner.shared.counters.pool_refill_failures);
        tracing::warn!(kernel = kernel.name, %error, "a driver in the pool did not start");
    }
}

/// Whether the machine has the memory that has to stay free, and this much above it.
fn memory_allows(config: &PoolConfig, bytes: u64) -> bool {
    // Without the figure (no /proc) the floor cannot be kept; then nothing is made in advance.
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| available_bytes(&text))
        .is_some_and(|available| {
            available >= config.memory_available_bytes_min.saturating_add(bytes)
        })
}

/// `MemAvailable` of `/proc/meminfo`.
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       24576000 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(available_bytes(text), Some(1024 * 1024));
        assert_eq!(available_bytes("MemFree: 1 kB"), None);
    }

    #[test]
    fn less_processor_time_fits_and_nothing_else_does() {
        let pooled = Limits::default();
        let other = |change: fn(&mut Limits)| {
            let mut limits = pooled;
            change(&mut limits);
            limits
        };
        assert!(fits(&pooled, &pooled));
        assert!(fits(&pooled, &other(|limits| limits.cpu_millis = 1_000)));
        assert!(!fits(&pooled, &other(|limits| limits.cpu_millis += 1)));
        assert!(!fits(&pooled, &other(|limits| limits.memory_bytes -= 1)));
        assert!(!fits(&pooled, &other(|limits| limits.pids -= 1)));
        assert!(!fits(&pooled, &other(|limits| limits.disk_bytes -= 1)));
    }

    #[test]
    fn failures_slow_the_filling_down() {
        assert_eq!(failure_pause(0), Duration::ZERO);
        assert_eq!(failure_pause(1), FAILURE_PAUSE_FIRST);
        assert_eq!(failure_pause(3), FAILURE_PAUSE_FIRST * 4);
        assert_eq!(failure_pause(1_000), FAILURE_PAUSE_MAX);
    }
}
