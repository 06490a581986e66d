//! The event loop's view of file descriptors: one epoll set, and sources that know whether they
//! are in it.
//!
//! A source that nobody wants to hear from is taken out of the set altogether: epoll reports a
//! hang-up even for an empty interest, and a level-triggered loop would spin on it.

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 64;
const KEY_BITS: u32 = 56;
/// Waits from this on are rounded to milliseconds.
const EXACT_US_MAX: i64 = 5_000;

/// Who an event is for. Keys are never reused, so an event for something that is gone finds
/// nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Listener,
    Signals,
    Deadline,
    Link(u64),
    DriverControl(u64),
    DriverStdout(u64),
    DriverStderr(u64),
    DriverPidfd(u64),
    DriverStatus(u64),
    ExecStdout(u64),
    ExecStderr(u64),
    ExecStatus(u64),
    ExecInput(u64),
    Dial(u64),
    Sink(u64),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, key) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Deadline => (2, 0),
            Self::Link(key) => (3, key),
            Self::DriverControl(key) => (4, key),
            Self::DriverStdout(key) => (5, key),
            Self::DriverStderr(key) => (6, key),
            Self::DriverPidfd(key) => (7, key),
            Self::DriverStatus(key) => (8, key),
            Self::ExecStdout(key) => (9, key),
            Self::ExecStderr(key) => (10, key),
            Self::ExecStatus(key) => (11, key),
            Self::Dial(key) => (12, key),
            Self::Sink(key) => (13, key),
            Self::ExecInput(key) => (14, key),
        };
        (kind << KEY_BITS) | key
    }

    fn decode(data: u64) -> Option<Self> {
        let key = data & ((1 << KEY_BITS) - 1);
        Some(match data >> KEY_BITS {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Deadline,
            3 => Self::Link(key),
            4 => Self::DriverControl(key),
            5 => Self::DriverStdout(key),
            6 => Self::DriverStderr(key),
            7 => Self::DriverPidfd(key),
            8 => Self::DriverStatus(key),
            9 => Self::ExecStdout(key),
            10 => Self::ExecStderr(key),
            11 => Self::ExecStatus(key),
            12 => Self::Dial(key),
            13 => Self::Sink(key),
            14 => Self::ExecInput(key),
            _ => return None,
        })
    }
}

/// One event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: Token,
    pub(crate) flags: EventFlags,
}

/// The epoll set.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> Result<Rc<Self>, Errno> {
        Ok(Rc::new(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
        }))
    }

    /// Waits until something happens or `timeout` is over; fills `ready`.
    pub(crate) fn wait(
        &self,
        timeout: Option<Duration>,
        ready: &mut Vec<Ready>,
    ) -> Result<(), Errno> {
        ready.clear();
        let timeout = timeout.map(timespec);
        let empty = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut events = [empty; EVENTS_MAX];
        let count = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error),
        };
        for event in &events[..count] {
            if let Some(token) = Token::decode(event.data.u64()) {
                ready.push(Ready {
                    token,
                    flags: event.flags,
                });
            }
        }
        Ok(())
    }
}

/// Rounded up: a timer must be over when we wake for it. Short times are exact to a microsecond,
/// long ones to a millisecond, which spares kernels before 5.11 a call that they do not know.
fn timespec(timeout: Duration) -> Timespec {
    // An hour at most keeps the value inside what epoll_wait takes; waking is harmless.
    let us = timeout
        .min(Duration::from_secs(3_600))
        .as_nanos()
        .div_ceil(1000);
    let us = i64::try_from(us).unwrap_or(i64::MAX);
    let us = if us < EXACT_US_MAX {
        us
    } else {
        (us + 999) / 1000 * 1000
    };
    Timespec {
        tv_sec: us / 1_000_000,
        tv_nsec: us % 1_000_000 * 1000,
    }
}

/// A descriptor that can be in the epoll set. Leaves it before it is closed: another process
/// may hold a copy of the same open file, and epoll would go on reporting it.
#[derive(Debug)]
pub(crate) struct Source {
    poller: Rc<Poller>,
    fd: OwnedFd,
    token: Token,
    wanted: EventFlags,
}

impl Source {
    /// Not in the set until [`Source::want`].
    pub(crate) fn new(poller: &Rc<Poller>, fd: OwnedFd, token: Token) -> Self {
        Self {
            poller: Rc::clone(poller),
            fd,
            token,
            wanted: EventFlags::empty(),
        }
    }

    /// Asks for exactly these events from now on.
    pub(crate) fn want(&mut self, flags: EventFlags) -> Result<(), Errno> {
        if flags == self.wanted {
            return Ok(());
        }
        let epoll = &self.poller.epoll;
        let data = EventData::new_u64(self.token.encode());
        if flags.is_empty() {
            epoll::delete(epoll, &self.fd)?;
        } else if self.wanted.is_empty() {
            epoll::add(epoll, &self.fd, data, flags)?;
        } else {
            epoll::modify(epoll, &self.fd, data, flags)?;
        }
        self.wanted = flags;
        Ok(())
    }

    /// The same descriptor for another purpose.
    pub(crate) fn with_token(mut self, token: Token) -> Result<Self, Errno> {
        self.want(EventFlags::empty())?;
        self.token = token;
        Ok(self)
    }

    /// Takes the descriptor out, for good.
    pub(crate) fn duplicate(&self) -> Result<OwnedFd, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.fd, 4)
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = self.want(EventFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up() {
        let of = |ns| {
            let time = timespec(Duration::from_nanos(ns));
            (time.tv_sec, time.tv_nsec)
        };
        assert_eq!(of(0), (0, 0));
        assert_eq!(of(1), (0, 1_000));
        assert_eq!(of(999_001), (0, 1_000_000));
        assert_eq!(of(7_000_001), (0, 8_000_000));
        assert_eq!(of(u64::MAX), (3_600, 0));
    }

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [
            Token::Listener,
            Token::Link(7),
            Token::Sink(1 << 40),
            Token::Dial(3),
        ] {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(200 << KEY_BITS), None);
    }
}
