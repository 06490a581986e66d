//! The server writing a stream of events from text and JSON of tenant code.
//!
//! Whatever goes in: a client that reads as the standard says, and one that takes every line end
//! of Unicode for one, each get one event with the same JSON out.

#![no_main]

use crownest_fuzz::{event_stream, event_stream_of_any_lines};
use crownest_server::fuzzing::sse_event;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde_json::value::RawValue;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let json = event(&text);
    assert_eq!(
        serde_json::from_str::<String>(&json).ok().as_deref(),
        Some(&*text)
    );
    // JSON of a driver is passed on as text: only its line ends may change.
    if let Ok(raw) = RawValue::from_string(text.into_owned()) {
        let (sent, got) = (raw.get(), event(&raw));
        let again = serde_json::from_str::<&RawValue>(&got);
        assert!(again.is_ok(), "{sent:?} became {got:?}");
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
        assert_eq!(value(sent), value(&got));
        // Inside of something else, as outputs are.
        event(&("output", [&raw]));
    }
});

/// The data of the one event that both kinds of clients read.
fn event<T: Serialize>(data: &T) -> String {
    let stream = sse_event("stdout", data);
    let text = std::str::from_utf8(&stream).expect("a stream is UTF-8");
    let mut events = event_stream(text);
    assert_eq!(events, event_stream_of_any_lines(text), "{text:?}");
    let (name, data) = events.pop().expect("an event");
    assert!(name == "stdout" && events.is_empty(), "{text:?}");
    data
}
