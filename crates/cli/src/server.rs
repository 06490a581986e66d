//! The unprivileged process: confines itself, then serves.
//!
//! Who runs it: root for the first few calls, then the server's user with no capability, no way
//! to start a program, and a short list of files; see [`crate::confine`].

use crate::confine;
use crate::credentials;
use crate::options::ServeOptions;
use crate::pools;
use crate::settings;
use crate::supervisor::{EXIT_CONFIGURATION, die_with_parent};
use anyhow::Context;
use crownest_runtime::client::{ClientError, SpawnerClient};
use crownest_runtime::command::TemplateDigest;
use crownest_runtime::layout::Layout;
use crownest_runtime::template::{self, Built, Definition, InUse};
use crownest_server::host::{Host, HostConfig};
use crownest_server::objects::{Objects, ObjectsError};
use crownest_server::{App, Config, Inventory, Template, TemplateSource, bootstrap};
use crownest_store::{Durability, Store, StoreOptions};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Variable in which the supervisor passes [`Start`].
pub(crate) const START: &str = "CROWNEST_SERVER_START";
/// Processors for each thread that serves. Even the smallest run costs its sandbox more than it
/// costs the server, and most cost a hundred times more. A second thread on few processors would
/// only take turns with the first, and every turn that changes threads costs a wake-up in the
/// middle of a run, on a processor that the interpreter needs.
const PROCESSORS_PER_THREAD: usize = 4;
/// How often and how fast the spawner's socket is tried: ten seconds in all.
const CONNECT_TRIES_MAX: u32 = 200;
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// What the supervisor has settled.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub options: ServeOptions,
    pub uid: u32,
    pub gid: u32,
    pub instance: u32,
}

/// Runs until SIGTERM.
pub(crate) fn run() -> ExitCode {
    let failed = |error: &anyhow::Error, code| {
        eprintln!("crownest: {error:#}");
        ExitCode::from(code)
    };
    let (start, listener) = match become_server() {
        Ok(ready) => ready,
        Err(error) => return failed(&error, EXIT_CONFIGURATION),
    };
    let runtime = match event_loop().context("starting the event loop") {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, 1),
    };
    match runtime.block_on(serve(start, listener)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Start(error)) => failed(&error, EXIT_CONFIGURATION),
        Err(Failure::Serve(error)) => failed(&error, 1),
    }
}

/// One thread, unless there are processors for more than it can keep busy. What may block (names,
/// the database) has threads of its own.
fn event_loop() -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = match processors / PROCESSORS_PER_THREAD {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    builder.enable_all().build()
}

/// When it went wrong.
enum Failure {
    /// Before anything was served: the configuration, or what it names.
    Start(anyhow::Error),
    Serve(anyhow::Error),
}

/// From root to the server's user, for good. The process has one thread here.
fn become_server() -> anyhow::Result<(Start, TcpListener)> {
    let start = std::env::var(START).context("only serve starts this")?;
    let start: Start = serde_json::from_str(&start).context("only serve starts this")?;
    settings::start_log(&start.options.log, start.options.log_json);
    let listener = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("the listener")?;
    let null = std::fs::File::open("/dev/null").context("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("/dev/null")?;
    confine::drop_privileges(start.uid, start.gid).context("dropping privileges")?;
    die_with_parent()?;
    confine::restrict_files(&start.options, &Layout::new(start.instance))
        .context("restricting files")?;
    confine::restrict_calls().context("restricting system calls")?;
    Ok((start, TcpListener::from(listener)))
}

async fn serve(start: Start, listener: TcpListener) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Failure::Start(e.into()))?;
    // Never a matter of configuration: the supervisor has seen the spawner start.
    let spawner = connect_spawner(start.instance)
        .await
        .map_err(|e| Failure::Serve(e.into()))?;
    let (app, listener) = prepare(&start, listener, spawner)
        .await
        .map_err(Failure::Start)?;
    let shutdown = async move {
        terminate.recv().await;
    };
    crownest_server::run(listener, app, shutdown)
        .await
        .map_err(|e| Failure::Serve(e.into()))
}

async fn prepare(
    start: &Start,
    listener: TcpListener,
    spawner: SpawnerClient,
) -> anyhow::Result<(App, tokio::net::TcpListener)> {
    let options = &start.options;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;

    credentials::check_database(options)?;
    let store = open_store(options).await?;
    let source = template_source(options.templates_dir.clone());
    let built: Vec<Template> = built_templates(&options.templates_dir)
        .into_iter()
        .map(described)
        .collect();
    let default_template = pools::default_template(options, &built);
    warm_template(&spawner, &default_template, &built);
    let mut host = HostConfig::new(Arc::new(spawner), Arc::new(options.egress(vec![address])?));
    host.sandboxes_max = options.sandboxes_max;
    host.pool = pools::pool(options, &built)?;
    let host = Host::start(host).await?;
    let config = config(options, default_template, source)?;
    let objects = open_objects(options, &config.node_id).await?;
    println!("http://{address}");
    if let Some(fresh) = bootstrap(&store).await? {
        credentials::announce(&fresh, options, address)?;
    }
    let app = App::new(config, Arc::new(store), host, objects);
    Ok((app, tokio::net::TcpListener::from_std(listener)?))
}

