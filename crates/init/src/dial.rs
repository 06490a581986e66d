//! `Dial`: a TCP connection to a port on the sandbox's loopback, handed to the server.
//!
//! Loopback answers at once, except when a listener's queue is full; that is waited for in the
//! event loop, for a bounded time.

use crate::calls::{Answer, Handled, ReplyTo, refuse};
use crate::clock;
use crate::host::{EGRESS_PORT, Host};
use crate::output::set_nonblocking;
use crate::poller::{Source, Token};
use crownest_init::link::CallErrorCode;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Time for a listener to take a connection.
const DIAL_MS_MAX: u64 = 3_000;
/// Attempts that wait at the same time.
const DIALS_MAX: usize = 64;

/// A connection that is being made.
#[derive(Debug)]
pub(crate) struct Dial {
    reply: ReplyTo,
    socket: Source,
    port: u16,
    family: AddressFamily,
    pub(crate) until: Instant,
}

/// What an attempt came to.
enum Attempt {
    Connected(OwnedFd),
    Pending(OwnedFd),
    Refused,
}

impl Host {
    /// `Dial`. The descriptor in the answer is non-blocking.
    pub(crate) fn dial(&mut self, to: ReplyTo, port: u16) -> Handled {
        // The egress listener is for programs in the sandbox, never for visitors of a port.
        if port == 0 || (port == EGRESS_PORT && self.egress.is_some()) {
            return refuse(CallErrorCode::PortClosed, "that port cannot be reached");
        }
        if self.dials.len() >= DIALS_MAX {
            return refuse(
                CallErrorCode::TooMany,
                "too many connections are being made",
            );
        }
        self.dial_family(to, port, AddressFamily::INET)
    }

    fn dial_family(&mut self, to: ReplyTo, port: u16, family: AddressFamily) -> Handled {
        match attempt(port, family) {
            Ok(Attempt::Connected(fd)) => Ok(Some(Answer {
                fd: Some(fd),
                ..Answer::default()
            })),
            Ok(Attempt::Pending(fd)) => self.await_dial(to, port, family, fd),
            Ok(Attempt::Refused) | Err(_) if family == AddressFamily::INET => {
                self.dial_family(to, port, AddressFamily::INET6)
            }
            Ok(Attempt::Refused) | Err(_) => {
                refuse(CallErrorCode::PortClosed, "nothing listens on that port")
            }
        }
    }

    fn await_dial(
        &mut self,
        reply: ReplyTo,
        port: u16,
        family: AddressFamily,
        fd: OwnedFd,
    ) -> Handled {
        let key = self.new_key();
        let mut socket = Source::new(&self.poller, fd, Token::Dial(key));
        if let Err(error) = socket.want(EventFlags::OUT) {
            return refuse(
                CallErrorCode::Internal,
                format!("watch the connection: {error}"),
            );
        }
        let until = clock::now() + Duration::from_millis(DIAL_MS_MAX);
        self.dials.insert(
            key,
            Dial {
                reply,
                socket,
                port,
                family,
                until,
            },
        );
        Ok(None)
    }

    /// A pending connection has been made, or refused.
    pub(crate) fn dial_ready(&mut self, key: u64) {
        let Some(dial) = self.dials.remove(&key) else {
            return;
        };
        let connected = matches!(sockopt::socket_error(&dial.socket), Ok(Ok(())));
        let handled = match (connected, dial.socket.duplicate()) {
            (true, Ok(fd)) => Ok(Some(Answer {
                fd: Some(fd),
                ..Answer::default()
            })),
            (true, Err(error)) => refuse(CallErrorCode::Internal, format!("keep: {error}")),
            (false, _) if dial.family == AddressFamily::INET => {
                self.dial_family(dial.reply, dial.port, AddressFamily::INET6)
            }
            (false, _) => refuse(CallErrorCode::PortClosed, "nothing listens on that port"),
        };
        self.answer_handled(dial.reply, handled);
    }

    pub(crate) fn expire_dials(&mut self, now: Instant) {
        let late: Vec<u64> = self
            .dials
            .iter()
            .filter(|(_, dial)| dial.until <= now)
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            if let Some(dial) = self.dials.remove(&key) {
                let refused = refuse(CallErrorCode::PortClosed, "the listener does not accept");
                self.answer(dial.reply, refused);
            }
        }
    }
}

fn attempt(port: u16, family: AddressFamily) -> Result<Attempt, Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    set_nonblocking(&socket)?;
    let address: SocketAddr = if family == AddressFamily::INET {
        (Ipv4Addr::LOCALHOST, port).into()
    } else {
        (Ipv6Addr::LOCALHOST, port).into()
    };
    match connect(&socket, &address) {
        Ok(()) => Ok(Attempt::Connected(socket)),
        Err(Errno::INPROGRESS) => Ok(Attempt::Pending(socket)),
        Err(_) => Ok(Attempt::Refused),
    }
}
