//! A file as a stream of pieces: read ahead by one, in threads that may block, in constant memory.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use rustix::io::Errno;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Notify;

/// One piece: large enough that the hand-over between threads does not count, small enough for
/// the processor's cache.
const PIECE_BYTES: usize = 512 * 1024;
/// Pieces that are read before they are asked for.
const PIECES_AHEAD: usize = 2;

/// A file that is read by streams, and that can be taken away from them.
#[derive(Debug, Clone)]
pub(crate) struct OpenFile(Arc<Held>);

/// An [`OpenFile`], without keeping it open.
#[derive(Debug)]
pub(crate) struct WeakFile(Weak<Held>, Arc<Notify>);

#[derive(Debug)]
struct Held {
    file: Mutex<Option<Arc<OwnedFd>>>,
    dropped: Arc<Notify>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.dropped.notify_one();
    }
}

impl OpenFile {
    pub(crate) fn new(file: OwnedFd) -> Self {
        Self(Arc::new(Held {
            file: Mutex::new(Some(Arc::new(file))),
            dropped: Arc::default(),
        }))
    }

    pub(crate) fn downgrade(&self) -> WeakFile {
        WeakFile(Arc::downgrade(&self.0), Arc::clone(&self.0.dropped))
    }

    fn get(&self) -> io::Result<Arc<OwnedFd>> {
        let file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.clone()
            .ok_or_else(|| io::Error::other("the file was closed while it was read"))
    }
}

impl WeakFile {
    /// Closes the file. Streams of it end with an error.
    pub(crate) fn close(&self) {
        if let Some(held) = self.0.upgrade() {
            held.file
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
        }
    }

    /// Resolves when nobody reads it any more.
    pub(crate) async fn unused(&self) {
        self.1.notified().await;
    }
}

/// The bytes of a regular file at `range`. A file that has become shorter ends the stream with
/// an error.
pub(crate) fn pieces(
    file: OpenFile,
    range: Range<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let starts = (range.start..range.end).step_by(PIECE_BYTES);
    stream::iter(starts)
        .map(move |start| {
            let file = file.get();
            let length = (range.end - start).min(PIECE_BYTES as u64);
            async move {
                let file = file?;
                tokio::task::spawn_blocking(move || read(&file, start, length))
                    .await
                    .map_err(io::Error::other)?
            }
        })
        .buffered(PIECES_AHEAD)
}

fn read(file: &OwnedFd, start: u64, length: u64) -> io::Result<Bytes> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut piece = Vec::with_capacity(length);
    while piece.len() < length {
        let offset = start + piece.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut piece), offset) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file became shorter while it was read",
                ));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may have given more room than was asked for.
    piece.truncate(length);
    Ok(piece.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;
    use std::io::Write;

    async fn collected(file: &OpenFile, range: Range<u64>) -> io::Result<Vec<u8>> {
        let joined: Vec<Bytes> = pieces(file.clone(), range).try_collect().await?;
        Ok(joined.concat())
    }

    #[tokio::test]
    async fn every_range_comes_whole_and_in_order() {
        let content: Vec<u8> = (0..=250).cycle().take(2 * PIECE_BYTES + 77).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let file = OpenFile::new(file.into());
        let end = content.len() as u64;
        let middle = PIECE_BYTES as u64;
        for range in [0..end, 5..end, middle..middle + 1, 3..3, end..end] {
            let [from, to] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
            assert_eq!(collected(&file, range).await.unwrap(), content[from..to]);
        }
        let error = collected(&file, 0..end + 1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let weak = file.downgrade();
        weak.close();
        assert!(collected(&file, 0..end).await.is_err());
        drop(file);
        weak.unused().await;
    }
}
