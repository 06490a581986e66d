//! What the server counts, in Prometheus' text format.
//!
//! Labels have few values each: routes are patterns, never paths; nothing that a client chooses
//! becomes a label.

use crate::egress::Counts;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Content type of the text format.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds in seconds: from a cached run to a blocking command of minutes.
const SECONDS: [f64; 15] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.5, 2.0, 10.0, 60.0,
    600.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    pub method: &'static str,
    pub route: String,
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Route {
    pub route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Code {
    pub code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Source {
    /// `pool` or `cold`.
    pub source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    pub reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    pub outcome: &'static str,
}

type Latencies<L> = Family<L, Histogram, fn() -> Histogram>;

fn latencies<L: Clone + std::hash::Hash + Eq>() -> Latencies<L> {
    Family::new_with_constructor(histogram as fn() -> Histogram)
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

/// Everything that is counted, and the registry that prints it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub requests: Family<Request, Counter>,
    pub request_seconds: Latencies<Route>,
    pub requests_active: Gauge,
    pub errors: Family<Code, Counter>,
    pub panics: Counter,
    pub sandboxes_live: Gauge,
    pub create_seconds: Latencies<Source>,
    pub sandboxes_ended: Family<Reason, Counter>,
    pub run_seconds: Histogram,
    pub runs: Family<Outcome, Counter>,
    pub command_seconds: Histogram,
    pub commands: Family<Outcome, Counter>,
    pub audit_dropped: Counter,
    /// Of sandboxes that have ended; the live ones are added at a scrape.
    pub egress_ended: EgressTotals,
}

/// What went through egress proxies.
#[derive(Debug, Default)]
pub struct EgressTotals {
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
}

impl EgressTotals {
    /// Adds the counts of one proxy.
    pub fn add(&self, counts: &Counts) {
        self.bytes_up.fetch_add(counts.bytes_up, Ordering::Relaxed);
        self.bytes_down
            .fetch_add(counts.bytes_down, Ordering::Relaxed);
        self.connections
            .fetch_add(counts.connections, Ordering::Relaxed);
        self.refused.fetch_add(counts.refused, Ordering::Relaxed);
    }

    /// As figures of a scrape, `live` included.
    pub fn figures(&self, live: &Self) -> [Figure; 4] {
        let sum = |ended: &AtomicU64, live: &AtomicU64| {
            ended.load(Ordering::Relaxed) + live.load(Ordering::Relaxed)
        };
        let counter = |name, help, value| Figure {
            name,
            help,
            counter: true,
            value,
        };
        [
            counter(
                "egress_up_bytes",
                "Bytes sent by sandboxes",
                sum(&self.bytes_up, &live.bytes_up),
            ),
            counter(
                "egress_down_bytes",
                "Bytes sent to sandboxes",
                sum(&self.bytes_down, &live.bytes_down),
            ),
            counter(
                "egress_connections",
                "Connections to the world",
                sum(&self.connections, &live.connections),
            ),
            counter(
                "egress_refused",
                "Connections refused by the rules",
                sum(&self.refused, &live.refused),
            ),
        ]
    }
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("crownest"),
            requests: Family::default(),
            request_seconds: latencies(),
            requests_active: Gauge::default(),
            errors: Family::default(),
            panics: Counter::default(),
            sandboxes_live: Gauge::default(),
            create_seconds: latencies(),
            sandboxes_ended: Family::default(),
            run_seconds: histogram(),
            runs: Family::default(),
            command_seconds: histogram(),
            commands: Family::default(),
            audit_dropped: Counter::default(),
            egress_ended: EgressTotals::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("http_requests", "Requests answered", self.requests.clone());
        r.register(
            "http_request_seconds",
            "Time to the head of the answer",
            self.request_seconds.clone(),
        );
        r.register(
            "http_requests_active",
            "Requests being handled",
            self.requests_active.clone(),
        );
        r.register("errors", "Error answers by code", self.errors.clone());
        r.register("panics", "Handlers that panicked", self.panics.clone());
        r.register(
            "sandboxes_live",
            "Live sandboxes of clients",
            self.sandboxes_live.clone(),
        );
        r.register(
            "sandbox_create_seconds",
            "Time to a usable sandbox",
            self.create_seconds.clone(),
        );
        r.register(
            "sandboxes_ended",
            "Sandboxes that ended",
            self.sandboxes_ended.clone(),
        );
        r.register(
            "code_run_seconds",
            "Code runs, waiting included",
            self.run_seconds.clone(),
        );
        r.register("code_runs", "Code runs by outcome", self.runs.clone());
        r.register("command_seconds", "Commands", self.command_seconds.clone());
        r.register("commands", "Commands by outcome", self.commands.clone());
        r.register(
            "audit_dropped",
            "Audit events lost because the store was too slow",
            self.audit_dropped.clone(),
        );
    }

    /// The text of a scrape, with figures that are kept elsewhere.
    #[must_use]
    pub fn encode(&self, others: &[Figure]) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        // The exposition ends with a mark; what is added goes before it.
        let end = text.strip_suffix("# EOF\n").map_or(text.len(), str::len);
        text.truncate(end);
        for figure in others {
            figure.push(&mut text);
        }
        text.push_str("# EOF\n");
        text
    }
}

/// A number that is read when it is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Without the prefix.
    pub name: &'static str,
    pub help: &'static str,
    /// Only ever grows.
    pub counter: bool,
    pub value: u64,
}

impl Figure {
    fn push(&self, out: &mut String) {
        let Self {
            name, help, value, ..
        } = self;
        let (kind, suffix) = if self.counter {
            ("counter", "_total")
        } else {
            ("gauge", "")
        };
        let _ = write!(
            out,
            "# HELP crownest_{name} {help}.\n# TYPE crownest_{name} {kind}\n\
             crownest_{name}{suffix} {value}\n"
        );
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_printed() {
        let metrics = Metrics::new();
        let request = Request {
            method: "GET",
            route: "/v1/sandboxes".into(),
            status: 200,
        };
        metrics.requests.get_or_create(&request).inc();
        metrics.run_seconds.observe(0.0004);
        let figure = Figure {
            name: "pool_hits",
            help: "Creates from the pool",
            counter: true,
            value: 7,
        };
        let text = metrics.encode(&[figure]);
        assert!(
            text.ends_with("crownest_pool_hits_total 7\n# EOF\n"),
            "{text}"
        );
        let line =
            "crownest_http_requests_total{method=\"GET\",route=\"/v1/sandboxes\",status=\"200\"} 1";
        assert!(text.contains(line), "{text}");
        assert!(
            text.contains("crownest_code_run_seconds_bucket{le=\"0.0005\"} 1"),
            "{text}"
        );
    }
}
