//! Keeps the beginning and the end of a text that may be of any length.

use super::line_ends;
use crate::budget::Share;
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Room for the line that stands for what was left out, and the line feeds around it.
pub(super) const MARK_BYTES_MAX: usize = 128;

/// What was kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub text: String,
    pub omitted_bytes: u64,
    pub omitted_lines: u64,
    pub share: Share,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    bytes_max: usize,
    head_max: usize,
    tail_max: usize,
    head: String,
    /// No more goes into the head: what comes after would not follow it.
    head_is_full: bool,
    /// What follows the head, as far as it may still be shown.
    tail: VecDeque<u8>,
    omitted_bytes: u64,
    omitted_lines: u64,
    /// The tail begins with a line.
    cut_at_line_end: bool,
    share: Share,
}

impl Window {
    /// `head` and `tail` leave room for the mark.
    pub(super) fn new(bytes_max: usize, head: usize, tail: usize) -> Self {
        debug_assert!(head + tail + MARK_BYTES_MAX <= bytes_max);
        Self {
            bytes_max,
            head_max: head,
            tail_max: tail,
            head: String::new(),
            head_is_full: false,
            tail: VecDeque::new(),
            omitted_bytes: 0,
            omitted_lines: 0,
            cut_at_line_end: false,
            share: Share::default(),
        }
    }

    pub(super) fn has_omitted(&self) -> bool {
        self.omitted_bytes > 0
    }

    pub(super) fn push(&mut self, text: &str) {
        let mut rest = self.fill_head(text);
        // As long as nothing was left out, all of the budget may be used for it.
        let room = self.bytes_max - self.head.len();
        rest = self.make_room(rest, room);
        let wanted = self.head.len() + self.tail.len() + rest.len();
        let lacking = wanted.saturating_sub(self.share.bytes());
        if lacking > 0 && !self.share.take(lacking) {
            // The memory for all runs is used up: the end is shorter then.
            let room = self.share.bytes().saturating_sub(self.head.len());
            rest = self.make_room(rest, room);
        }
        self.tail.extend(rest.as_bytes());
    }

    /// Leaves out what is oldest, so that the tail and what is returned of `text` fit into `room`.
    fn make_room<'a>(&mut self, text: &'a str, room: usize) -> &'a str {
        let over = (self.tail.len() + text.len()).saturating_sub(room);
        if over == 0 {
            return text;
        }
        let skipped = over.saturating_sub(self.tail.len());
        self.omit_tail(over);
        let skipped = text.ceil_char_boundary(skipped);
        self.omit(&text[..skipped]);
        &text[skipped..]
    }

    fn fill_head<'a>(&mut self, text: &'a str) -> &'a str {
        if self.head_is_full {
            return text;
        }
        let end = text.floor_char_boundary(self.head_max - self.head.len());
        let taken = if self.share.take(end) { end } else { 0 };
        self.head.push_str(&text[..taken]);
        self.head_is_full = taken < text.len();
        &text[taken..]
    }

    /// Leaves out the first `bytes` of the tail, and what is left of the character there.
    fn omit_tail(&mut self, bytes: usize) {
        let mut end = bytes.min(self.tail.len());
        while end < self.tail.len() && (self.tail[end] & 0xc0) == 0x80 {
            end += 1;
        }
        let Some(last) = end.checked_sub(1).map(|at| self.tail[at]) else {
            return;
        };
        self.cut_at_line_end = last == b'\n';
        self.omitted_bytes += end as u64;
        let lines = self.tail.drain(..end).filter(|byte| *byte == b'\n');
        self.omitted_lines += lines.count() as u64;
    }

    fn omit(&mut self, text: &str) {
        if !text.is_empty() {
            self.cut_at_line_end = text.ends_with('\n');
            self.omitted_bytes += text.len() as u64;
            self.omitted_lines += line_ends(text);
        }
    }

    pub(super) fn finish(mut self) -> Kept {
        if self.omitted_bytes > 0 {
            self.trim_tail();
            self.trim_head();
        }
        let mut text = std::mem::take(&mut self.head);
        if self.omitted_bytes > 0 {
            self.push_mark(&mut text);
        }
        text.push_str(&String::from_utf8_lossy(self.tail.make_contiguous()));
        Kept {
            text,
            omitted_bytes: self.omitted_bytes,
            omitted_lines: self.omitted_lines,
            share: self.share,
        }
    }

    /// To the end of a line, unless that costs more than half of it.
    fn trim_head(&mut self) {
        let end = self.head.rfind('\n').map_or(0, |at| at + 1);
        if end > self.head.len() / 2 {
            let cut = self.head.split_off(end);
            self.omit(&cut);
        }
    }

    /// To its own length, and to the start of a line, unless that costs more than half of it.
    fn trim_tail(&mut self) {
        self.omit_tail(self.tail.len().saturating_sub(self.tail_max));
        if self.cut_at_line_end {
            return;
        }
        let start = self.tail.iter().position(|byte| *byte == b'\n');
        let start = start.map_or(usize::MAX, |at| at + 1);
        if start <= self.tail.len() / 2 {
            self.omit_tail(start);
        }
    }

    fn push_mark(&self, text: &mut String) {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let bytes = self.omitted_bytes;
        let _ = match self.omitted_lines {
            0 => writeln!(text, "[... {bytes} bytes left out ...]"),
            lines => writeln!(text, "[... {bytes} bytes in {lines} lines left out ...]"),
        };
    }
}
