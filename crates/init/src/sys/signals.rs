//! Signals as file descriptor events: every signal is blocked, two of them are read.

use rustix::io::Errno;
use std::os::fd::{FromRawFd, OwnedFd};

/// Highest signal number of Linux.
pub(crate) const SIGNAL_MAX: i32 = 64;

/// The kernel's own `struct sigaction` is at most this long; all zero means SIG_DFL.
const KERNEL_SIGACTION_WORDS: usize = 4;
/// Length of the kernel's signal set.
const SIGSET_BYTES: usize = 8;

/// The error of the last libc call.
pub(crate) fn last_errno() -> Errno {
    std::io::Error::last_os_error()
        .raw_os_error()
        .map_or(Errno::IO, Errno::from_raw_os_error)
}

/// Puts every signal back to its default action, blocks all of them and returns a signalfd for
/// SIGCHLD and SIGTERM. SIGPIPE is ignored, since a blocked one would stay pending for ever.
///
/// A SIGTERM can only come from outside: tenant code has another uid and no capability.
pub(crate) fn open() -> Result<OwnedFd, Errno> {
    // SAFETY: the sets are initialised by sigfillset/sigemptyset before they are read; the
    // dispositions set are SIG_DFL and SIG_IGN, so no handler of ours can ever run; the kernel
    // reads no more than the words given as an action.
    unsafe {
        for signal in 1..=SIGNAL_MAX {
            // The raw call, since libc's refuses the two signals that it keeps for itself, and a
            // tenant must not inherit even those as ignored. Fails for SIGKILL and SIGSTOP.
            let action = [0_u64; KERNEL_SIGACTION_WORDS];
            let none = std::ptr::null_mut::<u64>();
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                action.as_ptr(),
                none,
                SIGSET_BYTES,
            );
        }
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) != 0 {
            return Err(last_errno());
        }
        let mut read = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut read);
        libc::sigaddset(&raw mut read, libc::SIGCHLD);
        libc::sigaddset(&raw mut read, libc::SIGTERM);
        let fd = libc::signalfd(-1, &raw const read, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(last_errno());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Length of one record read from a signalfd; the signal's number is its first word.
pub(crate) const RECORD_BYTES: usize = size_of::<libc::signalfd_siginfo>();

/// Sends `signal` to one process, or with `group` to its process group.
///
/// Who runs it: init, with CAP_KILL. Only for pids that cannot have been reused: children that
/// were not reaped yet, or numbers read from /proc a moment ago, inside this sandbox only.
pub(crate) fn send(pid: i32, group: bool, signal: i32) -> Result<(), Errno> {
    if pid <= 1 || !(1..=SIGNAL_MAX).contains(&signal) {
        return Err(Errno::INVAL);
    }
    // SAFETY: two numbers; a pid of 0, 1 or -1, which would mean "everybody", is refused above.
    let status = unsafe { libc::kill(if group { -pid } else { pid }, signal) };
    if status == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}
