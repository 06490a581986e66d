//! `crownest serve` as the operator sees it: the process that keeps the other two alive.
//!
//! Owns: the data directory's lock, the instance number, the listening socket, the two children.
//! Does not own: requests, sandboxes. It reads nothing that a client or a sandbox has written.
//!
//! Who runs it: root, one thread. A child that dies is started again; sandboxes live on
//! meanwhile. If this process dies, both children die with it, sandboxes still live on, and the
//! next `crownest serve` with the same data directory finds them.

use crate::options::ServeOptions;
use crate::settings::{self, User};
use anyhow::{Context, bail};
use crownest_runtime::cgroup;
use crownest_runtime::layout::{Claim, Layout, claim_instance};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::process::{Pid, Signal, WaitOptions};
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Exit status for a configuration that cannot work; no restart helps (EX_CONFIG of sysexits.h).
pub(crate) const EXIT_CONFIGURATION: u8 = 78;
/// Name of the variable that tells a child who its parent is.
const SUPERVISOR_PID: &str = "CROWNEST_SUPERVISOR_PID";
/// How long the server may take to stop.
const STOP_MS_MAX: u64 = 30_000;
/// A child that lived shorter than this is restarted with a growing pause.
const STEADY_MS: u64 = 5_000;
/// A server that lived longer has served: opening the database takes less.
const SERVED_MS: u64 = 60_000;
const RESTART_PAUSE_MS: u64 = 50;
const RESTART_PAUSE_MS_MAX: u64 = 5_000;

/// Runs until asked to stop.
pub(crate) fn run(options: ServeOptions) -> ExitCode {
    settings::start_log(&options.log, options.log_json);
    let prepared = match Prepared::new(options) {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("crownest: {error:#}");
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .context("starting the event loop")
        .and_then(|runtime| runtime.block_on(Supervisor::new(prepared).supervise()));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("crownest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the calling child die with the supervisor. To be called after credentials have changed,
/// because that forgets the wish.
///
/// # Errors
/// When the supervisor is dead already.
pub(crate) fn die_with_parent() -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().to_string());
    if std::env::var(SUPERVISOR_PID).ok() != parent {
        bail!("the supervisor is gone");
    }
    Ok(())
}

/// Everything that is settled before a child is started.
struct Prepared {
    options: ServeOptions,
    user: User,
    claim: Claim,
    listener: TcpListener,
    _data_dir_lock: File,
}

impl Prepared {
    fn new(mut options: ServeOptions) -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!(
                "serve needs root to make sandboxes (requests are served by an unprivileged user); try sudo, and see: crownest doctor"
            );
        }
        let user = settings::user(&options.user)?;
        // Whatever is wrong is said before anything is started.
        options.limits()?;
        options.egress(Vec::new())?;
        options.environment()?;
        options.certificates()?;
        let lock = open_data_dir(&options.data_dir, user)?;
        options.data_dir = options.data_dir.canonicalize().context("--data-dir")?;
        check_reachable(&options.data_dir, user)?;
        check_templates(&options)?;
        let root = Path::new(cgroup::CGROUP_ROOT);
        let live = |n| cgroup::populated(root, &Layout::new(n).cgroup());
        let claim = claim_instance(&options.data_dir, live)?;
        let listener = TcpListener::bind(&options.listen)
            .with_context(|| format!("listening on {}", options.listen))?;
        raise_file_limit();
        Ok(Self {
            options,
            user,
            claim,
            listener,
            _data_dir_lock: lock,
        })
    }
}

/// Templates are run as root; the data directory is the server's. One inside the other would let a
/// server that was taken over put a template of its own there.
fn check_templates(options: &ServeOptions) -> anyhow::Result<()> {
    let Ok(templates) = options.templates_dir.canonicalize() else {
        return Ok(());
    };
    if templates.starts_with(&options.data_dir) {
        bail!("--templates-dir must not be inside --data-dir, which belongs to the server's user");
    }
    Ok(())
}

