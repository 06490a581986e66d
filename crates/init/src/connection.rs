//! The one connection to the server: frames in, frames out, descriptors with them.
//!
//! Never blocks. What is to be sent waits in a queue that the event loop keeps below
//! [`QUEUE_BYTES_HIGH`]; above it no request is taken and no event is queued.

use crate::calls::Answer;
use crate::poller::{Poller, Source, Token};
use crownest_init::frame::{
    BODY_BYTES_MAX, Decoder, FRAME_FDS_MAX, FrameError, HEAD_BYTES_MAX, encode,
};
use crownest_init::link::{Call, CallError, CallErrorCode, Event, EventKind, Reply, ReplyResult};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::collections::VecDeque;
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// Queued bytes above which nothing more is produced for this connection.
const QUEUE_BYTES_HIGH: usize = 512 * 1024;
/// Small frames are joined up to this size, so that one system call sends many.
const SEGMENT_BYTES: usize = 64 * 1024;
/// Segments handed to one sendmsg.
const SEGMENTS_PER_SEND: usize = 16;
/// Descriptors that came and whose frame did not yet.
const PENDING_FDS_MAX: usize = 4 * FRAME_FDS_MAX;

/// Why a connection has to be dropped.
#[derive(Debug)]
pub(crate) enum ConnectionError {
    /// The peer closed it.
    Closed,
    Receive(Errno),
    Send(Errno),
    Frame(FrameError),
    /// A head that is not a call.
    Call(serde_json::Error),
    /// Fewer descriptors came than a head promised, or far too many.
    Descriptors,
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "closed by the server"),
            Self::Receive(error) => write!(f, "receive: {error}"),
            Self::Send(error) => write!(f, "send: {error}"),
            Self::Frame(error) => write!(f, "{error}"),
            Self::Call(error) => write!(f, "head is not a call: {error}"),
            Self::Descriptors => write!(f, "wrong number of descriptors"),
        }
    }
}

/// One request as it came.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) call: Call,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

struct Segment {
    bytes: Vec<u8>,
    sent: usize,
    fd: Option<OwnedFd>,
}

/// The connection.
pub(crate) struct Connection {
    source: Source,
    /// Number of this connection; answers to calls of an earlier one are dropped.
    pub(crate) number: u64,
    decoder: Decoder,
    fds: VecDeque<OwnedFd>,
    queue: VecDeque<Segment>,
    queued_bytes: usize,
    /// The kernel's buffer was full at the last try.
    blocked: bool,
}

impl Connection {
    pub(crate) fn new(poller: &Rc<Poller>, fd: OwnedFd, number: u64) -> Self {
        Self {
            source: Source::new(poller, fd, Token::Link(number)),
            number,
            decoder: Decoder::default(),
            fds: VecDeque::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            blocked: false,
        }
    }

    /// May more be queued, and may a request be taken that will queue more?
    pub(crate) fn has_room(&self) -> bool {
        self.queued_bytes < QUEUE_BYTES_HIGH
    }

    /// Tells the event loop what this connection waits for.
    pub(crate) fn listen(&mut self) -> Result<(), Errno> {
        let mut flags = EventFlags::empty();
        if self.has_room() {
            flags |= EventFlags::IN;
        }
        if !self.queue.is_empty() {
            flags |= EventFlags::OUT;
        }
        self.source.want(flags)
    }

    /// Reads once. The frames that are complete then come from [`Connection::next_call`].
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Result<(), ConnectionError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = match recvmsg(&self.source, &mut parts, &mut ancillary, flags) {
            Ok(message) => message,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(ConnectionError::Receive(error)),
        };
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = part {
                self.fds.extend(fds);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > PENDING_FDS_MAX {
            return Err(ConnectionError::Descriptors);
        }
        if message.bytes == 0 {
            return Err(ConnectionError::Closed);
        }
        self.decoder.push(&buffer[..message.bytes]);
        Ok(())
    }

    /// The next complete request, if there is room for its answer.
    pub(crate) fn next_call(&mut self) -> Result<Option<Incoming>, ConnectionError> {
        if !self.has_room() {
            return Ok(None);
        }
        let Some(frame) = self.decoder.next_frame().map_err(ConnectionError::Frame)? else {
            return Ok(None);
        };
        let call: Call = serde_json::from_slice(&frame.head).map_err(ConnectionError::Call)?;
        let count = usize::try_from(call.fds).unwrap_or(usize::MAX);
        if count > FRAME_FDS_MAX || count > self.fds.len() {
            return Err(ConnectionError::Descriptors);
        }
        let fds = self.fds.drain(..count).collect();
        Ok(Some(Incoming {
            call,
            body: frame.body,
            fds,
        }))
    }

