//! Collapses what repeats: a line that follows its like, and what a carriage return wrote over.
//!
//! Of lines that are alike the first is shown, then one that says how many followed, unless that
//! would not be shorter. Of a line that was written over, as progress bars do, the last state is
//! shown. Lines above [`LINE_BYTES_MAX`] pass as they are.

use std::fmt::Write as _;

/// Longest line that is compared, and held.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// What was taken out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Collapsed {
    pub bytes: u64,
    pub lines: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// What stands on the current line, without carriage returns.
    line: String,
    /// So many carriage returns came behind it.
    returns: usize,
    /// The current line is too long to be held.
    passing: bool,
    /// The last line that was shown, with what ended it; none after one that was too long.
    shown: Option<String>,
    /// So many like it have followed.
    followed: u64,
    collapsed: Collapsed,
}

impl Repeats {
    /// Whether something was taken out for good: a few lines that repeat may still be shown.
    pub(super) fn has_collapsed(&self) -> bool {
        let shown = self.shown.as_ref().map_or(0, String::len);
        let undecided = self.followed.saturating_mul(shown as u64);
        self.collapsed.bytes > undecided
    }

    /// Appends what is to be shown to `out`; what is not decided yet is held.
    pub(super) fn push(&mut self, text: &str, out: &mut String) {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.stretch(&rest[..at], out);
            if rest.as_bytes()[at] == b'\n' {
                self.end_line(out);
            } else if self.passing {
                out.push('\r');
            } else {
                self.returns += 1;
                if self.returns > LINE_BYTES_MAX {
                    self.pass(out);
                }
            }
            rest = &rest[at + 1..];
        }
        self.stretch(rest, out);
    }

    /// Shows what is left.
    pub(super) fn finish(mut self, out: &mut String) -> Collapsed {
        self.show_followed(out);
        out.push_str(&self.line);
        out.extend(std::iter::repeat_n('\r', self.returns));
        self.collapsed
    }

    /// A part of a line without any control of it.
    fn stretch(&mut self, text: &str, out: &mut String) {
        if text.is_empty() {
            return;
        }
        if self.passing {
            out.push_str(text);
            return;
        }
        if self.returns > 0 {
            self.collapsed.bytes += (self.line.len() + self.returns) as u64;
            self.line.clear();
            self.returns = 0;
        }
        self.line.push_str(text);
        if self.line.len() > LINE_BYTES_MAX {
            self.pass(out);
        }
    }

    /// The line is too long: it goes out as it is, and so does the rest of it.
    fn pass(&mut self, out: &mut String) {
        self.show_followed(out);
        out.push_str(&self.line);
        out.extend(std::iter::repeat_n('\r', self.returns));
        self.line.clear();
        self.returns = 0;
        self.shown = None;
        self.passing = true;
    }

    fn end_line(&mut self, out: &mut String) {
        if self.passing {
            self.passing = false;
            out.push('\n');
            return;
        }
        self.line
            .extend(std::iter::repeat_n('\r', std::mem::take(&mut self.returns)));
        self.line.push('\n');
        if self.shown.as_ref() == Some(&self.line) {
            self.followed += 1;
            self.collapsed.bytes += self.line.len() as u64;
            self.collapsed.lines += 1;
            self.line.clear();
            return;
        }
        self.show_followed(out);
        out.push_str(&self.line);
        let shown = self.shown.get_or_insert_default();
        std::mem::swap(shown, &mut self.line);
        self.line.clear();
    }

    /// Says how many lines were like the last one, or shows them where that is shorter.
    fn show_followed(&mut self, out: &mut String) {
        let followed = std::mem::take(&mut self.followed);
        let Some(shown) = self.shown.as_ref().filter(|_| followed > 0) else {
            return;
        };
        let bytes = followed.saturating_mul(shown.len() as u64);
        let mut mark = String::new();
        let times = if followed == 1 { "time" } else { "times" };
        let _ = writeln!(mark, "[the line above {followed} more {times}]");
        if bytes > mark.len() as u64 {
            out.push_str(&mark);
            return;
        }
        self.collapsed.bytes -= bytes;
        self.collapsed.lines -= followed;
        for _ in 0..followed {
            out.push_str(shown);
        }
    }
}
