//! Commands that are waited for: one shell process, its output and how it ended.

use crate::app::App;
use crate::audit::Deed;
use crate::auth::Principal;
use crate::checks;
use crate::error::{ApiError, ApiResult};
use crate::host::{Exec, ExecDone, ExecEnd, ExecEvent, ExecSpec, HostError};
use crate::metrics;
use crate::request::RequestContext;
use crate::run_result::Collected;
use crate::sandboxes::LiveSandbox;
use crownest_api::command::{CollectStatus, Command, CommandStatus, RunCommand};
use crownest_api::{ErrorCode, IdKind, Scope, Timestamp, limits, new_id};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::TaskTracker;

/// Shells by preference; minimal images have only the second.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];
const SIGTERM: i32 = 15;

/// A command whose request has been checked.
#[derive(Debug)]
pub(crate) struct CheckedCommand {
    command: String,
    cwd: String,
    env: BTreeMap<String, String>,
    timeout: Duration,
}

impl CheckedCommand {
    pub(crate) fn check(request: RunCommand, who: &Principal) -> ApiResult<Self> {
        let command_ok = (1..=limits::COMMAND_BYTES_MAX).contains(&request.command.len())
            && !request.command.trim().is_empty()
            && !request.command.contains('\0');
        if !command_ok {
            let max = limits::COMMAND_BYTES_MAX;
            return Err(ApiError::field(
                "command",
                format!("command must be a non-empty string of at most {max} bytes without NUL"),
            ));
        }
        if request.background == Some(true) {
            return Err(unsupported(
                "background",
                "background commands are not available yet",
            ));
        }
        if request
            .collect
            .as_ref()
            .is_some_and(|collect| !collect.is_empty())
        {
            return Err(unsupported(
                "collect",
                "collecting artifacts is not available yet",
            ));
        }
        if request.require_command_read == Some(true) {
            who.require(Scope::CommandRead)?;
        }
        let env = request.env.unwrap_or_default();
        checks::environment(&env)?;
        let cwd = checks::cwd(request.cwd.as_deref())?;
        Ok(Self {
            command: request.command,
            cwd: cwd.unwrap_or_else(|| checks::WORKSPACE.to_owned()),
            env,
            timeout: checks::timeout(
                request.timeout_ms,
                limits::COMMAND_TIMEOUT_DEFAULT_MS,
                limits::COMMAND_TIMEOUT_MAX_MS,
            )?,
        })
    }
}

/// An option of the contract that this server does not have yet.
pub(crate) fn unsupported(field: &str, message: &str) -> ApiError {
    ApiError::new(ErrorCode::UnsupportedRuntimeOption, message)
        .with_details(json!({ "field": field }))
}

impl App {
    /// Runs a command to its end. When the returned future is dropped, the process is killed.
    pub(crate) async fn run_command(
        &self,
        who: &Principal,
        request: &RequestContext,
        live: &Arc<LiveSandbox>,
        command: CheckedCommand,
    ) -> ApiResult<Command> {
        let _work = live.work();
        let (started, started_at) = (Instant::now(), Timestamp::now());
        let mut process = KillOnDrop {
            exec: Some(start(live, &command).await?),
            tasks: self.tasks.clone(),
        };
        let (mut stdout, mut stderr) = (Collected::default(), Collected::default());
        let done = loop {
            match process.next().await {
                Some(ExecEvent::Stdout(bytes)) => stdout.push(&String::from_utf8_lossy(&bytes)),
                Some(ExecEvent::Stderr(bytes)) => stderr.push(&String::from_utf8_lossy(&bytes)),
                Some(ExecEvent::Done(done)) => break done,
                None => {
                    return Err(ApiError::new(
                        ErrorCode::Unavailable,
                        "the server is stopping",
                    ));
                }
            }
        };
        process.finished();

        let ended = Ended::of(&done);
        self.metrics
            .command_seconds
            .observe(started.elapsed().as_secs_f64());
        let outcome = ended.outcome;
        self.metrics
            .commands
            .get_or_create(&metrics::Outcome { outcome })
            .inc();
        let record = record(
            live,
            command,
            &ended,
            (stdout, stderr),
            (started_at, done.duration),
        );
        let deed = Deed {
            action: "command.run",
            resource_kind: "command",
            resource_id: &record.id,
            project_id: Some(&live.project_id),
            outcome,
        };
        let details = json!({ "sandboxId": live.id, "exitCode": record.exit_code });
        self.audit.by_key(who, request, deed, &details);
        Ok(record)
    }
}

