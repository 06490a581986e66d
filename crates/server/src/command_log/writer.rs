//! Writing a log. Blocks: called beside the event loop, by one task at a time.

use super::files::{Log, LogFiles, LogIndex, SegmentPlace};
use super::segment::{
    CHUNK_BYTES_MAX, LogStream, Part, Record, SEGMENT_HEAD_BYTES, SegmentHead, push_record,
    sound_part,
};
use crate::disk;
use bytes::Bytes;
use crownest_api::Timestamp;
use crownest_init::characters::complete_characters;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::Duration;

/// A segment is closed when it is this long.
const SEGMENT_BYTES_MAX: u64 = 8 * 1024 * 1024;
const SEGMENTS_KEPT_MIN: usize = 2;
/// How often a write is tried, and the pause between two tries. Meanwhile the program waits.
const WRITE_TRIES_MAX: u32 = 5;
const WRITE_PAUSE: Duration = Duration::from_millis(200);

/// How much of a log is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLimits {
    /// Above it the oldest segments go.
    pub log_bytes_max: u64,
    /// Shorter in tests.
    pub segment_bytes_max: u64,
}

impl LogLimits {
    pub(crate) fn new(log_bytes_max: u64) -> Self {
        Self {
            log_bytes_max,
            segment_bytes_max: SEGMENT_BYTES_MAX,
        }
    }
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Output(LogStream, Bytes),
    /// Something else that happened between pieces of output, in bytes that only the caller
    /// understands.
    Event(Bytes),
}

/// The one that writes a log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    log: Arc<Log>,
    limits: LogLimits,
    /// The last segment, when it is open.
    file: Option<File>,
    /// Number of init's last event that is on disk.
    handled: u64,
}

impl LogWriter {
    /// Of a command that has printed nothing yet. No file is made before it does.
    pub(crate) fn create(files: LogFiles, limits: LogLimits) -> Self {
        Self {
            log: Arc::new(Log::new(files, LogIndex::default())),
            limits,
            file: None,
            handled: 0,
        }
    }

    /// Of a command that another server has begun to write: what is not whole at its end is cut
    /// off.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn reopen(files: LogFiles, limits: LogLimits) -> io::Result<Self> {
        let mut index = files.index()?;
        for number in files.numbers()? {
            if index.segments.iter().all(|s| s.number != number) {
                // Its head was never finished.
                std::fs::remove_file(files.path(number))?;
            }
        }
        let (mut file, mut handled) = (None, 0);
        if let Some(last) = index.segments.back_mut() {
            if last.away {
                return Err(io::Error::other(
                    "the end of the log is in the object store",
                ));
            }
            let records = files.records(last.number)?;
            let sound = sound_part(&last.head, &records);
            last.bytes = (SEGMENT_HEAD_BYTES + sound.bytes) as u64;
            let opened = OpenOptions::new()
                .write(true)
                .open(files.path(last.number))?;
            // Its age counts from what was written last.
            if opened.metadata()?.len() != last.bytes {
                opened.set_len(last.bytes)?;
            }
            file = Some(opened);
            handled = sound.handled;
            index.next_seq = sound.next_seq;
            index.totals = sound.totals;
        }
        Ok(Self {
            log: Arc::new(Log::new(files, index)),
            limits,
            file,
            handled,
        })
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Number of init's last event that need not come again.
    pub(crate) fn handled(&self) -> u64 {
        self.handled
    }

    /// Appends what init's events up to `handled` have brought. Either all of it can be read when
    /// this returns, or none.
    ///
    /// # Errors
    /// Those of the file system: then it can be tried again.
    pub(crate) fn append(&mut self, entries: &[Entry], handled: u64) -> io::Result<()> {
        let next_seq = self.log.with(|index| index.next_seq);
        let mut records = Records::from(next_seq);
        for entry in entries {
            match entry {
                Entry::Output(stream, data) => records.add_output(*stream, data),
                Entry::Event(data) => records.add_event(data),
            }
        }
        self.append_records(records.all, handled)
    }

    /// As [`LogWriter::append`], beside the event loop: a disk that is slow holds up this log alone.
    /// It is tried several times; what the disk does not take is left out and counted. `last`:
    /// nothing follows. `of` is the id of what is logged, for the server's own log.
    ///
    /// None only when the runtime is being torn down.
    pub(crate) async fn append_patiently(
        self,
        entries: Vec<Entry>,
        handled: u64,
        last: bool,
        of: &str,
    ) -> Option<Self> {
        if entries.is_empty() && !(last && self.has_file()) {
            return Some(self);
        }
        let (mut writer, entries) = (self, Arc::new(entries));
        for attempt in 1..=WRITE_TRIES_MAX {
            let given = Arc::clone(&entries);
            let written = tokio::task::spawn_blocking(move || {
                let written = writer.append(&given, handled);
                if last && written.is_ok() {
                    writer.close();
                }
                (writer, written)
            });
            let (back, written) = written.await.ok()?;
            writer = back;
            match written {
                Ok(()) => break,
                Err(error) if attempt == WRITE_TRIES_MAX => {
                    tracing::error!(%error, of, "output is left out of a log");
                    writer.omit(&entries);
                }
                Err(error) => {
                    tracing::warn!(%error, of, attempt, "writing a log failed");
                    tokio::time::sleep(WRITE_PAUSE).await;
                }
            }
        }
        Some(writer)
    }

