//! The detached runs of this node that are not over, by id.

use crate::app::App;
use crate::auth::{Principal, micros};
use crate::command_log::{Log, LogFiles, LogWriter};
use crate::error::{ApiError, ApiResult};
use crate::host;
use crate::sandboxes::LiveSandbox;
use crownest_api::{IdKind, Timestamp};
use crownest_store as store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::record;

/// A run whose end is not on record yet.
#[derive(Debug)]
pub(crate) struct LiveRun {
    pub(super) id: String,
    sandbox_id: String,
    /// Number of the run in its sandbox.
    pub(super) number: u64,
    pub(super) host: Arc<host::Sandbox>,
    pub(super) log: Arc<Log>,
    row: Mutex<store::CodeRun>,
    pub(super) canceled: CancellationToken,
    /// True when the row is final.
    ended: watch::Sender<bool>,
}

impl LiveRun {
    pub(super) fn new(row: store::CodeRun, live: &LiveSandbox, log: Arc<Log>) -> Arc<Self> {
        let canceled = CancellationToken::new();
        if row.canceled_at.is_some() {
            canceled.cancel();
        }
        Arc::new(Self {
            id: row.id.clone(),
            sandbox_id: row.sandbox_id.clone(),
            number: u64::try_from(row.run).unwrap_or(0),
            host: Arc::clone(&live.host),
            log,
            row: Mutex::new(row),
            canceled,
            ended: watch::Sender::new(false),
        })
    }

    pub(super) fn row(&self) -> MutexGuard<'_, store::CodeRun> {
        self.row.lock().expect("no panic while it is held")
    }

    /// Remembers that a client wants its end. True when it has begun, so that there is something
    /// to interrupt.
    pub(super) fn cancel(&self, at: store::Micros) -> bool {
        let mut row = self.row();
        row.canceled_at.get_or_insert(at);
        self.canceled.cancel();
        row.status == store::CodeRunStatus::Running
    }

    pub(super) fn finish(&self) {
        self.ended.send_replace(true);
    }

    /// Says when it has ended.
    pub(super) fn watch_end(&self) -> watch::Receiver<bool> {
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
    by_id: Mutex<HashMap<String, Arc<LiveRun>>>,
}

impl Registry {
    fn by_id(&self) -> MutexGuard<'_, HashMap<String, Arc<LiveRun>>> {
        self.by_id.lock().expect("no panic while it is held")
    }

    /// False when its sandbox has `max` already.
    pub(super) fn insert(&self, run: &Arc<LiveRun>, max: usize) -> bool {
        let mut all = self.by_id();
        let of_sandbox = all.values().filter(|r| r.sandbox_id == run.sandbox_id);
        let room = of_sandbox.count() < max;
        if room {
            all.insert(run.id.clone(), Arc::clone(run));
        }
        room
    }

    pub(super) fn remove(&self, id: &str) {
        self.by_id().remove(id);
    }

    fn get(&self, id: &str) -> Option<Arc<LiveRun>> {
        self.by_id().get(id).cloned()
    }
}

/// What an id names, for a caller that may know.
#[derive(Debug, Clone)]
pub(super) enum Found {
    Live(Arc<LiveRun>),
    /// What the store has: it has ended, or another server drives it.
    Stored(Arc<store::CodeRun>),
}

impl Found {
    /// Its row as it is now.
    pub(super) fn row(&self) -> store::CodeRun {
        match self {
            Self::Live(run) => run.row().clone(),
            Self::Stored(row) => row.as_ref().clone(),
        }
    }
}

impl App {
    /// The run of that id in that sandbox, if the caller may see it.
    pub(super) async fn find_detached(
        &self,
        who: &Principal,
        sandbox_id: &str,
        id: &str,
    ) -> ApiResult<Found> {
        let unknown = || ApiError::not_found("code run");
        if !IdKind::Sandbox.matches(sandbox_id) || !IdKind::CodeRun.matches(id) {
            return Err(unknown());
        }
        let found = match self.detached.get(id) {
            Some(live) => Found::Live(live),
            None => {
                let row = self.store.code_run(&who.org_id, sandbox_id, id).await?;
                Found::Stored(Arc::new(row))
            }
        };
        let row = found.row();
        let visible = row.org_id == who.org_id
            && row.sandbox_id == sandbox_id
            && who.may_touch(&row.project_id);
        let now = micros(Timestamp::now());
        if !visible || record::expires_at(&row).is_some_and(|at| at <= now) {
            return Err(unknown());
        }
        Ok(found)
    }

    /// Files of the log of a run that the store or this server knows.
    pub(super) fn run_log_files(&self, id: &str) -> LogFiles {
        let suffix = IdKind::CodeRun.suffix(id).unwrap_or_default();
        LogFiles::new(&self.config.run_logs_dir(), suffix)
    }

    pub(super) fn new_run_log(&self, id: &str) -> LogWriter {
        LogWriter::create(self.run_log_files(id), self.config.log_limits())
    }
}
