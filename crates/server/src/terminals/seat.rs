//! The place of the one client that has a terminal, and how many clients a sandbox has.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How long a client that takes a place over waits for the other one to leave it.
const TAKE_OVER_MAX: Duration = Duration::from_secs(5);

/// Clients that a sandbox has at once, whatever they do: at terminals, on the way to one, and at
/// those that have ended, which anybody may read. Some MiB are held for each.
const CLIENTS_MAX: usize = 32;

/// Places for the clients of one sandbox.
#[derive(Debug)]
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CLIENTS_MAX)))
    }
}

impl Places {
    /// None when there are too many.
    pub(crate) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// The place, and who has it.
#[derive(Debug)]
pub(super) struct Seats {
    place: Arc<Semaphore>,
    /// Tells the one who has it to go.
    holder: Mutex<Holder>,
}

#[derive(Debug, Default)]
struct Holder {
    evicted: CancellationToken,
    /// Who waits to take over, in the order in which the place is given: whoever gets it while
    /// another one waits has been taken over as well.
    takers: usize,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            place: Arc::new(Semaphore::new(1)),
            holder: Mutex::default(),
        }
    }
}

/// Held by the client that has the terminal.
#[derive(Debug)]
pub(crate) struct Seat {
    _place: OwnedSemaphorePermit,
    /// Cancelled when another client takes it over.
    pub evicted: CancellationToken,
}

impl Seats {
    pub(super) fn try_sit(&self) -> Option<Seat> {
        let place = Arc::clone(&self.place).try_acquire_owned().ok()?;
        Some(self.seat(place))
    }

    pub(super) async fn take_over(&self) -> Option<Seat> {
        let waits = Taker::new(self);
        let place = Arc::clone(&self.place).acquire_owned();
        let place = tokio::time::timeout(TAKE_OVER_MAX, place)
            .await
            .ok()?
            .ok()?;
        drop(waits);
        Some(self.seat(place))
    }

    pub(super) fn is_taken(&self) -> bool {
        self.place.available_permits() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Holder> {
        // Nothing in it is half done at any moment.
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seat(&self, place: OwnedSemaphorePermit) -> Seat {
        let evicted = CancellationToken::new();
        let mut holder = self.lock();
        holder.evicted = evicted.clone();
        if holder.takers > 0 {
            evicted.cancel();
        }
        drop(holder);
        Seat {
            _place: place,
            evicted,
        }
    }
}

/// Counted for as long as it waits, also when nobody waits for it any more.
struct Taker<'a>(&'a Seats);

impl<'a> Taker<'a> {
    /// Sends the one away who has the place.
    fn new(seats: &'a Seats) -> Self {
        let mut holder = seats.lock();
        holder.takers += 1;
        holder.evicted.cancel();
        drop(holder);
        Self(seats)
    }
}

impl Drop for Taker<'_> {
    fn drop(&mut self) {
        self.0.lock().takers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_sits_and_gives_way() {
        let seats = Arc::new(Seats::default());
        let first = seats.try_sit().unwrap();
        assert!(seats.try_sit().is_none() && seats.is_taken());
        let next = tokio::spawn({
            let seats = Arc::clone(&seats);
            async move { seats.take_over().await }
        });
        first.evicted.cancelled().await;
        drop(first);
        let second = next.await.unwrap().unwrap();
        assert!(!second.evicted.is_cancelled());
        drop(second);
        assert!(!seats.is_taken() && seats.try_sit().is_some());
    }

    #[tokio::test]
    async fn of_many_that_take_over_the_last_one_stays() {
        let seats = Arc::new(Seats::default());
        let first = seats.try_sit().unwrap();
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let seats = Arc::clone(&seats);
                tokio::spawn(async move { seats.take_over().await })
            })
            .collect();
        first.evicted.cancelled().await;
        while seats.lock().takers < takers.len() {
            tokio::task::yield_now().await;
        }
        drop(first);
        let last = takers.len() - 1;
        for (at, taker) in takers.into_iter().enumerate() {
            let seat = taker.await.unwrap().expect("every one before gives way");
            assert_eq!(seat.evicted.is_cancelled(), at < last);
        }
        assert!(!seats.is_taken() && seats.lock().takers == 0);
    }
}
