//! Zygotes: warm interpreters, one per template, that fork into sandboxes.
//!
//! Owns: starting them in a read-only view of their template, passing forks on, replacing them.
//! Does not own: what they do after the fork (`kernels/python`, text in `kernels/PROTOCOL.md`).
//!
//! Who runs it: the spawner, as root. A zygote is root with the few capabilities that joining a
//! sandbox needs, has no network, sees nothing but its template read-only, holds no tenant data
//! and runs no tenant code; its children join a sandbox and drop everything before they do.

mod start;

use super::clients::{ClientId, Clients};
use super::stage::Stage;
use super::{Spawner, SpawnerConfig, failed, refusal};
use crate::command::{Answer, Refusal, SandboxKey, Step, TemplateDigest};
use crate::plan::USER_UID;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Forks that wait for one zygote.
const FORKS_WAITING_MAX: usize = 256;
/// A zygote that has not said "warm" by then is given up.
const WARM_MS_MAX: u64 = 60_000;
/// A template whose zygote failed is not tried again before.
const FAILED_PAUSE_MS: u64 = 1_000;
/// A zygote that was warm and older than this did not fail: it was killed, and a successor may be
/// started at once.
const PROVEN_MS: u64 = 2_000;
/// The operation number of a fork request.
const OP_FORK: u32 = 1;
/// Control groups that a fork enters at most.
const ENTRANCES_MAX: usize = 8;

/// A fork that was asked for and not answered yet.
#[derive(Debug)]
struct Waiting {
    client: ClientId,
    number: u64,
    request: [u8; 16],
    /// For the child: init's pidfd, control, stdout, stderr, entrances.
    child_fds: Vec<OwnedFd>,
    /// For the server: control, stdout, stderr.
    server_fds: [OwnedFd; 3],
}

/// One warm interpreter.
#[derive(Debug)]
struct Zygote {
    template: TemplateDigest,
    socket: OwnedFd,
    pidfd: OwnedFd,
    started: Instant,
    warm: bool,
    forks: u32,
    /// Replaced: forks what it has been sent, then ends.
    retired: bool,
    /// Sent to it, in order.
    sent: VecDeque<Waiting>,
    /// Held back until it is warm.
    held: VecDeque<Waiting>,
}

#[derive(Debug)]
pub(super) struct Zygotes {
    zygotes: Vec<Zygote>,
    failures: Vec<(TemplateDigest, Instant)>,
    forks_max: u32,
    age_max: Duration,
}

impl Spawner {
    /// Passes a fork on to the zygote of the template; the answer comes when the child runs.
    pub(super) fn fork(
        &mut self,
        client: ClientId,
        number: u64,
        key: &SandboxKey,
        template: TemplateDigest,
    ) -> Result<(), Refusal> {
        let sandbox = self
            .sandboxes
            .get_ready(key)
            .ok_or_else(|| refusal(Step::SandboxUnknown))?;
        // Not just any template: the one that this sandbox was made from.
        if sandbox.template != template {
            return Err(refusal(Step::TemplateMissing));
        }
        let init = sandbox
            .pidfd
            .as_ref()
            .ok_or_else(|| refusal(Step::SandboxUnknown))?;
        let entrances = self
            .cgroups
            .entrances(&sandbox.group, false)
            .map_err(failed(Step::CgroupAttach))?;
        let waiting = prepare(client, number, init.as_fd(), entrances)?;
        self.zygotes.warm(template, &self.stage, &self.config)?;
        self.zygotes.enqueue(template, waiting)
    }
}

fn prepare(
    client: ClientId,
    number: u64,
    init: BorrowedFd<'_>,
    entrances: Vec<OwnedFd>,
) -> Result<Waiting, Refusal> {
    let step = failed::<Errno>(Step::ZygoteFork);
    let (control, their_control) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(&step)?;
    let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(&step)?;
    let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(&step)?;
    let init = rustix::io::fcntl_dupfd_cloexec(init, 3).map_err(&step)?;
    let mut child_fds = vec![init, their_control, their_stdout, their_stderr];
    child_fds.extend(entrances.into_iter().take(ENTRANCES_MAX));
    let count = u32::try_from(child_fds.len()).expect("at most twelve");
    let mut request = [0u8; 16];
    for (field, value) in request
        .chunks_exact_mut(4)
        .zip([OP_FORK, USER_UID, USER_UID, count])
    {
        field.copy_from_slice(&value.to_le_bytes());
    }
    Ok(Waiting {
        client,
        number,
        request,
        child_fds,
        server_fds: [control, stdout, stderr],
    })
}

