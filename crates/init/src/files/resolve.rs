//! Where a path leads: opened first, judged by what was opened.
//!
//! A path is walked by the kernel, links and all, into an `O_PATH` descriptor; then the real
//! path of that descriptor is read and checked. What is checked is what is used, so tenant code
//! that swaps a directory for a link in between gains nothing.

use super::{code, reopen};
use crate::calls::refuse;
use crate::environment::PATH_BYTES_MAX;
use crownest_init::link::{CallError, CallErrorCode, Within};
use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, openat2, readlinkat,
};
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// What `Within::Workspace` means.
const WORKSPACE: &str = "/workspace";
/// `f_type` of procfs and sysfs (linux/magic.h). Seen through init they are init's own view.
const KERNEL_FILE_SYSTEMS: [u64; 2] = [0x9fa0, 0x6265_6572];
/// Components of a path.
const DEPTH_MAX: usize = 256;

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

/// Makes a request's path absolute and refuses what cannot be one.
pub(super) fn absolute(path: &str, within: Within) -> Result<PathBuf, CallError> {
    if path.is_empty() || path.contains('\0') {
        return refuse(CallErrorCode::Invalid, "path: empty or with NUL");
    }
    let absolute = Path::new(WORKSPACE).join(path);
    if absolute.as_os_str().len() >= PATH_BYTES_MAX || absolute.components().count() > DEPTH_MAX {
        return refuse(CallErrorCode::Invalid, "path: too long");
    }
    // Links may lead back in or further out; this only gives the plain cases their plain answer,
    // whether or not anything is there.
    if within == Within::Workspace && !inside(&without_dots(&absolute)) {
        return refuse(CallErrorCode::PathOutsideWorkspace, "outside of /workspace");
    }
    Ok(absolute)
}

/// Follows a path to what is there.
pub(super) fn resolve(path: &str, within: Within) -> Result<Place, CallError> {
    open(&absolute(path, within)?, within, OFlags::empty())
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

/// `/workspace` or below; both sides must be free of dots and links.
fn inside(path: &Path) -> bool {
    path.starts_with(WORKSPACE)
}

/// The path as text alone would have it, "x/.." gone.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(path: &str) -> Result<String, CallErrorCode> {
        absolute(path, Within::Workspace)
            .map(|path| path.to_string_lossy().into_owned())
            .map_err(|error| error.code)
    }

    #[test]
    fn text_alone_decides_the_plain_cases() {
        assert_eq!(outcome("a/b"), Ok("/workspace/a/b".to_owned()));
        assert_eq!(outcome("/workspace"), Ok("/workspace".to_owned()));
        assert_eq!(outcome("a/../b"), Ok("/workspace/a/../b".to_owned()));
        for path in [
            "/etc/passwd",
            "../x",
            "/workspace/../etc",
            "a/../../x",
            "/workspacex",
            "/",
        ] {
            assert_eq!(
                outcome(path),
                Err(CallErrorCode::PathOutsideWorkspace),
                "{path}"
            );
        }
        for path in ["", "a\0b", &"a/".repeat(300), &"x".repeat(5000)] {
            assert_eq!(outcome(path), Err(CallErrorCode::Invalid), "{path:.10}");
        }
        assert!(absolute("/etc/passwd", Within::Root).is_ok());
    }
}
