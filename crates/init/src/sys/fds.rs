//! File descriptors that init was started with.

use rustix::io::{Errno, fcntl_getfd};
use std::os::fd::{BorrowedFd, RawFd};

/// Is that number open? Used for 0, 1 and 2, so that no pipe of ours can land on them.
pub(crate) fn is_open(number: RawFd) -> bool {
    // SAFETY: only borrowed for the query.
    fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_ok()
}

/// Closes every descriptor from `first` on. Runs at start, before init has opened its own.
pub(crate) fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: no memory is involved; at this point no object in this process owns such a number.
    let status = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if status == 0 {
        Ok(())
    } else {
        Err(super::signals::last_errno())
    }
}
