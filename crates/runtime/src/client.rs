//! The server's side of the command socket.
//!
//! Owns: one connection to the spawner, commands and answers matched by number, reconnecting
//! after the spawner was restarted. Does not own: what the commands mean.
//!
//! Who runs it: the server, unprivileged.

use crate::command::{
    Answer, COMMAND_BYTES, Command, Limits, Network, Refusal, SandboxKey, SandboxStats,
    TemplateDigest, decode_answer, encode_command,
};
use crate::layout::Layout;
use crate::snapshot::SnapshotSize;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recvmsg, send, socket_with,
};
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// Longest time for one command; the spawner answers in milliseconds, a cold zygote in seconds.
const ANSWER_MS_MAX: u64 = 30_000;
/// The same where the files of a snapshot are read or written; the spawner gives up before.
const SNAPSHOT_ANSWER_MS_MAX: u64 = 330_000;
/// File descriptors in one answer.
const ANSWER_FDS_MAX: usize = 4;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("connecting to the spawner: {0}")]
    Connect(io::Error),
    #[error("the connection to the spawner was lost")]
    Disconnected,
    #[error("the spawner did not answer in time")]
    Timeout,
    #[error("the spawner's answer makes no sense")]
    Answer,
    #[error("{0}")]
    Refused(Refusal),
}

/// What to make.
#[derive(Debug, Clone)]
pub struct CreateSpec {
    pub key: SandboxKey,
    pub template: TemplateDigest,
    pub limits: Limits,
    pub network: Network,
    /// What its files are at first, instead of the template's alone.
    pub snapshot: Option<SandboxKey>,
}

/// What was made.
#[derive(Debug)]
pub struct Created {
    /// Where its init listens.
    pub init_socket: PathBuf,
}

/// An interpreter that was forked into a sandbox; its init wants these.
#[derive(Debug)]
pub struct ForkedDriver {
    pub control: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub pidfd: OwnedFd,
}

type Waiter = oneshot::Sender<(Answer, Vec<OwnedFd>)>;

/// Client of one spawner; clones share the connection.
#[derive(Debug, Clone)]
pub struct SpawnerClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    next: AtomicU64,
    connection: Mutex<Option<Arc<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    /// A SEQPACKET socket; the type brings readiness, reads and writes are our own.
    socket: UnixStream,
    waiters: Mutex<Option<HashMap<u64, Waiter>>>,
}

impl SpawnerClient {
    /// Connects to the spawner of an instance.
    ///
    /// # Errors
    /// [`ClientError::Connect`]
    pub fn connect(layout: Layout) -> Result<Self, ClientError> {
        let inner = Inner {
            layout,
            next: AtomicU64::new(1),
            connection: Mutex::new(None),
        };
        let client = Self {
            inner: Arc::new(inner),
        };
        client.connection()?;
        Ok(client)
    }

