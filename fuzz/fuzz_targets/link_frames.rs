//! The framing between server and init, read on both sides; init reading the server's calls and
//! the paths in them, which are a client's words.

#![no_main]

use crownest_fuzz::{halves, pieces, records};
use crownest_init::frame::{BODY_BYTES_MAX, Decoder, Frame, HEAD_BYTES_MAX, encode};
use crownest_init::link::{Call, Event, Request, Within};
use crownest_init::path::{DEPTH_MAX, PATH_BYTES_MAX, absolute, inside, without_dots};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

fuzz_target!(|data: &[u8]| {
    let Some((cut, rest)) = data.split_first() else {
        return;
    };
    let length = usize::from(*cut);
    // As it is: lengths are hostile.
    let at_once = cut_out(&[rest]);
    assert_eq!(at_once, cut_out(&pieces(rest, length)));
    let mut wire = Vec::new();
    for frame in &at_once.0 {
        encode(&frame.head, &frame.body, &mut wire);
    }
    assert!(rest.starts_with(&wire), "frames are what was said");
    // As frames that somebody meant.
    let meant: Vec<_> = records(rest)
        .map(halves)
        .filter(|(head, _)| !head.is_empty())
        .collect();
    let mut wire = Vec::new();
    for (head, body) in &meant {
        encode(head, body, &mut wire);
        message::<Event>(head);
        if let Some(call) = message::<Call>(head) {
            paths(&call.request);
        }
    }
    let (frames, broken) = cut_out(&pieces(&wire, length));
    assert!(!broken && frames.len() == meant.len());
    for (frame, (head, body)) in frames.iter().zip(meant) {
        assert_eq!((&frame.head[..], &frame.body[..]), (head, body));
    }
});

fn cut_out(parts: &[&[u8]]) -> (Vec<Frame>, bool) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for part in parts {
        decoder.push(part);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    assert!((1..=HEAD_BYTES_MAX).contains(&frame.head.len()));
                    assert!(frame.body.len() <= BODY_BYTES_MAX);
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

/// A message that is understood means the same when it is said again.
fn message<T: DeserializeOwned + Serialize + PartialEq + Debug>(head: &[u8]) -> Option<T> {
    let message: T = serde_json::from_slice(head).ok()?;
    let again = serde_json::to_vec(&message).expect("it has only string keys");
    assert_eq!(
        serde_json::from_slice::<T>(&again).ok().as_ref(),
        Some(&message)
    );
    Some(message)
}

fn paths(request: &Request) {
    match request {
        Request::FileStat { path, within, .. }
        | Request::FileList { path, within, .. }
        | Request::FileRead { path, within, .. }
        | Request::FileWrite { path, within, .. }
        | Request::FileMkdir { path, within, .. }
        | Request::FileRemove { path, within }
        | Request::FileRemoveTree { path, within }
        | Request::FileChange { path, within, .. }
        | Request::FileOpen { path, within }
        | Request::UploadBegin { path, within, .. } => judged(path, *within),
        Request::FileMove {
            from, to, within, ..
        } => {
            judged(from, *within);
            judged(to, *within);
        }
        _ => {}
    }
}

/// What passes by its text alone is absolute, short, and in the workspace where it has to be.
fn judged(path: &str, within: Within) {
    let Ok(absolute) = absolute(path, within) else {
        return;
    };
    assert!(absolute.is_absolute() && absolute.as_os_str().len() < PATH_BYTES_MAX);
    assert!(absolute.components().count() <= DEPTH_MAX);
    assert!(!absolute.to_string_lossy().contains('\0'));
    assert!(
        within == Within::Root || inside(&without_dots(&absolute)),
        "{path:?}"
    );
}
