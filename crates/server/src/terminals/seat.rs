//! The place of the one client that has a terminal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How long a client that takes a place over waits for the other one to leave it.
const TAKE_OVER_MAX: Duration = Duration::from_secs(5);

/// The place, and who has it.
#[derive(Debug)]
pub(super) struct Seats {
    place: Arc<Semaphore>,
    /// Tells the one who has it to go.
    holder: Mutex<CancellationToken>,
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
        self.lock().cancel();
        let place = Arc::clone(&self.place).acquire_owned();
        let place = tokio::time::timeout(TAKE_OVER_MAX, place)
            .await
            .ok()?
            .ok()?;
        Some(self.seat(place))
    }

    pub(super) fn is_taken(&self) -> bool {
        self.place.available_permits() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, CancellationToken> {
        // A token is replaced whole.
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seat(&self, place: OwnedSemaphorePermit) -> Seat {
        let evicted = CancellationToken::new();
        *self.lock() = evicted.clone();
        Seat {
            _place: place,
            evicted,
        }
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
}
