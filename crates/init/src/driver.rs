//! One kernel driver: its process, its control socket, its two pipes.
//!
//! Owns what is true of a single driver. What a context or a run means is in `contexts.rs` and
//! `runs.rs`. Every byte that a driver says may be forged: it runs tenant code in its process.

use crate::calls::{ReplyTo, refuse};
use crate::meter::{Begun, Meter};
use crate::output::OutputPipe;
use crate::poller::Source;
use crate::processes;
use crate::runs::ActiveRun;
use crate::sys::signals;
use crate::sys::spawn::Exit;
use crownest_init::characters::complete_characters;
use crownest_init::kernel::{BadFrame, KERNEL_FRAME_BYTES_MAX, KernelDecoder, KernelOp};
use crownest_init::link::{BACKGROUND_BYTES_MAX, CallError, CallErrorCode, Death};
use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::Signal;
use std::time::Instant;

/// Frames to a driver that does not read them: one `start` and one `execute`.
const OUTGOING_BYTES_MAX: usize = 2 * KERNEL_FRAME_BYTES_MAX;
/// Capacity kept between frames.
const BUFFER_BYTES_KEPT: usize = 128 * 1024;
const SIGINT: i32 = 2;
const SIGCONT: i32 = 18;

/// What a driver is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ready for whoever comes, or about to be.
    Spare,
    Context(String),
    /// Given up; only its death is awaited.
    Closed,
}

/// Somebody is waiting for `ready`.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) reply: ReplyTo,
    pub(crate) until: Instant,
    /// Sent when it is ready.
    pub(crate) start: Option<KernelOp>,
}

/// The driver's end, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) exit: Option<Exit>,
}

/// One driver process.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) language: String,
    pub(crate) role: Role,
    /// In this pid namespace; also its process group and its session.
    pub(crate) pid: i32,
    /// For a driver that is not our child; a child is seen by SIGCHLD.
    pub(crate) pidfd: Option<Source>,
    /// For a child whose exec has not been seen yet.
    pub(crate) status: Option<Source>,
    pub(crate) control: Control,
    pub(crate) pipes: [OutputPipe; 2],
    pub(crate) background: [Background; 2],
    pub(crate) background_dropped: u64,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) run: Option<ActiveRun>,
    /// Opened for its first run.
    pub(crate) meter: Option<Meter>,
    /// Why init killed it.
    pub(crate) reason: Option<&'static str>,
    /// It closed its control socket: killed then, if it has not ended by itself.
    pub(crate) hung_up_until: Option<Instant>,
    pub(crate) dead: Option<Dead>,
    /// Frames that named no active run or no known event.
    pub(crate) frames_dropped: u64,
}

impl Driver {
    pub(crate) fn context(&self) -> Option<&str> {
        match &self.role {
            Role::Context(context) => Some(context),
            Role::Spare | Role::Closed => None,
        }
    }

    /// Ready, and free for a context?
    pub(crate) fn is_spare(&self, language: &str) -> bool {
        self.role == Role::Spare
            && self.language == language
            && self.waiting.is_none()
            && self.dead.is_none()
            && self.reason.is_none()
    }

    /// Dead, or certain never to read another frame, whether or not the event loop has heard of
    /// it: a cell that is refused for that has not begun.
    pub(crate) fn is_gone(&self) -> bool {
        if self.dead.is_some() || self.reason.is_some() || self.control.is_closed() {
            return true;
        }
        // A socket whose other end is closed; a process that has ended while a child of it holds
        // the socket.
        let control = PollFd::new(&self.control.source, PollFlags::empty());
        let now = Some(&Timespec::default());
        let ready = match &self.pidfd {
            Some(pidfd) => {
                let ended = PollFd::new(pidfd, PollFlags::IN);
                poll(&mut [control, ended], now)
            }
            None => poll(&mut [control], now),
        };
        ready.is_ok_and(|ready| ready > 0)
    }

