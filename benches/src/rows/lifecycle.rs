//! Making and ending sandboxes.

use super::{Bench, Source, ask_ipykernel, with_peer};
use crate::client::Client;
use crate::report::Line;
use crate::samples::Samples;
use crate::server::{Metrics, Server, evaluate};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Creations are rarer than runs: each waits for the server to come to rest.
const CREATES_PER_BATCH: usize = 2;

/// `POST /v1/sandboxes` and `DELETE`, one after the other, on a server at rest.
pub(super) async fn create(bench: &mut Bench, source: Source) -> Result<Vec<Line>> {
    let (server, request) = bench.server(source);
    let mut client = server.endpoint.connect().await?;
    let (mut created, mut destroyed) = (Samples::default(), Samples::default());
    let mut containers: Vec<(&str, Samples)> = bench
        .peers
        .containers()
        .map(|program| (program.name, Samples::default()))
        .collect();
    for _ in 0..bench.scale.warmup {
        one_life(&server, &mut client, &request).await?;
    }
    for _ in 0..bench.scale.rounds {
        for _ in 0..bench.scale.batch / CREATES_PER_BATCH {
            let (birth, death) = one_life(&server, &mut client, &request).await?;
            created.push_ms(birth);
            destroyed.push_ms(death);
        }
        for (program, (_, samples)) in bench.peers.containers().zip(&mut containers) {
            program.measure(bench.scale.few * 2, samples).await?;
        }
    }
    let (title, line) = match source {
        Source::Pool => (
            "pool",
            Line::new("create, pool", "ms", created).at_most(2.0, 10.0),
        ),
        Source::Cold => (
            "cold",
            Line::new("create, cold", "ms", created).at_most(5.0, 20.0),
        ),
    };
    let line = containers
        .into_iter()
        .fold(line, |line, (name, samples)| with_peer(line, name, samples));
    let destroy = Line::new(&format!("destroy ({title})"), "ms", destroyed)
        .note("until the server answers; the processes are killed in the background");
    Ok(vec![line, destroy])
}

async fn one_life(
    server: &Server,
    client: &mut Client,
    request: &Value,
) -> Result<(Duration, Duration)> {
    server.settle(client).await?;
    let (id, birth) = server.create(client, request.clone()).await?;
    let death = server.destroy(client, &id).await?;
    Ok((birth, death))
}

/// From the request for a sandbox to the answer of its first cell, on one connection.
pub(super) async fn first_result(bench: &mut Bench, source: Source) -> Result<Vec<Line>> {
    let (server, request) = bench.server(source);
    let mut client = server.endpoint.connect().await?;
    let (mut total, mut first_run) = (Samples::default(), Samples::default());
    let mut ipykernel = Samples::default();
    for _ in 0..bench.scale.warmup {
        first_life(&server, &mut client, &request).await?;
    }
    for _ in 0..bench.scale.rounds {
        for _ in 0..bench.scale.batch / CREATES_PER_BATCH {
            let (all, run) = first_life(&server, &mut client, &request).await?;
            total.push_ms(all);
            first_run.push_ms(run);
        }
        for _ in 0..bench.scale.few.div_ceil(2) {
            ask_ipykernel(bench, json!({ "op": "start" }), &mut ipykernel).await?;
        }
    }
    let title = match source {
        Source::Pool => "create → first Python result, pool",
        Source::Cold => "create → first Python result, cold",
    };
    let line = Line::new(title, "ms", total);
    let line = match source {
        Source::Pool => line.at_most(4.0, 15.0),
        Source::Cold => line.at_most(15.0, 40.0),
    };
    let line = with_peer(line, "ipykernel, start → first result", ipykernel);
    let part = Line::new("    of that, the first run", "ms", first_run);
    Ok(vec![line, part])
}

async fn first_life(
    server: &Server,
    client: &mut Client,
    request: &Value,
) -> Result<(Duration, Duration)> {
    server.settle(client).await?;
    let began = Instant::now();
    let (id, _) = server.create(client, request.clone()).await?;
    let run = evaluate(client, &id, "1+1", "2").await?;
    let total = began.elapsed();
    server.destroy(client, &id).await?;
    Ok((total, run))
}

/// Creations and endings one after the other for some seconds, on one and on four connections.
pub(super) async fn sustained(bench: &mut Bench) -> Result<Vec<Line>> {
    let seconds = bench.scale.sustained_seconds;
    let mut lines = Vec::new();
    for connections in [1, 4] {
        let (server, request) = bench.server(Source::Cold);
        let mut rates = Samples::default();
        let mut latencies = Samples::default();
        let mut with_backlog = Samples::default();
        for _ in 0..bench.scale.few.div_ceil(2) {
            let burst = Burst::run(&server, &request, connections, seconds).await?;
            rates.push(burst.rate);
            with_backlog.push(burst.rate_with_backlog);
            burst
                .creates
                .iter()
                .for_each(|took| latencies.push_ms(*took));
        }
        let title = format!("create + destroy, {connections} connection(s)");
        lines.push(
            Line::new(&title, "/s", with_backlog)
                .at_least(300.0)
                .note(format!(
                    "{:.0}/s answered; the figure counts until the last sandbox is really gone",
                    rates.p50()
                ))
                .note(format!("bursts of {seconds} s, all sandboxes cold")),
        );
        lines.push(Line::new("    create, meanwhile", "ms", latencies));
    }
    Ok(lines)
}

/// What some connections did at once.
#[derive(Debug)]
struct Burst {
    rate: f64,
    rate_with_backlog: f64,
    creates: Vec<Duration>,
}

impl Burst {
    async fn run(
        server: &Arc<Server>,
        request: &Value,
        connections: usize,
        seconds: u64,
    ) -> Result<Self> {
        let mut watcher = server.endpoint.connect().await?;
        server.settle(&mut watcher).await?;
        let began = Instant::now();
        let until = began + Duration::from_secs(seconds);
        let workers: Vec<_> = (0..connections)
            .map(|_| {
                let (server, request) = (Arc::clone(server), request.clone());
                tokio::spawn(async move { lives(&server, &request, until).await })
            })
            .collect();
        let mut creates = Vec::new();
        for worker in workers {
            creates.extend(worker.await.context("a connection of the burst")??);
        }
        let answered = began.elapsed();
        server.settle(&mut watcher).await?;
        let gone = began.elapsed();
        let count = creates.len() as f64;
        // A sandbox that could not be removed would make the rate look good.
        let failures = Metrics::read(&mut watcher)
            .await?
            .of("host_destroy_failures_total");
        anyhow::ensure!(
            failures <= 0.0,
            "{failures} sandboxes could not be destroyed"
        );
        Ok(Self {
            rate: count / answered.as_secs_f64(),
            rate_with_backlog: count / gone.as_secs_f64(),
            creates,
        })
    }
}

async fn lives(server: &Server, request: &Value, until: Instant) -> Result<Vec<Duration>> {
    let mut client = server.endpoint.connect().await?;
    let mut creates = Vec::new();
    while Instant::now() < until {
        let (id, took) = server.create(&mut client, request.clone()).await?;
        creates.push(took);
        server.destroy(&mut client, &id).await?;
    }
    Ok(creates)
}
