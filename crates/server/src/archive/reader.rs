//! Reads an archive: gzip, then tar, then batches of entries that init can make.
//!
//! Who runs it: the server, unprivileged, on a thread of its own (it computes and blocks). Memory
//! is bounded whatever the bytes are: one block, one extended header, the names so far, one batch.
//!
//! Headers are read here and not by a library: the one there is keeps extended headers of any
//! length in memory, and does not tell an end mark from the end of the file.

use super::gzip::Gzip;
use super::header::{BLOCK_BYTES, Header, Kind, Pax, text};
use super::names::{self, PATH_BYTES_MAX, Taken, Tree, shown};
use super::{ArchiveError, Batch, Limits, Summary};
use bytes::{Bytes, BytesMut};
use crownest_init::unpack::{ENTRIES_MAX as BATCH_ENTRIES_MAX, Entry, EntryKind, Finish};
use std::io::Read;

/// Bytes of files in one batch, and the largest piece of a file.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Names in one batch; in JSON a byte may take six.
const BATCH_NAMES_BYTES_MAX: usize = 256 << 10;
/// One extended header: file attributes of some systems are long.
const EXTENDED_BYTES_MAX: u64 = 256 << 10;
/// All extended headers together.
const EXTENDED_TOTAL_BYTES_MAX: u64 = 64 << 20;
/// Extended headers before one entry.
const EXTENDED_HEADERS_MAX: u32 = 8;

/// Reads everything. `sink` gets the batches in order; its error ends the reading.
pub(crate) fn read(
    source: impl Read,
    limits: Limits,
    sink: &mut dyn FnMut(Batch) -> Result<(), ArchiveError>,
) -> Result<Summary, ArchiveError> {
    let mut reader = Reader {
        gzip: Gzip::new(source, limits),
        limits,
        tree: Tree::default(),
        summary: Summary::default(),
        extended_bytes: 0,
        batch: BatchBuilder::default(),
        sink,
    };
    reader.entries()?;
    Ok(reader.summary)
}

struct Reader<'a, R> {
    gzip: Gzip<R>,
    limits: Limits,
    tree: Tree,
    summary: Summary,
    extended_bytes: u64,
    batch: BatchBuilder,
    sink: &'a mut dyn FnMut(Batch) -> Result<(), ArchiveError>,
}

/// What extended headers said of the next entry.
#[derive(Debug, Default)]
struct Pending {
    headers: u32,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Reader<'_, R> {
    fn entries(&mut self) -> Result<(), ArchiveError> {
        let mut pending = Pending::default();
        let mut block = [0; BLOCK_BYTES];
        loop {
            self.block(&mut block)?;
            if block.iter().all(|byte| *byte == 0) {
                if pending.headers > 0 {
                    return Err(ArchiveError::invalid("its last header belongs to no entry"));
                }
                self.end()?;
                return self.flush();
            }
            let header = Header::parse(&block)?;
            if self.extended(&header, &mut pending)? {
                continue;
            }
            self.entry(header, std::mem::take(&mut pending))?;
        }
    }

    /// Takes a header that only describes the next one. False when it is an entry itself.
    fn extended(&mut self, header: &Header, pending: &mut Pending) -> Result<bool, ArchiveError> {
        let long = matches!(header.kind, Kind::LongName | Kind::LongLink);
        if !long && !matches!(header.kind, Kind::Pax | Kind::PaxGlobal) {
            return Ok(false);
        }
        let max = if long {
            PATH_BYTES_MAX as u64 + 1
        } else {
            EXTENDED_BYTES_MAX
        };
        self.extended_bytes = self.extended_bytes.saturating_add(header.size);
        pending.headers += 1;
        if header.size > max
            || self.extended_bytes > EXTENDED_TOTAL_BYTES_MAX
            || pending.headers > EXTENDED_HEADERS_MAX
        {
            return Err(ArchiveError::invalid(format!(
                "an extended header has {} bytes, or there are too many of them",
                header.size
            )));
        }
        let length = usize::try_from(header.size).unwrap_or(usize::MAX);
        let bytes = self.bytes(length)?;
        match header.kind {
            Kind::LongName => pending.name = Some(text(&bytes).to_vec()),
            Kind::LongLink => pending.link = Some(text(&bytes).to_vec()),
            Kind::Pax => {
                let Pax { path, link, size } = Pax::parse(&bytes)?;
                pending.name = path.or_else(|| pending.name.take());
                pending.link = link.or_else(|| pending.link.take());
                pending.size = size.or(pending.size);
            }
            _ => {
                if Pax::parse(&bytes)? != Pax::default() {
                    let message = "a global header names or measures entries";
                    return Err(ArchiveError::invalid(message));
                }
                // It is about no entry: an archive may end with it.
                pending.headers -= 1;
            }
        }
        Ok(true)
    }

