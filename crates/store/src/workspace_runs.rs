//! Workspace runs: what was asked for, how far it has come, and what happened on the way.
//!
//! A run changes step by step, each step together with the events that tell of it, and only from
//! the version that the caller has read: of two callers one wins, and the other looks again. What
//! the command of a run printed is in the command's log and not here.

use crate::column::{Column, json, row};
use crate::db::{in_transaction, on_reader, on_writer};
use crate::page::Listed;
use crate::{Cursor, Limit, Micros, Page, PageRequest, Store, StoreError};

/// Where a run is, as it is stored and as it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkspaceRunStatus {
    AwaitingArchive,
    ArchiveUploaded,
    Starting,
    Extracting,
    Running,
    Collecting,
    Succeeded,
    Failed,
    Canceled,
}

impl WorkspaceRunStatus {
    const ALL: [Self; 9] = [
        Self::AwaitingArchive,
        Self::ArchiveUploaded,
        Self::Starting,
        Self::Extracting,
        Self::Running,
        Self::Collecting,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
    ];

    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingArchive => "awaiting_archive",
            Self::ArchiveUploaded => "archive_uploaded",
            Self::Starting => "starting",
            Self::Extracting => "extracting",
            Self::Running => "running",
            Self::Collecting => "collecting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether the run is over.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

impl Column for WorkspaceRunStatus {
    type Sql = String;

    fn from_sql(sql: String) -> Result<Self, sqlx::error::BoxDynError> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == sql)
            .ok_or_else(|| "unknown workspace run status".into())
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceRun {
    pub id: String,
    pub org_id: String,
    pub project_id: String,
    /// The node whose server carries it out.
    pub node_id: String,
    pub status: WorkspaceRunStatus,
    /// Of the row; [`Store::change_workspace_run`] raises it.
    pub version: i64,
    pub created_at: Micros,
    /// `None` exactly while it is not over.
    pub finished_at: Option<Micros>,
    /// JSON of the caller: what was asked for.
    pub spec: String,
    /// JSON of the caller: what has become of it.
    pub state: String,
    /// Id of the API key that asked for it.
    pub created_by: String,
}

row!(WorkspaceRun {
    id,
    org_id,
    project_id,
    node_id,
    status,
    version,
    created_at,
    finished_at,
    spec,
    state,
    created_by,
});

impl Listed for WorkspaceRun {
    fn position(&self) -> Cursor {
        Cursor::new(self.created_at, &self.id)
    }
}

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceRunEvent {
    pub run_id: String,
    pub seq: i64,
    pub at: Micros,
    /// JSON of the caller.
    pub event: String,
}

row!(WorkspaceRunEvent {
    run_id,
    seq,
    at,
    event,
});

/// An archive that comes in two steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceRunUpload {
    pub id: String,
    pub run_id: String,
    /// What was announced.
    pub sha256: String,
    pub size_bytes: i64,
    /// `pending`, `uploaded` or `finalized`.
    pub status: String,
    pub created_at: Micros,
    pub expires_at: Micros,
}

row!(WorkspaceRunUpload {
    id,
    run_id,
    sha256,
    size_bytes,
    status,
    created_at,
    expires_at,
});

const INSERT: &str = "INSERT INTO workspace_runs (id, org_id, project_id, node_id, status, \
     version, created_at, finished_at, spec, state, created_by) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

const CHANGE: &str = "UPDATE workspace_runs SET version = version + 1, status = $3, \
     finished_at = $4, state = $5 WHERE id = $1 AND version = $2";

macro_rules! list {
    ($in_list:literal) => {
        concat!(
            "SELECT * FROM workspace_runs WHERE org_id = $1 AND (created_at, id) < ($2, $3) \
             AND ($4 IS NULL OR ",
            $in_list,
            ") ORDER BY created_at DESC, id DESC LIMIT $5"
        )
    };
}
pub(crate) const LIST_SQLITE: &str = list!("project_id IN (SELECT value FROM json_each($4))");
const LIST_POSTGRES: &str = list!("project_id IN (SELECT jsonb_array_elements_text($4::jsonb))");

