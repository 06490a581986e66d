//! Workspace runs: an archive is uploaded, unpacked in a sandbox, one command runs there, chosen
//! files are kept, the sandbox goes.
//!
//! Owns: the states of a run and what leads from one to the next. Does not own: archives
//! ([`crate::archive`]), commands and their logs, artifacts, sandboxes: those services are used.
//!
//! Every step is recorded before it is done, so that whatever kills the server finds a record that
//! says where the run was. One task ([`drive`]) carries a run out from its start to its recorded
//! end, whether or not a client is there; the next server of the node takes it up where it was
//! ([`recovery`]). Rows change by version: of two that change one at the same time, the second
//! looks again.

mod announced;
mod check;
mod closing;
mod drive;
mod events;
mod failure;
mod record;
mod recovery;
mod sandbox;
mod uploads;

pub(crate) use announced::Announced;
pub(crate) use events::EventQuery;
pub(crate) use uploads::staged_resource;

use crate::app::App;
use crate::audit::Deed;
use crate::auth::{Principal, micros};
use crate::error::{ApiError, ApiResult};
use crate::request::RequestContext;
use crownest_api::workspace_run::{CreateWorkspaceRun, WorkspaceRun, WorkspaceRunEvidence};
use crownest_api::{ErrorCode, IdKind, Timestamp, new_id};
use crownest_store as store;
use record::{Record, State};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use store::WorkspaceRunStatus as Status;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a change of a row is tried when others change it at the same time.
const CHANGE_TRIES_MAX: usize = 32;
/// How long a cancel waits for the end of a run: its command has two seconds to end by itself.
const CANCEL_WAIT: Duration = Duration::from_secs(8);

/// The runs of this node that are being carried out, and those who wait for news.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Cancelled when a client wants the end of the run.
    active: Mutex<HashMap<String, CancellationToken>>,
    /// Sandboxes of clients that a run has.
    taken: Mutex<HashSet<String>>,
    watched: Mutex<HashMap<String, watch::Sender<u64>>>,
}

impl Registry {
    fn active(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.active.lock().expect("no panic while it is held")
    }

    /// Begins to carry a run out; none when that is being done.
    fn begin(&self, id: &str) -> Option<CancellationToken> {
        let mut active = self.active();
        if active.contains_key(id) {
            return None;
        }
        let token = CancellationToken::new();
        active.insert(id.to_owned(), token.clone());
        Some(token)
    }

    /// Takes a client's sandbox for one run. False when another has it.
    fn take(&self, sandbox_id: &str) -> bool {
        let mut taken = self.taken.lock().expect("no panic while it is held");
        taken.insert(sandbox_id.to_owned())
    }

    fn give_back(&self, sandbox_id: &str) {
        let mut taken = self.taken.lock().expect("no panic while it is held");
        taken.remove(sandbox_id);
    }

    /// Hears of every change of a run.
    fn watch(&self, id: &str) -> watch::Receiver<u64> {
        let mut watched = self.watched.lock().expect("no panic while it is held");
        // Whoever comes sweeps out those that nobody listens to any more.
        watched.retain(|known, sender| known == id || sender.receiver_count() > 0);
        watched.entry(id.to_owned()).or_default().subscribe()
    }

    fn notify(&self, id: &str) {
        let watched = self.watched.lock().expect("no panic while it is held");
        if let Some(sender) = watched.get(id) {
            sender.send_modify(|version| *version += 1);
        }
    }
}

impl App {
    /// Makes a run that waits for its archive.
    pub(crate) async fn create_workspace_run(
        &self,
        who: &Principal,
        request: &RequestContext,
        asked: CreateWorkspaceRun,
    ) -> ApiResult<WorkspaceRun> {
        let (project_id, spec) = self.check_workspace_run(who, request, asked).await?;
        let row = store::WorkspaceRun {
            id: new_id(IdKind::WorkspaceRun),
            org_id: who.org_id.clone(),
            project_id,
            node_id: self.config.node_id.clone(),
            status: Status::AwaitingArchive,
            version: 1,
            created_at: micros(Timestamp::now()),
            finished_at: None,
            spec: serde_json::to_string(&spec).map_err(ApiError::internal)?,
            state: String::new(),
            created_by: who.key_id.to_string(),
        };
        let mut record = Record {
            row,
            spec,
            state: State::default(),
        };
        let event = record.enter(Status::AwaitingArchive);
        record.row.state = serde_json::to_string(&record.state).map_err(ApiError::internal)?;
        self.store
            .insert_workspace_run(&record.row, &[event])
            .await?;
        self.note_run(who, request, "workspace_run.create", &record);
        Ok(record.wire())
    }

    /// The run of that id, if the caller may see it.
    async fn find_run(&self, who: &Principal, id: &str) -> ApiResult<Record> {
        let unknown = || ApiError::not_found("workspace run");
        if !IdKind::WorkspaceRun.matches(id) {
            return Err(unknown());
        }
        let record = self.load_run(&who.org_id, id).await?;
        if !who.may_touch(&record.row.project_id) {
            return Err(unknown());
        }
        Ok(record)
    }

    async fn load_run(&self, org_id: &str, id: &str) -> ApiResult<Record> {
        let row = self.store.workspace_run(org_id, id).await?;
        Record::read(row).map_err(ApiError::internal)
    }

    /// A run as clients see it.
    pub(crate) async fn workspace_run(&self, who: &Principal, id: &str) -> ApiResult<WorkspaceRun> {
        Ok(self.find_run(who, id).await?.wire())
    }

