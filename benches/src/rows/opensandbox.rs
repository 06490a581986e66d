//! OpenSandbox's dialect, through OpenSandbox's own Python client: what its users wait for.
//!
//! The clock is the client's, so its own work is in the figures: it is most of them.

use super::{Bench, languages};
use crate::peers;
use crate::report::Line;
use crate::samples::Samples;
use crate::server::Server;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const SCRIPT: &str = include_str!("../../peers/opensandbox_client.py");
const REQUIREMENTS: &str = include_str!("../../peers/opensandbox.txt");
/// Longest wait for one answer of the client.
const ANSWER_SECONDS_MAX: u64 = 300;

pub(super) async fn opensandbox(bench: &mut Bench) -> Result<Vec<Line>> {
    let server = bench
        .languages
        .clone()
        .with_context(|| format!("template {} is not built, or not here", languages::TEMPLATE))?;
    let python = peers::environment(&bench.clients.venv, REQUIREMENTS).await?;
    let scale = bench.scale;
    let mut lines = Vec::new();
    for kind in ["async", "sync"] {
        let start = |transport| {
            let who = [kind, transport];
            Client::start(&python, &bench.clients.dir, &server, who)
        };
        let (mut client, mut sharing) = (start("own").await?, start("shared").await?);
        let [mut first, mut shared, mut warm, mut command] = [(); 4].map(|()| Samples::default());
        // The client imports most of itself when it is used first.
        for op in ["first", "warm", "command"] {
            let request = json!({ "op": op, "n": scale.warmup });
            client.measure(&request, &mut Samples::default()).await?;
        }
        let request = json!({ "op": "first" });
        let ignored = &mut Samples::default();
        sharing.measure(&request, ignored).await?;
        let mut own = server.endpoint.connect().await?;
        for _ in 0..scale.rounds {
            for _ in 0..scale.few {
                for (client, samples) in [(&mut client, &mut first), (&mut sharing, &mut shared)] {
                    server.settle(&mut own).await?;
                    client.measure(&request, samples).await?;
                }
            }
            for (op, samples) in [("warm", &mut warm), ("command", &mut command)] {
                let request = json!({ "op": op, "n": scale.batch });
                client.measure(&request, samples).await?;
            }
        }
        client.stop().await;
        sharing.stop().await;
        let title = |what: &str| format!("OpenSandbox's {kind} client: {what}");
        lines.push(Line::new(&title("codes.run(\"1+1\")"), "ms", warm).at_most(5.0, None));
        lines.push(Line::new(&title("create → first result"), "ms", first).at_most(60.0, None));
        let title_shared = title("create → first result, one transport for all sandboxes");
        lines.push(Line::new(&title_shared, "ms", shared).at_most(60.0, None));
        lines.push(Line::new(&title("commands.run(\"true\")"), "ms", command).at_most(8.0, None));
    }
    Ok(lines)
}

/// The Python program that owns a client; see `peers/opensandbox_client.py`.
#[derive(Debug)]
struct Client {
    child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Client {
    async fn start(
        python: &Path,
        dir: &Path,
        server: &Server,
        [kind, transport]: [&str; 2],
    ) -> Result<Self> {
        let script = dir.join("opensandbox_client.py");
        std::fs::write(&script, SCRIPT)?;
        let mut child = Command::new(python)
            .arg(&script)
            .arg(format!("{}/opensandbox", server.endpoint.authority))
            .args([&server.endpoint.api_key, kind, transport])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It ends its sandbox when its stdin ends; Ctrl-C would come in between.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| python.display().to_string())?;
        let stdin = child.stdin.take().context("its stdin is a pipe")?;
        let stdout = child.stdout.take().context("its stdout is a pipe")?;
        Ok(Self {
            child,
            stdin,
            answers: BufReader::new(stdout).lines(),
        })
    }

    /// Asks for measurements; adds them to the samples.
    async fn measure(&mut self, request: &Value, samples: &mut Samples) -> Result<()> {
        self.stdin
            .write_all(format!("{request}\n").as_bytes())
            .await?;
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        let line = tokio::time::timeout(limit, self.answers.next_line())
            .await
            .context("no answer in time")??;
        let Some(line) = line else {
            bail!("OpenSandbox's client ended; it said why above");
        };
        let answer: Value = serde_json::from_str(&line).context("an answer that is not JSON")?;
        for value in answer["ms"]
            .as_array()
            .context("an answer without values")?
        {
            samples.push(value.as_f64().context("a number")?);
        }
        Ok(())
    }

    async fn stop(self) {
        let Self {
            mut child, stdin, ..
        } = self;
        drop(stdin);
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        // Killed when dropped, if it does not end; its sandbox ends by itself.
        let _ = tokio::time::timeout(limit, child.wait()).await;
    }
}
