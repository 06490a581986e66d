//! Init (pid 1 of a sandbox) reading what tenant code controls: frames of a driver, output that
//! may be cut anywhere, the line of a process in /proc.

#![no_main]

use crownest_fuzz::pieces;
use crownest_init::characters::complete_characters;
use crownest_init::kernel::{KERNEL_FRAME_BYTES_MAX, KernelDecoder, KernelDone, KernelEventHead};
use crownest_init::process::Process;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((cut, rest)) = data.split_first() else {
        return;
    };
    let parts = pieces(rest, usize::from(*cut));
    frames(rest, &parts);
    output(rest, &parts);
    process(rest);
    event(rest);
});

/// However the bytes are cut: the same frames, and the same end.
fn frames(whole: &[u8], parts: &[&[u8]]) {
    let at_once = cut_out(&[whole]);
    assert_eq!(at_once, cut_out(parts));
    let mut wire = Vec::new();
    for frame in &at_once.0 {
        assert!((1..=KERNEL_FRAME_BYTES_MAX).contains(&frame.len()));
        wire.extend_from_slice(&u32::try_from(frame.len()).expect("a length").to_be_bytes());
        wire.extend_from_slice(frame);
        event(frame);
    }
    assert!(whole.starts_with(&wire), "frames are what was said");
}

fn cut_out(parts: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = KernelDecoder::default();
    let mut frames = Vec::new();
    for part in parts {
        decoder.push(part);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

/// What is taken for an event is a JSON object; the server gets it as it is.
fn event(frame: &[u8]) {
    let Ok(head) = KernelEventHead::parse(frame) else {
        return;
    };
    let value: Result<serde_json::Value, _> = serde_json::from_slice(frame);
    // Init looks at two fields only: numbers that no float holds go past it.
    if let Ok(value) = value {
        assert_eq!(value["ev"].as_str(), Some(head.ev.as_str()));
        assert_eq!(
            value.get("run").and_then(serde_json::Value::as_u64),
            head.run
        );
    }
    let _ = KernelDone::parse(frame);
}

/// Output is cut between characters where there are any, and no byte is lost.
fn output(whole: &[u8], parts: &[&[u8]]) {
    let (mut sent, mut held) = (Vec::new(), Vec::new());
    for part in parts {
        held.extend_from_slice(part);
        let end = complete_characters(&held);
        assert!(held.len() - end <= 3, "at most three bytes wait");
        if std::str::from_utf8(whole).is_ok() {
            assert!(
                std::str::from_utf8(&held[..end]).is_ok(),
                "a character is cut"
            );
        }
        sent.extend(held.drain(..end));
    }
    sent.append(&mut held);
    assert_eq!(sent, whole);
}

/// The name that a program gives itself does not move the fields behind it.
fn process(name: &[u8]) {
    let _ = Process::parse(7, name);
    let stat = [b"7 (", name, b") T 1 22 33 0 -1 4194560"].concat();
    let process = Process::parse(7, &stat).expect("a line of the kernel's");
    assert_eq!(
        (process.state, process.group, process.session),
        (b'T', 22, 33)
    );
}
