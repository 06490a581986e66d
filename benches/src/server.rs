//! The server that is measured: one of our own, started for the purpose, or one that runs already.
//!
//! Whatever was made is unmade in [`Server::stop`]: sandboxes outlive a server by design, so they
//! are deleted before it is told to stop.

use crate::client::{Client, Endpoint};
use anyhow::{Context, Result, bail};
use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Longest wait for a server to speak, to settle and to stop.
const START_SECONDS_MAX: u64 = 60;
const SETTLE_SECONDS_MAX: u64 = 60;
const STOP_SECONDS_MAX: u64 = 60;
/// How often a state that only /metrics tells is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Sandboxes of a bench that was killed end by themselves after this.
const TTL_MS: u64 = 30 * 60 * 1000;

/// A server and the sandboxes that the bench has made in it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    /// Sandboxes that it keeps ready; unknown for one that ran already.
    pub(crate) pool: Option<usize>,
    live: Mutex<BTreeSet<String>>,
    own: Option<Own>,
}

/// What there is to stop and remove.
#[derive(Debug)]
struct Own {
    child: Mutex<Child>,
    pid: Pid,
    dir: PathBuf,
}

/// How to start one.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) binary: PathBuf,
    pub(crate) templates_dir: PathBuf,
    pub(crate) pool: usize,
    /// What its sandboxes are made of.
    pub(crate) template: &'static str,
    pub(crate) dir: PathBuf,
}

