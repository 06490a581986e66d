//! One connection to the init of a sandbox: frames and file descriptors in both directions.
//!
//! Writing needs no task: the caller's own thread writes the frame when the socket takes it, and
//! only what is left over waits for the link task. Reading is done by that one task alone.

use super::error::HostError;
use bytes::Bytes;
use crownest_init::frame::{BODY_BYTES_MAX, Decoder, FRAME_FDS_MAX, Frame, HEAD_BYTES_MAX};
use crownest_init::link::{Call, Request};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;

/// Bytes that wait for an init that does not read, before callers have to wait as well. One
/// frame of a large file fits on top of it.
const OUTGOING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What one read takes from the socket; the buffer is shared by all links of a thread.
const READ_BYTES_MAX: usize = 256 * 1024;
/// A decoder that has held more than this is replaced when it is empty, so that one large result
/// does not cost memory for the rest of the sandbox's life.
const DECODER_KEEP_BYTES_MAX: usize = 64 * 1024;
/// File descriptors that may wait for their frame.
const INBOX_FDS_MAX: usize = 2 * FRAME_FDS_MAX;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; READ_BYTES_MAX].into_boxed_slice());
}

/// The connection. Shared by everyone who calls.
#[derive(Debug)]
pub(super) struct Link {
    socket: UnixStream,
    outgoing: Mutex<Outgoing>,
    /// The link task has something to write.
    waiting: Notify,
    /// There is room again below [`OUTGOING_BYTES_MAX`].
    room: Notify,
}

#[derive(Debug, Default)]
struct Outgoing {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    broken: bool,
}

/// One frame on its way out.
#[derive(Debug)]
struct Chunk {
    /// Prefix and head.
    head: Vec<u8>,
    body: Bytes,
    sent: usize,
    /// Travel with the first byte.
    fds: Vec<OwnedFd>,
}

