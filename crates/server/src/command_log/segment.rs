//! The format of one segment of a command's log: a head, then records. Pure: no files here.
//!
//! ```text
//! segment = head record*
//! head    = magic(8) first_seq(8) handled(8) stdout(8) stderr(8) omitted(8) check(8)
//! record  = check(8) length(4) flags(4) seq(8) handled(8) at(8) data(length)
//! ```
//! Numbers are little endian; `check` covers everything after it in the record, or before it in
//! the head. A write of several records marks only its last one as whole ([`Record::whole`]): what
//! a killed server left behind it is cut off, and init, which was told of nothing after that
//! record, says it again.

use bytes::Bytes;

/// Longest data of one record.
pub(crate) const CHUNK_BYTES_MAX: usize = 64 * 1024;
pub(super) const SEGMENT_HEAD_BYTES: usize = 56;
pub(super) const RECORD_HEAD_BYTES: usize = 40;
/// Longest record.
pub(super) const RECORD_BYTES_MAX: usize = RECORD_HEAD_BYTES + CHUNK_BYTES_MAX;

/// The last byte is the version.
const MAGIC: [u8; 8] = *b"CNESTLG\x01";
const CHECK_BYTES: usize = 8;
const FLAG_STDERR: u32 = 1;
const FLAG_WHOLE: u32 = 2;
const FLAG_EVENT: u32 = 4;
/// The event goes on in the next record.
const FLAG_MORE: u32 = 8;
/// The event has begun in the record before.
const FLAG_BEGUN: u32 = 16;
const FLAGS_KNOWN: u32 = FLAG_STDERR | FLAG_WHOLE | FLAG_EVENT | FLAG_MORE | FLAG_BEGUN;

/// Which of a command's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogStream {
    Stdout,
    Stderr,
}

/// Which part of an event a record holds: events may be longer than a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub begins: bool,
    pub ends: bool,
}

/// Bytes of a log so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Printed, kept or not.
    pub stdout: u64,
    pub stderr: u64,
    /// Of those, never written: the disk did not take them.
    pub omitted: u64,
}

impl Totals {
    pub(crate) fn printed(&self) -> u64 {
        self.stdout.saturating_add(self.stderr)
    }

    /// Counts a record; events are not printed.
    pub(super) fn add_record(&mut self, record: &Record) {
        if record.event.is_none() {
            self.add(record.stream, record.data.len());
        }
    }

    pub(super) fn add(&mut self, stream: LogStream, bytes: usize) {
        let count = match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        };
        *count = count.saturating_add(bytes as u64);
    }
}

/// Where a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHead {
    /// Number of the first record that is, or will be, in it.
    pub first_seq: u64,
    /// What init had said that was handled before it.
    pub handled: u64,
    pub before: Totals,
}

/// One piece of output, or of an event beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub seq: u64,
    /// Means nothing in an event.
    pub stream: LogStream,
    /// None: it is output.
    pub event: Option<Part>,
    /// The last of what was written together.
    pub whole: bool,
    /// Number of init's last event that is on disk with this record, when it is `whole`.
    pub handled: u64,
    /// Microseconds since 1970.
    pub at: i64,
    pub data: Bytes,
}

/// What the bytes at some place are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A record, and how many bytes it takes.
    Record(Record, usize),
    /// The start of one.
    Short,
    /// No record.
    Broken,
}

fn check(parts: [&[u8]; 2]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let hash = hasher.finalize();
    *hash
        .as_bytes()
        .first_chunk()
        .expect("a hash is longer than a check")
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let field = bytes[at..]
        .first_chunk()
        .expect("heads are parsed from whole heads");
    u64::from_le_bytes(*field)
}

impl SegmentHead {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEAD_BYTES] {
        let mut out = [0; SEGMENT_HEAD_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        let Totals {
            stdout,
            stderr,
            omitted,
        } = self.before;
        let fields = [self.first_seq, self.handled, stdout, stderr, omitted];
        for (place, field) in fields.into_iter().enumerate() {
            out[8 + place * 8..16 + place * 8].copy_from_slice(&field.to_le_bytes());
        }
        let sum = check([&out[..48], &[]]);
        out[48..].copy_from_slice(&sum);
        out
    }