    /// The run that its frames and output belong to.
    pub(crate) fn active_run(&self) -> Option<u64> {
        self.run
            .as_ref()
            .filter(|run| run.end.is_none())
            .map(|run| run.run)
    }

    /// Is it busy with a query?
    pub(crate) fn is_asked(&self) -> bool {
        self.run.as_ref().is_some_and(ActiveRun::is_query)
    }

    /// Is only the rest of its run's output still to be read?
    pub(crate) fn run_has_ended(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.end.is_some())
    }

    /// Reads its counters right before a run. None when there is nothing to be read: a run is not
    /// refused for that.
    pub(crate) fn begin_metering(&mut self) -> Option<Begun> {
        if self.meter.is_none() {
            self.meter = Meter::open(self.pid).ok();
        }
        self.meter.as_mut()?.begin()
    }

    /// Interrupts the driver itself; wakes it when it has stopped itself.
    pub(crate) fn interrupt(&mut self) {
        if let Some(run) = self.active_run() {
            // A driver that does not read its socket gets the signal all the same.
            let _ = self.control.send(&KernelOp::Interrupt { run });
        }
        self.send(Signal::INT, SIGINT);
        if processes::read(self.pid).is_some_and(|process| matches!(process.state, b'T' | b't')) {
            self.send(Signal::CONT, SIGCONT);
        }
    }

    /// Interrupts everything in its process group.
    pub(crate) fn interrupt_group(&self) {
        let _ = signals::send(self.pid, true, SIGINT);
    }

    fn send(&self, signal: Signal, number: i32) {
        if self.dead.is_some() {
            return;
        }
        let _ = match &self.pidfd {
            Some(pidfd) => rustix::process::pidfd_send_signal(pidfd, signal),
            None => signals::send(self.pid, false, number),
        };
    }

    /// Kills it and everything in its session; its death is seen later, as any other.
    pub(crate) fn kill(&mut self, reason: &'static str) {
        if self.reason.is_none() {
            self.reason = Some(reason);
        }
        if self.dead.is_some() {
            // Its number may be somebody else's by now.
            return;
        }
        self.send(Signal::KILL, 9);
        processes::kill_session(self.pid);
    }

    pub(crate) fn death(&self) -> Death {
        let exit = self.dead.and_then(|dead| dead.exit);
        Death {
            code: exit.and_then(|exit| {
                if let Exit::Code(code) = exit {
                    Some(code)
                } else {
                    None
                }
            }),
            signal: exit.and_then(|exit| {
                if let Exit::Signal(s) = exit {
                    Some(s)
                } else {
                    None
                }
            }),
            reason: self.reason.map(str::to_owned),
        }
    }

    /// Drops output that belongs to nobody at all, as that of a query.
    pub(crate) fn drop_output(&mut self, bytes: usize) {
        self.background_dropped += bytes as u64;
    }

    /// Takes output that belongs to no run: kept up to a limit, counted beyond it.
    pub(crate) fn keep_background(&mut self, index: usize, bytes: &[u8]) {
        let kept = self.background[index].push(bytes);
        self.background_dropped += (bytes.len() - kept) as u64;
    }

    /// Tells the event loop what to watch. `room`: the window of the active run is open.
    pub(crate) fn listen(&mut self, room: bool) -> Result<(), Errno> {
        let readable = match &self.run {
            Some(run) => run.end.is_none() && room,
            None => true,
        } && self.dead.is_none();
        for pipe in &mut self.pipes {
            pipe.listen(readable)?;
        }
        self.control.listen(readable, self.dead.is_none())
    }
}

/// Output of one stream between two runs.
#[derive(Debug, Default)]
pub(crate) struct Background {
    bytes: Vec<u8>,
    full: bool,
}

