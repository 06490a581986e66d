//! Every language but Python: the first result of a sandbox, prepared and not, and the warm cell;
//! beside each the Jupyter kernel of that language that does best.

use super::{Bench, with_peer};
use crate::client::Client;
use crate::peers::Jupyter;
use crate::report::Line;
use crate::samples::Samples;
use crate::server::{Server, clipped};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The template with all of them.
pub(crate) const TEMPLATE: &str = "code-interpreter";
/// Warm cells for each sample of a first result.
const WARM_PER_FIRST: usize = 10;
/// Cells between the first and the warm ones, for us and for the peer: the first ones of a process run
/// code that no engine has compiled yet.
const WARMING: usize = 10;
/// Sandboxes between two starts of the peer, some of which take seconds.
const LIVES_PER_START: usize = 3;

/// A language, its smallest cell, what that says, and what is promised for it.
struct Language {
    word: &'static str,
    code: &'static str,
    /// On stdout, for a language without values.
    printed: bool,
    pool_ms: f64,
    cold_ms: f64,
    warm_ms: f64,
    /// Who does the same, and the cell as it wants it.
    peer: (&'static str, &'static str),
}

const LANGUAGES: [Language; 5] = [
    Language {
        word: "javascript",
        code: "1+1",
        printed: false,
        pool_ms: 15.0,
        cold_ms: 150.0,
        warm_ms: 1.5,
        peer: ("deno", "1+1"),
    },
    Language {
        word: "typescript",
        code: "(1 as number) + 1",
        printed: false,
        pool_ms: 15.0,
        cold_ms: 150.0,
        warm_ms: 1.5,
        peer: ("deno", "(1 as number) + 1"),
    },
    Language {
        word: "bash",
        code: "echo $((1+1))",
        printed: true,
        pool_ms: 10.0,
        cold_ms: 10.0,
        warm_ms: 1.5,
        peer: ("bash_kernel", "echo $((1+1))"),
    },
    Language {
        word: "java",
        code: "1+1",
        printed: false,
        pool_ms: 60.0,
        cold_ms: 400.0,
        warm_ms: 25.0,
        peer: ("java", "1+1"),
    },
    Language {
        word: "go",
        code: "1+1",
        printed: false,
        pool_ms: 150.0,
        cold_ms: 150.0,
        warm_ms: 110.0,
        peer: ("gonb", "%%\nfmt.Println(1+1)"),
    },
];

pub(super) async fn languages(bench: &mut Bench) -> Result<Vec<Line>> {
    let pooled = bench
        .languages
        .clone()
        .with_context(|| format!("template {TEMPLATE} is not built, or not here"))?;
    let cold = Arc::clone(&bench.cold);
    let samples = bench.scale.few * bench.scale.rounds / 2;
    let mut lines = Vec::new();
    for language in &LANGUAGES {
        let (kernel, code) = language.peer;
        let mut peer = bench.peers.jupyter(kernel, code, "2").await;
        let mut theirs = Theirs::default();
        let mut warm = Samples::default();
        for (server, name, target) in [
            (&pooled, "pool", language.pool_ms),
            (&cold, "cold", language.cold_ms),
        ] {
            let mut client = server.endpoint.connect().await?;
            let mut first = Samples::default();
            // The first one finds nothing in the machine's caches.
            life(server, &mut client, language, &mut Samples::default()).await?;
            for number in 0..samples {
                first.push_ms(life(server, &mut client, language, &mut warm).await?);
                if let Some(peer) = &mut peer {
                    theirs
                        .turn(peer, code, number % LIVES_PER_START == 0)
                        .await?;
                }
            }
            let title = format!("create → first {} result, {name}", language.word);
            let line = Line::new(&title, "ms", first).at_most(target, None);
            lines.push(with_peer(line, kernel, theirs.first.clone()));
        }
        let title = format!("    warm {} cell", language.word);
        let line = Line::new(&title, "ms", warm).at_most(language.warm_ms, None);
        let mut line = with_peer(line, kernel, theirs.warm);
        if let Some(peer) = peer {
            if peer.missed > 0 {
                line = line.note(format!("{} cells of {kernel} had no result", peer.missed));
            }
            peer.stop().await;
        }
        lines.push(line);
    }
    Ok(lines)
}

/// The peer's figures.
#[derive(Default)]
struct Theirs {
    first: Samples,
    warm: Samples,
}

impl Theirs {
    /// What it needs in between, so that both see the same machine.
    async fn turn(&mut self, peer: &mut Jupyter, code: &str, starts: bool) -> Result<()> {
        if starts {
            let start = json!({ "op": "start", "code": code, "says": "2" });
            peer.measure(&start, &mut self.first).await?;
        }
        let run = |n| json!({ "op": "run", "code": code, "says": "2", "n": n });
        peer.measure(&run(WARMING), &mut Samples::default()).await?;
        let run = run(WARM_PER_FIRST);
        peer.measure(&run, &mut self.warm).await
    }
}

/// One sandbox with one context, from its request to its first answer; then warm cells.
async fn life(
    server: &Server,
    client: &mut Client,
    language: &Language,
    warm: &mut Samples,
) -> Result<Duration> {
    server.settle(client).await?;
    let began = Instant::now();
    let request = json!({ "template": TEMPLATE });
    let (id, _) = server.create(client, request).await?;
    cell(client, &id, language).await?;
    let first = began.elapsed();
    for _ in 0..WARMING {
        cell(client, &id, language).await?;
    }
    for _ in 0..WARM_PER_FIRST {
        warm.push_ms(cell(client, &id, language).await?);
    }
    server.destroy(client, &id).await?;
    Ok(first)
}

async fn cell(client: &mut Client, sandbox: &str, language: &Language) -> Result<Duration> {
    let body = json!({ "code": language.code, "language": language.word });
    let path = format!("/v1/sandboxes/{sandbox}/code/runs");
    let answer = client.post(&path, &body).await?;
    let result: Value = answer.json()?["run"].take();
    let said = if language.printed {
        result["stdout"][0].as_str().map(str::trim_end)
    } else {
        result["outputs"][0]["value"].as_str()
    };
    if said != Some("2") {
        bail!("{} said {}", language.word, clipped(&result));
    }
    Ok(answer.took)
}