    fn append_records(&mut self, mut records: Vec<Record>, handled: u64) -> io::Result<()> {
        let mut totals = self.log.with(|index| index.totals);
        let Some(last) = records.last_mut() else {
            return Ok(());
        };
        (last.whole, last.handled) = (true, handled);
        let mut bytes = Vec::new();
        for record in &records {
            push_record(record, &mut bytes);
            totals.add_record(record);
        }
        self.make_room()?;
        let (Some(file), Some(end)) = (&self.file, self.end()) else {
            return Err(io::Error::other("a segment without a file"));
        };
        file.write_all_at(&bytes, end)?;
        self.handled = handled;
        self.log.publish(|index| {
            index.next_seq += records.len() as u64;
            index.totals = totals;
            if let Some(last) = index.segments.back_mut() {
                last.bytes += bytes.len() as u64;
            }
        });
        Ok(())
    }

    /// Counts output that the disk does not take; events that are left out are not counted.
    pub(crate) fn omit(&mut self, entries: &[Entry]) {
        self.log.publish(|index| {
            for entry in entries {
                if let Entry::Output(stream, data) = entry {
                    index.totals.add(*stream, data.len());
                    index.totals.omitted += data.len() as u64;
                }
            }
        });
    }

    /// Whether there is something to close.
    fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Nothing will be written any more.
    pub(crate) fn close(&mut self) {
        if let (Some(file), Some(end)) = (self.file.take(), self.end()) {
            // A write that failed half-way may have left something behind the end.
            if let Err(error) = file.set_len(end) {
                tracing::warn!(%error, "closing a log segment");
            }
        }
    }

    /// Where the last segment ends.
    fn end(&self) -> Option<u64> {
        self.log
            .with(|index| index.segments.back().map(|s| s.bytes))
    }

    /// Opens a segment when there is none or the last one is full, and drops the oldest ones.
    fn make_room(&mut self) -> io::Result<()> {
        let end = self.end();
        if self.file.is_some() && end.is_some_and(|end| end < self.limits.segment_bytes_max) {
            return Ok(());
        }
        let (number, head) = self.log.with(|index| {
            let number = index.segments.back().map_or(1, |last| last.number + 1);
            let head = SegmentHead {
                first_seq: index.next_seq,
                handled: self.handled,
                before: index.totals,
            };
            (number, head)
        });
        if let Some(end) = end
            && let Some(full) = self.file.take()
        {
            full.set_len(end)?;
        }
        let file = self.new_file(number)?;
        file.write_all_at(&head.encode(), 0)?;
        self.file = Some(file);
        self.log.publish(|index| {
            index.segments.push_back(SegmentPlace {
                number,
                head,
                bytes: SEGMENT_HEAD_BYTES as u64,
                away: false,
            });
        });
        if let Some(remote) = self.log.files.remote()
            && end.is_some()
        {
            remote.announce(&self.log.files, number - 1);
        }
        self.drop_oldest();
        Ok(())
    }

    fn new_file(&self, number: u32) -> io::Result<File> {
        let files = &self.log.files;
        let path = files.path(number);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut directory = DirBuilder::new();
                directory.recursive(true).mode(0o700);
                directory.create(files.directory())?;
                options.open(&path)
            }
            other => other,
        }
    }

    fn drop_oldest(&self) {
        let scarce = disk::is_scarce(self.log.files.directory(), disk::FREE_BYTES_MIN);
        let max = self.limits.log_bytes_max;
        let mut dropped = Vec::new();
        self.log.publish(|index| {
            let mut bytes: u64 = index.segments.iter().map(|s| s.bytes).sum();
            loop {
                let more = index.segments.len().saturating_sub(SEGMENTS_KEPT_MIN);
                // What is away takes nothing of this disk.
                let helps = scarce && index.segments.iter().take(more).any(|s| !s.away);
                if more == 0 || !(bytes > max || helps) {
                    break;
                }
                if let Some(oldest) = index.segments.pop_front() {
                    bytes -= oldest.bytes;
                    dropped.push(oldest);
                }
            }
        });
        for segment in dropped {
            if let Err(error) = self.log.files.discard(&segment) {
                tracing::warn!(%error, "dropping a log segment");
            }
        }
    }
}

/// Records of bounded length, in the making.
struct Records {
    first_seq: u64,
    at: i64,
    all: Vec<Record>,
}

impl Records {
    fn from(first_seq: u64) -> Self {
        Self {
            first_seq,
            at: Timestamp::now().as_millis().saturating_mul(1_000),
            all: Vec::new(),
        }
    }

    fn add(&mut self, stream: LogStream, event: Option<Part>, data: Bytes) {
        self.all.push(Record {
            seq: self.first_seq + self.all.len() as u64,
            stream,
            event,
            whole: false,
            handled: 0,
            at: self.at,
            data,
        });
    }

    /// Cut between characters.
    fn add_output(&mut self, stream: LogStream, data: &Bytes) {
        let mut rest = data.clone();
        while !rest.is_empty() {
            let mut end = rest.len().min(CHUNK_BYTES_MAX);
            if end < rest.len() {
                end = complete_characters(&rest[..end]);
            }
            let data = rest.split_to(end);
            self.add(stream, None, data);
        }
    }

    fn add_event(&mut self, data: &Bytes) {
        let mut rest = data.clone();
        let mut begins = true;
        loop {
            let piece = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
            let ends = rest.is_empty();
            self.add(LogStream::Stdout, Some(Part { begins, ends }), piece);
            if ends {
                return;
            }
            begins = false;
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