impl Server {
    /// One that runs already; stays as it is.
    pub(crate) fn running(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            pool: None,
            live: Mutex::default(),
            own: None,
        }
    }

    /// Starts one with its own data directory, as an operator would, and waits until it is ready.
    pub(crate) async fn start(start: &Start) -> Result<Arc<Self>> {
        std::fs::create_dir_all(&start.dir)?;
        // No option may come from this machine's configuration.
        let config = start.dir.join("crownest.toml");
        File::create(&config)?;
        let log = File::create(start.dir.join("log"))?;
        let data_dir = start.dir.join("data");
        let mut command = Command::new(&start.binary);
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(&data_dir)
            .arg("--templates-dir")
            .arg(&start.templates_dir)
            .args(["--pool", &start.pool.to_string()])
            .args(["--default-template", start.template])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C is for the bench, which stops the server when its sandboxes are gone.
            .process_group(0)
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CROWNEST_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {}", start.binary.display()))?;
        let stdout = child.stdout.take().context("its stdout is a pipe")?;
        let spoken = tokio::time::timeout(
            Duration::from_secs(START_SECONDS_MAX),
            wait_for_credentials(stdout),
        );
        if let Err(error) = spoken.await.context("it did not start in time")? {
            let log = std::fs::read_to_string(start.dir.join("log")).unwrap_or_default();
            bail!("the server did not start: {error:#}\n{log}");
        }
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .context("a started server has a pid")?;
        let credentials = std::fs::read(data_dir.join("credentials.json"))?;
        let credentials: Value = serde_json::from_slice(&credentials)?;
        let field = |name: &str| credentials[name].as_str().context("credentials.json");
        let server = Arc::new(Self {
            endpoint: Endpoint::new(field("apiUrl")?, field("apiKey")?)?,
            pool: Some(start.pool),
            live: Mutex::default(),
            own: Some(Own {
                child: Mutex::new(child),
                pid,
                dir: start.dir.clone(),
            }),
        });
        let mut client = server.endpoint.connect().await?;
        client.get("/healthz").await?;
        Ok(server)
    }

    /// The process that an operator sees; absent for a server that ran already.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.own
            .as_ref()
            .map(|own| own.pid.as_raw_nonzero().get().unsigned_abs())
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the pool is full again and everything that was destroyed is gone, so that the
    /// next sample does not pay for the one before.
    pub(crate) async fn settle(&self, client: &mut Client) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(SETTLE_SECONDS_MAX);
        loop {
            let metrics = Metrics::read(client).await?;
            let filled = self
                .pool
                .is_none_or(|size| metrics.of("pool_complete") >= size as f64);
            if filled && metrics.destroys_pending() <= 0.0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the server did not come to rest within {SETTLE_SECONDS_MAX} s: {} ready, {} being destroyed",
                    metrics.of("pool_complete"),
                    metrics.destroys_pending()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Deletes what the bench has made; stops the server if it is ours.
    pub(crate) async fn stop(&self) -> Result<()> {
        let deleted = self.delete_all().await;
        let Some(own) = &self.own else {
            return deleted;
        };
        // The child is taken out of the lock's way: nobody else touches it any more.
        let exited = {
            // It may have died before; then there is nobody to tell.
            let _ = kill_process(own.pid, Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
            loop {
                let status = own
                    .child
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .try_wait()?;
                if status.is_some() || Instant::now() > deadline {
                    break status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if exited.is_none() {
            kill_process(own.pid, Signal::KILL).context("killing a server that does not stop")?;
        }
        std::fs::remove_dir_all(&own.dir)
            .with_context(|| format!("removing {}", own.dir.display()))?;
        deleted
    }

    async fn delete_all(&self) -> Result<()> {
        let left: Vec<String> = self.live().iter().cloned().collect();
        if left.is_empty() && self.own.is_none() {
            return Ok(());
        }
        let mut client = self.endpoint.connect().await?;
        for id in left {
            let path = format!("/v1/sandboxes/{id}");
            client
                .send(Method::DELETE, &path, String::new(), None)
                .await?;
            self.live().remove(&id);
        }
        if self.own.is_some() {
            // Also those whose answer never came, because the bench was interrupted.
            delete_listed(&mut client).await?;
            let deadline = Instant::now() + Duration::from_secs(SETTLE_SECONDS_MAX);
            while Metrics::read(&mut client).await?.destroys_pending() > 0.0 {
                if Instant::now() > deadline {
                    bail!("sandboxes were still being destroyed after {SETTLE_SECONDS_MAX} s");
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }
}

async fn delete_listed(client: &mut Client) -> Result<()> {
    loop {
        let page = client.get("/v1/sandboxes?limit=500").await?.json()?;
        let ids: Vec<String> = page["data"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|sandbox| sandbox["id"].as_str().map(str::to_owned))
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        for id in ids {
            let path = format!("/v1/sandboxes/{id}");
            client
                .send(Method::DELETE, &path, String::new(), None)
                .await?;
        }
    }
}

async fn wait_for_credentials(stdout: tokio::process::ChildStdout) -> Result<()> {
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if line.contains("credentials.json") {
            return Ok(());
        }
    }
    bail!("it ended")
}

/// A reading of /metrics.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) async fn read(client: &mut Client) -> Result<Self> {
        let answer = client.get("/metrics").await?;
        Ok(Self(String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// A figure without labels, by its name after `crownest_`; NaN when there is none.
    pub(crate) fn of(&self, name: &str) -> f64 {
        self.0
            .lines()
            .filter_map(|line| line.strip_prefix("crownest_")?.strip_prefix(name))
            .find_map(|rest| rest.strip_prefix(' ')?.trim().parse().ok())
            .unwrap_or(f64::NAN)
    }

    /// Sandboxes that were handed out, are not found any more, and whose end is not confirmed.
    pub(crate) fn destroys_pending(&self) -> f64 {
        self.of("host_creates_total") + self.of("pool_discarded_total")
            - self.of("host_sandboxes_live")
            - self.of("host_destroys_total")
    }
}

/// The calls of a client that the bench measures, each with its time.
impl Server {
    /// Makes a sandbox; `extra` goes into the request.
    pub(crate) async fn create(
        &self,
        client: &mut Client,
        extra: Value,
    ) -> Result<(String, Duration)> {
        let mut body = json!({ "ttlMs": TTL_MS });
        if let (Some(body), Value::Object(extra)) = (body.as_object_mut(), extra) {
            body.extend(extra);
        }
        let answer = client.post("/v1/sandboxes", &body).await?;
        let sandbox = answer.json()?;
        let id = sandbox["sandbox"]["id"]
            .as_str()
            .context("a sandbox has an id")?
            .to_owned();
        self.live().insert(id.clone());
        Ok((id, answer.took))
    }

    pub(crate) async fn destroy(&self, client: &mut Client, id: &str) -> Result<Duration> {
        let path = format!("/v1/sandboxes/{id}");
        let answer = client
            .send(Method::DELETE, &path, String::new(), None)
            .await?;
        self.live().remove(id);
        Ok(answer.took)
    }
}

/// Runs code in the default Python context; returns the whole result.
pub(crate) async fn run(
    client: &mut Client,
    sandbox: &str,
    code: &str,
    key: Option<&str>,
) -> Result<(Value, Duration)> {
    let body = json!({ "code": code, "language": "python", "richOutputs": "inline" });
    let path = format!("/v1/sandboxes/{sandbox}/code/runs");
    let answer = client
        .send(Method::POST, &path, body.to_string(), key)
        .await?;
    let mut result = answer.json()?;
    Ok((result["run"].take(), answer.took))
}

/// As [`run`], for code whose one result is a number or a string.
pub(crate) async fn evaluate(
    client: &mut Client,
    sandbox: &str,
    code: &str,
    expected: &str,
) -> Result<Duration> {
    let (result, took) = run(client, sandbox, code, None).await?;
    check_value(&result, expected)?;
    Ok(took)
}

pub(crate) fn check_value(result: &Value, expected: &str) -> Result<()> {
    if result["outputs"][0]["value"].as_str() != Some(expected) {
        bail!("expected {expected}, got {}", clipped(result));
    }
    Ok(())
}

/// JSON for an error message: its beginning.
pub(crate) fn clipped(value: &Value) -> String {
    const CHARS_MAX: usize = 400;
    value.to_string().chars().take(CHARS_MAX).collect()
}

/// Runs a shell command; it has to end with 0.
pub(crate) async fn command(
    client: &mut Client,
    sandbox: &str,
    command: &str,
) -> Result<(Value, Duration)> {
    let path = format!("/v1/sandboxes/{sandbox}/commands/run");
    let answer = client.post(&path, &json!({ "command": command })).await?;
    let mut result = answer.json()?;
    let record = result["command"].take();
    if record["exitCode"] != 0 {
        bail!("{command:?} failed: {}", clipped(&record));
    }
    Ok((record, answer.took))
}

/// Directory of the template that sandboxes are made of, when it is on this machine.
pub(crate) fn template_root(templates_dir: &Path, slug: &str) -> Option<PathBuf> {
    let root = templates_dir.join(slug).join("current").join("rootfs");
    root.canonicalize().ok()
}
