//! A writable layer into a file.
//!
//! Who runs it: a child of the spawner, root with the two capabilities that reading any file and
//! the overlay's notes takes, while everything in the sandbox stands still.

use super::record::{Meta, PIECE_BYTES_MAX, Record, Writer};
use super::{
    DEPTH_MAX, FREE_BYTES_MIN, Outcome, ROOM_EVERY_BYTES, SnapshotLimits, SnapshotSize, at, refused,
};
use crate::command::Step;
use crate::layout::UIDS_PER_SANDBOX;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fgetxattr, flistxattr, fstat, fstatvfs,
    makedev, openat, readlinkat, seek, statat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::BufWriter;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Whoever has no number in the sandbox: root of the host, who makes the overlay's own files.
const NOBODY: u32 = 65_534;
/// What the overlay notes and a new one must know. It makes the others anew.
const OVERLAY_NOTES: [&[u8]; 3] = [
    b"trusted.overlay.opaque",
    b"trusted.overlay.redirect",
    b"trusted.overlay.metacopy",
];
/// What marks a removed name where no device can be made, and the directory that has one.
const OVERLAY_MARKS: [&[u8]; 1] = [b"trusted.overlay.whiteout"];
const USER_ATTRIBUTES: &[u8] = b"user.";
/// Path of a directory in which a file may be that others are links to; PATH_MAX, and some. Below
/// longer ones each name becomes a file of its own.
const SHARED_PATH_BYTES_MAX: usize = 3_500;
/// List of the names of attributes; XATTR_LIST_MAX.
const LIST_BYTES_MAX: usize = 64 * 1024;
const VALUE_BYTES_MAX: usize = 64 * 1024;

struct Saver<'a> {
    writer: Writer<BufWriter<&'a File>>,
    file: &'a File,
    uid_base: u32,
    limits: SnapshotLimits,
    size: SnapshotSize,
    /// Bytes written since the disk was looked at.
    since_room: u64,
    /// Files with several names that were written, by inode, and the number of each.
    shared: HashMap<u64, u64>,
    /// Length of the path of the directory that is being walked.
    path_bytes: usize,
    buffer: Vec<u8>,
}

/// A directory that is being walked.
struct Level {
    directory: OwnedFd,
    name_bytes: usize,
    names: std::vec::IntoIter<CString>,
}

/// Writes everything below `layer` to `file`; ids become those within the sandbox.
///
/// # Errors
/// The step that failed: a limit, reading, writing.
pub fn save(
    layer: BorrowedFd<'_>,
    file: &File,
    uid_base: u32,
    limits: SnapshotLimits,
) -> Outcome<SnapshotSize> {
    let writer = Writer::begin(BufWriter::with_capacity(PIECE_BYTES_MAX, file));
    let mut saver = Saver {
        writer: writer.map_err(at(Step::SnapshotWrite))?,
        file,
        uid_base,
        limits,
        size: SnapshotSize::default(),
        since_room: 0,
        shared: HashMap::new(),
        path_bytes: 0,
        buffer: vec![0; PIECE_BYTES_MAX],
    };
    saver.check_room()?;
    let root = open_directory(layer, c".").map_err(at(Step::SnapshotRead))?;
    let meta = saver.meta_of(root.as_fd(), &fstat(&root).map_err(at(Step::SnapshotRead))?)?;
    saver.write(&Record::Root(meta))?;
    saver.walk(root)?;
    let size = saver.size;
    saver.write(&Record::End(size))?;
    saver.writer.finish().map_err(at(Step::SnapshotWrite))?;
    Ok(size)
}

