//! Closed segments in the object store: what this disk says of them, and the steps by which one
//! gets there and is taken away again. One step at a time; the order of steps is the caller's.
//!
//! ```text
//! NAME.NUMBER            the segment, on this disk
//! NAME.NUMBER.moving     its note, before anything is sent: an object may be there
//! NAME.NUMBER.away       the object is whole: what is on this disk is not needed
//! NAME.NUMBER.unwanted   the segment was dropped: the object goes, then the note
//! ```
//! A note is one small file (the segment's head and length) that only changes its name, so every
//! object has a file that leads to it, from before it is written until after it is deleted, and a
//! kill between any two steps leaves a state that says what is left to do ([`Remote::look`]). A
//! segment is sent under a name made of its command and its number: to send it again changes
//! nothing.

use super::files::{Log, LogFiles, SegmentPlace};
use super::segment::{SEGMENT_HEAD_BYTES, SegmentHead};
use crate::objects::{Objects, ObjectsError};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Objects are `command-logs/NODE/NAME/NUMBER`.
const PREFIX: &str = "command-logs";
/// Segments that wait for the mover; of more it is only known that there are some.
const WAITING_MAX: usize = 1_024;
/// Head, length, and the check of both.
const NOTE_BYTES: usize = SEGMENT_HEAD_BYTES + 16;

/// What a note says by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    Moving,
    Away,
    Unwanted,
}

impl Note {
    pub(super) const ALL: [Self; 3] = [Self::Moving, Self::Away, Self::Unwanted];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Moving => "moving",
            Self::Away => "away",
            Self::Unwanted => "unwanted",
        }
    }
}

/// What is to be done with a segment, as the disk has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Todo {
    Nothing,
    /// It is here alone.
    Send,
    /// It is here and there.
    Remove,
    /// Its object is not needed.
    Delete,
}

/// What the mover is told.
#[derive(Debug)]
pub(crate) enum Announced {
    Segment(LogFiles, u32),
    /// There was more than is remembered, or somebody wants every log looked at.
    Everything,
}

/// Where closed segments go.
#[derive(Debug)]
pub(crate) struct Remote {
    objects: Arc<Objects>,
    prefix: String,
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    segments: VecDeque<(LogFiles, u32)>,
    everything: bool,
}

impl Remote {
    pub(crate) fn new(objects: Arc<Objects>, node_id: &str) -> Self {
        Self {
            objects,
            prefix: format!("{PREFIX}/{node_id}"),
            waiting: Mutex::default(),
            news: Notify::new(),
        }
    }

    fn key(&self, files: &LogFiles, number: u32) -> String {
        format!("{}/{}/{number:06}", self.prefix, files.name())
    }

