//! Previews: addresses under which a port of a sandbox can be reached from outside.
//!
//! A row is active until it is revoked or its sandbox ends, and stays as a record. The minutes
//! that it was active are written as usage in the commit that ends it, from the times of its row,
//! so that they are counted once whatever is killed in between.

use crate::column::{Column, row};
use crate::db::{in_transaction, on_reader, on_writer};
use crate::page::Listed;
use crate::{Cursor, Micros, Page, PageRequest, SecretHash, Store, StoreError};

/// Usage metric of a preview, in minutes that were begun.
pub const PREVIEW_MINUTES_METRIC: &str = "preview_minutes";
const MINUTE: Micros = 60_000_000;

/// A key that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(pub [u8; 32]);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

impl Column for SessionKey {
    type Sql = Vec<u8>;

    fn from_sql(sql: Vec<u8>) -> Result<Self, sqlx::error::BoxDynError> {
        let bytes = sql.try_into().map_err(|_| "a session key has 32 bytes")?;
        Ok(Self(bytes))
    }
}

/// One preview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    pub id: String,
    /// The first label of its host name. No other preview ever has it.
    pub slug: String,
    pub org_id: String,
    pub project_id: String,
    pub sandbox_id: String,
    pub port: i64,
    pub auth_mode: String,
    /// Of the token that opens one session; `None` once it did.
    pub token_hash: Option<SecretHash>,
    /// What its sessions are signed with.
    pub session_key: SessionKey,
    pub source_command_id: Option<String>,
    /// Id of the key or credential that asked for it.
    pub created_by: String,
    pub created_at: Micros,
    pub revoked_at: Option<Micros>,
    /// `None` exactly while it is active.
    pub ended_at: Option<Micros>,
}

row!(Preview {
    id,
    slug,
    org_id,
    project_id,
    sandbox_id,
    port,
    auth_mode,
    token_hash,
    session_key,
    source_command_id,
    created_by,
    created_at,
    revoked_at,
    ended_at,
});

impl Listed for Preview {
    fn position(&self) -> Cursor {
        Cursor::new(self.created_at, &self.id)
    }
}

/// How many previews may be active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreviewLimits {
    pub per_sandbox: i64,
    pub per_org: i64,
}

/// What became of an insertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreviewInserted {
    New,
    /// The port has an active preview, which is this one; nothing was written.
    Existing(Box<Preview>),
    /// As many as the sandbox may have are active.
    SandboxFull,
    /// As many as the organization may have are active.
    OrgFull,
}

/// When a sandbox ends or has ended.
struct SandboxEnd {
    expires_at: Micros,
    destroyed_at: Option<Micros>,
}

row!(SandboxEnd {
    expires_at,
    destroyed_at
});

/// Writes what an ended preview is charged for. The event has the preview's own id after `evt_`.
macro_rules! charge {
    ($preview:expr, $at:expr, $db:expr) => {
        sqlx::query(CHARGE)
            .bind($preview.id.replacen("prv_", "evt_", 1))
            .bind(&$preview.org_id)
            .bind(&$preview.project_id)
            .bind(&$preview.id)
            .bind(PREVIEW_MINUTES_METRIC)
            .bind(preview_minutes($preview.created_at, $at))
            .bind($at)
            .execute(&mut *$db)
            .await
    };
}

