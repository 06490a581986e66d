//! Files of a sandbox. Init does the work inside the sandbox's own mount namespace; here a path
//! is only a string.

use super::error::HostError;
use super::sandbox::Sandbox;
use bytes::Bytes;
use crownest_init::link::{
    FILE_BYTES_MAX, FileEntry, FileStat, LIST_ENTRIES_MAX, Reply, Request, Within,
};
use crownest_init::unpack::Entry;
use std::time::Duration;

/// Longest wait for one file operation.
pub(super) const FILE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest path; the kernel's own limit.
const PATH_BYTES_MAX: usize = 4_096;

/// A whole file to write.
#[derive(Debug, Clone)]
pub struct WriteSpec {
    pub path: String,
    pub within: Within,
    pub overwrite: bool,
    /// Make missing parent directories.
    pub parents: bool,
    /// Permission bits of a new file.
    pub mode: u32,
    /// At most [`FILE_BYTES_MAX`].
    pub content: Bytes,
}

impl Sandbox {
    /// What a path is.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub async fn stat(&self, path: &str, within: Within) -> Result<FileStat, HostError> {
        let path = checked(path)?;
        stat_of(
            self.file_call(
                Request::FileStat {
                    path,
                    within,
                    link: false,
                },
                Bytes::new(),
            )
            .await?
            .0,
        )
    }

    /// Entries of a directory, sorted by name.
    ///
    /// # Errors
    /// [`HostError::File`]; [`HostError::TooMany`] for a directory of more than 10,000.
    pub async fn list(&self, path: &str, within: Within) -> Result<Vec<FileEntry>, HostError> {
        let path = checked(path)?;
        let reply = self
            .file_call(
                Request::FileList {
                    path,
                    within,
                    link: false,
                },
                Bytes::new(),
            )
            .await?
            .0;
        match reply.entries {
            Some(entries) if entries.len() <= LIST_ENTRIES_MAX => Ok(entries),
            _ => Err(HostError::Protocol("listing".into())),
        }
    }

    /// A piece of a file: at most `length` bytes (capped at 8 MiB) from `offset`, and its stat.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub async fn read(
        &self,
        path: &str,
        within: Within,
        offset: u64,
        length: u64,
    ) -> Result<(FileStat, Bytes), HostError> {
        let length = length.min(FILE_BYTES_MAX as u64);
        let request = Request::FileRead {
            path: checked(path)?,
            within,
            offset,
            length,
        };
        let (reply, body) = self.file_call(request, Bytes::new()).await?;
        if body.len() as u64 > length {
            return Err(HostError::Protocol(
                "more of a file than was asked for".into(),
            ));
        }
        Ok((stat_of(reply)?, body))
    }

    /// Writes a whole file, atomically.
    ///
    /// # Errors
    /// [`HostError::File`], [`HostError::TooLarge`].
    pub async fn write(&self, spec: WriteSpec) -> Result<FileStat, HostError> {
        if spec.content.len() > FILE_BYTES_MAX {
            return Err(HostError::TooLarge {
                what: "the file",
                limit: FILE_BYTES_MAX,
            });
        }
        let request = Request::FileWrite {
            path: checked(&spec.path)?,
            within: spec.within,
            overwrite: spec.overwrite,
            parents: spec.parents,
            mode: spec.mode & 0o777,
        };
        let reply = self.file_call(request, spec.content).await?.0;
        match reply.stat {
            Some(stat) => Ok(stat),
            None => self.stat(&spec.path, spec.within).await,
        }
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub async fn mkdir(
        &self,
        path: &str,
        within: Within,
        parents: bool,
    ) -> Result<FileStat, HostError> {
        let request = Request::FileMkdir {
            path: checked(path)?,
            within,
            parents,
        };
        stat_of(self.file_call(request, Bytes::new()).await?.0)
    }

    /// Moves a file or directory; returns what is there afterwards.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub async fn rename(
        &self,
        from: &str,
        to: &str,
        within: Within,
        overwrite: bool,
    ) -> Result<FileStat, HostError> {
        let request = Request::FileMove {
            from: checked(from)?,
            to: checked(to)?,
            within,
            overwrite,
            parents: false,
        };
        let reply = self.file_call(request, Bytes::new()).await?.0;
        match reply.stat {
            Some(stat) => Ok(stat),
            None => self.stat(to, within).await,
        }
    }

    /// Removes a file or an empty directory.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub async fn remove(&self, path: &str, within: Within) -> Result<(), HostError> {
        let request = Request::FileRemove {
            path: checked(path)?,
            within,
        };
        self.file_call(request, Bytes::new()).await.map(drop)
    }

    /// Makes entries of an archive below `/workspace`, in their order. `body` has their bytes.
    /// What was made before an entry that fails stays.
    ///
    /// # Errors
    /// [`HostError::File`] and [`HostError::Invalid`], naming the entry.
    pub async fn unpack(&self, entries: Vec<Entry>, body: Bytes) -> Result<(), HostError> {
        self.file_call(Request::FileUnpack { entries }, body)
            .await
            .map(drop)
    }

    pub(super) async fn file_call(
        &self,
        request: Request,
        body: Bytes,
    ) -> Result<(Reply, Bytes), HostError> {
        let answer = self
            .call_with(request, body, Vec::new(), FILE_TIMEOUT)
            .await?;
        Ok((answer.reply, answer.body))
    }
}

/// Init checks where a path leads; here only that it can be one.
pub(super) fn checked(path: &str) -> Result<String, HostError> {
    if path.is_empty() || path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return Err(HostError::Invalid("the path".into()));
    }
    Ok(path.to_owned())
}

pub(super) fn stat_of(reply: Reply) -> Result<FileStat, HostError> {
    reply
        .stat
        .ok_or_else(|| HostError::Protocol("no stat in the answer".into()))
}
