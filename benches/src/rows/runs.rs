//! Work in a sandbox that is there already: cells and commands.

use super::{Bench, Effort, ask_ipykernel, warm_sandbox, with_peer};
use crate::report::Line;
use crate::samples::Samples;
use crate::server::{check_value, clipped, command as run_command, evaluate, run};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a data analyst's cell does; the same text goes to plain Python in [`plain_loop`].
const PLOT_DATA: &str = "df = pd.DataFrame({'a': np.arange(100.0), 'b': np.arange(100) ** 2})";
const PLOT_DRAW: &str = "plt.plot(df['a'], df['b']); plt.title('bench')";
const PLOT_IMPORTS: &str = "import pandas as pd, numpy as np, matplotlib.pyplot as plt";

/// `1+1` on the blocking route without and with an idempotency key, and `print`.
pub(super) async fn warm(bench: &mut Bench) -> Result<Vec<Line>> {
    let (mut client, sandbox) = warm_sandbox(bench).await?;
    let [
        mut bare,
        mut keyed,
        mut printed,
        mut peer_bare,
        mut peer_printed,
    ] = std::array::from_fn(|_| Samples::default());
    let batch = bench.scale.batch;
    let server = Arc::clone(&bench.cold);
    let [mut bare_effort, mut keyed_effort] = std::array::from_fn(|_| Effort::default());
    for round in 0..bench.scale.rounds {
        bare_effort.begin(&server)?;
        for _ in 0..batch {
            bare.push_ms(evaluate(&mut client, &sandbox, "1+1", "2").await?);
        }
        bare_effort.end(&server, batch)?;
        keyed_effort.begin(&server)?;
        for number in 0..batch {
            let key = format!("bench-{}-{round}-{number}", std::process::id());
            let (result, took) = run(&mut client, &sandbox, "1+1", Some(&key)).await?;
            check_value(&result, "2")?;
            keyed.push_ms(took);
        }
        keyed_effort.end(&server, batch)?;
        for _ in 0..batch {
            let (result, took) = run(&mut client, &sandbox, "print('hi')", None).await?;
            ensure!(
                result["stdout"][0] == "hi\n",
                "print said {}",
                clipped(&result)
            );
            printed.push_ms(took);
        }
        let request = json!({ "op": "run", "code": "1+1", "n": batch });
        ask_ipykernel(bench, request, &mut peer_bare).await?;
        let request = json!({ "op": "run", "code": "print('hi')", "n": batch });
        ask_ipykernel(bench, request, &mut peer_printed).await?;
    }
    bench.cold.destroy(&mut client, &sandbox).await?;
    let bare = bare_effort.note(Line::new("warm 1+1", "ms", bare).at_most(0.5, 2.0));
    let printed = Line::new("warm print('hi')", "ms", printed);
    Ok(vec![
        with_peer(bare, "ipykernel", peer_bare),
        keyed_effort.note(Line::new("warm 1+1, Idempotency-Key", "ms", keyed).at_most(0.5, 2.0)),
        with_peer(printed, "ipykernel", peer_printed),
    ])
}

/// A table and a picture, against plain Python doing the same in the same sandbox.
pub(super) async fn plot(bench: &mut Bench) -> Result<Vec<Line>> {
    let (mut client, sandbox) = warm_sandbox(bench).await?;
    let cell =
        format!("{PLOT_IMPORTS}\n{PLOT_DATA}\nprint(df.describe())\n{PLOT_DRAW}\nplt.show()");
    let (mut own, mut plain) = (Samples::default(), Samples::default());
    let plots = bench.scale.few * 3;
    for round in 0..bench.scale.rounds + 1 {
        let (mut these, mut those) = (Samples::default(), Samples::default());
        for _ in 0..plots {
            let (result, took) = run(&mut client, &sandbox, &cell, None).await?;
            ensure!(
                has_picture(&result),
                "the cell drew nothing: {}",
                clipped(&result)
            );
            these.push_ms(took);
        }
        let (record, _) = run_command(&mut client, &sandbox, &plain_loop(plots)).await?;
        for time in record["stdout"]
            .as_str()
            .unwrap_or_default()
            .split_whitespace()
        {
            those.push(time.parse().context("plain Python's times")?);
        }
        // The first round is the warm-up of both.
        if round > 0 {
            own.extend(&these);
            plain.extend(&those);
        }
    }
    bench.cold.destroy(&mut client, &sandbox).await?;
    let mut ratio = Samples::default();
    ratio.push(own.p50() / plain.p50());
    let line = Line::new("pandas describe + PNG", "ms", own);
    Ok(vec![
        line.peer("plain Python, same sandbox", plain),
        Line::new("    as a multiple of plain Python", "x", ratio)
            .at_most(1.1, None)
            .note(
                "the median here, with HTTP and the picture in the answer, over the median there",
            ),
    ])
}

/// A PNG, as base64.
fn has_picture(result: &Value) -> bool {
    let outputs = result["outputs"].as_array().into_iter().flatten();
    outputs
        .filter(|output| output["format"] == "png")
        .any(|output| {
            output["value"]
                .as_str()
                .is_some_and(|value| value.starts_with("iVBOR"))
        })
}

/// One process that does it again and again and prints its times in milliseconds; the first three
/// are its warm-up.
fn plain_loop(count: usize) -> String {
    let program = format!(
        "import io, sys, time\n{PLOT_IMPORTS}\nimport matplotlib\nmatplotlib.use('Agg')\n\
         times = []\n\
         for _ in range({count} + 3):\n    \
             t = time.perf_counter()\n    \
             {PLOT_DATA}\n    \
             print(df.describe(), file=io.StringIO())\n    \
             {PLOT_DRAW}\n    \
             plt.savefig(io.BytesIO(), format='png', bbox_inches='tight')\n    \
             plt.close('all')\n    \
             times.append((time.perf_counter() - t) * 1e3)\n\
         print(*times[3:])\n"
    );
    format!("python3 - <<'END'\n{program}END\n")
}

/// `true`, from the request to the recorded exit.
pub(super) async fn command(bench: &mut Bench) -> Result<Vec<Line>> {
    let (mut client, sandbox) = warm_sandbox(bench).await?;
    let (mut own, mut shell) = (Samples::default(), Samples::default());
    for _ in 0..bench.scale.warmup {
        run_command(&mut client, &sandbox, "true").await?;
    }
    for _ in 0..bench.scale.rounds {
        for _ in 0..bench.scale.batch {
            own.push_ms(run_command(&mut client, &sandbox, "true").await?.1);
        }
        if let Some(program) = &bench.peers.shell {
            program.measure(bench.scale.batch / 2, &mut shell).await?;
        }
    }
    bench.cold.destroy(&mut client, &sandbox).await?;
    let line = Line::new("command true", "ms", own).at_most(4.0, 15.0);
    let name = bench
        .peers
        .shell
        .as_ref()
        .map_or("", |program| program.name);
    Ok(vec![with_peer(line, name, shell)])
}
