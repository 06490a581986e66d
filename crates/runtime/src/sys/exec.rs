//! Starting a program from a file descriptor, and closing what it must not inherit.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Closes every descriptor from `first` up.
///
/// # Errors
/// Those of close_range(2).
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller is a forked child about to exec; Rust objects owning these descriptors
    // are never used or dropped again in it.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0u32) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor but those three standard ones and `kept`.
///
/// # Errors
/// Those of close_range(2).
pub fn close_others(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let number = |fd: &BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).expect("not negative");
    let mut kept: Vec<u32> = kept.iter().map(number).collect();
    kept.sort_unstable();
    let mut first = 3;
    for number in kept {
        if number > first {
            // SAFETY: as in `close_from`, for a child that ends without dropping anything.
            let done = unsafe { libc::syscall(libc::SYS_close_range, first, number - 1, 0u32) };
            if done != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = first.max(number + 1);
    }
    close_from(first)
}

/// Makes `number` a copy of `file` that survives exec, closing what was there.
///
/// # Errors
/// Those of dup2(2).
pub fn duplicate_onto(file: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: the caller is a forked child about to exec; no Rust object owns `number` there, or
    // if one does it is never used or dropped again.
    let done = unsafe { libc::dup2(file.as_raw_fd(), number) };
    if done >= 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Replaces this process by the program behind `file`; returns only on failure.
pub fn execute_fd(file: BorrowedFd<'_>, argv: &[&CStr], envp: &[&CStr]) -> io::Error {
    let argv: Vec<_> = argv
        .iter()
        .map(|a| a.as_ptr())
        .chain([std::ptr::null()])
        .collect();
    let envp: Vec<_> = envp
        .iter()
        .map(|e| e.as_ptr())
        .chain([std::ptr::null()])
        .collect();
    // SAFETY: both arrays are null-terminated and point to C strings that outlive the call; the
    // empty path with AT_EMPTY_PATH names the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Ends this process without running destructors or exit handlers: for a forked child.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}
