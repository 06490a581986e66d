//! `mount_setattr`: read-only, nosuid, and the id-mapping of a detached mount.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Attributes to set; see mount_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttrFlags(u64);

impl AttrFlags {
    pub const RDONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    pub const NOSUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    pub const NODEV: Self = Self(libc::MOUNT_ATTR_NODEV);
    pub const NOEXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);
}

impl std::ops::BitOr for AttrFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Sets attributes of the mount behind `mount`; with `userns`, also maps its ids into that
/// user namespace.
///
/// # Errors
/// Those of mount_setattr(2).
pub fn set_mount_attr(
    mount: BorrowedFd<'_>,
    flags: AttrFlags,
    userns: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    // SAFETY: mount_attr is plain integers; all zero is a valid value.
    let mut attr: libc::mount_attr = unsafe { std::mem::zeroed() };
    attr.attr_set = flags.0;
    if let Some(fd) = userns {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::try_from(fd.as_raw_fd()).expect("a BorrowedFd is not negative");
    }
    // SAFETY: the path is an empty C string (AT_EMPTY_PATH: the mount itself); attr is valid for
    // the stated size.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
