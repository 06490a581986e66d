//! One stream of a run in a result: its beginning up to a limit, or what a budget leaves of it.

use super::Keeping;
use crate::budget::Share;
use crate::output_budget::Budgeted;
use crownest_api::limits;
use crownest_api::output_budget::BudgetedStream;

/// One stream, kept up to a limit and counted beyond.
#[derive(Debug)]
pub(crate) struct Collected {
    bytes_max: usize,
    chunks: Vec<String>,
    bytes: usize,
    omitted: u64,
    share: Share,
}

impl Default for Collected {
    fn default() -> Self {
        Self::up_to(limits::RUN_OUTPUT_BYTES_MAX)
    }
}

impl Collected {
    pub(crate) fn up_to(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            chunks: Vec::new(),
            bytes: 0,
            omitted: 0,
            share: Share::default(),
        }
    }

    /// Adds a piece. Once something was left out, everything later is: what is kept is a prefix.
    pub(crate) fn push(&mut self, text: &str) {
        let room = self.bytes_max - self.bytes;
        let kept = if self.omitted > 0 {
            0
        } else {
            text.floor_char_boundary(room)
        };
        let kept = if kept > 0 && self.share.take(kept) {
            kept
        } else {
            0
        };
        self.omitted += (text.len() - kept) as u64;
        if kept == 0 {
            return;
        }
        self.bytes += kept;
        let text = &text[..kept];
        match self.chunks.last_mut() {
            Some(last) if last.len() + kept <= limits::RUN_OUTPUT_CHUNK_BYTES_MAX => {
                last.push_str(text);
            }
            // Small outputs stay small; a second piece means that there will be more.
            Some(_) => {
                let mut chunk = String::with_capacity(limits::RUN_OUTPUT_CHUNK_BYTES_MAX.max(kept));
                chunk.push_str(text);
                self.chunks.push(chunk);
            }
            None => self.chunks.push(text.to_owned()),
        }
    }

    pub(crate) fn chunks(self) -> (Vec<String>, Option<u64>, Share) {
        (
            self.chunks,
            (self.omitted > 0).then_some(self.omitted),
            self.share,
        )
    }

    /// Everything kept, in one piece.
    pub(crate) fn joined(self) -> (String, Option<u64>, Share) {
        let (mut chunks, omitted, share) = self.chunks();
        let text = if chunks.len() == 1 {
            chunks.remove(0)
        } else {
            chunks.concat()
        };
        (text, omitted, share)
    }
}

/// One stream of a run that is under way.
#[derive(Debug)]
pub(super) enum Stream {
    Beginning(Collected),
    Budgeted(Box<Budgeted>),
}

/// One stream of a result.
#[derive(Debug)]
pub(super) struct Streamed {
    pub(super) chunks: Vec<String>,
    pub(super) omitted_bytes: Option<u64>,
    /// What a budget has left out.
    pub(super) counts: Option<BudgetedStream>,
    pub(super) share: Share,
}

impl Stream {
    pub(super) fn new(keeping: &Keeping) -> Self {
        match &keeping.budget {
            Some(budget) => Self::Budgeted(Box::new(Budgeted::new(budget))),
            None => Self::Beginning(Collected::up_to(keeping.stream_bytes_max)),
        }
    }

    pub(super) fn push(&mut self, text: &str) {
        match self {
            Self::Beginning(collected) => collected.push(text),
            Self::Budgeted(budgeted) => budgeted.push(text),
        }
    }

    pub(super) fn has_lost(&self) -> bool {
        match self {
            Self::Beginning(collected) => collected.omitted > 0,
            Self::Budgeted(budgeted) => budgeted.has_lost(),
        }
    }

    pub(super) fn finish(self) -> Streamed {
        match self {
            Self::Beginning(collected) => {
                let (chunks, omitted_bytes, share) = collected.chunks();
                Streamed {
                    chunks,
                    omitted_bytes,
                    counts: None,
                    share,
                }
            }
            Self::Budgeted(budgeted) => {
                let fitted = budgeted.finish();
                let omitted = fitted.counts.omitted_bytes;
                Streamed {
                    chunks: if fitted.text.is_empty() {
                        Vec::new()
                    } else {
                        vec![fitted.text]
                    },
                    omitted_bytes: (omitted > 0).then_some(omitted),
                    counts: Some(fitted.counts),
                    share: fitted.share,
                }
            }
        }
    }
}
