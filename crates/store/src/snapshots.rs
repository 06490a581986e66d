//! Snapshots: file systems of sandboxes that were kept. The bytes are in a file of the node that
//! made them; here is what they are, and where in its life each is.
//!
//! A snapshot is *creating* from before its file is begun, then *ready* or *failed*. One that is
//! taken away is *deleting* until its file is gone; then there is no row. So a file without a row
//! that leads to it belongs to nobody.

use crate::column::{json, row};
use crate::db::{on_reader, on_writer};
use crate::{Limit, Micros, Store, StoreError};

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub id: String,
    pub org_id: String,
    pub project_id: String,
    /// The sandbox whose files these were.
    pub sandbox_id: String,
    /// Where its file is.
    pub node_id: String,
    /// `creating`, `ready`, `failed` or `deleting`.
    pub state: String,
    pub name: Option<String>,
    pub template_slug: String,
    pub template_version_id: String,
    /// What its files take in a sandbox; zero until it is ready.
    pub size_bytes: i64,
    /// Files, directories and everything else that has a name; zero until it is ready.
    pub entries: i64,
    /// Why it failed, for people.
    pub failure: Option<String>,
    pub created_at: Micros,
    /// Of the last change of its state.
    pub changed_at: Micros,
    /// Id of the API key that asked for it.
    pub created_by: String,
}

row!(Snapshot {
    id,
    org_id,
    project_id,
    sandbox_id,
    node_id,
    state,
    name,
    template_slug,
    template_version_id,
    size_bytes,
    entries,
    failure,
    created_at,
    changed_at,
    created_by,
});

/// Which snapshots of an organization to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Only these projects; `None` is all of them, an empty list is none.
    pub project_ids: Option<Vec<String>>,
    pub sandbox_id: Option<String>,
    pub name: Option<String>,
    /// Any of these; `None` is all.
    pub states: Option<Vec<String>>,
}

/// How the making of a snapshot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotEnd<'a> {
    Ready { size_bytes: i64, entries: i64 },
    Failed { why: &'a str },
}

