//! The command socket: who may connect, datagrams in, answers out.
//!
//! Who runs it: the spawner, as root. What comes in is not trusted.

use super::{SpawnerConfig, SpawnerError};
use crate::command::{Answer, COMMAND_BYTES, encode_answer};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept_with, bind, listen, recv, sendmsg, socket_with,
};
use std::fs::{self, Permissions};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};

/// Connections at once: the server's, and the next one's while it restarts.
const CLIENTS_MAX: usize = 8;
/// Commands taken from one client before others get their turn.
const COMMANDS_PER_TURN_MAX: usize = 32;

/// Names one connection; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientId(u64);

#[derive(Debug)]
pub(super) struct Clients {
    listener: OwnedFd,
    connections: Vec<(ClientId, OwnedFd)>,
    server_uid: u32,
    next: u64,
    taken: usize,
}

impl Clients {
    /// Binds the command socket anew.
    pub(super) fn listen(config: &SpawnerConfig) -> Result<Self, SpawnerError> {
        let path = config.layout.spawner_socket();
        let listener = (|| -> io::Result<OwnedFd> {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            bind(&socket, &SocketAddrUnix::new(&path)?)?;
            chown(&path, Some(config.server_uid), Some(config.server_gid))?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            listen(&socket, 8)?;
            Ok(socket)
        })()
        .map_err(|source| SpawnerError::Listen { path, source })?;
        Ok(Self {
            listener,
            connections: Vec::new(),
            server_uid: config.server_uid,
            next: 1,
            taken: 0,
        })
    }

    pub(super) fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = (ClientId, BorrowedFd<'_>)> {
        self.connections.iter().map(|(id, fd)| (*id, fd.as_fd()))
    }

    /// Takes one connection, if its peer is the server's user or root.
    pub(super) fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(connection) = accept_with(&self.listener, flags) else {
            return;
        };
        let Ok(peer) = rustix::net::sockopt::socket_peercred(&connection) else {
            return;
        };
        let uid = peer.uid.as_raw();
        if uid != self.server_uid && uid != 0 {
            return;
        }
        if self.connections.len() >= CLIENTS_MAX {
            // The oldest belongs to a server that is gone or replaced.
            self.connections.remove(0);
        }
        self.connections.push((ClientId(self.next), connection));
        self.next += 1;
    }

    /// The next datagram of a client, if one is there and its turn is not over.
    pub(super) fn receive(&mut self, client: ClientId) -> Option<Vec<u8>> {
        if self.taken >= COMMANDS_PER_TURN_MAX {
            self.taken = 0;
            return None;
        }
        let index = self.connections.iter().position(|(id, _)| *id == client)?;
        // One byte more than a command, so that a longer datagram is seen as malformed.
        let mut buffer = [0u8; COMMAND_BYTES + 1];
        match recv(&self.connections[index].1, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => {}
            Ok((length, _)) => {
                self.taken += 1;
                return Some(buffer[..length].to_vec());
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                self.taken = 0;
                return None;
            }
            Err(_) => {}
        }
        self.taken = 0;
        self.connections.remove(index);
        None
    }

    /// Sends an answer with its descriptors. A client that is gone or does not read gets none:
    /// what it asked for is found again by `List`.
    pub(super) fn answer(
        &mut self,
        client: ClientId,
        number: u64,
        answer: &Answer,
        fds: &[BorrowedFd<'_>],
    ) {
        let Some(index) = self.connections.iter().position(|(id, _)| *id == client) else {
            return;
        };
        let datagram = encode_answer(number, answer);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return;
        }
        let slice = [IoSlice::new(&datagram)];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if sendmsg(&self.connections[index].1, &slice, &mut ancillary, flags).is_err() {
            self.connections.remove(index);
        }
    }
}
