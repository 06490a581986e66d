//! Asking the kernel what it offers, without changing anything.

use std::io;

/// linux/landlock.h
const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;

/// Version of the Landlock interface.
///
/// # Errors
/// `ENOSYS` or `EOPNOTSUPP` where there is none.
pub fn landlock_abi() -> io::Result<u32> {
    // SAFETY: with this flag the call takes no attributes (null, size 0) and only returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}
