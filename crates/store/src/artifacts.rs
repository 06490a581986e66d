//! Artifacts: files that outlive their sandbox. The bytes are in the object store; here is what
//! they are, and where in its life each is.
//!
//! An artifact is *pending* from before its object is written until after, then *stored*. One
//! that is taken away is *removing* until its object is gone, then *removed*: the row stays as a
//! tombstone. So an object without a row that leads to it does not exist, whatever was killed.

use crate::column::row;
use crate::db::{on_reader, on_writer};
use crate::page::Listed;
use crate::{Cursor, Micros, Page, PageRequest, Store, StoreError};

/// One artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    pub id: String,
    pub org_id: String,
    pub project_id: String,
    pub sandbox_id: String,
    /// Who writes its object while it is pending.
    pub node_id: String,
    /// `pending`, `stored`, `removing` or `removed`.
    pub state: String,
    pub name: String,
    pub object_key: String,
    /// Zero while it is pending.
    pub size_bytes: i64,
    /// Hexadecimal; absent while it is pending.
    pub sha256: Option<String>,
    pub content_type: Option<String>,
    /// Where in the sandbox it came from; absent for outputs of runs.
    pub source_path: Option<String>,
    pub created_at: Micros,
    pub retention_expires_at: Micros,
    pub deleted_at: Option<Micros>,
}

row!(Artifact {
    id,
    org_id,
    project_id,
    sandbox_id,
    node_id,
    state,
    name,
    object_key,
    size_bytes,
    sha256,
    content_type,
    source_path,
    created_at,
    retention_expires_at,
    deleted_at,
});

impl Listed for Artifact {
    fn position(&self) -> Cursor {
        Cursor::new(self.created_at, &self.id)
    }
}