impl Background {
    /// Returns how many bytes were kept. Once something was dropped everything is, so that what
    /// is kept has no holes.
    fn push(&mut self, bytes: &[u8]) -> usize {
        if self.full {
            return 0;
        }
        let room = BACKGROUND_BYTES_MAX - self.bytes.len();
        let mut kept = bytes.len();
        if kept > room {
            self.full = true;
            kept = complete_characters(&bytes[..room]);
        }
        self.bytes.extend_from_slice(&bytes[..kept]);
        kept
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.full = false;
        std::mem::take(&mut self.bytes)
    }
}

/// The control socket: frames of `kernel.rs`, never blocking.
#[derive(Debug)]
pub(crate) struct Control {
    source: Source,
    closed: bool,
    incoming: KernelDecoder,
    outgoing: Vec<u8>,
    outgoing_sent: usize,
}

impl Control {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            closed: false,
            incoming: KernelDecoder::default(),
            outgoing: Vec::new(),
            outgoing_sent: 0,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    fn listen(&mut self, readable: bool, alive: bool) -> Result<(), Errno> {
        let mut flags = EventFlags::empty();
        if !self.closed && alive {
            if readable {
                flags |= EventFlags::IN;
            }
            if !self.outgoing.is_empty() {
                flags |= EventFlags::OUT;
            }
        }
        self.source.want(flags)
    }

    /// Queues one frame and sends what the socket takes.
    pub(crate) fn send(&mut self, op: &KernelOp) -> Result<(), CallError> {
        let Ok(json) = serde_json::to_vec(op) else {
            return refuse(CallErrorCode::Internal, "a frame could not be encoded");
        };
        if json.len() > KERNEL_FRAME_BYTES_MAX {
            return refuse(CallErrorCode::Invalid, "the code is too large");
        }
        if self.outgoing.len() - self.outgoing_sent + json.len() > OUTGOING_BYTES_MAX {
            return refuse(CallErrorCode::ContextBusy, "the driver does not read");
        }
        let length = u32::try_from(json.len()).expect("at most KERNEL_FRAME_BYTES_MAX");
        self.outgoing.extend_from_slice(&length.to_be_bytes());
        self.outgoing.extend_from_slice(&json);
        self.flush();
        Ok(())
    }

    /// Sends what the socket takes. A broken one is noticed by the next read.
    pub(crate) fn flush(&mut self) {
        while self.outgoing_sent < self.outgoing.len() {
            let rest = &self.outgoing[self.outgoing_sent..];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.source, rest, flags) {
                Ok(count) => self.outgoing_sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => break,
            }
        }
        self.outgoing.clear();
        self.outgoing.shrink_to(BUFFER_BYTES_KEPT);
        self.outgoing_sent = 0;
    }

    /// Reads once; true when something came.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> bool {
        if self.closed {
            return false;
        }
        match rustix::io::read(&self.source, &mut *buffer) {
            Ok(0) => self.closed = true,
            Ok(count) => {
                self.incoming.push(&buffer[..count]);
                return true;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.closed = true,
        }
        false
    }

    /// Bytes that the socket holds now.
    pub(crate) fn waiting(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.source).unwrap_or(0)
    }

    /// Forgets what was read.
    pub(crate) fn discard(&mut self) {
        self.incoming.clear();
    }

    /// Cuts the complete frames out of what was read.
    pub(crate) fn frames(&mut self) -> Result<Vec<Vec<u8>>, BadFrame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.incoming.next_frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn background_output_has_a_limit_and_no_holes() {
        let mut background = Background::default();
        assert_eq!(
            background.push(&[b'a'; BACKGROUND_BYTES_MAX - 1]),
            BACKGROUND_BYTES_MAX - 1
        );
        // The two-byte character does not fit whole.
        assert_eq!(background.push("éb".as_bytes()), 0);
        assert_eq!(background.push(b"c"), 0);
        assert_eq!(background.take().len(), BACKGROUND_BYTES_MAX - 1);
        assert_eq!(background.push(b"c"), 1);
    }
}
