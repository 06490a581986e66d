//! Sandbox rows: what was asked for, where it runs, how long, and how it ended.
//!
//! A row outlives its sandbox as a tombstone. `destroyed_at IS NULL` is what *live* means in
//! every statement here; it is set together with a terminal status and never unset.

use crate::column::{Column, check_metadata, json, row};
use crate::db::{on_reader, on_writer};
use crate::page::Listed;
use crate::{Cursor, Limit, Micros, Page, PageRequest, Store, StoreError};
use std::collections::BTreeMap;

/// State of a sandbox as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SandboxStatus {
    Creating,
    Starting,
    Ready,
    Running,
    Idle,
    /// Its processes are stopped and stay in memory.
    Paused,
    Expiring,
    /// Terminal.
    Destroyed,
    /// Terminal.
    Failed,
}

impl SandboxStatus {
    /// The word that is stored, which is also the word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Paused => "paused",
            Self::Expiring => "expiring",
            Self::Destroyed => "destroyed",
            Self::Failed => "failed",
        }
    }

    /// Whether the sandbox has ended for good.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Destroyed | Self::Failed)
    }
}

impl Column for SandboxStatus {
    type Sql = String;

    fn from_sql(sql: String) -> Result<Self, sqlx::error::BoxDynError> {
        Ok(match sql.as_str() {
            "creating" => Self::Creating,
            "starting" => Self::Starting,
            "ready" => Self::Ready,
            "running" => Self::Running,
            "idle" => Self::Idle,
            "paused" => Self::Paused,
            "expiring" => Self::Expiring,
            "destroyed" => Self::Destroyed,
            "failed" => Self::Failed,
            _ => return Err("unknown sandbox status".into()),
        })
    }
}

/// One sandbox, live or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub org_id: String,
    pub project_id: String,
    /// The node whose server owns the processes.
    pub node_id: String,
    pub status: SandboxStatus,
    pub template_slug: String,
    pub template_id: String,
    pub template_version: String,
    pub template_version_id: String,
    pub ttl_ms: i64,
    pub created_at: Micros,
    pub ready_at: Option<Micros>,
    pub expires_at: Micros,
    /// When it ended, destroyed or failed. `None` exactly while it is live.
    pub destroyed_at: Option<Micros>,
    pub destroyed_reason: Option<String>,
    /// No NUL characters; sizes are checked by the caller.
    pub metadata: BTreeMap<String, String>,
    /// JSON that only the runtime's caller understands (uid slot, paths, cgroup …).
    pub runtime: Option<String>,
    pub network_mode: String,
    /// Id of the API key that asked for it.
    pub created_by: String,
}

row!(Sandbox {
    id,
    org_id,
    project_id,
    node_id,
    status,
    template_slug,
    template_id,
    template_version,
    template_version_id,
    ttl_ms,
    created_at,
    ready_at,
    expires_at,
    destroyed_at,
    destroyed_reason,
    metadata,
    runtime,
    network_mode,
    created_by,
});

impl Listed for Sandbox {
    fn position(&self) -> Cursor {
        Cursor::new(self.created_at, &self.id)
    }
}

/// Which sandboxes of an organization to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxFilter {
    /// Only these projects; `None` is all of them, an empty list is none.
    pub project_ids: Option<Vec<String>>,
    /// All of these pairs must be present exactly.
    pub metadata: BTreeMap<String, String>,
    /// Also the ended ones.
    pub include_ended: bool,
}

/// A new time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    pub ttl_ms: i64,
    pub expires_at: Micros,
}

/// How a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending<'a> {
    /// [`SandboxStatus::Destroyed`] or [`SandboxStatus::Failed`].
    pub status: SandboxStatus,
    pub reason: &'a str,
    pub at: Micros,
}

/// Binds the values of [`INSERT`]; `$metadata` is the text of the row's metadata.
macro_rules! bind_sandbox {
    ($query:expr, $sandbox:expr, $metadata:expr) => {
        $query
            .bind(&$sandbox.id)
            .bind(&$sandbox.org_id)
            .bind(&$sandbox.project_id)
            .bind(&$sandbox.node_id)
            .bind($sandbox.status.as_str())
            .bind(&$sandbox.template_slug)
            .bind(&$sandbox.template_id)
            .bind(&$sandbox.template_version)
            .bind(&$sandbox.template_version_id)
            .bind($sandbox.ttl_ms)
            .bind($sandbox.created_at)
            .bind($sandbox.ready_at)
            .bind($sandbox.expires_at)
            .bind($sandbox.destroyed_at)
            .bind(&$sandbox.destroyed_reason)
            .bind(&$metadata)
            .bind(&$sandbox.runtime)
            .bind(&$sandbox.network_mode)
            .bind(&$sandbox.created_by)
    };
}
pub(crate) use bind_sandbox;

