//! `clone3` in its fork-like form (no shared memory, no new stack).

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// linux/sched.h; libc's constant has too narrow a type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Namespaces to create; see clone(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloneFlags(u64);

impl CloneFlags {
    /// The namespaces of a sandbox: user, mount, pid, network, ipc, uts. The seventh, cgroup, is
    /// unshared by the child once it is in its group, so that the group is its root.
    pub const SANDBOX: Self = Self(
        (libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS) as u64,
    );
    /// A zygote: own mounts and no network, but the pid namespace of the spawner, since
    /// `setns(CLONE_NEWPID)` works only towards descendants of the caller's.
    pub const ZYGOTE: Self = Self(
        (libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64,
    );
    /// A plain child.
    pub const NONE: Self = Self(0);
}

/// Which side of the fork this is.
#[derive(Debug)]
pub enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Forks into new namespaces, into the version 2 cgroup `cgroup` when given. A user namespace is
/// owned by the effective user of the caller: see [`clone3_owned_by`].
///
/// The caller must be single-threaded: the child is a copy with one thread, and goes on to run
/// ordinary Rust (allocation included).
///
/// # Errors
/// Those of clone3(2), and `EDEADLK` when the caller has more than one thread.
pub fn clone3(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    if thread_count()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers; all zero is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags.0 | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(fd.as_raw_fd()).expect("a BorrowedFd is not negative");
    }
    // SAFETY: args points to a valid clone_args of the stated size; no stack and no CLONE_VM, so
    // the child gets its own copy of this one, as with fork(2). The process has one thread
    // (checked above), hence no lock can be held by a thread that the child lacks.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    };
    match pid {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            // SAFETY: with CLONE_PIDFD the kernel has stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent {
                pid: i32::try_from(pid).expect("a pid fits"),
                pidfd,
            })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn thread_count() -> io::Result<u64> {
    use std::io::Read;
    let mut text = String::new();
    File::open("/proc/self/stat")?.read_to_string(&mut text)?;
    // proc(5): num_threads is field 20; fields after the command's closing parenthesis start at 3.
    text.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(17))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Lets the kernel reap children by itself; their end is seen by pidfd.
pub fn ignore_children() {
    // SAFETY: SIG_IGN is a valid disposition for SIGCHLD and no handler of ours is replaced.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
}

/// Undoes [`ignore_children`]: an ignored signal stays ignored through exec.
pub fn default_children() {
    // SAFETY: SIG_DFL is a valid disposition for SIGCHLD.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}

/// Gives this process a mount namespace of its own.
///
/// # Errors
/// Those of unshare(2).
pub fn unshare_mounts() -> io::Result<()> {
    unshare(libc::CLONE_NEWNS)
}

/// Makes the control group that this process is in the root of what it can see.
///
/// # Errors
/// Those of unshare(2).
pub fn unshare_cgroup() -> io::Result<()> {
    unshare(libc::CLONE_NEWCGROUP)
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: neither flag touches memory, descriptors or anything else that Rust relies on.
    let done = unsafe { libc::unshare(flags) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// [`clone3`] with a user namespace that belongs to the host user `owner` instead of root.
///
/// What a process in a user namespace takes of the kernel's per-user resources (inotify
/// instances, queued signals, message queues) is charged to the namespace's owner as well. If
/// root owned them all, one sandbox could take what every other one and the host need.
///
/// Who runs it: the spawner, as root, with one thread; it returns twice. The child keeps `owner`
/// as its effective user, which means nothing until its id map is written.
///
/// # Errors
/// Those of prctl(2), setresuid(2) and clone3(2).
pub fn clone3_owned_by(
    owner: u32,
    flags: CloneFlags,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Cloned> {
    use rustix::thread::{
        CapabilitiesSecureBits, Uid, set_capabilities_secure_bits, set_thread_res_uid,
    };
    let parent = rustix::process::getppid();
    let death_signal = rustix::process::parent_process_death_signal()?;
    // Without this bit leaving uid 0 would empty the effective capabilities.
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    set_thread_res_uid(None, Uid::from_raw(owner), None)?;
    let cloned = clone3(flags, cgroup);
    if matches!(cloned, Ok(Cloned::Child)) {
        return cloned;
    }
    if set_thread_res_uid(None, Uid::ROOT, None).is_err() {
        // A spawner that is not root any more is of no use; the supervisor starts another.
        super::exit_now(1);
    }
    // A change of the effective user forgets the wish to die with the parent; it may have died
    // meanwhile.
    let again = rustix::process::set_parent_process_death_signal(death_signal);
    if again.is_err() || rustix::process::getppid() != parent {
        super::exit_now(1);
    }
    cloned
}
