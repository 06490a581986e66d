//! Where the segments of a log are, and what is in which.

use super::remote::{Note, Remote, read_note};
use super::segment::{SEGMENT_HEAD_BYTES, SegmentHead, Totals};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// Where closed segments go; None: they stay.
    remote: Option<Arc<Remote>>,
}

impl LogFiles {
    /// `suffix` is that of the command's id: letters, digits, `-` and `_`.
    pub(crate) fn new(directory: &Path, suffix: &str) -> Self {
        let from = suffix.len().saturating_sub(SHARD_CHARS);
        Self {
            shard: directory.join(suffix.get(from..).unwrap_or_default()),
            name: suffix.to_owned(),
            remote: None,
        }
    }

    pub(crate) fn with_remote(self, remote: Option<&Arc<Remote>>) -> Self {
        let remote = remote.map(Arc::clone);
        Self { remote, ..self }
    }

    pub(super) fn remote(&self) -> Option<&Arc<Remote>> {
        self.remote.as_ref()
    }

    /// What its command's id ends with.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn directory(&self) -> &Path {
        &self.shard
    }

    pub(super) fn path(&self, number: u32) -> PathBuf {
        self.shard.join(format!("{}.{number:06}", self.name))
    }

    pub(super) fn note(&self, number: u32, note: Note) -> PathBuf {
        let (name, word) = (&self.name, note.word());
        self.shard.join(format!("{name}.{number:06}.{word}"))
    }

    /// Numbers of the segments that are on this disk, in order.
    pub(super) fn numbers(&self) -> io::Result<Vec<u32>> {
        let all = self.places()?;
        let here = all.into_iter().filter(|(_, kinds)| kinds.here);
        Ok(here.map(|(number, _)| number).collect())
    }

    fn places(&self) -> io::Result<BTreeMap<u32, Kinds>> {
        let mut places = BTreeMap::<u32, Kinds>::new();
        // A look at a directory takes a while: one that is moved meanwhile may be gone where it
        // was and not yet there where it is. The second look sees where it is.
        let looks = if self.remote.is_some() { 2 } else { 1 };
        for _ in 0..looks {
            for entry in list(&self.shard)? {
                let name = entry?.file_name();
                if let Some((name, number, note)) = name.to_str().and_then(parse_name)
                    && name == self.name
                {
                    places.entry(number).or_default().add(note);
                }
            }
        }
        Ok(places)
    }

    /// Head and length of a segment on this disk; None: it is not there, or has no head yet.
    pub(super) fn here(&self, number: u32) -> io::Result<Option<SegmentPlace>> {
        let mut file = match File::open(self.path(number)) {
            Ok(file) => file,
            // Removed since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut head = Vec::with_capacity(SEGMENT_HEAD_BYTES);
        (&mut file)
            .take(SEGMENT_HEAD_BYTES as u64)
            .read_to_end(&mut head)?;
        let Some(head) = SegmentHead::parse(&head) else {
            return Ok(None);
        };
        Ok(Some(SegmentPlace {
            number,
            head,
            bytes: file.metadata()?.len(),
            away: false,
        }))
    }

    /// Head and length of a segment in the object store.
    fn away(&self, number: u32) -> io::Result<Option<SegmentPlace>> {
        let note = read_note(&self.note(number, Note::Away))?;
        Ok(note.map(|(head, bytes)| SegmentPlace {
            number,
            head,
            bytes,
            away: true,
        }))
    }

    /// Removes what is on this disk of a log that has nothing elsewhere. Blocks. One that is not
    /// there is fine.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for number in self.numbers()? {
            match std::fs::remove_file(self.path(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// What is there of a log that nobody writes: where its segments begin and how long they
    /// are. Segments that have no head yet are left out.
    pub(crate) fn index(&self) -> io::Result<LogIndex> {
        let mut index = LogIndex::default();
        for (number, kinds) in self.places()? {
            let mut found = None;
            if kinds.here {
                found = self.here(number)?;
            }
            // Also one that has been moved since the directory was read.
            if found.is_none() {
                found = self.away(number)?;
            }
            let Some(segment) = found else {
                continue;
            };
            if segment.away && self.remote.is_none() {
                // The server has another object store now: the log begins behind it.
                index = LogIndex::default();
                continue;
            }
            index.next_seq = segment.head.first_seq;
            index.totals = segment.head.before;
            index.segments.push_back(segment);
        }
        Ok(index)
    }

    /// Takes a segment away that no index has any more.
    pub(super) fn discard(&self, segment: &SegmentPlace) -> io::Result<()> {
        let number = segment.number;
        if segment.away {
            let (away, unwanted) = (Note::Away, Note::Unwanted);
            std::fs::rename(self.note(number, away), self.note(number, unwanted))?;
        }
        match std::fs::remove_file(self.path(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && segment.away => {}
            other => other?,
        }
        // Also of one that is being sent: the mover sees that it is gone.
        if let Some(remote) = &self.remote {
            remote.announce(self, number);
        }
        Ok(())
    }

    /// All records of one segment, for a server that takes it over.
    pub(super) fn records(&self, number: u32) -> io::Result<Bytes> {
        let mut bytes = Bytes::from(std::fs::read(self.path(number))?);
        Ok(bytes.split_off(SEGMENT_HEAD_BYTES.min(bytes.len())))
    }
}

/// What there is of one segment.
#[derive(Debug, Clone, Copy, Default)]
struct Kinds {
    here: bool,
    noted: bool,
}

impl Kinds {
    fn add(&mut self, note: Option<Note>) {
        match note {
            None => self.here = true,
            Some(_) => self.noted = true,
        }
    }
}

/// The log, the segment, and what is said of it, that a file belongs to.
fn parse_name(file: &str) -> Option<(&str, u32, Option<Note>)> {
    let (name, rest) = file.split_once('.')?;
    let (number, note) = match rest.split_once('.') {
        None => (rest, None),
        Some((number, word)) => {
            let note = Note::ALL.into_iter().find(|note| note.word() == word)?;
            (number, Some(note))
        }
    };
    Some((name, number.parse().ok()?, note))
}

/// What is in a directory; nothing when there is none.
fn list(directory: &Path) -> io::Result<impl Iterator<Item = io::Result<std::fs::DirEntry>>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => Some(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(entries.into_iter().flatten())
}

/// The directories of all logs.
pub(crate) fn shards(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut shards = Vec::new();
    for shard in list(directory)? {
        let shard = shard?;
        if shard.file_type()?.is_dir() {
            shards.push(shard.path());
        }
    }
    Ok(shards)
}

/// Removes the segments that nobody has written to since `before`; of those that are away, the
/// mover deletes the objects. Blocks.
///
/// # Errors
/// Those of the file system; what was removed before stays removed.
pub(crate) fn purge(directory: &Path, before: SystemTime) -> io::Result<u64> {
    let mut removed = 0;
    for shard in shards(directory)? {
        for segment in list(&shard)? {
            let segment = segment?;
            let about = match segment.metadata() {
                Ok(about) => about,
                // Its writer has dropped it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if !about.is_file() || about.modified()? >= before {
                continue;
            }
            let (path, name) = (segment.path(), segment.file_name());
            let note = name
                .to_str()
                .and_then(parse_name)
                .and_then(|(.., note)| note);
            match note {
                None => std::fs::remove_file(path)?,
                Some(Note::Away) => {
                    std::fs::rename(&path, path.with_extension(Note::Unwanted.word()))?;
                }
                // The mover is about to take it away.
                Some(Note::Moving | Note::Unwanted) => continue,
            }
            removed += 1;
        }
    }
    Ok(removed)
}

/// A log of which the mover should look at some segments.
#[derive(Debug)]
pub(crate) struct Unsettled {
    /// What its command's id ends with.
    pub name: String,
    /// Segments that are closed because another one follows, or that have a note.
    pub numbers: Vec<u32>,
    /// The last segment, when it is here and nobody has written to it for a while.
    pub quiet_last: Option<u32>,
}

/// The logs in one directory that are not, as far as they could be, in the object store. Blocks.
///
/// # Errors
/// Those of the file system.
pub(crate) fn unsettled(shard: &Path, quiet_before: SystemTime) -> io::Result<Vec<Unsettled>> {
    let mut logs = BTreeMap::<String, BTreeMap<u32, Kinds>>::new();
    let mut quiet = BTreeSet::new();
    for entry in list(shard)? {
        let entry = entry?;
        let file = entry.file_name();
        let Some((name, number, note)) = file.to_str().and_then(parse_name) else {
            continue;
        };
        let settled = note == Some(Note::Away);
        let log = logs.entry(name.to_owned()).or_default();
        let kinds = log.entry(number).or_default();
        if !settled {
            kinds.add(note);
        }
        if note.is_none()
            && entry
                .metadata()
                .and_then(|about| about.modified())
                .is_ok_and(|at| at < quiet_before)
        {
            quiet.insert((name.to_owned(), number));
        }
    }
    let mut found = Vec::new();
    for (name, segments) in logs {
        let last = segments.last_key_value().map(|(number, _)| *number);
        let wanted = |(number, kinds): (&u32, &Kinds)| {
            (kinds.noted || (kinds.here && Some(*number) != last)).then_some(*number)
        };
        let numbers: Vec<u32> = segments.iter().filter_map(wanted).collect();
        let quiet_last = last.filter(|last| quiet.contains(&(name.clone(), *last)));
        if !numbers.is_empty() || quiet_last.is_some() {
            found.push(Unsettled {
                name,
                numbers,
                quiet_last,
            });
        }
    }
    Ok(found)
}

/// One segment that is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct SegmentPlace {
    pub number: u32,
    pub head: SegmentHead,
    /// Sound bytes in it, its head included.
    pub bytes: u64,
    /// It is in the object store; on this disk it may be too.
    pub away: bool,
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

    /// A segment has got into the object store, if it is still wanted and `settle` says so.
    pub(super) fn moved(
        &self,
        number: u32,
        settle: impl FnOnce() -> io::Result<bool>,
    ) -> io::Result<bool> {
        let mut index = self.lock();
        let found = index.segments.iter_mut().find(|s| s.number == number);
        let Some(segment) = found else {
            return Ok(false);
        };
        segment.away = settle()?;
        Ok(segment.away)
    }

    /// Numbers of the segments that nobody writes to any more.
    pub(crate) fn closed(&self) -> Vec<u32> {
        let index = self.lock();
        let closed = index.segments.len().saturating_sub(1);
        index
            .segments
            .iter()
            .take(closed)
            .map(|s| s.number)
            .collect()
    }

    /// Tells when there is more than there was when this was called.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }
}
