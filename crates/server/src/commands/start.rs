//! From a request to a process with a row.

use super::collect::Collection;
use super::drive::{Driving, Waited, end_row};
use super::live::LiveCommand;
use super::record::{Ended, collect_word};
use crate::app::App;
use crate::auth::{Principal, micros};
use crate::checks;
use crate::command_log::LogWriter;
use crate::error::{ApiError, ApiResult};
use crate::host::{self, Exec, ExecEvent, ExecSpec, HostError};
use crate::sandboxes::{LiveSandbox, Work};
use crownest_api::command::{CollectStatus, RunCommand};
use crownest_api::{ErrorCode, IdKind, Scope, Timestamp, limits, new_id};
use crownest_init::identity::Identity;
use crownest_init::terminal::Stdin;
use crownest_store as store;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Shells by preference; minimal images have only the second.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];
/// What `terminal` of a record says.
pub(crate) const PTY: &str = "pty";
const PIPE: &str = "pipe";
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// Whether somebody waits for the end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The answer is the end.
    End,
    /// The answer is that it has begun.
    Begin,
}

/// A command as another API asks for it.
#[derive(Debug)]
pub(crate) struct ForeignCommand {
    pub id: String,
    /// What the record says; a shell runs it when there is no `argv`.
    pub shown: String,
    pub argv: Option<Vec<String>>,
    pub cwd: String,
    pub env: BTreeMap<String, String>,
    pub timeout_ms: Option<u64>,
    pub identity: Identity,
}

/// Whether somebody types into a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Typed {
    Nothing,
    Into { stdin: Stdin, waits: bool },
}

impl Typed {
    fn stdin(self) -> Stdin {
        match self {
            Self::Nothing => Stdin::Null,
            Self::Into { stdin, .. } => stdin,
        }
    }

    /// The word of the record.
    fn stored(self) -> Option<String> {
        let word = match self.stdin() {
            Stdin::Null => return None,
            Stdin::Pipe => PIPE,
            Stdin::Terminal(_) => PTY,
        };
        Some(word.to_owned())
    }

    /// How a shell is started that reads its commands from whoever types.
    fn shell_flags(self) -> Option<&'static str> {
        match self {
            Self::Into { stdin, waits: true } => match stdin {
                Stdin::Terminal(_) => Some("-il"),
                Stdin::Pipe | Stdin::Null => Some("-l"),
            },
            _ => None,
        }
    }
}

/// A command whose request has been checked.
#[derive(Debug)]
pub(crate) struct CheckedCommand {
    /// What it is to be called, when that was decided before.
    id: Option<String>,
    pub(super) command: String,
    /// What is started, where that is not a shell with `command`.
    pub(super) argv: Option<Vec<String>>,
    pub(super) cwd: String,
    pub(super) env: BTreeMap<String, String>,
    pub(super) timeout: Option<Duration>,
    identity: Identity,
    stdin: Typed,
    collection: Option<Collection>,
}

impl CheckedCommand {
    pub(crate) fn check(request: RunCommand, wait: Wait, who: &Principal) -> ApiResult<Self> {
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
        if wait == Wait::Begin && (request.collect.is_some() || request.collect_on.is_some()) {
            return Err(unsupported(
                "collect",
                "a command in the background cannot collect artifacts: nobody waits for its end",
            ));
        }
        if request.require_command_read == Some(true) {
            who.require(Scope::CommandRead)?;
        }
        let collection = Collection::check(request.collect, request.collect_on, who)?;
        let env = request.env.unwrap_or_default();
        checks::environment(&env)?;
        let cwd = checks::cwd(request.cwd.as_deref())?;
        Ok(Self {
            id: None,
            command: request.command,
            argv: None,
            cwd: cwd.unwrap_or_else(|| checks::WORKSPACE.to_owned()),
            env,
            timeout: timeout(request.timeout_ms, wait)?,
            identity: Identity::default(),
            stdin: Typed::Nothing,
            collection,
        })
    }

