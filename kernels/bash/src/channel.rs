//! The control socket: frames of JSON, in both directions.

use crate::error::KernelError;
use crate::protocol::Op;
use crownest_init::kernel::{KERNEL_FRAME_BYTES_MAX, KernelDecoder};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// One read.
const READ_BYTES: usize = 64 * 1024;

/// This driver's end of the socket. Writes block: init always reads.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: UnixStream,
    decoder: KernelDecoder,
    buffer: Vec<u8>,
}

impl Channel {
    pub(crate) fn new(control: OwnedFd) -> Self {
        Self {
            stream: UnixStream::from(control),
            decoder: KernelDecoder::default(),
            buffer: vec![0; READ_BYTES],
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// The operations that one read brought; None when init has closed the socket.
    pub(crate) fn receive(&mut self) -> Result<Option<Vec<Op>>, KernelError> {
        let count = loop {
            match self.stream.read(&mut self.buffer) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break 0,
                Err(error) => return Err(KernelError::Channel(error)),
            }
        };
        if count == 0 {
            return Ok(None);
        }
        self.decoder.push(&self.buffer[..count]);
        let mut ops = Vec::new();
        while let Some(frame) = self
            .decoder
            .next_frame()
            .map_err(|_| KernelError::BadFrame)?
        {
            ops.push(serde_json::from_slice(&frame).map_err(|_| KernelError::BadFrame)?);
        }
        Ok(Some(ops))
    }

    /// Writes one event. What this driver builds is far below the limit of a frame.
    pub(crate) fn send(&mut self, event: &Value) -> Result<(), KernelError> {
        let body = event.to_string();
        debug_assert!(body.len() <= KERNEL_FRAME_BYTES_MAX);
        let length = u32::try_from(body.len()).map_err(|_| KernelError::BadFrame)?;
        let mut frame = Vec::with_capacity(4 + body.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(body.as_bytes());
        self.stream.write_all(&frame).map_err(KernelError::Channel)
    }
}
