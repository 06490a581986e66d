//! The news of a command that runs: that it has printed, that it has ended.

use super::live::{Found, LiveCommand};
use crate::command_log::LogIndex;
use std::sync::Arc;
use tokio::sync::watch;

/// A command that runs on this server, as a reader of its log sees it.
#[derive(Debug)]
pub(crate) struct Watched {
    command: Arc<LiveCommand>,
    written: watch::Receiver<u64>,
    ended: watch::Receiver<bool>,
}

impl Watched {
    /// None: it does not run here, and there will be no news of it.
    pub(crate) fn of(found: &Found) -> Option<Self> {
        let Found::Live(command) = found else {
            return None;
        };
        Some(Self {
            written: command.log.watch(),
            ended: command.watch_end(),
            command: Arc::clone(command),
        })
    }

    /// How far the log has come, and whether it will not come any further.
    pub(crate) fn look(&mut self) -> (LogIndex, bool) {
        // First the end, then the log: what was written before the end is in it.
        let ended = *self.ended.borrow();
        self.written.borrow_and_update();
        (self.command.log.index(), ended)
    }

    /// Returns when there may be something that the last look did not see. Can be dropped while
    /// it waits.
    pub(crate) async fn news(&mut self) {
        tokio::select! {
            _ = self.written.changed() => {}
            _ = self.ended.wait_for(|ended| *ended) => {}
        }
    }
}
