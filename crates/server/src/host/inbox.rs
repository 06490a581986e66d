//! What has arrived on a link: bytes on their way to being frames, and the descriptors that came
//! with them.

use crownest_init::frame::{Decoder, FRAME_FDS_MAX, Frame};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

/// A decoder that has held more than this is replaced when it is empty, so that one large result
/// does not cost memory for the rest of the sandbox's life.
const DECODER_KEEP_BYTES_MAX: usize = 64 * 1024;
/// File descriptors that may wait for their frame.
const INBOX_FDS_MAX: usize = 2 * FRAME_FDS_MAX;

/// Bytes and fds that have arrived and are not yet frames.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    decoder: Decoder,
    /// In the decoder, not yet taken out.
    held_bytes: usize,
    largest_bytes: usize,
    fds: VecDeque<OwnedFd>,
}

/// What one read brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    pub(super) bytes: usize,
    /// The socket was empty after it.
    pub(super) is_all: bool,
}

impl Inbox {
    /// One read that does not wait.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
    ) -> io::Result<Received> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
        let fds_before = self.fds.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > INBOX_FDS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many file descriptors",
            ));
        }
        self.push(&buffer[..got.bytes]);
        // The kernel ends a read behind descriptors, however much follows; the end of the stream
        // is no reason to wait for more either.
        let cut_short = self.fds.len() > fds_before || got.bytes == 0;
        Ok(Received {
            bytes: got.bytes,
            is_all: got.bytes < buffer.len() && !cut_short,
        })
    }

    /// Takes bytes as they came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
        self.held_bytes += bytes.len();
        self.largest_bytes = self.largest_bytes.max(self.held_bytes);
    }

    /// The next complete frame.
    pub(super) fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
        let frame = self.decoder.next_frame().map_err(invalid)?;
        match &frame {
            Some(frame) => {
                self.held_bytes -=
                    crownest_init::frame::PREFIX_BYTES + frame.head.len() + frame.body.len();
            }
            None if self.held_bytes == 0 && self.largest_bytes > DECODER_KEEP_BYTES_MAX => {
                self.decoder = Decoder::default();
                self.largest_bytes = 0;
            }
            None => {}
        }
        Ok(frame)
    }

    /// The fds of the frame just taken: `count` as its head says.
    pub(super) fn take_fds(&mut self, count: u32) -> io::Result<Vec<OwnedFd>> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > self.fds.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "announced fds are missing",
            ));
        }
        Ok(self.fds.drain(..count).collect())
    }
}
