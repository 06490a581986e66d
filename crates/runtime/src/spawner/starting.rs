//! Sandboxes whose child has its root and has not become init yet: it mounts, drops its rights and
//! executes init, in about a millisecond, while the spawner does other things.
//!
//! Who runs it: the spawner, as root.

use super::clients::{ClientId, Clients};
use super::remove::has_ended;
use super::{Spawner, refusal};
use crate::command::{Answer, Refusal, SandboxKey, Step};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Longest time from the root to the exec of init; a child that is stuck is killed.
const CHILD_MS_MAX: u64 = 5_000;

/// A create that is not answered yet.
#[derive(Debug)]
pub(super) struct Starting {
    asker: (ClientId, u64),
    key: SandboxKey,
    /// Tells this sandbox from a later one with the same key.
    slot: u32,
    channel: OwnedFd,
    since: Instant,
}

impl Starting {
    pub(super) fn new(
        asker: (ClientId, u64),
        key: SandboxKey,
        slot: u32,
        channel: OwnedFd,
    ) -> Self {
        Self {
            asker,
            key,
            slot,
            channel,
            since: Instant::now(),
        }
    }

    /// Readable when there is something to settle.
    pub(super) fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// What the child has come to; none while it is on its way.
    ///
    /// The channel closes at exec, or with a child that dies; before that it can only bring the
    /// step that failed.
    fn report(&self) -> Option<Result<(), Refusal>> {
        let mut report = [0u8; 8];
        match recv(&self.channel, &mut report, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Some(Ok(())),
            Ok(_) => {
                let [a, b, c, d, e, f, g, h] = report;
                let step = Step::from_number(u32::from_le_bytes([a, b, c, d]));
                Some(Err(Refusal {
                    step: step.unwrap_or(Step::ChildLost),
                    errno: i32::from_le_bytes([e, f, g, h]),
                }))
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                let late = self.since.elapsed() > Duration::from_millis(CHILD_MS_MAX);
                late.then(|| Err(refusal(Step::ChildLost)))
            }
            Err(errno) => Some(Err(Refusal {
                step: Step::ChildLost,
                errno: errno.raw_os_error(),
            })),
        }
    }
}

impl Spawner {
    /// Answers the creates whose child has become init or has failed to.
    pub(super) fn settle_starting(&mut self) {
        let mut starting = std::mem::take(&mut self.starting);
        starting.retain(|one| match one.report() {
            None => true,
            Some(outcome) => {
                let answer = match outcome.and_then(|()| self.started(one)) {
                    Ok(()) => Answer::Done,
                    Err(refused) => {
                        self.sandboxes
                            .give_up(&one.key, one.slot, self.cgroups.as_ref());
                        Answer::Refused(refused)
                    }
                };
                reply(&mut self.clients, one, &answer);
                false
            }
        });
        self.starting = starting;
    }

    /// Marks a sandbox as one that has an init. It may have been destroyed meanwhile.
    fn started(&mut self, one: &Starting) -> Result<(), Refusal> {
        let sandbox = self
            .sandboxes
            .get_mut(&one.key)
            .filter(|sandbox| sandbox.slot == one.slot)
            .ok_or_else(|| refusal(Step::ChildLost))?;
        if sandbox.pidfd.as_ref().is_none_or(has_ended) {
            return Err(refusal(Step::ChildLost));
        }
        sandbox.ready = true;
        Ok(())
    }
}

fn reply(clients: &mut Clients, one: &Starting, answer: &Answer) {
    let (client, number) = one.asker;
    clients.answer(client, number, answer, &[]);
}
