//! Some lines of a stream of bytes, in memory that does not grow with them.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use memchr::memchr_iter;
use std::io;
use std::pin::Pin;

/// Bytes that are looked at: a sparse file can say that it has more than anybody can read.
const SCAN_BYTES_MAX: u64 = 16 << 30;

/// `limit` lines behind the first `skip`, without the line end of the last one.
pub(super) fn lines<S>(
    bytes: S,
    skip: u64,
    limit: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    let state = Some((Box::pin(bytes), Cutter::new(skip, limit)));
    stream::unfold(state, |state| async move {
        let (mut bytes, mut cutter): (Pin<Box<S>>, Cutter) = state?;
        loop {
            if cutter.is_done() {
                return None;
            }
            let piece = match bytes.next().await? {
                Ok(piece) => piece,
                Err(error) => return Some((Err(error), None)),
            };
            let cut = cutter.cut(&piece);
            if cutter.scanned > SCAN_BYTES_MAX {
                let error = io::Error::other("too many bytes for a read by lines");
                return Some((Err(error), None));
            }
            if !cut.is_empty() {
                return Some((Ok(cut), Some((bytes, cutter))));
            }
        }
    })
}

#[derive(Debug)]
struct Cutter {
    /// Lines to go before the first that is wanted.
    skip: u64,
    /// Line ends to come until the last wanted one has ended.
    left: u64,
    /// A line end that is given out only when something follows it.
    held: bool,
    scanned: u64,
}

impl Cutter {
    fn new(skip: u64, limit: u64) -> Self {
        Self {
            skip,
            left: limit,
            held: false,
            scanned: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.left == 0
    }

    fn cut(&mut self, piece: &Bytes) -> Bytes {
        self.scanned += piece.len() as u64;
        let mut ends = memchr_iter(b'\n', piece);
        let mut start = 0;
        while self.skip > 0 {
            match ends.next() {
                Some(end) => {
                    self.skip -= 1;
                    start = end + 1;
                }
                None => return Bytes::new(),
            }
        }
        let mut stop = piece.len();
        for end in ends {
            self.left -= 1;
            if self.left == 0 {
                stop = end;
                break;
            }
        }
        let wanted = piece.slice(start..stop);
        self.joined(wanted)
    }

    /// Holds back a line end at the end of what was wanted so far.
    fn joined(&mut self, mut wanted: Bytes) -> Bytes {
        if wanted.is_empty() {
            // The last wanted line is an empty one: the end before it is a part of the answer.
            return if self.is_done() && std::mem::take(&mut self.held) {
                Bytes::from_static(b"\n")
            } else {
                wanted
            };
        }
        let before = std::mem::take(&mut self.held);
        if !self.is_done() && wanted.ends_with(b"\n") {
            self.held = true;
            wanted.truncate(wanted.len() - 1);
        }
        if before {
            let mut joined = Vec::with_capacity(wanted.len() + 1);
            joined.push(b'\n');
            joined.extend_from_slice(&wanted);
            return joined.into();
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;
    use proptest::prelude::*;

    fn read(content: &[u8], piece: usize, skip: u64, limit: u64) -> Vec<u8> {
        let pieces: Vec<_> = content
            .chunks(piece)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let all = lines(stream::iter(pieces), skip, limit).try_collect::<Vec<_>>();
        futures_util::future::FutureExt::now_or_never(all)
            .unwrap()
            .unwrap()
            .concat()
    }

    proptest! {
        #[test]
        fn as_if_it_were_split(
            content in "[a\n]{0,40}",
            piece in 1..10_usize,
            skip in 0..6_u64,
            limit in 1..6_u64,
        ) {
            let whole: Vec<&str> = content.strip_suffix('\n').unwrap_or(&content).split('\n').collect();
            let whole = if content.is_empty() { Vec::new() } else { whole };
            let [from, count] = [skip, limit].map(|n| usize::try_from(n).unwrap());
            let wanted: Vec<&str> = whole.into_iter().skip(from).take(count).collect();
            let got = read(content.as_bytes(), piece, skip, limit);
            prop_assert_eq!(String::from_utf8(got).unwrap(), wanted.join("\n"));
        }
    }
}
