//! Records that must not be lost because the store is away for a while: locked, full, restarting.
//!
//! Owns: trying again in the background. Does not own: what is written, and what callers are told
//! meanwhile. What is still waiting when the server stops gets one last try; a server that is
//! killed meanwhile finds out at its next start (see [`crate::recovery`]).

use crate::app::App;
use crownest_store::StoreError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Records that wait at the same time; more are given up at once.
const WAITING_MAX: usize = 4_096;
const PAUSE: Duration = Duration::from_millis(500);
/// How often one is tried: for an hour.
const TRIES_MAX: u32 = 7_200;

/// The places of records that wait.
#[derive(Debug, Clone)]
pub(crate) struct Waiting(Arc<Semaphore>);

impl Default for Waiting {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WAITING_MAX)))
    }
}

impl App {
    /// Tries to write something until it is written, in the background. `attempt` must be
    /// harmless when an earlier try has succeeded without our knowing.
    pub(crate) fn persist<F, W>(&self, what: &'static str, attempt: F)
    where
        F: Fn(App) -> W + Send + 'static,
        W: Future<Output = Result<(), StoreError>> + Send,
    {
        let Ok(place) = Arc::clone(&self.unwritten.0).try_acquire_owned() else {
            tracing::error!(what, "too many records wait for the store; one is lost");
            return;
        };
        let app = self.clone();
        self.tasks.spawn(async move {
            for _ in 0..TRIES_MAX {
                let stopped = tokio::time::timeout(PAUSE, app.stopping.cancelled()).await;
                match attempt(app.clone()).await {
                    Ok(()) => return drop(place),
                    Err(error) if stopped.is_ok() || !error.is_transient() => {
                        tracing::error!(%error, what, "a record is lost");
                        return;
                    }
                    Err(_) => {}
                }
            }
            tracing::error!(what, "the store was away for too long; a record is lost");
        });
    }
}
