//! Keys that tokens of agents are signed with. What they are is the caller's affair: here they
//! are bytes with an age.

use crate::column::row;
use crate::db::{on_reader, on_writer};
use crate::{Micros, Store, StoreError};

/// One key pair.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    pub id: String,
    pub algorithm: String,
    /// A secret.
    pub private_key: Vec<u8>,
    pub public_key: Vec<u8>,
    pub created_at: Micros,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({}, ..)", self.id)
    }
}

row!(SigningKey {
    id,
    algorithm,
    private_key,
    public_key,
    created_at
});

impl Store {
    /// Adds a key unless there is one made after `newer_than`: of several servers that find the
    /// newest key too old, one makes the next. `false` when another was first.
    pub async fn insert_signing_key(
        &self,
        key: &SigningKey,
        newer_than: Micros,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "signing key", db => sqlx::query(
                "INSERT INTO agent_signing_keys \
                 (id, algorithm, private_key, public_key, created_at) \
                 SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS \
                 (SELECT 1 FROM agent_signing_keys WHERE created_at > $6)")
            .bind(&key.id)
            .bind(&key.algorithm)
            .bind(&key.private_key)
            .bind(&key.public_key)
            .bind(key.created_at)
            .bind(newer_than)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// All keys, newest first: the one that signs, and those whose tokens may still live.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>, StoreError> {
        on_reader!(self, "signing keys", db => sqlx::query_as(
                "SELECT * FROM agent_signing_keys ORDER BY created_at DESC, id DESC")
            .fetch_all(db)
            .await)
    }

    /// Removes keys made before `before` and returns how many there were.
    pub async fn delete_signing_keys(&self, before: Micros) -> Result<u64, StoreError> {
        on_writer!(self, "signing keys", db => sqlx::query(
                "DELETE FROM agent_signing_keys WHERE created_at < $1")
            .bind(before)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))
    }
}
