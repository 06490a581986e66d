//! File operations anywhere in a sandbox: whole trees, modes, moves, paths with names in them.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::link::{
    CallErrorCode, EXPAND_PATHS_MAX, REMOVE_BATCH_ENTRIES_MAX, Request, Within,
};
use sandbox::Client;
use sandbox::file::{at_root, start, stat, stat_of};
use std::collections::BTreeMap;

fn remove_tree(path: &str) -> Request {
    Request::FileRemoveTree {
        path: path.into(),
        within: Within::Root,
    }
}

fn change(path: &str, mode: Option<u32>, uid: Option<u32>) -> Request {
    Request::FileChange {
        path: path.into(),
        within: Within::Root,
        mode,
        uid,
        gid: None,
    }
}

fn remove_all(client: &mut Client, path: &str) -> usize {
    let mut calls = 1;
    while client.call(remove_tree(path)).unwrap().reply.more {
        calls += 1;
    }
    calls
}

#[test]
fn a_tree_goes_in_batches_and_links_stay_links() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.shell_to_end(
        1,
        "mkdir -p /tmp/t/a/b /tmp/kept; touch /tmp/kept/x; ln -s /tmp/kept /tmp/t/a/b/link; \
         cd /tmp/t/a; for i in $(seq 1000); do echo > f$i; done",
    );
    let calls = remove_all(&mut client, "/tmp/t");
    assert!(calls >= 1_000 / REMOVE_BATCH_ENTRIES_MAX, "{calls}");
    let gone = client.refused(at_root(stat("/tmp/t")), b"");
    assert_eq!(gone, CallErrorCode::FileNotFound);
    assert_eq!(stat_of(&mut client, at_root(stat("/tmp/kept/x"))).size, 0);
    assert_eq!(
        client.refused(remove_tree("/tmp/t"), b""),
        CallErrorCode::FileNotFound
    );
}

#[test]
fn other_file_systems_are_not_entered() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    for path in ["/proc", "/", "/proc/1"] {
        let code = client.refused(remove_tree(path), b"");
        assert!(
            matches!(
                code,
                CallErrorCode::Invalid | CallErrorCode::PermissionDenied
            ),
            "{path}: {code:?}"
        );
    }
}

#[test]
fn modes_change_and_owners_do_not() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.write("f", b"").unwrap();
    let changed = client.call(change("/workspace/f", Some(0o4750), Some(1000)));
    assert_eq!(changed.unwrap().reply.stat.unwrap().mode, 0o4750);
    // Not even a part of it happens.
    let refused = client.refused(change("/workspace/f", Some(0o777), Some(0)), b"");
    assert_eq!(refused, CallErrorCode::PermissionDenied);
    assert_eq!(stat_of(&mut client, stat("f")).mode, 0o4750);
    let refused = client.refused(change("/etc/passwd", Some(0o777), None), b"");
    assert_eq!(refused, CallErrorCode::PermissionDenied);
    let refused = client.refused(change("/proc/self/oom_score_adj", Some(0o777), None), b"");
    assert_eq!(refused, CallErrorCode::Invalid);
}

#[test]
fn a_move_makes_parents_only_for_what_is_there() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let rename = |from: &str, to: &str| Request::FileMove {
        from: from.into(),
        to: to.into(),
        within: Within::Root,
        overwrite: true,
        parents: true,
    };
    client.write("f", b"x").unwrap();
    let missing = client.refused(rename("/workspace/g", "/workspace/new/g"), b"");
    assert_eq!(missing, CallErrorCode::FileNotFound);
    let nothing = client.refused(stat("new"), b"");
    assert_eq!(nothing, CallErrorCode::FileNotFound);
    client
        .call(rename("/workspace/f", "/workspace/new/deep/f"))
        .unwrap();
    assert_eq!(stat_of(&mut client, stat("new/deep/f")).size, 1);
}

#[test]
fn paths_know_the_environment() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let env = BTreeMap::from([("PLACE".to_owned(), "/tmp/p".to_owned())]);
    client.call(Request::Environment { env }).unwrap();
    let paths = ["~/x", "$PLACE/y", "/plain", "$NOTHING"].map(str::to_owned);
    let expand = |paths| Request::PathExpand { paths };
    let answer = client.call(expand(paths.to_vec())).unwrap();
    let expected = ["/home/user/x", "/tmp/p/y", "/plain", ""].map(str::to_owned);
    assert_eq!(answer.reply.paths.unwrap(), expected);
    let many = vec![String::new(); EXPAND_PATHS_MAX + 1];
    assert_eq!(client.refused(expand(many), b""), CallErrorCode::TooMany);
}
