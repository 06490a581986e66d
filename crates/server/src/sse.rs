//! Framing of server-sent events, for clients that are stricter than the standard.
//!
//! Events end with exactly two line feeds. Everything that some client takes for a line break is
//! escaped inside the JSON: besides C0 controls (serde does those) U+0085, U+2028 and U+2029.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use crownest_api::Timestamp;
use futures_util::Stream;
use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};
use std::io::{self, Write};

/// A comment: keeps the connection alive, means nothing.
pub(crate) const HEARTBEAT: &[u8] = b": heartbeat\n\n";

/// Bytes of a text event beside its text, and some.
const EVENT_FRAME_BYTES: usize = 128;
/// Bytes that are looked at together.
const LANE_BYTES: usize = 32;

/// Appends one event. `name` is one of ours, without line breaks.
pub(crate) fn push_event<T: Serialize>(
    name: &str,
    data: &T,
    out: &mut Vec<u8>,
) -> serde_json::Result<()> {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    push_json(data, out)?;
    out.extend_from_slice(b"\n\n");
    Ok(())
}

/// Appends JSON without anything that ends a line.
pub(crate) fn push_json<T: Serialize>(data: &T, out: &mut Vec<u8>) -> serde_json::Result<()> {
    data.serialize(&mut Serializer::with_formatter(
        &mut *out,
        LineSafe(CompactFormatter),
    ))
}

/// As [`push_event`] for `{"type": name, "data": text}`, which is nearly all that a stream
/// carries: many times as fast, to the same bytes.
pub(crate) fn push_text_event(name: &str, text: &str, out: &mut Vec<u8>) {
    // A line feed takes two bytes, and lines have some length.
    out.reserve(text.len() + text.len() / 16 + EVENT_FRAME_BYTES);
    for part in [
        "event: ",
        name,
        "\ndata: {\"type\":\"",
        name,
        "\",\"data\":\"",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    push_escaped(text.as_bytes(), out);
    out.extend_from_slice(b"\"}\n\n");
}

/// As [`push_event`], with a number for those who go on by it.
pub(crate) fn push_numbered_event<T: Serialize>(
    seq: u64,
    name: &str,
    data: &T,
    out: &mut Vec<u8>,
) -> serde_json::Result<()> {
    out.extend_from_slice(format!("id: {seq}\n").as_bytes());
    push_event(name, data, out)
}

/// As [`push_numbered_event`] for output of a detached run: to the same bytes.
pub(crate) fn push_run_text_event(
    seq: u64,
    name: &str,
    text: &str,
    created_at: Timestamp,
    out: &mut Vec<u8>,
) {
    out.reserve(text.len() + text.len() / 16 + EVENT_FRAME_BYTES);
    let head =
        format!("id: {seq}\nevent: {name}\ndata: {{\"type\":\"{name}\",\"seq\":{seq},\"data\":\"");
    out.extend_from_slice(head.as_bytes());
    push_escaped(text.as_bytes(), out);
    out.extend_from_slice(format!("\",\"createdAt\":\"{created_at}\"}}\n\n").as_bytes());
}

/// As [`push_event`] for a `log` event of a command's stream, with its number for those who go on
/// by it: to the same bytes beside that.
pub(crate) fn push_log_event(
    seq: u64,
    stream: &str,
    text: &str,
    created_at: Timestamp,
    out: &mut Vec<u8>,
) {
    out.reserve(text.len() + text.len() / 16 + EVENT_FRAME_BYTES);
    let head = format!(
        "event: log\nid: {seq}\ndata: {{\"type\":\"log\",\"seq\":{seq},\"stream\":\"{stream}\",\"data\":\""
    );
    out.extend_from_slice(head.as_bytes());
    push_escaped(text.as_bytes(), out);
    out.extend_from_slice(format!("\",\"createdAt\":\"{created_at}\"}}\n\n").as_bytes());
}

/// Appends text as it stands inside a JSON string, without anything that ends a line.
pub(crate) fn push_escaped(mut text: &[u8], out: &mut Vec<u8>) {
    loop {
        let (plain, rest) = text.split_at(plain_bytes(text));
        out.extend_from_slice(plain);
        let (escaped, length): (&[u8], usize) = match rest {
            [] => return,
            [b'"', ..] => (b"\\\"", 1),
            [b'\\', ..] => (b"\\\\", 1),
            [b'\n', ..] => (b"\\n", 1),
            [b'\r', ..] => (b"\\r", 1),
            [b'\t', ..] => (b"\\t", 1),
            [0x08, ..] => (b"\\b", 1),
            [0x0c, ..] => (b"\\f", 1),
            [0xc2, 0x85, ..] => (b"\\u0085", 2),
            [0xe2, 0x80, 0xa8, ..] => (b"\\u2028", 3),
            [0xe2, 0x80, 0xa9, ..] => (b"\\u2029", 3),
            [control @ ..0x20, ..] => (&control_escape(*control), 1),
            // The start of a character that only looked like one of the three.
            [other, ..] => (std::slice::from_ref(other), 1),
        };
        out.extend_from_slice(escaped);
        text = &rest[length..];
    }
}

fn control_escape(byte: u8) -> [u8; 6] {
    let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    [b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 0xf)]
}

