//! What a terminal prints, from some byte on: what its log has, then what comes.
//!
//! Bytes are counted over everything that was ever printed, both streams of a pipe together. A
//! reader holds what was read at once (256 KiB) and no more; what it has not had yet is on disk.

use crate::app::App;
use crate::command_log::{LogError, LogFiles, LogIndex, LogStream, Position, Record, read};
use crate::commands::{Found, Watched};
use crate::error::ApiResult;
use bytes::Bytes;
use crownest_store as store;

/// What a client that names no byte is shown of what was printed before.
const SCROLLBACK_BYTES_MAX: u64 = 1024 * 1024;

/// A piece of output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Printed {
    /// Number of its first byte.
    pub at: u64,
    pub stream: LogStream,
    pub data: Bytes,
}

/// What a terminal has to tell.
#[derive(Debug)]
pub(crate) enum Said {
    Printed(Vec<Printed>),
    /// That many bytes are not kept any more.
    Omitted(u64),
    /// It has ended, and everything was read.
    Ended(Box<store::Command>),
}

/// A reader. See the module.
#[derive(Debug)]
pub(crate) struct Output {
    found: Found,
    files: LogFiles,
    index: LogIndex,
    position: Position,
    /// Number of the byte that `position` is before.
    at: u64,
    /// Number of the first byte that is wanted.
    wanted: u64,
    /// What had been printed when this reader began.
    pub begun_at: u64,
    /// None: it had ended before.
    live: Option<Watched>,
    /// The rest of the log cannot be read.
    broken: bool,
}

impl App {
    /// Reads a terminal from a byte on. Without one, what a person would have on the screen.
    pub(crate) async fn terminal_output(
        &self,
        found: Found,
        since: Option<u64>,
    ) -> ApiResult<Output> {
        let live = Watched::of(&found);
        let (files, index) = self.log_of(&found).await?;
        let printed = match &found {
            Found::Live(_) => index.totals().printed(),
            Found::Stored(_) => super::printed(&found),
        };
        let wanted = since.unwrap_or_else(|| printed.saturating_sub(SCROLLBACK_BYTES_MAX));
        let wanted = wanted.min(printed);
        let (position, at) = index.position_of(wanted);
        Ok(Output {
            found,
            files,
            index,
            position,
            at,
            wanted,
            begun_at: printed,
            live,
            broken: false,
        })
    }
}

impl Output {
    /// Number of the byte up to which everything that is wanted was given.
    pub(crate) fn reached(&self) -> u64 {
        self.at.max(self.wanted)
    }

    /// What comes next. Can be asked again after it was dropped while it waited.
    pub(crate) async fn next(&mut self) -> ApiResult<Said> {
        loop {
            let ended = self.look();
            match self.read().await {
                Ok(Some(pieces)) if pieces.is_empty() => continue,
                Ok(Some(pieces)) => return Ok(Said::Printed(pieces)),
                Ok(None) if ended => return Ok(Said::Ended(Box::new(self.found.row()))),
                Ok(None) => {}
                Err(LogError::Gap { .. }) => {
                    if let Some(omitted) = self.skip_gap() {
                        return Ok(Said::Omitted(omitted));
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            if let Some(live) = &mut self.live {
                live.news().await;
            }
        }
    }

    /// Sees how far the log has come. True when it will not come any further.
    fn look(&mut self) -> bool {
        let Some(live) = &mut self.live else {
            return true;
        };
        let (index, ended) = live.look();
        self.index = index;
        ended
    }

    async fn read(&mut self) -> Result<Option<Vec<Printed>>, LogError> {
        let nothing = self.live.is_some() && self.index.has_nothing_after(self.position.seq);
        if nothing || self.broken {
            return Ok(None);
        }
        // Of a copy: whoever drops this while it reads goes on where it was.
        let mut position = self.position;
        let records = read(&self.files, &self.index, &mut position, |records| records).await?;
        self.position = position;
        Ok(records.map(|records| self.take(records)))
    }

    /// The parts of these records that are wanted.
    fn take(&mut self, records: Vec<Record>) -> Vec<Printed> {
        let mut pieces = Vec::with_capacity(records.len());
        for record in records.into_iter().filter(|record| record.event.is_none()) {
            let begins = self.at;
            self.at += record.data.len() as u64;
            if self.at <= self.wanted {
                continue;
            }
            let skipped = self.wanted.saturating_sub(begins);
            let mut data = record.data;
            let _ = data.split_to(usize::try_from(skipped).unwrap_or(0).min(data.len()));
            pieces.push(Printed {
                at: begins + skipped,
                stream: record.stream,
                data,
            });
        }
        pieces
    }

    /// Goes on with the first byte that is kept. None: nothing that is wanted was left out.
    fn skip_gap(&mut self) -> Option<u64> {
        let next = self.at.max(self.wanted);
        self.look();
        let (position, at) = self.index.position_of(next);
        let moved = at > self.at || position.seq > self.position.seq;
        if !moved {
            // A log that is damaged there, or one that nobody writes: nothing can follow.
            self.broken = true;
            self.at = next.max(self.begun_at);
            let lost = self.begun_at.saturating_sub(next);
            return (lost > 0).then_some(lost);
        }
        (self.position, self.at) = (position, at);
        at.checked_sub(next).filter(|lost| *lost > 0)
    }
}