/// Makes the data directory, gives it to the server's user, and takes its lock.
fn open_data_dir(path: &Path, user: User) -> anyhow::Result<File> {
    let named = || path.display().to_string();
    fs::create_dir_all(path).with_context(|| format!("creating {}", named()))?;
    chown(path, Some(user.uid), Some(user.gid)).with_context(named)?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).with_context(named)?;
    // The directory is the server's: should that have been taken over, the name may be a link to
    // any file of root's, which must be neither followed nor emptied.
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mode = Mode::RUSR | Mode::WUSR;
    let lock = open(path.join("lock"), flags | OFlags::CLOEXEC, mode).with_context(named)?;
    let lock = File::from(lock);
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            bail!("{} is in use by another crownest serve", named())
        }
        Err(errno) => Err(errno).with_context(|| format!("locking {}", named())),
    }
}

/// The server's user must be able to enter every directory above the data directory.
fn check_reachable(data_dir: &Path, user: User) -> anyhow::Result<()> {
    use std::os::unix::fs::MetadataExt;
    for directory in data_dir.ancestors() {
        let metadata = fs::metadata(directory).with_context(|| directory.display().to_string())?;
        let mode = metadata.mode();
        let may_enter = if metadata.uid() == user.uid {
            mode & 0o100 != 0
        } else if metadata.gid() == user.gid {
            mode & 0o010 != 0
        } else {
            mode & 0o001 != 0
        };
        if !may_enter {
            bail!(
                "the server's user (uid {}) may not enter {}; chmod o+x it, or choose another --data-dir",
                user.uid,
                directory.display()
            );
        }
    }
    Ok(())
}

/// Every sandbox takes a few descriptors of the server.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "raising the limit of open files");
    }
}

/// One child process.
#[derive(Debug)]
struct Child {
    pid: Pid,
    started: Instant,
}

struct Supervisor {
    prepared: Prepared,
    spawner: Option<Child>,
    server: Option<Child>,
    pause: Duration,
    served: bool,
}

/// What ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Spawner,
    Server { status: Option<i32> },
}

impl Supervisor {
    fn new(prepared: Prepared) -> Self {
        Self {
            prepared,
            spawner: None,
            server: None,
            pause: Duration::ZERO,
            served: false,
        }
    }

    async fn supervise(mut self) -> anyhow::Result<ExitCode> {
        // Orphans of a dead spawner come here to be reaped.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let mut children = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        self.start_spawner()?;
        self.start_server()?;
        loop {
            tokio::select! {
                _ = children.recv() => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
            for ended in self.reap() {
                if let Some(code) = self.restart(ended).await? {
                    return Ok(code);
                }
            }
        }
        self.stop(&mut children).await;
        Ok(ExitCode::SUCCESS)
    }

    /// Reaps whatever has ended; says what of it was ours.
    fn reap(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if self.spawner.as_ref().is_some_and(|c| c.pid == pid) {
                ended.push(Ended::Spawner);
            } else if self.server.as_ref().is_some_and(|c| c.pid == pid) {
                ended.push(Ended::Server {
                    status: status.exit_status(),
                });
            }
        }
        ended
    }

    /// Starts a child again; `Some` when that makes no sense.
    async fn restart(&mut self, ended: Ended) -> anyhow::Result<Option<ExitCode>> {
        let child = match ended {
            Ended::Spawner => self.spawner.take(),
            Ended::Server { status: Some(0) } => {
                tracing::info!("the server has stopped");
                self.kill_spawner();
                return Ok(Some(ExitCode::SUCCESS));
            }
            // It has said why. Once a server has served, the same failure may pass (a database
            // that is away for a while).
            Ended::Server { status }
                if status == Some(i32::from(EXIT_CONFIGURATION)) && !self.has_served() =>
            {
                self.kill_spawner();
                return Ok(Some(ExitCode::from(EXIT_CONFIGURATION)));
            }
            Ended::Server { .. } => {
                self.has_served();
                self.server.take()
            }
        };
        let lived = child.map_or(Duration::ZERO, |c| c.started.elapsed());
        self.pause = if lived >= Duration::from_millis(STEADY_MS) {
            Duration::ZERO
        } else {
            (self.pause * 2).clamp(
                Duration::from_millis(RESTART_PAUSE_MS),
                Duration::from_millis(RESTART_PAUSE_MS_MAX),
            )
        };
        tracing::error!(
            ?ended,
            pause_ms = self.pause.as_millis(),
            "a process of ours died; restarting it"
        );
        tokio::time::sleep(self.pause).await;
        match ended {
            Ended::Spawner => self.start_spawner()?,
            Ended::Server { .. } => self.start_server()?,
        }
        Ok(None)
    }