impl Store {
    /// Adds an active preview of a live sandbox, unless its port has one or there are too many.
    /// `NotFound` when the organization has no such live sandbox.
    pub async fn insert_preview(
        &self,
        preview: &Preview,
        limits: PreviewLimits,
    ) -> Result<PreviewInserted, StoreError> {
        in_transaction!(self, "preview", db => {
            // Both rows are written, to what they are, for their locks: counts of one
            // organization are taken one after the other, and a sandbox that ends meanwhile ends
            // before or after this.
            sqlx::query("UPDATE organizations SET name = name WHERE id = $1")
                .bind(&preview.org_id)
                .execute(&mut *db)
                .await?;
            let live = sqlx::query(
                    "UPDATE sandboxes SET status = status \
                     WHERE id = $1 AND org_id = $2 AND destroyed_at IS NULL")
                .bind(&preview.sandbox_id)
                .bind(&preview.org_id)
                .execute(&mut *db)
                .await?
                .rows_affected();
            let existing: Option<Preview> = sqlx::query_as(
                    "SELECT * FROM previews \
                     WHERE sandbox_id = $1 AND port = $2 AND ended_at IS NULL")
                .bind(&preview.sandbox_id)
                .bind(preview.port)
                .fetch_optional(&mut *db)
                .await?;
            let of_sandbox: i64 = sqlx::query_scalar(
                    "SELECT COUNT(*) FROM previews WHERE sandbox_id = $1 AND ended_at IS NULL")
                .bind(&preview.sandbox_id)
                .fetch_one(&mut *db)
                .await?;
            let of_org: i64 = sqlx::query_scalar(
                    "SELECT COUNT(*) FROM previews WHERE org_id = $1 AND ended_at IS NULL")
                .bind(&preview.org_id)
                .fetch_one(&mut *db)
                .await?;
            match existing {
                _ if live == 0 => Ok(None),
                Some(existing) => Ok(Some(PreviewInserted::Existing(Box::new(existing)))),
                None if of_sandbox >= limits.per_sandbox => Ok(Some(PreviewInserted::SandboxFull)),
                None if of_org >= limits.per_org => Ok(Some(PreviewInserted::OrgFull)),
                None => sqlx::query(INSERT)
                    .bind(&preview.id)
                    .bind(&preview.slug)
                    .bind(&preview.org_id)
                    .bind(&preview.project_id)
                    .bind(&preview.sandbox_id)
                    .bind(preview.port)
                    .bind(&preview.auth_mode)
                    .bind(preview.token_hash.as_ref().map(SecretHash::as_bytes))
                    .bind(&preview.session_key.0[..])
                    .bind(&preview.source_command_id)
                    .bind(&preview.created_by)
                    .bind(preview.created_at)
                    .execute(&mut *db)
                    .await
                    .map(|_| Some(PreviewInserted::New)),
            }
        })?
        .ok_or(StoreError::NotFound { what: "sandbox" })
    }

