//! Reading a log from some record on: on this disk beside the event loop, or from the object store.

use super::files::{LogFiles, LogIndex, SegmentPlace};
use super::segment::{Parsed, RECORD_BYTES_MAX, Record, SEGMENT_HEAD_BYTES, parse_record};
use crate::objects::ObjectsError;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that are read, and held for one reader, at once. More than the longest record.
pub(crate) const READ_BYTES_MAX: usize = 256 * 1024;
const _: () = assert!(READ_BYTES_MAX >= RECORD_BYTES_MAX);

/// Why a log cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// What comes next is not kept any more.
    #[error("the log begins with record {first_seq}")]
    Gap { first_seq: u64 },
    #[error("reading a log: {0}")]
    Io(#[from] io::Error),
    /// A part of it is in the object store, which does not give it now.
    #[error("reading a log: {0}")]
    Objects(#[from] ObjectsError),
}

/// How far a reader has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    /// Number of the record that it had last; 0 for none.
    pub seq: u64,
    /// Segment and offset behind that record, once it was found.
    place: Option<(u32, u64)>,
}

impl Position {
    /// Behind that record; from the first one that is kept without one.
    pub(crate) fn after(seq: Option<u64>, index: &LogIndex) -> Self {
        Self {
            seq: seq.unwrap_or_else(|| index.first_seq().saturating_sub(1)),
            place: None,
        }
    }
}

impl LogIndex {
    /// Where the segment begins that has the byte of that number, counted over all that was ever
    /// printed, and the number of the first byte there. What is not kept any more cannot be had.
    pub(crate) fn position_of(&self, byte: u64) -> (Position, u64) {
        let after = self
            .segments
            .partition_point(|segment| segment.head.before.printed() <= byte);
        match self.segments.get(after.saturating_sub(1)) {
            Some(segment) => {
                let position = Position {
                    seq: segment.head.first_seq.saturating_sub(1),
                    place: Some((segment.number, SEGMENT_HEAD_BYTES as u64)),
                };
                (position, segment.head.before.printed())
            }
            None => (Position::after(None, self), self.totals().printed()),
        }
    }
}

/// Records behind `position`, which moves, in the shape that `shape` gives them beside the event
/// loop; None when there are none now. At least one and at most [`READ_BYTES_MAX`] at once.
///
/// # Errors
/// [`LogError::Gap`] when they are not kept any more, [`LogError::Io`], [`LogError::Objects`].
pub(crate) async fn read<T: Send + 'static>(
    files: &LogFiles,
    index: &LogIndex,
    position: &mut Position,
    shape: impl FnOnce(Vec<Record>) -> T + Send + 'static,
) -> Result<Option<T>, LogError> {
    let gap = || LogError::Gap {
        first_seq: index.first_seq(),
    };
    let Some((mut at, mut offset)) = find(index, position)? else {
        return Ok(None);
    };
    let mut shape = Some(shape);
    loop {
        let segment = index.segments[at];
        if offset >= segment.bytes {
            if at + 1 == index.segments.len() {
                position.place = Some((segment.number, offset));
                return Ok(None);
            }
            at += 1;
            offset = SEGMENT_HEAD_BYTES as u64;
            continue;
        }
        let look = Look {
            segment,
            offset,
            seq: position.seq,
        };
        let (seen, unused) = look.records(files, shape.take()).await?.ok_or_else(gap)?;
        if seen.taken == 0 {
            // A record that was damaged on disk: what follows cannot be told apart any more.
            tracing::error!(path = ?files.path(segment.number), offset, "a log segment is damaged");
            return Err(gap());
        }
        offset += seen.taken as u64;
        if let Some((last, shaped)) = seen.records {
            position.seq = last;
            position.place = Some((segment.number, offset));
            return Ok(Some(shaped));
        }
        shape = unused;
    }
}

/// Where a reader looks.
#[derive(Debug, Clone, Copy)]
struct Look {
    segment: SegmentPlace,
    offset: u64,
    /// Number of the record that the reader had last.
    seq: u64,
}

/// What was there.
struct Seen<T> {
    /// Number of the last record, and all of them; None: the reader had them before.
    records: Option<(u64, T)>,
    /// Bytes of whole records.
    taken: usize,
}

impl Look {
    fn bytes(&self) -> usize {
        let left = usize::try_from(self.segment.bytes - self.offset).unwrap_or(usize::MAX);
        left.min(READ_BYTES_MAX)
    }

    /// None: the segment was dropped since the index was looked at. Returns `shape` when there
    /// was nothing to shape.
    async fn records<T, F>(
        self,
        files: &LogFiles,
        shape: Option<F>,
    ) -> Result<Option<(Seen<T>, Option<F>)>, LogError>
    where
        T: Send + 'static,
        F: FnOnce(Vec<Record>) -> T + Send + 'static,
    {
        let mut shape = shape;
        if !self.segment.away {
            let path = files.path(self.segment.number);
            let given = shape.take();
            let looked = tokio::task::spawn_blocking(move || match self.read(&path) {
                Ok(block) => Ok(Ok(self.shaped(&block, given))),
                // Moved, or dropped.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Err(given)),
                Err(error) => Err(error),
            });
            match looked.await.map_err(io::Error::other)?? {
                Ok(seen) => return Ok(Some(seen)),
                Err(unused) => shape = unused,
            }
        }
        let Some(remote) = files.remote() else {
            return Ok(None);
        };
        let fetched = remote
            .fetch(files, &self.segment, self.offset, self.bytes())
            .await?;
        let Some(block) = fetched else {
            return Ok(None);
        };
        let looked = tokio::task::spawn_blocking(move || self.shaped(&block, shape)).await;
        Ok(Some(looked.map_err(io::Error::other)?))
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        let mut block = vec![0; self.bytes()];
        File::open(path)?.read_exact_at(&mut block, self.offset)?;
        Ok(block.into())
    }

    fn shaped<T, F: FnOnce(Vec<Record>) -> T>(
        &self,
        block: &Bytes,
        mut shape: Option<F>,
    ) -> (Seen<T>, Option<F>) {
        let (records, taken) = records_of(block, self.seq);
        let last = records.last().map(|last| last.seq);
        let records = last.and_then(|last| Some((last, shape.take()?(records))));
        (Seen { records, taken }, shape)
    }
}

/// The segment, by its place in the index, and the offset in it to go on from.
fn find(index: &LogIndex, position: &Position) -> Result<Option<(usize, u64)>, LogError> {
    let gap = LogError::Gap {
        first_seq: index.first_seq(),
    };
    match position.place {
        Some((number, offset)) => {
            let at = index.segments.iter().position(|s| s.number == number);
            at.map(|at| Some((at, offset))).ok_or(gap)
        }
        None if position.seq.saturating_add(1) < index.first_seq() => Err(gap),
        None => {
            let wanted = position.seq.saturating_add(1);
            let at = index
                .segments
                .partition_point(|s| s.head.first_seq <= wanted);
            Ok(at.checked_sub(1).map(|at| (at, SEGMENT_HEAD_BYTES as u64)))
        }
    }
}

/// The whole records of a block that come after `seq`, and the bytes of all its whole records.
fn records_of(block: &Bytes, seq: u64) -> (Vec<Record>, usize) {
    let (mut records, mut taken) = (Vec::new(), 0);
    while let Parsed::Record(record, bytes) = parse_record(block, taken) {
        taken += bytes;
        if record.seq > seq {
            records.push(record);
        }
    }
    (records, taken)
}
