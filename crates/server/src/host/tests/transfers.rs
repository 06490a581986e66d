//! Files of any size over a link that is lost, full, or hostile.

use super::peer::UPLOAD_ROOM_BYTES;
use super::{one, until};
use crate::host::{FileErrorKind, HostError, UploadSpec, Within};
use bytes::Bytes;
use crownest_init::link::{Request, UPLOAD_PIECE_BYTES_MAX};

const MIB: usize = 1024 * 1024;

fn upload() -> UploadSpec {
    UploadSpec {
        path: "/workspace/f".into(),
        within: Within::Workspace,
        overwrite: true,
        parents: false,
        mode: 0o644,
        mode_always: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_file_is_not_taken_for_one() {
    let (_spawner, _host, sandbox, _peer) = one().await;
    let (stat, _file) = sandbox.open("file", Within::Workspace).await.unwrap();
    assert_eq!(stat.size, 7, "what the kernel says, not what init says");
    for word in ["pipe", "proc", "two", "nothing"] {
        let refused = sandbox.open(word, Within::Workspace).await;
        assert!(matches!(refused, Err(HostError::Protocol(_))), "{word}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_are_sent_in_order_and_bounded() {
    let (_spawner, _host, sandbox, peer) = one().await;
    let mut sending = sandbox.upload(upload()).await.unwrap();
    let body = vec![1; 3 * MIB + 1];
    sending.push(Bytes::from(body.clone())).await.unwrap();
    sending.push(Bytes::from_static(b"end")).await.unwrap();
    assert_eq!(sending.sent_bytes(), body.len() as u64 + 3);
    sending.commit().await.unwrap();
    let offsets: Vec<u64> = peer
        .state()
        .requests
        .iter()
        .filter_map(|request| match request {
            Request::UploadPiece { offset, .. } => Some(*offset),
            _ => None,
        })
        .collect();
    let expected: Vec<u64> = (0..body.len() as u64)
        .step_by(UPLOAD_PIECE_BYTES_MAX)
        .chain([body.len() as u64])
        .collect();
    assert_eq!(offsets, expected);
    let aborted = |request: &Request| matches!(request, Request::UploadAbort { .. });
    assert!(!peer.state().requests.iter().any(aborted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_while_there_is_more_to_send() {
    let (_spawner, _host, sandbox, _peer) = one().await;
    let mut sending = sandbox.upload(upload()).await.unwrap();
    let mut outcome = Ok(());
    let mut pushed = 0;
    while outcome.is_ok() && pushed < 64 {
        outcome = sending.push(Bytes::from(vec![1; MIB])).await;
        pushed += 1;
    }
    let full = |error: &HostError| {
        matches!(
            error,
            HostError::File {
                kind: FileErrorKind::NoSpace,
                ..
            }
        )
    };
    assert!(outcome.as_ref().is_err_and(full), "{outcome:?}");
    let most = UPLOAD_ROOM_BYTES / MIB as u64 + 2;
    assert!(pushed <= most, "{pushed} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_is_taken_back_and_a_lost_link_ends_it() {
    let (_spawner, _host, sandbox, peer) = one().await;
    let mut sending = sandbox.upload(upload()).await.unwrap();
    sending.push(Bytes::from_static(b"half")).await.unwrap();
    drop(sending);
    let aborted = |request: &Request| matches!(request, Request::UploadAbort { .. });
    until("the upload is taken back", || {
        peer.state().requests.iter().any(aborted)
    })
    .await;

    let mut sending = sandbox.upload(upload()).await.unwrap();
    peer.cut();
    until("the link is back", || peer.state().connections == 2).await;
    let mut outcome = Ok(());
    for _ in 0..32 {
        outcome = sending.push(Bytes::from(vec![1; MIB])).await;
        if outcome.is_err() {
            break;
        }
    }
    assert!(
        matches!(outcome, Err(HostError::LinkLost)),
        "an upload does not move to another connection: {outcome:?}"
    );
}
