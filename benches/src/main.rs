//! `make bench`: measures what SPECIFICATION.md promises, as a client sees it.
//!
//! Starts two servers of its own (one with a pool of prepared sandboxes, one without), speaks
//! HTTP/1.1 to them on loopback, lets peers do the same work in between, and prints percentiles
//! of all samples. Knows the server as a client does: nothing of its code is linked in.
//!
//! Whatever it starts it stops, also after an error, a panic and Ctrl-C.

#![forbid(unsafe_code)]

mod client;
mod machine;
mod peers;
mod processes;
mod report;
mod rows;
mod samples;
mod server;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use client::Endpoint;
use peers::{Peers, Sources};
use report::{Report, RowReport};
use rows::{Bench, Clients, Row, Scale, languages};
use serde_json::json;
use server::{Server, Start};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Sandboxes that the server with a pool keeps ready.
const POOL: usize = 4;
/// What every row but that of the languages starts from.
const PYTHON: &str = "python";

/// Measure a server against its promises, and against peers.
#[derive(Debug, Parser)]
#[command(name = "crownest-bench", version)]
struct Options {
    /// The `crownest` binary; default: the one beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where templates are built.
    #[arg(long, default_value = "/var/lib/crownest/templates")]
    templates_dir: PathBuf,
    /// A server that runs already, instead of two of our own.
    #[arg(long, requires = "api_key")]
    server_url: Option<String>,
    #[arg(long, env = "CROWNEST_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Few samples: to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Only this row; can be given several times.
    #[arg(long, value_name = "ROW")]
    only: Vec<Row>,
    /// Sandboxes at once in the row `density`.
    #[arg(long)]
    density: Option<usize>,
    /// As `--density 1000`.
    #[arg(long)]
    full: bool,
    /// Write the report to this directory as YYYY-MM-DD-HHMM.json and .txt.
    #[arg(long, num_args = 0..=1, default_missing_value = "benches/results", value_name = "DIR")]
    save: Option<PathBuf>,
    /// Exit with 1 when a promise is missed.
    #[arg(long)]
    strict: bool,
    /// Leave the peers out.
    #[arg(long)]
    no_peers: bool,
    /// An interpreter that has what peers/requirements.txt names; default: a virtual environment
    /// is made for it.
    #[arg(long)]
    peer_python: Option<PathBuf>,
}

impl Options {
    fn scale(&self) -> Scale {
        let mut scale = if self.quick {
            Scale::QUICK
        } else {
            Scale::USUAL
        };
        if self.full {
            scale.density_sandboxes = 1_000;
        }
        if let Some(density) = self.density {
            scale.density_sandboxes = density.max(1);
        }
        scale
    }

    fn rows(&self) -> Vec<Row> {
        Row::value_variants()
            .iter()
            .copied()
            .filter(|row| match &self.only[..] {
                [] => *row != Row::Load,
                only => only.contains(row),
            })
            .collect()
    }

    fn binary(&self) -> Result<PathBuf> {
        let path = match &self.binary {
            Some(path) => path.clone(),
            None => beside("crownest")?,
        };
        path.canonicalize()
            .with_context(|| format!("no server to measure at {}; see --binary", path.display()))
    }
}

fn beside(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().context("the path of this program")?;
    Ok(program.with_file_name(name))
}

