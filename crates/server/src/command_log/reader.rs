//! Reading a log from some record on. Blocks: called beside the event loop.

use super::files::{LogFiles, LogIndex, SegmentPlace};
use super::segment::{Parsed, RECORD_BYTES_MAX, Record, SEGMENT_HEAD_BYTES, parse_record};
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

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

/// Records behind `position`, which moves; empty when there are none now. At least one and at
/// most [`READ_BYTES_MAX`] at once.
///
/// # Errors
/// [`LogError::Gap`] when they are not kept any more, [`LogError::Io`].
pub(crate) fn read(
    files: &LogFiles,
    index: &LogIndex,
    position: &mut Position,
) -> Result<Vec<Record>, LogError> {
    let gap = || LogError::Gap {
        first_seq: index.first_seq(),
    };
    let Some((mut at, mut offset)) = find(index, position)? else {
        return Ok(Vec::new());
    };
    loop {
        let segment = index.segments[at];
        if offset >= segment.bytes {
            if at + 1 == index.segments.len() {
                position.place = Some((segment.number, offset));
                return Ok(Vec::new());
            }
            at += 1;
            offset = SEGMENT_HEAD_BYTES as u64;
            continue;
        }
        let block = match read_block(files, &segment, offset) {
            Ok(block) => block,
            // Dropped since the index was looked at.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gap()),
            Err(error) => return Err(error.into()),
        };
        let (records, taken) = records_of(&block, position.seq);
        if taken == 0 {
            // A record that was damaged on disk: what follows cannot be told apart any more.
            tracing::error!(path = ?files.path(segment.number), offset, "a log segment is damaged");
            return Err(gap());
        }
        offset += taken as u64;
        if let Some(last) = records.last() {
            position.seq = last.seq;
            position.place = Some((segment.number, offset));
            return Ok(records);
        }
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

fn read_block(files: &LogFiles, segment: &SegmentPlace, offset: u64) -> io::Result<Bytes> {
    let left = usize::try_from(segment.bytes - offset).unwrap_or(usize::MAX);
    let mut block = vec![0; left.min(READ_BYTES_MAX)];
    File::open(files.path(segment.number))?.read_exact_at(&mut block, offset)?;
    Ok(block.into())
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
