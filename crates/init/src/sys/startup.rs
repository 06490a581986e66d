//! What a program of ours does first and cannot do without `unsafe`: take over a descriptor that
//! it was started with, and keep a signal for its children alone. Also used by the shell driver
//! (`kernels/bash`), which has no `unsafe` of its own.

#![allow(
    unsafe_code,
    reason = "the one place for it outside the binary; see each SAFETY comment"
)]

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes ownership of a descriptor that this program was started with, and sets it
/// close-on-exec.
///
/// Call once per number, before anything else could have opened it.
///
/// # Errors
/// EBADF when no such descriptor is open.
pub fn take_inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: only borrowed for the query; a number that is not open gives EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(borrowed)?;
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: just seen to be open, and by the contract of this function nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

extern "C" fn swallow(_signal: libc::c_int) {}

/// SIGINT does nothing to this process from here on, and is as usual for programs that it starts:
/// a handler does not outlive exec, as an ignored or blocked signal would.
///
/// # Errors
/// None is known; what the C library says.
pub fn swallow_interrupts() -> Result<(), Errno> {
    // SAFETY: the action is all zero but for a handler that does nothing at all, so it may run at
    // any time; it outlives the call.
    let status = unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = swallow as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGINT, &raw const action, std::ptr::null_mut())
    };
    if status == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}