fn main() -> ExitCode {
    let options = Options::parse();
    // One thread: a client that competes with itself for processors measures itself.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .context("starting the event loop")
        .and_then(|runtime| runtime.block_on(bench(options)));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("crownest-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(options: Options) -> Result<ExitCode> {
    let dir = std::env::temp_dir().join(format!("crownest-bench-{}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
    let mut servers = Vec::new();
    let measured = interruptible(&options, &dir, &mut servers).await;
    let mut stopped = Ok(());
    for server in servers {
        if let Err(error) = server.stop().await {
            stopped = Err(error);
        }
    }
    let removed = std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string());
    let report = measured?;
    let text = report.text();
    println!("{text}");
    if let Some(directory) = &options.save {
        save(directory, &report, &text)?;
    }
    stopped.context("cleaning up")?;
    removed?;
    let missed = report.missed();
    if !missed.is_empty() {
        eprintln!("missed: {}", missed.join(", "));
    }
    let bad = report.failed() || (options.strict && !missed.is_empty());
    Ok(if bad {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Measures until it is done or somebody has had enough. Servers are left to the caller.
async fn interruptible(
    options: &Options,
    dir: &Path,
    servers: &mut Vec<Arc<Server>>,
) -> Result<Report> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let binary = match &options.server_url {
        Some(_) => None,
        None => Some(options.binary()?),
    };
    let load_before = machine::load();
    let facts = machine::facts(binary.as_deref());
    let preparing = prepare(options, dir, binary.as_deref(), servers);
    let bench = tokio::select! {
        bench = preparing => bench?,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    };
    // A task, so that a panic in it is an error here.
    let mut measuring = tokio::spawn(measure(bench, options.rows()));
    let (rows, skipped) = tokio::select! {
        measured = &mut measuring => measured.context("measuring")?,
        _ = interrupt.recv() => {
            measuring.abort();
            bail!("interrupted")
        }
        _ = terminate.recv() => {
            measuring.abort();
            bail!("terminated")
        }
    };
    Ok(Report {
        facts,
        load_before,
        load_after: machine::load(),
        rows,
        skipped,
    })
}

/// Whether a row measures sandboxes with every language.
fn needs_all(row: Row) -> bool {
    matches!(row, Row::Languages | Row::Opensandbox)
}

async fn prepare(
    options: &Options,
    dir: &Path,
    binary: Option<&Path>,
    servers: &mut Vec<Arc<Server>>,
) -> Result<Bench> {
    let rootfs = server::template_root(&options.templates_dir, PYTHON);
    let mut everything_pooled = None;
    let (pooled, cold, cold_request) = match (binary, &options.server_url) {
        (Some(binary), _) => {
            let mut started = Vec::new();
            let mut wanted = vec![("pool", POOL, PYTHON), ("cold", 0, PYTHON)];
            let everything = server::template_root(&options.templates_dir, languages::TEMPLATE);
            if options.rows().iter().any(|row| needs_all(*row)) && everything.is_some() {
                wanted.push(("languages", 1, languages::TEMPLATE));
            }
            for (name, pool, template) in wanted {
                let start = Start {
                    binary: binary.to_owned(),
                    templates_dir: options.templates_dir.clone(),
                    pool,
                    template,
                    dir: dir.join(name),
                };
                let server = Server::start(&start).await?;
                servers.push(Arc::clone(&server));
                started.push(server);
            }
            let mut started = started.into_iter();
            let pooled = started.next().context("two were started")?;
            let cold = started.next().context("two were started")?;
            everything_pooled = started.next();
            (pooled, cold, json!({}))
        }
        (None, Some(url)) => {
            let key = options.api_key.as_deref().context("--api-key")?;
            let server = Arc::new(Server::running(Endpoint::new(url, key)?));
            servers.push(Arc::clone(&server));
            // Pools hold sandboxes with the usual limits only.
            let other = json!({ "resources": { "pids": 255 } });
            (Arc::clone(&server), server, other)
        }
        (None, None) => bail!("neither a binary nor a server"),
    };
    let peers = if options.no_peers {
        Peers::default()
    } else {
        let venv = beside("")?.with_file_name("bench-peers");
        let python = options.peer_python.clone();
        let dir = dir.to_owned();
        let sources = Sources {
            python,
            venv,
            dir,
            rootfs,
        };
        Peers::find(&sources).await
    };
    Ok(Bench {
        pooled,
        cold,
        cold_request,
        languages: everything_pooled,
        peers,
        clients: Clients {
            venv: beside("")?.with_file_name("bench-opensandbox"),
            dir: dir.to_owned(),
        },
        scale: options.scale(),
    })
}

async fn measure(mut bench: Bench, rows: Vec<Row>) -> (Vec<RowReport>, Vec<String>) {
    let mut reports = Vec::new();
    for row in rows {
        let load_before = machine::load()[0];
        eprintln!("{} (load {load_before})", row.name());
        let outcome = bench.measure(row).await;
        reports.push(RowReport {
            row: row.name(),
            outcome: outcome.map_err(|error| format!("{error:#}")),
            load_before,
            load_after: machine::load()[0],
        });
    }
    if let Some(peer) = bench.peers.ipykernel.take() {
        peer.stop().await;
    }
    (reports, bench.peers.skipped)
}

fn save(directory: &Path, report: &Report, text: &str) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let name = jiff::Timestamp::now().strftime("%Y-%m-%d-%H%M").to_string();
    let json = directory.join(format!("{name}.json"));
    std::fs::write(&json, format!("{:#}\n", report.json()))?;
    std::fs::write(directory.join(format!("{name}.txt")), text)?;
    eprintln!("kept in {}", json.display());
    Ok(())
}
