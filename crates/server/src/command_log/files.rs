//! Where the segments of a log are, and what is in which.

use super::segment::{SEGMENT_HEAD_BYTES, SegmentHead, Totals};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::watch;

/// Characters at the end of a command's id that choose its directory. They are random, the first
/// ones are a time.
const SHARD_CHARS: usize = 2;

/// The files of one log: `DIRECTORY/SHARD/SUFFIX.NUMBER`.
///
/// Made from ids of commands that the store knows, which are the server's own; the names of
/// clients and tenants are in none of it.
#[derive(Debug, Clone)]
pub(crate) struct LogFiles {
    shard: PathBuf,
    name: String,
}

impl LogFiles {
    /// `suffix` is that of the command's id: letters, digits, `-` and `_`.
    pub(crate) fn new(directory: &Path, suffix: &str) -> Self {
        let from = suffix.len().saturating_sub(SHARD_CHARS);
        Self {
            shard: directory.join(suffix.get(from..).unwrap_or_default()),
            name: suffix.to_owned(),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.shard
    }

    pub(super) fn path(&self, number: u32) -> PathBuf {
        self.shard.join(format!("{}.{number:06}", self.name))
    }

    /// Numbers of the segments that are there, in order.
    pub(super) fn numbers(&self) -> io::Result<Vec<u32>> {
        let entries = match std::fs::read_dir(&self.shard) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_prefix(&self.name)?.strip_prefix('.'));
            numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What is on disk of a log that nobody writes: where its segments begin and how long they
    /// are. Segments that have no head yet are left out.
    pub(crate) fn index(&self) -> io::Result<LogIndex> {
        let mut index = LogIndex::default();
        for number in self.numbers()? {
            let mut file = match File::open(self.path(number)) {
                Ok(file) => file,
                // Removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut head = Vec::with_capacity(SEGMENT_HEAD_BYTES);
            (&mut file)
                .take(SEGMENT_HEAD_BYTES as u64)
                .read_to_end(&mut head)?;
            if let Some(head) = SegmentHead::parse(&head) {
                index.next_seq = head.first_seq;
                index.totals = head.before;
                index.segments.push_back(SegmentPlace {
                    number,
                    head,
                    bytes: file.metadata()?.len(),
                });
            }
        }
        Ok(index)
    }

    /// All records of one segment, for a server that takes it over.
    pub(super) fn records(&self, number: u32) -> io::Result<Bytes> {
        let mut bytes = Bytes::from(std::fs::read(self.path(number))?);
        Ok(bytes.split_off(SEGMENT_HEAD_BYTES.min(bytes.len())))
    }
}

/// Removes the segments that nobody has written to since `before`. Blocks.
///
/// # Errors
/// Those of the file system; what was removed before stays removed.
pub(crate) fn purge(directory: &Path, before: SystemTime) -> io::Result<u64> {
    let mut removed = 0;
    let shards = match std::fs::read_dir(directory) {
        Ok(shards) => shards,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    for shard in shards {
        let shard = shard?;
        if !shard.file_type()?.is_dir() {
            continue;
        }
        for segment in std::fs::read_dir(shard.path())? {
            let segment = segment?;
            let about = match segment.metadata() {
                Ok(about) => about,
                // Its writer has dropped it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if about.is_file() && about.modified()? < before {
                std::fs::remove_file(segment.path())?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// One segment that is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct SegmentPlace {
    pub number: u32,
    pub head: SegmentHead,
    /// Sound bytes in it, its head included.
    pub bytes: u64,
}

/// What a log holds.
#[derive(Debug, Clone)]
pub(crate) struct LogIndex {
    pub(super) segments: VecDeque<SegmentPlace>,
    /// Number that the next record gets.
    pub(super) next_seq: u64,
    pub(super) totals: Totals,
}

impl Default for LogIndex {
    fn default() -> Self {
        Self {
            segments: VecDeque::new(),
            next_seq: 1,
            totals: Totals::default(),
        }
    }
}

impl LogIndex {
    /// Number of the first record that can be read, now or when it comes.
    pub(crate) fn first_seq(&self) -> u64 {
        self.segments
            .front()
            .map_or(self.next_seq, |segment| segment.head.first_seq)
    }

    /// Whether no record comes after that one yet; of a log that is being written.
    pub(crate) fn has_nothing_after(&self, seq: u64) -> bool {
        seq.saturating_add(1) >= self.next_seq
    }

    /// A number that no record before the last segment is above: where to begin looking for the
    /// last record.
    pub(crate) fn settled_seq(&self) -> u64 {
        self.next_seq - 1
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Bytes that were printed and cannot be read, of a log that is being written: of segments
    /// that were dropped, and of what was never written.
    pub(crate) fn omitted_bytes(&self) -> u64 {
        let before = self.segments.front().map(|segment| segment.head.before);
        let dropped = before.map_or(0, |before| before.printed().saturating_sub(before.omitted));
        dropped.saturating_add(self.totals.omitted)
    }

    /// Bytes that were printed before the first segment that is there; None: there is none.
    pub(crate) fn dropped_bytes(&self) -> Option<u64> {
        let first = self.segments.front()?;
        Some(first.head.before.printed())
    }
}

/// A log that is being written, as its readers see it.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) files: LogFiles,
    index: Mutex<LogIndex>,
    /// Changes whenever there is more to read.
    published: watch::Sender<u64>,
}

impl Log {
    pub(super) fn new(files: LogFiles, index: LogIndex) -> Self {
        Self {
            files,
            published: watch::Sender::new(index.next_seq),
            index: Mutex::new(index),
        }
    }

    fn lock(&self) -> MutexGuard<'_, LogIndex> {
        // No code below can panic between two changes that belong together.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now.
    pub(crate) fn index(&self) -> LogIndex {
        self.lock().clone()
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&LogIndex) -> T) -> T {
        look(&self.lock())
    }

    /// Changes what readers see, and wakes those that wait.
    pub(super) fn publish(&self, change: impl FnOnce(&mut LogIndex)) {
        let next_seq = {
            let mut index = self.lock();
            change(&mut index);
            index.next_seq
        };
        self.published.send_replace(next_seq);
    }

    /// Tells when there is more than there was when this was called.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }
}