impl Store {
    /// Adds an artifact whose object is about to be written. `NotFound` when the organization has
    /// no such sandbox.
    pub async fn insert_pending_artifact(&self, artifact: &Artifact) -> Result<(), StoreError> {
        // From the sandbox's row, so that an artifact never names another tenant's sandbox.
        let inserted = on_writer!(self, "artifact", db => sqlx::query(
                "INSERT INTO artifacts (id, org_id, project_id, sandbox_id, node_id, state, name, \
                 object_key, size_bytes, content_type, source_path, created_at, \
                 retention_expires_at) \
                 SELECT $1, org_id, project_id, id, $4, 'pending', $5, $6, 0, $7, $8, $9, $10 \
                 FROM sandboxes WHERE id = $2 AND org_id = $3")
            .bind(&artifact.id)
            .bind(&artifact.sandbox_id)
            .bind(&artifact.org_id)
            .bind(&artifact.node_id)
            .bind(&artifact.name)
            .bind(&artifact.object_key)
            .bind(&artifact.content_type)
            .bind(&artifact.source_path)
            .bind(artifact.created_at)
            .bind(artifact.retention_expires_at)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        match inserted {
            0 => Err(StoreError::NotFound { what: "sandbox" }),
            _ => Ok(()),
        }
    }

    /// Its object is there: from now on it is listed and found. `NotFound` when it was taken away
    /// meanwhile.
    pub async fn artifact_stored(
        &self,
        id: &str,
        size_bytes: i64,
        sha256: &str,
    ) -> Result<Artifact, StoreError> {
        on_writer!(self, "artifact", db => sqlx::query_as(
                "UPDATE artifacts SET state = 'stored', size_bytes = $2, sha256 = $3 \
                 WHERE id = $1 AND state = 'pending' RETURNING *")
            .bind(id)
            .bind(size_bytes)
            .bind(sha256)
            .fetch_all(db)
            .await)?
        .pop()
        .ok_or(StoreError::NotFound { what: "artifact" })
    }

    /// One stored artifact of the organization.
    pub async fn artifact(&self, org_id: &str, id: &str) -> Result<Artifact, StoreError> {
        on_reader!(self, "artifact", db => sqlx::query_as(
                "SELECT * FROM artifacts WHERE id = $1 AND org_id = $2 AND state = 'stored'")
            .bind(id)
            .bind(org_id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound { what: "artifact" })
    }

    /// The stored artifacts of one sandbox of the organization, newest first.
    pub async fn artifacts(
        &self,
        org_id: &str,
        sandbox_id: &str,
        page: &PageRequest,
    ) -> Result<Page<Artifact>, StoreError> {
        let (at, id) = page.below();
        let rows = on_reader!(self, "artifacts", db => sqlx::query_as(
                "SELECT * FROM artifacts WHERE sandbox_id = $1 AND org_id = $2 \
                 AND state = 'stored' AND (created_at, id) < ($3, $4) \
                 ORDER BY created_at DESC, id DESC LIMIT $5")
            .bind(sandbox_id)
            .bind(org_id)
            .bind(at)
            .bind(id)
            .bind(page.limit.probe())
            .fetch_all(db)
            .await)?;
        Ok(Page::from_probe(rows, page.limit))
    }

    /// Takes a stored artifact of the organization away: it is found no more, and its object is
    /// to be deleted. `NotFound` when it is not there (any more).
    pub async fn delete_artifact(
        &self,
        org_id: &str,
        id: &str,
        at: Micros,
    ) -> Result<Artifact, StoreError> {
        on_writer!(self, "artifact", db => sqlx::query_as(
                "UPDATE artifacts SET state = 'removing', deleted_at = $3 \
                 WHERE id = $1 AND org_id = $2 AND state = 'stored' RETURNING *")
            .bind(id)
            .bind(org_id)
            .bind(at)
            .fetch_all(db)
            .await)?
        .pop()
        .ok_or(StoreError::NotFound { what: "artifact" })
    }

    /// Gives a pending artifact up: its object, as far as there is one, is to be deleted.
    pub async fn abandon_artifact(&self, id: &str, at: Micros) -> Result<(), StoreError> {
        on_writer!(self, "artifact", db => sqlx::query(
                "UPDATE artifacts SET state = 'removing', deleted_at = $2 \
                 WHERE id = $1 AND state = 'pending'")
            .bind(id)
            .bind(at)
            .execute(db)
            .await
            .map(|_| ()))
    }

    /// Gives up what a node left pending when it was killed, and returns how many those were: for
    /// a node that starts, all that is older than its start `at`.
    pub async fn abandon_artifacts_of_node(
        &self,
        node_id: &str,
        at: Micros,
    ) -> Result<u64, StoreError> {
        on_writer!(self, "artifacts", db => sqlx::query(
                "UPDATE artifacts SET state = 'removing', deleted_at = $2 \
                 WHERE node_id = $1 AND state = 'pending' AND created_at < $2")
            .bind(node_id)
            .bind(at)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))
    }

    /// Takes away at most `limit` artifacts whose time is over, or that have been pending since
    /// before `pending_before`, and returns how many those were.
    pub async fn expire_artifacts(
        &self,
        now: Micros,
        pending_before: Micros,
        limit: i64,
    ) -> Result<u64, StoreError> {
        on_writer!(self, "artifacts", db => sqlx::query(
                "UPDATE artifacts SET state = 'removing', deleted_at = $1 WHERE id IN ( \
                 SELECT id FROM artifacts WHERE (state = 'stored' AND retention_expires_at <= $1) \
                 OR (state = 'pending' AND created_at <= $2) LIMIT $3)")
            .bind(now)
            .bind(pending_before)
            .bind(limit)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))
    }

    /// At most `limit` artifacts whose objects are to be deleted, oldest first.
    pub async fn artifacts_to_remove(&self, limit: i64) -> Result<Vec<Artifact>, StoreError> {
        on_reader!(self, "artifacts", db => sqlx::query_as(
                "SELECT * FROM artifacts WHERE state = 'removing' \
                 ORDER BY created_at, id LIMIT $1")
            .bind(limit)
            .fetch_all(db)
            .await)
    }

    /// Its object is gone.
    pub async fn artifact_removed(&self, id: &str) -> Result<(), StoreError> {
        on_writer!(self, "artifact", db => sqlx::query(
                "UPDATE artifacts SET state = 'removed' WHERE id = $1 AND state = 'removing'")
            .bind(id)
            .execute(db)
            .await
            .map(|_| ()))
    }
}
