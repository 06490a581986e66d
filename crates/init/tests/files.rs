//! File operations: what they do.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::link::{CallErrorCode, FileKind, LIST_ENTRIES_MAX, Request, Within};
use sandbox::file::{list, mkdir, read, remove, rename, start, stat, stat_of, with};
use sandbox::write;

#[test]
fn write_read_list_move_remove() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let written = client.write("a.txt", b"hello").unwrap().reply.stat.unwrap();
    assert_eq!(
        (written.path.as_str(), written.size, written.kind),
        ("/workspace/a.txt", 5, FileKind::File)
    );
    assert_eq!(
        (written.uid, written.gid, written.mode),
        (1000, 1000, 0o644)
    );
    assert_eq!(
        client.call(read("/workspace/a.txt")).unwrap().body,
        b"hello"
    );
    let part = Request::FileRead {
        path: "a.txt".into(),
        within: Within::Workspace,
        offset: 1,
        length: 3,
    };
    assert_eq!(client.call(part).unwrap().body, b"ell");
    let past = Request::FileRead {
        path: "a.txt".into(),
        within: Within::Workspace,
        offset: 1 << 40,
        length: 3,
    };
    assert_eq!(client.call(past).unwrap().body, b"");
    let far = Request::FileRead {
        path: "a.txt".into(),
        within: Within::Workspace,
        offset: u64::MAX,
        length: 3,
    };
    assert_eq!(client.refused(far, b""), CallErrorCode::Invalid);
    // An existing file keeps its mode and is never half written.
    client.shell_to_end(1, "chmod 750 a.txt");
    client.write("a.txt", b"new").unwrap();
    assert_eq!(stat_of(&mut client, stat("a.txt")).mode, 0o750);
    assert_eq!(
        client.refused(with(write("a.txt"), false, false), b"x"),
        CallErrorCode::FileExists
    );
    assert_eq!(
        client.refused(write("no/a.txt"), b"x"),
        CallErrorCode::ParentNotFound
    );
    client
        .call_with(with(write("deep/er/b.txt"), true, true), b"b")
        .unwrap();
    client.call(mkdir("empty", false)).unwrap();
    assert_eq!(
        client.refused(mkdir("empty", false), b""),
        CallErrorCode::FileExists
    );
    client.call(mkdir("empty", true)).unwrap();
    assert_eq!(
        client.refused(mkdir("x/y", false), b""),
        CallErrorCode::ParentNotFound
    );
    client.call(mkdir("x/y/z", true)).unwrap();
    assert_eq!(
        client.refused(mkdir("a.txt", true), b""),
        CallErrorCode::FileExists
    );
    let entries = client.call(list(".")).unwrap().reply.entries.unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["a.txt", "deep", "empty", "x"]);
    assert_eq!(entries[1].stat.kind, FileKind::Directory);
    assert_eq!(entries[0].stat.path, "/workspace/a.txt");
    client.call(rename("a.txt", "deep/a2.txt", false)).unwrap();
    assert_eq!(
        client.refused(stat("a.txt"), b""),
        CallErrorCode::FileNotFound
    );
    assert_eq!(
        client.refused(rename("deep/a2.txt", "deep/er/b.txt", false), b""),
        CallErrorCode::FileExists
    );
    client
        .call(rename("deep/a2.txt", "deep/er/b.txt", true))
        .unwrap();
    assert_eq!(client.call(read("deep/er/b.txt")).unwrap().body, b"new");
    assert_eq!(
        client.refused(rename("nope", "n2", true), b""),
        CallErrorCode::FileNotFound
    );
    assert_eq!(
        client.refused(rename("deep", "no/deep", true), b""),
        CallErrorCode::ParentNotFound
    );
    assert_eq!(
        client.refused(rename("deep", "deep/er/in", true), b""),
        CallErrorCode::Invalid
    );
    assert_eq!(
        client.refused(remove("deep"), b""),
        CallErrorCode::DirectoryNotEmpty
    );
    client.call(remove("empty")).unwrap();
    client.call(remove("deep/er/b.txt")).unwrap();
    assert_eq!(
        client.refused(remove("deep/er/b.txt"), b""),
        CallErrorCode::FileNotFound
    );
    assert_eq!(
        client.refused(remove("no/such"), b""),
        CallErrorCode::FileNotFound
    );
    let said = client.shell_to_end(2, "find . -name '.crownest*'");
    assert_eq!(said.out(), "");
}

#[test]
fn a_listing_has_a_limit() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let script = format!(
        "mkdir many; cd many; seq -f 'a-rather-long-name-%.0f' {LIST_ENTRIES_MAX} | xargs touch"
    );
    client.shell_to_end(1, &script);
    let entries = client.call(list("many")).unwrap().reply.entries.unwrap();
    assert_eq!(entries.len(), LIST_ENTRIES_MAX);
    assert!(entries.windows(2).all(|pair| pair[0].name < pair[1].name));
    client.write("many/one-more", b"").unwrap();
    assert_eq!(client.refused(list("many"), b""), CallErrorCode::TooMany);
    // Bytes that are no text are shown as well as they can be.
    client.shell_to_end(2, "mkdir odd; touch odd/$'\\xff' odd/$'a\\nb'");
    let entries = client.call(list("odd")).unwrap().reply.entries.unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (entries[0].name.as_str(), entries[1].name.as_str()),
        ("a\nb", "\u{fffd}")
    );
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_behind() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    // The whole root of this sandbox is one small tmpfs.
    let said = client.shell_to_end(
        1,
        "df --output=avail -B1 . | tail -1; df --output=fstype . | tail -1",
    );
    let mut lines = said.out();
    lines.truncate(200);
    let room: u64 = lines.lines().next().unwrap().trim().parse().unwrap();
    assert!(lines.contains("tmpfs"), "{lines}");
    client.write("keep", b"old").unwrap();
    client.shell_to_end(
        2,
        &format!(
            "fallocate -l {} filler || true",
            room.saturating_sub(1 << 20)
        ),
    );
    let body = vec![1; 4 << 20];
    assert_eq!(client.refused(write("keep"), &body), CallErrorCode::NoSpace);
    assert_eq!(client.call(read("keep")).unwrap().body, b"old");
    assert_eq!(client.shell_to_end(3, "rm filler; ls -A").out(), "keep\n");
}