/// The record of a command that has ended.
fn record(
    live: &LiveSandbox,
    command: CheckedCommand,
    ended: &Ended,
    (stdout, stderr): (Collected, Collected),
    (started_at, duration): (Timestamp, Duration),
) -> Command {
    let (stdout, stdout_omitted) = stdout.joined();
    let (stderr, stderr_omitted) = stderr.joined();
    Command {
        id: new_id(IdKind::Command),
        sandbox_id: live.id.clone(),
        command: command.command,
        cwd: command.cwd,
        env: command.env,
        status: ended.status,
        exit_code: ended.exit_code,
        stdout: Some(stdout),
        stderr: Some(stderr),
        stdout_truncated: Some(stdout_omitted.is_some()),
        stderr_truncated: Some(stderr_omitted.is_some()),
        started_at: Some(started_at),
        finished_at: Some(Timestamp::now()),
        duration_ms: Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        collect_status: Some(CollectStatus::NotRequested),
        killed_reason: ended.killed_reason.map(str::to_owned),
        termination_signal: ended.signal.map(signal_name),
    }
}

async fn start(live: &LiveSandbox, command: &CheckedCommand) -> ApiResult<Exec> {
    let mut refused = None;
    for shell in SHELLS {
        let argv = vec![shell.to_owned(), "-c".to_owned(), command.command.clone()];
        let spec = ExecSpec {
            argv,
            cwd: command.cwd.clone(),
            env: command.env.clone(),
            timeout: Some(command.timeout),
        };
        match live.host.exec(spec).await {
            Ok(exec) => return Ok(exec),
            Err(error @ HostError::SpawnFailed(_)) => refused = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(refused.map_or_else(|| ApiError::internal("no shell to try"), ApiError::from))
}

/// How a process ended, in the words of the contract.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    status: CommandStatus,
    outcome: &'static str,
    exit_code: Option<i32>,
    signal: Option<i32>,
    killed_reason: Option<&'static str>,
}

impl Ended {
    fn of(done: &ExecDone) -> Self {
        let none = Self {
            status: CommandStatus::Exited,
            outcome: "exited",
            exit_code: None,
            signal: None,
            killed_reason: None,
        };
        match done.outcome {
            ExecEnd::Exited { code } => Self {
                exit_code: Some(code),
                ..none
            },
            ExecEnd::Signaled { signal } => Self {
                status: CommandStatus::Killed,
                outcome: if done.out_of_memory {
                    "out_of_memory"
                } else {
                    "killed"
                },
                exit_code: Some(128 + signal),
                signal: Some(signal),
                killed_reason: done.out_of_memory.then_some("out_of_memory"),
            },
            ExecEnd::TimedOut { signal } => Self {
                status: CommandStatus::TimedOut,
                outcome: "timed_out",
                signal: Some(signal),
                ..none
            },
            ExecEnd::SandboxGone => Self {
                status: CommandStatus::Killed,
                outcome: "sandbox_destroyed",
                killed_reason: Some("sandbox_destroyed"),
                ..none
            },
        }
    }
}

fn signal_name(signal: i32) -> String {
    const NAMES: [(i32, &str); 10] = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (13, "SIGPIPE"),
        (15, "SIGTERM"),
    ];
    let known = NAMES.iter().find(|(number, _)| *number == signal);
    known.map_or_else(|| format!("SIG{signal}"), |(_, name)| (*name).to_owned())
}

/// A process that nobody else waits for: it must not outlive the request.
#[derive(Debug)]
struct KillOnDrop {
    exec: Option<Exec>,
    tasks: TaskTracker,
}

impl KillOnDrop {
    async fn next(&mut self) -> Option<ExecEvent> {
        match &mut self.exec {
            Some(exec) => exec.next().await,
            None => None,
        }
    }

    /// It has ended and everything it said has been taken.
    fn finished(&mut self) {
        if let Some(exec) = self.exec.take() {
            exec.acknowledge();
        }
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let Some(mut exec) = self.exec.take() else {
            return;
        };
        self.tasks.spawn(async move {
            if let Err(error) = exec.signal(SIGTERM, true).await {
                tracing::debug!(%error, "a command without a client could not be signalled");
            }
            // Its output has to be taken, or it blocks on a full window instead of dying.
            while let Some(event) = exec.next().await {
                if matches!(event, ExecEvent::Done(_)) {
                    exec.acknowledge();
                    break;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_words() {
        let ended = |outcome, out_of_memory| {
            let done = ExecDone {
                outcome,
                duration: Duration::ZERO,
                out_of_memory,
            };
            let ended = Ended::of(&done);
            (ended.outcome, ended.exit_code, ended.killed_reason)
        };
        assert_eq!(
            ended(ExecEnd::Exited { code: 3 }, false),
            ("exited", Some(3), None)
        );
        let oom = ("out_of_memory", Some(137), Some("out_of_memory"));
        assert_eq!(ended(ExecEnd::Signaled { signal: 9 }, true), oom);
        assert_eq!(
            ended(ExecEnd::TimedOut { signal: 15 }, false),
            ("timed_out", None, None)
        );
        let gone = ("sandbox_destroyed", None, Some("sandbox_destroyed"));
        assert_eq!(ended(ExecEnd::SandboxGone, false), gone);
    }
}
