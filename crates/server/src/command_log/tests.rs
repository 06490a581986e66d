//! A log written, killed, taken over, read.

use super::*;
use crate::command_log::{LogError, Position, purge};

fn pieces(text: &str) -> Vec<Entry> {
    let data = Bytes::copy_from_slice(text.as_bytes());
    vec![Entry::Output(LogStream::Stdout, data)]
}

fn limits(log_bytes_max: u64, segment_bytes_max: u64) -> LogLimits {
    LogLimits {
        log_bytes_max,
        segment_bytes_max,
    }
}

fn generous() -> LogLimits {
    limits(u64::MAX, SEGMENT_BYTES_MAX)
}

fn read(
    files: &LogFiles,
    index: &LogIndex,
    position: &mut Position,
) -> Result<Vec<Record>, LogError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let reading = crate::command_log::read(files, index, position, |records| records);
    Ok(runtime.block_on(reading)?.unwrap_or_default())
}

/// Everything that can be read behind `after`.
fn read_all(files: &LogFiles, index: &LogIndex, after: Option<u64>) -> Vec<Record> {
    let mut position = Position::after(after, index);
    let mut all = Vec::new();
    loop {
        let some = read(files, index, &mut position).unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

fn text(records: &[Record]) -> String {
    let bytes: Vec<u8> = records.iter().flat_map(|r| r.data.to_vec()).collect();
    String::from_utf8(bytes).unwrap()
}

fn in_order(records: &[Record], first: u64) -> bool {
    (first..)
        .zip(records)
        .all(|(seq, record)| record.seq == seq)
}

#[test]
fn what_is_written_is_read_also_by_those_who_only_see_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let files = LogFiles::new(directory.path(), "0abcdef");
    let mut writer = LogWriter::create(files.clone(), limits(u64::MAX, 1_000));
    assert!(read_all(&files, &writer.log().index(), None).is_empty());
    let mut want = String::new();
    for number in 0..200 {
        let line = format!("line {number}\n");
        want += &line;
        writer.append(&pieces(&line), number + 1).unwrap();
    }
    let live = writer.log().index();
    assert!(live.segments.len() > 5, "{live:?}");
    let records = read_all(&files, &live, None);
    assert!(in_order(&records, 1) && text(&records) == want);
    for after in [0, 1, 57, 199, 200, 5_000] {
        let rest = read_all(&files, &live, Some(after));
        assert_eq!(
            rest,
            records[records.len().min(usize::try_from(after).unwrap())..]
        );
    }
    writer.close();
    assert_eq!(read_all(&files, &files.index().unwrap(), None), records);
}

#[test]
fn characters_and_order_survive_the_cuts() {
    let directory = tempfile::tempdir().unwrap();
    let files = LogFiles::new(directory.path(), "x");
    let mut writer = LogWriter::create(files.clone(), generous());
    let euros = "€".repeat(100_000);
    let both = [
        Entry::Output(LogStream::Stdout, Bytes::from(euros)),
        Entry::Output(LogStream::Stderr, Bytes::from_static(b"err")),
        Entry::Output(LogStream::Stdout, Bytes::new()),
        Entry::Output(LogStream::Stdout, Bytes::from_static(b"\xff\x80")),
    ];
    writer.append(&both, 3).unwrap();
    let index = writer.log().index();
    let records = read_all(&files, &index, None);
    let streams: Vec<_> = records.iter().map(|record| record.stream).collect();
    let (last, before) = streams.split_last().unwrap();
    assert_eq!(
        (*last, before.last()),
        (LogStream::Stdout, Some(&LogStream::Stderr))
    );
    for record in &records[..records.len() - 1] {
        assert!(record.data.len() <= CHUNK_BYTES_MAX);
        std::str::from_utf8(&record.data).unwrap();
    }
    let totals = index.totals();
    assert_eq!((totals.stdout, totals.stderr), (300_002, 3));
}

#[test]
fn a_killed_writer_is_followed_by_one_that_repeats_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let files = LogFiles::new(directory.path(), "y");
    let mut writer = LogWriter::create(files.clone(), generous());
    writer.append(&pieces("first "), 4).unwrap();
    writer.append(&pieces("second "), 6).unwrap();
    let whole = writer.end().unwrap();
    writer.append(&pieces(&"third ".repeat(50_000)), 9).unwrap();
    let path = files.path(1);
    let all = std::fs::read(&path).unwrap();
    for cut in [whole, whole + 1, whole + 70_000, all.len() as u64 - 1] {
        std::fs::write(&path, &all[..usize::try_from(cut).unwrap()]).unwrap();
        let mut next = LogWriter::reopen(files.clone(), generous()).unwrap();
        assert_eq!(next.handled(), 6, "cut at {cut}");
        next.append(&pieces("third again"), 9).unwrap();
        let index = next.log().index();
        let records = read_all(&files, &index, None);
        assert!(in_order(&records, 1));
        assert_eq!(text(&records), "first second third again");
        assert_eq!(index.totals().stdout, 24);
    }
    let last = LogWriter::reopen(files, generous()).unwrap();
    assert_eq!((last.handled(), last.log().index().next_seq), (9, 4));
}

