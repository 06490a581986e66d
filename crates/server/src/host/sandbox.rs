//! One live sandbox: its link, its contexts, its runs and processes.

use super::calls::{Answer, Calls};
use super::context::Contexts;
use super::counters::Counters;
use super::error::HostError;
use super::kept_run::FoundRun;
use super::kernels::Runtimes;
use super::link::Link;
use super::spares::Spares;
use super::spawner::{SandboxKey, SandboxStats, Spawner, TemplateDigest};
use super::target::{Kind, Target};
use super::types::{ClosedReason, ExecTarget, TIMEOUT_MAX, TemplateRef};
use crate::egress;
use bytes::Bytes;
use crownest_init::link::Request;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// init ends a sandbox by itself this much later than the server would: a sandbox that is gone
/// before its time, as the record has it, is then never one whose time was over.
const DEADLINE_SLACK: Duration = Duration::from_millis(500);

/// Longest wait for init to answer a call that does no work of the tenant's.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Runs and processes of one sandbox that are not over, seen from here. Init has its own limits.
const TARGETS_MAX: usize = 1_024;

/// What all sandboxes of a node share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) spawner: Arc<dyn Spawner>,
    pub(super) egress: Arc<egress::Policy>,
    pub(super) counters: Counters,
}

/// A live sandbox.
#[derive(Debug)]
pub struct Sandbox {
    pub(super) key: SandboxKey,
    pub(super) template: TemplateRef,
    pub(super) digest: TemplateDigest,
    pub(super) shared: Arc<Shared>,
    pub(super) socket: PathBuf,
    link: RwLock<Arc<Link>>,
    pub(super) calls: Calls,
    targets: Mutex<HashMap<u64, Arc<Target>>>,
    last_target: AtomicU64,
    pub(super) contexts: Contexts,
    /// The versions that it uses; for one of a pool those of who takes it.
    runtimes: RwLock<Arc<Runtimes>>,
    /// Drivers that no context has claimed.
    pub(super) spares: Spares,
    /// Held from the fork of a driver until a context has claimed it, so that none is stolen.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// Stopped by [`Sandbox::pause`]: init answers when it goes on, and no time runs until then.
    paused: watch::Sender<bool>,
    /// It is stopped, and should not be: somebody goes on trying.
    pub(super) stuck: AtomicBool,
    /// Out-of-memory kills that have been explained.
    oom_kills_seen: AtomicU64,
    pub(super) egress: OnceLock<egress::Proxy>,
    /// The operator's rules, or what its own leave of them.
    pub(super) egress_policy: RwLock<Arc<egress::Policy>>,
    recovered_execs: Mutex<Vec<ExecTarget>>,
    pub(super) recovered_runs: Mutex<Vec<FoundRun>>,
    closed: CancellationToken,
    closed_reason: OnceLock<ClosedReason>,
}

/// Who a sandbox is, before it has a link.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) key: SandboxKey,
    pub(super) template: TemplateRef,
    pub(super) digest: TemplateDigest,
    pub(super) socket: PathBuf,
    /// Its own egress rules, where they are known before it is.
    pub(super) egress: Option<egress::SandboxRules>,
}

impl Sandbox {
    pub(super) fn new(identity: Identity, shared: Arc<Shared>, link: Arc<Link>) -> Arc<Self> {
        let egress_policy = match &identity.egress {
            // Rules that cannot be read any more close rather than open.
            Some(rules) => shared
                .egress
                .narrowed(rules)
                .or_else(|_| shared.egress.narrowed(&egress::SandboxRules::nothing()))
                .map_or_else(|_| Arc::clone(&shared.egress), Arc::new),
            None => Arc::clone(&shared.egress),
        };
        Arc::new(Self {
            egress_policy: RwLock::new(egress_policy),
            key: identity.key,
            template: identity.template,
            digest: identity.digest,
            socket: identity.socket,
            shared,
            link: RwLock::new(link),
            calls: Calls::default(),
            targets: Mutex::default(),
            last_target: AtomicU64::new(0),
            contexts: Contexts::default(),
            runtimes: RwLock::default(),
            spares: Spares::default(),
            opening: tokio::sync::Mutex::default(),
            paused: watch::Sender::new(false),
            stuck: AtomicBool::new(false),
            oom_kills_seen: AtomicU64::new(0),
            egress: OnceLock::new(),
            recovered_execs: Mutex::default(),
            recovered_runs: Mutex::default(),
            closed: CancellationToken::new(),
            closed_reason: OnceLock::new(),
        })
    }

