//! A writable layer from a file.
//!
//! Who runs it: a child of the spawner, in the groups of the sandbox so that what it writes counts
//! as the sandbox's memory, root with the capabilities that making any file takes. Nobody else has
//! the layer yet.

use super::record::{Meta, Reader, Record};
use super::{DEPTH_MAX, Outcome, SnapshotSize, at, refused};
use crate::command::Step;
use crate::layout::UIDS_PER_SANDBOX;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, ftruncate, futimens, linkat, makedev, mkdirat, mknodat, openat, symlinkat,
    utimensat,
};
use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What one read takes from the file.
const READ_BYTES: usize = 1 << 20;

struct Restorer<'a> {
    reader: Reader<BufReader<&'a File>>,
    root: BorrowedFd<'a>,
    uid_base: u32,
    /// Directories that are being filled: the root first.
    levels: Vec<Level>,
    entries: u64,
    /// Where the files with several names are, by their numbers.
    shared: HashMap<u64, Vec<u8>>,
}

struct Level {
    directory: OwnedFd,
    name: Vec<u8>,
    meta: Meta,
}

/// Fills `layer`, which is empty, with what [`super::save`] wrote.
///
/// # Errors
/// The step that failed; what was made so far is left, to be thrown away with the layer.
pub fn restore(layer: BorrowedFd<'_>, file: &File, uid_base: u32) -> Outcome<SnapshotSize> {
    let reader = Reader::begin(BufReader::with_capacity(READ_BYTES, file));
    let mut restorer = Restorer {
        reader: reader.map_err(at(Step::SnapshotBroken))?,
        root: layer,
        uid_base,
        levels: Vec::new(),
        entries: 0,
        shared: HashMap::new(),
    };
    restorer.begin()?;
    loop {
        let record = restorer.next()?;
        if let Record::End(size) = record {
            // Nothing is missing, and nothing was added.
            if restorer.levels.len() != 1 || size.entries != restorer.entries {
                return Err(refused(Step::SnapshotBroken));
            }
            restorer.leave()?;
            return Ok(size);
        }
        restorer.make(record)?;
    }
}