/// How many bytes at the start stand for themselves. Lanes of a fixed size, without a branch
/// inside, are what the compiler turns into a few instructions each.
fn plain_bytes(text: &[u8]) -> usize {
    let needs_a_look = |byte: &u8| {
        (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\') | (*byte == 0xc2) | (*byte == 0xe2)
    };
    let mut plain = 0;
    while let Some(lane) = text[plain..].first_chunk::<LANE_BYTES>() {
        let found = lane
            .iter()
            .fold(0, |found, byte| found | u8::from(needs_a_look(byte)));
        if found != 0 {
            break;
        }
        plain += LANE_BYTES;
    }
    let rest = text[plain..].iter().position(needs_a_look);
    rest.map_or(text.len(), |at| plain + at)
}

/// An answer that streams events.
pub(crate) fn response<S>(events: S) -> Response
where
    S: Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
{
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Reverse proxies that buffer would turn a stream into one late answer.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Compact JSON without any character that may be read as the end of a line.
struct LineSafe(CompactFormatter);

impl Formatter for LineSafe {
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        if text.is_ascii() {
            return out.write_all(text.as_bytes());
        }
        write_line_safe(out, text)
    }

    /// JSON that a driver wrote, as it wrote it: between its tokens there may be line breaks, and
    /// in its strings what serde would leave as it is.
    fn write_raw_fragment<W: Write + ?Sized>(&mut self, out: &mut W, json: &str) -> io::Result<()> {
        write_line_safe(out, json)
    }

    fn write_char_escape<W: Write + ?Sized>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        self.0.write_char_escape(out, escape)
    }
}

/// Writes a piece of JSON with every line break in it escaped. A line feed or carriage return is
/// none of a string's, where JSON forbids them, but of the space between tokens.
fn write_line_safe<W: Write + ?Sized>(out: &mut W, json: &str) -> io::Result<()> {
    let mut rest = json;
    while let Some(at) = rest.find(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
        out.write_all(&rest.as_bytes()[..at])?;
        let mut chars = rest[at..].chars();
        match chars.next().expect("find gave the position of a character") {
            '\n' | '\r' => out.write_all(b" ")?,
            found => write!(out, "\\u{:04x}", u32::from(found))?,
        }
        rest = chars.as_str();
    }
    out.write_all(rest.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crownest_api::code::RunStreamEvent;
    use proptest::prelude::*;

    fn event(text: &str) -> String {
        let mut out = Vec::new();
        push_event("stdout", &text, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_line_of_json_between_the_name_and_the_blank_line() {
        assert_eq!(event("a\n\"b"), "event: stdout\ndata: \"a\\n\\\"b\"\n\n");
        assert_eq!(
            event("x\u{85}y\u{2028}z\u{2029}é\r"),
            "event: stdout\ndata: \"x\\u0085y\\u2028z\\u2029é\\r\"\n\n"
        );
    }

    #[test]
    fn json_of_a_driver_stays_on_one_line() {
        let written = "{\"a\":\r\n[\"x\u{2028}\u{85}\",\n\n1]}";
        let raw = serde_json::value::RawValue::from_string(written.to_owned()).unwrap();
        let mut out = Vec::new();
        push_event("output", &raw, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "event: output\ndata: {\"a\":  [\"x\\u2028\\u0085\",  1]}\n\n"
        );
    }

    proptest! {
        /// The short way writes what the long one does.
        #[test]
        fn text_events_are_events(text in "\\PC*|[\\x00-\\x1f\u{80}-\u{9f}\u{b0}\u{2020}-\u{2030}\u{ffff}\"\\\\a-z\\r\\n]*") {
            let event = RunStreamEvent::Stdout(&text);
            let (mut long, mut short) = (Vec::new(), Vec::new());
            push_event("stdout", &event, &mut long).unwrap();
            push_text_event("stdout", &text, &mut short);
            prop_assert_eq!(String::from_utf8(short).unwrap(), String::from_utf8(long).unwrap());
        }

        /// What a client gets is what was sent, and nothing inside looks like a line break to a
        /// client that splits at every character that Unicode calls one.
        #[test]
        fn any_text_survives(text in "\\PC*|[\\x00-\\x1f\u{80}-\u{9f}\u{2020}-\u{2030}\\r\\n]*") {
            let event = event(&text);
            let json = event.strip_prefix("event: stdout\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
            let breaks = ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
            let broken = json.contains(breaks);
            prop_assert!(!broken);
            prop_assert_eq!(serde_json::from_str::<String>(json).unwrap(), text);
        }
    }
}
