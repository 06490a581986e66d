//! Runs that speak while they run: many lines, and a loop that has to be stopped.

use super::{Bench, Effort, ask_ipykernel, warm_sandbox, with_peer};
use crate::client::{Client, Events, parse_events};
use crate::report::Line;
use crate::samples::Samples;
use crate::server::{clipped, command, evaluate, run};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LINES: usize = 100_000;
/// With its line feed.
const LINE_BYTES: usize = 80;
/// The lines are numbered, so that one that is lost, doubled or out of order is noticed.
const PRINT: &str = "for i in range(100000): print(f'{i:079d}')";

/// 100,000 lines from a cell, as server-sent events.
pub(super) async fn lines(bench: &mut Bench) -> Result<Vec<Line>> {
    let (mut client, sandbox) = warm_sandbox(bench).await?;
    let (mut own, mut plain, mut delivered) =
        (Samples::default(), Samples::default(), Samples::default());
    let server = Arc::clone(&bench.cold);
    let mut effort = Effort::default();
    for round in 0..bench.scale.rounds + 1 {
        effort.begin(&server)?;
        let streamed = one_stream(&mut client, &sandbox).await?;
        effort.end(&server, 1)?;
        let (record, _) = command(&mut client, &sandbox, PLAIN_PRINT).await?;
        let said = record["stderr"].as_str().unwrap_or_default();
        let seconds: f64 = said.trim().parse().context("plain Python's time")?;
        // The first round is the warm-up of both.
        if round > 0 {
            own.push(LINES as f64 / streamed.took.as_secs_f64());
            plain.push(LINES as f64 / seconds);
            delivered.push(streamed.lines as f64);
        }
    }
    bench.cold.destroy(&mut client, &sandbox).await?;
    let line = Line::new("100,000 lines through SSE", "lines/s", own)
        .at_least(500_000.0)
        .peer("plain Python into a pipe", plain);
    let line = effort.note(line);
    let mut delivered = Line::new("    lines delivered, each run", "lines", delivered);
    delivered = delivered.at_least(LINES as f64);
    Ok(vec![line, delivered])
}

/// The same without anybody in between: what print itself takes.
const PLAIN_PRINT: &str = "python3 -c \"
import sys, time
t = time.perf_counter()
for i in range(100000): print(f'{i:079d}')
sys.stdout.flush()
print(time.perf_counter() - t, file=sys.stderr)
\" | cat > /dev/null";

#[derive(Debug)]
struct Streamed {
    took: Duration,
    /// Lines that came, whole and in order.
    lines: usize,
}

/// The clock runs until the end of the answer; counting is done after it.
async fn one_stream(client: &mut Client, sandbox: &str) -> Result<Streamed> {
    let mut events = stream(client, sandbox, PRINT).await?;
    let mut body = Vec::new();
    while let Some(data) = events.next().await? {
        body.push(data);
    }
    let took = events.began.elapsed();
    let events = parse_events(std::str::from_utf8(&body.concat())?)?;
    let last = events.last().context("a stream without events")?;
    ensure!(
        last["data"]["outcome"] == "completed",
        "the run ended with {}",
        clipped(last)
    );
    let text: String = events
        .iter()
        .filter(|event| event["type"] == "stdout")
        .filter_map(|event| event["data"].as_str())
        .collect();
    Ok(Streamed {
        took,
        lines: in_order(&text),
    })
}

/// How many lines carry the number that is due; a gap, a double or a torn line counts as none.
fn in_order(text: &str) -> usize {
    let whole = text.as_bytes().chunks(LINE_BYTES).enumerate();
    whole
        .take_while(|(number, line)| *line == format!("{number:079}\n").as_bytes())
        .count()
}

async fn stream(client: &mut Client, sandbox: &str, code: &str) -> Result<Events> {
    let path = format!("/v1/sandboxes/{sandbox}/code/runs/stream");
    let body = json!({ "code": code, "language": "python" });
    client.stream(&path, &body).await
}

/// From the request for an interrupt to the end of the run that it interrupts, as the client of
/// that run sees it.
pub(super) async fn interrupt(bench: &mut Bench) -> Result<Vec<Line>> {
    let (mut client, sandbox) = warm_sandbox(bench).await?;
    let mut second = bench.cold.endpoint.connect().await?;
    let (mut own, mut ipykernel) = (Samples::default(), Samples::default());
    let (result, _) = run(&mut client, &sandbox, "1+1", None).await?;
    let context = result["contextId"]
        .as_str()
        .context("a context has an id")?
        .to_owned();
    let path = format!("/v1/sandboxes/{sandbox}/code/contexts/{context}/interrupt");
    let count = bench.scale.few * 3;
    for round in 0..bench.scale.rounds + 1 {
        for number in 0..count {
            let mark = round * count + number;
            let code = format!("mark = {mark}\nprint('go')\nwhile True: pass");
            let mut events = stream(&mut client, &sandbox, &code).await?;
            events.until("go").await?;
            let began = Instant::now();
            let nothing = Value::Object(serde_json::Map::new());
            let (answer, end) =
                tokio::join!(second.post(&path, &nothing), events.until("complete"));
            let took = began.elapsed();
            ensure!(
                answer?.json()?["interrupted"] == true,
                "nothing was interrupted"
            );
            let end = end?;
            ensure!(
                end.contains("\"outcome\":\"interrupted\""),
                "the run ended with {end}"
            );
            while events.next().await?.is_some() {}
            evaluate(&mut client, &sandbox, "mark", &mark.to_string()).await?;
            if round > 0 {
                own.push_ms(took);
            }
        }
        let mut samples = Samples::default();
        ask_ipykernel(
            bench,
            json!({ "op": "interrupt", "n": count }),
            &mut samples,
        )
        .await?;
        if round > 0 {
            ipykernel.extend(&samples);
        }
    }
    bench.cold.destroy(&mut client, &sandbox).await?;
    let line = Line::new("interrupt of a busy loop", "ms", own)
        .at_most(2.0, 20.0)
        .note("after each, a variable of the interrupted cell was still there");
    Ok(vec![with_peer(line, "ipykernel", ipykernel)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_line_is_noticed() {
        let line = |number: usize| format!("{number:079}\n");
        let all: String = (0..10).map(line).collect();
        assert_eq!(in_order(&all), 10);
        let lost: String = (0..10).filter(|number| *number != 4).map(line).collect();
        assert_eq!(in_order(&lost), 4);
        assert_eq!(in_order(&all[..all.len() - 1]), 9);
    }
}