impl Chunk {
    fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

impl Link {
    /// Connects to an init. `NotFound` and `ConnectionRefused` mean that it is gone.
    pub(super) async fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self::from_stream(UnixStream::connect(path).await?))
    }

    pub(super) fn from_stream(socket: UnixStream) -> Self {
        Self {
            socket,
            outgoing: Mutex::default(),
            waiting: Notify::new(),
            room: Notify::new(),
        }
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        // A panic while it was held left whole chunks behind: the data is sound.
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for another large frame.
    pub(super) async fn room(&self) {
        loop {
            let room = self.room.notified();
            {
                let out = self.outgoing();
                if out.broken || out.bytes < OUTGOING_BYTES_MAX {
                    return;
                }
            }
            room.await;
        }
    }

    /// Writes a call now, as far as the socket takes it; the rest follows by the link task.
    pub(super) fn send(&self, id: u64, request: Request) -> Result<(), HostError> {
        self.send_with(id, request, Bytes::new(), Vec::new())
    }

    /// As [`Link::send`], with a body and file descriptors.
    pub(super) fn send_with(
        &self,
        id: u64,
        request: Request,
        body: Bytes,
        fds: Vec<OwnedFd>,
    ) -> Result<(), HostError> {
        let chunk = chunk(id, request, body, fds)?;
        let mut out = self.outgoing();
        if out.broken {
            return Err(HostError::LinkLost);
        }
        out.bytes += chunk.len();
        out.chunks.push_back(chunk);
        match self.write_all(&mut out) {
            Ok(true) => Ok(()),
            Ok(false) => {
                drop(out);
                self.waiting.notify_one();
                Ok(())
            }
            Err(_) => {
                // The link task sees the same error when it reads and reconnects.
                out.broken = true;
                Err(HostError::LinkLost)
            }
        }
    }

    /// Leaves a small call to the link task: for acknowledgements, which nobody waits for and
    /// which must not cost the caller a system call before it answers its client.
    pub(super) fn send_later(&self, request: Request) {
        let Ok(chunk) = chunk(0, request, Bytes::new(), Vec::new()) else {
            return;
        };
        let mut out = self.outgoing();
        if !out.broken {
            out.bytes += chunk.len();
            out.chunks.push_back(chunk);
            drop(out);
            self.waiting.notify_one();
        }
    }

    /// No more calls: they fail with `LinkLost` from now on.
    pub(super) fn mark_broken(&self) {
        let mut out = self.outgoing();
        out.broken = true;
        out.chunks.clear();
        out.bytes = 0;
        drop(out);
        // Others may hold this link for a while: init must not wait for them to let go.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        self.room.notify_waiters();
    }

    /// Writes queued chunks until the queue is empty (true) or the socket is full (false).
    fn write_all(&self, out: &mut Outgoing) -> io::Result<bool> {
        while let Some(chunk) = out.chunks.front_mut() {
            match write_some(self.socket.as_fd(), chunk) {
                Ok(n) => {
                    chunk.sent += n;
                    out.bytes -= n;
                    if chunk.sent == chunk.len() {
                        out.chunks.pop_front();
                    }
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }

    /// For the link task: waits until the socket has something to read or, when something waits
    /// to be written, takes it; writes; returns whether there may be something to read.
    pub(super) async fn turn(&self) -> io::Result<bool> {
        let pending = !self.outgoing().chunks.is_empty();
        let interest = if pending {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        let ready = tokio::select! {
            biased;
            () = self.waiting.notified(), if !pending => {
                // Most often the socket takes it at once, without a trip through epoll.
                self.flush()?;
                return Ok(false);
            }
            ready = self.socket.ready(interest) => ready?,
        };
        if ready.is_writable() && pending {
            let written = self.socket.try_io(Interest::WRITABLE, || {
                if self.flush()? {
                    Ok(())
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            });
            would_block_is_fine(written)?;
        }
        Ok(ready.is_readable() || ready.is_read_closed() || ready.is_error())
    }

    fn flush(&self) -> io::Result<bool> {
        let mut out = self.outgoing();
        let result = self.write_all(&mut out);
        let room = out.bytes < OUTGOING_BYTES_MAX;
        drop(out);
        if room {
            self.room.notify_waiters();
        }
        result
    }

    /// For the link task: one read into the inbox. `Ok(None)`: nothing there. `Ok(Some(0))`: the
    /// other end closed.
    pub(super) fn read(&self, inbox: &mut Inbox) -> io::Result<Option<usize>> {
        let read = self.socket.try_io(Interest::READABLE, || {
            READ_BUFFER.with_borrow_mut(|buffer| inbox.receive(self.socket.as_fd(), buffer))
        });
        match read {
            Ok(n) => Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Waits for the first frame of a connection.
    pub(super) async fn first_frame(&self, inbox: &mut Inbox) -> io::Result<Frame> {
        loop {
            self.socket.readable().await?;
            if self.read(inbox)? == Some(0) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(frame) = inbox.next_frame()? {
                return Ok(frame);
            }
        }
    }
}

fn would_block_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
        other => other,
    }
}

/// Builds the frame of a call, lengths checked.
fn chunk(id: u64, request: Request, body: Bytes, fds: Vec<OwnedFd>) -> Result<Chunk, HostError> {
    let fd_count = u32::try_from(fds.len()).expect("a handful of fds");
    let call = Call {
        id,
        fds: fd_count,
        request,
    };
    let mut head = vec![0; 8];
    serde_json::to_writer(&mut head, &call).expect("a call has only string keys");
    let head_len = head.len() - 8;
    if head_len > HEAD_BYTES_MAX {
        return Err(HostError::TooLarge {
            what: "the request",
            limit: HEAD_BYTES_MAX,
        });
    }
    if body.len() > BODY_BYTES_MAX {
        return Err(HostError::TooLarge {
            what: "the content",
            limit: BODY_BYTES_MAX,
        });
    }
    let length = |n: usize| u32::try_from(n).expect("below its limit").to_le_bytes();
    head[..4].copy_from_slice(&length(head_len));
    head[4..8].copy_from_slice(&length(body.len()));
    Ok(Chunk {
        head,
        body,
        sent: 0,
        fds,
    })
}

/// One non-blocking write of the rest of a chunk.
fn write_some(socket: BorrowedFd<'_>, chunk: &mut Chunk) -> Result<usize, Errno> {
    let head = chunk.head.get(chunk.sent..).unwrap_or_default();
    let body = &chunk.body[chunk.sent.saturating_sub(chunk.head.len())..];
    let parts = [IoSlice::new(head), IoSlice::new(body)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = chunk.fds.iter().map(AsFd::as_fd).collect();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::TOOBIG);
    }
    let sent = sendmsg(
        socket,
        &parts,
        &mut control,
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )?;
    drop(fds);
    chunk.fds.clear();
    Ok(sent)
}

/// Bytes and fds that have arrived and are not yet frames.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    decoder: Decoder,
    /// In the decoder, not yet taken out.
    held_bytes: usize,
    largest_bytes: usize,
    fds: VecDeque<OwnedFd>,
}

impl Inbox {
    fn receive(&mut self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
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
        Ok(got.bytes)
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
