//! One connection to the init of a sandbox: frames and file descriptors in both directions.
//!
//! Writing needs no task: the caller's own thread writes the frame when the socket takes it, and
//! only what is left over waits for the link task. Reading is done by that one task alone. What
//! nobody waits for (that a run which is over was handled) travels with the next frame.

use super::error::HostError;
use super::inbox::Inbox;
use bytes::Bytes;
use crownest_init::frame::{BODY_BYTES_MAX, FRAME_FDS_MAX, Frame, HEAD_BYTES_MAX};
use crownest_init::link::{Call, Request};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes that wait for an init that does not read, before callers have to wait as well. One
/// frame of a large file fits on top of it.
const OUTGOING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What one read takes from the socket; the buffer is shared by all links of a thread.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Frames in one system call.
const CHUNKS_PER_SEND: usize = 8;
/// Longest time that a frame which nobody waits for is held back for another to travel with. Init
/// keeps what it acknowledges until then.
const PATIENCE: Duration = Duration::from_millis(20);

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
    /// Everything in it may wait until then.
    patient_until: Option<Instant>,
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
        out.patient_until = None;
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

    /// Leaves a small call to the link task: for acknowledgements of output, which must not cost
    /// the caller a system call before it handles more.
    pub(super) fn send_later(&self, request: Request) {
        self.leave(request, None);
    }

    /// As [`Link::send_later`], for what makes no difference to anybody until much later: it goes
    /// with the next frame, or after [`PATIENCE`]. By itself it would wake init, and cost it and
    /// this process a system call each, at the moment when the next run arrives.
    pub(super) fn send_sometime(&self, request: Request) {
        self.leave(request, Some(Instant::now() + PATIENCE));
    }

    fn leave(&self, request: Request, until: Option<Instant>) {
        let Ok(chunk) = chunk(0, request, Bytes::new(), Vec::new()) else {
            return;
        };
        let mut out = self.outgoing();
        if out.broken {
            return;
        }
        out.patient_until = match until {
            Some(until) if out.chunks.is_empty() => Some(until),
            Some(_) => out.patient_until,
            None => None,
        };
        out.bytes += chunk.len();
        out.chunks.push_back(chunk);
        drop(out);
        self.waiting.notify_one();
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
        while !out.chunks.is_empty() {
            match write_some(self.socket.as_fd(), &out.chunks) {
                Ok(sent) => out.forget_sent(sent),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        out.patient_until = None;
        Ok(true)
    }

    /// For the link task: waits until the socket has something to read or, when something waits
    /// to be written, takes it; writes; returns whether there may be something to read.
    pub(super) async fn turn(&self) -> io::Result<bool> {
        let (patient_until, pending) = {
            let out = self.outgoing();
            let until = out.patient_until;
            (until, until.is_none() && !out.chunks.is_empty())
        };
        let patience = async {
            match patient_until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let interest = if pending {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        let ready = tokio::select! {
            biased;
            () = self.waiting.notified(), if !pending => {
                // Most often the socket takes it at once, without a trip through epoll.
                if self.outgoing().patient_until.is_none() {
                    self.flush()?;
                }
                return Ok(false);
            }
            () = patience => {
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
        let mut got = None;
        let read = self.socket.try_io(Interest::READABLE, || {
            let received =
                READ_BUFFER.with_borrow_mut(|buffer| inbox.receive(self.socket.as_fd(), buffer))?;
            got = Some(received.bytes);
            // What did not fill the buffer was all there is: to tell the event loop so saves the
            // system call that would find nothing.
            if received.is_all {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        would_block_is_fine(read)?;
        Ok(got)
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

impl Outgoing {
    fn forget_sent(&mut self, sent: usize) {
        self.bytes -= sent;
        let mut left = sent;
        while let Some(chunk) = self.chunks.front_mut() {
            // They went with the first byte.
            chunk.fds.clear();
            let part = left.min(chunk.len() - chunk.sent);
            chunk.sent += part;
            left -= part;
            if chunk.sent < chunk.len() {
                return;
            }
            self.chunks.pop_front();
            if left == 0 {
                return;
            }
        }
    }
}

/// One non-blocking write: the first chunk, and those after it up to the next with descriptors.
fn write_some(socket: BorrowedFd<'_>, chunks: &VecDeque<Chunk>) -> Result<usize, Errno> {
    let mut parts = [IoSlice::new(&[]); 2 * CHUNKS_PER_SEND];
    let mut used = 0;
    let together = chunks
        .iter()
        .take(CHUNKS_PER_SEND)
        .enumerate()
        .take_while(|(place, chunk)| *place == 0 || chunk.fds.is_empty());
    for (_, chunk) in together {
        parts[used] = IoSlice::new(chunk.head.get(chunk.sent..).unwrap_or_default());
        let body_sent = chunk.sent.saturating_sub(chunk.head.len());
        parts[used + 1] = IoSlice::new(&chunk.body[body_sent..]);
        used += 2;
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = chunks
        .front()
        .map(|chunk| chunk.fds.iter().map(AsFd::as_fd).collect())
        .unwrap_or_default();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::TOOBIG);
    }
    sendmsg(
        socket,
        &parts[..used],
        &mut control,
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )
}
