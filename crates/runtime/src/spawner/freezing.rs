//! Sandboxes that are being stopped: the kernel stops each process when that leaves a system call
//! that cannot be interrupted, and says of version 1 groups only when asked whether all have.
//!
//! Who runs it: the spawner, as root.

use super::clients::ClientId;
use super::{Spawner, failed, refusal};
use crate::command::{Answer, Refusal, SandboxKey, Step};
use std::time::{Duration, Instant};

/// Longest wait for all processes of a sandbox to stop; then they go on.
const FREEZE_MS_MAX: u64 = 5_000;

/// A freeze that is not answered yet.
#[derive(Debug)]
pub(super) struct Freezing {
    asker: (ClientId, u64),
    key: SandboxKey,
    group: String,
    since: Instant,
}

impl Spawner {
    /// Begins to stop a sandbox, or lets it go on. None: the answer comes from
    /// [`Spawner::settle_freezing`].
    pub(super) fn freeze(
        &mut self,
        asker: (ClientId, u64),
        key: &SandboxKey,
        frozen: bool,
    ) -> Result<Option<Answer>, Refusal> {
        let sandbox = self
            .sandboxes
            .get_ready(key)
            .ok_or_else(|| refusal(Step::SandboxUnknown))?;
        let group = sandbox.group.clone();
        self.cgroups
            .freeze(&group, frozen)
            .map_err(failed(Step::CgroupFreeze))?;
        if !frozen {
            // Who still waits for it to stop hears that it did not.
            let (overtaken, others) = std::mem::take(&mut self.freezing)
                .into_iter()
                .partition(|one: &Freezing| one.key == *key);
            self.freezing = others;
            for one in overtaken {
                let answer = Answer::Refused(refusal(Step::CgroupFreeze));
                self.clients.answer(one.asker.0, one.asker.1, &answer, &[]);
            }
            return Ok(Some(Answer::Done));
        }
        self.freezing.push(Freezing {
            asker,
            key: key.clone(),
            group,
            since: Instant::now(),
        });
        Ok(None)
    }

    /// Answers the freezes of sandboxes that have stopped, or that will not.
    pub(super) fn settle_freezing(&mut self) {
        let mut freezing = std::mem::take(&mut self.freezing);
        freezing.retain(|one| {
            let answer = match self.frozen(one) {
                Ok(true) => Answer::Done,
                Ok(false) if one.since.elapsed() < Duration::from_millis(FREEZE_MS_MAX) => {
                    return true;
                }
                Ok(false) => {
                    let _ = self.cgroups.freeze(&one.group, false);
                    Answer::Refused(Refusal {
                        step: Step::CgroupFreeze,
                        errno: libc::ETIMEDOUT,
                    })
                }
                Err(refused) => Answer::Refused(refused),
            };
            self.clients.answer(one.asker.0, one.asker.1, &answer, &[]);
            false
        });
        self.freezing = freezing;
    }

    fn frozen(&self, one: &Freezing) -> Result<bool, Refusal> {
        let sandbox = self.sandboxes.get(&one.key);
        if sandbox.is_none_or(|sandbox| sandbox.group != one.group) {
            return Err(refusal(Step::SandboxUnknown));
        }
        self.cgroups
            .is_frozen(&one.group)
            .map_err(failed(Step::CgroupFreeze))
    }
}
