//! What every route can reach: one value, cheap to clone.

use crate::agents::SigningKeys;
use crate::audit::AuditLog;
use crate::auth::KeyCache;
use crate::command_log::Remote;
use crate::commands;
use crate::config::Config;
use crate::creation::DefaultProjects;
use crate::detached;
use crate::host::Host;
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::persist::Waiting;
use crate::previews::Gates;
use crate::rate_limit::RateLimits;
use crate::sandboxes::Registry;
use crate::signed_url::SigningSecret;
use crate::templates::Templates;
use crate::terminals;
use crate::workspace_runs;
use crownest_store::{Owner, Store};
use std::ops::Deref;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The server's state.
#[derive(Debug, Clone)]
pub struct App(Arc<AppState>);

/// See [`App`].
#[derive(Debug)]
pub struct AppState {
    pub config: Config,
    pub store: Arc<Store>,
    pub host: Host,
    pub objects: Arc<Objects>,
    pub metrics: Arc<Metrics>,
    pub templates: Templates,
    pub audit: AuditLog,
    /// This boot of this node, as idempotent requests name it.
    pub owner: Owner,
    pub(crate) keys: KeyCache,
    pub(crate) sandboxes: Registry,
    pub(crate) previews: Gates,
    pub(crate) workspace_runs: workspace_runs::Registry,
    pub(crate) signing: SigningSecret,
    pub(crate) commands: commands::Registry,
    pub(crate) terminals: terminals::Registry,
    /// Where closed segments of logs go; None: the object store is a directory, they stay.
    pub(crate) remote_logs: Option<Arc<Remote>>,
    pub(crate) detached: detached::Registry,
    /// Records that the store could not take yet.
    pub(crate) unwritten: Waiting,
    pub(crate) default_projects: DefaultProjects,
    pub(crate) rates: RateLimits,
    /// What is asked for without a credential, by address.
    pub(crate) addresses: RateLimits,
    pub(crate) signing_keys: SigningKeys,
    /// Work that outlives the request it came with, waited for at shutdown.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the server stops.
    pub(crate) stopping: CancellationToken,
}

impl Deref for App {
    type Target = AppState;
    fn deref(&self) -> &AppState {
        &self.0
    }
}

impl App {
    /// Joins the parts. Reads the template inventory, which may block for a moment.
    #[must_use]
    pub fn new(config: Config, store: Arc<Store>, host: Host, objects: Objects) -> Self {
        let metrics = Arc::new(Metrics::new());
        let tasks = TaskTracker::new();
        let stopping = CancellationToken::new();
        let objects = Arc::new(objects);
        let remote = || Arc::new(Remote::new(Arc::clone(&objects), &config.node_id));
        let remote_logs = (!objects.is_directory()).then(remote);
        let owner = Owner {
            node_id: config.node_id.clone(),
            boot_id: uuid::Uuid::now_v7().to_string(),
        };
        Self(Arc::new(AppState {
            templates: Templates::load(config.templates.clone()),
            audit: AuditLog::start(
                Arc::clone(&store),
                Arc::clone(&metrics),
                config.audit_dir.as_deref(),
            ),
            keys: KeyCache::default(),
            sandboxes: Registry::default(),
            previews: Gates::default(),
            workspace_runs: workspace_runs::Registry::default(),
            signing: SigningSecret::default(),
            commands: commands::Registry::default(),
            terminals: terminals::Registry::default(),
            remote_logs,
            detached: detached::Registry::default(),
            unwritten: Waiting::default(),
            default_projects: DefaultProjects::default(),
            rates: RateLimits::default(),
            addresses: RateLimits::default(),
            signing_keys: SigningKeys::default(),
            owner,
            config,
            store,
            host,
            objects,
            metrics,
            tasks,
            stopping,
        }))
    }

    /// Runs `work` to its end whether or not anybody waits for it.
    pub(crate) async fn finish_anyway<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        match self.tasks.spawn(work).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Nothing aborts these tasks, so the runtime itself is being torn down and this
                // future with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
