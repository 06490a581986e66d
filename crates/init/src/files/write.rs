//! What changes a directory: write, make, move, remove.
//!
//! Every change is made by a plain name below a directory that `resolve.rs` has checked. A file
//! appears whole or not at all: it is written under another name and then renamed.

use super::resolve::{Place, open, open_below};
use super::{code, stat};
use crate::calls::{Answer, refuse};
use crownest_init::link::{CallError, CallErrorCode, FILE_BYTES_MAX, Within};
use crownest_init::path::absolute;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with};
use rustix::fs::{fchmod, unlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Directories that `parents` makes.
const PARENT_MODE: u32 = 0o755;
/// Names tried for a temporary file.
const NAMES_MAX: u32 = 16;

/// A path that something is to be made at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) path: &'a str,
    pub(super) within: Within,
    pub(super) parents: bool,
}

/// A checked directory and a plain name in it, which may or may not exist.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) directory: Place,
    pub(super) name: OsString,
}

/// The mode that a file is to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileMode {
    pub(super) bits: u32,
    /// Also where a file is replaced, which keeps its own otherwise.
    pub(super) always: bool,
}

/// Writes a whole file.
pub(super) fn write(
    target: &Target<'_>,
    overwrite: bool,
    mode: FileMode,
    body: &[u8],
) -> Result<Answer, CallError> {
    if body.len() > FILE_BYTES_MAX {
        let message = format!("at most {FILE_BYTES_MAX} bytes can be written at once");
        return refuse(CallErrorCode::FileTooLarge, message);
    }
    let (spot, mode) = writable(target, overwrite, mode)?;
    replace(&spot, overwrite, mode, body)?;
    stat(&open_below(&spot.directory, &spot.name, target.within)?)
}

/// Where a file is to appear and with which mode: that of the one it replaces, if there is one.
pub(super) fn writable(
    target: &Target<'_>,
    overwrite: bool,
    wanted: FileMode,
) -> Result<(Spot, u32), CallError> {
    if target.path.ends_with('/') {
        return refuse(CallErrorCode::PathIsDirectory, "the path names a directory");
    }
    let mut spot = find_spot(target)?;
    let mut mode = wanted.bits;
    if let Some(existing) = existing(&spot, target.within)? {
        if !overwrite {
            return refuse(CallErrorCode::FileExists, "the file exists");
        }
        let existing = if existing.kind() == FileType::Symlink {
            let real = follow(&spot, target.within)?;
            spot = spot_of(&real.real, target.within)?;
            real
        } else {
            existing
        };
        existing.require_regular()?;
        if !wanted.always {
            mode = Mode::from_raw_mode(existing.stat.st_mode).as_raw_mode() & 0o777;
        }
    }
    Ok((spot, mode))
}

/// Makes a directory; with `parents` one that is there already is fine.
pub(super) fn mkdir(target: &Target<'_>) -> Result<Answer, CallError> {
    let spot = find_spot(target)?;
    match mkdirat(
        spot.directory.as_directory(),
        &spot.name,
        Mode::from_raw_mode(PARENT_MODE),
    ) {
        Ok(()) => {}
        Err(Errno::EXIST) if target.parents => {
            let there = open(
                &absolute(target.path, target.within)?,
                target.within,
                OFlags::empty(),
            )?;
            if there.kind() != FileType::Directory {
                return refuse(CallErrorCode::FileExists, "a file of that name exists");
            }
            return stat(&there);
        }
        Err(error) => return Err(code(error)),
    }
    stat(&open_below(&spot.directory, &spot.name, target.within)?)
}

/// Moves a file, a directory or a link itself.
pub(super) fn rename(from: &str, to: &Target<'_>, overwrite: bool) -> Result<Answer, CallError> {
    let source = find_spot(&Target {
        path: from,
        within: to.within,
        parents: false,
    })
    .map_err(|error| not_there(error, CallErrorCode::FileNotFound))?;
    if to.parents {
        // Nothing is made for what is not there.
        open_below(&source.directory, &source.name, to.within)?;
    }
    let target = find_spot(to)?;
    let flags = if overwrite {
        RenameFlags::empty()
    } else {
        RenameFlags::NOREPLACE
    };
    renameat_with(
        source.directory.as_directory(),
        &source.name,
        target.directory.as_directory(),
        &target.name,
        flags,
    )
    .map_err(|error| match error {
        Errno::XDEV => CallError {
            code: CallErrorCode::OtherFileSystem,
            message: "the two places are on different file systems".to_owned(),
        },
        error => code(error),
    })?;
    Ok(Answer::default())
}

/// Removes a file, a link itself, or an empty directory.
pub(super) fn remove(path: &str, within: Within) -> Result<Answer, CallError> {
    let spot = find_spot(&Target {
        path,
        within,
        parents: false,
    })
    .map_err(|error| not_there(error, CallErrorCode::FileNotFound))?;
    let directory = spot.directory.as_directory();
    match unlinkat(directory, &spot.name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(directory, &spot.name, AtFlags::REMOVEDIR).map_err(code)?,
        other => other.map_err(code)?,
    }
    Ok(Answer::default())
}