    /// A command of another API: in any directory, and with the timeout that it names or none.
    pub(crate) fn foreign(command: ForeignCommand) -> ApiResult<Self> {
        let command_ok = (1..=limits::COMMAND_BYTES_MAX).contains(&command.shown.len())
            && !command.shown.trim().is_empty()
            && !command.shown.contains('\0');
        if !command_ok {
            let max = limits::COMMAND_BYTES_MAX;
            return Err(ApiError::field(
                "command",
                format!("command must have 1 to {max} bytes without NUL"),
            ));
        }
        checks::environment(&command.env)?;
        let max = limits::BACKGROUND_TIMEOUT_MAX_MS;
        let timeout = command
            .timeout_ms
            .map(|asked| checks::timeout(Some(asked), max, max))
            .transpose()?;
        Ok(Self {
            id: Some(command.id),
            command: command.shown,
            argv: command.argv,
            cwd: command.cwd,
            env: command.env,
            timeout,
            identity: command.identity,
            stdin: Typed::Nothing,
            collection: None,
        })
    }

    /// The same with somebody who types into it; a shell that waits for that when `waits`.
    pub(crate) fn typed_into(self, stdin: Stdin, waits: bool) -> Self {
        let stdin = Typed::Into { stdin, waits };
        Self { stdin, ..self }
    }

    /// The same under an id that is on record already, of a command that was never begun.
    pub(crate) fn with_id(self, id: String) -> Self {
        Self {
            id: Some(id),
            ..self
        }
    }

    /// The row of a command that is about to begin.
    pub(super) fn row(
        &self,
        who: &Principal,
        live: &LiveSandbox,
        exec: u64,
        background: bool,
    ) -> store::Command {
        store::Command {
            id: self.id.clone().unwrap_or_else(|| new_id(IdKind::Command)),
            org_id: live.org_id.clone(),
            project_id: live.project_id.clone(),
            sandbox_id: live.id.clone(),
            exec: i64::try_from(exec).unwrap_or(i64::MAX),
            command: self.command.clone(),
            cwd: self.cwd.clone(),
            env_names: self.env.keys().cloned().collect(),
            background,
            status: store::CommandStatus::Running,
            created_at: micros(Timestamp::now()),
            finished_at: None,
            duration_ms: None,
            exit_code: None,
            termination_signal: None,
            killed_reason: None,
            cancel_mode: None,
            canceled_at: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            log_omitted_bytes: 0,
            collect: self.collection.as_ref().and_then(Collection::stored),
            collect_status: collect_word(match self.collection {
                Some(_) => CollectStatus::Pending,
                None => CollectStatus::NotRequested,
            }),
            collect_errors: None,
            created_by: who.key_id.to_string(),
            terminal: self.stdin.stored(),
        }
    }
}

/// Whoever waits has a timeout in any case; what runs in the background ends with its sandbox.
fn timeout(asked: Option<u64>, wait: Wait) -> ApiResult<Option<Duration>> {
    if wait == Wait::Begin {
        let max = limits::BACKGROUND_TIMEOUT_MAX_MS;
        return asked
            .map(|asked| checks::timeout(Some(asked), max, max))
            .transpose();
    }
    let (default, max) = (
        limits::COMMAND_TIMEOUT_DEFAULT_MS,
        limits::COMMAND_TIMEOUT_MAX_MS,
    );
    checks::timeout(asked, default, max).map(Some)
}

/// An option that this server, or this route, does not have.
fn unsupported(field: &str, message: &str) -> ApiError {
    ApiError::new(ErrorCode::UnsupportedRuntimeOption, message)
        .with_details(json!({ "field": field }))
}

/// A command that is about to begin.
#[derive(Debug)]
pub(super) struct Starting {
    pub app: App,
    pub command: Arc<LiveCommand>,
    pub writer: LogWriter,
    pub sandbox: Arc<LiveSandbox>,
    pub waited: Option<Waited>,
    pub work: Work,
}

