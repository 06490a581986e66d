//! Idempotent replays: a request with an idempotency key is carried out once, and asked again
//! gets the stored answer for a day.
//!
//! A keyed request costs two single-statement writes: [`Store::begin_idempotent`] and
//! [`Store::finish_idempotent`]. Between them the row is *in flight* and names its owner: the
//! node and the boot of the server that works on it. When that boot is over, the row says that
//! the request may have been carried out or not; the caller decides what that means.

use crate::column::{Column, row};
use crate::db::{on_reader, on_writer};
use crate::{Micros, Store, StoreError};
use sqlx::error::BoxDynError;
use std::fmt;

/// How long an answer is kept.
pub const IDEMPOTENT_REPLAY_SECONDS: i64 = 24 * 60 * 60;
/// Largest answer that is kept.
pub const IDEMPOTENT_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Rows that one purging statement removes, so that writers do not wait for it.
const PURGE_ROWS_MAX: i64 = 500;
/// Attempts at a key whose row changes hands between the statements of one begin.
const BEGIN_TRIES_MAX: u32 = 3;
const REPLAY_MICROS: Micros = IDEMPOTENT_REPLAY_SECONDS * 1_000_000;

/// A digest of everything that makes a key the same key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScopeKey([u8; 32]);

impl ScopeKey {
    /// Hashes the parts of an idempotency key's scope.
    pub fn of(org_id: &str, credential_id: &str, method: &str, route: &str, key: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [org_id, credential_id, method, route, key] {
            // The length in front keeps ("ab", "c") and ("a", "bc") apart.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScopeKey({})", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// A digest of the request itself, which tells the same request from another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestHash([u8; 32]);

impl RequestHash {
    /// Hashes what the request says; the caller chooses the form (usually path and body).
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RequestHash({})",
            blake3::Hash::from_bytes(self.0).to_hex()
        )
    }
}

impl Column for RequestHash {
    type Sql = Vec<u8>;

    fn from_sql(sql: Vec<u8>) -> Result<Self, BoxDynError> {
        Ok(Self(sql.try_into().map_err(|_| "a digest has 32 bytes")?))
    }
}

/// Who works on a request: one boot of the server of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub node_id: String,
    pub boot_id: String,
}

/// An answer as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
}

/// What [`Store::begin_idempotent`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: the row is now the caller's, who carries the request out and then calls
    /// [`Store::finish_idempotent`], or [`Store::abandon_idempotent`] when nothing was done.
    New,
    /// The answer of the first time.
    Replay(StoredResponse),
    /// A server that is alive works on it.
    InFlight,
    /// A server worked on it that is gone now. Nobody will finish it; the caller may
    /// [`Store::take_over_idempotent`] it from this owner.
    Interrupted { owner: Owner },
    /// The key was used for another request.
    Mismatch,
}

struct Entry {
    request_hash: RequestHash,
    owner_node: String,
    owner_boot: String,
    begun_at: Micros,
    status: Option<i64>,
    content_type: Option<String>,
    body: Option<Vec<u8>>,
    /// The boot that the owner's node now has; none when the node is not registered.
    node_boot: Option<String>,
    node_lease: Option<i64>,
}

row!(Entry {
    request_hash,
    owner_node,
    owner_boot,
    begun_at,
    status,
    content_type,
    body,
    node_boot,
    node_lease,
});

/// Takes a key that is free. It does not touch a row that is there, so a replay writes nothing.
const BEGIN: &str = "INSERT INTO idempotency \
     (scope_key, request_hash, owner_node, owner_boot, begun_at) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT (scope_key) DO NOTHING";
/// Takes a key whose answer is too old to be replayed.
const BEGIN_AGAIN: &str = "UPDATE idempotency SET request_hash = $2, owner_node = $3, \
     owner_boot = $4, begun_at = $5, status = NULL, content_type = NULL, body = NULL \
     WHERE scope_key = $1 AND begun_at < $6";
const LOOK: &str = "SELECT i.request_hash, i.owner_node, i.owner_boot, i.begun_at, i.status, i.content_type, \
     i.body, n.boot_id AS node_boot, n.lease_expires_at AS node_lease \
     FROM idempotency AS i LEFT JOIN nodes AS n ON n.id = i.owner_node WHERE i.scope_key = $1";

impl Store {
    /// Claims the key, or says what became of it. Of any number of callers at once exactly one
    /// gets [`Begun::New`].
    pub async fn begin_idempotent(
        &self,
        key: &ScopeKey,
        request: &RequestHash,
        owner: &Owner,
        now: Micros,
    ) -> Result<Begun, StoreError> {
        let too_old = now.saturating_sub(REPLAY_MICROS);
        for _ in 0..BEGIN_TRIES_MAX {
            let claimed = on_writer!(self, "idempotency key", db => sqlx::query(BEGIN)
                .bind(&key.0[..])
                .bind(&request.0[..])
                .bind(&owner.node_id)
                .bind(&owner.boot_id)
                .bind(now)
                .execute(db)
                .await
                .map(|done| done.rows_affected() == 1))?;
            if claimed {
                return Ok(Begun::New);
            }
            let found: Option<Entry> = on_reader!(self, "idempotency key", db =>
                sqlx::query_as(LOOK)
                .bind(&key.0[..])
                .fetch_optional(db)
                .await)?;
            match found {
                Some(entry) if entry.begun_at >= too_old => {
                    return entry.judge(request, owner, now);
                }
                // Abandoned or purged between the two statements: the key is free again.
                None => continue,
                Some(_) => {}
            }
            if self.begin_again(key, request, owner, now).await? {
                return Ok(Begun::New);
            }
            // Somebody else was first: look at what is theirs now.
        }
        Err(StoreError::Busy {
            what: "idempotency key",
        })
    }

