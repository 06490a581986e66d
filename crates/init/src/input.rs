//! What is written to processes: a pipe or a terminal, never waited for.
//!
//! A piece is answered when the process's side has taken all of it, so whoever sends one after the
//! other is as fast as the program reads. Does not own what the program says ([`crate::output`]).

use crate::calls::{Answer, Handled, ReplyTo, done, refuse};
use crate::host::Host;
use crate::output::set_nonblocking;
use crate::poller::{Poller, Source, Token};
use crownest_init::link::{CallError, CallErrorCode};
use crownest_init::terminal::{
    EXEC_INPUT_BYTES_MAX, EXEC_INPUT_PIECES_MAX, EXEC_INPUT_QUEUE_BYTES_MAX, TerminalSize,
};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Input that waits for the program.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    written: usize,
    reply: ReplyTo,
}

/// The writing side of one process's stdin.
#[derive(Debug)]
pub(crate) struct Input {
    source: Source,
    is_terminal: bool,
    pieces: VecDeque<Piece>,
    waiting_bytes: usize,
    /// Close it behind the last piece.
    ends: bool,
}

/// Answers that are due.
type Due = Vec<(ReplyTo, Result<Answer, CallError>)>;

fn closed() -> CallError {
    CallError {
        code: CallErrorCode::InputNotAwaited,
        message: "the process reads nothing any more".into(),
    }
}

impl Input {
    pub(crate) fn new(
        poller: &Rc<Poller>,
        fd: OwnedFd,
        token: Token,
        is_terminal: bool,
    ) -> Result<Self, Errno> {
        set_nonblocking(&fd)?;
        Ok(Self {
            source: Source::new(poller, fd, token),
            is_terminal,
            pieces: VecDeque::new(),
            waiting_bytes: 0,
            ends: false,
        })
    }

    /// The group that the terminal's keys signal; none for a pipe, and where nobody has it.
    pub(crate) fn foreground(&self) -> Option<i32> {
        if !self.is_terminal {
            return None;
        }
        let group = tcgetpgrp(&self.source).ok()?.as_raw_nonzero().get();
        // A session that has gone leaves numbers that mean everybody, or init itself.
        (group > 1).then_some(group)
    }

    fn take(&mut self, bytes: Vec<u8>, reply: ReplyTo) -> Result<(), CallError> {
        if self.ends {
            return Err(closed());
        }
        let full = self.waiting_bytes + bytes.len() > EXEC_INPUT_QUEUE_BYTES_MAX
            || self.pieces.len() >= EXEC_INPUT_PIECES_MAX;
        if full {
            return refuse(
                CallErrorCode::TooMany,
                "the process does not read its input",
            );
        }
        self.waiting_bytes += bytes.len();
        self.pieces.push_back(Piece {
            bytes,
            written: 0,
            reply,
        });
        Ok(())
    }

    /// Writes what fits. False: nothing can be written any more, and nothing waits.
    fn write(&mut self, due: &mut Due) -> bool {
        while let Some(piece) = self.pieces.front_mut() {
            let rest = &piece.bytes[piece.written..];
            let written = match rest {
                [] => Ok(0),
                rest => rustix::io::write(&self.source, rest),
            };
            match written {
                Ok(count) => {
                    self.waiting_bytes -= count;
                    piece.written += count;
                    if piece.written < piece.bytes.len() {
                        continue;
                    }
                    due.push((piece.reply, Ok(Answer::default())));
                    self.pieces.pop_front();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    return self.source.want(EventFlags::OUT).is_ok();
                }
                Err(_) => {
                    self.refuse_all(due);
                    return false;
                }
            }
        }
        let _ = self.source.want(EventFlags::empty());
        !self.ends
    }

    /// Nobody will read what waits.
    fn refuse_all(&mut self, due: &mut Due) {
        self.waiting_bytes = 0;
        due.extend(
            self.pieces
                .drain(..)
                .map(|piece| (piece.reply, Err(closed()))),
        );
    }
}

impl Host {
    /// `ExecInput`: the answer comes when all of it has been written.
    pub(crate) fn exec_input(&mut self, to: ReplyTo, id: u64, eof: bool, body: Vec<u8>) -> Handled {
        if body.len() > EXEC_INPUT_BYTES_MAX {
            return refuse(CallErrorCode::Invalid, "input: too long for one piece");
        }
        let found = self.execs.iter_mut().find(|(_, exec)| exec.exec == id);
        let Some((key, exec)) = found else {
            return match self.targets.contains(id) {
                true => Err(closed()),
                false => refuse(CallErrorCode::UnknownTarget, "no such process"),
            };
        };
        let key = *key;
        let Some(input) = &mut exec.input else {
            return Err(closed());
        };
        if eof && input.is_terminal {
            return refuse(
                CallErrorCode::Invalid,
                "input: a terminal has no end; its end-of-file character is typed",
            );
        }
        input.take(body, to)?;
        input.ends |= eof;
        self.exec_input_ready(key);
        Ok(None)
    }

    /// The process may have made room.
    pub(crate) fn exec_input_ready(&mut self, key: u64) {
        let mut due = Due::new();
        if let Some(exec) = self.execs.get_mut(&key)
            && let Some(input) = &mut exec.input
            && !input.write(&mut due)
        {
            exec.input = None;
        }
        for (to, result) in due {
            self.answer(to, result);
        }
    }

    /// The process has ended: what it has not read, nobody reads.
    pub(crate) fn end_input(&mut self, key: u64) {
        let mut due = Due::new();
        if let Some(mut input) = self.execs.get_mut(&key).and_then(|exec| exec.input.take()) {
            input.refuse_all(&mut due);
        }
        for (to, result) in due {
            self.answer(to, result);
        }
    }

    /// `Resize`: the foreground group hears of it by SIGWINCH.
    pub(crate) fn exec_resize(&mut self, id: u64, size: TerminalSize) -> Handled {
        if !size.is_possible() {
            return refuse(CallErrorCode::Invalid, "no terminal is that large or small");
        }
        let Some(exec) = self.execs.values().find(|exec| exec.exec == id) else {
            if self.targets.contains(id) {
                return done();
            }
            return refuse(CallErrorCode::UnknownTarget, "no such process");
        };
        match &exec.input {
            Some(input) if input.is_terminal => match set_size(&input.source, size) {
                Ok(()) => done(),
                Err(error) => refuse(CallErrorCode::Internal, format!("resize: {error}")),
            },
            // Its terminal went with it.
            _ if exec.has_exited() => done(),
            _ => refuse(CallErrorCode::Invalid, "the process has no terminal"),
        }
    }
}

/// Tells a terminal how large it is.
pub(crate) fn set_size<F: std::os::fd::AsFd>(terminal: F, size: TerminalSize) -> Result<(), Errno> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size)
}
