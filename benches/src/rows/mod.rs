//! What is measured. One function per row; each alternates between the server and its peers, so
//! that both see the same machine.

mod density;
pub(crate) mod languages;
mod lifecycle;
mod load;
mod logs;
mod opensandbox;
mod runs;
mod stream;
mod transfers;

use crate::client::Client;
use crate::peers::Peers;
use crate::processes::processor_time;
use crate::report::Line;
use crate::samples::Samples;
use crate::server::Server;
use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Names of rows, as `--only` takes them; in the order in which they are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    CreatePool,
    CreateCold,
    FirstResultPool,
    FirstResultCold,
    Languages,
    Opensandbox,
    Warm,
    Plot,
    Command,
    CommandLog,
    Transfers,
    Stream,
    Interrupt,
    Sustained,
    Memory,
    Density,
    /// Only when it is asked for: it takes ten minutes.
    Load,
}

impl Row {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CreatePool => "create-pool",
            Self::CreateCold => "create-cold",
            Self::FirstResultPool => "first-result-pool",
            Self::FirstResultCold => "first-result-cold",
            Self::Languages => "languages",
            Self::Opensandbox => "opensandbox",
            Self::Warm => "warm",
            Self::Plot => "plot",
            Self::Command => "command",
            Self::CommandLog => "command-log",
            Self::Transfers => "transfers",
            Self::Stream => "stream",
            Self::Interrupt => "interrupt",
            Self::Sustained => "sustained",
            Self::Memory => "memory",
            Self::Density => "density",
            Self::Load => "load",
        }
    }
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Turns between the server and its peers.
    pub(crate) rounds: usize,
    /// Samples of a cheap thing in one turn.
    pub(crate) batch: usize,
    /// Samples of an expensive thing (a plot, a stream, a kernel's start) in one turn.
    pub(crate) few: usize,
    /// Samples thrown away before the first one that counts.
    pub(crate) warmup: usize,
    pub(crate) sustained_seconds: u64,
    pub(crate) memory_sandboxes: usize,
    pub(crate) density_sandboxes: usize,
    pub(crate) load_seconds: u64,
}

impl Scale {
    pub(crate) const USUAL: Self = Self {
        rounds: 6,
        batch: 50,
        few: 4,
        warmup: 20,
        sustained_seconds: 5,
        memory_sandboxes: 50,
        density_sandboxes: 200,
        load_seconds: 600,
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 2,
        batch: 15,
        few: 2,
        warmup: 5,
        sustained_seconds: 2,
        memory_sandboxes: 10,
        density_sandboxes: 20,
        load_seconds: 20,
    };
}

/// Everything that rows need.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Keeps sandboxes ready.
    pub(crate) pooled: Arc<Server>,
    /// Makes every sandbox when it is asked for.
    pub(crate) cold: Arc<Server>,
    /// What a request to `cold` says so that no pool can serve it.
    pub(crate) cold_request: Value,
    /// Keeps a sandbox with every language ready; only for the rows that need it.
    pub(crate) languages: Option<Arc<Server>>,
    pub(crate) peers: Peers,
    pub(crate) clients: Clients,
    pub(crate) scale: Scale,
}

/// Where somebody else's client of ours is installed, and where its program is written.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) venv: PathBuf,
    pub(crate) dir: PathBuf,
}

impl Bench {
    pub(crate) async fn measure(&mut self, row: Row) -> Result<Vec<Line>> {
        match row {
            Row::CreatePool => lifecycle::create(self, Source::Pool).await,
            Row::CreateCold => lifecycle::create(self, Source::Cold).await,
            Row::FirstResultPool => lifecycle::first_result(self, Source::Pool).await,
            Row::FirstResultCold => lifecycle::first_result(self, Source::Cold).await,
            Row::Languages => languages::languages(self).await,
            Row::Opensandbox => opensandbox::opensandbox(self).await,
            Row::Warm => runs::warm(self).await,
            Row::Plot => runs::plot(self).await,
            Row::Command => runs::command(self).await,
            Row::CommandLog => logs::log(self).await,
            Row::Transfers => transfers::transfers(self).await,
            Row::Stream => stream::lines(self).await,
            Row::Interrupt => stream::interrupt(self).await,
            Row::Sustained => lifecycle::sustained(self).await,
            Row::Memory => density::memory(self).await,
            Row::Density => density::density(self).await,
            Row::Load => load::load(self).await,
        }
    }

    fn server(&self, source: Source) -> (Arc<Server>, Value) {
        match source {
            Source::Pool => (Arc::clone(&self.pooled), json!({})),
            Source::Cold => (Arc::clone(&self.cold), self.cold_request.clone()),
        }
    }
}

/// Where a sandbox comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Pool,
    Cold,
}

/// A sandbox of the cold server whose Python context has answered `warmup` times.
async fn warm_sandbox(bench: &Bench) -> Result<(Client, String)> {
    let mut client = bench.cold.endpoint.connect().await?;
    let request = bench.cold_request.clone();
    let (sandbox, _) = bench.cold.create(&mut client, request).await?;
    for _ in 0..bench.scale.warmup.max(1) {
        crate::server::evaluate(&mut client, &sandbox, "1+1", "2").await?;
    }
    Ok((client, sandbox))
}

/// Processor time of a server's processes over a number of operations.
#[derive(Debug, Default)]
struct Effort {
    spent: Duration,
    count: usize,
    before: Option<Duration>,
}

impl Effort {
    /// Nothing is known of a server that runs elsewhere, or already.
    fn begin(&mut self, server: &Server) -> Result<()> {
        self.before = server.pid().map(processor_time).transpose()?;
        Ok(())
    }

    fn end(&mut self, server: &Server, count: usize) -> Result<()> {
        if let (Some(pid), Some(before)) = (server.pid(), self.before.take()) {
            self.spent += processor_time(pid)?.saturating_sub(before);
            self.count += count;
        }
        Ok(())
    }

    /// As a note of a line, when it is known.
    fn note(&self, line: Line) -> Line {
        if self.count == 0 {
            return line;
        }
        let each = self.spent.as_secs_f64() * 1e3 / self.count as f64;
        line.note(format!(
            "{each:.3} ms of processor time each, server to interpreter"
        ))
    }
}

/// Asks the ipykernel peer, when there is one.
async fn ask_ipykernel(bench: &mut Bench, request: Value, samples: &mut Samples) -> Result<()> {
    match &mut bench.peers.ipykernel {
        Some(peer) => peer.measure(&request, samples).await,
        None => Ok(()),
    }
}

/// Adds a peer's samples to a line, if there are any.
fn with_peer(line: Line, name: &str, samples: Samples) -> Line {
    if samples.len() == 0 {
        return line;
    }
    line.peer(name, samples)
}
