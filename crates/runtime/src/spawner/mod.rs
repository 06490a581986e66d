//! The spawner: the one process that holds privilege.
//!
//! Owns: making sandboxes, forking interpreters into them, freezing, killing and removing them.
//! Does not own: names, rows, tenants, HTTP. It reads fixed-size [`crate::command`]s from one
//! local socket that only the server's user may open, and checks every field itself.
//!
//! Who runs it: root, one thread, in a mount namespace of its own. A sandbox does not die with
//! it: a new spawner finds the groups, the uid ranges and the inits of the old one.

mod child;
mod clients;
mod create;
mod freezing;
mod kept;
mod remove;
mod sandboxes;
mod snapshots;
mod stage;
mod starting;
mod truststore;
mod zygote;

use crate::cgroup::{self, Cgroups};
use crate::command::{Answer, Command, Limits, Refusal, SandboxKey, Step, decode_command};
use crate::layout::Layout;
use crate::plan::Surroundings;
use crate::seccomp;
use crate::sys::Instruction;
use clients::{ClientId, Clients};
use create::Order;
use freezing::Freezing;
use kept::Kept;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandboxes::Sandboxes;
use snapshots::Job;
use stage::Stage;
use starting::Starting;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zygote::Zygotes;

/// How often unfinished removals are tried again when no pidfd tells when.
const REMOVE_RETRY_MS: u64 = 2;
/// How often sandboxes that are being stopped are looked at: it takes microseconds most often.
const FREEZE_RETRY_MS: u64 = 1;
/// How often children that do not become init are looked for.
const STARTING_TICK_MS: u64 = 500;
/// How often zygotes are looked at for their age.
const TICK_MS: u64 = 10_000;

/// What a spawner is started with.
#[derive(Debug, Clone)]
pub struct SpawnerConfig {
    pub layout: Layout,
    pub templates_dir: PathBuf,
    /// Where snapshots are kept; none: nowhere.
    pub snapshots_dir: Option<PathBuf>,
    /// The only user that may open the command socket.
    pub server_uid: u32,
    pub server_gid: u32,
    /// CA certificates that sandboxes trust; none: those of the template.
    pub certificates: Option<PathBuf>,
    /// A zygote is replaced after that many forks or that much time: its children share the
    /// layout of its memory and its hash seed.
    pub zygote_forks_max: u32,
    pub zygote_age_max: Duration,
}

/// Why a spawner could not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnerError {
    #[error("the spawner must be root")]
    NotRoot,
    #[error("leaving the mount namespace: {0}")]
    Namespace(io::Error),
    #[error("opening the control groups: {0}")]
    Cgroups(io::Error),
    #[error("preparing {what}: {source}")]
    Stage {
        what: &'static str,
        source: io::Error,
    },
    #[error("listening on {path}: {source}")]
    Listen { path: PathBuf, source: io::Error },
    #[error("waiting for events: {0}")]
    Poll(io::Error),
}

/// State of the process.
#[derive(Debug)]
struct Spawner {
    config: SpawnerConfig,
    cgroups: Box<dyn Cgroups>,
    stage: Stage,
    filter: Vec<Instruction>,
    around: Surroundings,
    sandboxes: Sandboxes,
    starting: Vec<Starting>,
    freezing: Vec<Freezing>,
    kept: Kept,
    jobs: Vec<Job>,
    zygotes: Zygotes,
    clients: Clients,
}

/// Runs the spawner until the machine stops or the process is killed. `ready` is called once the
/// socket listens.
///
/// Who runs it: a new process, as root, with one thread.
///
/// # Errors
/// [`SpawnerError`]
pub fn run(config: SpawnerConfig, ready: impl FnOnce()) -> Result<(), SpawnerError> {
    if !rustix::process::geteuid().is_root() {
        return Err(SpawnerError::NotRoot);
    }
    crate::sys::ignore_children();
    enter_own_mount_namespace()?;
    let cgroups = cgroup::open(Path::new(cgroup::CGROUP_ROOT), &config.layout.cgroup())
        .map_err(SpawnerError::Cgroups)?;
    let filter = seccomp::sandbox_filter();
    let stage = Stage::prepare(&config, &filter)?;
    let around = Surroundings {
        certificates: stage.has_certificates(),
        processors: std::thread::available_parallelism()
            .map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
    };
    let kept = Kept::at(config.snapshots_dir.as_deref());
    let sandboxes = Sandboxes::find(cgroups.as_ref());
    let clients = Clients::listen(&config)?;
    let zygotes = Zygotes::new(config.zygote_forks_max, config.zygote_age_max);
    let mut spawner = Spawner {
        config,
        cgroups,
        stage,
        filter,
        around,
        sandboxes,
        starting: Vec::new(),
        freezing: Vec::new(),
        kept,
        jobs: Vec::new(),
        zygotes,
        clients,
    };
    ready();
    spawner.serve()
}

/// A mount made or removed here is not seen by the host, and one of the host not here.
fn enter_own_mount_namespace() -> Result<(), SpawnerError> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    crate::sys::unshare_mounts().map_err(SpawnerError::Namespace)?;
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .map_err(|e| SpawnerError::Namespace(e.into()))
}

/// Who a readable descriptor belongs to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Listener,
    Client(ClientId),
    Zygote(usize),
    Starting,
    Dying,
}

