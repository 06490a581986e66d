//! Making snapshots and sandboxes from them: each in a child of its own, because it takes as long
//! as the tenant has files, and because the child needs less than the spawner may.
//!
//! Who runs it: the spawner as root, and where it says so the child: root with the capabilities
//! named below, no other descriptor than the layer, the file and the channel, and no life of its
//! own: it dies with the spawner.

use super::child::INIT_LAYER_FD;
use super::clients::ClientId;
use super::create::{Making, Upper};
use super::sandboxes::Sandbox;
use super::{Spawner, failed, refusal};
use crate::command::{Answer, Refusal, SandboxKey, Step};
use crate::snapshot::{SnapshotLimits, SnapshotSize, restore, save};
use crate::sys::{self, CloneFlags, Cloned, clone3};
use rustix::fs::{Mode, fstatfs};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::process::{
    Pid, PidfdGetfdFlags, Signal, getpid, getppid, pidfd_getfd, pidfd_send_signal,
    set_parent_process_death_signal, umask,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Snapshots that are made or used at the same time.
const JOBS_MAX: usize = 4;
/// Longest time for one of them; a sandbox stands still while its files are kept.
const JOB_MS_MAX: u64 = 300_000;
/// What the child reports: step (0: none failed), error number, bytes, entries.
const REPORT_BYTES: usize = 24;
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// To read any file, and what the overlay notes.
const SAVE_CAPABILITIES: CapabilitySet =
    CapabilitySet::DAC_READ_SEARCH.union(CapabilitySet::SYS_ADMIN);
/// To make any file with any owner and mode, and what the overlay notes.
const RESTORE_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SYS_ADMIN);

/// A child at work.
#[derive(Debug)]
pub(super) struct Job {
    channel: OwnedFd,
    pidfd: OwnedFd,
    since: Instant,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Save {
        asker: (ClientId, u64),
        name: SandboxKey,
    },
    Restore(Box<(Making, Upper)>),
}

impl Job {
    /// Readable when the child is done, or dead.
    pub(super) fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// What has come of it; none while it is at work.
    fn report(&self) -> Option<Result<SnapshotSize, Refusal>> {
        let mut report = [0u8; REPORT_BYTES];
        match recv(&self.channel, &mut report, RecvFlags::DONTWAIT) {
            Ok((REPORT_BYTES, _)) => Some(decode(&report)),
            Err(Errno::AGAIN | Errno::INTR) => {
                if self.since.elapsed() > Duration::from_millis(JOB_MS_MAX) {
                    // Its end closes the channel.
                    let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
                }
                None
            }
            Ok(_) | Err(_) => Some(Err(refusal(Step::SnapshotLost))),
        }
    }
}

impl Spawner {
    /// Begins to keep the files of a sandbox; answered by [`Spawner::settle_snapshots`].
    pub(super) fn begin_snapshot(
        &mut self,
        asker: (ClientId, u64),
        key: &SandboxKey,
        name: SandboxKey,
    ) -> Result<(), Refusal> {
        let sandbox = self.sandboxes.get_ready(key);
        let sandbox = sandbox.ok_or_else(|| refusal(Step::SandboxUnknown))?;
        let init = sandbox.pidfd.as_ref();
        let init = init.ok_or_else(|| refusal(Step::SandboxUnknown))?;
        let frozen = self.cgroups.is_frozen(&sandbox.group);
        if !frozen.map_err(failed(Step::CgroupFreeze))? {
            return Err(refusal(Step::CgroupFreeze));
        }
        self.check_room_for_job()?;
        let layer = layer_of(init)?;
        let uid_base = self.config.layout.uid_base(sandbox.slot);
        let file = self.kept.begin(&name)?;
        let made = child(SAVE_CAPABILITIES, &[], None, (layer.as_fd(), &file), || {
            save(layer.as_fd(), &file, uid_base, SnapshotLimits::default())
        });
        match made {
            Ok((pidfd, channel)) => {
                let work = Work::Save { asker, name };
                self.jobs.push(Job::new(pidfd, channel, work));
                Ok(())
            }
            Err(refused) => {
                self.kept.give_up(&name);
                Err(refused)
            }
        }
    }

