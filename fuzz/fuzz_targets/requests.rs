//! The server reading what a client sends beside HTTP itself: JSON bodies, queries, headers,
//! identifiers, cursors, points in time, messages of a terminal's WebSocket.

#![no_main]

use crownest_api::id::ID_BYTES_MAX;
use crownest_api::{IdKind, Timestamp};
use crownest_runtime::command::SandboxKey;
use crownest_server::fuzzing;
use crownest_store::Cursor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    match how {
        b'q' => fuzzing::query(rest),
        b'h'..=b'k' => fuzzing::header(how - b'h', rest),
        b't' | b'T' => fuzzing::terminal_message(*how == b't', rest),
        b'w' => words(rest),
        _ => fuzzing::body(how.wrapping_sub(b'0'), rest),
    }
});

/// Short texts with an alphabet of their own.
fn words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(suffix) = IdKind::Sandbox.suffix(text) {
        assert!(text.len() <= ID_BYTES_MAX && text == format!("sbx_{suffix}"));
        if let Some(key) = SandboxKey::new(suffix) {
            assert_eq!(key.as_str(), suffix);
        }
    }
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(cursor));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        assert_eq!(time.to_string().parse::<Timestamp>().ok(), Some(time));
    }
}