impl Restorer<'_> {
    fn next(&mut self) -> Outcome<Record> {
        self.reader.read().map_err(at(Step::SnapshotBroken))
    }

    fn begin(&mut self) -> Outcome<()> {
        let Record::Root(meta) = self.next()? else {
            return Err(refused(Step::SnapshotBroken));
        };
        let directory = open_directory(self.root, b".")?;
        self.levels.push(Level {
            directory,
            name: Vec::new(),
            meta,
        });
        Ok(())
    }

    fn here(&self) -> Outcome<BorrowedFd<'_>> {
        let level = self.levels.last();
        level
            .map(|level| level.directory.as_fd())
            .ok_or_else(|| refused(Step::SnapshotBroken))
    }

    fn make(&mut self, record: Record) -> Outcome<()> {
        let write = at(Step::SnapshotRestore);
        match record {
            Record::Enter(name, meta) => {
                self.entries += 1;
                return self.enter(name, meta);
            }
            // The root is left at the end alone.
            Record::Leave if self.levels.len() > 1 => return self.leave(),
            Record::File {
                name,
                meta,
                size,
                shared,
            } => {
                self.entries += 1;
                return self.regular(&name, &meta, size, shared);
            }
            Record::Hardlink(name, number) => {
                let first = self.shared.get(&number);
                let first = first.ok_or_else(|| refused(Step::SnapshotBroken))?;
                let here = self.here()?;
                linkat(self.root, first.as_slice(), here, &name, AtFlags::empty())
                    .map_err(&write)?;
            }
            Record::Symlink(name, meta, target) => {
                let here = self.here()?;
                symlinkat(target.as_slice(), here, &name).map_err(&write)?;
                self.settle(&name, &meta)?;
            }
            Record::Pipe(name, meta) => self.node(&name, &meta, FileType::Fifo)?,
            Record::Socket(name, meta) => self.node(&name, &meta, FileType::Socket)?,
            Record::Removed(name) => {
                let mode = Mode::empty();
                let device = makedev(0, 0);
                mknodat(self.here()?, &name, FileType::CharacterDevice, mode, device)
                    .map_err(&write)?;
            }
            Record::Root(_) | Record::Leave | Record::Piece { .. } | Record::End(_) => {
                return Err(refused(Step::SnapshotBroken));
            }
        }
        self.entries += 1;
        Ok(())
    }

    fn enter(&mut self, name: Vec<u8>, meta: Meta) -> Outcome<()> {
        if self.levels.len() >= DEPTH_MAX {
            return Err(refused(Step::SnapshotBroken));
        }
        let here = self.here()?;
        mkdirat(here, &name, Mode::RWXU).map_err(at(Step::SnapshotRestore))?;
        let directory = open_directory(here, &name)?;
        self.levels.push(Level {
            directory,
            name,
            meta,
        });
        Ok(())
    }

    /// A directory gets what is known of it last: making things in it changes its time.
    fn leave(&mut self) -> Outcome<()> {
        let Some(level) = self.levels.pop() else {
            return Err(refused(Step::SnapshotBroken));
        };
        self.dress(level.directory.as_fd(), &level.meta)
    }

    fn regular(&mut self, name: &[u8], meta: &Meta, size: u64, shared: bool) -> Outcome<()> {
        let write = at(Step::SnapshotRestore);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(self.here()?, name, flags, mode).map_err(&write)?;
        loop {
            let Record::Piece { offset, bytes } = self.next()? else {
                return Err(refused(Step::SnapshotBroken));
            };
            if bytes.is_empty() {
                break;
            }
            if offset
                .checked_add(bytes.len() as u64)
                .is_none_or(|end| end > size)
            {
                return Err(refused(Step::SnapshotBroken));
            }
            write_at(&file, &bytes, offset)?;
        }
        ftruncate(&file, size).map_err(&write)?;
        self.dress(file.as_fd(), meta)?;
        if shared {
            let number = self.shared.len() as u64;
            let mut path = Vec::new();
            for level in &self.levels[1..] {
                path.extend_from_slice(&level.name);
                path.push(b'/');
            }
            path.extend_from_slice(name);
            self.shared.insert(number, path);
        }
        Ok(())
    }

    fn node(&self, name: &[u8], meta: &Meta, kind: FileType) -> Outcome<()> {
        let mode = Mode::from_raw_mode(meta.mode);
        mknodat(self.here()?, name, kind, mode, 0).map_err(at(Step::SnapshotRestore))?;
        self.settle(name, meta)
    }

    /// Owner and time of what cannot be opened.
    fn settle(&self, name: &[u8], meta: &Meta) -> Outcome<()> {
        let write = at(Step::SnapshotRestore);
        let here = self.here()?;
        let (uid, gid) = self.ids(meta)?;
        let link = AtFlags::SYMLINK_NOFOLLOW;
        chownat(here, name, Some(uid), Some(gid), link).map_err(&write)?;
        utimensat(here, name, &times(meta), link).map_err(&write)
    }

    /// Owner first: a change of it takes bits of the mode away.
    fn dress(&self, file: BorrowedFd<'_>, meta: &Meta) -> Outcome<()> {
        let write = at(Step::SnapshotRestore);
        let (uid, gid) = self.ids(meta)?;
        fchown(file, Some(uid), Some(gid)).map_err(&write)?;
        for (name, value) in &meta.attributes {
            fsetxattr(file, name.as_slice(), value, XattrFlags::empty()).map_err(&write)?;
        }
        fchmod(file, Mode::from_raw_mode(meta.mode)).map_err(&write)?;
        futimens(file, &times(meta)).map_err(&write)
    }

    fn ids(&self, meta: &Meta) -> Outcome<(Uid, Gid)> {
        if meta.uid >= UIDS_PER_SANDBOX || meta.gid >= UIDS_PER_SANDBOX {
            return Err(refused(Step::SnapshotBroken));
        }
        let outside = |id| self.uid_base + id;
        Ok((
            Uid::from_raw(outside(meta.uid)),
            Gid::from_raw(outside(meta.gid)),
        ))
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Outcome<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty()).map_err(at(Step::SnapshotRestore))
}

fn write_at(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Outcome<()> {
    while !bytes.is_empty() {
        let done = rustix::io::pwrite(file, bytes, offset).map_err(at(Step::SnapshotRestore))?;
        bytes = &bytes[done..];
        offset += done as u64;
    }
    Ok(())
}

fn times(meta: &Meta) -> Timestamps {
    let time = Timespec {
        tv_sec: meta.seconds,
        tv_nsec: i64::from(meta.nanos),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
