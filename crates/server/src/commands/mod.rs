//! Commands: a shell process with a record and a log, waited for or in the background.
//!
//! Every command has one task ([`drive`]) from its start to its recorded end. Whoever waits,
//! follows the log or cancels talks to that task through [`live::LiveCommand`], so that nothing
//! depends on a client being there. After a restart [`recovery`] starts the tasks again.

mod answer;
mod collect;
mod drive;
mod early;
mod follow;
mod live;
mod log_mover;
mod logs;
mod record;
mod recovery;
mod start;
mod watched;

pub(crate) use early::respond;
pub(crate) use follow::Followed;
pub(crate) use live::LiveCommand;
pub(crate) use live::{Found, Registry};
pub(crate) use logs::{LogQuery, Place};
pub(crate) use record::wire;
pub(crate) use start::{CheckedCommand, ForeignCommand, PTY, Wait};
pub(crate) use watched::Watched;

use crate::app::App;
use crate::audit::Deed;
use crate::auth::{Principal, micros};
use crate::command_log::LogWriter;
use crate::error::{ApiError, ApiResult};
use crate::host::HostError;
use crate::idempotency::Answer;
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use collect::Collector;
use crownest_api::command::{CancelMode, Command};
use crownest_api::{ErrorCode, Timestamp};
use crownest_init::link::KILL_GRACE_MS;
use crownest_store as store;
use drive::Waited;
use serde_json::json;
use start::Starting;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// How long a cancel waits for the end: until after the SIGKILL that follows SIGTERM.
const CANCEL_WAIT: Duration = Duration::from_millis(KILL_GRACE_MS + 1_000);
/// How long the end of a sandbox waits for the records of its commands.
const END_WAIT: Duration = Duration::from_secs(2);

impl App {
    /// Starts a command. Returns when its program runs; from then on it is driven to its end,
    /// whoever waits. `waited` is told of its end with everything that it printed.
    async fn start_command(
        &self,
        who: &Principal,
        live: &Arc<LiveSandbox>,
        checked: CheckedCommand,
        waited: Option<Waited>,
    ) -> ApiResult<Arc<LiveCommand>> {
        let number = live.host.exec_number();
        let row = checked.row(who, live, number, waited.is_none());
        let writer = LogWriter::create(self.log_files(&row.id), self.config.log_limits());
        let log = Arc::clone(writer.log());
        let command = LiveCommand::new(row, number, Arc::clone(&live.host), log);
        let starting = Starting {
            app: self.clone(),
            command: Arc::clone(&command),
            writer,
            sandbox: Arc::clone(live),
            waited,
            work: live.work(),
        };
        let (begun, begins) = oneshot::channel();
        // A task of its own from the first step: a client that goes away in the middle must not
        // leave a process that nobody drives.
        self.tasks
            .spawn(async move { starting.begin(checked, begun).await });
        begins
            .await
            .map_err(|_| ApiError::internal("the task of a command ended early"))??;
        Ok(command)
    }

    /// Runs a command to its end. When the returned future is dropped, the process is ended.
    pub(crate) async fn run_command(
        &self,
        who: &Arc<Principal>,
        request: &RequestContext,
        live: &Arc<LiveSandbox>,
        checked: CheckedCommand,
    ) -> ApiResult<Answer> {
        let started = Instant::now();
        let env = checked.env.clone();
        let (sender, finished) = oneshot::channel();
        let by = Collector {
            who: Arc::clone(who),
            request: request.clone(),
        };
        let waited = Waited::new(sender, by);
        let command = self.start_command(who, live, checked, Some(waited)).await?;
        let mut process = EndOnDrop {
            command: Some(command),
            tasks: self.tasks.clone(),
        };
        let Ok(finished) = finished.await else {
            return Err(ApiError::new(
                ErrorCode::Unavailable,
                "the server is stopping",
            ));
        };
        process.command = None;
        self.metrics
            .command_seconds
            .observe(started.elapsed().as_secs_f64());
        let deed = deed("command.run", &finished.row, finished.outcome);
        let details = json!({
            "sandboxId": live.id,
            "exitCode": finished.row.exit_code,
        });
        self.audit.by_key(who, request, deed, &details);
        answer::of_run(finished, env).await
    }

