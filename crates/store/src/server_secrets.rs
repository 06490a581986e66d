//! Secrets of the installation that every server shares: keys of signatures. Made once, by
//! whoever asks first, and kept.

use crate::column::row;
use crate::db::in_transaction;
use crate::{Micros, Store, StoreError};

/// One secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerSecret {
    /// Names the secret in what is made with it.
    pub id: String,
    /// What it is for; there is one of each kind.
    pub kind: String,
    pub secret: Vec<u8>,
    pub created_at: Micros,
}

impl std::fmt::Debug for ServerSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerSecret({}, {})", self.id, self.kind)
    }
}

row!(ServerSecret {
    id,
    kind,
    secret,
    created_at
});

impl Store {
    /// The secret of that kind; `fresh` when there was none. Of any number of servers that ask
    /// at once, all get the same one.
    pub async fn server_secret_or(&self, fresh: &ServerSecret) -> Result<ServerSecret, StoreError> {
        in_transaction!(self, "server secret", db => {
            sqlx::query(
                    "INSERT INTO server_secrets (id, kind, secret, created_at) \
                     VALUES ($1, $2, $3, $4) ON CONFLICT (kind) DO NOTHING")
                .bind(&fresh.id)
                .bind(&fresh.kind)
                .bind(&fresh.secret[..])
                .bind(fresh.created_at)
                .execute(&mut *db)
                .await?;
            sqlx::query_as("SELECT * FROM server_secrets WHERE kind = $1")
                .bind(&fresh.kind)
                .fetch_one(&mut *db)
                .await
        })
    }
}
