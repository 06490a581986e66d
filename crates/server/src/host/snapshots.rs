//! Files of sandboxes that are kept on this node. Does not own what they are called, and whose they
//! are.

use super::error::HostError;
use super::node::Host;
use super::retry::retried;
use super::sandbox::Sandbox;
use super::spawner::{SandboxKey, SnapshotSize};

impl Sandbox {
    /// Keeps its files under that name. It must stand still: see [`Sandbox::pause`].
    ///
    /// # Errors
    /// When the spawner cannot be reached, or says why not. Then nothing is kept, unless it went
    /// away in the middle.
    pub async fn keep_files(&self, name: &SandboxKey) -> Result<SnapshotSize, HostError> {
        Ok(self.shared.spawner.snapshot(&self.key, name).await?)
    }
}

impl Host {
    /// Removes what is kept under that name. Not an error when nothing is.
    ///
    /// # Errors
    /// When the spawner cannot be reached, or cannot do it.
    pub async fn remove_snapshot(&self, name: &SandboxKey) -> Result<(), HostError> {
        let spawner = &self.inner.shared.spawner;
        Ok(retried(|| spawner.remove_snapshot(name)).await?)
    }

    /// Every name under which something is kept.
    ///
    /// # Errors
    /// When the spawner cannot be reached, or cannot do it.
    pub async fn list_snapshots(&self) -> Result<Vec<SandboxKey>, HostError> {
        let spawner = &self.inner.shared.spawner;
        Ok(retried(|| spawner.list_snapshots()).await?)
    }
}
