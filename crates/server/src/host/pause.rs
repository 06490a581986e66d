//! Stopping everything in a sandbox, and letting it go on.
//!
//! Init's clock is stopped first, so that no timeout runs while it cannot act, and is started again
//! by a frame that is in its socket before it wakes: it reads that before it looks at any clock.
//! What is asked of init meanwhile waits in the same socket. Does not own who may pause, and what
//! is refused meanwhile.

use super::error::HostError;
use super::retry::retried;
use super::sandbox::{Sandbox, deadline};
use crownest_init::link::Request;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest wait for a fork that is on its way into the sandbox: a process that enters a stopped
/// group stops there, and the zygote with it.
const FORK_WAIT_MAX: Duration = Duration::from_secs(15);

/// Between two tries to let a sandbox go on for which there was no spawner.
const GO_ON_PAUSE: Duration = Duration::from_millis(500);

impl Sandbox {
    /// Stops everything in it; stopped when this returns.
    ///
    /// # Errors
    /// When init or the spawner cannot be reached, or a fork into it does not end: it goes on, as
    /// soon as there is a spawner.
    pub async fn pause(self: &Arc<Self>) -> Result<(), HostError> {
        let Ok(_no_fork) = tokio::time::timeout(FORK_WAIT_MAX, self.opening.lock()).await else {
            return Err(HostError::CallTimeout(FORK_WAIT_MAX));
        };
        let stopped = async {
            self.call(Request::ClockStop).await?;
            self.paused().send_replace(true);
            Ok(retried(|| self.shared.spawner.freeze(&self.key, true)).await?)
        };
        let stopped = stopped.await;
        match &stopped {
            Ok(()) => self.stuck.store(false, Ordering::Relaxed),
            // A spawner that was killed in the middle may have stopped it all the same.
            Err(_) => self.go_on_at_last().await,
        }
        stopped
    }

    /// Lets it go on; `after` is the time from now after which init ends it.
    ///
    /// # Errors
    /// When the spawner cannot be reached, or the sandbox is gone: it stays stopped.
    pub async fn resume(&self, after: Duration) -> Result<(), HostError> {
        if self.is_closed() {
            return Err(HostError::SandboxGone);
        }
        let link = self.link();
        for request in [deadline(after)?, Request::ClockStart] {
            // Nobody waits for the answers: what matters is that both are there when init wakes.
            link.send(self.calls.next_id(), request)
                .map_err(|error| self.lost(error))?;
        }
        retried(|| self.shared.spawner.freeze(&self.key, false)).await?;
        self.paused().send_replace(false);
        Ok(())
    }

    /// Lets it go on, in the background when there is no spawner now: for one that nobody thinks
    /// of as paused.
    pub async fn go_on_at_last(self: &Arc<Self>) {
        let _ = self.link().send(self.calls.next_id(), Request::ClockStart);
        let going_on = retried(|| self.shared.spawner.freeze(&self.key, false)).await;
        if going_on.is_ok() || self.is_closed() {
            self.paused().send_replace(false);
            return;
        }
        self.stuck.store(true, Ordering::Relaxed);
        let sandbox = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = sandbox.closed_token().cancelled() => return,
                    () = tokio::time::sleep(GO_ON_PAUSE) => {}
                }
                // Not in the middle of the next pause, and not after it.
                let _turn = sandbox.opening.lock().await;
                if !sandbox.stuck.load(Ordering::Relaxed) {
                    return;
                }
                let again = sandbox.shared.spawner.freeze(&sandbox.key, false);
                if again.await.is_ok() {
                    sandbox.stuck.store(false, Ordering::Relaxed);
                    sandbox.paused().send_replace(false);
                    return;
                }
            }
        });
    }

    /// Resolves when it is not stopped.
    pub(super) async fn going_on(&self) {
        let mut paused = self.paused().subscribe();
        let going_on = async move {
            let _ = paused.wait_for(|paused| !*paused).await;
        };
        tokio::select! {
            () = going_on => {}
            () = self.closed_token().cancelled() => {}
        }
    }

    /// Bounds the wait for init's answer. Time in which the sandbox is stopped does not count.
    pub(super) async fn timed<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, HostError>>,
    ) -> Result<T, HostError> {
        let mut work = pin!(work);
        let mut paused = self.paused().subscribe();
        loop {
            let stopped = *paused.borrow_and_update();
            tokio::select! {
                biased;
                outcome = &mut work => return outcome,
                () = tokio::time::sleep(limit), if !stopped => {
                    return Err(HostError::CallTimeout(limit));
                }
                _ = paused.changed() => {}
            }
        }
    }
}
