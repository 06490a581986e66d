//! Commands that print much: how fast it gets onto the disk, and from there to a client.

use super::{Bench, warm_sandbox};
use crate::client::Client;
use crate::report::Line;
use crate::samples::Samples;
use crate::server::clipped;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What one command prints; the log keeps all of it.
const PRINTED_BYTES: u64 = 200_000_000;
/// As text, in lines of 80 bytes.
const PRINT: &str = "yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678 \
     | head -c 200000000";
const END_SECONDS_MAX: u64 = 120;
const LOOK: Duration = Duration::from_millis(20);

/// A command's output into its log, as the command itself is held up by it, and out of it as a
/// stream of events.
pub(super) async fn log(bench: &mut Bench) -> Result<Vec<Line>> {
    let (mut client, sandbox) = warm_sandbox(bench).await?;
    let (mut written, mut streamed) = (Samples::default(), Samples::default());
    for round in 0..bench.scale.rounds + 1 {
        let id = begin(&mut client, &sandbox).await?;
        let record = ended(&mut client, &id).await?;
        let seconds = record["durationMs"].as_f64().context("a duration")? / 1e3;
        let answer = client.get(&format!("/v1/commands/{id}/stream")).await?;
        ensure!(
            answer.body.len() as u64 > PRINTED_BYTES,
            "the stream is not whole"
        );
        // The first round is the warm-up of both.
        if round > 0 {
            let megabytes = PRINTED_BYTES as f64 / 1e6;
            written.push(megabytes / seconds);
            streamed.push(megabytes / answer.took.as_secs_f64());
        }
    }
    bench.cold.destroy(&mut client, &sandbox).await?;
    Ok(vec![
        Line::new("command log, written", "MB/s", written).at_least(100.0),
        Line::new("command log, streamed", "MB/s", streamed).at_least(100.0),
    ])
}

async fn begin(client: &mut Client, sandbox: &str) -> Result<String> {
    let path = format!("/v1/sandboxes/{sandbox}/commands");
    let body = json!({ "command": PRINT, "background": true });
    let answer = client.post(&path, &body).await?.json()?;
    let id = answer["command"]["id"].as_str().context("a command's id")?;
    Ok(id.to_owned())
}

async fn ended(client: &mut Client, id: &str) -> Result<Value> {
    let began = Instant::now();
    loop {
        let mut answer = client.get(&format!("/v1/commands/{id}")).await?.json()?;
        let record = answer["command"].take();
        if record["status"] != "running" {
            ensure!(record["exitCode"] == 0, "it failed: {}", clipped(&record));
            ensure!(record["logOmittedBytes"].is_null(), "its log is not whole");
            return Ok(record);
        }
        if began.elapsed() > Duration::from_secs(END_SECONDS_MAX) {
            bail!("a command did not end within {END_SECONDS_MAX} s");
        }
        tokio::time::sleep(LOOK).await;
    }
}
