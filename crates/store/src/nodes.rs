//! Nodes: the machines whose servers share this database, and which of them are alive.

use crate::column::row;
use crate::db::{on_reader, on_writer};
use crate::{Micros, Store, StoreError};

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: String,
    /// Made anew at every start of its server.
    pub boot_id: String,
    /// Where other servers reach it.
    pub address: String,
    pub lease_expires_at: Micros,
}

row!(Node {
    id,
    boot_id,
    address,
    lease_expires_at
});

impl Store {
    /// Registers a starting server, in place of the one that ran on this node before.
    pub async fn register_node(&self, node: &Node) -> Result<(), StoreError> {
        on_writer!(self, "node", db => sqlx::query(
                "INSERT INTO nodes (id, boot_id, address, lease_expires_at) \
                 VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET \
                 boot_id = excluded.boot_id, address = excluded.address, \
                 lease_expires_at = excluded.lease_expires_at")
            .bind(&node.id)
            .bind(&node.boot_id)
            .bind(&node.address)
            .bind(node.lease_expires_at)
            .execute(db)
            .await
            .map(|_| ()))
    }

    /// Prolongs the lease. `false` when another server has registered this node since: the
    /// caller no longer owns the node's sandboxes and must stop.
    pub async fn renew_lease(
        &self,
        id: &str,
        boot_id: &str,
        expires_at: Micros,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "node", db => sqlx::query(
                "UPDATE nodes SET lease_expires_at = $3 WHERE id = $1 AND boot_id = $2")
            .bind(id)
            .bind(boot_id)
            .bind(expires_at)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// One node.
    pub async fn node(&self, id: &str) -> Result<Node, StoreError> {
        on_reader!(self, "node", db => sqlx::query_as("SELECT * FROM nodes WHERE id = $1")
            .bind(id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound { what: "node" })
    }

    /// All nodes by id, with those whose lease is over.
    pub async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        on_reader!(self, "nodes", db => sqlx::query_as("SELECT * FROM nodes ORDER BY id")
            .fetch_all(db)
            .await)
    }
}