impl Store {
    /// Adds a row, in whatever status it already has: a sandbox from the pool is inserted as
    /// ready with one write. `NotFound` when the organization or the project does not exist,
    /// `Conflict` when the id is taken.
    pub async fn insert_sandbox(&self, sandbox: &Sandbox) -> Result<(), StoreError> {
        check_metadata(&sandbox.metadata)?;
        let metadata = json(&sandbox.metadata);
        on_writer!(self, "sandbox", db => bind_sandbox!(sqlx::query(INSERT), sandbox, metadata)
            .execute(db)
            .await
            .map(|_| ()))
    }

    /// One sandbox of the organization, live or ended. `NotFound` also for rows of others.
    pub async fn sandbox(&self, org_id: &str, id: &str) -> Result<Sandbox, StoreError> {
        on_reader!(self, "sandbox", db => sqlx::query_as(
                "SELECT * FROM sandboxes WHERE id = $1 AND org_id = $2")
            .bind(id)
            .bind(org_id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound { what: "sandbox" })
    }

    /// Sandboxes of the organization that pass the filter, newest first.
    pub async fn sandboxes(
        &self,
        org_id: &str,
        filter: &SandboxFilter,
        page: &PageRequest,
    ) -> Result<Page<Sandbox>, StoreError> {
        check_metadata(&filter.metadata)?;
        let (at, id) = page.below();
        let projects = filter.project_ids.as_ref().map(json);
        let metadata = (!filter.metadata.is_empty()).then(|| json(&filter.metadata));
        let sql = match filter.include_ended {
            false => self.db.pick(LIST_LIVE_SQLITE, LIST_LIVE_POSTGRES),
            true => self.db.pick(LIST_ALL_SQLITE, LIST_ALL_POSTGRES),
        };
        let rows = on_reader!(self, "sandboxes", db => sqlx::query_as(sql)
            .bind(org_id)
            .bind(at)
            .bind(id)
            .bind(&projects)
            .bind(&metadata)
            .bind(page.limit.probe())
            .fetch_all(db)
            .await)?;
        Ok(Page::from_probe(rows, page.limit))
    }

    /// How many sandboxes of the organization are live.
    pub async fn count_live_sandboxes(&self, org_id: &str) -> Result<i64, StoreError> {
        on_reader!(self, "sandboxes", db => sqlx::query_scalar(
                "SELECT COUNT(*) FROM sandboxes WHERE org_id = $1 AND destroyed_at IS NULL")
            .bind(org_id)
            .fetch_one(db)
            .await)
    }

    /// All live sandboxes of a node, oldest first: what a starting server compares with the
    /// processes it finds.
    pub async fn live_sandboxes_of_node(&self, node_id: &str) -> Result<Vec<Sandbox>, StoreError> {
        on_reader!(self, "sandboxes", db => sqlx::query_as(
                "SELECT * FROM sandboxes WHERE node_id = $1 AND destroyed_at IS NULL \
                 ORDER BY created_at, id")
            .bind(node_id)
            .fetch_all(db)
            .await)
    }

    /// Live sandboxes of a node whose time was over before `before`, the longest overdue first.
    pub async fn expired_sandboxes(
        &self,
        node_id: &str,
        before: Micros,
        limit: Limit,
    ) -> Result<Vec<Sandbox>, StoreError> {
        on_reader!(self, "sandboxes", db => sqlx::query_as(
                "SELECT * FROM sandboxes \
                 WHERE node_id = $1 AND destroyed_at IS NULL AND expires_at < $2 \
                 ORDER BY expires_at, id LIMIT $3")
            .bind(node_id)
            .bind(before)
            .bind(limit.rows())
            .fetch_all(db)
            .await)
    }

    /// Gives a live sandbox a new time to live and returns its row. `None` when there is no such
    /// live sandbox: it ended meanwhile, or never was this organization's.
    pub async fn extend_sandbox(
        &self,
        org_id: &str,
        id: &str,
        expiry: Expiry,
    ) -> Result<Option<Sandbox>, StoreError> {
        on_writer!(self, "sandbox", db => sqlx::query_as(
                "UPDATE sandboxes SET ttl_ms = $3, expires_at = $4 \
                 WHERE id = $1 AND org_id = $2 AND destroyed_at IS NULL RETURNING *")
            .bind(id)
            .bind(org_id)
            .bind(expiry.ttl_ms)
            .bind(expiry.expires_at)
            .fetch_all(db)
            .await)
        .map(|mut rows| rows.pop())
    }

    /// Replaces the metadata of a live sandbox. `false` when there is no such live sandbox.
    pub async fn set_sandbox_metadata(
        &self,
        org_id: &str,
        id: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Result<bool, StoreError> {
        check_metadata(metadata)?;
        let metadata = json(metadata);
        on_writer!(self, "sandbox", db => sqlx::query(
                "UPDATE sandboxes SET metadata = $3 \
                 WHERE id = $1 AND org_id = $2 AND destroyed_at IS NULL")
            .bind(id)
            .bind(org_id)
            .bind(&metadata)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Replaces what the runtime's caller keeps with a live sandbox. `false` when there is no such
    /// live sandbox.
    pub async fn set_sandbox_runtime(
        &self,
        org_id: &str,
        id: &str,
        runtime: &str,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "sandbox", db => sqlx::query(
                "UPDATE sandboxes SET runtime = $3 \
                 WHERE id = $1 AND org_id = $2 AND destroyed_at IS NULL")
            .bind(id)
            .bind(org_id)
            .bind(runtime)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Says that a live sandbox can now be used, with what the runtime needs to find it again.
    /// `false` when it has ended meanwhile (the caller then destroys the processes).
    pub async fn sandbox_is_ready(
        &self,
        id: &str,
        ready_at: Micros,
        runtime: &str,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "sandbox", db => sqlx::query(
                "UPDATE sandboxes SET status = 'ready', ready_at = $2, runtime = $3 \
                 WHERE id = $1 AND destroyed_at IS NULL")
            .bind(id)
            .bind(ready_at)
            .bind(runtime)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Changes the status of a live sandbox to another live one. `false` when it has ended.
    /// `Invalid` for a terminal status: [`Store::end_sandbox`] is for those.
    pub async fn set_sandbox_status(
        &self,
        id: &str,
        status: SandboxStatus,
    ) -> Result<bool, StoreError> {
        if status.is_terminal() {
            return Err(StoreError::Invalid {
                what: "sandbox status",
            });
        }
        on_writer!(self, "sandbox", db => sqlx::query(
                "UPDATE sandboxes SET status = $2 WHERE id = $1 AND destroyed_at IS NULL")
            .bind(id)
            .bind(status.as_str())
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Ends a sandbox. Of any number of callers exactly one gets `true`; the row keeps that
    /// caller's reason and time for ever. `Invalid` unless the status is terminal.
    pub async fn end_sandbox(&self, id: &str, ending: Ending<'_>) -> Result<bool, StoreError> {
        if !ending.status.is_terminal() {
            return Err(StoreError::Invalid {
                what: "sandbox status",
            });
        }
        on_writer!(self, "sandbox", db => sqlx::query(END)
            .bind(id)
            .bind(ending.status.as_str())
            .bind(ending.reason)
            .bind(ending.at)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }
}

pub(crate) const END: &str = "UPDATE sandboxes SET status = $2, destroyed_reason = $3, \
     destroyed_at = $4 WHERE id = $1 AND destroyed_at IS NULL";
pub(crate) const INSERT: &str = "INSERT INTO sandboxes (id, org_id, project_id, node_id, status, \
     template_slug, template_id, template_version, template_version_id, ttl_ms, created_at, \
     ready_at, expires_at, destroyed_at, destroyed_reason, metadata, runtime, network_mode, \
     created_by) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
     $19)";

/// `$live` narrows to live rows (and so to the partial index that holds only those). The two
/// databases differ only in how they look into JSON: is this id one of that list, does this map
/// hold all pairs of that one.
macro_rules! list {
    ($live:literal, $in_list:literal, $has_pairs:literal) => {
        concat!(
            "SELECT * FROM sandboxes AS s WHERE org_id = $1 ",
            $live,
            "AND (created_at, id) < ($2, $3) AND ($4 IS NULL OR ",
            $in_list,
            ") AND ($5 IS NULL OR ",
            $has_pairs,
            ") ORDER BY created_at DESC, id DESC LIMIT $6"
        )
    };
}
macro_rules! list_sqlite {
    ($live:literal) => {
        list!(
            $live,
            "project_id IN (SELECT value FROM json_each($4))",
            "NOT EXISTS (SELECT 1 FROM json_each($5) AS want WHERE NOT EXISTS \
             (SELECT 1 FROM json_each(s.metadata) AS have \
             WHERE have.key = want.key AND have.value = want.value))"
        )
    };
}
macro_rules! list_postgres {
    ($live:literal) => {
        list!(
            $live,
            "project_id IN (SELECT jsonb_array_elements_text($4::jsonb))",
            "s.metadata::jsonb @> $5::jsonb"
        )
    };
}
pub(crate) const LIST_LIVE_SQLITE: &str = list_sqlite!("AND destroyed_at IS NULL ");
const LIST_LIVE_POSTGRES: &str = list_postgres!("AND destroyed_at IS NULL ");
pub(crate) const LIST_ALL_SQLITE: &str = list_sqlite!("");
const LIST_ALL_POSTGRES: &str = list_postgres!("");