    /// Tells the mover to look at a segment. Never waits.
    pub(super) fn announce(&self, files: &LogFiles, number: u32) {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.segments.len() < WAITING_MAX {
                waiting.segments.push_back((files.clone(), number));
            } else {
                waiting.everything = true;
            }
        }
        self.news.notify_one();
    }

    /// Tells the mover to look at everything.
    pub(crate) fn announce_everything(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.everything = true;
        drop(waiting);
        self.news.notify_one();
    }

    /// What is to be looked at next. For one mover.
    pub(crate) async fn announced(&self) -> Announced {
        loop {
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((files, number)) = waiting.segments.pop_front() {
                    return Announced::Segment(files, number);
                }
                if std::mem::take(&mut waiting.everything) {
                    return Announced::Everything;
                }
            }
            self.news.notified().await;
        }
    }

    /// What is to be done with a segment that is closed. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn look(files: &LogFiles, number: u32) -> io::Result<Todo> {
        let is_there = |note| files.note(number, note).try_exists();
        if is_there(Note::Unwanted)? {
            return Ok(Todo::Delete);
        }
        let here = match std::fs::metadata(files.path(number)) {
            Ok(about) => Some(about.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let away = read_note(&files.note(number, Note::Away))?;
        Ok(match (here, away) {
            (Some(here), Some((_, there))) if here == there => Todo::Remove,
            (Some(_), _) => Todo::Send,
            (None, Some(_)) => Todo::Nothing,
            // It was dropped while it was being sent.
            (None, None) if is_there(Note::Moving)? => Todo::Delete,
            (None, None) => Todo::Nothing,
        })
    }

    /// Sends a segment: its note first. What is on this disk stays.
    ///
    /// # Errors
    /// [`ObjectsError`]; of this disk, [`ObjectsError::Source`].
    pub(crate) async fn send(&self, files: &LogFiles, number: u32) -> Result<(), ObjectsError> {
        let noting = files.clone();
        let bytes = beside(move || write_moving(&noting, number)).await?;
        let path = files.path(number);
        let sent = self
            .objects
            .put_file(&self.key(files, number), &path)
            .await?;
        if sent.size_bytes != bytes {
            let error = io::Error::other("a closed segment has changed");
            return Err(ObjectsError::Source(error));
        }
        Ok(())
    }

    /// What was sent counts from here on, unless the segment was dropped meanwhile. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn settle(files: &LogFiles, number: u32, log: Option<&Log>) -> io::Result<()> {
        let settle = || {
            if !files.path(number).try_exists()? {
                return Ok(false);
            }
            let (moving, away) = (Note::Moving, Note::Away);
            std::fs::rename(files.note(number, moving), files.note(number, away))?;
            Ok(true)
        };
        // A writer drops a segment, and a note becomes valid, one after the other.
        match log {
            Some(log) => log.moved(number, settle)?,
            None => settle()?,
        };
        Ok(())
    }

    /// Removes from this disk what is away. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn remove(files: &LogFiles, number: u32) -> io::Result<()> {
        remove_if_there(&files.path(number))
    }

    /// Deletes the object of a segment that was dropped, then its note.
    ///
    /// # Errors
    /// [`ObjectsError`]
    pub(crate) async fn delete(&self, files: &LogFiles, number: u32) -> Result<(), ObjectsError> {
        self.objects.delete(&self.key(files, number)).await?;
        let files = files.clone();
        beside(move || {
            for note in [Note::Moving, Note::Unwanted] {
                remove_if_there(&files.note(number, note))?;
            }
            Ok(())
        })
        .await
    }

    /// Bytes of a segment that is away. None: it was dropped.
    ///
    /// # Errors
    /// [`ObjectsError`]; [`ObjectsError::NotFound`] when the object is lost.
    pub(super) async fn fetch(
        &self,
        files: &LogFiles,
        segment: &SegmentPlace,
        offset: u64,
        bytes: usize,
    ) -> Result<Option<Bytes>, ObjectsError> {
        let fetched = self
            .fetch_object(files, segment.number, offset, bytes)
            .await;
        match fetched {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => {
                let note = files.note(segment.number, Note::Away);
                let known = beside(move || note.try_exists()).await?;
                if known { Err(error) } else { Ok(None) }
            }
        }
    }

    async fn fetch_object(
        &self,
        files: &LogFiles,
        number: u32,
        offset: u64,
        bytes: usize,
    ) -> Result<Bytes, ObjectsError> {
        let range = offset..offset + bytes as u64;
        let key = self.key(files, number);
        let mut object = self.objects.get(&key, Some(range)).await?;
        let mut block = BytesMut::with_capacity(bytes);
        while let Some(piece) = object.bytes.next().await {
            let piece = piece.map_err(|error| ObjectsError::Unavailable(error.to_string()))?;
            if block.len() + piece.len() > bytes {
                break;
            }
            block.extend_from_slice(&piece);
        }
        if block.len() != bytes {
            let message = format!("{key} has another length than it was sent with");
            return Err(ObjectsError::Unavailable(message));
        }
        Ok(block.freeze())
    }
}

async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ObjectsError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ObjectsError::Source(io::Error::other(error)))?
        .map_err(ObjectsError::Source)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the note of a segment that is about to be sent; how long it is.
fn write_moving(files: &LogFiles, number: u32) -> io::Result<u64> {
    let path = files.path(number);
    let Some(SegmentPlace { head, bytes, .. }) = files.here(number)? else {
        let message = format!("{}: no head", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    };
    let mut note = Vec::with_capacity(NOTE_BYTES);
    note.extend_from_slice(&head.encode());
    note.extend_from_slice(&bytes.to_le_bytes());
    note.extend_from_slice(&check(&note));
    let mut file = File::create(files.note(number, Note::Moving))?;
    file.write_all(&note)?;
    // Its age is that of the segment.
    file.set_modified(std::fs::metadata(&path)?.modified()?)?;
    // The number is used again: what its note says now is not what an older one said.
    remove_if_there(&files.note(number, Note::Unwanted))?;
    Ok(bytes)
}

fn check(bytes: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(bytes);
    *hash
        .as_bytes()
        .first_chunk()
        .expect("a hash is longer than a check")
}

/// The head and the length of a segment that a note tells of; None: there is no such note.
pub(super) fn read_note(path: &PathBuf) -> io::Result<Option<(SegmentHead, u64)>> {
    let note = match std::fs::read(path) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let parsed = note
        .first_chunk::<NOTE_BYTES>()
        .filter(|_| note.len() == NOTE_BYTES)
        .filter(|note| note[NOTE_BYTES - 8..] == check(&note[..NOTE_BYTES - 8]))
        .and_then(|note| {
            let length = note[SEGMENT_HEAD_BYTES..].first_chunk()?;
            Some((SegmentHead::parse(note)?, u64::from_le_bytes(*length)))
        });
    match parsed {
        Some(parsed) => Ok(Some(parsed)),
        None => {
            let message = format!("{} is damaged", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidData, message))
        }
    }
}
