//! Files that come in pieces, and files that are handed out whole.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::link::{CallErrorCode, Request, UPLOAD_PIECE_BYTES_MAX, UPLOADS_MAX, Within};
use sandbox::Client;
use sandbox::file::{read, start};
use std::io::Read;

fn begin(upload: u64, path: &str) -> Request {
    Request::UploadBegin {
        upload,
        path: path.into(),
        within: Within::Workspace,
        overwrite: true,
        parents: false,
        mode: 0o644,
        mode_always: false,
    }
}

fn piece(upload: u64, offset: u64) -> Request {
    Request::UploadPiece { upload, offset }
}

fn commit(upload: u64) -> Request {
    Request::UploadCommit { upload }
}

fn hidden(client: &mut Client, exec: u64) -> String {
    client.shell_to_end(exec, "find . -name '.crownest*'").out()
}

#[test]
fn pieces_become_a_file_when_it_is_committed() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.write("f", b"before").unwrap();
    client.shell_to_end(1, "chmod 750 f");
    client.call(begin(7, "f")).unwrap();
    let body = vec![b'x'; UPLOAD_PIECE_BYTES_MAX];
    client.call_with(piece(7, 0), &body).unwrap();
    assert_eq!(client.call(read("f")).unwrap().body, b"before");
    let offset = body.len() as u64;
    client.call_with(piece(7, offset), b"end").unwrap();
    let stat = client.call(commit(7)).unwrap().reply.stat.unwrap();
    assert_eq!((stat.size, stat.mode), (body.len() as u64 + 3, 0o750));
    assert!(client.call(read("f")).unwrap().body.ends_with(b"xend"));
    assert_eq!(hidden(&mut client, 2), "");
    // It is over.
    assert_eq!(client.refused(commit(7), b""), CallErrorCode::Invalid);
    assert_eq!(client.refused(piece(7, 0), b"x"), CallErrorCode::Invalid);
    client.call(Request::UploadAbort { upload: 7 }).unwrap();
}

#[test]
fn what_is_not_committed_leaves_nothing() {
    let Some((sandbox, mut client)) = start() else {
        return;
    };
    for upload in 1..=2 {
        client.call(begin(upload, "f")).unwrap();
        client.call_with(piece(upload, 0), b"half").unwrap();
    }
    assert_ne!(hidden(&mut client, 1), "");
    client.call(Request::UploadAbort { upload: 1 }).unwrap();
    // Out of order: taken back at once.
    assert_eq!(client.refused(piece(2, 3), b"x"), CallErrorCode::Invalid);
    assert_eq!(hidden(&mut client, 2), "");
    client.call(begin(3, "f")).unwrap();
    client.call_with(piece(3, 0), b"half").unwrap();
    // Another connection ends the first, and with it its uploads.
    let mut second = sandbox.connect();
    second.hello();
    assert_eq!(hidden(&mut second, 3), "");
    assert_eq!(second.refused(commit(3), b""), CallErrorCode::Invalid);
}

#[test]
fn uploads_are_refused_like_writes_and_limited() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.shell_to_end(1, "mkdir d; mkfifo p; ln -s /etc out");
    for (path, code) in [
        ("/etc/passwd", CallErrorCode::PathOutsideWorkspace),
        ("out/passwd", CallErrorCode::PathOutsideWorkspace),
        ("no/f", CallErrorCode::ParentNotFound),
        ("d", CallErrorCode::PathIsDirectory),
        ("d/", CallErrorCode::PathIsDirectory),
        ("p", CallErrorCode::PathNotRegular),
        ("", CallErrorCode::Invalid),
    ] {
        assert_eq!(client.refused(begin(1, path), b""), code, "{path}");
    }
    for upload in 0..UPLOADS_MAX as u64 {
        client.call(begin(upload, "f")).unwrap();
    }
    assert_eq!(client.refused(begin(99, "f"), b""), CallErrorCode::TooMany);
    assert_eq!(client.refused(begin(0, "f"), b""), CallErrorCode::TooMany);
}

#[test]
fn a_directory_that_was_moved_away_is_not_written_to() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.shell_to_end(1, "mkdir d");
    client.call(begin(1, "d/f")).unwrap();
    client.call_with(piece(1, 0), b"x").unwrap();
    let moved = client.shell_to_end(2, "mv d /tmp/d && ls -A /tmp/d");
    assert!(moved.out().starts_with(".crownest"), "it is elsewhere now");
    assert_eq!(
        client.refused(commit(1), b""),
        CallErrorCode::PathOutsideWorkspace
    );
    assert_eq!(client.shell_to_end(3, "ls -A /tmp/d").out(), "");
}

#[test]
fn an_open_file_stays_the_same() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let open = |path: &str| Request::FileOpen {
        path: path.into(),
        within: Within::Workspace,
    };
    client.write("f", b"content").unwrap();
    let mut answer = client.call(open("f")).unwrap();
    assert_eq!(answer.reply.stat.unwrap().size, 7);
    let file = answer.fds.pop().expect("the file comes with the answer");
    client.shell_to_end(1, "rm f; ln -s /etc/passwd f; mkdir d; mkfifo p");
    let mut text = String::new();
    std::fs::File::from(file).read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    for (path, code) in [
        ("f", CallErrorCode::PathOutsideWorkspace),
        ("d", CallErrorCode::PathIsDirectory),
        ("p", CallErrorCode::PathNotRegular),
        ("none", CallErrorCode::FileNotFound),
    ] {
        assert_eq!(client.refused(open(path), b""), code, "{path}");
    }
}
