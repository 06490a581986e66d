//! Many clients at once, each with a sandbox of its own and a pause between two requests, doing a
//! little of everything: what an installation sees on a busy day.

use super::Bench;
use crate::client::Client;
use crate::processes::resident_mib;
use crate::report::Line;
use crate::samples::Samples;
use crate::server::{Server, command, evaluate};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CLIENTS: usize = 200;
/// A client's pause is anything up to twice this: people and models think.
const PAUSE_MEAN_MS: u64 = 500;
/// Port of the server in the sandbox that previews show.
const PORT: u16 = 8000;
const SERVE: &str = "import http.server, threading\n\
     _s = http.server.ThreadingHTTPServer(('127.0.0.1', 8000), http.server.SimpleHTTPRequestHandler)\n\
     threading.Thread(target=_s.serve_forever, daemon=True).start()";

/// What one client does, and how often in a hundred requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Run,
    Command,
    File,
    Preview,
    Replace,
}

const MIX: [(Deed, u64, &str); 5] = [
    (Deed::Run, 70, "warm 1+1"),
    (Deed::Command, 10, "command true"),
    (Deed::File, 10, "file written and read"),
    (Deed::Preview, 6, "page through a preview"),
    (Deed::Replace, 4, "destroy, create, first result"),
];

/// How often the memory of the server is looked at: growth that goes on is a leak, growth that
/// ends is not.
const MEMORY_LOOKS: u32 = 4;

/// What all clients did together.
#[derive(Debug, Default)]
struct Tally {
    took: BTreeMap<Deed, Samples>,
    /// Limits that the documentation names, said with 429, without ids.
    refused: BTreeMap<String, usize>,
    /// Everything else that did not succeed.
    wrong: BTreeMap<String, usize>,
}

pub(super) async fn load(bench: &mut Bench) -> Result<Vec<Line>> {
    let server = Arc::clone(&bench.pooled);
    let until = Instant::now() + Duration::from_secs(bench.scale.load_seconds);
    let mut watcher = server.endpoint.connect().await?;
    server.settle(&mut watcher).await?;
    let mut memory = vec![resident(&server)?];
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { client(&server, number as u64, until).await })
        })
        .collect();
    let between = Duration::from_secs(bench.scale.load_seconds) / MEMORY_LOOKS;
    for _ in 1..MEMORY_LOOKS {
        tokio::time::sleep(between).await;
        memory.push(resident(&server)?);
    }
    let mut all = Tally::default();
    for client in clients {
        all.add(client.await.context("a client of the load")??);
    }
    server.settle(&mut watcher).await?;
    memory.push(resident(&server)?);
    let memory: Vec<f64> = memory.into_iter().flatten().collect();
    Ok(all.lines(bench.scale.load_seconds, &memory))
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (deed, samples) in other.took {
            self.took.entry(deed).or_default().extend(&samples);
        }
        for (what, count) in other.refused {
            *self.refused.entry(what).or_default() += count;
        }
        for (what, count) in other.wrong {
            *self.wrong.entry(what).or_default() += count;
        }
    }

    fn count_error(&mut self, error: &anyhow::Error) {
        let said = without_ids(error);
        let kind = if said.contains("429 Too Many Requests") {
            &mut self.refused
        } else {
            &mut self.wrong
        };
        *kind.entry(said).or_default() += 1;
    }

    fn lines(mut self, seconds: u64, memory: &[f64]) -> Vec<Line> {
        let total: usize = self.took.values().map(Samples::len).sum();
        let wrong: usize = self.wrong.values().sum();
        let mut lines = Vec::new();
        for (deed, _, title) in MIX {
            let samples = self.took.remove(&deed).unwrap_or_default();
            let line = Line::new(&format!("load: {title}"), "ms", samples);
            lines.push(if deed == Deed::Run {
                line.at_most(50.0, 50.0).note(format!(
                    "{CLIENTS} clients for {seconds} s, {:.0} requests/s, pauses of {PAUSE_MEAN_MS} ms on average",
                    total as f64 / seconds as f64
                ))
            } else {
                line
            });
        }
        let mut failures = Samples::default();
        failures.push(wrong as f64);
        let mut line = Line::new("load: requests that failed", "", failures).at_most(0.0, None);
        for (what, count) in &self.wrong {
            line = line.note(format!("{count} x {what}"));
        }
        for (what, count) in &self.refused {
            line = line.note(format!("{count} refused at a documented limit: {what}"));
        }
        if !memory.is_empty() {
            let looks: Vec<String> = memory.iter().map(|mib| format!("{mib:.0}")).collect();
            line = line.note(format!(
                "memory of the server {} MiB, from before the load to after it",
                looks.join(", ")
            ));
        }
        lines.push(line);
        lines
    }
}

