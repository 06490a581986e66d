//! Command rows: what was asked for and how it ended. A row is there before its process is, and
//! outlives the process and its sandbox.
//!
//! `finished_at IS NULL` is what *running* means in every statement here; it is set together with
//! a terminal status, once. What a command printed is not kept here.

use crate::column::{Column, json, row};
use crate::db::{on_reader, on_writer};
use crate::page::Listed;
use crate::{Cursor, Micros, Page, PageRequest, Store, StoreError};

/// State of a command as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandStatus {
    /// It was asked for, and its end is not known.
    Running,
    Exited,
    Failed,
    Canceled,
    TimedOut,
    Killed,
}

impl CommandStatus {
    /// The word that is stored, which is also the word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::TimedOut => "timed_out",
            Self::Killed => "killed",
        }
    }

    /// Whether the command has ended.
    pub fn is_terminal(self) -> bool {
        self != Self::Running
    }
}

impl Column for CommandStatus {
    type Sql = String;

    fn from_sql(sql: String) -> Result<Self, sqlx::error::BoxDynError> {
        Ok(match sql.as_str() {
            "running" => Self::Running,
            "exited" => Self::Exited,
            "failed" => Self::Failed,
            "canceled" => Self::Canceled,
            "timed_out" => Self::TimedOut,
            "killed" => Self::Killed,
            _ => return Err("unknown command status".into()),
        })
    }
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub id: String,
    pub org_id: String,
    pub project_id: String,
    pub sandbox_id: String,
    /// Number of the process in its sandbox.
    pub exec: i64,
    pub command: String,
    pub cwd: String,
    /// Names of its environment; the values are not kept.
    pub env_names: Vec<String>,
    /// Nobody waited for its end.
    pub background: bool,
    pub status: CommandStatus,
    pub created_at: Micros,
    /// `None` exactly while it runs.
    pub finished_at: Option<Micros>,
    pub duration_ms: Option<i64>,
    pub exit_code: Option<i64>,
    pub termination_signal: Option<String>,
    pub killed_reason: Option<String>,
    pub cancel_mode: Option<String>,
    pub canceled_at: Option<Micros>,
    /// Everything that it printed, kept or not.
    pub stdout_bytes: i64,
    pub stderr_bytes: i64,
    /// Of that, what its log does not hold any more, or never did.
    pub log_omitted_bytes: i64,
    /// JSON that only the caller understands: the files that it was to leave.
    pub collect: Option<String>,
    pub collect_status: String,
    /// JSON, as `collect`.
    pub collect_errors: Option<String>,
    /// Id of the API key that asked for it.
    pub created_by: String,
    /// What somebody types into it through: `pty` or `pipe`. `None`: nobody does.
    pub terminal: Option<String>,
}

row!(Command {
    id,
    org_id,
    project_id,
    sandbox_id,
    exec,
    command,
    cwd,
    env_names,
    background,
    status,
    created_at,
    finished_at,
    duration_ms,
    exit_code,
    termination_signal,
    killed_reason,
    cancel_mode,
    canceled_at,
    stdout_bytes,
    stderr_bytes,
    log_omitted_bytes,
    collect,
    collect_status,
    collect_errors,
    created_by,
    terminal,
});

impl Listed for Command {
    fn position(&self) -> Cursor {
        Cursor::new(self.created_at, &self.id)
    }
}

const INSERT: &str = "INSERT INTO commands (id, org_id, project_id, sandbox_id, exec, command, \
     cwd, env_names, background, status, created_at, stdout_bytes, stderr_bytes, \
     log_omitted_bytes, collect, collect_status, created_by, terminal) \
     SELECT $1, org_id, project_id, id, $4, $5, $6, $7, $8, 'running', $9, 0, 0, 0, $10, $11, \
     $12, $13 \
     FROM sandboxes WHERE id = $2 AND org_id = $3 AND destroyed_at IS NULL";

const FINISH: &str = "UPDATE commands SET status = $2, finished_at = $3, duration_ms = $4, \
     exit_code = $5, termination_signal = $6, killed_reason = $7, cancel_mode = $8, \
     canceled_at = $9, stdout_bytes = $10, stderr_bytes = $11, log_omitted_bytes = $12, \
     collect_status = $13, collect_errors = $14 WHERE id = $1 AND finished_at IS NULL";

pub(crate) const LIST: &str = "SELECT * FROM commands \
     WHERE sandbox_id = $1 AND org_id = $2 AND (created_at, id) < ($3, $4) \
     ORDER BY created_at DESC, id DESC LIMIT $5";