    fn entry(&mut self, header: Header, pending: Pending) -> Result<(), ArchiveError> {
        let Header {
            kind,
            name,
            link,
            size,
            mode,
            modified_s,
        } = header;
        let path = names::entry(pending.name.as_ref().unwrap_or(&name))?;
        let refuse = |why: &str| {
            Err(ArchiveError::invalid(format!(
                "entry {}: {why}",
                shown(&path)
            )))
        };
        if let Kind::Refused(what) = kind {
            return refuse(&format!("it is {what}"));
        }
        self.summary.entries += 1;
        if self.summary.entries.max(self.tree.len() as u64) > self.limits.entries_max {
            let max = self.limits.entries_max;
            return Err(ArchiveError::too_large(format!(
                "it has more than {max} entries"
            )));
        }
        if pending.size.is_some_and(|said| said != size) {
            return refuse("its headers disagree about its size");
        }
        if kind == Kind::File {
            return self.file(&path, size, Finish { mode, modified_s });
        }
        if size != 0 {
            return refuse("it is no file and yet has content");
        }
        if path.is_empty() {
            // "./": the workspace itself, which keeps its mode.
            return if kind == Kind::Directory {
                Ok(())
            } else {
                refuse("a link in place of the workspace")
            };
        }
        let target = pending.link.unwrap_or(link);
        let kind = match kind {
            Kind::Symlink => {
                let target = names::link_target(&path, &target)?;
                self.tree.take(&path, Taken::Symlink)?;
                EntryKind::Symlink { target }
            }
            Kind::HardLink => {
                let target = self.tree.linked(&path, &target)?;
                self.tree.take(&path, Taken::File)?;
                EntryKind::HardLink { target }
            }
            _ => {
                self.tree.take(&path, Taken::Directory)?;
                EntryKind::Directory { mode }
            }
        };
        self.make_room(&path, 0)?;
        self.batch.push(Entry { path, kind });
        Ok(())
    }

    fn file(&mut self, path: &str, size: u64, finish: Finish) -> Result<(), ArchiveError> {
        if path.is_empty() {
            return Err(ArchiveError::invalid("a file in place of the workspace"));
        }
        self.summary.bytes = self.summary.bytes.saturating_add(size);
        if self.summary.bytes > self.limits.unpacked_bytes_max {
            let max = self.limits.unpacked_bytes_max;
            return Err(ArchiveError::too_large(format!(
                "its files have more than {max} bytes; the last was {}",
                shown(path)
            )));
        }
        self.tree.take(path, Taken::File)?;
        let mut offset = 0;
        loop {
            let left = size - offset;
            let length = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(BATCH_BYTES_MAX);
            let last = (length as u64 == left).then_some(finish);
            let kind = EntryKind::File {
                offset,
                length: length as u64,
                last,
            };
            self.make_room(path, length)?;
            let path = path.to_owned();
            self.batch.push(Entry { path, kind });
            let room = self.batch.room(length);
            if self.gzip.fill(room)? < length {
                return Err(truncated());
            }
            offset += length as u64;
            if last.is_some() {
                break;
            }
        }
        self.padding(size)
    }

    /// Sends what there is when the next entry would make the batch too large.
    fn make_room(&mut self, path: &str, length: usize) -> Result<(), ArchiveError> {
        let full = self.batch.entries.len() >= BATCH_ENTRIES_MAX
            || self.batch.body.len() + length > BATCH_BYTES_MAX
            || self.batch.names_bytes + path.len() + PATH_BYTES_MAX > BATCH_NAMES_BYTES_MAX;
        if full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ArchiveError> {
        match std::mem::take(&mut self.batch).finish() {
            Some(batch) => (self.sink)(batch),
            None => Ok(()),
        }
    }

    fn block(&mut self, block: &mut [u8; BLOCK_BYTES]) -> Result<(), ArchiveError> {
        if self.gzip.fill(block)? == BLOCK_BYTES {
            Ok(())
        } else {
            Err(truncated())
        }
    }

    /// The content of an extended header, whose length has been checked.
    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = vec![0; length];
        if self.gzip.fill(&mut bytes)? < length {
            return Err(truncated());
        }
        self.padding(length as u64)?;
        Ok(bytes)
    }

    /// What fills the last block of a content.
    fn padding(&mut self, length: u64) -> Result<(), ArchiveError> {
        let over = usize::try_from(length % BLOCK_BYTES as u64).unwrap_or(0);
        let mut rest = [0; BLOCK_BYTES];
        let rest = &mut rest[..(BLOCK_BYTES - over) % BLOCK_BYTES];
        if self.gzip.fill(rest)? < rest.len() {
            return Err(truncated());
        }
        Ok(())
    }

    /// After the first of two blocks of zeros: the other one, and nothing but zeros after it.
    fn end(&mut self) -> Result<(), ArchiveError> {
        let mut blocks = [0; 16 * BLOCK_BYTES];
        let (first, _) = blocks.split_at_mut(BLOCK_BYTES);
        if self.gzip.fill(first)? < BLOCK_BYTES {
            return Err(truncated());
        }
        if first.iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::invalid(
                "a block of zeros is between its entries",
            ));
        }
        loop {
            let count = self.gzip.fill(&mut blocks)?;
            if blocks[..count].iter().any(|byte| *byte != 0) {
                return Err(ArchiveError::invalid("there are bytes after its end"));
            }
            if count < blocks.len() {
                return Ok(());
            }
        }
    }
}

fn truncated() -> ArchiveError {
    ArchiveError::invalid("it is truncated: it ends before its end mark")
}

/// Entries that travel together.
#[derive(Debug, Default)]
struct BatchBuilder {
    entries: Vec<Entry>,
    body: BytesMut,
    names_bytes: usize,
}

impl BatchBuilder {
    fn push(&mut self, entry: Entry) {
        self.names_bytes += entry.path.len();
        if let EntryKind::Symlink { target } | EntryKind::HardLink { target } = &entry.kind {
            self.names_bytes += target.len();
        }
        self.entries.push(entry);
    }

    /// Where the bytes of the entry that was just pushed go.
    fn room(&mut self, length: usize) -> &mut [u8] {
        let before = self.body.len();
        self.body.resize(before + length, 0);
        &mut self.body[before..]
    }

    fn finish(self) -> Option<Batch> {
        (!self.entries.is_empty()).then(|| Batch {
            entries: self.entries,
            body: Bytes::from(self.body),
        })
    }
}
