//! When to read a pipe again.
//!
//! A program that prints a line per write wakes a reader per line, which costs both sides more
//! than the line itself. So a pipe that is read often in quick succession rests after each read:
//! out of the event loop, where a write wakes nobody, and read again when the rest is over.
//! What is printed is in the pipe all the while, so nothing is at risk and nothing changes order;
//! it is seen a millisecond later at most. A pipe that is not busy is read at once.

use std::time::{Duration, Instant};

/// Longest time that output waits in a pipe for more of it.
pub(crate) const REST_US: u64 = 1_000;
/// Reads closer together than this follow each other quickly. Longer than a rest, so that a
/// busy pipe stays one.
const QUICK_US: u64 = 2_000;
/// Reads in quick succession before a pipe rests: a program that says a few things and is done
/// never waits.
const QUICK_READS_MIN: u32 = 4;

/// A pipe was busy so long after its last read: between the end of a rest and its place in the
/// event loop it may have been written to, and something else after it.
const BUSY_US: u64 = 20_000;

/// How busy one pipe is.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last_read: Option<Instant>,
    quick_reads: u32,
    rests_until: Option<Instant>,
    /// See [`BUSY_US`].
    busy_until: Option<Instant>,
}

impl Pace {
    /// After a read that brought something. `more`: probably not all that was there, so the next
    /// read is due at once.
    pub(crate) fn read(&mut self, now: Instant, more: bool) {
        let quick = self
            .last_read
            .is_some_and(|last| now.duration_since(last) < Duration::from_micros(QUICK_US));
        self.quick_reads = if quick { self.quick_reads + 1 } else { 0 };
        self.last_read = Some(now);
        if self.quick_reads >= QUICK_READS_MIN {
            self.busy_until = Some(now + Duration::from_micros(BUSY_US));
        }
        if !more && self.quick_reads >= QUICK_READS_MIN {
            self.rests_until = Some(now + Duration::from_micros(REST_US));
        }
    }

    /// Not busy: the next read happens as soon as there is something.
    pub(crate) fn calm(&mut self) {
        *self = Self::default();
    }

    /// Ends a rest that is over. True when there was one.
    pub(crate) fn wake(&mut self, now: Instant) -> bool {
        let over = self.rests_until.is_some_and(|until| until <= now);
        if over {
            self.rests_until = None;
        }
        over
    }

    /// After a read that brought nothing: as [`Pace::calm`], but it was busy a moment ago.
    pub(crate) fn empty(&mut self) {
        *self = Self {
            busy_until: self.busy_until,
            ..Self::default()
        };
    }

    /// May it hold something that is not read on purpose, or was not a moment ago?
    pub(crate) fn is_busy(&self, now: Instant) -> bool {
        self.rests_until.is_some() || self.busy_until.is_some_and(|until| now < until)
    }

    pub(crate) fn rests_until(&self) -> Option<Instant> {
        self.rests_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, us: u64) -> Instant {
        start + Duration::from_micros(us)
    }

    #[test]
    fn few_or_slow_reads_never_rest() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for n in 0..u64::from(QUICK_READS_MIN) {
            pace.read(at(start, n * 10), false);
            assert_eq!(pace.rests_until(), None);
        }
        let mut pace = Pace::default();
        for n in 0..100 {
            pace.read(at(start, n * QUICK_US), false);
            assert_eq!(pace.rests_until(), None);
        }
    }

    #[test]
    fn a_busy_pipe_rests_after_each_read_until_it_is_calm() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for n in 0..=u64::from(QUICK_READS_MIN) {
            pace.read(at(start, n * 10), false);
        }
        let rested = pace.rests_until().unwrap();
        assert!(!pace.wake(rested - Duration::from_micros(1)));
        assert!(pace.wake(rested) && !pace.wake(rested));
        pace.read(rested, false);
        assert_eq!(pace.rests_until(), Some(at(rested, REST_US)));
        pace.calm();
        pace.read(at(rested, 10), false);
        assert_eq!(pace.rests_until(), None);
    }

    #[test]
    fn a_pipe_that_holds_more_is_read_again_at_once() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for n in 0..100 {
            pace.read(at(start, n), true);
            assert_eq!(pace.rests_until(), None);
        }
    }
}
