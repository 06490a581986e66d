//! Gets an archive into a sandbox: one thread reads and judges, init makes what passes.
//!
//! The two work at the same time, a few batches apart; whoever is slower makes the other wait.

use super::reader::read;
use super::{ArchiveError, Batch, Limits, Summary};
use crate::host::{FileErrorKind, HostError, Sandbox};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::io::{self, Read};
use std::pin::Pin;
use tokio::sync::{Semaphore, mpsc};

/// Archives that are read at once; others wait. Each has a thread, and about 4 MiB of pieces.
const READERS_MAX: usize = 16;
/// Pieces of compressed bytes ahead of the reader.
const PIECES_AHEAD_MAX: usize = 4;
/// Batches ahead of init.
const BATCHES_AHEAD_MAX: usize = 2;

static READERS: Semaphore = Semaphore::const_new(READERS_MAX);

/// The bytes of an archive, in order.
pub(crate) type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Unpacks an archive into `/workspace`. When it fails, what was made so far stays. Dropping the
/// future ends it after the batch that init is at.
pub(crate) async fn unpack(
    sandbox: &Sandbox,
    pieces: Pieces,
    limits: Limits,
) -> Result<Summary, ArchiveError> {
    process(pieces, limits, Some(sandbox)).await
}

/// Reads an archive as [`unpack`] does, and makes nothing.
pub(crate) async fn check(pieces: Pieces, limits: Limits) -> Result<Summary, ArchiveError> {
    process(pieces, limits, None).await
}

fn refused(error: HostError) -> ArchiveError {
    match error {
        HostError::File {
            kind: FileErrorKind::NoSpace,
            message,
        } => ArchiveError::TooLarge(format!("the sandbox's disk is full at entry {message}")),
        other => ArchiveError::Refused(other),
    }
}

async fn process(
    mut pieces: Pieces,
    limits: Limits,
    sandbox: Option<&Sandbox>,
) -> Result<Summary, ArchiveError> {
    let _reader = READERS
        .acquire()
        .await
        .map_err(|_| ArchiveError::Canceled)?;
    let (feed, source) = mpsc::channel(PIECES_AHEAD_MAX);
    let (sink, mut batches) = mpsc::channel::<Batch>(BATCHES_AHEAD_MAX);
    let reading = tokio::task::spawn_blocking(move || {
        let source = Source {
            pieces: source,
            piece: Bytes::new(),
        };
        read(source, limits, &mut |batch| {
            sink.blocking_send(batch)
                .map_err(|_| ArchiveError::Canceled)
        })
    });
    let feeding = async move {
        while let Some(piece) = pieces.next().await {
            // The reader has stopped, and says why.
            if feed.send(piece).await.is_err() {
                break;
            }
        }
    };
    let making = async {
        while let Some(batch) = batches.recv().await {
            if let Some(sandbox) = sandbox {
                let made = sandbox.unpack(batch.entries, batch.body).await;
                made.map_err(refused)?;
            }
        }
        Ok(())
    };
    // A refusal ends the reading by dropping its channels; whatever the reader says then is
    // about that.
    let made = tokio::select! {
        made = making => made,
        made = async { feeding.await; std::future::pending().await } => made,
    };
    made?;
    match reading.await {
        Ok(read) => read,
        Err(error) => Err(ArchiveError::Source(io::Error::other(error))),
    }
}

/// The pieces as the reader's thread takes them.
struct Source {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}
