//! This server as one of the nodes in the store: registered at start, its lease renewed, old
//! idempotent answers removed.

use crate::app::App;
use crate::auth::micros;
use crate::error::ApiResult;
use crownest_api::Timestamp;
use crownest_store::Node;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How long a node counts as alive after it was last heard of.
const LEASE_MS: u64 = 60_000;
/// A third of it: two renewals may fail.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// Idempotent answers live for a day; an hour more does not matter.
const PURGE_EVERY: Duration = Duration::from_secs(3_600);

impl App {
    /// Takes this node over from the server that ran on it before.
    pub(crate) async fn register_node(&self, address: String) -> ApiResult<()> {
        let node = Node {
            id: self.owner.node_id.clone(),
            boot_id: self.owner.boot_id.clone(),
            address,
            lease_expires_at: lease_end(),
        };
        Ok(self.store.register_node(&node).await?)
    }

    /// Starts the periodic work of a node.
    pub(crate) fn keep_node(&self) {
        let app = self.clone();
        self.tasks.spawn(async move {
            let stopping = app.stopping.clone();
            tokio::select! {
                () = app.renew() => {}
                () = app.purge() => {}
                () = app.store.maintain() => {}
                () = stopping.cancelled() => {}
            }
        });
    }

    /// Renews the lease. Returns when another server has taken the node: then this one stops,
    /// because two servers must not believe to own the same sandboxes.
    async fn renew(&self) {
        let mut tick = tokio::time::interval(RENEW_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let owner = &self.owner;
            match self
                .store
                .renew_lease(&owner.node_id, &owner.boot_id, lease_end())
                .await
            {
                Ok(true) => {}
                Ok(false) => {
                    tracing::error!("another server has taken over this node; stopping");
                    self.stopping.cancel();
                    return;
                }
                Err(error) => tracing::warn!(%error, "renewing the lease of this node failed"),
            }
        }
    }

    async fn purge(&self) {
        let mut tick = tokio::time::interval(PURGE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.store.purge_idempotent(micros(Timestamp::now())).await {
                tracing::warn!(%error, "removing old idempotent answers failed");
            }
            self.purge_logs().await;
            if let Some(remote) = &self.remote_logs {
                remote.announce_everything();
            }
            if let Err(error) = self.purge_code_runs().await {
                tracing::warn!(%error, "removing old code runs failed");
            }
            if let Err(error) = self.purge_agents().await {
                tracing::warn!(%error, "removing old agents failed");
            }
        }
    }
}

fn lease_end() -> i64 {
    micros(Timestamp::now().plus_millis(LEASE_MS))
}
