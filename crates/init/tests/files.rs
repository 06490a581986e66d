//! File operations: what they do, and what hostile paths cannot make them do.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::link::{
    CallErrorCode, FILE_BYTES_MAX, FileKind, FileStat, LIST_ENTRIES_MAX, Request, Within,
};
use sandbox::{Client, Sandbox, write};

fn start() -> Option<(Sandbox, Client)> {
    let sandbox = Sandbox::start("none")?;
    let mut client = sandbox.connect();
    client.hello();
    Some((sandbox, client))
}

fn read(path: &str) -> Request {
    Request::FileRead {
        path: path.into(),
        within: Within::Workspace,
        offset: 0,
        length: FILE_BYTES_MAX as u64,
    }
}

fn stat(path: &str) -> Request {
    Request::FileStat {
        path: path.into(),
        within: Within::Workspace,
    }
}

fn list(path: &str) -> Request {
    Request::FileList {
        path: path.into(),
        within: Within::Workspace,
    }
}

fn mkdir(path: &str, parents: bool) -> Request {
    Request::FileMkdir {
        path: path.into(),
        within: Within::Workspace,
        parents,
    }
}

fn rename(from: &str, to: &str, overwrite: bool) -> Request {
    Request::FileMove {
        from: from.into(),
        to: to.into(),
        within: Within::Workspace,
        overwrite,
    }
}

fn remove(path: &str) -> Request {
    Request::FileRemove {
        path: path.into(),
        within: Within::Workspace,
    }
}

fn at_root(request: Request) -> Request {
    let within = Within::Root;
    match request {
        Request::FileRead {
            path,
            offset,
            length,
            ..
        } => Request::FileRead {
            path,
            within,
            offset,
            length,
        },
        Request::FileStat { path, .. } => Request::FileStat { path, within },
        Request::FileList { path, .. } => Request::FileList { path, within },
        Request::FileWrite {
            path,
            overwrite,
            parents,
            mode,
            ..
        } => Request::FileWrite {
            path,
            within,
            overwrite,
            parents,
            mode,
        },
        Request::FileRemove { path, .. } => Request::FileRemove { path, within },
        Request::FileMkdir { path, parents, .. } => Request::FileMkdir {
            path,
            within,
            parents,
        },
        other => other,
    }
}

fn with(request: Request, new_overwrite: bool, new_parents: bool) -> Request {
    let Request::FileWrite {
        path, within, mode, ..
    } = request
    else {
        panic!()
    };
    Request::FileWrite {
        path,
        within,
        overwrite: new_overwrite,
        parents: new_parents,
        mode,
    }
}

fn stat_of(client: &mut Client, request: Request) -> FileStat {
    client.call(request).unwrap().reply.stat.unwrap()
}

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
    let deep = "d/".repeat(1000) + "d";
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
