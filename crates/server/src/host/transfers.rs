//! Files of any size, out of a sandbox and into it.
//!
//! Out: init opens the file and hands the descriptor over, so that reading costs init nothing and
//! goes on with the same file whatever is renamed meanwhile. In: init writes, in pieces, so that
//! what is written counts as the sandbox's memory and not as the server's.

use super::calls::{Answer, Outcome, answered};
use super::error::HostError;
use super::files::{FILE_TIMEOUT, checked, stat_of};
use super::link::Link;
use super::sandbox::Sandbox;
use bytes::Bytes;
use crownest_init::link::{FileStat, Request, UPLOAD_PIECE_BYTES_MAX, Within};
use rustix::fs::{FileType, fstat, fstatfs};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::oneshot;

/// `f_type` of the file systems that a sandbox's files are on (linux/magic.h): overlay and tmpfs.
/// Anything else is nothing that init should hand out: files of /proc say things about who reads.
const FILE_SYSTEMS: [u64; 2] = [0x794c_7630, 0x0102_1994];

/// Pieces on their way to init at the same time: enough that neither side waits for the other.
const PIECES_UNANSWERED_MAX: usize = 8;

/// A file to upload.
#[derive(Debug, Clone)]
pub struct UploadSpec {
    pub path: String,
    pub within: Within,
    pub overwrite: bool,
    /// Make missing parent directories.
    pub parents: bool,
    /// Permission bits of a new file.
    pub mode: u32,
    /// Also of a file that is replaced, which keeps its own otherwise.
    pub mode_always: bool,
}

/// A file on its way into a sandbox. Dropped before [`Upload::commit`], nothing of it is left.
#[derive(Debug)]
pub struct Upload {
    sandbox: Arc<Sandbox>,
    /// The connection that it belongs to.
    link: Arc<Link>,
    number: u64,
    sent: u64,
    /// What init has not answered yet, oldest first.
    unanswered: VecDeque<(u64, oneshot::Receiver<Outcome>)>,
    open: bool,
}

impl Sandbox {
    /// Opens a regular file for reading. What init hands out is looked at before it is used:
    /// reading a regular file of these file systems does not wait for anybody.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub async fn open(&self, path: &str, within: Within) -> Result<(FileStat, OwnedFd), HostError> {
        let path = checked(path)?;
        let mut answer = self.call(Request::FileOpen { path, within }).await?;
        let (Some(file), true) = (answer.fds.pop(), answer.fds.is_empty()) else {
            return Err(HostError::Protocol("open without exactly one file".into()));
        };
        let unusable = |why: String| HostError::Protocol(format!("opened file: {why}"));
        let stat = fstat(&file).map_err(|e| unusable(e.to_string()))?;
        let system = fstatfs(&file).map_err(|e| unusable(e.to_string()))?;
        let known = u64::try_from(system.f_type).is_ok_and(|t| FILE_SYSTEMS.contains(&t));
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !known {
            return Err(unusable("not a regular file of the sandbox".to_owned()));
        }
        let mut described = stat_of(answer.reply)?;
        described.size = u64::try_from(stat.st_size).unwrap_or(0);
        Ok((described, file))
    }

    /// Begins a file that comes in pieces.
    ///
    /// # Errors
    /// [`HostError::File`]; [`HostError::TooMany`].
    pub async fn upload(self: &Arc<Self>, spec: UploadSpec) -> Result<Upload, HostError> {
        let number = self.next_target();
        let link = self.link();
        let mut upload = Upload {
            sandbox: Arc::clone(self),
            link,
            number,
            sent: 0,
            unanswered: VecDeque::new(),
            // From here on, dropping it tells init.
            open: true,
        };
        let request = Request::UploadBegin {
            upload: number,
            path: checked(&spec.path)?,
            within: spec.within,
            overwrite: spec.overwrite,
            parents: spec.parents,
            mode: spec.mode & 0o777,
            mode_always: spec.mode_always,
        };
        upload.send(request, Bytes::new())?;
        upload.settle(0).await?;
        Ok(upload)
    }
}

impl Upload {
    /// Bytes that were handed to [`Upload::push`].
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent
    }

    /// Sends the next bytes, while init may still be writing those before them.
    ///
    /// # Errors
    /// [`HostError::File`], also for the bytes before them.
    pub async fn push(&mut self, mut bytes: Bytes) -> Result<(), HostError> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(UPLOAD_PIECE_BYTES_MAX));
            self.settle(PIECES_UNANSWERED_MAX - 1).await?;
            self.link.room().await;
            let (upload, offset) = (self.number, self.sent);
            self.sent += piece.len() as u64;
            self.send(Request::UploadPiece { upload, offset }, piece)?;
        }
        Ok(())
    }

    /// Gives the file its name, in place of what was there.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub async fn commit(mut self) -> Result<FileStat, HostError> {
        self.settle(0).await?;
        let upload = self.number;
        self.send(Request::UploadCommit { upload }, Bytes::new())?;
        self.open = false;
        let answer = self.settle(0).await?;
        stat_of(answer.map(|answer| answer.reply).unwrap_or_default())
    }

    fn send(&mut self, request: Request, body: Bytes) -> Result<(), HostError> {
        if self.sandbox.is_closed() {
            return Err(HostError::SandboxGone);
        }
        let (id, receiver) = self.sandbox.calls.begin_detached();
        self.unanswered.push_back((id, receiver));
        self.link
            .send_with(id, request, body, Vec::new())
            .map_err(|error| self.sandbox.lost(error))
    }

    /// Waits until at most so many are unanswered; the last answer that came.
    async fn settle(&mut self, left: usize) -> Result<Option<Answer>, HostError> {
        let mut last = None;
        while self.unanswered.len() > left {
            let Some((_, receiver)) = self.unanswered.front_mut() else {
                break;
            };
            let answer = self
                .sandbox
                .timed(FILE_TIMEOUT, answered(receiver, 0))
                .await;
            last = Some(answer.map_err(|error| self.sandbox.lost(error))?);
            self.unanswered.pop_front();
        }
        Ok(last)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        for (id, _) in self.unanswered.drain(..) {
            self.sandbox.calls.forget(id);
        }
        if self.open {
            let upload = self.number;
            self.link.send_later(Request::UploadAbort { upload });
        }
    }
}
