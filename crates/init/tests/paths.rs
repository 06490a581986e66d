//! Hostile paths: what file operations cannot be made to do.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::link::{CallErrorCode, FILE_BYTES_MAX, FileKind, Request, Within};
use sandbox::file::{at_root, list, mkdir, read, remove, rename, start, stat, stat_of, with};
use sandbox::write;

#[test]
fn links_do_not_lead_out() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.shell_to_end(
        1,
        "ln -s /etc/passwd l; ln -s /etc d; ln -s / r; ln -s ../etc/passwd up; \
        ln -s loop loop; ln -s nowhere dangling; mkdir in; echo in > in/f; ln -s in alias; \
        ln -s /workspace/in/f file; ln -s /tmp/out out; ln -s /proc/self/root p",
    );
    let outside = CallErrorCode::PathOutsideWorkspace;
    for path in [
        "l",
        "d",
        "d/passwd",
        "r/etc/passwd",
        "up",
        "alias/../../etc/passwd",
        "in/../../etc",
        "/etc/passwd",
        "../etc/passwd",
        "/workspace/../etc/passwd",
        "r",
        "d/../etc/passwd",
    ] {
        assert_eq!(client.refused(stat(path), b""), outside, "stat {path}");
        assert_eq!(client.refused(read(path), b""), outside, "read {path}");
        assert_eq!(client.refused(list(path), b""), outside, "list {path}");
    }
    for path in [
        "d/x",
        "r/tmp/x",
        "l",
        "up",
        "r/workspace/../tmp/x",
        "alias/../../tmp/x",
    ] {
        assert_eq!(client.refused(write(path), b"x"), outside, "write {path}");
        assert_eq!(
            client.refused(with(write(path), true, true), b"x"),
            outside,
            "write {path}"
        );
    }
    for path in ["d/x", "r/tmp/x", "r/tmp"] {
        assert_eq!(
            client.refused(mkdir(path, false), b""),
            outside,
            "mkdir {path}"
        );
        assert_eq!(
            client.refused(rename("in", path, true), b""),
            outside,
            "move to {path}"
        );
        assert_eq!(
            client.refused(rename(path, "z", true), b""),
            outside,
            "move from {path}"
        );
        assert_eq!(client.refused(remove(path), b""), outside, "remove {path}");
    }
    for path in ["/workspace", "/workspace/", ".", "in/.."] {
        assert!(
            matches!(
                client.refused(remove(path), b""),
                CallErrorCode::PathOutsideWorkspace | CallErrorCode::Invalid
            ),
            "{path}"
        );
    }
    assert_eq!(client.refused(stat("loop"), b""), CallErrorCode::Invalid);
    assert_eq!(
        client.refused(stat("dangling"), b""),
        CallErrorCode::FileNotFound
    );
    assert_eq!(
        client.refused(write("dangling"), b"x"),
        CallErrorCode::FileNotFound
    );
    assert_eq!(
        client.refused(write("out"), b"x"),
        CallErrorCode::FileNotFound
    );
    assert_eq!(
        client.refused(read("p/etc/passwd"), b""),
        CallErrorCode::Invalid
    );
    // Links that stay inside are followed, and the answer names the real place.
    assert_eq!(
        stat_of(&mut client, stat("alias/f")).path,
        "/workspace/in/f"
    );
    client.write("file", b"through").unwrap();
    assert_eq!(client.call(read("in/f")).unwrap().body, b"through");
    assert_eq!(
        client.shell_to_end(2, "readlink file").out(),
        "/workspace/in/f\n"
    );
    let entries = client.call(list("alias")).unwrap().reply.entries.unwrap();
    assert_eq!(entries[0].stat.path, "/workspace/in/f");
    // A link itself can be moved and removed; what it points to stays.
    client.call(rename("l", "l2", false)).unwrap();
    client.call(remove("l2")).unwrap();
    client.call(remove("d")).unwrap();
    assert_eq!(
        client.shell_to_end(3, "head -c 4 /etc/passwd").out(),
        "root"
    );
}

#[test]
fn a_directory_that_is_swapped_for_a_link_leads_nowhere() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.shell_to_end(1, "mkdir /tmp/target a");
    client.shell(
        2,
        "while [ ! -e stop ]; do mv a b; ln -s /tmp/target a; rm a; mv b a; done",
        None,
    );
    client.ignored = Some(2);
    for _ in 0..2000 {
        // Either outcome is fine; what is written outside is not.
        let _ = client.write("a/f", b"x");
        let _ = client.call(mkdir("a/new/dir", true));
        let _ = client.call(remove("a/f"));
    }
    client.write("stop", b"").unwrap();
    assert_eq!(client.shell_to_end(3, "ls -A /tmp/target").out(), "");
}

