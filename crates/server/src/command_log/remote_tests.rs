//! Segments on their way into an object store, killed between any two steps.

use super::remote::Note;
use super::segment::Record;
use super::*;
use crate::objects::{Objects, ObjectsConfig};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A log of three segments, the last one open.
struct Place {
    directory: tempfile::TempDir,
    remote: Arc<Remote>,
    files: LogFiles,
    writer: LogWriter,
}

fn objects(directory: &Path) -> Arc<Objects> {
    let config = ObjectsConfig::Directory(directory.join("objects"));
    Arc::new(Objects::open(&config, "node_1").unwrap())
}

fn limits(log_bytes_max: u64) -> LogLimits {
    LogLimits {
        log_bytes_max,
        segment_bytes_max: 200,
    }
}

fn place(log_bytes_max: u64) -> Place {
    let directory = tempfile::tempdir().unwrap();
    let remote = Arc::new(Remote::new(objects(directory.path()), "node_1"));
    let files = LogFiles::new(directory.path(), "0abc").with_remote(Some(&remote));
    let mut writer = LogWriter::create(files.clone(), limits(log_bytes_max));
    for number in 1..=3 {
        append(&mut writer, number);
    }
    Place {
        directory,
        remote,
        files,
        writer,
    }
}

/// One record, which fills a segment.
fn append(writer: &mut LogWriter, number: u64) {
    let data = Bytes::from(format!("{number}").repeat(200));
    let entry = Entry::Output(LogStream::Stdout, data);
    writer.append(&[entry], number).unwrap();
}

async fn read_all(files: &LogFiles, index: &LogIndex) -> Result<Vec<Record>, LogError> {
    let mut position = Position::after(None, index);
    let mut all = Vec::new();
    while let Some(some) = read(files, index, &mut position, |records| records).await? {
        all.extend(some);
    }
    Ok(all)
}

async fn whole(files: &LogFiles, index: &LogIndex) {
    let records = read_all(files, index).await.unwrap();
    let first = index.first_seq();
    assert!(
        (first..)
            .zip(&records)
            .all(|(seq, record)| record.seq == seq)
    );
    for record in &records {
        assert_eq!(record.data, record.seq.to_string().repeat(200).as_bytes());
    }
    assert_eq!(records.len() as u64 + first, 4);
}

/// As the mover does.
async fn settle(place: &Place, number: u32) {
    let log = Arc::clone(place.writer.log());
    for _ in 0..6 {
        match Remote::look(&place.files, number).unwrap() {
            Todo::Nothing => return,
            Todo::Send => {
                place.remote.send(&place.files, number).await.unwrap();
                Remote::settle(&place.files, number, Some(&log)).unwrap();
            }
            Todo::Remove => Remote::remove(&place.files, number).unwrap(),
            Todo::Delete => place.remote.delete(&place.files, number).await.unwrap(),
        }
    }
    panic!("segment {number} does not come to rest");
}

