//! The table that people read and the JSON that later runs are compared with.

use crate::machine;
use crate::samples::Samples;
use serde_json::{Value, json};
use std::fmt::Write;

/// What a row promises. Latencies and sizes at most, rates at least.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtMost { p50: f64, p99: Option<f64> },
    AtLeast(f64),
}

/// Somebody else's figure for the same work, from the same minutes.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) samples: Samples,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    pub(crate) samples: Samples,
    pub(crate) target: Option<Target>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) notes: Vec<String>,
    /// Larger is better.
    pub(crate) rate: bool,
}

impl Line {
    pub(crate) fn new(title: &str, unit: &'static str, samples: Samples) -> Self {
        Self {
            title: title.to_owned(),
            unit,
            samples,
            target: None,
            peers: Vec::new(),
            notes: Vec::new(),
            rate: false,
        }
    }

    pub(crate) fn at_most(mut self, p50: f64, p99: impl Into<Option<f64>>) -> Self {
        let p99 = p99.into();
        self.target = Some(Target::AtMost { p50, p99 });
        self
    }

    pub(crate) fn at_least(mut self, value: f64) -> Self {
        self.rate = true;
        self.target = Some(Target::AtLeast(value));
        self
    }

    pub(crate) fn peer(mut self, name: &str, samples: Samples) -> Self {
        self.peers.push(Peer {
            name: name.to_owned(),
            samples,
        });
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// A rate's slow side is its low side.
    fn tail(&self, samples: &Samples, share: f64) -> f64 {
        samples.percentile(if self.rate { 1.0 - share } else { share })
    }

    pub(crate) fn met(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::AtMost { p50, p99 } => {
                self.samples.p50() <= p50 && p99.is_none_or(|max| self.samples.p99() <= max)
            }
            Target::AtLeast(min) => self.samples.p50() >= min,
        })
    }

    fn target_text(&self) -> String {
        match self.target {
            None => String::new(),
            Some(Target::AtMost {
                p50,
                p99: Some(max),
            }) => format!("≤ {p50} / {max}"),
            Some(Target::AtMost { p50, p99: None }) => format!("≤ {p50}"),
            Some(Target::AtLeast(min)) => format!("≥ {min}"),
        }
    }

    /// How many times better than the peer; below 1 is worse.
    fn ratio(&self, peer: &Peer) -> f64 {
        let (own, other) = (self.samples.p50(), peer.samples.p50());
        if self.rate { own / other } else { other / own }
    }
}

/// One row of `--only`: its lines, or why there are none.
#[derive(Debug)]
pub(crate) struct RowReport {
    pub(crate) row: &'static str,
    pub(crate) outcome: Result<Vec<Line>, String>,
    pub(crate) load_before: f64,
    pub(crate) load_after: f64,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) facts: Value,
    pub(crate) load_before: [f64; 3],
    pub(crate) load_after: [f64; 3],
    pub(crate) rows: Vec<RowReport>,
    /// Peers that could not be measured, and why.
    pub(crate) skipped: Vec<String>,
}

impl Report {
    pub(crate) fn failed(&self) -> bool {
        self.rows.iter().any(|row| row.outcome.is_err())
    }

    pub(crate) fn missed(&self) -> Vec<&str> {
        self.lines()
            .filter(|line| line.met() == Some(false))
            .map(|line| line.title.as_str())
            .collect()
    }

    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.rows
            .iter()
            .flat_map(|row| row.outcome.iter().flatten())
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let fact = |name: &str| {
            let value = &self.facts[name];
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let head = format!(
            "{}  commit {}  kernel {}  {} cpus ({})  {} MiB\nbinary {}\nload average before {:?}, after {:?}\n\n",
            fact("date"),
            fact("commit"),
            fact("kernel"),
            fact("cpus"),
            fact("cpu"),
            fact("memoryMiB"),
            fact("binary"),
            self.load_before,
            self.load_after
        );
        out.push_str(&head);
        push_columns(
            &mut out,
            ["", "n", "p50", "p95", "p99", "unit", "target", ""],
        );
        for row in &self.rows {
            match &row.outcome {
                Ok(lines) => lines.iter().for_each(|line| push_line(&mut out, line)),
                Err(error) => {
                    writeln!(out, "{:<38} FAILED: {error}", row.row).expect("a String");
                }
            }
        }
        for skipped in &self.skipped {
            writeln!(out, "SKIP: {skipped}").expect("a String");
        }
        out.push_str(
            "\nPercentiles of all samples by nearest rank: of fewer than 100 samples, p99 is the worst one.\n",
        );
        let busiest = self
            .rows
            .iter()
            .map(|row| row.load_before)
            .fold(self.load_before[0], f64::max);
        if busiest > machine::cpus() as f64 / 2.0 {
            writeln!(
                out,
                "\nNOT A QUIET MACHINE: load average up to {busiest:.1} on {} cpus. Compare ratios to peers, not milliseconds.",
                machine::cpus()
            )
            .expect("a String");
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "machine": self.facts,
            "loadBefore": self.load_before,
            "loadAfter": self.load_after,
            "skipped": self.skipped,
            "rows": self.rows.iter().map(row_json).collect::<Vec<_>>(),
        })
    }
}

