//! The commands of this node that run, by id.

use super::record::{self, add_output};
use crate::app::App;
use crate::auth::{Principal, micros};
use crate::command_log::{Log, LogError, LogFiles, LogIndex};
use crate::error::{ApiError, ApiResult};
use crate::host;
use crownest_api::command::{CancelMode, Command};
use crownest_api::{IdKind, Timestamp};
use crownest_store as store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// A command whose end is not on record yet.
#[derive(Debug)]
pub(crate) struct LiveCommand {
    pub id: String,
    sandbox_id: String,
    /// Number of its process in its sandbox.
    pub exec: u64,
    pub host: Arc<host::Sandbox>,
    pub log: Arc<Log>,
    row: Mutex<store::Command>,
    /// True when the row is final.
    ended: watch::Sender<bool>,
}

impl LiveCommand {
    pub(super) fn new(
        row: store::Command,
        exec: u64,
        host: Arc<host::Sandbox>,
        log: Arc<Log>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: row.id.clone(),
            sandbox_id: row.sandbox_id.clone(),
            exec,
            host,
            log,
            row: Mutex::new(row),
            ended: watch::Sender::new(false),
        })
    }

    pub(crate) fn row(&self) -> MutexGuard<'_, store::Command> {
        self.row.lock().expect("no panic while it is held")
    }

    /// Remembers that a client wants its end.
    pub(super) fn cancel(&self, mode: CancelMode, at: Timestamp) {
        let mut row = self.row();
        row.cancel_mode = Some(mode.as_str().to_owned());
        row.canceled_at.get_or_insert_with(|| micros(at));
    }

    pub(super) fn finish(&self) {
        self.ended.send_replace(true);
    }

    /// Says when it has ended.
    pub(crate) fn watch_end(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// Resolves when it has ended.
    pub(super) async fn wait(&self) {
        // Fails only when the sender is gone, which is this value's own.
        let _ = self.watch_end().wait_for(|ended| *ended).await;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    by_id: Mutex<HashMap<String, Arc<LiveCommand>>>,
}

impl Registry {
    fn by_id(&self) -> MutexGuard<'_, HashMap<String, Arc<LiveCommand>>> {
        self.by_id.lock().expect("no panic while it is held")
    }

    pub(super) fn insert(&self, command: &Arc<LiveCommand>) {
        self.by_id().insert(command.id.clone(), Arc::clone(command));
    }

    pub(super) fn remove(&self, id: &str) {
        self.by_id().remove(id);
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<LiveCommand>> {
        self.by_id().get(id).cloned()
    }

    pub(crate) fn of_sandbox(&self, sandbox_id: &str) -> Vec<Arc<LiveCommand>> {
        let all = self.by_id();
        let found = all.values().filter(|c| c.sandbox_id == sandbox_id);
        found.cloned().collect()
    }
}

/// What an id names, for a caller that may know.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    Live(Arc<LiveCommand>),
    /// What the store has: it has ended, or another server drives it.
    Stored(Arc<store::Command>),
}

impl Found {
    /// Its row as it is now.
    pub(crate) fn row(&self) -> store::Command {
        match self {
            Self::Live(command) => command.row().clone(),
            Self::Stored(row) => row.as_ref().clone(),
        }
    }
}

impl App {
    /// The command of that id, if the caller may see it.
    pub(crate) async fn find_command(&self, who: &Principal, id: &str) -> ApiResult<Found> {
        let unknown = || ApiError::not_found("command");
        if !IdKind::Command.matches(id) {
            return Err(unknown());
        }
        let found = match self.commands.get(id) {
            Some(live) => Found::Live(live),
            None => Found::Stored(Arc::new(self.store.command(&who.org_id, id).await?)),
        };
        let row = found.row();
        if row.org_id != who.org_id || !who.may_touch(&row.project_id) {
            return Err(unknown());
        }
        Ok(found)
    }

    /// Where the log of a command is, and what it holds now.
    pub(crate) async fn log_of(&self, found: &Found) -> ApiResult<(LogFiles, LogIndex)> {
        match found {
            Found::Live(command) => Ok((command.log.files.clone(), command.log.index())),
            Found::Stored(row) => {
                let files = self.log_files(&row.id);
                let looking = tokio::task::spawn_blocking(move || {
                    let index = files.index()?;
                    Ok((files, index))
                });
                let looked: Result<_, LogError> = looking.await.map_err(ApiError::internal)?;
                Ok(looked?)
            }
        }
    }

    /// Files of the log of a command that the store or this server knows.
    pub(crate) fn log_files(&self, id: &str) -> LogFiles {
        let suffix = IdKind::Command.suffix(id).unwrap_or_default();
        LogFiles::new(&self.config.logs_dir(), suffix).with_remote(self.remote_logs.as_ref())
    }

    /// A command as clients see it; once it has ended, with what its streams begin with.
    pub(crate) async fn command_record(&self, found: &Found) -> ApiResult<Command> {
        let row = found.row();
        let mut command = record::wire(&row);
        if !row.status.is_terminal() {
            return Ok(command);
        }
        if row.stdout_bytes == 0 && row.stderr_bytes == 0 {
            for (text, truncated) in [
                (&mut command.stdout, &mut command.stdout_truncated),
                (&mut command.stderr, &mut command.stderr_truncated),
            ] {
                (*text, *truncated) = (Some(String::new()), Some(false));
            }
            return Ok(command);
        }
        let (files, index) = self.log_of(found).await?;
        let omitted = omitted_bytes(found, &index);
        command.log_omitted_bytes = (omitted > 0).then_some(omitted);
        add_output(&mut command, &row, &files, &index).await?;
        Ok(command)
    }
}

/// Bytes that were printed and that the log of a command does not have.
pub(super) fn omitted_bytes(found: &Found, index: &LogIndex) -> u64 {
    match found {
        Found::Live(_) => index.omitted_bytes(),
        Found::Stored(row) => {
            let count = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
            let printed = count(row.stdout_bytes).saturating_add(count(row.stderr_bytes));
            // Since its end, the oldest segments may have gone, or all.
            let dropped = index.dropped_bytes().unwrap_or(printed);
            dropped.max(count(row.log_omitted_bytes))
        }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Gap { first_seq } => Self::new(
                crownest_api::ErrorCode::StreamGap,
                format!("the log begins with number {first_seq}; what was before is not kept"),
            )
            .with_details(serde_json::json!({ "firstSeq": first_seq })),
            LogError::Io(error) => Self::internal(format_args!("reading a log: {error}")),
            LogError::Objects(error) => error.into(),
        }
    }
}