    /// The part of its public id after `sbx_`.
    #[must_use]
    pub fn key(&self) -> &SandboxKey {
        &self.key
    }

    /// The template it was made from.
    #[must_use]
    pub fn template(&self) -> &TemplateRef {
        &self.template
    }

    /// Sets the time from now after which init ends the sandbox, whatever happens to the server.
    ///
    /// # Errors
    /// When init cannot be reached, or `after` is out of range.
    pub async fn set_deadline(&self, after: Duration) -> Result<(), HostError> {
        let request = deadline(after)?;
        self.call(request).await.map(drop)
    }

    /// The versions that it uses.
    #[must_use]
    pub fn runtimes(&self) -> Arc<Runtimes> {
        Arc::clone(&self.runtimes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The versions that contexts opened from now on use.
    pub(super) fn set_runtimes(&self, runtimes: Runtimes) {
        *self
            .runtimes
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(runtimes);
    }

    pub(super) async fn set_environment(
        &self,
        env: BTreeMap<String, String>,
    ) -> Result<(), HostError> {
        self.call(Request::Environment { env }).await.map(drop)
    }

    /// A TCP connection to a port on the sandbox's loopback.
    ///
    /// # Errors
    /// [`HostError::PortClosed`] when nothing listens there.
    pub async fn dial(&self, port: u16) -> Result<TcpStream, HostError> {
        let pending = self.calls.begin();
        let sent = self.link().send(pending.id, Request::Dial { port });
        sent.map_err(|e| self.lost(e))?;
        let answer = self.timed(CALL_TIMEOUT, pending.answer(port)).await;
        let mut answer = answer.map_err(|e| self.lost(e))?;
        let (Some(fd), true) = (answer.fds.pop(), answer.fds.is_empty()) else {
            return Err(HostError::Protocol(
                "dial without exactly one socket".into(),
            ));
        };
        tcp_stream(fd).map_err(|e| HostError::Protocol(format!("dialled socket: {e}")))
    }

    /// What it uses, as its control group counts.
    ///
    /// # Errors
    /// When the spawner cannot be reached or does not know it.
    pub async fn stats(&self) -> Result<SandboxStats, HostError> {
        Ok(self.shared.spawner.stats(&self.key).await?)
    }

    /// Bytes and refusals of its egress proxy; none in network mode `none`.
    #[must_use]
    pub fn egress_counters(&self) -> Option<egress::Counts> {
        self.egress.get().map(egress::Proxy::counts)
    }

    /// What rules of its own leave of the operator's.
    ///
    /// # Errors
    /// [`egress::PolicyError`]
    pub fn narrowed_egress(
        &self,
        rules: &egress::SandboxRules,
    ) -> Result<Arc<egress::Policy>, egress::PolicyError> {
        self.shared.egress.narrowed(rules).map(Arc::new)
    }

    /// Replaces its egress rules, for connections opened from now on.
    pub fn set_egress_policy(&self, policy: Arc<egress::Policy>) {
        *self
            .egress_policy
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&policy);
        if let Some(proxy) = self.egress.get() {
            proxy.set_policy(policy);
        }
    }

    /// Resolves when it is gone.
    pub async fn closed(&self) -> ClosedReason {
        self.closed.cancelled().await;
        self.closed_reason
            .get()
            .copied()
            .unwrap_or(ClosedReason::InitGone)
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Processes found after a restart that nobody has attached to.
    #[must_use]
    pub fn recovered_execs(&self) -> Vec<ExecTarget> {
        self.recovered_execs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether it is stopped, for those that wait for it to go on.
    pub(super) fn paused(&self) -> &watch::Sender<bool> {
        &self.paused
    }

    pub(super) fn closed_token(&self) -> &CancellationToken {
        &self.closed
    }

    /// Ends every call, run and process of it on this side. Only the first reason counts.
    pub(super) fn close(&self, reason: ClosedReason) {
        if self.closed_reason.set(reason).is_err() {
            return;
        }
        // Before the link is shut, so that its task does not take that for a loss and reconnects.
        self.closed.cancel();
        let targets: Vec<_> = self.targets().drain().map(|(_, target)| target).collect();
        for target in targets {
            match reason {
                ClosedReason::ServerStopped => target.detach(),
                ClosedReason::Destroyed => target.end("the sandbox was destroyed"),
                ClosedReason::InitGone => target.end("the sandbox ended"),
            }
        }
        self.contexts.die_all("the sandbox is gone");
        self.link().mark_broken();
        self.calls.lose_all();
    }

    pub(super) fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_link(&self, link: Arc<Link>) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// Sends a call without body and waits for its answer.
    pub(super) async fn call(&self, request: Request) -> Result<Answer, HostError> {
        self.call_with(request, Bytes::new(), Vec::new(), CALL_TIMEOUT)
            .await
    }

    /// Sends a call and waits for its answer.
    pub(super) async fn call_with(
        &self,
        request: Request,
        body: Bytes,
        fds: Vec<OwnedFd>,
        timeout: Duration,
    ) -> Result<Answer, HostError> {
        if self.is_closed() {
            return Err(HostError::SandboxGone);
        }
        let link = self.link();
        if !body.is_empty() {
            link.room().await;
        }
        let pending = self.calls.begin();
        link.send_with(pending.id, request, body, fds)
            .map_err(|e| self.lost(e))?;
        self.timed(timeout, pending.answer(0))
            .await
            .map_err(|e| self.lost(e))
    }

    /// A lost link of a closed sandbox means that the sandbox is gone.
    pub(super) fn lost(&self, error: HostError) -> HostError {
        match error {
            HostError::LinkLost if self.is_closed() => HostError::SandboxGone,
            other => other,
        }
    }

    pub(super) fn targets(&self) -> MutexGuard<'_, HashMap<u64, Arc<Target>>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a run or process where its events will find it.
    pub(super) fn add_target(&self, target: &Arc<Target>) -> Result<(), HostError> {
        let mut targets = self.targets();
        if self.is_closed() {
            return Err(HostError::SandboxGone);
        }
        if targets.len() >= TARGETS_MAX {
            return Err(HostError::TooMany(format!(
                "{TARGETS_MAX} runs and processes"
            )));
        }
        targets.insert(target.id, Arc::clone(target));
        Ok(())
    }

    pub(super) fn remove_target(&self, id: u64) {
        self.targets().remove(&id);
    }

    /// A number for a run or process, unique for the life of the sandbox.
    pub(super) fn next_target(&self) -> u64 {
        self.last_target.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Numbers continue above `floor`.
    pub(super) fn raise_targets(&self, floor: u64) {
        self.last_target.fetch_max(floor, Ordering::Relaxed);
    }

    pub(super) fn set_recovered_execs(&self, execs: Vec<ExecTarget>) {
        *self
            .recovered_execs
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = execs;
    }

    /// Removes a process from the recovered ones; false when it is not among them.
    pub(super) fn claim_recovered_exec(&self, id: u64) -> bool {
        let mut execs = self
            .recovered_execs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = execs.len();
        execs.retain(|exec| exec.id != id);
        execs.len() < before
    }

    /// Whether processes were killed for memory since the last time this was asked.
    pub(super) async fn new_oom_kill(&self) -> bool {
        match self.shared.spawner.stats(&self.key).await {
            Ok(stats) => {
                self.oom_kills_seen
                    .fetch_max(stats.oom_kills, Ordering::AcqRel)
                    < stats.oom_kills
            }
            Err(_) => false,
        }
    }

    /// What the kernel has killed so far is no news: for sandboxes found after a restart in which
    /// nothing has ended meanwhile.
    pub(super) async fn forget_oom_kills(&self) {
        let _ = self.new_oom_kill().await;
    }

    /// Runs that are not over.
    pub(super) fn runs_alive(&self) -> usize {
        self.targets()
            .values()
            .filter(|t| matches!(t.kind, Kind::Run(_)))
            .count()
    }
}

/// Milliseconds on the wire, at least 1.
pub(super) fn millis(duration: Duration, what: &str) -> Result<u64, HostError> {
    if duration > TIMEOUT_MAX {
        return Err(HostError::Invalid(format!(
            "{what} is longer than {TIMEOUT_MAX:?}"
        )));
    }
    Ok(u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1))
}

/// What tells init when to end the sandbox.
pub(super) fn deadline(after: Duration) -> Result<Request, HostError> {
    let after_ms = millis(after.saturating_add(DEADLINE_SLACK), "the deadline")?;
    Ok(Request::Deadline { after_ms })
}

/// A connected TCP socket from init, made fit for tokio.
fn tcp_stream(fd: OwnedFd) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, sockopt};
    let family = sockopt::socket_domain(&fd)?;
    let is_inet = family == AddressFamily::INET || family == AddressFamily::INET6;
    if !is_inet || sockopt::socket_type(&fd)? != SocketType::STREAM {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "not a TCP socket",
        ));
    }
    let stream = std::net::TcpStream::from(fd);
    stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