#[test]
fn only_regular_files_are_opened() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.shell_to_end(
        1,
        "mkfifo fifo; mkdir dir; python3 -c \"import socket; \
        socket.socket(socket.AF_UNIX).bind('sock')\"; echo x > f",
    );
    for path in ["fifo", "sock"] {
        assert_eq!(
            client.refused(read(path), b""),
            CallErrorCode::PathNotRegular,
            "{path}"
        );
        assert_eq!(
            client.refused(write(path), b"x"),
            CallErrorCode::PathNotRegular,
            "{path}"
        );
        assert_eq!(
            client.refused(list(path), b""),
            CallErrorCode::PathNotDirectory,
            "{path}"
        );
        assert_eq!(stat_of(&mut client, stat(path)).kind, FileKind::Other);
    }
    assert_eq!(
        client.refused(read("dir"), b""),
        CallErrorCode::PathIsDirectory
    );
    assert_eq!(
        client.refused(write("dir"), b"x"),
        CallErrorCode::PathIsDirectory
    );
    assert_eq!(
        client.refused(write("dir/"), b"x"),
        CallErrorCode::PathIsDirectory
    );
    assert_eq!(
        client.refused(write("f/x"), b"x"),
        CallErrorCode::PathNotDirectory
    );
    assert_eq!(
        client.refused(with(write("f/x/y"), true, true), b"x"),
        CallErrorCode::PathNotDirectory
    );
    assert_eq!(
        client.refused(read("f/x"), b""),
        CallErrorCode::PathNotDirectory
    );
    for path in ["/dev/zero", "/dev/null", "/dev/tty"] {
        assert_eq!(
            client.refused(at_root(read(path)), b""),
            CallErrorCode::PathNotRegular,
            "{path}"
        );
        assert_eq!(
            client.refused(at_root(write(path)), b""),
            CallErrorCode::PathNotRegular,
            "{path}"
        );
    }
}

#[test]
fn the_whole_root_is_seen_with_the_users_rights() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    assert!(
        client
            .call(at_root(read("/etc/passwd")))
            .unwrap()
            .body
            .starts_with(b"root:")
    );
    let denied = CallErrorCode::PermissionDenied;
    assert_eq!(client.refused(at_root(read("/etc/shadow")), b""), denied);
    assert_eq!(client.refused(at_root(write("/etc/new")), b"x"), denied);
    assert_eq!(client.refused(at_root(write("/etc/passwd")), b"x"), denied);
    assert_eq!(client.refused(at_root(remove("/etc/passwd")), b""), denied);
    client.shell_to_end(
        1,
        "mkdir closed; echo x > closed/f; chmod 0 closed; echo y > shut; chmod 0 shut",
    );
    assert_eq!(client.refused(read("closed/f"), b""), denied);
    assert_eq!(client.refused(list("closed"), b""), denied);
    assert_eq!(client.refused(read("shut"), b""), denied);
    client.call_with(at_root(write("/tmp/t")), b"t").unwrap();
    let stat = stat_of(&mut client, at_root(stat("/tmp/t")));
    assert_eq!((stat.uid, stat.gid), (1000, 1000));
    for path in [
        "/proc/self/environ",
        "/proc/1/environ",
        "/proc/1/maps",
        "/proc/self/fd/3",
        "/proc",
        "/proc/self/root/etc/passwd",
        "/proc/cpuinfo",
        "/proc/self/cwd",
        "/proc/1/exe",
    ] {
        assert_eq!(
            client.refused(at_root(read(path)), b""),
            CallErrorCode::Invalid,
            "{path}"
        );
    }
    assert_eq!(
        client.refused(at_root(list("/proc")), b""),
        CallErrorCode::Invalid
    );
    let entries = client
        .call(at_root(list("/")))
        .unwrap()
        .reply
        .entries
        .unwrap();
    assert!(entries.iter().any(|entry| entry.name == "workspace"));
    // Init is itself again: a process started now is still set up as it should be.
    assert_eq!(
        client
            .shell_to_end(9, "id -u; cat /proc/self/oom_score_adj")
            .out(),
        "1000\n500\n"
    );
}

#[test]
fn impossible_paths_and_sizes_are_refused() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let long = "x".repeat(5000);
    let deep = vec!["d"; 1000].join("/");
    let name = "n".repeat(300);
    for path in ["", "a\0b", long.as_str(), deep.as_str()] {
        for request in [
            stat(path),
            read(path),
            list(path),
            write(path),
            mkdir(path, true),
            remove(path),
        ] {
            assert_eq!(
                client.refused(request.clone(), b""),
                CallErrorCode::Invalid,
                "{request:?}"
            );
        }
    }
    assert_eq!(client.refused(write(&name), b"x"), CallErrorCode::Invalid);
    assert_eq!(
        client.refused(mkdir("..", true), b""),
        CallErrorCode::PathOutsideWorkspace
    );
    let mut largest = vec![7; FILE_BYTES_MAX];
    client.write("big", &largest).unwrap();
    assert!(client.call(read("big")).unwrap().body == largest);
    largest.push(7);
    assert_eq!(
        client.refused(write("big"), &largest),
        CallErrorCode::FileTooLarge
    );
    let request = Request::FileRead {
        path: "big".into(),
        within: Within::Workspace,
        offset: 0,
        length: u64::MAX,
    };
    assert_eq!(client.refused(request, b""), CallErrorCode::FileTooLarge);
    // A file that claims to be huge costs what is asked for, not what it claims.
    client.shell_to_end(1, "truncate -s 4T sparse");
    let request = Request::FileRead {
        path: "sparse".into(),
        within: Within::Workspace,
        offset: 1 << 40,
        length: 100,
    };
    assert_eq!(client.call(request).unwrap().body, [0; 100]);
    // A mode cannot carry set-user-id.
    let Request::FileWrite {
        path,
        within,
        overwrite,
        parents,
        ..
    } = write("suid")
    else {
        panic!()
    };
    let request = Request::FileWrite {
        path,
        within,
        overwrite,
        parents,
        mode: 0o7755,
    };
    assert_eq!(
        client
            .call_with(request, b"")
            .unwrap()
            .reply
            .stat
            .unwrap()
            .mode,
        0o755
    );
}