    /// Fills the layer of a sandbox before it gets its init.
    pub(super) fn restore_first(
        &mut self,
        making: Making,
        upper: Upper,
        file: &File,
    ) -> Result<(), Refusal> {
        let begun = self
            .check_room_for_job()
            .and_then(|()| self.begin_restore(&making, &upper, file))
            .and_then(|(pidfd, channel)| {
                // Whoever destroys the sandbox ends the child by it.
                let twin = rustix::io::fcntl_dupfd_cloexec(&pidfd, 3);
                Ok((twin.map_err(failed(Step::Clone))?, pidfd, channel))
            });
        match begun {
            Ok((init_to_be, pidfd, channel)) => {
                let name = making.plan.name.clone();
                let sandbox = Sandbox::starting(making.slot, name, making.template, init_to_be);
                self.sandboxes.insert(making.key.clone(), sandbox);
                let work = Work::Restore(Box::new((making, upper)));
                self.jobs.push(Job::new(pidfd, channel, work));
                Ok(())
            }
            Err(refused) => {
                self.abandon(&making);
                Err(refused)
            }
        }
    }

    fn begin_restore(
        &self,
        making: &Making,
        upper: &Upper,
        file: &File,
    ) -> Result<(OwnedFd, OwnedFd), Refusal> {
        let name = &making.plan.name;
        let into = self.cgroups.clone_into(name);
        let entrances = self.cgroups.entrances(name, into.is_some());
        let entrances = entrances.map_err(failed(Step::CgroupAttach))?;
        let into = into.as_ref().map(AsFd::as_fd);
        let (layer, uid_base) = (upper.upper.as_fd(), making.plan.uid_base);
        child(
            RESTORE_CAPABILITIES,
            &entrances,
            into,
            (layer, file),
            || restore(layer, file, uid_base),
        )
    }

    fn check_room_for_job(&self) -> Result<(), Refusal> {
        if self.jobs.len() >= JOBS_MAX {
            return Err(refusal(Step::SnapshotBusy));
        }
        Ok(())
    }

    /// Goes on where a child is done.
    pub(super) fn settle_snapshots(&mut self) {
        for job in std::mem::take(&mut self.jobs) {
            let Some(outcome) = job.report() else {
                self.jobs.push(job);
                continue;
            };
            match job.work {
                Work::Save { asker, name } => {
                    let outcome = outcome.and_then(|size| {
                        self.kept.finish(&name)?;
                        Ok(Answer::Snapshot(size))
                    });
                    let answer = outcome.unwrap_or_else(|refused| {
                        self.kept.give_up(&name);
                        Answer::Refused(refused)
                    });
                    self.clients.answer(asker.0, asker.1, &answer, &[]);
                }
                Work::Restore(made) => self.restored(*made, outcome),
            }
        }
    }

    fn restored(&mut self, (making, upper): (Making, Upper), done: Result<SnapshotSize, Refusal>) {
        let (asker, key, slot) = (making.asker, making.key.clone(), making.slot);
        // It may have been destroyed meanwhile.
        let ours = self.sandboxes.get(&key).is_some_and(|s| s.slot == slot);
        let going_on = match done {
            _ if !ours => Err(refusal(Step::ChildLost)),
            Ok(_) => self.give_init(making, &upper),
            Err(refused) => {
                self.abandon(&making);
                Err(refused)
            }
        };
        if let Err(refused) = going_on {
            let answer = Answer::Refused(refused);
            self.clients.answer(asker.0, asker.1, &answer, &[]);
        }
    }
}

