//! Entries of an archive: what they become, and what tenant code cannot make of them.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::link::{CallErrorCode, Request};
use crownest_init::unpack::{ENTRIES_MAX, Entry, EntryKind, Finish};
use sandbox::Client;
use sandbox::file::{read, start, stat, stat_of};

fn unpack(entries: &[Entry]) -> Request {
    Request::FileUnpack {
        entries: entries.to_vec(),
    }
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    let path = path.to_owned();
    Entry { path, kind }
}

fn directory(path: &str, mode: u32) -> Entry {
    entry(path, EntryKind::Directory { mode })
}

fn symlink(path: &str, target: &str) -> Entry {
    let target = target.to_owned();
    entry(path, EntryKind::Symlink { target })
}

fn hard_link(path: &str, target: &str) -> Entry {
    let target = target.to_owned();
    entry(path, EntryKind::HardLink { target })
}

fn file(path: &str, length: u64, mode: u32) -> Entry {
    let last = Some(Finish {
        mode,
        modified_s: 1_000_000,
    });
    let kind = EntryKind::File {
        offset: 0,
        length,
        last,
    };
    entry(path, kind)
}

fn content(client: &mut Client, path: &str) -> Vec<u8> {
    client.call(read(path)).unwrap().body
}

#[test]
fn entries_become_what_they_say() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let entries = [
        directory("closed", 0o555),
        file("closed/a", 5, 0o4751),
        file("deep/er/b", 0, 0o400),
        symlink("deep/link", "../closed/a"),
        hard_link("hard", "closed/a"),
        file("closed/a", 3, 0o644),
        entry(
            "pieces",
            EntryKind::File {
                offset: 0,
                length: 2,
                last: None,
            },
        ),
        entry(
            "pieces",
            EntryKind::File {
                offset: 2,
                length: 2,
                last: Some(Finish {
                    mode: 0o444,
                    modified_s: 0,
                }),
            },
        ),
    ];
    client.call_with(unpack(&entries), b"hellonew1234").unwrap();
    assert_eq!(content(&mut client, "closed/a"), b"new");
    assert_eq!(content(&mut client, "hard"), b"hello");
    assert_eq!(content(&mut client, "deep/link"), b"new");
    assert_eq!(content(&mut client, "pieces"), b"1234");
    let hard = stat_of(&mut client, stat("hard"));
    // No bit beyond the nine, whatever was asked for.
    assert_eq!((hard.mode, hard.uid, hard.gid), (0o751, 1000, 1000));
    assert_eq!(hard.modified_ms, 1_000_000_000);
    assert_eq!(stat_of(&mut client, stat("closed")).mode, 0o755);
    assert_eq!(stat_of(&mut client, stat("deep/er/b")).mode, 0o400);
    // The same again: what is there is replaced.
    client.call_with(unpack(&entries), b"hellonew1234").unwrap();
    assert_eq!(content(&mut client, "hard"), b"hello");
}

#[test]
fn nothing_on_the_way_is_followed() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let prepare = "ln -s /tmp out; ln -s . here; mkdir d; ln -s /tmp/x d/name; mkfifo pipe; echo mine > /tmp/x";
    client.shell_to_end(1, prepare);
    for (path, code) in [
        ("out/x", CallErrorCode::Invalid),
        ("here/x", CallErrorCode::Invalid),
        ("../x", CallErrorCode::Invalid),
        ("/tmp/x", CallErrorCode::Invalid),
        ("a//b", CallErrorCode::Invalid),
        ("", CallErrorCode::Invalid),
        ("a\0b", CallErrorCode::Invalid),
        ("d", CallErrorCode::PathIsDirectory),
        ("pipe/x", CallErrorCode::PathNotDirectory),
    ] {
        let refused = client.refused(unpack(&[file(path, 1, 0o644)]), b"x");
        assert_eq!(refused, code, "{path}");
    }
    // A link or pipe in the place of a file goes, and what it led to stays.
    let entries = [file("d/name", 1, 0o644), file("pipe", 1, 0o644)];
    client.call_with(unpack(&entries), b"ab").unwrap();
    assert_eq!(content(&mut client, "d/name"), b"a");
    assert_eq!(content(&mut client, "pipe"), b"b");
    client.shell_to_end(2, "cp /tmp/x kept");
    assert_eq!(content(&mut client, "kept"), b"mine\n");
    for (link, code) in [
        (hard_link("h", "out"), CallErrorCode::PathNotRegular),
        (hard_link("h", "here/d/name"), CallErrorCode::Invalid),
        (hard_link("h", "../tmp/x"), CallErrorCode::Invalid),
        (hard_link("h", "none"), CallErrorCode::FileNotFound),
        (symlink("d", "x"), CallErrorCode::PathIsDirectory),
        (directory("out", 0o755), CallErrorCode::PathNotDirectory),
        (directory("d/name", 0o755), CallErrorCode::PathNotDirectory),
    ] {
        let shown = format!("{link:?}");
        assert_eq!(client.refused(unpack(&[link]), b""), code, "{shown}");
    }
}

#[test]
fn the_body_has_to_fit_the_entries() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let invalid = CallErrorCode::Invalid;
    let one = unpack(&[file("f", 3, 0o644)]);
    assert_eq!(client.refused(one.clone(), b"ab"), invalid);
    assert_eq!(client.refused(one, b"abcd"), invalid);
    let huge = unpack(&[file("f", u64::MAX, 0o644)]);
    assert_eq!(client.refused(huge, b"ab"), invalid);
    let many = vec![directory("d", 0o755); ENTRIES_MAX + 1];
    assert_eq!(client.refused(unpack(&many), b""), invalid);
    client.call(unpack(&many[1..])).unwrap();
}
