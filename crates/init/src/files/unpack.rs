//! Entries of an archive: many small things made in one call.
//!
//! Every entry is made by a plain name in a directory that was reached from `/workspace` without
//! meeting a link, a mount or a `..`: the kernel refuses those (openat2), so it does not matter
//! what tenant code does to the tree meanwhile. Nothing that is opened here is followed.

use super::code;
use super::resolve::open;
use crate::calls::{Answer, refuse};
use crownest_init::link::{CallError, CallErrorCode, FILE_BYTES_MAX, Within};
use crownest_init::path::{DEPTH_MAX, PATH_BYTES_MAX};
use crownest_init::unpack::{ENTRIES_MAX, Entry, EntryKind, Finish};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, fstat, futimens,
    linkat, mkdirat, openat, openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Directories that an archive does not name.
const PARENT_MODE: u32 = 0o755;
const MODE_MASK: u32 = 0o777;
/// What the owner of a directory can always do there.
const OWNER_MODE: u32 = 0o700;
/// Longest part of a name that goes into a message.
const NAME_CHARS_MAX: usize = 120;

/// Makes every entry, in order.
pub(super) fn unpack(entries: &[Entry], body: &[u8]) -> Result<Answer, CallError> {
    if entries.len() > ENTRIES_MAX || body.len() > FILE_BYTES_MAX {
        let message = format!("at most {ENTRIES_MAX} entries and {FILE_BYTES_MAX} bytes at once");
        return refuse(CallErrorCode::Invalid, message);
    }
    let mut tree = Tree {
        root: open(
            Path::new("/workspace"),
            Within::Workspace,
            OFlags::DIRECTORY,
        )?
        .into_fd(),
        parent: None,
        body,
    };
    for entry in entries {
        tree.make(entry).map_err(|error| named(entry, &error))?;
    }
    if tree.body.is_empty() {
        Ok(Answer::default())
    } else {
        refuse(CallErrorCode::Invalid, "bytes that belong to no entry")
    }
}

fn named(entry: &Entry, error: &CallError) -> CallError {
    let name: String = entry.path.chars().take(NAME_CHARS_MAX).collect();
    CallError {
        code: error.code,
        message: format!("{name:?}: {}", error.message),
    }
}

/// The workspace, and what is left of the body.
struct Tree<'a> {
    root: OwnedFd,
    /// The directory of the last entry: the next one is usually in it too.
    parent: Option<(String, OwnedFd)>,
    body: &'a [u8],
}

impl Tree<'_> {
    fn make(&mut self, entry: &Entry) -> Result<(), CallError> {
        check(&entry.path)?;
        let (directory, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
        match &entry.kind {
            EntryKind::Directory { mode } => {
                make_directory(self.directory(directory)?, name, *mode)
            }
            EntryKind::File {
                offset,
                length,
                last,
            } => {
                let Some((bytes, rest)) = usize::try_from(*length)
                    .ok()
                    .and_then(|length| self.body.split_at_checked(length))
                else {
                    return refuse(CallErrorCode::Invalid, "more bytes than the body has");
                };
                self.body = rest;
                make_file(self.directory(directory)?, name, *offset, bytes, *last)
            }
            EntryKind::Symlink { target } => {
                let directory = self.directory(directory)?;
                in_place(directory, name, || symlinkat(target, directory, name)).map_err(code)
            }
            EntryKind::HardLink { target } => {
                check(target)?;
                let (place, file) = target.rsplit_once('/').unwrap_or(("", target));
                let place = descend(&self.root, place).map_err(code)?;
                let directory = self.directory(directory)?;
                make_hard_link((&place, file), directory, name)
            }
        }
    }

    /// The directory of that path, made where it is missing.
    fn directory(&mut self, path: &str) -> Result<&OwnedFd, CallError> {
        let known = self.parent.as_ref().is_some_and(|(last, _)| last == path);
        if !known {
            let directory = match descend(&self.root, path) {
                Err(Errno::NOENT) => self.make_directories(path)?,
                other => other.map_err(code)?,
            };
            self.parent = Some((path.to_owned(), directory));
        }
        let (_, directory) = self.parent.as_ref().expect("it was just put there");
        Ok(directory)
    }

    fn make_directories(&self, path: &str) -> Result<OwnedFd, CallError> {
        let mut place = descend(&self.root, "").map_err(code)?;
        for name in path.split('/') {
            match mkdirat(&place, name, Mode::from_raw_mode(PARENT_MODE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(code(error)),
            }
            place = descend(&place, name).map_err(code)?;
        }
        Ok(place)
    }
}

/// The server has judged it; this keeps what follows within what the kernel can be asked.
fn check(path: &str) -> Result<(), CallError> {
    let names = path.split('/').count();
    let plain = path
        .split('/')
        .all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0'));
    if plain && names <= DEPTH_MAX && path.len() < PATH_BYTES_MAX {
        return Ok(());
    }
    refuse(CallErrorCode::Invalid, "not a path of an entry")
}

/// Opens a directory below another one without following anything.
fn descend(from: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    openat2(from, path, flags, Mode::empty(), resolve)
}

/// Makes something under a name; a file or link that has it goes.
fn in_place<T>(
    directory: &OwnedFd,
    name: &str,
    make: impl Fn() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match make() {
        Err(Errno::EXIST) => {
            unlinkat(directory, name, AtFlags::empty())?;
            make()
        }
        other => other,
    }
}

fn make_directory(parent: &OwnedFd, name: &str, mode: u32) -> Result<(), CallError> {
    let mode = Mode::from_raw_mode((mode & MODE_MASK) | OWNER_MODE);
    match mkdirat(parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(code(error)),
    }
    // The process's umask took bits away, and one that was there has its own.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty()).map_err(code)?;
    fchmod(&directory, mode).map_err(code)
}

fn make_file(
    directory: &OwnedFd,
    name: &str,
    offset: u64,
    bytes: &[u8],
    last: Option<Finish>,
) -> Result<(), CallError> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = if offset == 0 {
        let flags = flags | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::RUSR | Mode::WUSR;
        in_place(directory, name, || openat(directory, name, flags, mode)).map_err(code)?
    } else {
        let file = openat(directory, name, flags, Mode::empty()).map_err(code)?;
        let stat = fstat(&file).map_err(code)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return refuse(CallErrorCode::PathNotRegular, "not a regular file any more");
        }
        file
    };
    write_at(&file, offset, bytes).map_err(code)?;
    let Some(Finish { mode, modified_s }) = last else {
        return Ok(());
    };
    let time = Timespec {
        tv_sec: modified_s,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    futimens(&file, &times)
        .and_then(|()| fchmod(&file, Mode::from_raw_mode(mode & MODE_MASK)))
        .map_err(code)
}

fn write_at(file: &OwnedFd, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
    let mut written = 0;
    while written < bytes.len() {
        let at = offset.saturating_add(written as u64);
        match rustix::io::pwrite(file, &bytes[written..], at) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Only regular files: a link to a symbolic link would lead elsewhere than its original does.
fn make_hard_link(
    (place, file): (&OwnedFd, &str),
    directory: &OwnedFd,
    name: &str,
) -> Result<(), CallError> {
    let stat = statat(place, file, AtFlags::SYMLINK_NOFOLLOW).map_err(code)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return refuse(CallErrorCode::PathNotRegular, "a link to no regular file");
    }
    in_place(directory, name, || {
        linkat(place, file, directory, name, AtFlags::empty())
    })
    .map_err(code)
}
