//! What sandboxes cost while they do nothing, and whether many of them still answer.

use super::{Bench, ask_ipykernel, with_peer};
use crate::machine;
use crate::processes::{Processes, sandboxes_below};
use crate::report::Line;
use crate::samples::Samples;
use crate::server::{Server, evaluate};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections that fill the machine.
const FILLERS: usize = 4;
/// Memory of the machine in the promise about density.
const PROMISED_MEMORY_MIB: f64 = 24.0 * 1024.0;
/// What has to stay free for everything else in the extrapolation.
const RESERVE_MIB: f64 = 2048.0;

/// Proportional set size of everything that runs in an idle sandbox with pandas imported.
pub(super) async fn memory(bench: &mut Bench) -> Result<Vec<Line>> {
    let server = Arc::clone(&bench.cold);
    let pid = server
        .pid()
        .context("the processes of a server that ran already are not known")?;
    let count = bench.scale.memory_sandboxes;
    let before = sandboxes_below(pid)?;
    let sandboxes = fill(&server, &bench.cold_request, count).await?;
    let after = sandboxes_below(pid)?;
    let sizes = Sizes::of_new(&before, &after);
    ensure!(
        sizes.whole.len() == count,
        "{count} sandboxes were made, processes of {} were found",
        sizes.whole.len()
    );
    empty(&server, sandboxes.ids).await?;
    let mut ipykernel = Samples::default();
    ask_ipykernel(bench, json!({ "op": "memory", "n": 3 }), &mut ipykernel).await?;
    let line = Line::new("idle sandbox, pandas imported (PSS)", "MiB", sizes.whole)
        .at_most(5.0, None)
        .note(format!(
            "{count} at once, which share the zygote's pages; the interpreter {:.2} MiB, the rest is init",
            sizes.interpreter.p50(),
        ));
    let private = Line::new("    of that, its own and no other's", "MiB", sizes.private).note(
        format!("MemAvailable fell by {:.2} MiB each", sandboxes.mib_each),
    );
    Ok(vec![with_peer(line, "ipykernel", ipykernel), private])
}

/// Many sandboxes at once, each of which answers, and how fast one answers among them.
pub(super) async fn density(bench: &mut Bench) -> Result<Vec<Line>> {
    let server = Arc::clone(&bench.cold);
    let samples = bench.scale.rounds * bench.scale.batch;
    let alone = fill(&server, &bench.cold_request, 1).await?;
    let quiet = warm_among(&server, &alone.ids, samples).await?;
    empty(&server, alone.ids).await?;
    let count = bench.scale.density_sandboxes;
    let before = server.pid().map(sandboxes_below).transpose()?;
    let crowd = fill(&server, &bench.cold_request, count).await?;
    let after = server.pid().map(sandboxes_below).transpose()?;
    let busy = warm_among(&server, &crowd.ids, samples).await?;
    empty(&server, crowd.ids).await?;
    let mut fit = Samples::default();
    fit.push((PROMISED_MEMORY_MIB - RESERVE_MIB) / crowd.mib_each);
    let mut filled = Samples::default();
    filled.push(count as f64 / crowd.took.as_secs_f64());
    let title = format!("warm 1+1 among {count} live sandboxes");
    let mut multiple = Samples::default();
    multiple.push(busy.p50() / quiet.p50());
    let mut lines = vec![
        Line::new(&title, "ms", busy).peer("the same with one live sandbox", quiet),
        Line::new("    as a multiple of one alone", "x", multiple).at_most(1.5, None),
        Line {
            rate: true,
            ..Line::new("    made and answered once", "/s", filled)
        }
        .note(format!("on {FILLERS} connections")),
        Line::new("live Python sandboxes on 24 GiB", "", fit)
            .at_least(2_000.0)
            .note(format!(
                "extrapolated from {count}: {:.2} MiB of MemAvailable each, {RESERVE_MIB} MiB kept free",
                crowd.mib_each
            )),
    ];
    if let (Some(before), Some(after)) = (before, after) {
        let sizes = Sizes::of_new(&before, &after);
        lines.insert(3, Line::new("    idle, each (PSS)", "MiB", sizes.whole));
    }
    Ok(lines)
}

/// Live sandboxes and what they took.
#[derive(Debug)]
struct Crowd {
    ids: Vec<String>,
    took: Duration,
    /// Fall of MemAvailable per sandbox.
    mib_each: f64,
}

/// Makes sandboxes on several connections; each imports pandas and computes with it.
async fn fill(server: &Arc<Server>, request: &Value, count: usize) -> Result<Crowd> {
    let mut watcher = server.endpoint.connect().await?;
    server.settle(&mut watcher).await?;
    let before = machine::meminfo_mib("MemAvailable")?;
    let began = Instant::now();
    let workers: Vec<_> = (0..FILLERS.min(count))
        .map(|worker| {
            let share =
                count / FILLERS.min(count) + usize::from(worker < count % FILLERS.min(count));
            let (server, request) = (Arc::clone(server), request.clone());
            tokio::spawn(async move { fill_one_by_one(&server, &request, share).await })
        })
        .collect();
    let mut ids = Vec::new();
    for worker in workers {
        ids.extend(
            worker
                .await
                .context("a connection that makes sandboxes")??,
        );
    }
    let took = began.elapsed();
    let after = machine::meminfo_mib("MemAvailable")?;
    Ok(Crowd {
        mib_each: (before - after) / ids.len() as f64,
        ids,
        took,
    })
}

async fn fill_one_by_one(server: &Server, request: &Value, count: usize) -> Result<Vec<String>> {
    const COMPUTE: &str = "import pandas, matplotlib.pyplot\nint(pandas.Series([40, 2]).sum())";
    let mut client = server.endpoint.connect().await?;
    let mut ids = Vec::new();
    for _ in 0..count {
        let (id, _) = server.create(&mut client, request.clone()).await?;
        evaluate(&mut client, &id, COMPUTE, "42").await?;
        ids.push(id);
    }
    Ok(ids)
}

/// Asks one sandbox after the other, all of them in turn, on one connection.
async fn warm_among(server: &Server, ids: &[String], count: usize) -> Result<Samples> {
    let mut client = server.endpoint.connect().await?;
    let mut samples = Samples::default();
    for id in ids {
        evaluate(&mut client, id, "6*7", "42").await?;
    }
    for number in 0..count.max(ids.len()) {
        let id = &ids[number % ids.len()];
        samples.push_ms(evaluate(&mut client, id, "1+1", "2").await?);
    }
    Ok(samples)
}

async fn empty(server: &Server, ids: Vec<String>) -> Result<()> {
    let mut client = server.endpoint.connect().await?;
    for id in ids {
        server.destroy(&mut client, &id).await?;
    }
    server.settle(&mut client).await
}

/// Sums over the processes of each sandbox.
#[derive(Debug, Default)]
struct Sizes {
    whole: Samples,
    private: Samples,
    interpreter: Samples,
}

impl Sizes {
    /// Those of the sandboxes that were not there before.
    fn of_new(before: &Processes, after: &Processes) -> Self {
        let mut sizes = Self::default();
        let new = after
            .sandboxes
            .iter()
            .filter(|(range, _)| !before.sandboxes.contains_key(range));
        for (_, processes) in new {
            sizes
                .whole
                .push(processes.iter().map(|size| size.pss).sum());
            sizes
                .private
                .push(processes.iter().map(|size| size.private).sum());
            let largest = processes.iter().map(|size| size.pss).fold(0.0, f64::max);
            sizes.interpreter.push(largest);
        }
        sizes
    }
}
