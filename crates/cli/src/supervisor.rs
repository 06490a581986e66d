//! `crownest serve` as the operator sees it: the process that keeps the other two alive.
//!
//! Owns: the data directory's lock, the instance number, the listening socket, the two children.
//! Does not own: requests, sandboxes. It reads nothing that a client or a sandbox has written.
//!
//! Who runs it: root, one thread. A child that dies is started again; sandboxes live on
//! meanwhile. If this process dies, both children die with it, sandboxes still live on, and the
//! next `crownest serve` with the same data directory finds them.

use crate::options::ServeOptions;
use crate::prepare::Prepared;
use crate::settings;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, WaitOptions};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

/// Exit status for a configuration that cannot work; no restart helps (EX_CONFIG of sysexits.h).
pub(crate) const EXIT_CONFIGURATION: u8 = 78;
/// Name of the variable that tells a child who its parent is.
const SUPERVISOR_PID: &str = "CROWNEST_SUPERVISOR_PID";
/// How long the server may take to stop.
const STOP_MS_MAX: u64 = 30_000;
/// How long a spawner may take until it listens; it prepares its stage in milliseconds.
const SPAWNER_READY_MS_MAX: u64 = 10_000;
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
    /// Died, and not started again yet.
    missing: Vec<Ended>,
    /// When they are started again.
    restart_at: tokio::time::Instant,
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
            missing: Vec::new(),
            restart_at: tokio::time::Instant::now(),
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
        self.start_spawner().await?;
        self.start_server()?;
        loop {
            tokio::select! {
                _ = children.recv() => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = tokio::time::sleep_until(self.restart_at), if !self.missing.is_empty() => {
                    self.restart_missing().await;
                }
            }
            for ended in self.reap() {
                if let Some(code) = self.plan_restart(ended) {
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

    /// Decides when a child is started again; `Some` when that makes no sense.
    fn plan_restart(&mut self, ended: Ended) -> Option<ExitCode> {
        let child = match ended {
            Ended::Spawner => self.spawner.take(),
            Ended::Server { status: Some(0) } => {
                tracing::info!("the server has stopped");
                self.kill_spawner();
                return Some(ExitCode::SUCCESS);
            }
            // It has said why. Once a server has served, the same failure may pass (a database
            // that is away for a while).
            Ended::Server { status }
                if status == Some(i32::from(EXIT_CONFIGURATION)) && !self.has_served() =>
            {
                self.kill_spawner();
                return Some(ExitCode::from(EXIT_CONFIGURATION));
            }
            Ended::Server { .. } => {
                self.has_served();
                self.server.take()
            }
        };
        let lived = child.map_or(Duration::ZERO, |c| c.started.elapsed());
        if lived >= Duration::from_millis(STEADY_MS) {
            self.pause = Duration::ZERO;
        } else {
            self.grow_pause();
        }
        tracing::error!(
            ?ended,
            pause_ms = self.pause.as_millis(),
            "a process of ours died; restarting it"
        );
        self.missing.push(ended);
        self.restart_at = tokio::time::Instant::now() + self.pause;
        None
    }

    /// Starts what died; what cannot be started is tried again after a longer pause.
    async fn restart_missing(&mut self) {
        for ended in std::mem::take(&mut self.missing) {
            let started = match ended {
                Ended::Spawner => self.start_spawner().await,
                Ended::Server { .. } => self.start_server(),
            };
            if let Err(error) = started {
                self.grow_pause();
                self.missing.push(ended);
                self.restart_at = tokio::time::Instant::now() + self.pause;
                tracing::error!(
                    ?ended,
                    pause_ms = self.pause.as_millis(),
                    "restarting failed; trying again: {error:#}"
                );
            }
        }
    }

    fn grow_pause(&mut self) {
        self.pause = (self.pause * 2).clamp(
            Duration::from_millis(RESTART_PAUSE_MS),
            Duration::from_millis(RESTART_PAUSE_MS_MAX),
        );
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

    async fn start_spawner(&mut self) -> anyhow::Result<()> {
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
            .arg("--snapshots-dir")
            .arg(options.data_dir.join("snapshots"))
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
        let child = started(&child)?;
        if let Err(error) = await_ready(stdout.into()).await {
            // Whatever it still does, it is not waited for any more.
            let _ = rustix::process::kill_process(child.pid, Signal::KILL);
            return Err(error);
        }
        self.spawner = Some(child);
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

/// Waits until the spawner says that it listens, dies and closes the pipe, or hangs.
async fn await_ready(stdout: OwnedFd) -> anyhow::Result<()> {
    let stdout = pipe::Receiver::from_owned_fd(stdout).context("waiting for the spawner")?;
    let mut line = String::new();
    let mut stdout = BufReader::new(stdout);
    let limit = Duration::from_millis(SPAWNER_READY_MS_MAX);
    let Ok(read) = tokio::time::timeout(limit, stdout.read_line(&mut line)).await else {
        bail!("the spawner was not ready within {SPAWNER_READY_MS_MAX} ms");
    };
    read.context("waiting for the spawner")?;
    if line.trim() != "ready" {
        bail!("the spawner did not start; crownest doctor says what this machine lacks");
    }
    Ok(())
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
