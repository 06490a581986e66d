//! Sandboxes made before they are asked for.
//!
//! An entry is handed out once and never comes back; it is untouched by any tenant. Filling is
//! slow on purpose: it waits for creates in progress, keeps a rate, and stops while the machine
//! is short of memory.

use super::config::{PoolConfig, PoolTemplate};
use super::counters::count;
use super::error::HostError;
use super::making::{Inner, Recipe, generated_key};
use super::sandbox::Sandbox;
use super::spawner::TemplateDigest;
use super::types::ClosedReason;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// How often stale entries are looked for when nothing else happens.
const CHECK_PERIOD: Duration = Duration::from_secs(5);
/// Longest time that filling steps back behind creates in progress.
const FOREGROUND_WAIT_MAX: Duration = Duration::from_secs(1);
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
}

#[derive(Debug)]
struct Slot {
    template: PoolTemplate,
    shelf: Shelf<Arc<Sandbox>>,
    /// Being made.
    making: AtomicUsize,
}

/// Things with a date, handed out once each, oldest first.
#[derive(Debug)]
struct Shelf<T> {
    entries: Mutex<VecDeque<(Instant, T)>>,
    age_max: Duration,
}

impl<T> Shelf<T> {
    fn entries(&self) -> MutexGuard<'_, VecDeque<(Instant, T)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, thing: T) {
        self.entries().push_back((Instant::now(), thing));
    }

    fn len(&self) -> usize {
        self.entries().len()
    }

    /// The oldest that is fresh, and the stale ones before it.
    fn take(&self, usable: impl Fn(&T) -> bool) -> (Option<T>, Vec<T>) {
        let mut stale = Vec::new();
        let mut entries = self.entries();
        while let Some((made, thing)) = entries.pop_front() {
            if made.elapsed() <= self.age_max && usable(&thing) {
                return (Some(thing), stale);
            }
            stale.push(thing);
        }
        (None, stale)
    }

    /// Removes the stale ones.
    fn sort_out(&self, usable: impl Fn(&T) -> bool) -> Vec<T> {
        let mut stale = Vec::new();
        let mut entries = self.entries();
        for (made, thing) in std::mem::take(&mut *entries) {
            if made.elapsed() <= self.age_max && usable(&thing) {
                entries.push_back((made, thing));
            } else {
                stale.push(thing);
            }
        }
        stale
    }

    fn drain(&self) -> Vec<T> {
        self.entries().drain(..).map(|(_, thing)| thing).collect()
    }
}

/// What came off a shelf.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) fresh: Option<Arc<Sandbox>>,
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

