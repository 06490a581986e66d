//! A whole directory goes: in batches, so that init has time for others in between.
//!
//! Every step is made by a plain name below a descriptor and follows nothing, so whatever tenant
//! code moves about meanwhile, only what is below the directory goes. Other file systems that are
//! mounted below it are not entered.

use super::code;
use super::resolve::{Place, open_below};
use super::write::{Target, find_spot, not_there};
use crate::calls::{Answer, refuse};
use crownest_init::link::{CallError, CallErrorCode, REMOVE_BATCH_ENTRIES_MAX, Reply, Within};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, openat2, renameat_with,
    unlinkat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

/// Directories that are open at a time. What is deeper moves up first, so that no tree is too deep
/// to go. Far below [`REMOVE_BATCH_ENTRIES_MAX`]: every batch gets something done.
const OPEN_DEPTH_MAX: usize = 32;
/// Names tried for what moves up.
const NAMES_MAX: u32 = 1_000;

/// Removes what a path names, and of a directory's entries one batch.
pub(super) fn remove(path: &str, within: Within) -> Result<Answer, CallError> {
    let target = Target {
        path,
        within,
        parents: false,
    };
    let spot = find_spot(&target).map_err(|error| not_there(error, CallErrorCode::FileNotFound))?;
    let place = open_below(&spot.directory, &spot.name, within)?;
    let parent = spot.directory.as_directory();
    if place.kind() != FileType::Directory {
        unlinkat(parent, &spot.name, AtFlags::empty()).map_err(code)?;
        return Ok(Answer::default());
    }
    let emptied = Emptying::new(&place)?.run()?;
    if emptied {
        match unlinkat(parent, &spot.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(Answer::default()),
            // Something was put there meanwhile.
            Err(Errno::NOTEMPTY) => {}
            Err(error) => return Err(code(error)),
        }
    }
    Ok(Answer::from(Reply {
        more: true,
        ..Reply::default()
    }))
}

struct Level {
    directory: OwnedFd,
    /// What the directory above calls it; the first has no name here.
    name: CString,
}

struct Emptying {
    /// From the directory that is to be emptied down to the one that is being emptied.
    levels: Vec<Level>,
    left: usize,
}

impl Emptying {
    fn new(place: &Place) -> Result<Self, CallError> {
        let first = Level {
            directory: place.reopen(OFlags::RDONLY | OFlags::DIRECTORY)?,
            name: CString::default(),
        };
        Ok(Self {
            levels: vec![first],
            left: REMOVE_BATCH_ENTRIES_MAX,
        })
    }

    /// Whether everything went; otherwise the batch is used up.
    fn run(mut self) -> Result<bool, CallError> {
        loop {
            let Some(level) = self.levels.last() else {
                return Ok(true);
            };
            let obstacle = match clear(&level.directory, &mut self.left).map_err(code)? {
                Cleared::All => None,
                Cleared::Until(name) => Some(name),
                Cleared::BatchUsed => return Ok(false),
            };
            match obstacle {
                Some(name) if self.levels.len() < OPEN_DEPTH_MAX => self.enter(name)?,
                Some(name) => self.move_up(&name)?,
                None => {
                    let Some(emptied) = self.levels.pop() else {
                        return Ok(true);
                    };
                    if let Some(above) = self.levels.last() {
                        remove_directory(&above.directory, &emptied.name).map_err(code)?;
                    }
                }
            }
        }
    }

    fn enter(&mut self, name: CString) -> Result<(), CallError> {
        let Some(level) = self.levels.last() else {
            return Ok(());
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        match openat2(&level.directory, &name, flags, Mode::empty(), resolve) {
            Ok(directory) => self.levels.push(Level { directory, name }),
            // It has gone, or has become something else: the next look says.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(Errno::XDEV) => {
                let message = "another file system is mounted below the directory";
                return refuse(CallErrorCode::PermissionDenied, message);
            }
            Err(error) => return Err(code(error)),
        }
        Ok(())
    }

    /// Moves a directory of the deepest level to the first one.
    fn move_up(&self, name: &CStr) -> Result<(), CallError> {
        let (Some(first), Some(last)) = (self.levels.first(), self.levels.last()) else {
            return Ok(());
        };
        for number in 0..NAMES_MAX {
            let free = format!(".crownest-remove-{number}");
            let (from, to) = (last.directory.as_fd(), first.directory.as_fd());
            match renameat_with(from, name, to, free, RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(code(error)),
            }
        }
        refuse(
            CallErrorCode::TooMany,
            "no free name to move a directory to",
        )
    }
}

enum Cleared {
    All,
    /// A directory of that name has something in it.
    Until(CString),
    BatchUsed,
}

/// Removes the entries of a directory that can go at once.
fn clear(directory: &OwnedFd, left: &mut usize) -> Result<Cleared, Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if *left == 0 {
            return Ok(Cleared::BatchUsed);
        }
        *left -= 1;
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error),
        }
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY) => return Ok(Cleared::Until(name.to_owned())),
            Err(error) => return Err(error),
        }
    }
    Ok(Cleared::All)
}

/// Not an error when something was put there meanwhile: the next look finds it.
fn remove_directory(above: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    match unlinkat(above, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
        Err(error) => Err(error),
    }
}
