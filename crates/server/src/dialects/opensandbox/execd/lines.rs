//! From the bytes that a program prints to one event per line.

use super::events::{push_line, push_text};
use crownest_init::characters::complete_characters;

/// Longest line of one event; a longer one is delivered in pieces. Escaped it stays below what the
/// Go client reads as one line, 4 MiB.
const LINE_BYTES_MAX: usize = 512 * 1024;

/// One stream of a program. A line feed, a carriage return or both end a line.
#[derive(Debug)]
pub(super) struct Lines {
    /// The type of its events.
    kind: &'static str,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// The last byte was a carriage return: a line feed belongs to it.
    after_return: bool,
}

impl Lines {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            partial: Vec::new(),
            after_return: false,
        }
    }

    /// Takes output and appends the events of the lines that are whole now.
    pub(super) fn push(&mut self, mut data: &[u8], out: &mut Vec<u8>) {
        if self.after_return && !data.is_empty() {
            self.after_return = false;
            data = data.strip_prefix(b"\n").unwrap_or(data);
        }
        while let Some(end) = data.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.grow(&data[..end], out);
            let line = std::mem::take(&mut self.partial);
            push_line(self.kind, &String::from_utf8_lossy(&line), out);
            let rest = &data[end + 1..];
            data = if data[end] == b'\r' {
                self.after_return = rest.is_empty();
                rest.strip_prefix(b"\n").unwrap_or(rest)
            } else {
                rest
            };
        }
        self.grow(data, out);
    }

    /// Adds to the line that is not whole; delivers of it what is too long to be kept.
    fn grow(&mut self, data: &[u8], out: &mut Vec<u8>) {
        self.partial.extend_from_slice(data);
        while self.partial.len() > LINE_BYTES_MAX {
            let piece = &self.partial[..LINE_BYTES_MAX];
            let end = match complete_characters(piece) {
                0 => LINE_BYTES_MAX,
                end => end,
            };
            push_text(self.kind, &String::from_utf8_lossy(&piece[..end]), out);
            self.partial.drain(..end);
        }
    }

    /// Appends the last line if it has no end.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.partial);
        if !line.is_empty() {
            push_line(self.kind, &String::from_utf8_lossy(&line), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::new("stdout"), Vec::new());
        for piece in pieces {
            lines.push(piece, &mut out);
        }
        lines.finish(&mut out);
        let out = String::from_utf8(out).unwrap();
        assert!(out.is_empty() || out.ends_with("\n\n"));
        let events = out.split_terminator("\n\n");
        events
            .map(|event| {
                let event: serde_json::Value = serde_json::from_str(event).unwrap();
                assert_eq!(event["type"], "stdout");
                event["text"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn every_end_of_a_line_ends_one() {
        assert_eq!(texts(&[b"a\nb\r\nc\rd"]), ["a", "b", "c", "d"]);
        assert_eq!(texts(&[b"a\r", b"\nb\r", b"\r\n"]), ["a", "b", "\n"]);
        assert_eq!(texts(&[b"\n\na", b"b\n"]), ["\n", "\n", "ab"]);
        assert!(texts(&[b""]).is_empty());
    }

    #[test]
    fn characters_are_put_together_again() {
        assert_eq!(texts(&[b"\xc3", b"\xa9\n"]), ["é"]);
        assert_eq!(texts(&[b"\xff\n"]), ["\u{fffd}"]);
        assert_eq!(texts(&["\u{2028}\n".as_bytes()]), ["\u{2028}"]);
    }

    #[test]
    fn a_line_without_an_end_is_not_held_for_ever() {
        let long = "é".repeat(LINE_BYTES_MAX);
        let got = texts(&[long.as_bytes(), b"\nx"]);
        assert_eq!(got[..got.len() - 1].concat(), long);
        assert!(got.iter().all(|text| text.len() <= LINE_BYTES_MAX));
    }
}