    /// Whether a server has ever lived long enough to have served.
    fn has_served(&mut self) -> bool {
        let lived = self
            .server
            .as_ref()
            .map_or(Duration::ZERO, |c| c.started.elapsed());
        self.served |= lived >= Duration::from_millis(SERVED_MS);
        self.served
    }

    /// Lets the server finish, then ends the spawner.
    async fn stop(&mut self, children: &mut tokio::signal::unix::Signal) {
        if let Some(server) = &self.server {
            let _ = rustix::process::kill_process(server.pid, Signal::TERM);
            let limit = tokio::time::sleep(Duration::from_millis(STOP_MS_MAX));
            tokio::pin!(limit);
            loop {
                if self
                    .reap()
                    .iter()
                    .any(|e| matches!(e, Ended::Server { .. }))
                {
                    break;
                }
                tokio::select! {
                    _ = children.recv() => {}
                    () = &mut limit => {
                        tracing::warn!("the server did not stop in time");
                        break;
                    }
                }
            }
        }
        // Whatever is left is killed by our own end as well; this is the orderly way.
        for child in [&self.server, &self.spawner].into_iter().flatten() {
            let _ = rustix::process::kill_process(child.pid, Signal::KILL);
        }
    }

    fn kill_spawner(&self) {
        if let Some(spawner) = &self.spawner {
            let _ = rustix::process::kill_process(spawner.pid, Signal::KILL);
        }
    }

    fn start_spawner(&mut self) -> anyhow::Result<()> {
        let Prepared {
            options,
            user,
            claim,
            ..
        } = &self.prepared;
        let mut command = program()?;
        command
            .arg("spawner")
            .args(["--instance", &claim.layout.instance.to_string()])
            .arg("--templates-dir")
            .arg(&options.templates_dir)
            .args([
                "--server-uid",
                &user.uid.to_string(),
                "--server-gid",
                &user.gid.to_string(),
            ])
            .args(["--zygote-forks-max", &options.zygote_forks_max.to_string()])
            .args([
                "--zygote-age-seconds-max",
                &options.zygote_age_seconds_max.to_string(),
            ])
            .args(["--log", &options.log])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some(path) = options.certificates()? {
            command.arg("--certificates").arg(path);
        }
        if options.log_json {
            command.arg("--log-json");
        }
        let mut child = command.spawn().context("starting the spawner")?;
        let stdout = child
            .stdout
            .take()
            .context("the spawner's stdout is a pipe")?;
        let mut line = String::new();
        // It prepares its stage in milliseconds and then speaks, or dies and closes the pipe.
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("waiting for the spawner")?;
        if line.trim() != "ready" {
            bail!("the spawner did not start; crownest doctor says what this machine lacks");
        }
        self.spawner = Some(started(&child)?);
        Ok(())
    }

    fn start_server(&mut self) -> anyhow::Result<()> {
        let Prepared {
            options,
            user,
            claim,
            listener,
            ..
        } = &self.prepared;
        let start = crate::server::Start {
            options: options.clone(),
            uid: user.uid,
            gid: user.gid,
            instance: claim.layout.instance,
        };
        let listener: OwnedFd = listener.try_clone().context("sharing the listener")?.into();
        let child = program()?
            .arg("server")
            .env(crate::server::START, serde_json::to_string(&start)?)
            // The listening socket; requests wait in its backlog while a server restarts.
            .stdin(Stdio::from(listener))
            .spawn()
            .context("starting the server")?;
        self.server = Some(started(&child)?);
        Ok(())
    }
}

/// This program again, with an environment that says no more than it must.
fn program() -> anyhow::Result<Command> {
    let mut command = Command::new("/proc/self/exe");
    // What ps shows.
    command.arg0("crownest");
    let keep = |name: &&str| std::env::var_os(name).is_some();
    command.env_clear();
    for name in ["PATH", "LANG", "RUST_BACKTRACE", "TZ"]
        .iter()
        .filter(|name| keep(name))
    {
        command.env(name, std::env::var_os(name).unwrap_or_default());
    }
    command.env(SUPERVISOR_PID, std::process::id().to_string());
    Ok(command)
}

fn started(child: &std::process::Child) -> anyhow::Result<Child> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("a pid fits")?;
    Ok(Child {
        pid,
        started: Instant::now(),
    })
}
