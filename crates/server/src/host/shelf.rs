//! A place where prepared things wait, and grow old.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Things with a date, handed out once each, oldest first.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    entries: Mutex<VecDeque<(Instant, T)>>,
    age_max: Duration,
}

impl<T> Shelf<T> {
    pub(super) fn new(age_max: Duration) -> Self {
        Self {
            entries: Mutex::default(),
            age_max,
        }
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<(Instant, T)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, thing: T) {
        self.entries().push_back((Instant::now(), thing));
    }

    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }

    /// The oldest that is fresh and best, else the oldest that is fresh; and the stale ones.
    pub(super) fn take(
        &self,
        usable: impl Fn(&T) -> bool,
        best: impl Fn(&T) -> bool,
    ) -> (Option<T>, Vec<T>) {
        let mut entries = self.entries();
        let stale = Self::remove_stale(&mut entries, self.age_max, usable);
        let chosen = entries.iter().position(|(_, thing)| best(thing));
        let taken = entries.remove(chosen.unwrap_or(0));
        (taken.map(|(_, thing)| thing), stale)
    }

    /// Removes the stale ones.
    pub(super) fn sort_out(&self, usable: impl Fn(&T) -> bool) -> Vec<T> {
        Self::remove_stale(&mut self.entries(), self.age_max, usable)
    }

    fn remove_stale(
        entries: &mut VecDeque<(Instant, T)>,
        age_max: Duration,
        usable: impl Fn(&T) -> bool,
    ) -> Vec<T> {
        let mut stale = Vec::new();
        for (made, thing) in std::mem::take(entries) {
            if made.elapsed() <= age_max && usable(&thing) {
                entries.push_back((made, thing));
            } else {
                stale.push(thing);
            }
        }
        stale
    }

    pub(super) fn drain(&self) -> Vec<T> {
        self.entries().drain(..).map(|(_, thing)| thing).collect()
    }

    pub(super) fn all(&self) -> Vec<T>
    where
        T: Clone,
    {
        let entries = self.entries();
        entries.iter().map(|(_, thing)| thing.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_callers_get_the_same_entry() {
        const ENTRIES: u32 = 10_000;
        const CALLERS: usize = 8;
        let shelf: Shelf<u32> = Shelf::new(Duration::from_secs(3_600));
        let taken: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut mine = Vec::new();
                        loop {
                            match shelf.take(|_| true, |_| false).0 {
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
        let shelf: Shelf<u32> = Shelf::new(Duration::from_secs(60));
        let long_ago = || Instant::now().checked_sub(Duration::from_secs(61)).unwrap();
        shelf.entries().push_back((long_ago(), 1));
        shelf.put(2);
        shelf.put(3);
        let (taken, stale) = shelf.take(|entry| *entry != 2, |_| false);
        assert_eq!((taken, stale), (Some(3), vec![1, 2]));
        shelf.entries().push_back((long_ago(), 4));
        shelf.put(5);
        assert_eq!(shelf.sort_out(|_| true), [4]);
        assert_eq!(shelf.len(), 1);
    }

    #[test]
    fn a_complete_entry_goes_before_an_older_one_that_is_not() {
        let shelf: Shelf<u32> = Shelf::new(Duration::from_secs(60));
        for entry in [1, 2, 3] {
            shelf.put(entry);
        }
        let even = |entry: &u32| entry.is_multiple_of(2);
        let order: Vec<_> = (0..4).map(|_| shelf.take(|_| true, even).0).collect();
        assert_eq!(order, [Some(2), Some(1), Some(3), None]);
    }
}
