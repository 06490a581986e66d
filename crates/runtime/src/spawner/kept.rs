//! Where snapshots are: one directory that root alone can open, with one file for each.
//!
//! Who runs it: the spawner, as root. The directory is inside one that the server's user may write
//! to, who is not trusted: it is opened once, must be root's own, and everything in it is named
//! relative to that descriptor.

use super::failed;
use crate::command::{LIST_KEYS_MAX, Refusal, SandboxKey, Step};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, fstat, mkdir, open, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What is being written is named so until it is whole.
const PART: &str = ".part";

/// The directory of snapshots.
#[derive(Debug)]
pub(super) struct Kept {
    /// None: it cannot be used, and there are no snapshots.
    directory: Option<OwnedFd>,
}

impl Kept {
    /// Opens the directory, making it if need be, and removes what an earlier spawner was in the
    /// middle of.
    pub(super) fn at(path: Option<&Path>) -> Self {
        let Some(path) = path else {
            return Self { directory: None };
        };
        let opened = open_own(path);
        if let Err(error) = &opened {
            tracing::error!(%error, path = %path.display(), "no snapshots can be made or used");
        }
        let kept = Self {
            directory: opened.ok(),
        };
        for name in kept.names().unwrap_or_default() {
            if name.ends_with(PART) {
                let _ = kept.unlink(&name);
            }
        }
        kept
    }

    fn directory(&self) -> Result<BorrowedFd<'_>, Refusal> {
        let missing = Refusal {
            step: Step::SnapshotStore,
            errno: 0,
        };
        self.directory.as_ref().map(AsFd::as_fd).ok_or(missing)
    }

    /// A kept snapshot, to be read.
    pub(super) fn open(&self, name: &SandboxKey) -> Result<File, Refusal> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(self.directory()?, name.as_str(), flags, Mode::empty());
        file.map(File::from).map_err(failed(Step::SnapshotMissing))
    }

    /// A new one, to be written.
    pub(super) fn begin(&self, name: &SandboxKey) -> Result<File, Refusal> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(self.directory()?, part(name), flags | OFlags::CLOEXEC, mode);
        file.map(File::from).map_err(failed(Step::SnapshotWrite))
    }

    /// It is whole: from here on it is found.
    pub(super) fn finish(&self, name: &SandboxKey) -> Result<(), Refusal> {
        let directory = self.directory()?;
        renameat(directory, part(name), directory, name.as_str())
            .map_err(failed(Step::SnapshotWrite))
    }

    /// What was written of one that is not going to be whole.
    pub(super) fn give_up(&self, name: &SandboxKey) {
        let _ = self.unlink(&part(name));
    }

    pub(super) fn remove(&self, name: &SandboxKey) -> Result<(), Refusal> {
        self.unlink(name.as_str())
    }

    fn unlink(&self, name: &str) -> Result<(), Refusal> {
        match unlinkat(self.directory()?, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other.map_err(failed(Step::SnapshotStore)),
        }
    }

    pub(super) fn keys_after(
        &self,
        after: Option<&SandboxKey>,
    ) -> Result<Vec<SandboxKey>, Refusal> {
        let names = self.names()?;
        let keys = names.iter().filter_map(|name| SandboxKey::new(name));
        let mut keys: Vec<_> = keys.filter(|key| Some(key) > after).collect();
        keys.sort_unstable();
        keys.truncate(LIST_KEYS_MAX);
        Ok(keys)
    }

    fn names(&self) -> Result<Vec<String>, Refusal> {
        let entries = Dir::read_from(self.directory()?).map_err(failed(Step::SnapshotStore))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed(Step::SnapshotStore))?;
            names.extend(entry.file_name().to_str().map(str::to_owned));
        }
        Ok(names)
    }
}

fn part(name: &SandboxKey) -> String {
    format!("{name}{PART}")
}

fn open_own(path: &Path) -> io::Result<OwnedFd> {
    match mkdir(path, Mode::RWXU) {
        Err(Errno::EXIST) => {}
        made => made?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = open(path, flags, Mode::empty())?;
    let stat = fstat(&directory)?;
    if stat.st_uid != 0 || stat.st_mode & 0o077 != 0 {
        let text = "it must belong to root, and to nobody else";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn key(text: &str) -> SandboxKey {
        SandboxKey::new(text).unwrap()
    }

    #[test]
    fn only_what_is_whole_is_found() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("snapshots");
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP: the directory must belong to root");
            return;
        }
        let kept = Kept::at(Some(&path));
        kept.begin(&key("a")).unwrap();
        kept.begin(&key("b")).unwrap();
        assert_eq!(kept.keys_after(None).unwrap(), []);
        kept.finish(&key("b")).unwrap();
        kept.begin(&key("c")).unwrap();
        kept.finish(&key("c")).unwrap();
        assert_eq!(kept.keys_after(None).unwrap(), [key("b"), key("c")]);
        assert_eq!(kept.keys_after(Some(&key("b"))).unwrap(), [key("c")]);
        assert!(kept.open(&key("a")).is_err());

        let again = Kept::at(Some(&path));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2, "the part is gone");
        again.remove(&key("b")).unwrap();
        again.remove(&key("b")).unwrap();
        assert_eq!(again.keys_after(None).unwrap(), [key("c")]);
    }

    #[test]
    fn a_directory_that_others_can_lead_elsewhere_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let real = place.path().join("real");
        fs::create_dir(&real).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).unwrap();
        let link = place.path().join("snapshots");
        symlink(&real, &link).unwrap();
        assert!(open_own(&link).is_err());
        fs::set_permissions(&real, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(open_own(&real).is_err());
        let refused = Kept::at(Some(&real)).begin(&key("a")).unwrap_err();
        assert_eq!(refused.step, Step::SnapshotStore);
    }
}
