//! API keys. Of a key's secret only a digest is kept: what is stored cannot be used to sign in.

use crate::column::{Column, json, row};
use crate::db::{in_transaction, on_reader, on_writer};
use crate::page::Listed;
use crate::{Cursor, Micros, Page, PageRequest, Store, StoreError};

/// Digest of a key's secret. A plain hash is enough because secrets are long and random.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The digest of a secret as the client sends it.
    pub fn of(secret: &str) -> Self {
        Self(*blake3::hash(secret.as_bytes()).as_bytes())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

impl Column for SecretHash {
    type Sql = Vec<u8>;

    fn from_sql(sql: Vec<u8>) -> Result<Self, sqlx::error::BoxDynError> {
        let bytes = sql.try_into().map_err(|_| "a digest has 32 bytes")?;
        Ok(Self(bytes))
    }
}

impl Column for Option<SecretHash> {
    type Sql = Option<Vec<u8>>;

    fn from_sql(sql: Option<Vec<u8>>) -> Result<Self, sqlx::error::BoxDynError> {
        sql.map(SecretHash::from_sql).transpose()
    }
}

/// One API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: String,
    pub org_id: String,
    pub name: String,
    /// The first characters of the secret, for recognition.
    pub prefix: String,
    /// The last four characters of the secret, for recognition.
    pub last4: String,
    pub hash: SecretHash,
    pub scopes: Vec<String>,
    /// The only projects it may touch; `None` is all of the organization.
    pub project_ids: Option<Vec<String>>,
    pub created_by_user_id: String,
    pub created_at: Micros,
    pub revoked_at: Option<Micros>,
    pub last_used_at: Option<Micros>,
}

row!(ApiKey {
    id,
    org_id,
    name,
    prefix,
    last4,
    hash,
    scopes,
    project_ids,
    created_by_user_id,
    created_at,
    revoked_at,
    last_used_at,
});

impl Listed for ApiKey {
    fn position(&self) -> Cursor {
        Cursor::new(self.created_at, &self.id)
    }
}

impl Store {
    /// Adds a key. `NotFound` when the organization or the user does not exist, `Conflict` when
    /// the id or the secret is taken.
    pub async fn insert_api_key(&self, key: &ApiKey) -> Result<(), StoreError> {
        let scopes = json(&key.scopes);
        let project_ids = key.project_ids.as_ref().map(json);
        on_writer!(self, "API key", db => sqlx::query(
                "INSERT INTO api_keys (id, org_id, name, prefix, last4, hash, scopes, \
                 project_ids, created_by_user_id, created_at, revoked_at, last_used_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)")
            .bind(&key.id)
            .bind(&key.org_id)
            .bind(&key.name)
            .bind(&key.prefix)
            .bind(&key.last4)
            .bind(&key.hash.0[..])
            .bind(&scopes)
            .bind(&project_ids)
            .bind(&key.created_by_user_id)
            .bind(key.created_at)
            .bind(key.revoked_at)
            .bind(key.last_used_at)
            .execute(db)
            .await
            .map(|_| ()))
    }

    /// The key with this secret, also when it is revoked: the caller looks at `revoked_at`.
    pub async fn api_key_by_hash(&self, hash: &SecretHash) -> Result<Option<ApiKey>, StoreError> {
        on_reader!(self, "API key", db => sqlx::query_as("SELECT * FROM api_keys WHERE hash = $1")
            .bind(&hash.0[..])
            .fetch_optional(db)
            .await)
    }

    /// One key of the organization.
    pub async fn api_key(&self, org_id: &str, id: &str) -> Result<ApiKey, StoreError> {
        on_reader!(self, "API key", db => sqlx::query_as(
                "SELECT * FROM api_keys WHERE id = $1 AND org_id = $2")
            .bind(id)
            .bind(org_id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound { what: "API key" })
    }

    /// The organization's keys, revoked ones too, newest first.
    pub async fn api_keys(
        &self,
        org_id: &str,
        page: &PageRequest,
    ) -> Result<Page<ApiKey>, StoreError> {
        let (at, id) = page.below();
        let rows = on_reader!(self, "API keys", db => sqlx::query_as(
                "SELECT * FROM api_keys WHERE org_id = $1 AND (created_at, id) < ($2, $3) \
                 ORDER BY created_at DESC, id DESC LIMIT $4")
            .bind(org_id)
            .bind(at)
            .bind(id)
            .bind(page.limit.probe())
            .fetch_all(db)
            .await)?;
        Ok(Page::from_probe(rows, page.limit))
    }

    /// Revokes a key and returns it. Revoking again changes nothing: the first time stays.
    pub async fn revoke_api_key(
        &self,
        org_id: &str,
        id: &str,
        now: Micros,
    ) -> Result<ApiKey, StoreError> {
        on_writer!(self, "API key", db => sqlx::query_as(
                "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $3) \
                 WHERE id = $1 AND org_id = $2 RETURNING *")
            .bind(id)
            .bind(org_id)
            .bind(now)
            .fetch_all(db)
            .await)?
        .pop()
        .ok_or(StoreError::NotFound { what: "API key" })
    }

    /// Notes when keys were last used, in one commit. A time that is older than the one stored
    /// and a key that does not exist are passed over.
    pub async fn touch_api_keys(&self, used: &[(&str, Micros)]) -> Result<(), StoreError> {
        if used.is_empty() {
            return Ok(());
        }
        in_transaction!(self, "API keys", db => {
            for (id, at) in used {
                sqlx::query("UPDATE api_keys SET last_used_at = $2 \
                     WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)")
                    .bind(*id)
                    .bind(*at)
                    .execute(&mut *db)
                    .await?;
            }
            Ok(())
        })
    }
}