/// The spawner may be restarting at this moment.
async fn connect_spawner(instance: u32) -> Result<SpawnerClient, ClientError> {
    let mut tries = CONNECT_TRIES_MAX;
    loop {
        match SpawnerClient::connect(Layout::new(instance)) {
            Err(_) if tries > 0 => tries -= 1,
            outcome => return outcome,
        }
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
}

/// Starts the zygote of a template now: the first request should not wait for it.
fn warm_template(spawner: &SpawnerClient, slug: &str, built: &[Template]) {
    let python = |t: &&Template| t.languages.iter().any(|language| language == "python");
    let template = built.iter().find(|t| t.current && t.slug == slug);
    let digest = template
        .filter(python)
        .and_then(|template| TemplateDigest::from_hex(&template.digest));
    if let Some(digest) = digest {
        let spawner = spawner.clone();
        tokio::spawn(async move {
            if let Err(error) = spawner.warm(digest).await {
                tracing::warn!(%error, "warming the default template");
            }
        });
    }
}

async fn open_store(options: &ServeOptions) -> anyhow::Result<Store> {
    let durability = if options.database_sync {
        Durability::Full
    } else {
        Durability::Normal
    };
    let store_options = StoreOptions {
        durability,
        ..StoreOptions::default()
    };
    Store::open(&options.database(), &store_options)
        .await
        .context("opening the database")
}

/// An object store that does not know us is a matter of configuration; one that does not answer
/// may come back.
async fn open_objects(options: &ServeOptions, node_id: &str) -> anyhow::Result<Objects> {
    let objects = Objects::open(&options.objects()?, node_id)?;
    match objects.check().await {
        Ok(()) => {}
        Err(ObjectsError::Unavailable(reason)) => {
            tracing::warn!(reason, "the object store does not answer");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(objects)
}

fn config(
    options: &ServeOptions,
    default_template: String,
    source: TemplateSource,
) -> anyhow::Result<Config> {
    let mut config = Config::new(credentials::node_id(&options.data_dir)?, source);
    config.public_origin.clone_from(&options.public_origin);
    config.preview_domain = options.preview_domain()?;
    config.preview_answer_ms_max = u64::from(options.preview_answer_seconds) * 1_000;
    config.default_template = default_template;
    config.plan = options.plan.parse()?;
    config.sandboxes_per_org_max = options.sandboxes_per_org_max;
    config.requests_per_minute_max = options.requests_per_minute_max;
    config.previews_per_org_max = options.previews_per_org_max;
    config.previews_per_sandbox_max = options.previews_per_sandbox_max;
    config.local_dashboard = options.local_dashboard;
    config.limits_default = options.limits()?;
    config.limits_max = options.limits_max()?;
    config.sandbox_env = options.environment()?;
    config.artifact_retention_days = options.artifact_retention_days;
    config.metrics = options.metrics;
    config.audit_dir = Some(options.data_dir.join("audit"));
    config.data_dir.clone_from(&options.data_dir);
    config.command_log_days = options.command_log_days;
    config.workspace_archive_bytes_max = options
        .workspace_archive_mib_max
        .saturating_mul(1024 * 1024);
    config.command_log_bytes_max = options.command_log_mib_max.saturating_mul(1024 * 1024);
    Ok(config)
}

/// Lists what is built, and holds every version it has listed, so that none is removed while
/// sandboxes may be made of it.
fn template_source(dir: PathBuf) -> TemplateSource {
    let held: Mutex<HashMap<String, InUse>> = Mutex::default();
    TemplateSource::new(move || {
        let mut held = held.lock().expect("nothing panics while it is held");
        let usable = built_templates(&dir).into_iter().filter(|built| {
            if !held.contains_key(&built.digest) {
                let Ok(hold) = built.hold() else { return false };
                held.insert(built.digest.clone(), hold);
            }
            true
        });
        Inventory {
            built: usable.map(described).collect(),
            known: Definition::slugs(None),
        }
    })
}

fn built_templates(dir: &Path) -> Vec<Built> {
    template::list(dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "listing templates");
        Vec::new()
    })
}

fn described(built: Built) -> Template {
    Template {
        slug: built.slug,
        digest: built.digest,
        version: built.version,
        version_id: built.version_id,
        languages: built.languages,
        runtimes: built.runtimes,
        current: built.current,
    }
}