macro_rules! insert_events {
    ($events:expr, $db:ident) => {
        for event in $events {
            sqlx::query(
                "INSERT INTO workspace_run_events (run_id, seq, at, event) VALUES ($1, $2, $3, $4)",
            )
            .bind(&event.run_id)
            .bind(event.seq)
            .bind(event.at)
            .bind(&event.event)
            .execute(&mut *$db)
            .await?;
        }
    };
}

impl Store {
    /// Adds a run with its first events. `NotFound` when the organization or project does not
    /// exist, `Conflict` when the id is taken.
    pub async fn insert_workspace_run(
        &self,
        run: &WorkspaceRun,
        events: &[WorkspaceRunEvent],
    ) -> Result<(), StoreError> {
        in_transaction!(self, "workspace run", db => {
            sqlx::query(INSERT)
                .bind(&run.id)
                .bind(&run.org_id)
                .bind(&run.project_id)
                .bind(&run.node_id)
                .bind(run.status.as_str())
                .bind(run.version)
                .bind(run.created_at)
                .bind(run.finished_at)
                .bind(&run.spec)
                .bind(&run.state)
                .bind(&run.created_by)
                .execute(&mut *db)
                .await?;
            insert_events!(events, db);
            Ok(())
        })
    }

    /// Changes status, end and state of a run and adds events, all or nothing. `run.version` is
    /// what was read; `false` when it is not the stored one any more.
    pub async fn change_workspace_run(
        &self,
        run: &WorkspaceRun,
        events: &[WorkspaceRunEvent],
    ) -> Result<bool, StoreError> {
        in_transaction!(self, "workspace run", db => {
            let changed = sqlx::query(CHANGE)
                .bind(&run.id)
                .bind(run.version)
                .bind(run.status.as_str())
                .bind(run.finished_at)
                .bind(&run.state)
                .execute(&mut *db)
                .await?
                .rows_affected();
            if changed == 1 {
                insert_events!(events, db);
            }
            Ok(changed == 1)
        })
    }