    /// Makes a sandbox.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn create(&self, spec: &CreateSpec) -> Result<Created, ClientError> {
        let command = Command::Create {
            key: spec.key.clone(),
            template: spec.template,
            limits: spec.limits,
            network: spec.network,
            snapshot: spec.snapshot.clone(),
        };
        match self.call_within(&command, patience(&spec.snapshot)).await? {
            (Answer::Done, _) => {}
            _ => return Err(ClientError::Answer),
        }
        Ok(Created {
            init_socket: self.inner.layout.init_socket(&spec.key),
        })
    }

    /// Where the init of a sandbox listens, whether or not it exists.
    #[must_use]
    pub fn init_socket(&self, key: &SandboxKey) -> PathBuf {
        self.inner.layout.init_socket(key)
    }

    /// Forks an interpreter from the template's zygote into a sandbox.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn fork(
        &self,
        key: &SandboxKey,
        template: TemplateDigest,
    ) -> Result<ForkedDriver, ClientError> {
        let (answer, fds) = self
            .call(&Command::Fork {
                key: key.clone(),
                template,
            })
            .await?;
        if answer != Answer::Done {
            return Err(ClientError::Answer);
        }
        let Ok([control, stdout, stderr, pidfd]) = <[OwnedFd; 4]>::try_from(fds) else {
            return Err(ClientError::Answer);
        };
        Ok(ForkedDriver {
            control,
            stdout,
            stderr,
            pidfd,
        })
    }

    /// Kills a sandbox and waits until nothing is left of it. Fine when there is none.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn destroy(&self, key: &SandboxKey) -> Result<(), ClientError> {
        self.done(&Command::Destroy { key: key.clone() }).await
    }

    /// Stops or continues everything in a sandbox.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn freeze(&self, key: &SandboxKey, frozen: bool) -> Result<(), ClientError> {
        self.done(&Command::Freeze {
            key: key.clone(),
            frozen,
        })
        .await
    }

    /// Gives a sandbox another ceiling of processor time.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn set_cpu(&self, key: &SandboxKey, cpu_millis: u32) -> Result<(), ClientError> {
        let key = key.clone();
        self.done(&Command::SetCpu { key, cpu_millis }).await
    }

    /// Keeps the files of a sandbox that stands still.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn snapshot(
        &self,
        key: &SandboxKey,
        snapshot: &SandboxKey,
    ) -> Result<SnapshotSize, ClientError> {
        let command = Command::Snapshot {
            key: key.clone(),
            snapshot: snapshot.clone(),
        };
        let limit = Duration::from_millis(SNAPSHOT_ANSWER_MS_MAX);
        match self.call_within(&command, limit).await? {
            (Answer::Snapshot(size), _) => Ok(size),
            _ => Err(ClientError::Answer),
        }
    }

    /// Removes what is kept under that name, if anything is.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn remove_snapshot(&self, snapshot: &SandboxKey) -> Result<(), ClientError> {
        let snapshot = snapshot.clone();
        self.done(&Command::SnapshotRemove { snapshot }).await
    }

    /// Every name under which something is kept.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn list_snapshots(&self) -> Result<Vec<SandboxKey>, ClientError> {
        self.keys(|after| Command::SnapshotList { after }).await
    }

    /// What a sandbox uses.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn stats(&self, key: &SandboxKey) -> Result<SandboxStats, ClientError> {
        match self.call(&Command::Stats { key: key.clone() }).await? {
            (Answer::Stats(stats), _) => Ok(stats),
            _ => Err(ClientError::Answer),
        }
    }

    /// Every sandbox of this instance.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn list(&self) -> Result<Vec<SandboxKey>, ClientError> {
        self.keys(|after| Command::List { after }).await
    }

    /// Asks until there are no more.
    async fn keys(
        &self,
        command: impl Fn(Option<SandboxKey>) -> Command,
    ) -> Result<Vec<SandboxKey>, ClientError> {
        let mut all: Vec<SandboxKey> = Vec::new();
        loop {
            let (Answer::Keys(keys), _) = self.call(&command(all.last().cloned())).await? else {
                return Err(ClientError::Answer);
            };
            if keys.is_empty() {
                return Ok(all);
            }
            all.extend(keys);
        }
    }

    /// Starts the zygote of a template.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn warm(&self, template: TemplateDigest) -> Result<(), ClientError> {
        self.done(&Command::Warm { template }).await
    }

    async fn done(&self, command: &Command) -> Result<(), ClientError> {
        match self.call(command).await? {
            (Answer::Done, _) => Ok(()),
            _ => Err(ClientError::Answer),
        }
    }

    async fn call(&self, command: &Command) -> Result<(Answer, Vec<OwnedFd>), ClientError> {
        self.call_within(command, Duration::from_millis(ANSWER_MS_MAX))
            .await
    }

    async fn call_within(
        &self,
        command: &Command,
        limit: Duration,
    ) -> Result<(Answer, Vec<OwnedFd>), ClientError> {
        let connection = self.connection()?;
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match connection.waiters().as_mut() {
            Some(waiters) => waiters.insert(number, sender),
            None => return Err(ClientError::Disconnected),
        };
        // Takes the waiter out again when this future is dropped or times out.
        let _guard = Forget {
            connection: &connection,
            number,
        };
        connection.send(&encode_command(number, command)).await?;
        match tokio::time::timeout(limit, receiver).await {
            Ok(Ok((Answer::Refused(refusal), _))) => Err(ClientError::Refused(refusal)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(ClientError::Disconnected),
            Err(_) => Err(ClientError::Timeout),
        }
    }

    /// The live connection, or a new one with its reader task.
    fn connection(&self) -> Result<Arc<Connection>, ClientError> {
        let mut slot = self
            .inner
            .connection
            .lock()
            .expect("no panic while it is held");
        if let Some(connection) = slot.as_ref().filter(|c| c.waiters().is_some()) {
            return Ok(Arc::clone(connection));
        }
        let connection =
            Arc::new(Connection::open(&self.inner.layout).map_err(ClientError::Connect)?);
        tokio::spawn(read_answers(Arc::clone(&connection)));
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    }
}

fn patience(snapshot: &Option<SandboxKey>) -> Duration {
    Duration::from_millis(match snapshot {
        None => ANSWER_MS_MAX,
        Some(_) => SNAPSHOT_ANSWER_MS_MAX,
    })
}

struct Forget<'a> {
    connection: &'a Connection,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiters) = self.connection.waiters().as_mut() {
            waiters.remove(&self.number);
        }
    }
}

impl Connection {
    fn open(layout: &Layout) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(layout.spawner_socket())?)?;
        let socket = UnixStream::from_std(socket.into())?;
        Ok(Self {
            socket,
            waiters: Mutex::new(Some(HashMap::new())),
        })
    }

    /// `None` when the connection is lost.
    fn waiters(&self) -> MutexGuard<'_, Option<HashMap<u64, Waiter>>> {
        self.waiters.lock().expect("no panic while it is held")
    }

    async fn send(&self, datagram: &[u8]) -> Result<(), ClientError> {
        self.socket
            .async_io(Interest::WRITABLE, || {
                Ok(send(&self.socket, datagram, SendFlags::NOSIGNAL)?)
            })
            .await
            .map(|_| ())
            .map_err(|_| ClientError::Disconnected)
    }
}

/// Hands answers to who waits for them until the connection ends; then everybody hears that.
async fn read_answers(connection: Arc<Connection>) {
    loop {
        let socket = &connection.socket;
        match socket
            .async_io(Interest::READABLE, || receive(socket))
            .await
        {
            Ok((number, answer, fds)) => {
                let waiter = connection
                    .waiters()
                    .as_mut()
                    .and_then(|w| w.remove(&number));
                if let Some(waiter) = waiter {
                    let _ = waiter.send((answer, fds));
                }
            }
            Err(_) => break,
        }
    }
    *connection.waiters() = None;
}

/// One answer; `WouldBlock` when none is there yet.
fn receive(socket: &UnixStream) -> io::Result<(u64, Answer, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ANSWER_FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut datagram = [0u8; COMMAND_BYTES];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let mut slices = [IoSliceMut::new(&mut datagram)];
    let message = recvmsg(socket, &mut slices, &mut ancillary, flags)?;
    let mut fds = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    let (number, answer) =
        decode_answer(&datagram[..message.bytes]).ok_or(io::ErrorKind::InvalidData)?;
    Ok((number, answer, fds))
}
