//! Opens the reader of segments to `fuzz/`.

use super::segment::{
    Parsed, RECORD_HEAD_BYTES, SEGMENT_HEAD_BYTES, SegmentHead, Totals, parse_record, push_record,
    reseal, sound_part,
};
use bytes::Bytes;

/// A segment as it is found on disk: as it is, and with the checks that its records lack.
pub fn log_segment(data: &[u8]) {
    if let Some(head) = SegmentHead::parse(data) {
        assert_eq!(head.encode()[..], data[..SEGMENT_HEAD_BYTES]);
    }
    let Some((fields, records)) = data.split_first_chunk::<40>() else {
        return;
    };
    let field = |place: usize| {
        let bytes = fields[place * 8..].first_chunk().expect("forty bytes");
        u64::from_le_bytes(*bytes)
    };
    let head = SegmentHead {
        first_seq: field(0),
        handled: field(1),
        before: Totals {
            stdout: field(2),
            stderr: field(3),
            omitted: field(4),
        },
    };
    assert_eq!(SegmentHead::parse(&head.encode()), Some(head));
    look(&head, &Bytes::copy_from_slice(records));
    look(&head, &reseal(records));
}

fn look(head: &SegmentHead, records: &Bytes) {
    let sound = sound_part(head, records);
    assert!(sound.bytes <= records.len() && sound.handled >= head.handled);
    let (mut at, mut seq, mut again) = (0, head.first_seq, Vec::new());
    let mut whole = true;
    while at < sound.bytes {
        let Parsed::Record(record, bytes) = parse_record(records, at) else {
            panic!("a sound part ends with a record");
        };
        assert!(record.seq == seq && bytes == RECORD_HEAD_BYTES + record.data.len());
        whole = record.whole;
        push_record(&record, &mut again);
        (at, seq) = (at + bytes, seq + 1);
    }
    assert!(whole, "nothing is left of a write that is not whole");
    assert_eq!((sound.next_seq, &again[..]), (seq, &records[..sound.bytes]));
    // What is behind it does not count, and cutting it changes nothing.
    assert_eq!(sound_part(head, &records.slice(..sound.bytes)), sound);
}