    /// One run of the organization.
    pub async fn workspace_run(&self, org_id: &str, id: &str) -> Result<WorkspaceRun, StoreError> {
        on_reader!(self, "workspace run", db => sqlx::query_as(
                "SELECT * FROM workspace_runs WHERE id = $1 AND org_id = $2")
            .bind(id)
            .bind(org_id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound {
            what: "workspace run",
        })
    }

    /// Runs of the organization, newest first; of these projects only where there is a list.
    pub async fn workspace_runs(
        &self,
        org_id: &str,
        project_ids: Option<&Vec<String>>,
        page: &PageRequest,
    ) -> Result<Page<WorkspaceRun>, StoreError> {
        let (at, id) = page.below();
        let projects = project_ids.map(json);
        let sql = self.db.pick(LIST_SQLITE, LIST_POSTGRES);
        let rows = on_reader!(self, "workspace runs", db => sqlx::query_as(sql)
            .bind(org_id)
            .bind(at)
            .bind(id)
            .bind(&projects)
            .bind(page.limit.probe())
            .fetch_all(db)
            .await)?;
        Ok(Page::from_probe(rows, page.limit))
    }

    /// Runs of a node that are not over, the oldest first.
    pub async fn open_workspace_runs(
        &self,
        node_id: &str,
        created_before: Micros,
        limit: Limit,
    ) -> Result<Vec<WorkspaceRun>, StoreError> {
        on_reader!(self, "workspace runs", db => sqlx::query_as(
                "SELECT * FROM workspace_runs \
                 WHERE node_id = $1 AND created_at < $2 AND finished_at IS NULL \
                 ORDER BY created_at, id LIMIT $3")
            .bind(node_id)
            .bind(created_before)
            .bind(limit.rows())
            .fetch_all(db)
            .await)
    }

    /// Runs of a node that a server has begun to carry out, the oldest first.
    pub async fn active_workspace_runs(
        &self,
        node_id: &str,
    ) -> Result<Vec<WorkspaceRun>, StoreError> {
        on_reader!(self, "workspace runs", db => sqlx::query_as(
                "SELECT * FROM workspace_runs WHERE node_id = $1 AND finished_at IS NULL \
                 AND status NOT IN ('awaiting_archive', 'archive_uploaded') \
                 ORDER BY created_at, id")
            .bind(node_id)
            .fetch_all(db)
            .await)
    }

    /// Events of a run after a number, in their order.
    pub async fn workspace_run_events(
        &self,
        run_id: &str,
        after_seq: i64,
        limit: Limit,
    ) -> Result<Vec<WorkspaceRunEvent>, StoreError> {
        on_reader!(self, "workspace run events", db => sqlx::query_as(
                "SELECT * FROM workspace_run_events WHERE run_id = $1 AND seq > $2 \
                 ORDER BY seq LIMIT $3")
            .bind(run_id)
            .bind(after_seq)
            .bind(limit.rows())
            .fetch_all(db)
            .await)
    }

    /// Adds an upload, unless the run has `uploads_max` already: `false` then.
    pub async fn insert_workspace_run_upload(
        &self,
        upload: &WorkspaceRunUpload,
        uploads_max: i64,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "upload", db => sqlx::query(
                "INSERT INTO workspace_run_uploads \
                 (id, run_id, sha256, size_bytes, status, created_at, expires_at) \
                 SELECT $1, $2, $3, $4, $5, $6, $7 WHERE (SELECT COUNT(*) \
                 FROM workspace_run_uploads WHERE run_id = $2) < $8")
            .bind(&upload.id)
            .bind(&upload.run_id)
            .bind(&upload.sha256)
            .bind(upload.size_bytes)
            .bind(&upload.status)
            .bind(upload.created_at)
            .bind(upload.expires_at)
            .bind(uploads_max)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// All uploads of a run, the oldest first.
    pub async fn workspace_run_uploads(
        &self,
        run_id: &str,
    ) -> Result<Vec<WorkspaceRunUpload>, StoreError> {
        on_reader!(self, "uploads", db => sqlx::query_as(
                "SELECT * FROM workspace_run_uploads WHERE run_id = $1 ORDER BY id")
            .bind(run_id)
            .fetch_all(db)
            .await)
    }

    /// Says that an upload is `uploaded` or `finalized`. A finalized one stays so: `false`.
    pub async fn set_workspace_run_upload(
        &self,
        id: &str,
        status: &str,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "upload", db => sqlx::query(
                "UPDATE workspace_run_uploads SET status = $2 \
                 WHERE id = $1 AND status <> 'finalized'")
            .bind(id)
            .bind(status)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Uploads whose run is over, and that are still there.
    pub async fn stale_workspace_run_uploads(
        &self,
        limit: i64,
    ) -> Result<Vec<WorkspaceRunUpload>, StoreError> {
        on_reader!(self, "uploads", db => sqlx::query_as(
                "SELECT u.* FROM workspace_run_uploads AS u \
                 JOIN workspace_runs AS r ON r.id = u.run_id \
                 WHERE r.finished_at IS NOT NULL ORDER BY u.id LIMIT $1")
            .bind(limit)
            .fetch_all(db)
            .await)
    }

    /// Forgets an upload whose bytes are gone.
    pub async fn delete_workspace_run_upload(&self, id: &str) -> Result<(), StoreError> {
        on_writer!(self, "upload", db => sqlx::query(
                "DELETE FROM workspace_run_uploads WHERE id = $1")
            .bind(id)
            .execute(db)
            .await
            .map(|_| ()))
    }
}