    /// Starts a command in the background.
    pub(crate) async fn start_background(
        &self,
        who: &Principal,
        request: &RequestContext,
        live: &Arc<LiveSandbox>,
        checked: CheckedCommand,
    ) -> ApiResult<Command> {
        let env = checked.env.clone();
        let command = self.start_command(who, live, checked, None).await?;
        let row = command.row().clone();
        let deed = deed("command.start", &row, "ok");
        let details = json!({ "sandboxId": live.id });
        self.audit.by_key(who, request, deed, &details);
        Ok(Command { env, ..wire(&row) })
    }

    /// Starts a command that somebody types into, whoever is there to do it.
    pub(crate) async fn start_typed(
        &self,
        who: &Principal,
        request: &RequestContext,
        live: &Arc<LiveSandbox>,
        checked: CheckedCommand,
    ) -> ApiResult<Arc<LiveCommand>> {
        let command = self.start_command(who, live, checked, None).await?;
        let row = command.row().clone();
        let deed = deed("terminal.start", &row, "ok");
        let details = json!({ "sandboxId": live.id, "kind": row.terminal });
        self.audit.by_key(who, request, deed, &details);
        Ok(command)
    }

    /// Cancels a command and waits, not for ever, until it has ended. One that has is left as it
    /// is.
    pub(crate) async fn cancel_command(
        &self,
        who: &Principal,
        request: &RequestContext,
        id: &str,
        mode: CancelMode,
    ) -> ApiResult<Command> {
        let found = self.find_command(who, id).await?;
        if let Found::Live(command) = &found
            && !command.row().status.is_terminal()
        {
            self.check_not_paused(&found.row().sandbox_id)?;
            let now = Timestamp::now();
            if self
                .store
                .cancel_command(id, mode.as_str(), micros(now))
                .await?
            {
                command.cancel(mode, now);
            }
            let (signal, escalate) = match mode {
                CancelMode::Graceful => (SIGTERM, true),
                CancelMode::Force => (SIGKILL, false),
            };
            match command
                .host
                .signal_exec(command.exec, signal, escalate)
                .await
            {
                // It has ended meanwhile.
                Ok(()) | Err(HostError::TargetUnknown | HostError::SandboxGone) => {}
                Err(error) => return Err(error.into()),
            }
            let row = found.row();
            let deed = deed("command.cancel", &row, "ok");
            let details = json!({ "mode": mode });
            self.audit.by_key(who, request, deed, &details);
            let _ = tokio::time::timeout(CANCEL_WAIT, command.wait()).await;
        }
        self.command_record(&found).await
    }

    /// Puts on record that somebody took a whole log, or a way to it: secrets may be in it.
    pub(crate) fn note_logs_deed(
        &self,
        who: &Principal,
        request: &RequestContext,
        action: &'static str,
        row: &store::Command,
    ) {
        let details = json!({ "sandboxId": row.sandbox_id });
        let deed = deed(action, row, "ok");
        self.audit.by_key(who, request, deed, &details);
    }

    /// Waits until the commands of a sandbox that has ended have ended too.
    pub(crate) async fn commands_end_with(&self, sandbox_id: &str) {
        self.terminals.forget_sandbox(sandbox_id);
        let commands = self.commands.of_sandbox(sandbox_id);
        let all = async {
            for command in &commands {
                command.wait().await;
            }
        };
        if tokio::time::timeout(END_WAIT, all).await.is_err() {
            tracing::warn!(sandbox = sandbox_id, "commands outlive their sandbox");
        }
    }
}

/// What an audit event says of a command.
fn deed<'a>(action: &'static str, row: &'a store::Command, outcome: &'static str) -> Deed<'a> {
    Deed {
        action,
        resource_kind: "command",
        resource_id: &row.id,
        project_id: Some(&row.project_id),
        outcome,
    }
}

/// A process that nobody else waits for: it must not outlive the request.
#[derive(Debug)]
struct EndOnDrop {
    command: Option<Arc<LiveCommand>>,
    tasks: TaskTracker,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let Some(command) = self.command.take() else {
            return;
        };
        self.tasks.spawn(async move {
            let ended = command.host.signal_exec(command.exec, SIGTERM, true).await;
            if let Err(error) = ended {
                tracing::debug!(%error, "a command without a client could not be signalled");
            }
        });
    }
}
