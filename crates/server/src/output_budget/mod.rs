//! Output within a budget: what a reader that pays for every byte gets to see of a stream.
//!
//! Owns: leaving out what is for terminals alone ([`terminal`]), collapsing what repeats
//! ([`repeats`]), keeping the beginning and the end ([`window`]), and counting what was left out.
//! Does not own: where output comes from and where the whole of it is kept.
//!
//! Text comes in pieces and the result does not depend on where they were cut. Memory is bounded
//! by the budget and two lines, whatever the code prints.

mod repeats;
mod terminal;
mod window;

use crate::budget::Share;
use crate::error::{ApiError, ApiResult};
use crownest_api::limits;
use crownest_api::output_budget::{BudgetReport, BudgetedStream, OutputBudget};
use repeats::Repeats;
use serde::{Deserialize, Serialize};
use terminal::Terminal;
use window::{MARK_BYTES_MAX, Window};

/// A budget whose request has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Budget {
    bytes_max: usize,
    head: usize,
    tail: usize,
    strip_ansi: bool,
    collapse_repeats: bool,
}

impl Budget {
    pub(crate) fn check(asked: OutputBudget) -> ApiResult<Self> {
        let refuse = |field: &str, message: String| {
            Err(ApiError::field(&format!("outputBudget.{field}"), message))
        };
        let (min, max) = (
            limits::OUTPUT_BUDGET_BYTES_MIN,
            limits::OUTPUT_BUDGET_BYTES_MAX,
        );
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let bytes_max = size(asked.max_bytes);
        if !(min..=max).contains(&bytes_max) {
            return refuse(
                "maxBytes",
                format!("maxBytes must be between {min} and {max}"),
            );
        }
        let room = bytes_max - MARK_BYTES_MAX;
        let (head, tail) = match (asked.head.map(size), asked.tail.map(size)) {
            (Some(head), Some(tail)) => (head, tail),
            (Some(head), None) => (head, room.saturating_sub(head)),
            (None, Some(tail)) => (room.saturating_sub(tail), tail),
            (None, None) => (room - room / 2, room / 2),
        };
        if head.saturating_add(tail) > room {
            let message = format!(
                "head and tail must leave {MARK_BYTES_MAX} bytes of maxBytes for the line between them"
            );
            return refuse(if asked.head.is_some() { "head" } else { "tail" }, message);
        }
        Ok(Self {
            bytes_max,
            head,
            tail,
            strip_ansi: asked.strip_ansi.unwrap_or(false),
            collapse_repeats: asked.collapse_repeats.unwrap_or(false),
        })
    }
}

/// One stream on its way through a budget.
#[derive(Debug)]
pub(crate) struct Budgeted {
    terminal: Option<Terminal>,
    repeats: Option<Repeats>,
    window: Window,
    total_bytes: u64,
    total_lines: u64,
    /// Output of one stage, input of the next; kept for its memory.
    stripped: String,
    collapsed: String,
}

/// What is left of a stream.
#[derive(Debug)]
pub(crate) struct Fitted {
    pub text: String,
    pub counts: BudgetedStream,
    /// What its text holds of the output budget of all runs.
    pub share: Share,
}

/// Whether the text of both streams is all that was printed, unchanged.
pub(crate) fn is_whole(report: &BudgetReport) -> bool {
    stream_is_whole(&report.stdout) && stream_is_whole(&report.stderr)
}

fn stream_is_whole(counts: &BudgetedStream) -> bool {
    counts.omitted_bytes == 0 && counts.stripped_bytes == 0 && counts.collapsed_bytes == 0
}

impl Budgeted {
    pub(crate) fn new(budget: &Budget) -> Self {
        Self {
            terminal: budget.strip_ansi.then(Terminal::default),
            repeats: budget.collapse_repeats.then(Repeats::default),
            window: Window::new(budget.bytes_max, budget.head, budget.tail),
            total_bytes: 0,
            total_lines: 0,
            stripped: String::new(),
            collapsed: String::new(),
        }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.total_bytes += text.len() as u64;
        self.total_lines += line_ends(text);
        let mut text = text;
        if let Some(terminal) = &mut self.terminal {
            self.stripped.clear();
            terminal.push(text, &mut self.stripped);
            text = &self.stripped;
        }
        if let Some(repeats) = &mut self.repeats {
            self.collapsed.clear();
            repeats.push(text, &mut self.collapsed);
            text = &self.collapsed;
        }
        self.window.push(text);
    }

    /// Whether it is certain already that the text will not be all that was printed.
    pub(crate) fn has_lost(&self) -> bool {
        self.window.has_omitted()
            || self.terminal.as_ref().is_some_and(|t| t.stripped() > 0)
            || self.repeats.as_ref().is_some_and(Repeats::has_collapsed)
    }

    pub(crate) fn finish(mut self) -> Fitted {
        let mut counts = BudgetedStream {
            total_bytes: self.total_bytes,
            total_lines: self.total_lines,
            ..BudgetedStream::default()
        };
        if let Some(terminal) = self.terminal {
            counts.stripped_bytes = terminal.stripped();
        }
        if let Some(repeats) = self.repeats {
            self.collapsed.clear();
            let collapsed = repeats.finish(&mut self.collapsed);
            self.window.push(&self.collapsed);
            counts.collapsed_bytes = collapsed.bytes;
            counts.collapsed_lines = collapsed.lines;
        }
        let kept = self.window.finish();
        counts.omitted_bytes = kept.omitted_bytes;
        counts.omitted_lines = kept.omitted_lines;
        Fitted {
            text: kept.text,
            counts,
            share: kept.share,
        }
    }
}

/// Line feeds in a text.
fn line_ends(text: &str) -> u64 {
    text.bytes().filter(|byte| *byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests;