#[test]
fn a_writer_killed_between_two_segments_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let files = LogFiles::new(directory.path(), "z");
    let mut writer = LogWriter::create(files.clone(), limits(u64::MAX, 10));
    writer.append(&pieces("one"), 1).unwrap();
    writer.append(&pieces("two"), 2).unwrap();
    // The head of the second was never finished.
    std::fs::write(files.path(2), b"CNEST").unwrap();
    let mut next = LogWriter::reopen(files.clone(), generous()).unwrap();
    assert_eq!(next.handled(), 1);
    next.append(&pieces("two"), 2).unwrap();
    let records = read_all(&files, &next.log().index(), None);
    assert_eq!((text(&records), records.len()), ("onetwo".to_owned(), 2));
    let unknown = LogFiles::new(directory.path(), "never");
    let fresh = LogWriter::reopen(unknown, generous()).unwrap();
    assert_eq!((fresh.handled(), fresh.log().index().next_seq), (0, 1));
}

#[test]
fn the_oldest_go_above_the_limit_and_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let files = LogFiles::new(directory.path(), "big");
    let mut writer = LogWriter::create(files.clone(), limits(10_000, 2_000));
    let line = "x".repeat(500);
    for number in 1..=100 {
        writer.append(&pieces(&line), number).unwrap();
    }
    let index = writer.log().index();
    let on_disk: u64 = files
        .numbers()
        .unwrap()
        .iter()
        .map(|number| std::fs::metadata(files.path(*number)).unwrap().len())
        .sum();
    assert!(on_disk <= 13_000, "{on_disk}");
    let records = read_all(&files, &index, None);
    assert!(in_order(&records, index.first_seq()) && index.first_seq() > 50);
    let kept: u64 = records.iter().map(|record| record.data.len() as u64).sum();
    assert_eq!(kept + index.omitted_bytes(), 50_000);
    let mut early = Position::after(Some(3), &index);
    let refused = read(&files, &index, &mut early);
    assert!(
        matches!(refused, Err(LogError::Gap { first_seq }) if first_seq == index.first_seq()),
        "{refused:?}"
    );
    // A reader that the writer overtakes.
    let mut slow = Position::after(None, &index);
    read(&files, &index, &mut slow).unwrap();
    for number in 101..=200 {
        writer.append(&pieces(&line), number).unwrap();
    }
    let later = writer.log().index();
    for stale in [&index, &later] {
        let overtaken = read(&files, stale, &mut slow);
        assert!(
            matches!(overtaken, Err(LogError::Gap { .. })),
            "{overtaken:?}"
        );
    }
    let taken_over = LogWriter::reopen(files, limits(10_000, 2_000)).unwrap();
    assert_eq!(
        taken_over.log().index().omitted_bytes(),
        later.omitted_bytes()
    );
}

#[test]
fn events_stand_between_output_whatever_their_length_and_count_as_none() {
    let directory = tempfile::tempdir().unwrap();
    let files = LogFiles::new(directory.path(), "0abcdef");
    let mut writer = LogWriter::create(files.clone(), limits(u64::MAX, 300_000));
    let long = Bytes::from(vec![b'x'; 3 * CHUNK_BYTES_MAX + 1]);
    let entries = [
        Entry::Output(LogStream::Stdout, Bytes::from_static(b"one")),
        Entry::Event(long.clone()),
        Entry::Event(Bytes::new()),
        Entry::Output(LogStream::Stderr, Bytes::from_static(b"two")),
    ];
    for handled in 1..=3 {
        writer.append(&entries, handled).unwrap();
    }
    drop(writer);
    let writer = LogWriter::reopen(files.clone(), generous()).unwrap();
    let index = writer.log().index();
    assert_eq!((writer.handled(), index.totals().printed()), (3, 18));
    assert!(index.segments.len() > 1);
    let records = read_all(&files, &index, None);
    assert!(in_order(&records, 1));
    for third in records.chunks(7) {
        let parts: Vec<_> = third
            .iter()
            .map(|record| record.event.map(|part| (part.begins, part.ends)))
            .collect();
        let (first, middle, last) = ((true, false), (false, false), (false, true));
        let long_parts = [first, middle, middle, last].map(Some);
        let [None, four @ .., Some((true, true)), None] = &parts[..] else {
            panic!("{parts:?}")
        };
        assert_eq!(four, long_parts);
        assert_eq!(text(&third[1..5]).len(), long.len());
        assert_eq!(third[6].stream, LogStream::Stderr);
    }
    files.remove().unwrap();
    files.remove().unwrap();
    assert!(files.index().unwrap().segments.is_empty());
}

#[test]
fn old_segments_are_removed_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let old = LogFiles::new(directory.path(), "old");
    let fresh = LogFiles::new(directory.path(), "fresh");
    for files in [&old, &fresh] {
        let mut writer = LogWriter::create(files.clone(), generous());
        writer.append(&pieces("x"), 1).unwrap();
    }
    let hour = Duration::from_secs(3_600);
    let now = std::time::SystemTime::now();
    File::options()
        .write(true)
        .open(old.path(1))
        .unwrap()
        .set_modified(now - 2 * hour)
        .unwrap();
    assert_eq!(purge(directory.path(), now - hour).unwrap(), 1);
    assert_eq!(old.index().unwrap().dropped_bytes(), None);
    assert_eq!(fresh.index().unwrap().dropped_bytes(), Some(0));
    assert_eq!(purge(&directory.path().join("none"), now).unwrap(), 0);
}

#[test]
fn what_the_disk_refuses_is_counted_and_the_rest_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let files = LogFiles::new(directory.path(), "full");
    let mut writer = LogWriter::create(files.clone(), generous());
    writer.append(&pieces("kept"), 1).unwrap();
    writer.omit(&pieces("lost!"));
    writer.append(&pieces("more"), 3).unwrap();
    let index = writer.log().index();
    assert_eq!(text(&read_all(&files, &index, None)), "keptmore");
    assert_eq!((index.omitted_bytes(), index.totals().stdout), (5, 13));
}
