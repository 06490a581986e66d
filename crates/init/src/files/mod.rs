//! File operations, made with the rights of the tenant's user and never with init's.
//!
//! Owns: what each file request does. `resolve.rs` owns where a path leads, `write.rs` what
//! changes a directory, `tree.rs` how a whole one goes, `change.rs` modes and owners, `unpack.rs`
//! what an archive becomes, `upload.rs` files that come in pieces. Only regular files and directories are ever opened; nothing here waits:
//! a pipe, a device or a socket is refused before it is opened.
//!
//! Invariant: between [`AsUser::enter`] and its end no descriptor of init's own is created and
//! nothing outside this folder runs.

mod change;
mod resolve;
mod tree;
mod unpack;
mod upload;
mod write;

pub(crate) use upload::Uploads;

use crate::calls::{Answer, refuse};
use crate::sys::identity::AsUser;
use crownest_init::link::{
    CallError, CallErrorCode, FILE_BYTES_MAX, FileEntry, FileKind, FileStat, LIST_ENTRIES_MAX,
    Reply, Request,
};
use resolve::{Place, resolve, resolve_to};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, StatxFlags, openat, statat, statx};
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// Permission bits that a request may set.
const MODE_MASK: u32 = 0o777;

/// Handles one file request.
pub(crate) fn handle(
    uploads: &mut Uploads,
    request: &Request,
    body: &[u8],
) -> Result<Answer, CallError> {
    let Some(_as_user) = AsUser::enter() else {
        return refuse(
            CallErrorCode::Internal,
            "the tenant's identity could not be taken",
        );
    };
    match request {
        Request::FileStat { path, within, link } => stat(&resolve_to(path, *within, *link)?),
        Request::FileList { path, within, link } => list(&resolve_to(path, *within, *link)?),
        Request::FileRead {
            path,
            within,
            offset,
            length,
        } => read(&resolve(path, *within)?, *offset, *length),
        Request::FileWrite {
            path,
            within,
            overwrite,
            parents,
            mode,
        } => {
            let target = write::Target {
                path,
                within: *within,
                parents: *parents,
            };
            let mode = write::FileMode {
                bits: mode & MODE_MASK,
                always: false,
            };
            write::write(&target, *overwrite, mode, body)
        }
        Request::FileMkdir {
            path,
            within,
            parents,
        } => write::mkdir(&write::Target {
            path,
            within: *within,
            parents: *parents,
        }),
        Request::FileMove {
            from,
            to,
            within,
            overwrite,
            parents,
        } => {
            let target = write::Target {
                path: to,
                within: *within,
                parents: *parents,
            };
            write::rename(from, &target, *overwrite)
        }
        Request::FileRemove { path, within } => write::remove(path, *within),
        Request::FileRemoveTree { path, within } => tree::remove(path, *within),
        Request::FileChange {
            path,
            within,
            mode,
            uid,
            gid,
        } => change::change(resolve(path, *within)?, *mode, *uid, *gid),
        Request::FileUnpack { entries } => unpack::unpack(entries, body),
        Request::FileOpen { path, within } => open_file(&resolve(path, *within)?),
        Request::UploadBegin {
            upload,
            path,
            within,
            overwrite,
            parents,
            mode,
            mode_always,
        } => {
            let target = write::Target {
                path,
                within: *within,
                parents: *parents,
            };
            let mode = write::FileMode {
                bits: mode & MODE_MASK,
                always: *mode_always,
            };
            uploads.begin(*upload, &target, *overwrite, mode)
        }
        Request::UploadPiece { upload, offset } => uploads.piece(*upload, *offset, body),
        Request::UploadCommit { upload } => uploads.commit(*upload),
        Request::UploadAbort { upload } => {
            uploads.abort(*upload);
            Ok(Answer::default())
        }
        _ => refuse(CallErrorCode::Internal, "not a file request"),
    }
}

fn stat(place: &Place) -> Result<Answer, CallError> {
    Ok(Answer::from(Reply {
        stat: Some(describe_place(place)),
        ..Reply::default()
    }))
}

fn list(place: &Place) -> Result<Answer, CallError> {
    if place.kind() != FileType::Directory {
        return refuse(CallErrorCode::PathNotDirectory, "not a directory");
    }
    let directory = place.reopen(OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory).map_err(code)? {
        let entry = entry.map_err(code)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if names.len() >= LIST_ENTRIES_MAX {
            let message = format!("the directory has more than {LIST_ENTRIES_MAX} entries");
            return refuse(CallErrorCode::TooMany, message);
        }
        names.push(name.to_owned());
    }
    names.sort();
    let entries = names
        .iter()
        .filter_map(|name| entry(place, &directory, name))
        .collect();
    Ok(Answer::from(Reply {
        entries: Some(entries),
        ..Reply::default()
    }))
}

