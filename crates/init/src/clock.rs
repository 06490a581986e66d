//! The clock of every timeout in here: the machine's, without the time in which the sandbox was
//! stopped. Does not count for the sandbox's own deadline, which comes in any case.
//!
//! Stopped shortly before all processes are (this one among them) and started by what this process
//! reads first when it goes on. One thread, one clock.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A server that stopped the clock and is never heard of again: after this time awake it goes on.
const STOPPED_AWAKE_MAX: Duration = Duration::from_secs(20);
/// How often that is looked at; a longer gap was not spent awake.
pub(crate) const STOPPED_TICK: Duration = Duration::from_secs(1);

thread_local! {
    static CLOCK: Cell<Clock> = const { Cell::new(Clock { behind: Duration::ZERO, stopped: None }) };
}

#[derive(Debug, Clone, Copy)]
struct Clock {
    /// Time that it has missed.
    behind: Duration,
    stopped: Option<Stopped>,
}

#[derive(Debug, Clone, Copy)]
struct Stopped {
    /// By the machine's clock.
    at: Instant,
    seen: Instant,
    awake: Duration,
}

impl Clock {
    fn now(self, machine: Instant) -> Instant {
        let machine = self.stopped.map_or(machine, |stopped| stopped.at);
        machine.checked_sub(self.behind).unwrap_or(machine)
    }

    fn stop(&mut self, machine: Instant) {
        self.stopped.get_or_insert(Stopped {
            at: machine,
            seen: machine,
            awake: Duration::ZERO,
        });
    }

    fn start(&mut self, machine: Instant) {
        if let Some(stopped) = self.stopped.take() {
            self.behind += machine.saturating_duration_since(stopped.at);
        }
    }

    /// Counts the time awake while it stands; false when that is too long.
    fn may_stand(&mut self, machine: Instant) -> bool {
        let Some(stopped) = &mut self.stopped else {
            return true;
        };
        let gap = machine.saturating_duration_since(stopped.seen);
        stopped.seen = machine;
        stopped.awake += gap.min(2 * STOPPED_TICK);
        stopped.awake < STOPPED_AWAKE_MAX
    }
}

fn with<T>(what: impl FnOnce(&mut Clock) -> T) -> T {
    CLOCK.with(|cell| {
        let mut clock = cell.get();
        let value = what(&mut clock);
        cell.set(clock);
        value
    })
}

/// The time.
pub(crate) fn now() -> Instant {
    CLOCK.with(|cell| cell.get().now(Instant::now()))
}

/// How long ago that was.
pub(crate) fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}

/// Stops it; once is enough.
pub(crate) fn stop() {
    with(|clock| clock.stop(Instant::now()));
}

/// Lets it go on from where it was stopped.
pub(crate) fn start() {
    with(|clock| clock.start(Instant::now()));
}

/// Whether it stands.
pub(crate) fn is_stopped() -> bool {
    CLOCK.with(|cell| cell.get().stopped.is_some())
}

/// Whether it stood too long for somebody to start it still. Asked once in each turn.
pub(crate) fn is_forgotten() -> bool {
    !with(|clock| clock.may_stand(Instant::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_stood_is_missed_once() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut clock = Clock {
            behind: Duration::ZERO,
            stopped: None,
        };
        clock.stop(at(10));
        clock.stop(at(20));
        assert_eq!(clock.now(at(500)), at(10));
        clock.start(at(1_000));
        clock.start(at(2_000));
        assert_eq!(clock.now(at(1_001)), at(11));
        clock.stop(at(1_005));
        clock.start(at(1_105));
        assert_eq!(clock.now(at(1_110)), at(20));
    }

    #[test]
    fn only_time_awake_makes_it_go_on_by_itself() {
        let begin = Instant::now();
        let mut clock = Clock {
            behind: Duration::ZERO,
            stopped: None,
        };
        assert!(clock.may_stand(begin));
        clock.stop(begin);
        let frozen = begin + Duration::from_secs(86_400);
        assert!(clock.may_stand(frozen), "it slept, as it was told to");
        let mut turns = 0;
        while clock.may_stand(frozen + turns * STOPPED_TICK) {
            turns += 1;
        }
        assert!((17..=20).contains(&turns), "{turns}");
    }
}