fn resident(server: &Server) -> Result<Option<f64>> {
    server.pid().map(resident_mib).transpose()
}

async fn client(server: &Arc<Server>, number: u64, until: Instant) -> Result<Tally> {
    let mut connection = server.endpoint.connect().await?;
    let mut dice = Dice(number + 1);
    let mut tally = Tally::default();
    // They do not all come in the same moment.
    tokio::time::sleep(dice.pause()).await;
    let mut home = Home::new(server, &mut connection).await?;
    while Instant::now() < until {
        tokio::time::sleep(dice.pause()).await;
        let deed = dice.deed();
        let began = Instant::now();
        let done = match deed {
            Deed::Run => evaluate(&mut connection, &home.sandbox, "1+1", "2")
                .await
                .map(drop),
            Deed::Command => command(&mut connection, &home.sandbox, "true")
                .await
                .map(drop),
            Deed::File => file(&mut connection, &home.sandbox).await,
            Deed::Preview => home.page(&mut connection).await,
            Deed::Replace => home.replace(server, &mut connection).await,
        };
        match done {
            Ok(()) => tally.took.entry(deed).or_default().push_ms(began.elapsed()),
            Err(error) => {
                tally.count_error(&error);
                // The connection may be the reason.
                connection = server.endpoint.connect().await?;
            }
        }
    }
    server.destroy(&mut connection, &home.sandbox).await?;
    Ok(tally)
}

/// A client's sandbox, and the preview of its web server once there is one.
#[derive(Debug)]
struct Home {
    sandbox: String,
    preview: Option<(String, Client)>,
}

impl Home {
    async fn new(server: &Arc<Server>, connection: &mut Client) -> Result<Self> {
        let (sandbox, _) = server.create(connection, json!({})).await?;
        evaluate(connection, &sandbox, "1+1", "2").await?;
        Ok(Self {
            sandbox,
            preview: None,
        })
    }

    async fn replace(&mut self, server: &Arc<Server>, connection: &mut Client) -> Result<()> {
        server.destroy(connection, &self.sandbox).await?;
        *self = Self::new(server, connection).await?;
        Ok(())
    }

    async fn page(&mut self, connection: &mut Client) -> Result<()> {
        if self.preview.is_none() {
            crate::server::run(connection, &self.sandbox, SERVE, None).await?;
            let path = format!("/v1/sandboxes/{}/previews", self.sandbox);
            let answer = connection.post(&path, &json!({ "port": PORT })).await?;
            let made: Value = answer.json()?;
            let url = made["preview"]["url"].as_str().context("a preview's url")?;
            let host = url.trim_start_matches("http://").trim_end_matches('/');
            self.preview = Some((host.to_owned(), connection.again(host).await?));
        }
        let (_, client) = self.preview.as_mut().context("it was made just now")?;
        client.get("/").await.map(drop)
    }
}

async fn file(connection: &mut Client, sandbox: &str) -> Result<()> {
    let path = format!("/v1/sandboxes/{sandbox}/files");
    let body = json!({ "path": "load.txt", "content": "x".repeat(4_096) });
    connection
        .send(hyper::Method::PUT, &path, body.to_string(), None)
        .await?;
    let read = connection
        .get(&format!("{path}/read?path=load.txt"))
        .await?
        .json()?;
    let length = read["content"].as_str().map_or(0, str::len);
    anyhow::ensure!(length == 4_096, "a file of {length} bytes came back");
    Ok(())
}

/// The message of an error, in which every id is the same.
fn without_ids(error: &anyhow::Error) -> String {
    const CHARS_MAX: usize = 160;
    let words: Vec<String> = format!("{error:#}")
        .split(['/', '"', ' '])
        .filter(|word| !word.contains('_') || word.len() < 24)
        .map(str::to_owned)
        .collect();
    words.join(" ").chars().take(CHARS_MAX).collect()
}

/// Enough chance for a mix, and the same one in every run: a linear congruence (Knuth, MMIX).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn pause(&mut self) -> Duration {
        Duration::from_millis(self.below(2 * PAUSE_MEAN_MS))
    }

    fn deed(&mut self) -> Deed {
        let mut point = self.below(MIX.iter().map(|(_, share, _)| share).sum());
        for (deed, share, _) in MIX {
            if point < share {
                return deed;
            }
            point -= share;
        }
        Deed::Run
    }
}
