//! Framing of the link between server and init: `u32 head_len | u32 body_len | head | body`.
//!
//! Lengths are little endian. The head is one JSON message of [`crate::link`]; the body is raw
//! bytes (program output, file contents, source code), so that output is never escaped on the
//! way. File descriptors travel as SCM_RIGHTS with the first byte of their frame; the head's
//! `fds` field says how many belong to it.

use std::fmt;

/// Longest JSON head. A listing of 10,000 entries is the largest thing in one.
pub const HEAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest raw body: one rich result of a kernel, or one piece of a file.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Size of the two length words.
pub const PREFIX_BYTES: usize = 8;
/// Capacity that a decoder keeps between frames.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;
/// Most file descriptors that one frame may carry.
pub const FRAME_FDS_MAX: usize = 8;

/// One frame, lengths checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// JSON message.
    pub head: Vec<u8>,
    /// Raw bytes that belong to it; often empty.
    pub body: Vec<u8>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Frame({}, {} body bytes)",
            String::from_utf8_lossy(&self.head),
            self.body.len()
        )
    }
}

/// Why bytes are not a frame. Always fatal for the connection they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The head's announced length is zero or above [`HEAD_BYTES_MAX`].
    HeadLength(u32),
    /// The body's announced length is above [`BODY_BYTES_MAX`].
    BodyLength(u32),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeadLength(n) => write!(f, "frame head of {n} bytes is out of range"),
            Self::BodyLength(n) => write!(f, "frame body of {n} bytes is out of range"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Appends one frame to `out`.
///
/// # Panics
/// If `head` or `body` exceeds its limit: the sender is ours and must not build such a frame.
pub fn encode(head: &[u8], body: &[u8], out: &mut Vec<u8>) {
    assert!(
        !head.is_empty() && head.len() <= HEAD_BYTES_MAX,
        "head length checked by the caller"
    );
    assert!(
        body.len() <= BODY_BYTES_MAX,
        "body length checked by the caller"
    );
    let head_len = u32::try_from(head.len()).expect("below HEAD_BYTES_MAX");
    let body_len = u32::try_from(body.len()).expect("below BODY_BYTES_MAX");
    out.reserve(PREFIX_BYTES + head.len() + body.len());
    out.extend_from_slice(&head_len.to_le_bytes());
    out.extend_from_slice(&body_len.to_le_bytes());
    out.extend_from_slice(head);
    out.extend_from_slice(body);
}

/// Collects bytes and cuts frames out of them. Holds at most one frame plus what one read
/// brought, since the caller decodes after every read.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({} bytes)", self.buffer.len() - self.start)
    }
}

impl Decoder {
    /// Adds bytes as they came from the socket.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            // One large frame must not cost its memory for the rest of the connection.
            self.buffer.shrink_to(BUFFER_BYTES_KEPT);
            self.start = 0;
        } else if self.start > 64 * 1024 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame, if all its bytes are here.
    ///
    /// # Errors
    /// [`FrameError`] when an announced length is out of range; the connection must be dropped.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let pending = &self.buffer[self.start..];
        let Some(prefix) = pending.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let head_len = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]);
        let body_len = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]);
        let head_size = head_len as usize;
        let body_size = body_len as usize;
        if head_size == 0 || head_size > HEAD_BYTES_MAX {
            return Err(FrameError::HeadLength(head_len));
        }
        if body_size > BODY_BYTES_MAX {
            return Err(FrameError::BodyLength(body_len));
        }
        let total = PREFIX_BYTES + head_size + body_size;
        if pending.len() < total {
            return Ok(None);
        }
        let head = pending[PREFIX_BYTES..PREFIX_BYTES + head_size].to_vec();
        let body = pending[PREFIX_BYTES + head_size..total].to_vec();
        self.start += total;
        Ok(Some(Frame { head, body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_split() {
        let mut wire = Vec::new();
        encode(b"{\"a\":1}", b"body", &mut wire);
        encode(b"{}", b"", &mut wire);
        for cut in 0..wire.len() {
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for part in [&wire[..cut], &wire[cut..]] {
                decoder.push(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got.len(), 2, "cut at {cut}");
            assert_eq!(got[0].body, b"body");
            assert_eq!(got[1].head, b"{}");
        }
    }

    #[test]
    fn lengths_out_of_range_are_refused_before_any_allocation() {
        let mut decoder = Decoder::default();
        decoder.push(&[0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decoder.next_frame(), Err(FrameError::HeadLength(0)));
        let mut decoder = Decoder::default();
        decoder.push(&[2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next_frame(), Err(FrameError::BodyLength(u32::MAX)));
    }
}