impl Job {
    fn new(pidfd: OwnedFd, channel: OwnedFd, work: Work) -> Self {
        Self {
            channel,
            pidfd,
            since: Instant::now(),
            work,
        }
    }
}

/// The writable layer of a sandbox. Init is beside hostile code: what it holds there must at least
/// be of the kind that was given to it.
fn layer_of(init: &OwnedFd) -> Result<OwnedFd, Refusal> {
    let read = failed(Step::SnapshotRead);
    let layer = pidfd_getfd(init, INIT_LAYER_FD, PidfdGetfdFlags::empty()).map_err(&read)?;
    let kind = fstatfs(&layer).map_err(&read)?.f_type;
    if kind != TMPFS_MAGIC {
        return Err(refusal(Step::SnapshotRead));
    }
    Ok(layer)
}

/// Forks a child that does the work and reports; a pidfd of it, and the channel.
fn child(
    capabilities: CapabilitySet,
    entrances: &[OwnedFd],
    into: Option<BorrowedFd<'_>>,
    (layer, file): (BorrowedFd<'_>, &File),
    work: impl FnOnce() -> Result<SnapshotSize, Refusal>,
) -> Result<(OwnedFd, OwnedFd), Refusal> {
    let flags = SocketFlags::CLOEXEC;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let (ours, theirs) = pair.map_err(failed(Step::Clone))?;
    let spawner = getpid();
    match clone3(CloneFlags::NONE, into).map_err(failed(Step::Clone))? {
        Cloned::Parent { pidfd, .. } => Ok((pidfd, ours)),
        Cloned::Child => {
            let outcome = confine(
                spawner,
                capabilities,
                entrances,
                &[layer, file.as_fd(), theirs.as_fd()],
            )
            .map_err(failed(Step::Credentials))
            .and_then(|()| work());
            let _ = send(&theirs, &encode(outcome), SendFlags::NOSIGNAL);
            sys::exit_now(0)
        }
    }
}

/// Who runs it: the child, before it has seen anything of a tenant.
fn confine(
    spawner: Pid,
    capabilities: CapabilitySet,
    entrances: &[OwnedFd],
    kept: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(spawner) {
        sys::exit_now(1);
    }
    for entrance in entrances {
        rustix::io::write(entrance, b"0")?;
    }
    umask(Mode::empty());
    sys::close_others(kept).map_err(|_| Errno::BADF)?;
    set_no_new_privs(true)?;
    let sets = CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}

fn encode(outcome: Result<SnapshotSize, Refusal>) -> [u8; REPORT_BYTES] {
    let (step, errno, size) = match outcome {
        Ok(size) => (0, 0, size),
        Err(Refusal { step, errno }) => (step as u32, errno, SnapshotSize::default()),
    };
    let mut report = [0; REPORT_BYTES];
    report[..4].copy_from_slice(&step.to_le_bytes());
    report[4..8].copy_from_slice(&errno.to_le_bytes());
    report[8..16].copy_from_slice(&size.bytes.to_le_bytes());
    report[16..].copy_from_slice(&size.entries.to_le_bytes());
    report
}

fn decode(report: &[u8; REPORT_BYTES]) -> Result<SnapshotSize, Refusal> {
    let word = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&report[at..at + 4]);
        bytes
    };
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&report[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    match u32::from_le_bytes(word(0)) {
        0 => Ok(SnapshotSize {
            bytes: number(8),
            entries: number(16),
        }),
        step => Err(Refusal {
            step: Step::from_number(step).unwrap_or(Step::SnapshotLost),
            errno: i32::from_le_bytes(word(4)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_mean_what_was_reported() {
        let size = SnapshotSize {
            bytes: 1 << 40,
            entries: 77,
        };
        assert_eq!(decode(&encode(Ok(size))), Ok(size));
        let refused = Refusal {
            step: Step::SnapshotWrite,
            errno: libc::ENOSPC,
        };
        assert_eq!(decode(&encode(Err(refused))), Err(refused));
    }
}