    /// Runs, newest first.
    pub(crate) async fn workspace_runs(
        &self,
        who: &Principal,
        page: &store::PageRequest,
    ) -> ApiResult<store::Page<WorkspaceRun>> {
        let page = self
            .store
            .workspace_runs(&who.org_id, who.project_ids.as_ref(), page)
            .await?;
        let read = |row| Record::read(row).map(|record| record.wire());
        let rows: Result<_, _> = page.rows.into_iter().map(read).collect();
        Ok(store::Page {
            rows: rows.map_err(ApiError::internal)?,
            next: page.next,
        })
    }

    /// What is left of a run that is over.
    pub(crate) async fn workspace_run_evidence(
        &self,
        who: &Principal,
        request: &RequestContext,
        id: &str,
    ) -> ApiResult<WorkspaceRunEvidence> {
        let record = self.find_run(who, id).await?;
        if !record.is_over() {
            return Err(ApiError::new(
                ErrorCode::NotFound,
                "there is no evidence before the workspace run is over",
            ));
        }
        let deed = deed("workspace_run.read_evidence", &record, "ok");
        self.audit.by_key(who, request, deed, &json!({}));
        Ok(record.evidence())
    }

    /// Starts a run whose archive is there. One that was started before is left as it is.
    pub(crate) async fn start_workspace_run(
        &self,
        who: &Arc<Principal>,
        request: &RequestContext,
        id: &str,
    ) -> ApiResult<WorkspaceRun> {
        let found = self.find_run(who, id).await?;
        let mut started = false;
        let record = self
            .change_run(found, |record| match record.row.status {
                Status::AwaitingArchive => Err(ApiError::new(
                    ErrorCode::UploadIncomplete,
                    "the archive of this workspace run has not been uploaded",
                )),
                Status::ArchiveUploaded => {
                    record.state.started_at = Some(Timestamp::now());
                    started = true;
                    Ok(Some(vec![record.enter(Status::Starting)]))
                }
                _ => {
                    started = false;
                    Ok(None)
                }
            })
            .await?;
        if started {
            self.carry_out(record.clone(), Arc::clone(who), request.clone());
            self.note_run(who, request, "workspace_run.start", &record);
        }
        Ok(record.wire())
    }

    /// Cancels a run and waits, not for ever, until it is over. One that is over stays as it is.
    pub(crate) async fn cancel_workspace_run(
        &self,
        who: &Principal,
        request: &RequestContext,
        id: &str,
    ) -> ApiResult<WorkspaceRun> {
        let found = self.find_run(who, id).await?;
        let mut news = self.workspace_runs.watch(id);
        let mut canceled = false;
        let mut record = self
            .change_run(found, |record| {
                canceled = false;
                match record.row.status {
                    Status::Succeeded | Status::Failed | Status::Canceled => Ok(None),
                    _ if record.state.canceled => Ok(None),
                    Status::AwaitingArchive | Status::ArchiveUploaded => {
                        (record.state.canceled, canceled) = (true, true);
                        Ok(Some(record.end(Status::Canceled)))
                    }
                    _ => {
                        (record.state.canceled, canceled) = (true, true);
                        Ok(Some(Vec::new()))
                    }
                }
            })
            .await?;
        if canceled {
            self.note_run(who, request, "workspace_run.cancel", &record);
        }
        if record.is_over() {
            self.sweep_run_uploads();
            return Ok(record.wire());
        }
        if let Some(token) = self.workspace_runs.active().get(id) {
            token.cancel();
        }
        let over = async {
            while !record.is_over() {
                if news.changed().await.is_err() {
                    break;
                }
                record = self.load_run(&who.org_id, id).await?;
            }
            Ok::<_, ApiError>(())
        };
        if let Ok(outcome) = tokio::time::timeout(CANCEL_WAIT, over).await {
            outcome?;
        }
        Ok(record.wire())
    }

    /// Changes a run: `change` gets it as it is and returns the events of the change, or none
    /// when there is nothing to change. It is called again when somebody else was faster.
    async fn change_run<F>(&self, mut record: Record, mut change: F) -> ApiResult<Record>
    where
        F: FnMut(&mut Record) -> ApiResult<Option<Vec<store::WorkspaceRunEvent>>>,
    {
        for _ in 0..CHANGE_TRIES_MAX {
            let mut changed = record.clone();
            let Some(events) = change(&mut changed)? else {
                return Ok(record);
            };
            changed.row.state =
                serde_json::to_string(&changed.state).map_err(ApiError::internal)?;
            if self
                .store
                .change_workspace_run(&changed.row, &events)
                .await?
            {
                changed.row.version += 1;
                self.workspace_runs.notify(changed.id());
                return Ok(changed);
            }
            record = self.load_run(&record.row.org_id, &record.row.id).await?;
        }
        Err(ApiError::new(
            ErrorCode::Unavailable,
            "too many requests change this workspace run at the same time",
        )
        .retry_after(1_000))
    }

    fn note_run(
        &self,
        who: &Principal,
        request: &RequestContext,
        action: &'static str,
        record: &Record,
    ) {
        let details = json!({ "sandboxId": record.spec.sandbox_id });
        let deed = deed(action, record, "ok");
        self.audit.by_key(who, request, deed, &details);
    }
}

/// What an audit event says of a run.
fn deed<'a>(action: &'static str, record: &'a Record, outcome: &'static str) -> Deed<'a> {
    Deed {
        action,
        resource_kind: "workspace_run",
        resource_id: &record.row.id,
        project_id: Some(&record.row.project_id),
        outcome,
    }
}

/// The archive of an upload in the object store. Made of our own id alone.
fn object_key(upload_id: &str) -> String {
    format!("workspace-archives/{upload_id}")
}