impl Store {
    /// Adds a running command. Its project is that of the sandbox, whatever the row says.
    /// `NotFound` when the organization has no such live sandbox, `Conflict` when the id is taken.
    pub async fn insert_command(&self, command: &Command) -> Result<(), StoreError> {
        let env_names = json(&command.env_names);
        // From the sandbox's row, so that a command never names another tenant's sandbox.
        let inserted = on_writer!(self, "command", db => sqlx::query(INSERT)
            .bind(&command.id)
            .bind(&command.sandbox_id)
            .bind(&command.org_id)
            .bind(command.exec)
            .bind(&command.command)
            .bind(&command.cwd)
            .bind(&env_names)
            .bind(command.background)
            .bind(command.created_at)
            .bind(&command.collect)
            .bind(&command.collect_status)
            .bind(&command.created_by)
            .bind(&command.terminal)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        match inserted {
            0 => Err(StoreError::NotFound { what: "sandbox" }),
            _ => Ok(()),
        }
    }

    /// One command of the organization, running or ended.
    pub async fn command(&self, org_id: &str, id: &str) -> Result<Command, StoreError> {
        on_reader!(self, "command", db => sqlx::query_as(
                "SELECT * FROM commands WHERE id = $1 AND org_id = $2")
            .bind(id)
            .bind(org_id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound { what: "command" })
    }

    /// The commands of one sandbox of the organization, newest first.
    pub async fn commands(
        &self,
        org_id: &str,
        sandbox_id: &str,
        page: &PageRequest,
    ) -> Result<Page<Command>, StoreError> {
        let (at, id) = page.below();
        let rows = on_reader!(self, "commands", db => sqlx::query_as(LIST)
            .bind(sandbox_id)
            .bind(org_id)
            .bind(at)
            .bind(id)
            .bind(page.limit.probe())
            .fetch_all(db)
            .await)?;
        Ok(Page::from_probe(rows, page.limit))
    }

    /// All commands of a node whose end is not known, oldest first: what a starting server
    /// compares with the processes it finds.
    pub async fn running_commands_of_node(
        &self,
        node_id: &str,
    ) -> Result<Vec<Command>, StoreError> {
        on_reader!(self, "commands", db => sqlx::query_as(
                "SELECT c.* FROM commands AS c JOIN sandboxes AS s ON s.id = c.sandbox_id \
                 WHERE c.finished_at IS NULL AND s.node_id = $1 ORDER BY c.created_at, c.id")
            .bind(node_id)
            .fetch_all(db)
            .await)
    }

    /// Puts on record what a running command is to leave, in the caller's words.
    pub async fn plan_collection(&self, id: &str, collect: &str) -> Result<(), StoreError> {
        on_writer!(self, "command", db => sqlx::query(
                "UPDATE commands SET collect = $2 WHERE id = $1 AND finished_at IS NULL")
            .bind(id)
            .bind(collect)
            .execute(db)
            .await
            .map(|_| ()))
    }

    /// Says that a running command is to be canceled. `false` when it has ended.
    pub async fn cancel_command(
        &self,
        id: &str,
        mode: &str,
        at: Micros,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "command", db => sqlx::query(
                "UPDATE commands SET cancel_mode = $2, canceled_at = COALESCE(canceled_at, $3) \
                 WHERE id = $1 AND finished_at IS NULL")
            .bind(id)
            .bind(mode)
            .bind(at)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Ends a command with everything in `command` that is known at its end. Of any number of
    /// callers exactly one gets `true`. `Invalid` unless it has a terminal status and a time.
    pub async fn finish_command(&self, command: &Command) -> Result<bool, StoreError> {
        if !command.status.is_terminal() || command.finished_at.is_none() {
            return Err(StoreError::Invalid {
                what: "command status",
            });
        }
        on_writer!(self, "command", db => sqlx::query(FINISH)
            .bind(&command.id)
            .bind(command.status.as_str())
            .bind(command.finished_at)
            .bind(command.duration_ms)
            .bind(command.exit_code)
            .bind(&command.termination_signal)
            .bind(&command.killed_reason)
            .bind(&command.cancel_mode)
            .bind(command.canceled_at)
            .bind(command.stdout_bytes)
            .bind(command.stderr_bytes)
            .bind(command.log_omitted_bytes)
            .bind(&command.collect_status)
            .bind(&command.collect_errors)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }
}
