//! The seam between the host and whatever makes sandboxes: the native spawner today, another
//! driver (a second kernel boundary) tomorrow. Nothing above this file knows which it is.

use crownest_runtime::client::{ClientError, SpawnerClient};
pub use crownest_runtime::client::{CreateSpec, Created, ForkedDriver};
use crownest_runtime::command::Step;
pub use crownest_runtime::command::{Limits, Network, SandboxKey, SandboxStats, TemplateDigest};
pub use crownest_runtime::snapshot::SnapshotSize;
use futures_util::future::BoxFuture;
use std::path::PathBuf;

/// Why a command to the spawner failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpawnerError {
    /// The spawner is being restarted, or is not there. Worth another try.
    #[error("not connected: {0}")]
    Disconnected(String),
    /// It has no sandbox of that key.
    #[error("no such sandbox")]
    Unknown,
    /// No room: uid ranges or forks in flight.
    #[error("{0}")]
    Full(String),
    /// The snapshot is not there, or not whole.
    #[error("{0}")]
    SnapshotUnusable(String),
    /// It tried and failed, or would not try.
    #[error("{0}")]
    Refused(String),
}

/// Makes, feeds and unmakes sandboxes. Every method may be called concurrently.
pub trait Spawner: std::fmt::Debug + Send + Sync + 'static {
    /// Makes a sandbox; its init listens when this returns.
    fn create<'a>(&'a self, spec: &'a CreateSpec) -> BoxFuture<'a, Result<Created, SpawnerError>>;
    /// Forks an interpreter of the template's zygote into the sandbox.
    fn fork<'a>(
        &'a self,
        key: &'a SandboxKey,
        template: &'a TemplateDigest,
    ) -> BoxFuture<'a, Result<ForkedDriver, SpawnerError>>;
    /// Kills everything in it; returns when it is gone. Not an error when there is none.
    fn destroy<'a>(&'a self, key: &'a SandboxKey) -> BoxFuture<'a, Result<(), SpawnerError>>;
    /// Stops or continues everything in it.
    fn freeze<'a>(
        &'a self,
        key: &'a SandboxKey,
        frozen: bool,
    ) -> BoxFuture<'a, Result<(), SpawnerError>>;
    /// Gives it another ceiling of processor time.
    fn set_cpu<'a>(
        &'a self,
        _key: &'a SandboxKey,
        _cpu_millis: u32,
    ) -> BoxFuture<'a, Result<(), SpawnerError>> {
        let refused = "this driver cannot change limits".to_owned();
        Box::pin(async { Err(SpawnerError::Refused(refused)) })
    }
    /// What it uses.
    fn stats<'a>(
        &'a self,
        key: &'a SandboxKey,
    ) -> BoxFuture<'a, Result<SandboxStats, SpawnerError>>;
    /// Keeps the files of a sandbox that stands still, under a name of the caller's.
    fn snapshot<'a>(
        &'a self,
        _key: &'a SandboxKey,
        _name: &'a SandboxKey,
    ) -> BoxFuture<'a, Result<SnapshotSize, SpawnerError>> {
        Box::pin(async { Err(no_snapshots()) })
    }
    /// Removes what is kept under that name, if anything is.
    fn remove_snapshot<'a>(
        &'a self,
        _name: &'a SandboxKey,
    ) -> BoxFuture<'a, Result<(), SpawnerError>> {
        Box::pin(async { Err(no_snapshots()) })
    }
    /// Every name under which something is kept.
    fn list_snapshots(&self) -> BoxFuture<'_, Result<Vec<SandboxKey>, SpawnerError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    /// Keys of all sandboxes that exist.
    fn list(&self) -> BoxFuture<'_, Result<Vec<SandboxKey>, SpawnerError>>;
    /// Where the init of a sandbox listens, made by this server or by one before it.
    fn init_socket(&self, key: &SandboxKey) -> PathBuf;
}

/// Of a driver that cannot keep files.
fn no_snapshots() -> SpawnerError {
    SpawnerError::Refused("this driver has no snapshots".to_owned())
}

impl From<ClientError> for SpawnerError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Connect(_) | ClientError::Disconnected => {
                Self::Disconnected(error.to_string())
            }
            ClientError::Timeout | ClientError::Answer => Self::Refused(error.to_string()),
            ClientError::Refused(refusal) => match refusal.step {
                Step::SandboxUnknown => Self::Unknown,
                // The next try finds its successor, or starts it.
                Step::ZygoteGone => Self::Disconnected(refusal.to_string()),
                Step::SnapshotMissing | Step::SnapshotBroken => {
                    Self::SnapshotUnusable(refusal.to_string())
                }
                Step::SandboxesFull | Step::ZygoteBusy | Step::SnapshotBusy => {
                    Self::Full(refusal.to_string())
                }
                _ => Self::Refused(refusal.to_string()),
            },
        }
    }
}

/// The native driver: namespaces, cgroups, seccomp.
impl Spawner for SpawnerClient {
    fn create<'a>(&'a self, spec: &'a CreateSpec) -> BoxFuture<'a, Result<Created, SpawnerError>> {
        Box::pin(async move { Ok(SpawnerClient::create(self, spec).await?) })
    }

    fn fork<'a>(
        &'a self,
        key: &'a SandboxKey,
        template: &'a TemplateDigest,
    ) -> BoxFuture<'a, Result<ForkedDriver, SpawnerError>> {
        Box::pin(async move { Ok(SpawnerClient::fork(self, key, *template).await?) })
    }

    fn destroy<'a>(&'a self, key: &'a SandboxKey) -> BoxFuture<'a, Result<(), SpawnerError>> {
        Box::pin(async move { Ok(SpawnerClient::destroy(self, key).await?) })
    }

    fn freeze<'a>(
        &'a self,
        key: &'a SandboxKey,
        frozen: bool,
    ) -> BoxFuture<'a, Result<(), SpawnerError>> {
        Box::pin(async move { Ok(SpawnerClient::freeze(self, key, frozen).await?) })
    }

    fn set_cpu<'a>(
        &'a self,
        key: &'a SandboxKey,
        cpu_millis: u32,
    ) -> BoxFuture<'a, Result<(), SpawnerError>> {
        Box::pin(async move { Ok(SpawnerClient::set_cpu(self, key, cpu_millis).await?) })
    }

    fn stats<'a>(
        &'a self,
        key: &'a SandboxKey,
    ) -> BoxFuture<'a, Result<SandboxStats, SpawnerError>> {
        Box::pin(async move { Ok(SpawnerClient::stats(self, key).await?) })
    }

    fn snapshot<'a>(
        &'a self,
        key: &'a SandboxKey,
        name: &'a SandboxKey,
    ) -> BoxFuture<'a, Result<SnapshotSize, SpawnerError>> {
        Box::pin(async move { Ok(SpawnerClient::snapshot(self, key, name).await?) })
    }

    fn remove_snapshot<'a>(
        &'a self,
        name: &'a SandboxKey,
    ) -> BoxFuture<'a, Result<(), SpawnerError>> {
        Box::pin(async move { Ok(SpawnerClient::remove_snapshot(self, name).await?) })
    }

    fn list_snapshots(&self) -> BoxFuture<'_, Result<Vec<SandboxKey>, SpawnerError>> {
        Box::pin(async move { Ok(SpawnerClient::list_snapshots(self).await?) })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<SandboxKey>, SpawnerError>> {
        Box::pin(async move { Ok(SpawnerClient::list(self).await?) })
    }

    fn init_socket(&self, key: &SandboxKey) -> PathBuf {
        SpawnerClient::init_socket(self, key)
    }
}
