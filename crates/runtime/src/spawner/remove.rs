//! The end of a sandbox, step by step and without blocking anybody: its processes are killed, its
//! groups removed, its socket deleted, its uid range freed, its askers answered.
//!
//! The kernel frees the rest by itself: with the last process go the namespaces, with the mount
//! namespace the overlay and the tmpfs under it.
//!
//! Who runs it: the spawner, as root.

use super::clients::{ClientId, Clients};
use crate::cgroup::Cgroups;
use crate::command::{Answer, Refusal, SandboxKey, Step};
use crate::layout::Layout;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// After this time the askers hear that it failed; removal is tried on.
const REMOVE_MS_MAX: u64 = 10_000;

#[derive(Debug)]
pub(super) struct Dying {
    pub key: Option<SandboxKey>,
    /// None: there was no such sandbox.
    group: Option<String>,
    pub slot: Option<u32>,
    pidfd: Option<OwnedFd>,
    pub askers: Vec<(ClientId, u64)>,
    since: Instant,
}

impl Dying {
    pub(super) fn new(
        key: Option<SandboxKey>,
        group: String,
        slot: Option<u32>,
        pidfd: Option<OwnedFd>,
    ) -> Self {
        let since = Instant::now();
        Self {
            key,
            group: Some(group),
            slot,
            pidfd,
            askers: Vec::new(),
            since,
        }
    }

    /// For a key that names nothing: nothing to do but to answer.
    pub(super) fn gone(key: SandboxKey, asker: (ClientId, u64)) -> Self {
        let since = Instant::now();
        Self {
            key: Some(key),
            group: None,
            slot: None,
            pidfd: None,
            askers: vec![asker],
            since,
        }
    }

    /// The descriptor whose end is awaited; none when there is only trying again.
    pub(super) fn waiting_for(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Does what can be done now. True when nothing is left of the sandbox.
    pub(super) fn advance(
        &mut self,
        cgroups: &dyn Cgroups,
        layout: &Layout,
        clients: &mut Clients,
    ) -> bool {
        if self.pidfd.as_ref().is_some_and(|pidfd| !has_ended(pidfd)) {
            return false;
        }
        self.pidfd = None;
        let removed = match &self.group {
            None => Ok(true),
            Some(group) => cgroups.remove(group),
        };
        if matches!(removed, Ok(true)) {
            if let Some(key) = &self.key {
                let _ = fs::remove_file(layout.init_socket(key));
            }
            self.tell(clients, &Answer::Done);
            return true;
        }
        if self.since.elapsed() > Duration::from_millis(REMOVE_MS_MAX) {
            let errno = removed
                .err()
                .and_then(|e| e.raw_os_error())
                .unwrap_or(libc::EBUSY);
            self.tell(
                clients,
                &Answer::Refused(Refusal {
                    step: Step::Destroy,
                    errno,
                }),
            );
        }
        if let Some(group) = &self.group {
            // Something forked while it was being killed.
            let _ = cgroups.kill(group);
        }
        false
    }

    fn tell(&mut self, clients: &mut Clients, answer: &Answer) {
        for (client, number) in self.askers.drain(..) {
            clients.answer(client, number, answer, &[]);
        }
    }
}

/// Whether the process behind a pidfd is gone.
pub(super) fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}