    /// Queues the answer to call `id`.
    pub(crate) fn reply(&mut self, id: u64, result: Result<Answer, CallError>) {
        let (result, body, fd) = match result {
            Ok(Answer { reply, body, fd }) => (ReplyResult::Ok(reply), body, fd),
            Err(error) => (ReplyResult::Error(error), Vec::new(), None),
        };
        let fds = u32::from(fd.is_some());
        let sent = self.push(
            &Event {
                fds,
                kind: EventKind::Reply { id, result },
            },
            &body,
            fd,
        );
        if !sent {
            let error = CallError {
                code: CallErrorCode::FileTooLarge,
                message: "the answer does not fit into one frame".to_owned(),
            };
            let result = ReplyResult::Error(error);
            self.push(
                &Event {
                    fds: 0,
                    kind: EventKind::Reply { id, result },
                },
                &[],
                None,
            );
        }
    }

    /// Queues an event that belongs to no call.
    pub(crate) fn event(&mut self, kind: EventKind, fd: Option<OwnedFd>) {
        self.push(
            &Event {
                fds: u32::from(fd.is_some()),
                kind,
            },
            &[],
            fd,
        );
    }

    /// Queues a stored event; it stays where it is until it is acknowledged.
    pub(crate) fn stored(&mut self, kind: &EventKind, body: &[u8]) {
        // `Event` adds nothing to its kind when no descriptor goes with it.
        if let Ok(head) = serde_json::to_vec(kind) {
            self.push_frame(&head, body, None);
        }
    }

    fn push(&mut self, event: &Event, body: &[u8], fd: Option<OwnedFd>) -> bool {
        serde_json::to_vec(event).is_ok_and(|head| self.push_frame(&head, body, fd))
    }

    fn push_frame(&mut self, head: &[u8], body: &[u8], fd: Option<OwnedFd>) -> bool {
        if head.len() > HEAD_BYTES_MAX || body.len() > BODY_BYTES_MAX {
            return false;
        }
        // Descriptors travel with the first byte of a send, so their frame starts a segment.
        let joinable = fd.is_none()
            && self
                .queue
                .back()
                .is_some_and(|last| last.bytes.len() < SEGMENT_BYTES);
        if !joinable {
            self.queue.push_back(Segment {
                bytes: Vec::new(),
                sent: 0,
                fd,
            });
        }
        if let Some(last) = self.queue.back_mut() {
            let before = last.bytes.len();
            encode(head, body, &mut last.bytes);
            self.queued_bytes += last.bytes.len() - before;
        }
        true
    }

    /// The kernel has room again.
    pub(crate) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Sends what the kernel takes.
    pub(crate) fn flush(&mut self) -> Result<(), ConnectionError> {
        while !self.queue.is_empty() && !self.blocked {
            match self.send_some() {
                Ok(count) => self.forget_sent(count),
                Err(Errno::AGAIN) => self.blocked = true,
                Err(Errno::INTR) => {}
                Err(error) => return Err(ConnectionError::Send(error)),
            }
        }
        Ok(())
    }

    /// One sendmsg: segments up to the next one that carries a descriptor.
    fn send_some(&self) -> Result<usize, Errno> {
        let mut parts = Vec::with_capacity(SEGMENTS_PER_SEND);
        for (index, segment) in self.queue.iter().take(SEGMENTS_PER_SEND).enumerate() {
            if index > 0 && segment.fd.is_some() {
                break;
            }
            parts.push(IoSlice::new(&segment.bytes[segment.sent..]));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = self
            .queue
            .front()
            .and_then(|segment| segment.fd.as_ref())
            .map(AsFd::as_fd);
        if let Some(fd) = &fds {
            ancillary.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(&self.source, &parts, &mut ancillary, flags)
    }

    fn forget_sent(&mut self, mut count: usize) {
        self.queued_bytes -= count;
        while let Some(segment) = self.queue.front_mut() {
            segment.fd = None;
            let left = segment.bytes.len() - segment.sent;
            if count < left {
                segment.sent += count;
                return;
            }
            count -= left;
            self.queue.pop_front();
            if count == 0 {
                return;
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Connection {{ number: {}, queued: {} }}",
            self.number, self.queued_bytes
        )
    }
}

/// An answer that is only a [`Reply`].
impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self {
            reply,
            ..Self::default()
        }
    }
}