fn names(place: &Place) -> Vec<String> {
    let shard = place.files.directory();
    let files = std::fs::read_dir(shard).unwrap();
    let mut names: Vec<_> = files
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn sent(place: &Place) -> Vec<String> {
    let directory = place
        .directory
        .path()
        .join("objects/command-logs/node_1/0abc");
    let files = std::fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<_> = files
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_moved_is_read_by_those_who_knew_it_before_and_after() {
    let place = place(u64::MAX);
    let before = place.writer.log().index();
    for number in [1, 2] {
        let announced = place.remote.announced().await;
        assert!(matches!(announced, Announced::Segment(_, n) if n == number));
        settle(&place, number).await;
    }
    assert_eq!(
        names(&place),
        ["0abc.000001.away", "0abc.000002.away", "0abc.000003"]
    );
    assert_eq!(sent(&place), ["000001", "000002"]);
    whole(&place.files, &before).await;
    whole(&place.files, &place.writer.log().index()).await;
    whole(&place.files, &place.files.index().unwrap()).await;
    let again = LogWriter::reopen(place.files.clone(), limits(u64::MAX)).unwrap();
    assert_eq!(again.handled(), 3);
    whole(&place.files, &again.log().index()).await;
    // A server that has no such store begins behind it, and says so.
    let without = LogFiles::new(place.directory.path(), "0abc");
    let index = without.index().unwrap();
    assert_eq!((index.first_seq(), index.dropped_bytes()), (3, Some(400)));
    whole(&without, &index).await;
}

#[tokio::test]
async fn whatever_a_kill_leaves_comes_to_the_same_end() {
    // Sent and not noted; noted and not removed; noted as being sent, and not sent.
    for kill in 0..3 {
        let place = place(u64::MAX);
        let here = std::fs::read(place.files.path(1)).unwrap();
        place.remote.send(&place.files, 1).await.unwrap();
        if kill == 1 {
            Remote::settle(&place.files, 1, None).unwrap();
        }
        if kill == 2 {
            let object = place
                .directory
                .path()
                .join("objects/command-logs/node_1/0abc/000001");
            std::fs::remove_file(object).unwrap();
        }
        assert!(names(&place).len() == 4 && std::fs::read(place.files.path(1)).unwrap() == here);
        let next = LogWriter::reopen(place.files.clone(), limits(u64::MAX)).unwrap();
        whole(&place.files, &next.log().index()).await;
        let next = Place {
            writer: next,
            ..place
        };
        settle(&next, 1).await;
        assert_eq!(
            names(&next),
            ["0abc.000001.away", "0abc.000002", "0abc.000003"]
        );
        assert_eq!(sent(&next), ["000001"]);
        whole(&next.files, &next.writer.log().index()).await;
    }
}

#[tokio::test]
async fn what_is_dropped_leaves_nothing_there_whenever_it_is_dropped() {
    // Before it is sent, while it is being sent, after.
    for moment in 0..3 {
        let mut place = place(700);
        if moment == 1 {
            place.remote.send(&place.files, 1).await.unwrap();
        }
        if moment == 2 {
            settle(&place, 1).await;
        }
        let early = place.writer.log().index();
        append(&mut place.writer, 4);
        let index = place.writer.log().index();
        assert_eq!((index.first_seq(), index.omitted_bytes()), (2, 200));
        if moment == 1 {
            let log = Arc::clone(place.writer.log());
            Remote::settle(&place.files, 1, Some(&log)).unwrap();
        }
        settle(&place, 1).await;
        let gap = read_all(&place.files, &early).await;
        assert!(matches!(gap, Err(LogError::Gap { .. })), "{gap:?}");
        let left = ["0abc.000002", "0abc.000003", "0abc.000004"];
        assert_eq!(names(&place), left, "dropped at {moment}");
        assert!(sent(&place).is_empty());
        let next = LogWriter::reopen(place.files.clone(), limits(700)).unwrap();
        assert_eq!(next.log().index().first_seq(), 2);
    }
}

#[tokio::test]
async fn retention_reaches_what_is_away() {
    let place = place(u64::MAX);
    let hour = Duration::from_secs(3_600);
    let now = SystemTime::now();
    for number in [1, 2] {
        let file = std::fs::File::options()
            .write(true)
            .open(place.files.path(number));
        file.unwrap().set_modified(now - 3 * hour).unwrap();
        settle(&place, number).await;
    }
    assert_eq!(purge(place.directory.path(), now - hour).unwrap(), 2);
    let index = place.files.index().unwrap();
    assert_eq!((index.first_seq(), index.dropped_bytes()), (3, Some(400)));
    assert_eq!(
        sent(&place),
        ["000001", "000002"],
        "their notes lead to them"
    );
    let shard = shards(place.directory.path()).unwrap();
    let found: Vec<_> = shard
        .iter()
        .flat_map(|shard| unsettled(shard, now - hour).unwrap())
        .collect();
    assert_eq!((found.len(), &found[0].numbers), (1, &vec![1, 2]));
    for number in [1, 2] {
        settle(&place, number).await;
    }
    assert!(sent(&place).is_empty() && names(&place) == ["0abc.000003"]);
    assert_eq!(purge(place.directory.path(), now - hour).unwrap(), 0);
}

#[tokio::test]
async fn the_last_segment_is_told_apart() {
    let mut place = place(u64::MAX);
    place.writer.close();
    settle(&place, 1).await;
    let later = SystemTime::now() + Duration::from_secs(1);
    let found = unsettled(place.files.directory(), later).unwrap();
    assert_eq!(
        (&found[0].numbers, found[0].quiet_last),
        (&vec![2], Some(3))
    );
    let earlier = SystemTime::now() - Duration::from_secs(3_600);
    let found = unsettled(place.files.directory(), earlier).unwrap();
    assert_eq!(found[0].quiet_last, None);
    for number in [2, 3] {
        settle(&place, number).await;
    }
    assert!(
        unsettled(place.files.directory(), later)
            .unwrap()
            .is_empty()
    );
    whole(&place.files, &place.files.index().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_the_directory_misses_none_that_moves() {
    const SEGMENTS: u64 = 3_000;
    let mut place = place(u64::MAX);
    for number in 4..=SEGMENTS {
        append(&mut place.writer, number);
    }
    let files = place.files.clone();
    let moved = tokio::spawn(async move {
        for number in 1..u32::try_from(SEGMENTS).unwrap() {
            settle(&place, number).await;
        }
        place
    });
    let mut looks = 0;
    while !moved.is_finished() {
        let index = files.index().unwrap();
        assert_eq!(index.segments.len() as u64, SEGMENTS, "at look {looks}");
        looks += 1;
    }
    assert!(looks > 10, "{looks}");
    moved.await.unwrap();
}

#[tokio::test]
async fn what_is_lost_or_damaged_is_not_passed_over() {
    let place = place(u64::MAX);
    settle(&place, 1).await;
    let index = place.files.index().unwrap();
    let object = place
        .directory
        .path()
        .join("objects/command-logs/node_1/0abc/000001");
    let all = std::fs::read(&object).unwrap();
    std::fs::write(&object, &all[..all.len() - 1]).unwrap();
    assert!(read_all(&place.files, &index).await.is_err());
    std::fs::remove_file(&object).unwrap();
    let lost = read_all(&place.files, &index).await;
    assert!(matches!(lost, Err(LogError::Objects(_))), "{lost:?}");
    let note = place.files.note(1, Note::Away);
    let mut bytes = std::fs::read(&note).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&note, bytes).unwrap();
    assert!(place.files.index().is_err());
}
