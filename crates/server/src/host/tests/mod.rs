//! The host against peers that speak init's frames, and a spawner that starts such peers.

mod kept_runs;
mod links;
mod native;
mod peer;
mod pooling;
mod transfers;

use super::spawner::{
    CreateSpec, Created, ForkedDriver, SandboxStats, Spawner, SpawnerError, TemplateDigest,
};
use super::{
    ContextSpec, Host, HostConfig, Isolation, Limits, Network, RunSpec, Runtimes, Sandbox,
    SandboxKey, SandboxSpec, TemplateRef,
};
use crate::egress::Policy;
use futures_util::future::BoxFuture;
use peer::Peer;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a peer for every sandbox.
#[derive(Debug)]
pub(crate) struct PeerSpawner {
    directory: tempfile::TempDir,
    peers: Mutex<HashMap<SandboxKey, Arc<Peer>>>,
    created: Mutex<Vec<SandboxKey>>,
    destroyed: Mutex<Vec<SandboxKey>>,
    oom_kills: AtomicU64,
    /// Sandboxes made from now on have an init that never says a word.
    mute: AtomicBool,
    muted: Mutex<Vec<UnixListener>>,
    /// Commands that fail as if the spawner were away.
    away: AtomicUsize,
}

impl PeerSpawner {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            directory: tempfile::tempdir().unwrap(),
            peers: Mutex::default(),
            created: Mutex::default(),
            destroyed: Mutex::default(),
            oom_kills: AtomicU64::new(0),
            mute: AtomicBool::new(false),
            muted: Mutex::default(),
            away: AtomicUsize::new(0),
        })
    }

    fn peer(&self, key: &SandboxKey) -> Arc<Peer> {
        Arc::clone(&self.peers.lock().unwrap()[key])
    }

    fn present(&self) -> Result<(), SpawnerError> {
        let away = self
            .away
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        match away {
            Ok(_) => Err(SpawnerError::Disconnected("away".into())),
            Err(_) => Ok(()),
        }
    }

    fn kill(&self, key: &SandboxKey) {
        let peer = self.peers.lock().unwrap().remove(key);
        drop(peer);
        let _ = std::fs::remove_file(self.init_socket(key));
    }
}

impl Spawner for PeerSpawner {
    fn create<'a>(&'a self, spec: &'a CreateSpec) -> BoxFuture<'a, Result<Created, SpawnerError>> {
        Box::pin(async move {
            self.present()?;
            let init_socket = self.init_socket(&spec.key);
            if self.mute.load(Ordering::Acquire) {
                let listener = UnixListener::bind(&init_socket).unwrap();
                self.muted.lock().unwrap().push(listener);
            } else {
                let peer = Arc::new(Peer::start(&init_socket));
                self.peers.lock().unwrap().insert(spec.key.clone(), peer);
            }
            self.created.lock().unwrap().push(spec.key.clone());
            Ok(Created { init_socket })
        })
    }

    fn fork<'a>(
        &'a self,
        _: &'a SandboxKey,
        _: &'a TemplateDigest,
    ) -> BoxFuture<'a, Result<ForkedDriver, SpawnerError>> {
        Box::pin(async move {
            self.present()?;
            let (control, stdout) = rustix::pipe::pipe().unwrap();
            let (stderr, pidfd) = rustix::pipe::pipe().unwrap();
            Ok(ForkedDriver {
                control,
                stdout,
                stderr,
                pidfd,
            })
        })
    }

    fn destroy<'a>(&'a self, key: &'a SandboxKey) -> BoxFuture<'a, Result<(), SpawnerError>> {
        Box::pin(async move {
            self.present()?;
            self.kill(key);
            self.destroyed.lock().unwrap().push(key.clone());
            Ok(())
        })
    }

    fn freeze<'a>(&'a self, _: &'a SandboxKey, _: bool) -> BoxFuture<'a, Result<(), SpawnerError>> {
        Box::pin(async { Ok(()) })
    }

    fn stats<'a>(&'a self, _: &'a SandboxKey) -> BoxFuture<'a, Result<SandboxStats, SpawnerError>> {
        let oom_kills = self.oom_kills.load(Ordering::Acquire);
        Box::pin(async move {
            Ok(SandboxStats {
                oom_kills,
                ..SandboxStats::default()
            })
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<SandboxKey>, SpawnerError>> {
        Box::pin(async { Ok(self.peers.lock().unwrap().keys().cloned().collect()) })
    }

    fn init_socket(&self, key: &SandboxKey) -> PathBuf {
        self.directory.path().join(key.as_str())
    }
}

fn template() -> TemplateRef {
    TemplateRef {
        slug: "python".into(),
        digest: "ab".repeat(32),
    }
}

fn spec() -> SandboxSpec {
    SandboxSpec {
        snapshot: None,
        key: None,
        template: template(),
        limits: Limits::default(),
        network: Network::None,
        runtimes: Runtimes::new(),
        env: BTreeMap::new(),
        key_variable: None,
        egress: None,
        deadline: Duration::from_secs(60),
    }
}

fn config(spawner: &Arc<PeerSpawner>) -> HostConfig {
    config_of(Arc::clone(spawner) as Arc<dyn Spawner>)
}

fn config_of(spawner: Arc<dyn Spawner>) -> HostConfig {
    HostConfig::new(spawner, Arc::new(Policy::default()))
}

async fn host(spawner: &Arc<PeerSpawner>) -> Host {
    Host::start(config(spawner)).await.unwrap()
}

/// A host with one sandbox that has the context `a`.
async fn one() -> (Arc<PeerSpawner>, Host, Arc<Sandbox>, Arc<Peer>) {
    let spawner = PeerSpawner::new();
    let host = host(&spawner).await;
    let (sandbox, timings) = host.create(spec()).await.unwrap();
    assert!(!timings.pooled);
    open(&sandbox, "a").await;
    let peer = spawner.peer(sandbox.key());
    (spawner, host, sandbox, peer)
}

async fn open(sandbox: &Arc<Sandbox>, id: &str) {
    sandbox
        .open_context(ContextSpec {
            id: id.into(),
            language: "python".into(),
            cwd: "/workspace".into(),
            env: BTreeMap::new(),
            isolation: Isolation::Fork,
        })
        .await
        .unwrap();
}

fn cell(code: &str) -> RunSpec {
    RunSpec {
        context: "a".into(),
        code: code.into(),
        timeout: Duration::from_secs(60),
        cwd: None,
        language: None,
        input: false,
        table_export: None,
    }
}

/// Waits for something that other tasks bring about.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "never: {what}"
    );
}
