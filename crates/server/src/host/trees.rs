//! Files anywhere in a sandbox: what a daemon inside it, run by its user, could do with them.
//!
//! Paths are absolute and may be anywhere; init acts as the tenant's user, so that nothing can be
//! done here that the tenant's own code could not do.

use super::error::HostError;
use super::files::{checked, stat_of};
use super::sandbox::Sandbox;
use bytes::Bytes;
use crownest_init::link::{
    EXPAND_PATHS_MAX, FileEntry, FileStat, LIST_ENTRIES_MAX, Request, Within,
};
use std::time::{Duration, Instant};

/// Longest time that the removal of one directory may take.
const REMOVE_TREE_MAX: Duration = Duration::from_secs(120);

/// What of a file is to change.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileChange {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl Sandbox {
    /// Replaces `~` and `$NAME` of the sandbox's environment.
    ///
    /// # Errors
    /// [`HostError::TooMany`] paths, [`HostError::Invalid`] results.
    pub async fn expand(&self, paths: Vec<String>) -> Result<Vec<String>, HostError> {
        if paths.len() > EXPAND_PATHS_MAX {
            return Err(HostError::TooMany(format!("{EXPAND_PATHS_MAX} paths")));
        }
        let count = paths.len();
        let request = Request::PathExpand { paths };
        let reply = self.file_call(request, Bytes::new()).await?.0;
        match reply.paths {
            Some(paths) if paths.len() == count => Ok(paths),
            _ => Err(HostError::Protocol("expanded paths".into())),
        }
    }

    /// Entries of a directory, sorted by name. A link to one is not a directory.
    ///
    /// # Errors
    /// [`HostError::File`]; [`HostError::TooMany`] for a directory of more than 10,000.
    pub async fn list_directory(&self, path: &str) -> Result<Vec<FileEntry>, HostError> {
        let request = Request::FileList {
            path: checked(path)?,
            within: Within::Root,
            link: true,
        };
        let reply = self.file_call(request, Bytes::new()).await?.0;
        match reply.entries {
            Some(entries) if entries.len() <= LIST_ENTRIES_MAX => Ok(entries),
            _ => Err(HostError::Protocol("listing".into())),
        }
    }

    /// What a path names; a link is itself.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub async fn stat_link(&self, path: &str) -> Result<FileStat, HostError> {
        let request = Request::FileStat {
            path: checked(path)?,
            within: Within::Root,
            link: true,
        };
        stat_of(self.file_call(request, Bytes::new()).await?.0)
    }

    /// Moves over what is there, and makes missing directories above the new place.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub async fn rename_anywhere(&self, from: &str, to: &str) -> Result<(), HostError> {
        let request = Request::FileMove {
            from: checked(from)?,
            to: checked(to)?,
            within: Within::Root,
            overwrite: true,
            parents: true,
        };
        self.file_call(request, Bytes::new()).await.map(drop)
    }

    /// Removes a file, or a directory with everything in it.
    ///
    /// # Errors
    /// [`HostError::File`]; [`HostError::CallTimeout`] when others fill it faster than it is
    /// emptied.
    pub async fn remove_tree(&self, path: &str) -> Result<(), HostError> {
        let path = checked(path)?;
        let began = Instant::now();
        let mut removed = false;
        loop {
            let request = Request::FileRemoveTree {
                path: path.clone(),
                within: Within::Root,
            };
            match self.file_call(request, Bytes::new()).await {
                Ok((reply, _)) if reply.more => removed = true,
                Ok(_) => return Ok(()),
                Err(error) if removed && error.is_not_found() => return Ok(()),
                Err(error) => return Err(error),
            }
            if began.elapsed() > REMOVE_TREE_MAX {
                return Err(HostError::CallTimeout(REMOVE_TREE_MAX));
            }
        }
    }

    /// Changes mode and owner.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub async fn change(&self, path: &str, change: FileChange) -> Result<FileStat, HostError> {
        let request = Request::FileChange {
            path: checked(path)?,
            within: Within::Root,
            mode: change.mode,
            uid: change.uid,
            gid: change.gid,
        };
        stat_of(self.file_call(request, Bytes::new()).await?.0)
    }
}