    /// The head that these bytes begin with, if they do.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<SEGMENT_HEAD_BYTES>()?;
        if head[..8] != MAGIC || head[48..] != check([&head[..48], &[]]) {
            return None;
        }
        Some(Self {
            first_seq: number(head, 8),
            handled: number(head, 16),
            before: Totals {
                stdout: number(head, 24),
                stderr: number(head, 32),
                omitted: number(head, 40),
            },
        })
    }
}

/// Appends a record.
///
/// # Panics
/// If the data is longer than [`CHUNK_BYTES_MAX`]: the writer cuts it.
pub(super) fn push_record(record: &Record, out: &mut Vec<u8>) {
    assert!(record.data.len() <= CHUNK_BYTES_MAX, "cut by the writer");
    let length = u32::try_from(record.data.len()).expect("below its limit");
    let mut flags = 0;
    if record.stream == LogStream::Stderr {
        flags |= FLAG_STDERR;
    }
    if record.whole {
        flags |= FLAG_WHOLE;
    }
    if let Some(part) = record.event {
        flags |= FLAG_EVENT;
        flags |= if part.ends { 0 } else { FLAG_MORE };
        flags |= if part.begins { 0 } else { FLAG_BEGUN };
    }
    let mut head = [0; RECORD_HEAD_BYTES];
    head[8..12].copy_from_slice(&length.to_le_bytes());
    head[12..16].copy_from_slice(&u32::to_le_bytes(flags));
    head[16..24].copy_from_slice(&record.seq.to_le_bytes());
    head[24..32].copy_from_slice(&record.handled.to_le_bytes());
    head[32..40].copy_from_slice(&record.at.to_le_bytes());
    let sum = check([&head[8..], &record.data]);
    head[..8].copy_from_slice(&sum);
    out.extend_from_slice(&head);
    out.extend_from_slice(&record.data);
}

fn are_sound(flags: u32) -> bool {
    let parts = flags & (FLAG_MORE | FLAG_BEGUN) != 0;
    flags & !FLAGS_KNOWN == 0 && (flags & FLAG_EVENT != 0 || !parts)
}

/// The record that `bytes` begin with at `at`.
pub(super) fn parse_record(bytes: &Bytes, at: usize) -> Parsed {
    let rest = &bytes[at..];
    let Some(head) = rest.first_chunk::<RECORD_HEAD_BYTES>() else {
        return Parsed::Short;
    };
    let length = number(head, 8) & u64::from(u32::MAX);
    let flags = u32::try_from(number(head, 8) >> 32).expect("32 bits are left");
    let length = match usize::try_from(length) {
        Ok(length) if length <= CHUNK_BYTES_MAX && are_sound(flags) => length,
        _ => return Parsed::Broken,
    };
    let total = RECORD_HEAD_BYTES + length;
    let Some(data) = rest.get(RECORD_HEAD_BYTES..total) else {
        return Parsed::Short;
    };
    if head[..8] != check([&head[8..], data]) {
        return Parsed::Broken;
    }
    let record = Record {
        seq: number(head, 16),
        stream: if flags & FLAG_STDERR == 0 {
            LogStream::Stdout
        } else {
            LogStream::Stderr
        },
        event: (flags & FLAG_EVENT != 0).then_some(Part {
            begins: flags & FLAG_BEGUN == 0,
            ends: flags & FLAG_MORE == 0,
        }),
        whole: flags & FLAG_WHOLE != 0,
        handled: number(head, 24),
        at: i64::from_le_bytes(number(head, 32).to_le_bytes()),
        data: bytes.slice(at + RECORD_HEAD_BYTES..at + total),
    };
    Parsed::Record(record, total)
}

/// Gives records the checks that belong to them, as far as they have lengths: a fuzzer would not
/// find one by itself.
#[cfg(feature = "fuzzing")]
pub(super) fn reseal(records: &[u8]) -> Bytes {
    let mut bytes = records.to_vec();
    let mut at = 0;
    while bytes.len() - at >= RECORD_HEAD_BYTES {
        let length = usize::try_from(number(&bytes[at..], 8) & u64::from(u32::MAX)).unwrap_or(0);
        let Some(end) = Some(at + RECORD_HEAD_BYTES + length).filter(|end| *end <= bytes.len())
        else {
            break;
        };
        let sum = check([&bytes[at + CHECK_BYTES..end], &[]]);
        bytes[at..at + CHECK_BYTES].copy_from_slice(&sum);
        at = end;
    }
    bytes.into()
}

