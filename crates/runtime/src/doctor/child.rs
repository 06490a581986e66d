//! Children that try something and end.
//!
//! They wait on a socket whose other end is ours, so that they end when this process does, however
//! it does.

use crate::sys::{CloneFlags, Cloned, clone3, exit_now};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A child that has not ended by then is killed.
const CHILD_MS_MAX: i64 = 5000;

/// A child that waits until its end of the socket says that ours is gone.
pub(super) struct Child {
    pub(super) pid: i32,
    pidfd: OwnedFd,
    _ours: OwnedFd,
}

impl Child {
    pub(super) fn start(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        Self::run(flags, cgroup, |theirs| {
            let mut byte = [0_u8; 1];
            // Whatever it is, it means "over".
            let _ = rustix::io::read(theirs, &mut byte);
            0
        })
    }

    /// Runs `work` in a child; its result is the exit code.
    pub(super) fn run(
        flags: CloneFlags,
        cgroup: Option<BorrowedFd<'_>>,
        work: impl FnOnce(&OwnedFd) -> i32,
    ) -> io::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        match clone3(flags, cgroup)? {
            Cloned::Child => {
                drop(ours);
                exit_now(work(&theirs))
            }
            Cloned::Parent { pid, pidfd } => Ok(Self {
                pid,
                pidfd,
                _ours: ours,
            }),
        }
    }

    /// Waits for the end by pidfd. `None`: a signal ended it.
    pub(super) fn wait(&self) -> io::Result<Option<i32>> {
        let timeout = Timespec {
            tv_sec: CHILD_MS_MAX / 1000,
            tv_nsec: 0,
        };
        let ready = poll(
            &mut [PollFd::new(&self.pidfd, PollFlags::IN)],
            Some(&timeout),
        )?;
        if ready == 0 {
            self.kill()?;
        }
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)?;
        Ok(status.and_then(|status| status.exit_status()))
    }

    pub(super) fn kill(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, Signal::KILL)?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Ended or not, reaped or not: afterwards it is both.
        let _ = self.kill();
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}