pub(super) fn not_there(error: CallError, instead: CallErrorCode) -> CallError {
    if error.code == CallErrorCode::ParentNotFound {
        return CallError {
            code: instead,
            ..error
        };
    }
    error
}

/// The directory that a path's last component is in, and that component.
pub(super) fn find_spot(target: &Target<'_>) -> Result<Spot, CallError> {
    let path = absolute(target.path, target.within)?;
    let (parent, name) = split(&path)?;
    let directory = match open(&parent, target.within, OFlags::DIRECTORY) {
        Err(error) if error.code == CallErrorCode::FileNotFound && target.parents => {
            make_parents(&parent, target.within)?
        }
        Err(error) => return Err(not_there_parent(error)),
        Ok(directory) => directory,
    };
    Ok(Spot { directory, name })
}

fn not_there_parent(error: CallError) -> CallError {
    if error.code == CallErrorCode::FileNotFound {
        return CallError {
            code: CallErrorCode::ParentNotFound,
            ..error
        };
    }
    error
}

/// The same for a path that is known to be real.
fn spot_of(real: &Path, within: Within) -> Result<Spot, CallError> {
    let (parent, name) = split(real)?;
    Ok(Spot {
        directory: open(&parent, within, OFlags::DIRECTORY)?,
        name,
    })
}

/// The last component has to be a name: not "..", not the root.
fn split(path: &Path) -> Result<(PathBuf, OsString), CallError> {
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => Ok((parent.to_owned(), name.to_owned())),
        _ => refuse(
            CallErrorCode::Invalid,
            "path: its last component is not a name",
        ),
    }
}

/// Makes every missing directory of `path`, one name at a time below a checked one.
fn make_parents(path: &Path, within: Within) -> Result<Place, CallError> {
    let mut missing = Vec::new();
    let mut there = path.to_owned();
    let mut place = loop {
        match open(&there, within, OFlags::DIRECTORY) {
            Ok(place) => break place,
            Err(error) if error.code == CallErrorCode::FileNotFound => {
                let (parent, name) = split(&there)?;
                missing.push(name);
                there = parent;
            }
            Err(error) => return Err(error),
        }
    };
    for name in missing.iter().rev() {
        match mkdirat(place.as_directory(), name, Mode::from_raw_mode(PARENT_MODE)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(code(error)),
        }
        place = open_below(&place, name, within)?;
        if place.kind() != FileType::Directory {
            return refuse(
                CallErrorCode::PathNotDirectory,
                "a parent is not a directory",
            );
        }
    }
    Ok(place)
}

fn existing(spot: &Spot, within: Within) -> Result<Option<Place>, CallError> {
    match open_below(&spot.directory, &spot.name, within) {
        Ok(place) => Ok(Some(place)),
        Err(error) if error.code == CallErrorCode::FileNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the link at a spot leads; that has to exist and to be allowed.
fn follow(spot: &Spot, within: Within) -> Result<Place, CallError> {
    open(
        &spot.directory.real.join(&spot.name),
        within,
        OFlags::empty(),
    )
}

/// Writes beside the spot, then renames onto it.
fn replace(spot: &Spot, overwrite: bool, mode: u32, body: &[u8]) -> Result<(), CallError> {
    let directory = spot.directory.as_directory();
    let (file, temporary) = make_temporary(directory)?;
    let result = fill(&file, body)
        .and_then(|()| fchmod(&file, Mode::from_raw_mode(mode)))
        .and_then(|()| give_name(spot, &temporary, overwrite));
    if let Err(error) = result {
        let _ = unlinkat(directory, &temporary, AtFlags::empty());
        return Err(code(error));
    }
    Ok(())
}

/// Renames a temporary file onto its spot.
pub(super) fn give_name(spot: &Spot, temporary: &OsStr, overwrite: bool) -> Result<(), Errno> {
    let directory = spot.directory.as_directory();
    let flags = if overwrite {
        RenameFlags::empty()
    } else {
        RenameFlags::NOREPLACE
    };
    renameat_with(directory, temporary, directory, &spot.name, flags)
}

pub(super) fn make_temporary(directory: &OwnedFd) -> Result<(OwnedFd, OsString), CallError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::EXCL
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC
        | OFlags::NONBLOCK;
    for _ in 0..NAMES_MAX {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = OsStr::new(&format!(".crownest-write-{number}")).to_owned();
        match openat(directory, &name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => return Ok((file, name)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(code(error)),
        }
    }
    refuse(
        CallErrorCode::FileExists,
        "no free name for a temporary file",
    )
}

/// Writes all of it where the file's position is.
pub(super) fn fill(file: &OwnedFd, body: &[u8]) -> Result<(), Errno> {
    let mut written = 0;
    while written < body.len() {
        match rustix::io::write(file, &body[written..]) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
