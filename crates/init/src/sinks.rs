//! Pipes whose run or process is over while somebody, a daemon, still holds the other end.
//! Read and thrown away, so that the daemon neither blocks nor dies of a broken pipe.

use crate::output::OutputPipe;
use crate::poller::{Source, Token};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;

/// Pipes kept; beyond it the oldest is closed.
const SINKS_MAX: usize = 128;
/// Keys of sinks are their own; only tokens of the same kind have to differ.
#[derive(Debug, Default)]
pub(crate) struct Sinks {
    map: BTreeMap<u64, Source>,
    last_key: u64,
}

impl Sinks {
    /// Takes over a pipe, unless nobody holds the other end.
    pub(crate) fn keep(&mut self, pipe: OutputPipe) {
        if pipe.is_over() {
            return;
        }
        self.last_key += 1;
        let key = self.last_key;
        let Ok(mut source) = pipe.into_source().with_token(Token::Sink(key)) else {
            return;
        };
        if source.want(EventFlags::IN).is_ok() {
            self.map.insert(key, source);
        }
        if self.map.len() > SINKS_MAX {
            self.drop_oldest();
        }
    }

    pub(crate) fn drop_oldest(&mut self) {
        self.map.pop_first();
    }

    pub(crate) fn readable(&mut self, key: u64, buffer: &mut [u8]) {
        let Some(source) = self.map.get(&key) else {
            return;
        };
        match rustix::io::read(source, buffer) {
            Ok(0) => {}
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => {}
        }
        self.map.remove(&key);
    }
}