impl Spawner {
    fn serve(&mut self) -> Result<(), SpawnerError> {
        loop {
            for source in self.wait()? {
                match source {
                    Source::Listener => self.clients.accept(),
                    Source::Client(client) => self.read_client(client),
                    Source::Zygote(index) => self.zygotes.read(index, &mut self.clients),
                    Source::Starting | Source::Dying => {}
                }
            }
            self.settle_starting();
            self.settle_freezing();
            self.settle_snapshots();
            self.sandboxes.reap(
                self.cgroups.as_ref(),
                &self.config.layout,
                &mut self.clients,
            );
            self.zygotes.renew(&self.stage, &self.config);
        }
    }

    /// Sleeps until something is to be done; bounded, so that ages are looked at.
    fn wait(&self) -> Result<Vec<Source>, SpawnerError> {
        let mut sources = vec![Source::Listener];
        let mut fds = vec![PollFd::new(self.clients.listener(), PollFlags::IN)];
        for (id, fd) in self.clients.connections() {
            sources.push(Source::Client(id));
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        for (index, fd) in self.zygotes.sockets() {
            sources.push(Source::Zygote(index));
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        for starting in &self.starting {
            sources.push(Source::Starting);
            fds.push(PollFd::from_borrowed_fd(starting.channel(), PollFlags::IN));
        }
        for job in &self.jobs {
            sources.push(Source::Starting);
            fds.push(PollFd::from_borrowed_fd(job.channel(), PollFlags::IN));
        }
        for fd in self.sandboxes.dying_pidfds() {
            sources.push(Source::Dying);
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        // A removal whose processes are gone but whose groups are still busy has no event to
        // wait for: the kernel empties them within microseconds.
        let timeout_ms = if self.sandboxes.removal_to_retry() {
            REMOVE_RETRY_MS
        } else if !self.freezing.is_empty() {
            FREEZE_RETRY_MS
        } else if self.starting.is_empty() && self.jobs.is_empty() {
            TICK_MS
        } else {
            STARTING_TICK_MS
        };
        let timeout = Timespec::try_from(Duration::from_millis(timeout_ms)).expect("fits");
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(SpawnerError::Poll(errno.into())),
        }
        let fired = sources
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty());
        Ok(fired.map(|(source, _)| source).collect())
    }

    /// Handles the commands that a client has sent. Who sends: the unprivileged server, not
    /// trusted.
    fn read_client(&mut self, client: ClientId) {
        while let Some(datagram) = self.clients.receive(client) {
            match decode_command(&datagram) {
                Some((number, command)) => self.handle(client, number, command),
                None => {
                    let refusal = Refusal {
                        step: Step::Malformed,
                        errno: 0,
                    };
                    self.clients
                        .answer(client, 0, &Answer::Refused(refusal), &[]);
                }
            }
        }
    }

    fn handle(&mut self, client: ClientId, number: u64, command: Command) {
        let outcome = match command {
            Command::Create {
                key,
                template,
                limits,
                network,
                snapshot,
            } => {
                let order = Order {
                    key,
                    template,
                    limits,
                    network,
                    snapshot,
                };
                self.create((client, number), order).map(|()| None)
            }
            Command::Snapshot { key, snapshot } => self
                .begin_snapshot((client, number), &key, snapshot)
                .map(|()| None),
            Command::SnapshotRemove { snapshot } => {
                self.kept.remove(&snapshot).map(|()| Some(Answer::Done))
            }
            Command::SnapshotList { after } => self
                .kept
                .keys_after(after.as_ref())
                .map(|keys| Some(Answer::Keys(keys))),
            Command::Fork { key, template } => {
                self.fork(client, number, &key, template).map(|()| None)
            }
            Command::Destroy { key } => {
                self.sandboxes
                    .kill(&key, (client, number), self.cgroups.as_ref());
                Ok(None)
            }
            Command::Freeze { key, frozen } => self.freeze((client, number), &key, frozen),
            Command::SetCpu { key, cpu_millis } => {
                self.set_cpu(&key, cpu_millis).map(|()| Some(Answer::Done))
            }
            Command::Stats { key } => self.stats(&key).map(Some),
            Command::List { after } => Ok(Some(Answer::Keys(
                self.sandboxes.keys_after(after.as_ref()),
            ))),
            Command::Warm { template } => self
                .zygotes
                .warm(template, &self.stage, &self.config)
                .map(|()| Some(Answer::Done)),
        };
        match outcome {
            Ok(Some(answer)) => self.clients.answer(client, number, &answer, &[]),
            Ok(None) => {}
            Err(refusal) => self
                .clients
                .answer(client, number, &Answer::Refused(refusal), &[]),
        }
    }

    fn set_cpu(&self, key: &SandboxKey, cpu_millis: u32) -> Result<(), Refusal> {
        if !Limits::cpu_in_range(cpu_millis) {
            return Err(refusal(Step::LimitsOutOfRange));
        }
        let sandbox = self
            .sandboxes
            .get_ready(key)
            .ok_or_else(|| refusal(Step::SandboxUnknown))?;
        self.cgroups
            .set_cpu(&sandbox.group, cpu_millis)
            .map_err(failed(Step::CgroupLimit))
    }

    fn stats(&self, key: &SandboxKey) -> Result<Answer, Refusal> {
        let sandbox = self
            .sandboxes
            .get(key)
            .ok_or_else(|| refusal(Step::SandboxUnknown))?;
        self.cgroups
            .stats(&sandbox.group)
            .map(Answer::Stats)
            .map_err(failed(Step::CgroupStats))
    }
}

fn refusal(step: Step) -> Refusal {
    Refusal { step, errno: 0 }
}

/// Turns the error of a system call into the answer that names the step.
fn failed<E: Into<io::Error>>(step: Step) -> impl Fn(E) -> Refusal {
    move |error| Refusal {
        step,
        errno: error.into().raw_os_error().unwrap_or(0),
    }
}
