//! Framing of execd's streams: each event is one line of bare JSON and an empty line, under the
//! content type of server-sent events. There is no `data:`.
//!
//! Clients drop an event without `timestamp`, and some read lines of a few MiB at most.

use crate::error::ApiError;
use crate::host::{Bundle, BundleEntry, BundleValue, Omitted, RunEvent};
use crate::runs::Words;
use crate::sse;
use crownest_api::Timestamp;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::json;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// A stream that has nothing to say says so this often.
pub(super) const PING_EVERY: Duration = Duration::from_secs(3);
/// Text of one event. Escaped it may be six times as long.
pub(super) const TEXT_BYTES_MAX: usize = 128 * 1024;
/// Representations of one result together: the Go client reads lines of at most 4 MiB.
const RESULT_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Under which a result says what it leaves out.
const OMITTED_MIME: &str = "application/vnd.crownest.omitted+json";

fn now() -> i64 {
    Timestamp::now().as_millis()
}

pub(super) fn push_text(kind: &str, text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + text.len() / 16 + 80);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"text\":\"");
    sse::push_escaped(text.as_bytes(), out);
    out.extend_from_slice(format!("\",\"timestamp\":{}}}\n\n", now()).as_bytes());
}

/// What every stream begins with: an id, and a sign of life.
pub(super) fn beginning(id: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_text("init", id, &mut out);
    push_text("ping", "pong", &mut out);
    out
}

pub(super) fn ping() -> Vec<u8> {
    let mut out = Vec::new();
    push_text("ping", "pong", &mut out);
    out
}

/// A piece of a stream as it was printed, in as many events as it takes.
pub(super) fn push_raw(kind: &str, mut text: &str, out: &mut Vec<u8>) {
    while !text.is_empty() {
        let (piece, rest) = text.split_at(text.floor_char_boundary(TEXT_BYTES_MAX));
        push_text(kind, piece, out);
        text = rest;
    }
}

/// One line of a stream, without its end. A line feed stands for an empty one, since clients skip
/// events without text.
pub(super) fn push_line(kind: &str, line: &str, out: &mut Vec<u8>) {
    push_text(kind, if line.is_empty() { "\n" } else { line }, out);
}

/// The last event of a success.
pub(super) fn push_complete(millis: u64, out: &mut Vec<u8>) {
    let event = format!(
        "{{\"type\":\"execution_complete\",\"execution_time\":{millis},\"timestamp\":{}}}\n\n",
        now()
    );
    out.extend_from_slice(event.as_bytes());
}

pub(super) fn push_count(count: u64, out: &mut Vec<u8>) {
    let event = format!(
        "{{\"type\":\"execution_count\",\"execution_count\":{count},\"timestamp\":{}}}\n\n",
        now()
    );
    out.extend_from_slice(event.as_bytes());
}

/// The last event of a failure.
pub(super) fn push_error(name: &str, value: &str, traceback: &[String], out: &mut Vec<u8>) {
    let error = json!({ "ename": name, "evalue": value, "traceback": traceback });
    push_value("error", "error", &error, out);
}

/// What a stream ends with that could not be carried on.
pub(super) fn push_failure(error: &ApiError, out: &mut Vec<u8>) {
    let failure = json!({ "code": "RUNTIME_ERROR", "message": error.message });
    out.extend_from_slice(failure.to_string().as_bytes());
    out.extend_from_slice(b"\n\n");
}

fn push_value<T: Serialize>(kind: &str, key: &str, value: &T, out: &mut Vec<u8>) {
    let begin = out.len();
    let head = format!("{{\"type\":\"{kind}\",\"timestamp\":{},\"{key}\":", now());
    out.extend_from_slice(head.as_bytes());
    if let Err(error) = sse::push_json(value, out) {
        tracing::error!(%error, kind, "an event could not be serialized");
        out.truncate(begin);
        return;
    }
    out.extend_from_slice(b"}\n\n");
}

/// The representations of one value: `text/plain` is called `text`.
struct Results<'a> {
    entries: Vec<(&'a str, &'a BundleValue)>,
    /// In place of a text that is too long.
    text: Option<String>,
    omitted: Vec<Omitted>,
}

impl<'a> Results<'a> {
    fn of(bundle: &'a Bundle) -> Self {
        let mut results = Self {
            entries: Vec::new(),
            text: None,
            omitted: bundle.omitted.clone(),
        };
        let mut room = RESULT_BYTES_MAX;
        let plain = |entry: &&BundleEntry| entry.mime == "text/plain";
        let (first, rest) = (bundle.entries.iter().filter(plain), &bundle.entries);
        // The text first: it is what every client shows.
        for entry in first.chain(rest.iter().filter(|entry| !plain(entry))) {
            let bytes = match &entry.value {
                BundleValue::Text(text) => text.len(),
                BundleValue::Json(json) => json.get().len(),
            };
            match (&entry.value, room.checked_sub(bytes)) {
                (value, Some(left)) => {
                    room = left;
                    let name = if plain(&entry) { "text" } else { &entry.mime };
                    results.entries.push((name, value));
                }
                (BundleValue::Text(text), None) if plain(&entry) => {
                    let (kept, lost) = text.split_at(text.floor_char_boundary(TEXT_BYTES_MAX));
                    room -= kept.len();
                    results.text = Some(format!("{kept}… ({} bytes left out)", lost.len()));
                }
                (_, None) => results.omitted.push(Omitted {
                    mime: entry.mime.clone(),
                    bytes: bytes as u64,
                }),
            }
        }
        results
    }
}

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(text) = &self.text {
            map.serialize_entry("text", text)?;
        }
        for (name, value) in &self.entries {
            match value {
                BundleValue::Text(text) => map.serialize_entry(name, text)?,
                BundleValue::Json(json) => map.serialize_entry(name, json)?,
            }
        }
        if !self.omitted.is_empty() {
            let omitted = self.omitted.iter();
            let omitted: Vec<_> = omitted
                .map(|one| json!({ "mime": one.mime, "bytes": one.bytes }))
                .collect();
            map.serialize_entry(OMITTED_MIME, &omitted)?;
        }
        map.end()
    }
}

/// A run of code in these words.
#[derive(Debug, Default)]
pub(super) struct CodeWords {
    raised: Mutex<Option<(String, String)>>,
}

impl CodeWords {
    /// What the interpreter has raised last: name and message.
    pub(super) fn raised(&self) -> MutexGuard<'_, Option<(String, String)>> {
        self.raised.lock().expect("no panic while it is held")
    }
}

impl Words for CodeWords {
    fn event(&self, event: &RunEvent, frames: &mut Vec<u8>) {
        match event {
            RunEvent::Stdout(bytes) => push_raw("stdout", &String::from_utf8_lossy(bytes), frames),
            RunEvent::Stderr(bytes) => push_raw("stderr", &String::from_utf8_lossy(bytes), frames),
            RunEvent::Result(bundle) | RunEvent::Display { bundle, .. } => {
                push_value("result", "results", &Results::of(bundle), frames);
            }
            RunEvent::Notice { message, .. } => push_text("status", message, frames),
            RunEvent::Error { name, message, .. } => {
                *self.raised() = Some((name.clone(), message.clone()));
            }
            RunEvent::Clear { .. }
            | RunEvent::Input { .. }
            | RunEvent::Answer(_)
            | RunEvent::Done(_) => {}
        }
    }

    fn sign_of_life(&self) -> (Duration, Vec<u8>) {
        (PING_EVERY, ping())
    }
}