impl Store {
    /// Adds a snapshot that is about to be made, as `creating`. `NotFound` when the organization
    /// has no such sandbox.
    pub async fn insert_snapshot(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        // From the sandbox's row, so that a snapshot never names another tenant's sandbox.
        let inserted = on_writer!(self, "snapshot", db => sqlx::query(
                "INSERT INTO snapshots (id, org_id, project_id, sandbox_id, node_id, state, name, \
                 template_slug, template_version_id, size_bytes, entries, created_at, changed_at, \
                 created_by) \
                 SELECT $1, org_id, project_id, id, node_id, 'creating', $4, template_slug, \
                 template_version_id, 0, 0, $5, $5, $6 \
                 FROM sandboxes WHERE id = $2 AND org_id = $3")
            .bind(&snapshot.id)
            .bind(&snapshot.sandbox_id)
            .bind(&snapshot.org_id)
            .bind(&snapshot.name)
            .bind(snapshot.created_at)
            .bind(&snapshot.created_by)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        match inserted {
            0 => Err(StoreError::NotFound { what: "sandbox" }),
            _ => Ok(()),
        }
    }

    /// One snapshot of the organization, in whatever state.
    pub async fn snapshot(&self, org_id: &str, id: &str) -> Result<Snapshot, StoreError> {
        on_reader!(self, "snapshot", db => sqlx::query_as(
                "SELECT * FROM snapshots WHERE id = $1 AND org_id = $2")
            .bind(id)
            .bind(org_id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound { what: "snapshot" })
    }

    /// Snapshots of the organization that pass the filter, newest first, after the first `skip` of
    /// them; and how many pass it in all.
    pub async fn snapshots(
        &self,
        org_id: &str,
        filter: &SnapshotFilter,
        skip: i64,
        limit: Limit,
    ) -> Result<(Vec<Snapshot>, i64), StoreError> {
        let projects = filter.project_ids.as_ref().map(json);
        let states = filter.states.as_ref().map(json);
        let count = self.db.pick(COUNT_SQLITE, COUNT_POSTGRES);
        let total: i64 = on_reader!(self, "snapshots", db => sqlx::query_scalar(count)
            .bind(org_id)
            .bind(&projects)
            .bind(&filter.sandbox_id)
            .bind(&filter.name)
            .bind(&states)
            .fetch_one(db)
            .await)?;
        let list = self.db.pick(LIST_SQLITE, LIST_POSTGRES);
        let rows = on_reader!(self, "snapshots", db => sqlx::query_as(list)
            .bind(org_id)
            .bind(&projects)
            .bind(&filter.sandbox_id)
            .bind(&filter.name)
            .bind(&states)
            .bind(limit.rows())
            .bind(skip.max(0))
            .fetch_all(db)
            .await)?;
        Ok((rows, total))
    }

    /// Ends the making of a snapshot. `false` when it has ended already.
    pub async fn end_snapshot(
        &self,
        id: &str,
        end: SnapshotEnd<'_>,
        at: Micros,
    ) -> Result<bool, StoreError> {
        let (state, size_bytes, entries, why) = match end {
            SnapshotEnd::Ready {
                size_bytes,
                entries,
            } => ("ready", size_bytes, entries, None),
            SnapshotEnd::Failed { why } => ("failed", 0, 0, Some(why)),
        };
        on_writer!(self, "snapshot", db => sqlx::query(
                "UPDATE snapshots SET state = $2, size_bytes = $3, entries = $4, failure = $5, \
                 changed_at = $6 WHERE id = $1 AND state = 'creating'")
            .bind(id)
            .bind(state)
            .bind(size_bytes)
            .bind(entries)
            .bind(why)
            .bind(at)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// A ready snapshot whose file turned out to be gone or not whole.
    pub async fn snapshot_lost(&self, id: &str, why: &str, at: Micros) -> Result<(), StoreError> {
        on_writer!(self, "snapshot", db => sqlx::query(
                "UPDATE snapshots SET state = 'failed', failure = $2, changed_at = $3 \
                 WHERE id = $1 AND state = 'ready'")
            .bind(id)
            .bind(why)
            .bind(at)
            .execute(db)
            .await
            .map(|_| ()))
    }

    /// Takes a snapshot of the organization away: its file is to be deleted, then its row. `false`
    /// when it is being made, or there is none.
    pub async fn delete_snapshot(
        &self,
        org_id: &str,
        id: &str,
        at: Micros,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "snapshot", db => sqlx::query(
                "UPDATE snapshots SET state = 'deleting', changed_at = $3 \
                 WHERE id = $1 AND org_id = $2 AND state <> 'creating'")
            .bind(id)
            .bind(org_id)
            .bind(at)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Its file is gone.
    pub async fn snapshot_deleted(&self, id: &str) -> Result<(), StoreError> {
        on_writer!(self, "snapshot", db => sqlx::query(
                "DELETE FROM snapshots WHERE id = $1 AND state = 'deleting'")
            .bind(id)
            .execute(db)
            .await
            .map(|_| ()))
    }

    /// All snapshots of a node, oldest first: what a starting server compares with the files that
    /// it finds.
    pub async fn snapshots_of_node(&self, node_id: &str) -> Result<Vec<Snapshot>, StoreError> {
        on_reader!(self, "snapshots", db => sqlx::query_as(
                "SELECT * FROM snapshots WHERE node_id = $1 ORDER BY created_at, id")
            .bind(node_id)
            .fetch_all(db)
            .await)
    }

    /// How many snapshots the organization has, in whatever state.
    pub async fn count_snapshots(&self, org_id: &str) -> Result<i64, StoreError> {
        on_reader!(self, "snapshots", db => sqlx::query_scalar(
                "SELECT COUNT(*) FROM snapshots WHERE org_id = $1")
            .bind(org_id)
            .fetch_one(db)
            .await)
    }
}

/// The two databases differ only in how they look into JSON.
macro_rules! passing {
    ($head:literal, $projects:literal, $states:literal, $tail:literal) => {
        concat!(
            $head,
            " FROM snapshots WHERE org_id = $1 AND ($2 IS NULL OR project_id IN (",
            $projects,
            ")) AND ($3 IS NULL OR sandbox_id = $3) AND ($4 IS NULL OR name = $4) \
             AND ($5 IS NULL OR state IN (",
            $states,
            "))",
            $tail
        )
    };
}
macro_rules! passing_sqlite {
    ($head:literal, $tail:literal) => {
        passing!(
            $head,
            "SELECT value FROM json_each($2)",
            "SELECT value FROM json_each($5)",
            $tail
        )
    };
}
macro_rules! passing_postgres {
    ($head:literal, $tail:literal) => {
        passing!(
            $head,
            "SELECT jsonb_array_elements_text($2::jsonb)",
            "SELECT jsonb_array_elements_text($5::jsonb)",
            $tail
        )
    };
}
const COUNT_SQLITE: &str = passing_sqlite!("SELECT COUNT(*)", "");
const COUNT_POSTGRES: &str = passing_postgres!("SELECT COUNT(*)", "");
const LIST_SQLITE: &str = passing_sqlite!(
    "SELECT *",
    " ORDER BY created_at DESC, id DESC LIMIT $6 OFFSET $7"
);
const LIST_POSTGRES: &str = passing_postgres!(
    "SELECT *",
    " ORDER BY created_at DESC, id DESC LIMIT $6 OFFSET $7"
);