impl Starting {
    /// Begins it, says so, and drives it to its end.
    pub(super) async fn begin(
        self,
        checked: CheckedCommand,
        begun: oneshot::Sender<ApiResult<()>>,
    ) {
        self.app.commands.insert(&self.command);
        let row = self.command.row().clone();
        // At the same time: a process without a row is ended at the next start, a row without a
        // process is said to have failed.
        let (inserted, started) = tokio::join!(
            self.app.store.insert_command(&row),
            start(&self.command, checked),
        );
        let exec = match (inserted, started) {
            (Ok(()), Ok(exec)) => exec,
            (inserted, started) => {
                let error = self.take_back(inserted, started).await;
                let _ = begun.send(Err(error));
                return;
            }
        };
        let waits = self.waited.is_some();
        let driving = Driving {
            app: self.app,
            sandbox: self.sandbox,
            command: self.command,
            exec,
            writer: Some(self.writer),
            waited: self.waited,
            work: self.work,
        };
        if begun.send(Ok(())).is_err() && waits {
            // The client is gone, and nobody else knows of it.
            let _ = driving.exec.signal(SIGTERM, true).await;
        }
        driving.drive().await;
    }

    /// Of the two one is not there: neither is the other then.
    async fn take_back(
        &self,
        inserted: Result<(), store::StoreError>,
        started: Result<Exec, HostError>,
    ) -> ApiError {
        let (host, number) = (Arc::clone(&self.command.host), self.command.exec);
        let refusal = match &started {
            Ok(_) => None,
            Err(error) => Some(ApiError::from(error.clone())),
        };
        match started {
            Ok(exec) => drop(self.app.tasks.spawn(end_unknown(exec))),
            // Whether it was started is not known.
            Err(HostError::LinkLost | HostError::CallTimeout(_)) => {
                self.app.tasks.spawn(end_lost(host, number));
            }
            Err(_) => {}
        }
        let error = match &inserted {
            Err(store::StoreError::NotFound { .. }) => Some(ApiError::destroyed()),
            Err(_) => None,
            Ok(()) => refusal.clone(),
        };
        if inserted.is_ok() {
            let row = {
                let mut row = self.command.row();
                end_row(&mut row, &Ended::never_begun(), Some(0));
                row.clone()
            };
            self.app.record_command_end(&self.command, row).await;
        } else {
            self.app.commands.remove(&self.command.id);
            self.command.finish();
        }
        match (error, inserted) {
            (Some(error), _) => error,
            (None, Err(error)) => error.into(),
            (None, Ok(())) => ApiError::internal("a command that was taken back for no reason"),
        }
    }
}

async fn start(command: &LiveCommand, checked: CheckedCommand) -> Result<Exec, HostError> {
    let shell = |shell: &str| vec![shell.to_owned(), "-c".to_owned(), checked.command.clone()];
    let waiting = |flags: &'static str| {
        let shell = |shell: &str| vec![shell.to_owned(), flags.to_owned()];
        SHELLS.map(shell).to_vec()
    };
    let ways = match (checked.argv.clone(), checked.stdin.shell_flags()) {
        (Some(argv), _) => vec![argv],
        (None, Some(flags)) => waiting(flags),
        (None, None) => SHELLS.map(shell).to_vec(),
    };
    let mut refused = HostError::SpawnFailed("no shell".into());
    for argv in ways {
        let spec = ExecSpec {
            argv,
            cwd: checked.cwd.clone(),
            env: checked.env.clone(),
            timeout: checked.timeout,
            identity: checked.identity,
            stdin: checked.stdin.stdin(),
        };
        match command.host.exec(command.exec, spec).await {
            Err(error @ HostError::SpawnFailed(_)) => refused = error,
            other => return other,
        }
    }
    Err(refused)
}

/// Ends a process that has no row, and lets init forget it.
pub(super) async fn end_unknown(mut exec: Exec) {
    if let Err(error) = exec.signal(SIGKILL, false).await {
        tracing::debug!(%error, "a process without a record could not be killed");
    }
    while let Some(event) = exec.next().await {
        if matches!(event, ExecEvent::Done(_)) {
            return exec.acknowledge();
        }
    }
}

/// As [`end_unknown`], for a process that may not be there.
async fn end_lost(host: Arc<host::Sandbox>, number: u64) {
    match host.attach_exec(number, 0).await {
        Ok(exec) => end_unknown(exec).await,
        Err(error) => tracing::debug!(%error, "a process that may have begun was not found"),
    }
}