impl Zygotes {
    pub(super) fn new(forks_max: u32, age_max: Duration) -> Self {
        Self {
            zygotes: Vec::new(),
            failures: Vec::new(),
            forks_max,
            age_max,
        }
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.zygotes
            .iter()
            .enumerate()
            .map(|(index, z)| (index, z.socket.as_fd()))
    }

    /// Starts a zygote unless there is one.
    pub(super) fn warm(
        &mut self,
        template: TemplateDigest,
        stage: &Stage,
        config: &SpawnerConfig,
    ) -> Result<(), Refusal> {
        if self
            .zygotes
            .iter()
            .any(|z| z.template == template && !z.retired)
        {
            return Ok(());
        }
        self.failures
            .retain(|(_, at)| at.elapsed() < Duration::from_millis(FAILED_PAUSE_MS));
        if self.failures.iter().any(|(failed, _)| *failed == template) {
            return Err(refusal(Step::ZygoteStart));
        }
        let (socket, pidfd) = start::start(template, stage, config)?;
        self.zygotes.push(Zygote::new(template, socket, pidfd));
        Ok(())
    }

    /// Gives a fork to the warm zygote of the template, or holds it back until there is one.
    fn enqueue(&mut self, template: TemplateDigest, waiting: Waiting) -> Result<(), Refusal> {
        let candidates = self
            .zygotes
            .iter_mut()
            .filter(|z| z.template == template && !z.retired);
        let zygote = candidates
            .max_by_key(|z| z.warm)
            .ok_or_else(|| refusal(Step::ZygoteGone))?;
        if zygote.held.len() + zygote.sent.len() >= FORKS_WAITING_MAX {
            return Err(refusal(Step::ZygoteBusy));
        }
        zygote.held.push_back(waiting);
        zygote.send_held();
        Ok(())
    }

    /// Reads what a zygote says: "warm", or the outcome of the oldest fork it was sent.
    pub(super) fn read(&mut self, index: usize, clients: &mut Clients) {
        let Some(zygote) = self.zygotes.get_mut(index) else {
            return;
        };
        match zygote.receive() {
            Received::Warm => {
                zygote.warm = true;
                zygote.send_held();
            }
            Received::Forked(status, pidfd) => zygote.answer(status, pidfd, clients),
            Received::Nothing => {}
            Received::Ended => {
                let mut zygote = self.zygotes.remove(index);
                zygote.refuse_all(clients);
                if !zygote.retired {
                    tracing::error!(template = %zygote.template.to_hex(), "a zygote ended");
                    if !zygote.proven() {
                        self.failures.push((zygote.template, Instant::now()));
                    }
                }
            }
        }
    }

    /// Replaces zygotes that are too old or have forked too often. The successor is started
    /// first and takes over when it is warm, so that nobody waits.
    pub(super) fn renew(&mut self, stage: &Stage, config: &SpawnerConfig) {
        self.give_up_cold();
        self.retire_replaced();
        let worn: Vec<TemplateDigest> = self
            .zygotes
            .iter()
            .filter(|z| z.warm && !z.retired)
            .filter(|z| z.forks >= self.forks_max || z.started.elapsed() >= self.age_max)
            .map(|z| z.template)
            .collect();
        for template in worn {
            let successor = self
                .zygotes
                .iter()
                .any(|z| z.template == template && !z.retired && !z.warm);
            let failed = self.failures.iter().any(|(t, at)| {
                *t == template && at.elapsed() < self.age_max.min(Duration::from_mins(1))
            });
            if successor || failed {
                continue;
            }
            match start::start(template, stage, config) {
                Ok((socket, pidfd)) => self.zygotes.push(Zygote::new(template, socket, pidfd)),
                Err(refusal) => {
                    tracing::error!(%refusal, "renewing a zygote failed; the old one goes on");
                    self.failures.push((template, Instant::now()));
                }
            }
        }
    }