fn is_alive(sandbox: &Arc<Sandbox>) -> bool {
    !sandbox.is_closed()
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
                    shelf: Shelf {
                        entries: Mutex::default(),
                        age_max: config.entry_age_max,
                    },
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
        })
    }

    pub(super) fn is_off(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.iter().map(|slot| slot.shelf.len()).sum()
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
                && slot.template.limits == recipe.limits
                && slot.template.network == recipe.network
        })?;
        let (fresh, stale) = slot.shelf.take(is_alive);
        self.nudge();
        Some(Taken { fresh, stale })
    }

    /// Gives one up, because its place is needed.
    pub(super) fn evict(&self) -> Option<Arc<Sandbox>> {
        self.slots
            .iter()
            .find_map(|slot| slot.shelf.take(|_| true).0)
    }

    pub(super) fn drain(&self) -> Vec<Arc<Sandbox>> {
        self.slots
            .iter()
            .flat_map(|slot| slot.shelf.drain())
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
        let Some(slot) = pool.most_wanting().filter(|_| memory_allows(&pool.config)) else {
            tokio::select! {
                () = inner.stopping.cancelled() => return,
                () = pool.wanted.notified() => {}
                () = tokio::time::sleep(CHECK_PERIOD) => {}
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
        for sandbox in slot.shelf.sort_out(is_alive) {
            count(&inner.shared.counters.pool_discarded);
            sandbox.close(ClosedReason::Destroyed);
        }
    }
}

/// Makes one entry and puts it on the shelf; false when that failed.
async fn make_entry(inner: &Arc<Inner>, slot: usize) -> bool {
    let template = &inner.pool.slots[slot].template;
    match prepared(inner, template).await {
        Ok(sandbox) => {
            let shelf = &inner.pool.slots[slot].shelf;
            shelf.put(sandbox);
            // The host may have stopped between: then nobody empties the shelf but us.
            if inner.stopping.is_cancelled() {
                for sandbox in shelf.drain() {
                    sandbox.close(ClosedReason::Destroyed);
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
    };
    let (mut made, _) = inner.make_cold(generated_key()?, &recipe).await?;
    // Replaced when it is handed out; until then, a server that dies leaves nothing for ever.
    let lifetime = inner.pool.config.entry_age_max * 2;
    made.sandbox.set_deadline(lifetime).await?;
    if let Some(language) = &template.driver {
        made.sandbox.add_spare_driver(language).await?;
    }
    Ok(made.finished())
}

fn memory_allows(config: &PoolConfig) -> bool {
    // Without the figure (no /proc) the floor cannot be kept; then nothing is made in advance.
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| available_bytes(&text))
        .is_some_and(|bytes| bytes >= config.memory_available_bytes_min)
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
    use std::collections::HashSet;

    fn shelf(age_max: Duration) -> Shelf<u32> {
        Shelf {
            entries: Mutex::default(),
            age_max,
        }
    }

    #[test]
    fn no_two_callers_get_the_same_entry() {
        const ENTRIES: u32 = 10_000;
        const CALLERS: usize = 8;
        let shelf = shelf(Duration::from_secs(3_600));
        let taken: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut mine = Vec::new();
                        loop {
                            match shelf.take(|_| true).0 {
                                Some(u32::MAX) => break,
                                Some(entry) => mine.push(entry),
                                None => std::thread::yield_now(),
                            }
                        }
                        mine
                    })
                })
                .collect();
            for entry in 0..ENTRIES {
                shelf.put(entry);
            }
            for _ in 0..CALLERS {
                shelf.put(u32::MAX);
            }
            callers
                .into_iter()
                .map(|caller| caller.join().unwrap())
                .collect()
        });
        let all: Vec<u32> = taken.into_iter().flatten().collect();
        assert_eq!(all.len(), ENTRIES as usize, "nothing is lost");
        assert_eq!(
            all.iter().collect::<HashSet<_>>().len(),
            all.len(),
            "nothing is given twice"
        );
    }

    #[test]
    fn old_and_dead_entries_are_not_handed_out() {
        let shelf = shelf(Duration::from_secs(60));
        let long_ago = || Instant::now().checked_sub(Duration::from_secs(61)).unwrap();
        shelf.entries().push_back((long_ago(), 1));
        shelf.put(2);
        shelf.put(3);
        let (taken, stale) = shelf.take(|entry| *entry != 2);
        assert_eq!((taken, stale), (Some(3), vec![1, 2]));
        shelf.entries().push_back((long_ago(), 4));
        shelf.put(5);
        assert_eq!(shelf.sort_out(|_| true), [4]);
        assert_eq!(shelf.len(), 1);
    }

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       24576000 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(available_bytes(text), Some(1024 * 1024));
        assert_eq!(available_bytes("MemFree: 1 kB"), None);
    }

    #[test]
    fn failures_slow_the_filling_down() {
        assert_eq!(failure_pause(0), Duration::ZERO);
        assert_eq!(failure_pause(1), FAILURE_PAUSE_FIRST);
        assert_eq!(failure_pause(3), FAILURE_PAUSE_FIRST * 4);
        assert_eq!(failure_pause(1_000), FAILURE_PAUSE_MAX);
    }
}