fn row_json(row: &RowReport) -> Value {
    let lines = match &row.outcome {
        Ok(lines) => lines.iter().map(line_json).collect(),
        Err(error) => {
            return json!({ "row": row.row, "error": error, "loadBefore": row.load_before, "loadAfter": row.load_after });
        }
    };
    json!({ "row": row.row, "lines": Value::Array(lines), "loadBefore": row.load_before, "loadAfter": row.load_after })
}

fn line_json(line: &Line) -> Value {
    let peers: Vec<Value> = line
        .peers
        .iter()
        .map(|peer| {
            json!({
                "name": peer.name,
                "values": peer.samples.json(),
                "timesBetter": line.ratio(peer),
            })
        })
        .collect();
    let target = line.target.map(|target| match target {
        Target::AtMost { p50, p99 } => json!({ "p50Max": p50, "p99Max": p99 }),
        Target::AtLeast(min) => json!({ "min": min }),
    });
    json!({
        "title": line.title,
        "unit": line.unit,
        "values": line.samples.json(),
        "target": target,
        "met": line.met(),
        "peers": peers,
        "notes": line.notes,
    })
}

fn push_columns(out: &mut String, columns: [&str; 8]) {
    let [title, n, p50, p95, p99, unit, target, verdict] = columns;
    let line = format!(
        "{title:<38} {n:>5} {p50:>10} {p95:>10} {p99:>10} {unit:<8} {target:<14} {verdict}"
    );
    out.push_str(line.trim_end());
    out.push('\n');
}

fn push_line(out: &mut String, line: &Line) {
    let verdict = match line.met() {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    };
    let cells =
        |samples: &Samples| [0.5, 0.95, 0.99].map(|share| number(line.tail(samples, share)));
    let [p50, p95, p99] = cells(&line.samples);
    push_columns(
        out,
        [
            &line.title,
            &line.samples.len().to_string(),
            &p50,
            &p95,
            &p99,
            line.unit,
            &line.target_text(),
            verdict,
        ],
    );
    for peer in &line.peers {
        let [p50, p95, p99] = cells(&peer.samples);
        let ratio = line.ratio(peer);
        let ratio = if ratio >= 1.0 {
            format!("{} times better than it", number(ratio))
        } else {
            format!("{} times worse than it", number(1.0 / ratio))
        };
        push_columns(
            out,
            [
                &format!("    peer: {}", peer.name),
                &peer.samples.len().to_string(),
                &p50,
                &p95,
                &p99,
                line.unit,
                "",
                &ratio,
            ],
        );
    }
    for note in &line.notes {
        writeln!(out, "    {note}").expect("a String");
    }
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        let mut samples = Samples::default();
        values.iter().for_each(|value| samples.push(*value));
        samples
    }

    #[test]
    fn both_percentiles_have_to_be_met() {
        let line = |values: &[f64]| Line::new("x", "ms", samples(values)).at_most(2.0, 10.0);
        assert_eq!(line(&[1.0, 2.0, 9.0]).met(), Some(true));
        assert_eq!(line(&[1.0, 2.0, 11.0]).met(), Some(false));
        assert_eq!(line(&[3.0, 3.0, 3.0]).met(), Some(false));
        assert_eq!(Line::new("x", "ms", samples(&[1.0])).met(), None);
        assert_eq!(
            Line::new("x", "/s", samples(&[299.0]))
                .at_least(300.0)
                .met(),
            Some(false)
        );
    }

    #[test]
    fn a_rates_bad_side_is_its_low_one() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        let line = Line::new("x", "/s", samples(&values)).at_least(1.0);
        assert!(line.tail(&line.samples, 0.99) < 3.0);
        let slow = line.peer("slow", samples(&[10.0]));
        assert_eq!(slow.ratio(&slow.peers[0]), 5.0);
        let time = Line::new("x", "ms", samples(&[2.0])).peer("slow", samples(&[10.0]));
        assert_eq!(time.ratio(&time.peers[0]), 5.0);
    }
}