    /// One preview of the organization, active or not.
    pub async fn preview(&self, org_id: &str, id: &str) -> Result<Preview, StoreError> {
        on_reader!(self, "preview", db => sqlx::query_as(
                "SELECT * FROM previews WHERE id = $1 AND org_id = $2")
            .bind(id)
            .bind(org_id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound { what: "preview" })
    }

    /// The active preview with that slug, of whatever organization: for requests to its host.
    pub async fn active_preview_by_slug(&self, slug: &str) -> Result<Option<Preview>, StoreError> {
        on_reader!(self, "preview", db => sqlx::query_as(
                "SELECT * FROM previews WHERE slug = $1 AND ended_at IS NULL")
            .bind(slug)
            .fetch_optional(db)
            .await)
    }

    /// The previews of one sandbox of the organization, ended ones too, newest first.
    pub async fn previews(
        &self,
        org_id: &str,
        sandbox_id: &str,
        page: &PageRequest,
    ) -> Result<Page<Preview>, StoreError> {
        let (at, id) = page.below();
        let rows = on_reader!(self, "previews", db => sqlx::query_as(
                "SELECT * FROM previews \
                 WHERE sandbox_id = $1 AND org_id = $2 AND (created_at, id) < ($3, $4) \
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

    /// How many previews of the organization are active.
    pub async fn count_active_previews(&self, org_id: &str) -> Result<i64, StoreError> {
        on_reader!(self, "previews", db => sqlx::query_scalar(
                "SELECT COUNT(*) FROM previews WHERE org_id = $1 AND ended_at IS NULL")
            .bind(org_id)
            .fetch_one(db)
            .await)
    }

    /// Uses a preview's token up. Of any number of callers with the right token one gets `true`.
    pub async fn take_preview_token(
        &self,
        id: &str,
        token: &SecretHash,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "preview", db => sqlx::query(
                "UPDATE previews SET token_hash = NULL \
                 WHERE id = $1 AND token_hash = $2 AND ended_at IS NULL")
            .bind(id)
            .bind(token.as_bytes())
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Ends a preview by a client's wish and returns its row; one that has ended stays as it is.
    pub async fn revoke_preview(
        &self,
        org_id: &str,
        id: &str,
        at: Micros,
    ) -> Result<Preview, StoreError> {
        in_transaction!(self, "preview", db => {
            let ended: Option<Preview> = sqlx::query_as(
                    "UPDATE previews SET revoked_at = $3, ended_at = $3, token_hash = NULL \
                     WHERE id = $1 AND org_id = $2 AND ended_at IS NULL RETURNING *")
                .bind(id)
                .bind(org_id)
                .bind(at)
                .fetch_all(&mut *db)
                .await?
                .pop();
            match ended {
                Some(ended) => {
                    charge!(&ended, at, db)?;
                    Ok(Some(ended))
                }
                None => sqlx::query_as("SELECT * FROM previews WHERE id = $1 AND org_id = $2")
                    .bind(id)
                    .bind(org_id)
                    .fetch_optional(&mut *db)
                    .await,
            }
        })?
        .ok_or(StoreError::NotFound { what: "preview" })
    }

    /// Ends what previews a sandbox still has and returns them: at the time at which the sandbox
    /// ended, or at `at` when it has no such time, and never after its expiry.
    pub async fn end_previews_of_sandbox(
        &self,
        sandbox_id: &str,
        at: Micros,
    ) -> Result<Vec<Preview>, StoreError> {
        // Most sandboxes have none, and reading waits for nobody.
        let active: i64 = on_reader!(self, "previews", db => sqlx::query_scalar(
                "SELECT COUNT(*) FROM previews WHERE sandbox_id = $1 AND ended_at IS NULL")
            .bind(sandbox_id)
            .fetch_one(db)
            .await)?;
        if active == 0 {
            return Ok(Vec::new());
        }
        in_transaction!(self, "previews", db => {
            let sandbox: SandboxEnd = sqlx::query_as(
                    "SELECT expires_at, destroyed_at FROM sandboxes WHERE id = $1")
                .bind(sandbox_id)
                .fetch_one(&mut *db)
                .await?;
            let at = sandbox.destroyed_at.unwrap_or(at).min(sandbox.expires_at);
            let ended: Vec<Preview> = sqlx::query_as(
                    "UPDATE previews SET ended_at = $2, token_hash = NULL \
                     WHERE sandbox_id = $1 AND ended_at IS NULL RETURNING *")
                .bind(sandbox_id)
                .bind(at)
                .fetch_all(&mut *db)
                .await?;
            for preview in &ended {
                charge!(preview, at, db)?;
            }
            Ok(ended)
        })
    }

    /// Sandboxes of a node that have ended and whose previews have not: a server was killed
    /// between the two.
    pub async fn ended_sandboxes_with_previews(
        &self,
        node_id: &str,
    ) -> Result<Vec<String>, StoreError> {
        on_reader!(self, "previews", db => sqlx::query_scalar(
                "SELECT DISTINCT s.id FROM previews AS p JOIN sandboxes AS s ON s.id = p.sandbox_id \
                 WHERE p.ended_at IS NULL AND s.node_id = $1 AND s.destroyed_at IS NOT NULL")
            .bind(node_id)
            .fetch_all(db)
            .await)
    }
}

/// Minutes that were begun between two times; one at least.
pub fn preview_minutes(from: Micros, to: Micros) -> i64 {
    let micros = to.saturating_sub(from).max(1);
    micros / MINUTE + i64::from(micros % MINUTE != 0)
}

const INSERT: &str = "INSERT INTO previews (id, slug, org_id, project_id, sandbox_id, port, \
     auth_mode, token_hash, session_key, source_command_id, created_by, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
const CHARGE: &str = "INSERT INTO usage_events (id, org_id, project_id, resource_id, metric, \
     amount, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)";

#[cfg(test)]
mod tests {
    use super::{MINUTE, preview_minutes};

    #[test]
    fn begun_minutes_count() {
        assert_eq!(preview_minutes(5, 5), 1);
        assert_eq!(preview_minutes(0, MINUTE), 1);
        assert_eq!(preview_minutes(0, MINUTE + 1), 2);
        assert_eq!(preview_minutes(10, 0), 1, "a clock that was set back");
    }
}
