//! Starting a tenant process: fork, drop everything, exec.
//!
//! A plain fork and not vfork: between its change of uid and its exec the child can be stopped
//! by tenant code (`kill -STOP -1` in a loop), and a vfork parent would hang with it. For the
//! same reason the result of the exec comes through a pipe that the event loop watches.

use super::signals::last_errno;
use crownest_init::identity::Identity;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

/// Bytes that a child writes when it could not exec: step and errno, native order.
pub(crate) const FAILURE_BYTES: usize = 8;
/// Children of init are killed before init when memory runs out.
const OOM_SCORE: &[u8] = b"500";

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// Reads the status word of wait(2).
    pub(crate) fn from_wait_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Code((status >> 8) & 0xff),
            signal => Self::Signal(signal),
        }
    }
}

/// Where a child failed before its program ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Session,
    Descriptors,
    Identity,
    WorkingDirectory,
    Exec,
}

impl Step {
    fn from_number(number: i32) -> Self {
        match number {
            0 => Self::Session,
            1 => Self::Descriptors,
            2 => Self::Identity,
            3 => Self::WorkingDirectory,
            _ => Self::Exec,
        }
    }
}

/// Decodes what [`start`]'s status pipe brought. None: the program runs.
pub(crate) fn failure(bytes: &[u8]) -> Option<(Step, Errno)> {
    let (step, rest) = bytes.split_first_chunk::<4>()?;
    let errno = rest.first_chunk::<4>()?;
    let errno = Errno::from_raw_os_error(i32::from_ne_bytes(*errno));
    Some((Step::from_number(i32::from_ne_bytes(*step)), errno))
}

/// Everything that a child needs, prepared before the fork.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    /// Paths to try, in order.
    pub(crate) paths: &'a [CString],
    pub(crate) argv: &'a [CString],
    pub(crate) env: &'a [CString],
    pub(crate) cwd: &'a CStr,
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
    /// Becomes fd 3.
    pub(crate) control: Option<BorrowedFd<'a>>,
    /// Checked: one that is allowed.
    pub(crate) identity: Identity,
    /// stdin is to be its controlling terminal.
    pub(crate) terminal: bool,
    /// Limit of open files to restore, soft and hard.
    pub(crate) files_limit: (u64, u64),
}

/// A child on its way to its program.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    /// End of file: the program runs. [`FAILURE_BYTES`] bytes: it does not.
    pub(crate) status: OwnedFd,
}

/// Raw pointers and numbers only: what the child may look at after the fork.
struct ChildPlan {
    paths: Vec<*const libc::c_char>,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    cwd: *const libc::c_char,
    fds: [RawFd; 3],
    control: Option<RawFd>,
    identity: Identity,
    terminal: bool,
    status: RawFd,
    files_limit: libc::rlimit,
}

/// Forks a child that becomes `program` as a tenant's user, without any capability, in a
/// session of its own.
pub(crate) fn start(program: &Program<'_>) -> Result<Started, Errno> {
    let (status, status_write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let plan = ChildPlan {
        paths: pointers(program.paths),
        argv: pointers(program.argv),
        env: pointers(program.env),
        cwd: program.cwd.as_ptr(),
        fds: [
            program.stdin.as_raw_fd(),
            program.stdout.as_raw_fd(),
            program.stderr.as_raw_fd(),
        ],
        control: program.control.map(|fd| fd.as_raw_fd()),
        identity: program.identity,
        terminal: program.terminal,
        status: status_write.as_raw_fd(),
        files_limit: libc::rlimit {
            rlim_cur: program.files_limit.0,
            rlim_max: program.files_limit.1,
        },
    };
    // SAFETY: without CLONE_VM this is a fork: the child gets its own copy of this
    // single-threaded process and runs only `child`, which makes system calls on memory
    // prepared above, allocates nothing and never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if pid == 0 {
        // SAFETY: this is the child; every pointer in the plan is from CStrings that it has a
        // copy of, and every array ends in null.
        unsafe { child(&plan) }
    }
    if pid < 0 {
        return Err(last_errno());
    }
    Ok(Started {
        pid: i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?,
        status,
    })
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// The child's side. Starts with init's uid and capabilities, ends as the tenant's user with none.
///
/// # Safety
/// Only in a forked child; the plan's pointers must be valid there.
unsafe fn child(plan: &ChildPlan) -> ! {
    // SAFETY: (whole block) system calls with numbers, or with pointers that the plan vouches
    // for; errno is this process's own copy.
    unsafe {
        let failed = 'start: {
            if libc::setsid() < 0 {
                break 'start (Step::Session, errno());
            }
            prefer_for_oom();
            if !place_descriptors(plan) {
                break 'start (Step::Descriptors, errno());
            }
            if plan.terminal && libc::ioctl(0, libc::TIOCSCTTY as _, 0) < 0 {
                break 'start (Step::Session, errno());
            }
            if !become_user(plan.identity) {
                break 'start (Step::Identity, errno());
            }
            if libc::chdir(plan.cwd) < 0 {
                break 'start (Step::WorkingDirectory, errno());
            }
            (Step::Exec, exec(plan))
        };
        let mut message = [0_u8; FAILURE_BYTES];
        message[..4].copy_from_slice(&(failed.0 as i32).to_ne_bytes());
        message[4..].copy_from_slice(&failed.1.to_ne_bytes());
        libc::write(plan.status, message.as_ptr().cast(), FAILURE_BYTES);
        libc::_exit(127)
    }
}

