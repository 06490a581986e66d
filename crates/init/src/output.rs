//! One stdout or stderr of a tenant process, read without ever waiting for it, and not more often
//! than it is worth.

use crate::clock;
use crate::pace::Pace;
use crate::poller::{Poller, Source, Token};
use crownest_init::characters::complete_characters;
use crownest_init::link::{OUTPUT_CHUNK_BYTES_MAX, Stream};
use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

/// Room in the pipe of a busy program: what it prints during a rest and while this process waits
/// for a processor. The memory counts for the sandbox, and only as far as it is in use.
const BUSY_PIPE_BYTES: usize = 256 * 1024;

/// What a terminal may still hold of a program that has ended: more than the kernel's buffers of
/// one, and a bound for what others go on printing there.
const TERMINAL_REST_BYTES_MAX: usize = 256 * 1024;

/// What one read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Whole characters, as far as the program wrote whole ones; may be empty while the rest of
    /// a character is awaited.
    Bytes(Vec<u8>),
    /// Nothing there now.
    Empty,
    /// Nobody can write any more.
    End,
}

/// A pipe's read end and the start of a character that was cut by the last read.
#[derive(Debug)]
pub(crate) struct OutputPipe {
    source: Source,
    pub(crate) stream: Stream,
    cut: Vec<u8>,
    ended: bool,
    pace: Pace,
    /// Somebody takes what is read.
    wanted: bool,
    enlarged: bool,
    /// It is the user's side of a terminal, which gives a few KiB at a time.
    is_terminal: bool,
}

impl OutputPipe {
    pub(crate) fn new(
        poller: &Rc<Poller>,
        fd: OwnedFd,
        token: Token,
        stream: Stream,
    ) -> Result<Self, Errno> {
        set_nonblocking(&fd)?;
        Ok(Self {
            source: Source::new(poller, fd, token),
            stream,
            cut: Vec::new(),
            ended: false,
            pace: Pace::default(),
            wanted: false,
            enlarged: false,
            is_terminal: false,
        })
    }

    /// As [`OutputPipe::new`], for what programs in a terminal print.
    pub(crate) fn of_terminal(
        poller: &Rc<Poller>,
        fd: OwnedFd,
        token: Token,
    ) -> Result<Self, Errno> {
        Ok(Self {
            is_terminal: true,
            ..Self::new(poller, fd, token, Stream::Stdout)?
        })
    }

    /// In or out of the event loop.
    pub(crate) fn listen(&mut self, on: bool) -> Result<(), Errno> {
        self.wanted = on && !self.ended;
        let flags = if self.wanted && self.pace.rests_until().is_none() {
            EventFlags::IN
        } else {
            EventFlags::empty()
        };
        self.source.want(flags)
    }

    /// Bytes that are in the pipe now. Everything a program wrote before it ended, or before its
    /// `done`, is among them, so this is where its output ends however much others still write.
    pub(crate) fn waiting(&self) -> usize {
        if self.ended {
            return 0;
        }
        if self.is_terminal {
            // The kernel moves what was printed from one side to the other when it has time, and
            // counts only what has arrived. A reader waits for the rest of it.
            return TERMINAL_REST_BYTES_MAX;
        }
        let bytes = rustix::io::ioctl_fionread(&self.source).unwrap_or(0);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Reads at most `limit` bytes through `buffer`; returns how many the pipe gave as well.
    pub(crate) fn read(&mut self, buffer: &mut [u8], limit: usize) -> (Piece, usize) {
        if self.ended {
            return (Piece::End, 0);
        }
        let room = limit
            .min(OUTPUT_CHUNK_BYTES_MAX - self.cut.len())
            .min(buffer.len());
        match self.fill(&mut buffer[..room]) {
            Ok(0) => {
                self.ended = true;
                let _ = self.listen(false);
                (Piece::End, 0)
            }
            Ok(count) => (Piece::Bytes(self.join(&buffer[..count])), count),
            Err(Errno::AGAIN | Errno::INTR) => (Piece::Empty, 0),
            Err(_) => {
                self.ended = true;
                let _ = self.listen(false);
                (Piece::End, 0)
            }
        }
    }

    /// One read; of a terminal as many as it takes to get what is there.
    fn fill(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut filled = rustix::io::read(&self.source, &mut *buffer)?;
        while self.is_terminal && filled > 0 && filled < buffer.len() {
            match rustix::io::read(&self.source, &mut buffer[filled..]) {
                Ok(count) if count > 0 => filled += count,
                // Whatever it is, it comes again at the next read.
                _ => break,
            }
        }
        Ok(filled)
    }

    /// As [`OutputPipe::read`], for the event loop: what is busy rests until it is due again.
    pub(crate) fn read_paced(&mut self, buffer: &mut [u8], now: Instant) -> Piece {
        let (piece, count) = self.read(buffer, OUTPUT_CHUNK_BYTES_MAX);
        if count == 0 {
            self.pace.empty();
            return piece;
        }
        // A character that was cut takes the place of at most three bytes.
        let more = count + 3 >= OUTPUT_CHUNK_BYTES_MAX.min(buffer.len());
        self.pace.read(now, more);
        if self.rests() && !self.enlarged && !self.is_terminal {
            self.enlarged = true;
            // Refused to a user with many pipes: the program waits a little more often then.
            let _ = rustix::pipe::fcntl_setpipe_size(&self.source, BUSY_PIPE_BYTES);
        }
        piece
    }

    /// What it holds was most likely printed before what another channel brings now.
    pub(crate) fn is_busy(&self) -> bool {
        self.pace.is_busy(clock::now())
    }

    /// Is something in it left there on purpose?
    fn rests(&self) -> bool {
        self.pace.rests_until().is_some()
    }

    /// When [`OutputPipe::is_due`] will be true, for the clock of the event loop.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.pace.rests_until().filter(|_| self.wanted)
    }

    /// Ends a rest that is over. True when it has to be read for that.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.pace.wake(now) && self.wanted
    }

    /// Ends a rest at once: what is in the pipe came before something else that is to be told.
    pub(crate) fn rouse(&mut self) {
        self.pace.calm();
    }

    fn join(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut whole = std::mem::take(&mut self.cut);
        whole.extend_from_slice(bytes);
        let end = complete_characters(&whole);
        self.cut.extend_from_slice(&whole[end..]);
        whole.truncate(end);
        whole
    }

    /// What is left of a character that never became whole.
    pub(crate) fn take_cut(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.cut)
    }

    /// Can nobody write here any more, and is nothing left to read?
    pub(crate) fn is_over(&self) -> bool {
        if self.ended {
            return true;
        }
        let mut fds = [PollFd::new(&self.source, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let _ = poll(&mut fds, Some(&now));
        fds[0].revents().contains(PollFlags::HUP) && !fds[0].revents().contains(PollFlags::IN)
    }

    /// For [`crate::sinks`], when the owner is gone but somebody still holds the other end.
    pub(crate) fn into_source(self) -> Source {
        self.source
    }
}

pub(crate) fn set_nonblocking<F: AsFd>(fd: F) -> Result<(), Errno> {
    rustix::io::ioctl_fionbio(fd, true)
}