/// None when the entry has gone in the meantime.
fn entry(place: &Place, directory: &OwnedFd, name: &CStr) -> Option<FileEntry> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let birth = birth_ms(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    let path = place.real.join(OsStr::from_bytes(name.to_bytes()));
    let name = String::from_utf8_lossy(name.to_bytes()).into_owned();
    Some(FileEntry {
        name,
        stat: describe(&path, &stat, birth),
    })
}

fn read(place: &Place, offset: u64, length: u64) -> Result<Answer, CallError> {
    place.require_regular()?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > FILE_BYTES_MAX {
        let message = format!("at most {FILE_BYTES_MAX} bytes can be read at once");
        return refuse(CallErrorCode::FileTooLarge, message);
    }
    let file = place.reopen(OFlags::RDONLY)?;
    let size = u64::try_from(place.stat.st_size).unwrap_or(0);
    // The size is a hint for the buffer; what counts is what reading gives.
    let expected = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut body = vec![0; length.min(expected.saturating_add(1))];
    let mut filled = 0;
    while filled < body.len() {
        match rustix::io::pread(
            &file,
            &mut body[filled..],
            offset.saturating_add(filled as u64),
        ) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(Errno::INVAL) if filled == 0 => {
                return refuse(CallErrorCode::Invalid, "offset: out of range");
            }
            Err(error) => return Err(code(error)),
        }
    }
    body.truncate(filled);
    let stat = Some(describe_place(place));
    Ok(Answer {
        reply: Reply {
            stat,
            ..Reply::default()
        },
        body,
        fd: None,
    })
}

/// Hands the file itself out: what is read later is what was checked here.
fn open_file(place: &Place) -> Result<Answer, CallError> {
    place.require_regular()?;
    let file = place.reopen(OFlags::RDONLY)?;
    let reply = Reply {
        stat: Some(describe_place(place)),
        ..Reply::default()
    };
    Ok(Answer {
        reply,
        body: Vec::new(),
        fd: Some(file),
    })
}

fn describe_place(place: &Place) -> FileStat {
    let birth = birth_ms(place.as_directory(), c"", AtFlags::EMPTY_PATH);
    describe(&place.real, &place.stat, birth)
}

/// When something was made. Not every file system knows.
fn birth_ms(directory: &OwnedFd, name: &CStr, flags: AtFlags) -> Option<i64> {
    let stat = statx(directory, name, flags, StatxFlags::BTIME).ok()?;
    let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    let time = stat.stx_btime;
    known.then(|| milliseconds(time.tv_sec, i64::from(time.tv_nsec)))
}

fn describe(path: &std::path::Path, stat: &Stat, birth_ms: Option<i64>) -> FileStat {
    FileStat {
        path: path.to_string_lossy().into_owned(),
        kind: match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            _ => FileKind::Other,
        },
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: Mode::from_raw_mode(stat.st_mode).as_raw_mode() & 0o7777,
        modified_ms: milliseconds(stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
        created_ms: birth_ms
            .unwrap_or_else(|| milliseconds(stat.st_ctime, nanoseconds(stat.st_ctime_nsec))),
        uid: stat.st_uid,
        gid: stat.st_gid,
    }
}

fn nanoseconds(part: impl TryInto<i64>) -> i64 {
    part.try_into().unwrap_or(0)
}

/// Tenant code can set any time at all: saturates.
fn milliseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1000)
        .saturating_add(nanoseconds / 1_000_000)
}

/// The contract's word for what the kernel said.
fn code(error: Errno) -> CallError {
    let code = match error {
        Errno::NOENT => CallErrorCode::FileNotFound,
        Errno::NOTDIR => CallErrorCode::PathNotDirectory,
        Errno::ISDIR => CallErrorCode::PathIsDirectory,
        Errno::NOTEMPTY => CallErrorCode::DirectoryNotEmpty,
        Errno::EXIST => CallErrorCode::FileExists,
        Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::BUSY => CallErrorCode::PermissionDenied,
        Errno::NOSPC | Errno::DQUOT => CallErrorCode::NoSpace,
        Errno::FBIG => CallErrorCode::FileTooLarge,
        Errno::NXIO | Errno::NODEV => CallErrorCode::PathNotRegular,
        Errno::NAMETOOLONG | Errno::LOOP | Errno::INVAL | Errno::XDEV => CallErrorCode::Invalid,
        _ => CallErrorCode::Internal,
    };
    CallError {
        code,
        message: error.to_string(),
    }
}

/// Opens what a descriptor points to once more, with other rights.
fn reopen(number: i32, flags: OFlags) -> Result<OwnedFd, CallError> {
    let path = format!("/proc/self/fd/{number}");
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat(rustix::fs::CWD, path, flags, Mode::empty()).map_err(code)
}
