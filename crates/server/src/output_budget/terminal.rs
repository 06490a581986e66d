//! Leaves out escape sequences of terminals (ECMA-48), wherever a piece of output was cut.
//!
//! A sequence that is never ended hides nothing for long: strings (titles, links, sixels) end at a
//! line feed or after [`STRING_BYTES_MAX`] at the latest, control sequences at the first byte that
//! cannot be part of one.

/// Longest string of a sequence; what follows is text again.
const STRING_BYTES_MAX: usize = 64 * 1024;
/// Longest control sequence.
const CONTROL_BYTES_MAX: usize = 256;

const ESC: char = '\u{1b}';
const BEL: char = '\u{7}';
/// One-character forms of what otherwise begins with ESC; two bytes each in UTF-8.
const C1: std::ops::RangeInclusive<char> = '\u{80}'..='\u{9f}';

/// What the bytes before have begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Text,
    /// ESC, and perhaps intermediates.
    Escape,
    /// ESC [ and what follows, up to its last byte; so many bytes of it.
    Control(usize),
    /// A string, up to ST or BEL; so many bytes of it.
    String(usize),
    /// ESC within a string: its end, if a backslash follows.
    StringEscape,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Terminal {
    state: State,
    stripped: u64,
}

impl Terminal {
    /// Bytes that were left out so far, those of a sequence that has not ended included.
    pub(super) fn stripped(&self) -> u64 {
        self.stripped
    }

    /// Appends what is text to `out`.
    pub(super) fn push(&mut self, text: &str, out: &mut String) {
        let mut rest = text;
        while !rest.is_empty() {
            if self.state == State::Text {
                let plain = plain_bytes(rest);
                out.push_str(&rest[..plain]);
                rest = &rest[plain..];
            }
            let mut chars = rest.chars();
            let Some(c) = chars.next() else { return };
            // False: it ended the sequence and is no part of it.
            if self.step(c) {
                self.stripped += c.len_utf8() as u64;
                rest = chars.as_str();
            }
        }
    }

    /// One character that may be part of a sequence. False when it has to be looked at again, as
    /// text.
    fn step(&mut self, c: char) -> bool {
        use State::{Control, Escape, String, StringEscape, Text};
        let (next, taken) = match (self.state, c) {
            (Text, ESC) => (Escape, true),
            (Text, c) => (Self::of_c1(c), true),
            // CAN and SUB end everything, and are part of what they end.
            (_, '\u{18}' | '\u{1a}') => (Text, true),
            (Escape | Control(_), ESC) => (Escape, true),
            (Escape, '[') => (Control(0), true),
            (Escape, ']' | 'P' | 'X' | '^' | '_') => (String(0), true),
            (Escape, ' '..='/') => (Escape, true),
            (Escape, '0'..='~') => (Text, true),
            (Control(_), '@'..='~') => (Text, true),
            (Control(length), ' '..='?') if length < CONTROL_BYTES_MAX => {
                (Control(length + 1), true)
            }
            (String(_) | StringEscape, BEL | '\u{9c}') | (StringEscape, '\\') => (Text, true),
            (String(_) | StringEscape, ESC) => (StringEscape, true),
            // Not the end after all, but something else that begins.
            (StringEscape, _) => (Escape, false),
            (String(length), c) if c != '\n' && length + c.len_utf8() <= STRING_BYTES_MAX => {
                (String(length + c.len_utf8()), true)
            }
            (Escape | Control(_) | String(_), _) => (Text, false),
        };
        self.state = next;
        taken
    }

    fn of_c1(c: char) -> State {
        match c {
            '\u{9b}' => State::Control(0),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => State::String(0),
            _ => State::Text,
        }
    }
}

/// Bytes at the start that begin no sequence. U+0085, a line end, is text.
fn plain_bytes(text: &str) -> usize {
    let begins = |c: char| c == ESC || (C1.contains(&c) && c != '\u{85}');
    // Most text has neither of the two bytes that such a character begins with.
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(at) = bytes[from..]
        .iter()
        .position(|byte| matches!(byte, 0x1b | 0xc2))
    {
        let at = from + at;
        if text[at..].chars().next().is_some_and(begins) {
            return at;
        }
        from = at + 1;
    }
    text.len()
}
