//! Calls to init that wait for their answer.

use super::error::HostError;
use super::target::Target;
use bytes::Bytes;
use crownest_init::link::{CallError, Reply, ReplyResult};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// A successful answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) body: Bytes,
    pub(super) fds: Vec<OwnedFd>,
}

/// What a call comes to.
#[derive(Debug)]
pub(super) enum Outcome {
    Answer(Answer),
    Refused(CallError),
    LinkLost,
}

#[derive(Debug)]
enum Waiter {
    Caller(oneshot::Sender<Outcome>),
    /// A run is told only when it was refused: its events say everything else.
    Run(Arc<Target>),
}

/// The calls in flight on one sandbox's link.
#[derive(Debug, Default)]
pub(super) struct Calls {
    last_id: AtomicU64,
    waiters: Mutex<HashMap<u64, Waiter>>,
}

/// A call in flight; forgotten when dropped.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    calls: &'a Calls,
    pub(super) id: u64,
    receiver: oneshot::Receiver<Outcome>,
}

impl Calls {
    fn waiters(&self) -> MutexGuard<'_, HashMap<u64, Waiter>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a call whose answer nobody needs; 0 is for acknowledgements.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Registers a call before it is sent.
    pub(super) fn begin(&self) -> Pending<'_> {
        let id = self.next_id();
        let (sender, receiver) = oneshot::channel();
        self.waiters().insert(id, Waiter::Caller(sender));
        Pending {
            calls: self,
            id,
            receiver,
        }
    }

    /// As [`Calls::begin`], for a caller that waits elsewhere. [`Calls::forget`] it when nobody
    /// waits any more; [`answered`] reads what came.
    pub(super) fn begin_detached(&self) -> (u64, oneshot::Receiver<Outcome>) {
        let id = self.next_id();
        let (sender, receiver) = oneshot::channel();
        self.waiters().insert(id, Waiter::Caller(sender));
        (id, receiver)
    }

    /// Registers the start of a run. [`Calls::forget`] it when the run is over.
    pub(super) fn begin_run(&self, id: u64, target: Arc<Target>) {
        self.waiters().insert(id, Waiter::Run(target));
    }

    /// Calls and runs that wait for something.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.waiters().len()
    }

    /// Forgets a call that could not be sent, or that is not going to be answered.
    pub(super) fn forget(&self, id: u64) {
        self.waiters().remove(&id);
    }

    /// Delivers an answer. Returns a run that was refused.
    pub(super) fn answer(
        &self,
        id: u64,
        result: ReplyResult,
        body: Vec<u8>,
        fds: Vec<OwnedFd>,
    ) -> Option<(Arc<Target>, CallError)> {
        let waiter = self.waiters().remove(&id)?;
        match (waiter, result) {
            (Waiter::Run(target), ReplyResult::Error(error)) => Some((target, error)),
            (Waiter::Run(_), ReplyResult::Ok(_)) => None,
            (Waiter::Caller(sender), result) => {
                // A caller that went away does not want it.
                let _ = sender.send(match result {
                    ReplyResult::Ok(reply) => Outcome::Answer(Answer {
                        reply,
                        body: Bytes::from(body),
                        fds,
                    }),
                    ReplyResult::Error(error) => Outcome::Refused(error),
                });
                None
            }
        }
    }

    /// The link is lost: callers are told; runs are judged by the next hello.
    pub(super) fn lose_all(&self) {
        let lost = std::mem::take(&mut *self.waiters());
        for waiter in lost.into_values() {
            if let Waiter::Caller(sender) = waiter {
                let _ = sender.send(Outcome::LinkLost);
            }
        }
    }
}

impl Pending<'_> {
    /// Waits for the answer. `port` names the dialled port in the error.
    pub(super) async fn answer(mut self, port: u16) -> Result<Answer, HostError> {
        answered(&mut self.receiver, port).await
    }
}

/// What came of a call.
pub(super) async fn answered(
    receiver: &mut oneshot::Receiver<Outcome>,
    port: u16,
) -> Result<Answer, HostError> {
    match receiver.await {
        Ok(Outcome::Answer(answer)) => Ok(answer),
        Ok(Outcome::Refused(error)) => Err(HostError::from_call(&error, port)),
        Ok(Outcome::LinkLost) | Err(_) => Err(HostError::LinkLost),
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.calls.forget(self.id);
    }
}
