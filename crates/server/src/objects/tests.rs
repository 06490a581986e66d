//! The object store in a directory. S3: tests/api/test_api_object_store.py.

use super::*;
use futures_util::stream;

fn opened(directory: &Path) -> Objects {
    Objects::open(&ObjectsConfig::Directory(directory.to_owned()), "node_1").unwrap()
}

async fn read(objects: &Objects, key: &str, range: Option<Range<u64>>) -> Vec<u8> {
    let object = objects.get(key, range).await.unwrap();
    let pieces: Vec<Bytes> = object.bytes.try_collect().await.unwrap();
    pieces.concat()
}

fn files_below(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
        .sum()
}

#[tokio::test]
async fn room_for_everybody_else_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let mut objects = opened(directory.path());
    let local = objects.local.as_mut().unwrap();
    local.free_bytes_min = u64::MAX;
    let refused = objects.put_bytes("a", Bytes::from("abc")).await;
    assert!(matches!(refused, Err(ObjectsError::Full)), "{refused:?}");
    assert_eq!(files_below(directory.path()), 0);

    // The disk fills while a long object is on its way.
    let local = objects.local.as_mut().unwrap();
    let disk = rustix::fs::statvfs(&local.directory).unwrap();
    local.free_bytes_min = disk.f_bavail * disk.f_frsize - PART_BYTES as u64;
    let piece = Bytes::from(vec![1; PART_BYTES / 8]);
    let source = stream::iter((0..64).map(|_| Ok(piece.clone())));
    let cut = objects.put_stream("b", source, u64::MAX).await;
    assert!(matches!(cut, Err(ObjectsError::Full)), "{cut:?}");
    assert_eq!(files_below(directory.path()), 0);
}

#[tokio::test]
async fn objects_are_stored_read_listed_and_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let objects = opened(directory.path());
    let long: Vec<u8> = (0..=252).cycle().take(2 * PART_BYTES + 5).collect();
    let pieces = long.chunks(100_000).map(|c| Ok(Bytes::copy_from_slice(c)));
    let stored = objects
        .put_stream("a/long", stream::iter(pieces), long.len() as u64)
        .await
        .unwrap();
    assert_eq!(stored.size_bytes, long.len() as u64);
    let short = objects
        .put_bytes("a/short", Bytes::from("abc"))
        .await
        .unwrap();
    assert_eq!(
        short.sha256,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(read(&objects, "a/long", None).await, long);
    assert_eq!(read(&objects, "a/short", Some(1..3)).await, b"bc");
    let mut keys = objects.list("a", 10).await.unwrap();
    keys.sort();
    assert_eq!(keys, ["a/long", "a/short"]);

    objects
        .put_bytes("a/short", Bytes::from("new"))
        .await
        .unwrap();
    assert_eq!(read(&objects, "a/short", None).await, b"new");
    objects.delete("a/short").await.unwrap();
    objects.delete("a/short").await.unwrap();
    let gone = objects.get("a/short", None).await;
    assert!(matches!(gone, Err(ObjectsError::NotFound)), "{gone:?}");
    assert_eq!(files_below(directory.path()), 1);
}

#[tokio::test]
async fn what_fails_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let objects = opened(directory.path());
    let piece = || Ok(Bytes::from(vec![7; PART_BYTES]));
    let too_long = stream::iter([piece(), piece(), piece()]);
    let refused = objects.put_stream("a", too_long, 20_000_000).await;
    assert!(
        matches!(refused, Err(ObjectsError::TooLarge { .. })),
        "{refused:?}"
    );
    let broken = stream::iter([piece(), piece(), Err(io::Error::other("gone"))]);
    let refused = objects.put_stream("a", broken, u64::MAX).await;
    assert!(
        matches!(refused, Err(ObjectsError::Source(_))),
        "{refused:?}"
    );
    assert_eq!(files_below(directory.path()), 0);
}

#[tokio::test]
async fn a_start_removes_what_a_killed_server_left() {
    let directory = tempfile::tempdir().unwrap();
    for node in ["node_1", "node_2"] {
        let staging = directory.path().join(STAGING).join(node);
        std::fs::create_dir_all(&staging).unwrap();
        std::fs::write(staging.join("half"), b"half").unwrap();
    }
    opened(directory.path());
    assert_eq!(
        files_below(directory.path()),
        1,
        "the other node's is its own"
    );
}

#[test]
fn secrets_are_not_printed() {
    let config = ObjectsConfig::S3(S3Config {
        bucket: "b".into(),
        endpoint: None,
        region: "r".into(),
        access_key_id: "id".into(),
        secret_access_key: "hush".into(),
        path_style: true,
    });
    assert!(!format!("{config:?}").contains("hush"));
}
