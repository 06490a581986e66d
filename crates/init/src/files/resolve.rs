//! Where a path leads: opened first, judged by what was opened.
//!
//! A path is walked by the kernel, links and all, into an `O_PATH` descriptor; then the real
//! path of that descriptor is read and checked. What is checked is what is used, so tenant code
//! that swaps a directory for a link in between gains nothing.

use super::{code, reopen};
use crate::calls::refuse;
use crownest_init::link::{CallError, CallErrorCode, Within};
use crownest_init::path::{absolute, inside};
use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, openat2, readlinkat,
};
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// `f_type` of procfs and sysfs (linux/magic.h). Seen through init they are init's own view.
const KERNEL_FILE_SYSTEMS: [u64; 2] = [0x9fa0, 0x6265_6572];

/// An open place in the file system, with everything that was checked about it.
#[derive(Debug)]
pub(super) struct Place {
    fd: OwnedFd,
    /// Absolute, without links.
    pub(super) real: PathBuf,
    pub(super) stat: Stat,
}

impl Place {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn as_directory(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub(super) fn require_regular(&self) -> Result<(), CallError> {
        match self.kind() {
            FileType::RegularFile => Ok(()),
            FileType::Directory => refuse(CallErrorCode::PathIsDirectory, "a directory"),
            _ => refuse(CallErrorCode::PathNotRegular, "not a regular file"),
        }
    }

    /// Opens it for reading or listing. Only regular files and directories: opening a pipe or
    /// a device has effects of its own.
    pub(super) fn reopen(&self, flags: OFlags) -> Result<OwnedFd, CallError> {
        if self.kind() != FileType::Directory {
            self.require_regular()?;
        }
        reopen(self.fd.as_raw_fd(), flags)
    }
}

/// Follows a path to what is there.
pub(super) fn resolve(path: &str, within: Within) -> Result<Place, CallError> {
    open(&absolute(path, within)?, within, OFlags::empty())
}

/// The same; with `link`, a link at the end of the path is itself what is there.
pub(super) fn resolve_to(path: &str, within: Within, link: bool) -> Result<Place, CallError> {
    let flags = if link {
        OFlags::NOFOLLOW
    } else {
        OFlags::empty()
    };
    open(&absolute(path, within)?, within, flags)
}

/// Follows an absolute path; with `O_NOFOLLOW` its last component is taken as it is.
pub(super) fn open(path: &Path, within: Within, flags: OFlags) -> Result<Place, CallError> {
    let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
    let fd = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .map_err(|error| refusal(path, error))?;
    inspect(fd, within)
}

/// Opens one plain name below a directory that was checked; never follows it.
pub(super) fn open_below(
    directory: &Place,
    name: &std::ffi::OsStr,
    within: Within,
) -> Result<Place, CallError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH;
    let fd = openat2(&directory.fd, name, flags, Mode::empty(), resolve).map_err(code)?;
    inspect(fd, within)
}

/// Whether a directory that was checked earlier is still where it may be: the tenant can move it.
pub(super) fn inside_still(directory: &Place, within: Within) -> Result<(), CallError> {
    if within == Within::Workspace && !inside(&real_path(&directory.fd)?) {
        return refuse(CallErrorCode::PathOutsideWorkspace, "outside of /workspace");
    }
    Ok(())
}

/// Checks where a descriptor really is.
fn inspect(fd: OwnedFd, within: Within) -> Result<Place, CallError> {
    let real = real_path(&fd)?;
    if within == Within::Workspace && !inside(&real) {
        return refuse(CallErrorCode::PathOutsideWorkspace, "outside of /workspace");
    }
    let file_system = fstatfs(&fd).map_err(code)?.f_type;
    if KERNEL_FILE_SYSTEMS
        .iter()
        .any(|magic| u64::try_from(file_system) == Ok(*magic))
    {
        return refuse(CallErrorCode::Invalid, "files of the kernel are not served");
    }
    let stat = fstat(&fd).map_err(code)?;
    Ok(Place { fd, real, stat })
}

/// Says "outside" instead of the kernel's word where a link that may not be followed is met.
fn refusal(path: &Path, error: Errno) -> CallError {
    if error == Errno::LOOP && path.starts_with("/proc") {
        let message = "files of the kernel are not served".to_owned();
        return CallError {
            code: CallErrorCode::Invalid,
            message,
        };
    }
    code(error)
}

fn real_path<F: AsFd>(fd: F) -> Result<PathBuf, CallError> {
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let path = readlinkat(CWD, link, Vec::new()).map_err(code)?;
    let path = PathBuf::from(OsString::from_vec(path.into_bytes()));
    if !path.is_absolute() {
        return refuse(CallErrorCode::Invalid, "not a place in the file system");
    }
    Ok(path)
}