impl Saver<'_> {
    /// Depth first, with a stack of its own: how deep it goes is the tenant's choice.
    fn walk(&mut self, root: OwnedFd) -> Outcome<()> {
        let mut levels = vec![self.level(root, 0)?];
        while let Some(last) = levels.last_mut() {
            let Some(name) = last.names.next() else {
                self.path_bytes -= last.name_bytes;
                levels.pop();
                if !levels.is_empty() {
                    self.write(&Record::Leave)?;
                }
                continue;
            };
            let Some(inner) = self.entry(last.directory.as_fd(), &name)? else {
                continue;
            };
            if levels.len() >= DEPTH_MAX {
                return Err(refused(Step::SnapshotTooLarge));
            }
            levels.push(self.level(inner, name.to_bytes().len() + 1)?);
        }
        Ok(())
    }

    /// Writes one entry; a directory is given back, to be walked.
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Outcome<Option<OwnedFd>> {
        let read = at(Step::SnapshotRead);
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(&read)?;
        self.size.entries += 1;
        // What a directory or a short file takes as well.
        self.size.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        if self.size.entries > self.limits.entries || self.size.bytes > self.limits.bytes {
            return Err(refused(Step::SnapshotTooLarge));
        }
        let bytes = name.to_bytes().to_vec();
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let inner = open_directory(parent, name).map_err(&read)?;
                let meta = self.meta_of(inner.as_fd(), &stat)?;
                self.write(&Record::Enter(bytes, meta))?;
                return Ok(Some(inner));
            }
            FileType::RegularFile => self.regular(parent, name, &stat)?,
            FileType::Symlink => {
                let target = readlinkat(parent, name, Vec::new()).map_err(&read)?;
                let meta = self.plain_meta(&stat);
                self.write(&Record::Symlink(bytes, meta, target.into_bytes()))?;
            }
            FileType::Fifo => self.write(&Record::Pipe(bytes, self.plain_meta(&stat)))?,
            FileType::Socket => self.write(&Record::Socket(bytes, self.plain_meta(&stat)))?,
            FileType::CharacterDevice if stat.st_rdev == makedev(0, 0) => {
                self.write(&Record::Removed(bytes))?;
            }
            // Nobody in a sandbox can make one.
            _ => return Err(refused(Step::SnapshotRead)),
        }
        Ok(None)
    }

    fn regular(&mut self, parent: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Outcome<()> {
        let bytes = name.to_bytes().to_vec();
        // Its other names are made as links to this one, by its path.
        let shared = stat.st_nlink > 1 && self.path_bytes < SHARED_PATH_BYTES_MAX;
        if shared {
            if let Some(number) = self.shared.get(&stat.st_ino) {
                // Counted with its first name.
                self.size.bytes -= u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
                let number = *number;
                return self.write(&Record::Hardlink(bytes, number));
            }
            self.shared.insert(stat.st_ino, self.shared.len() as u64);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::empty()).map_err(at(Step::SnapshotRead))?;
        let meta = self.meta_of(file.as_fd(), stat)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.write(&Record::File {
            name: bytes,
            meta,
            size,
            shared,
        })?;
        self.content(&file, size)?;
        self.writer
            .piece(size, &[])
            .map_err(at(Step::SnapshotWrite))
    }

    /// What of a file is no hole.
    fn content(&mut self, file: &OwnedFd, size: u64) -> Outcome<()> {
        let read = at(Step::SnapshotRead);
        let mut offset = 0;
        while offset < size {
            let begin = match seek(file, SeekFrom::Data(offset)) {
                Ok(begin) => begin,
                Err(Errno::NXIO) => return Ok(()),
                Err(error) => return Err(read(error)),
            };
            let end = seek(file, SeekFrom::Hole(begin)).map_err(&read)?.min(size);
            offset = begin;
            while offset < end {
                let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
                let length = left.min(self.buffer.len());
                let got = rustix::io::pread(file, &mut self.buffer[..length], offset);
                let got = got.map_err(&read)?;
                if got == 0 {
                    return Ok(());
                }
                self.writer
                    .piece(offset, &self.buffer[..got])
                    .map_err(at(Step::SnapshotWrite))?;
                offset += got as u64;
                self.since_room += got as u64;
                if self.since_room >= ROOM_EVERY_BYTES {
                    self.check_room()?;
                }
            }
        }
        Ok(())
    }

    fn level(&mut self, directory: OwnedFd, name_bytes: usize) -> Outcome<Level> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(at(Step::SnapshotRead))? {
            let entry = entry.map_err(at(Step::SnapshotRead))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
            if names.len() as u64 > self.limits.entries {
                return Err(refused(Step::SnapshotTooLarge));
            }
        }
        self.path_bytes += name_bytes;
        Ok(Level {
            directory,
            name_bytes,
            names: names.into_iter(),
        })
    }

    fn check_room(&mut self) -> Outcome<()> {
        self.since_room = 0;
        let disk = fstatvfs(self.file).map_err(at(Step::SnapshotWrite))?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < FREE_BYTES_MIN {
            return Err(crate::command::Refusal {
                step: Step::SnapshotWrite,
                errno: libc::ENOSPC,
            });
        }
        Ok(())
    }

    fn write(&mut self, record: &Record) -> Outcome<()> {
        self.writer.write(record).map_err(at(Step::SnapshotWrite))
    }

    fn plain_meta(&self, stat: &Stat) -> Meta {
        let inside = |id: u32| match id.checked_sub(self.uid_base) {
            Some(id) if id < UIDS_PER_SANDBOX => id,
            _ => NOBODY,
        };
        Meta {
            mode: stat.st_mode & 0o7777,
            uid: inside(stat.st_uid),
            gid: inside(stat.st_gid),
            seconds: stat.st_mtime,
            nanos: u32::try_from(stat.st_mtime_nsec)
                .unwrap_or(0)
                .min(999_999_999),
            attributes: Vec::new(),
        }
    }

    /// With the attributes of what was opened.
    fn meta_of(&self, file: BorrowedFd<'_>, stat: &Stat) -> Outcome<Meta> {
        let read = at(Step::SnapshotRead);
        let mut meta = self.plain_meta(stat);
        let mut list = vec![0u8; LIST_BYTES_MAX];
        let length = match flistxattr(file, &mut list[..]) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => return Ok(meta),
            Err(error) => return Err(read(error)),
        };
        for name in list[..length].split(|byte| *byte == 0) {
            let kept = name.starts_with(USER_ATTRIBUTES)
                || OVERLAY_NOTES.contains(&name)
                || OVERLAY_MARKS.contains(&name);
            if !kept {
                continue;
            }
            let mut value = vec![0u8; VALUE_BYTES_MAX];
            match fgetxattr(file, name, &mut value[..]) {
                Ok(length) => {
                    value.truncate(length);
                    meta.attributes.push((name.to_vec(), value));
                }
                Err(Errno::NODATA) => {}
                Err(error) => return Err(read(error)),
            }
        }
        Ok(meta)
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}