/// Still with init's uid: a process that is not dumpable may not write its own oom_score_adj,
/// so this copy becomes dumpable for a moment. Tenant code has another uid and cannot use it.
/// Best effort: the program runs either way.
unsafe fn prefer_for_oom() {
    // SAFETY: constant strings; the fd is closed before it can be inherited.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let fd = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if fd >= 0 {
            libc::write(fd, OOM_SCORE.as_ptr().cast(), OOM_SCORE.len());
            libc::close(fd);
        }
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
}

/// fds 0, 1, 2 and, for a driver, 3; everything above is closed by the exec. The sources are
/// all above 3, because init keeps 0 to 3 open for its whole life.
unsafe fn place_descriptors(plan: &ChildPlan) -> bool {
    // SAFETY: numbers only.
    unsafe {
        for (target, source) in (0..).zip(plan.fds) {
            if libc::dup2(source, target) < 0 {
                return false;
            }
        }
        let mut first_closed: libc::c_uint = 3;
        if let Some(control) = plan.control {
            if libc::dup2(control, 3) < 0 {
                return false;
            }
            first_closed = 4;
        }
        let flags = libc::CLOSE_RANGE_CLOEXEC;
        if libc::syscall(libc::SYS_close_range, first_closed, u32::MAX, flags) < 0 {
            return false;
        }
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const plan.files_limit) == 0
    }
}

/// Groups, gid, uid, then every capability: changing from one uid that is not 0 to another
/// keeps them, so they are dropped by hand. Raw calls: glibc's would try to tell other threads.
unsafe fn become_user(Identity { uid, gid }: Identity) -> bool {
    // _LINUX_CAPABILITY_VERSION_3, this process; then two sets of effective, permitted,
    // inheritable, all zero.
    let header: [u32; 2] = [0x2008_0522, 0];
    let none: [u32; 6] = [0; 6];
    // SAFETY: the arrays have the layout that capset documents and outlive the call; the signal
    // set is initialised before use.
    unsafe {
        if libc::syscall(libc::SYS_setgroups, 0, ptr::null::<libc::gid_t>()) < 0
            || libc::syscall(libc::SYS_setresgid, gid, gid, gid) < 0
            || libc::syscall(libc::SYS_setresuid, uid, uid, uid) < 0
            || libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) < 0
            || libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_CLEAR_ALL,
                0,
                0,
                0,
            ) < 0
            || libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) < 0
        {
            return false;
        }
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) == 0
    }
}

/// Tries the paths in turn; returns the errno that says most about the failure.
unsafe fn exec(plan: &ChildPlan) -> i32 {
    let mut result = libc::ENOENT;
    for path in &plan.paths {
        if path.is_null() {
            break;
        }
        // SAFETY: null-terminated strings and arrays, by the contract of `child`.
        unsafe {
            libc::execve(*path, plan.argv.as_ptr(), plan.env.as_ptr());
            let error = errno();
            match error {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => result = error,
                _ => return error,
            }
        }
    }
    result
}

unsafe fn errno() -> i32 {
    // SAFETY: glibc and musl promise a valid pointer for the calling thread.
    unsafe { *libc::__errno_location() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_status_is_read() {
        assert_eq!(Exit::from_wait_status(0x0300), Exit::Code(3));
        assert_eq!(Exit::from_wait_status(9), Exit::Signal(9));
        assert_eq!(Exit::from_wait_status(0x80 | 11), Exit::Signal(11));
    }

    #[test]
    fn failure_needs_all_its_bytes() {
        assert_eq!(failure(&[]), None);
        assert_eq!(failure(&[3, 0, 0, 0]), None);
        let mut bytes = 3_i32.to_ne_bytes().to_vec();
        bytes.extend(libc::ENOENT.to_ne_bytes());
        assert_eq!(
            failure(&bytes),
            Some((Step::WorkingDirectory, Errno::NOENT))
        );
    }
}