/// What is sound at the start of the records of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sound {
    /// Bytes up to the end of the last whole write, without the segment's head.
    pub bytes: usize,
    pub next_seq: u64,
    pub handled: u64,
    pub totals: Totals,
}

/// Finds where the last whole write of a segment ends. `records` follow its head.
pub(super) fn sound_part(head: &SegmentHead, records: &Bytes) -> Sound {
    let mut sound = Sound {
        bytes: 0,
        next_seq: head.first_seq,
        handled: head.handled,
        totals: head.before,
    };
    let mut seen = sound;
    while let Parsed::Record(record, bytes) = parse_record(records, seen.bytes) {
        let in_turn = record.seq == seen.next_seq && seen.next_seq < u64::MAX;
        if !in_turn || (record.whole && record.handled < seen.handled) {
            break;
        }
        seen.bytes += bytes;
        seen.next_seq += 1;
        seen.totals.add_record(&record);
        if record.whole {
            seen.handled = record.handled;
            sound = seen;
        }
    }
    sound
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: SegmentHead = SegmentHead {
        first_seq: 5,
        handled: 9,
        before: Totals {
            stdout: 1,
            stderr: 2,
            omitted: 3,
        },
    };

    fn record(seq: u64, whole: bool, data: &'static str) -> Record {
        Record {
            seq,
            stream: LogStream::Stderr,
            event: None,
            whole,
            handled: if whole { seq + 100 } else { 0 },
            at: -1,
            data: Bytes::from_static(data.as_bytes()),
        }
    }

    fn encoded(records: &[Record]) -> Bytes {
        let mut out = Vec::new();
        for record in records {
            push_record(record, &mut out);
        }
        out.into()
    }

    #[test]
    fn heads_and_records_come_back() {
        assert_eq!(SegmentHead::parse(&HEAD.encode()), Some(HEAD));
        for event in [
            None,
            Some((true, true)),
            Some((true, false)),
            Some((false, true)),
        ] {
            let one = Record {
                event: event.map(|(begins, ends)| Part { begins, ends }),
                ..record(5, true, "x\u{2028}\0")
            };
            let bytes = encoded(std::slice::from_ref(&one));
            assert_eq!(parse_record(&bytes, 0), Parsed::Record(one, bytes.len()));
        }
    }

    #[test]
    fn a_torn_tail_is_cut_at_the_last_whole_write_wherever_it_is_torn() {
        let records = [
            record(5, true, "one"),
            record(6, false, "two"),
            record(7, true, "three"),
            record(8, false, "four"),
        ];
        let all = encoded(&records);
        let first = RECORD_HEAD_BYTES + 3;
        let whole = all.len() - RECORD_HEAD_BYTES - 4;
        for cut in 0..=all.len() {
            let sound = sound_part(&HEAD, &all.slice(..cut));
            let (bytes, next_seq, handled, stderr) = match cut {
                cut if cut < first => (0, 5, 9, 2),
                cut if cut < whole => (first, 6, 105, 5),
                _ => (whole, 8, 107, 13),
            };
            assert_eq!(
                (sound.bytes, sound.next_seq, sound.handled),
                (bytes, next_seq, handled),
                "cut at {cut}"
            );
            assert_eq!((sound.totals.stdout, sound.totals.stderr), (1, stderr));
        }
    }

    #[test]
    fn records_out_of_turn_end_a_segment() {
        for wrong in [record(5, true, "again"), record(7, true, "skipped")] {
            let bytes = encoded(&[record(5, true, "a"), wrong]);
            assert_eq!(sound_part(&HEAD, &bytes).next_seq, 6);
        }
        let mut back = record(6, true, "back");
        back.handled = 1;
        assert_eq!(
            sound_part(&HEAD, &encoded(&[record(5, true, "a"), back])).next_seq,
            6
        );
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_seen(at in 0usize..200, bit in 0u8..8) {
            let good = encoded(&[record(5, true, "one"), record(6, true, "two")]);
            let mut bad = good.to_vec();
            let at = at % bad.len();
            bad[at] ^= 1 << bit;
            let sound = sound_part(&HEAD, &bad.into());
            let first = RECORD_HEAD_BYTES + 3;
            prop_assert_eq!(sound.bytes, if at < first { 0 } else { first });
            let mut head = HEAD.encode();
            head[at % SEGMENT_HEAD_BYTES] ^= 1 << bit;
            prop_assert_eq!(SegmentHead::parse(&head), None);
        }
    }
}
