//! How much memory the output of all runs and commands may take in this process together.
//!
//! One run is bounded by itself; many at once, of one key, would not be. Every piece of output
//! that is kept takes its share here first; when nothing is left it is left out and counted, as at
//! the limit of a single run. A share is given back when the last byte of the answer has been
//! sent, since a client that reads slowly holds the memory that long.

use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Output kept for all runs and commands. An answer takes up to three times as much for the
/// moment in which it is serialized.
const OUTPUT_BYTES_MAX: usize = 256 * 1024 * 1024;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// What one run has taken; given back on drop.
#[derive(Debug, Default)]
pub(crate) struct Share {
    bytes: usize,
}

impl Share {
    /// Takes `bytes` more, or nothing when that is more than is left.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let take = |taken: usize| {
            let sum = taken.checked_add(bytes)?;
            (sum <= OUTPUT_BYTES_MAX).then_some(sum)
        };
        let took = TAKEN
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok();
        if took {
            self.bytes += bytes;
        }
        took
    }

    /// Gives back `bytes` of what was taken.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        TAKEN.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What it is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Both as one.
    pub(crate) fn join(mut self, mut other: Self) -> Self {
        self.bytes += std::mem::take(&mut other.bytes);
        self
    }

    /// Ties this share to the bytes of an answer.
    pub(crate) fn hold(self, body: Vec<u8>) -> Bytes {
        Bytes::from_owner(Held { body, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Held {
    body: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_with_the_last_byte_of_the_answer() {
        let mut first = Share::default();
        assert!(first.take(OUTPUT_BYTES_MAX - 10));
        let mut second = Share::default();
        assert!(!second.take(OUTPUT_BYTES_MAX / 2), "more than is left");
        let body = first.hold(vec![1, 2, 3]);
        let slow = body.slice(2..);
        drop(body);
        assert!(!second.take(OUTPUT_BYTES_MAX / 2), "the client still reads");
        drop(slow);
        assert!(second.take(OUTPUT_BYTES_MAX / 2));
    }
}