    /// An old zygote whose successor is warm gets no more forks, and ends when it has none.
    fn retire_replaced(&mut self) {
        for index in 0..self.zygotes.len() {
            let this = &self.zygotes[index];
            let replaced = self.zygotes.iter().any(|z| {
                z.template == this.template && z.warm && !z.retired && z.started > this.started
            });
            if replaced {
                self.zygotes[index].retired = true;
            }
        }
        // Closing its socket ends it.
        self.zygotes
            .retain(|z| !(z.retired && z.sent.is_empty() && z.held.is_empty()));
    }

    fn give_up_cold(&mut self) {
        for zygote in &self.zygotes {
            if !zygote.warm && zygote.started.elapsed() > Duration::from_millis(WARM_MS_MAX) {
                let _ = rustix::process::pidfd_send_signal(
                    &zygote.pidfd,
                    rustix::process::Signal::KILL,
                );
            }
        }
    }
}

enum Received {
    Warm,
    Forked(i32, Option<OwnedFd>),
    Nothing,
    Ended,
}

impl Zygote {
    /// One that has just been started.
    fn new(template: TemplateDigest, socket: OwnedFd, pidfd: OwnedFd) -> Self {
        Self {
            template,
            socket,
            pidfd,
            started: Instant::now(),
            warm: false,
            forks: 0,
            retired: false,
            sent: VecDeque::new(),
            held: VecDeque::new(),
        }
    }

    fn proven(&self) -> bool {
        self.warm && self.started.elapsed() >= Duration::from_millis(PROVEN_MS)
    }

    fn send_held(&mut self) {
        while self.warm && !self.held.is_empty() {
            let Some(mut waiting) = self.held.pop_front() else {
                return;
            };
            match send_request(&self.socket, &waiting) {
                Ok(()) => {
                    // The child has its own copies; ours would keep its pipes open.
                    waiting.child_fds.clear();
                    self.forks += 1;
                    self.sent.push_back(waiting);
                }
                Err(_) => {
                    self.held.push_front(waiting);
                    return;
                }
            }
        }
    }

    fn receive(&self) -> Received {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut reply = [0u8; 8];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let length = match recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut reply)],
            &mut ancillary,
            flags,
        ) {
            Ok(message) => message.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Received::Nothing,
            Err(_) => return Received::Ended,
        };
        let pidfd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if length != reply.len() {
            return Received::Ended;
        }
        if !self.warm {
            return Received::Warm;
        }
        let [a, b, c, d, ..] = reply;
        Received::Forked(i32::from_le_bytes([a, b, c, d]), pidfd)
    }

    fn answer(&mut self, status: i32, pidfd: Option<OwnedFd>, clients: &mut Clients) {
        let Some(waiting) = self.sent.pop_front() else {
            return;
        };
        match pidfd {
            Some(pidfd) if status == 0 => {
                let [control, stdout, stderr] = &waiting.server_fds;
                let fds = [
                    control.as_fd(),
                    stdout.as_fd(),
                    stderr.as_fd(),
                    pidfd.as_fd(),
                ];
                clients.answer(waiting.client, waiting.number, &Answer::Done, &fds);
            }
            _ => {
                let refused = Refusal {
                    step: Step::ZygoteFork,
                    errno: status.saturating_neg(),
                };
                clients.answer(
                    waiting.client,
                    waiting.number,
                    &Answer::Refused(refused),
                    &[],
                );
            }
        }
        self.send_held();
    }

    fn refuse_all(&mut self, clients: &mut Clients) {
        for waiting in self.sent.drain(..).chain(self.held.drain(..)) {
            let refused = Answer::Refused(refusal(Step::ZygoteGone));
            clients.answer(waiting.client, waiting.number, &refused, &[]);
        }
    }
}

fn send_request(socket: &OwnedFd, waiting: &Waiting) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(12))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = waiting.child_fds.iter().map(AsFd::as_fd).collect();
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::TOOBIG);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(
        socket,
        &[IoSlice::new(&waiting.request)],
        &mut ancillary,
        flags,
    )
    .map(|_| ())
}