    async fn begin_again(
        &self,
        key: &ScopeKey,
        request: &RequestHash,
        owner: &Owner,
        now: Micros,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "idempotency key", db => sqlx::query(BEGIN_AGAIN)
            .bind(&key.0[..])
            .bind(&request.0[..])
            .bind(&owner.node_id)
            .bind(&owner.boot_id)
            .bind(now)
            .bind(now.saturating_sub(REPLAY_MICROS))
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Stores the answer. `false` when the row is no longer this owner's to finish (abandoned,
    /// taken over or purged): the answer is then still good for its own client.
    pub async fn finish_idempotent(
        &self,
        key: &ScopeKey,
        owner: &Owner,
        response: &StoredResponse,
    ) -> Result<bool, StoreError> {
        if response.body.len() > IDEMPOTENT_BODY_BYTES_MAX {
            return Err(StoreError::Invalid {
                what: "idempotent answer",
            });
        }
        on_writer!(self, "idempotency key", db => sqlx::query(
                "UPDATE idempotency SET status = $4, content_type = $5, body = $6 \
                 WHERE scope_key = $1 AND owner_node = $2 AND owner_boot = $3 AND status IS NULL")
            .bind(&key.0[..])
            .bind(&owner.node_id)
            .bind(&owner.boot_id)
            .bind(i64::from(response.status))
            .bind(&response.content_type)
            .bind(&response.body)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Frees a key in flight, because the request had no effect (it was refused, or failed
    /// before it began). `false` when there was nothing of this owner in flight.
    pub async fn abandon_idempotent(
        &self,
        key: &ScopeKey,
        owner: &Owner,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "idempotency key", db => sqlx::query(
                "DELETE FROM idempotency \
                 WHERE scope_key = $1 AND owner_node = $2 AND owner_boot = $3 AND status IS NULL")
            .bind(&key.0[..])
            .bind(&owner.node_id)
            .bind(&owner.boot_id)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Makes an interrupted row the caller's, as if it had been [`Begun::New`]. Of any number of
    /// callers exactly one gets `true`.
    pub async fn take_over_idempotent(
        &self,
        key: &ScopeKey,
        gone: &Owner,
        owner: &Owner,
        now: Micros,
    ) -> Result<bool, StoreError> {
        if gone == owner {
            return Err(StoreError::Invalid {
                what: "idempotency owner",
            });
        }
        on_writer!(self, "idempotency key", db => sqlx::query(
                "UPDATE idempotency SET owner_node = $4, owner_boot = $5, begun_at = $6 \
                 WHERE scope_key = $1 AND owner_node = $2 AND owner_boot = $3 AND status IS NULL")
            .bind(&key.0[..])
            .bind(&gone.node_id)
            .bind(&gone.boot_id)
            .bind(&owner.node_id)
            .bind(&owner.boot_id)
            .bind(now)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Removes rows that are too old to be replayed and returns how many there were. Other
    /// writers get their turn in between.
    pub async fn purge_idempotent(&self, now: Micros) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let some = on_writer!(self, "idempotency keys", db => sqlx::query(
                    "DELETE FROM idempotency WHERE scope_key IN \
                     (SELECT scope_key FROM idempotency WHERE begun_at < $1 LIMIT $2)")
                .bind(now.saturating_sub(REPLAY_MICROS))
                .bind(PURGE_ROWS_MAX)
                .execute(db)
                .await
                .map(|done| done.rows_affected()))?;
            if some == 0 {
                return Ok(removed);
            }
            removed += some;
        }
    }
}

impl Entry {
    fn judge(
        self,
        request: &RequestHash,
        asking: &Owner,
        now: Micros,
    ) -> Result<Begun, StoreError> {
        if self.request_hash != *request {
            return Ok(Begun::Mismatch);
        }
        let owner = Owner {
            node_id: self.owner_node,
            boot_id: self.owner_boot,
        };
        let (Some(status), Some(content_type), Some(body)) =
            (self.status, self.content_type, self.body)
        else {
            let gone = if owner.node_id == asking.node_id {
                owner.boot_id != asking.boot_id
            } else {
                // Of another node the lease speaks; of a node that never had one, nothing.
                let restarted = self.node_boot.is_some_and(|boot| boot != owner.boot_id);
                restarted || self.node_lease.is_some_and(|until| until < now)
            };
            return Ok(if gone {
                Begun::Interrupted { owner }
            } else {
                Begun::InFlight
            });
        };
        let status = u16::try_from(status).map_err(|error| StoreError::Decode {
            what: "idempotency key",
            source: sqlx::Error::Decode(error.into()),
        })?;
        Ok(Begun::Replay(StoredResponse {
            status,
            content_type,
            body,
        }))
    }
}
