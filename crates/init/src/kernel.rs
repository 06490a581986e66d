//! Framing and messages between init and a kernel driver: `u32 length (big endian) | JSON`.
//!
//! The text of the protocol is `kernels/PROTOCOL.md`. A driver runs tenant code in its own
//! process, so every frame from it may be forged: lengths are capped, unknown events dropped,
//! and an event counts only when it names the run that init itself started.

use crate::cell::Query;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest frame in either direction. A rich result above it is rejected by the driver itself.
pub const KERNEL_FRAME_BYTES_MAX: usize = 12 * 1024 * 1024;

/// What init tells a driver.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum KernelOp {
    /// Once, before the first execute: working directory and environment of the context.
    Start {
        cwd: String,
        env: BTreeMap<String, String>,
    },
    /// Run one cell. `run` is unique for the life of the sandbox.
    Execute {
        run: u64,
        code: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cwd: Option<String>,
        /// For a driver of several languages: that of this cell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<String>,
        /// Somebody answers when the code asks for a line.
        #[serde(default, skip_serializing_if = "is_false")]
        input: bool,
        /// Format of the file that is written beside each table that is shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table_export: Option<String>,
    },
    /// Ask about the context; ends with `done` as a cell does. `code` is what the question is
    /// about, empty when it is about none.
    Query {
        run: u64,
        #[serde(flatten)]
        query: Query,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        code: String,
    },
    /// Answers the `input` of that run; none is the end of the file.
    InputReply { run: u64, value: Option<String> },
    /// Announces the SIGINT that follows, so that a driver which has not read `Execute` yet does
    /// not take the signal for a late one.
    Interrupt { run: u64 },
}

/// The part of a driver's event that init itself reads; the rest goes to the server untouched.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct KernelEventHead {
    /// `ready`, `result`, `display`, `clear`, `error`, `notice`, `input`, `answer`, `done`.
    pub ev: String,
    /// The run it belongs to; absent on `ready`.
    #[serde(default)]
    pub run: Option<u64>,
}

/// What init reads of a `done`.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct KernelDone {
    /// `ok`, `error`, `interrupted`.
    pub status: String,
    /// Execution count of the context.
    #[serde(default)]
    pub count: u64,
    /// Processor time of the cell as the driver counted it; never trusted.
    #[serde(default)]
    pub cpu_us: Option<u64>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A driver that broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadFrame;

impl KernelEventHead {
    /// Reads the head of an event. Accepts one JSON object in UTF-8 and nothing else.
    ///
    /// # Errors
    /// [`BadFrame`]
    pub fn parse(frame: &[u8]) -> Result<Self, BadFrame> {
        let text = std::str::from_utf8(frame).map_err(|_| BadFrame)?;
        // serde would take an array for a struct as well.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(BadFrame);
        }
        serde_json::from_str(text).map_err(|_| BadFrame)
    }
}

impl KernelDone {
    /// Reads a `done` whose head was read before.
    ///
    /// # Errors
    /// [`BadFrame`]
    pub fn parse(frame: &[u8]) -> Result<Self, BadFrame> {
        serde_json::from_slice(frame).map_err(|_| BadFrame)
    }
}

/// Size of the length word.
const LENGTH_BYTES: usize = 4;
/// Capacity that a decoder keeps between frames.
const BUFFER_BYTES_KEPT: usize = 128 * 1024;

/// Collects what a driver says and cuts frames out of it. Holds at most one frame and what one
/// read brought, since init takes the frames out after every read.
///
/// Who runs it: init, on bytes of tenant code.
#[derive(Debug, Default)]
pub struct KernelDecoder {
    buffer: Vec<u8>,
    start: usize,
}

impl KernelDecoder {
    /// Adds bytes as they came from the socket.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame, if all its bytes are here.
    ///
    /// # Errors
    /// [`BadFrame`] when the announced length is zero or above [`KERNEL_FRAME_BYTES_MAX`].
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, BadFrame> {
        let pending = &self.buffer[self.start..];
        let Some((prefix, rest)) = pending.split_first_chunk::<LENGTH_BYTES>() else {
            self.forget_when_empty();
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).map_err(|_| BadFrame)?;
        if length == 0 || length > KERNEL_FRAME_BYTES_MAX {
            return Err(BadFrame);
        }
        let Some(frame) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = frame.to_vec();
        self.start += LENGTH_BYTES + length;
        Ok(Some(frame))
    }

    /// Forgets everything that was pushed.
    pub fn clear(&mut self) {
        self.start = self.buffer.len();
        self.forget_when_empty();
    }

    /// One large frame must not cost its memory for the rest of the context's life.
    fn forget_when_empty(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(BUFFER_BYTES_KEPT);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(decoder: &mut KernelDecoder) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
    }

    #[test]
    fn what_a_driver_is_told_has_the_shape_of_the_protocol() {
        let shape = |op: &KernelOp| serde_json::to_string(op).unwrap();
        let complete = KernelOp::Query {
            run: 3,
            query: Query::Complete { cursor: 2 },
            code: "ab".into(),
        };
        assert_eq!(
            shape(&complete),
            r#"{"op":"query","run":3,"query":"complete","cursor":2,"code":"ab"}"#
        );
        let variables = KernelOp::Query {
            run: 4,
            query: Query::Variables { limit: 7 },
            code: String::new(),
        };
        assert_eq!(
            shape(&variables),
            r#"{"op":"query","run":4,"query":"variables","limit":7}"#
        );
        let end_of_file = KernelOp::InputReply {
            run: 5,
            value: None,
        };
        assert_eq!(
            shape(&end_of_file),
            r#"{"op":"input_reply","run":5,"value":null}"#
        );
        let execute = KernelOp::Execute {
            run: 6,
            code: "1".into(),
            cwd: None,
            language: None,
            input: true,
            table_export: None,
        };
        assert_eq!(
            shape(&execute),
            r#"{"op":"execute","run":6,"code":"1","input":true}"#
        );
    }

    #[test]
    fn frames_survive_any_split() {
        let wire = b"\0\0\0\x02{}\0\0\0\x05{   }";
        for cut in 0..wire.len() {
            let mut decoder = KernelDecoder::default();
            decoder.push(&wire[..cut]);
            let mut got = frames(&mut decoder);
            decoder.push(&wire[cut..]);
            got.extend(frames(&mut decoder));
            assert_eq!(got, [&b"{}"[..], b"{   }"], "cut at {cut}");
        }
    }

    #[test]
    fn lengths_out_of_range_are_refused_before_any_allocation() {
        for prefix in [[0, 0, 0, 0], [0xff, 0xff, 0xff, 0xff]] {
            let mut decoder = KernelDecoder::default();
            decoder.push(&prefix);
            assert_eq!(decoder.next_frame(), Err(BadFrame));
        }
    }

    #[test]
    fn only_objects_are_events() {
        for bad in [
            &b"[\"done\",1]"[..],
            b"null",
            b"{}",
            b"{\"ev\":\"x\"} x",
            b"{\"ev\":\"\xff\"}",
        ] {
            assert_eq!(KernelEventHead::parse(bad), Err(BadFrame));
        }
        let head = KernelEventHead::parse(b" {\"ev\":\"done\",\"run\":7,\"more\":[]}").unwrap();
        assert_eq!((head.ev.as_str(), head.run), ("done", Some(7)));
    }
}
