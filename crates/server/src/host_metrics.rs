//! Figures that are kept elsewhere, read for a scrape: the host's counters and the egress of live
//! sandboxes.

use crate::app::App;
use crate::metrics::{EgressTotals, Figure};

/// Reads them.
pub(crate) fn read(app: &App) -> Vec<Figure> {
    let live = EgressTotals::default();
    for sandbox in app.sandboxes.all() {
        if let Some(counts) = sandbox.host.egress_counters() {
            live.add(&counts);
        }
    }
    let mut figures = gauges(app);
    figures.extend(counters(app));
    figures.extend(app.metrics.egress_ended.figures(&live));
    figures
}

fn gauges(app: &App) -> Vec<Figure> {
    let m = app.host.metrics();
    let rows = [
        (
            "host_sandboxes_live",
            "Sandboxes handed out and not gone",
            m.live,
        ),
        ("host_runs_active", "Runs that are not over", m.runs_alive),
        ("pool_ready", "Prepared sandboxes", m.pool_size),
        (
            "pool_complete",
            "Prepared sandboxes with every driver",
            m.pool_complete,
        ),
    ];
    rows.map(|(name, help, value)| Figure {
        name,
        help,
        counter: false,
        value,
    })
    .to_vec()
}

fn counters(app: &App) -> Vec<Figure> {
    let m = app.host.metrics();
    let rows = [
        (
            "spares_started",
            "Drivers started before they were asked for",
            m.spares_started,
        ),
        (
            "spares_claimed",
            "Those of them that a context got",
            m.spares_claimed,
        ),
        ("pool_hits", "Creates served from the pool", m.pool_hits),
        (
            "pool_misses",
            "Creates with no prepared sandbox",
            m.pool_misses,
        ),
        (
            "pool_discarded",
            "Prepared ones died or grown old",
            m.pool_discarded,
        ),
        (
            "pool_refill_failures",
            "Prepared ones not made",
            m.pool_refill_failures,
        ),
        (
            "host_creates",
            "Sandboxes made, prepared ones included",
            m.creates,
        ),
        (
            "host_create_failures",
            "Sandboxes not made",
            m.create_failures,
        ),
        ("host_destroys", "Sandboxes destroyed", m.destroys),
        (
            "host_destroy_failures",
            "Destroys not confirmed",
            m.destroy_failures,
        ),
        (
            "host_inits_lost",
            "Sandboxes whose init ended itself",
            m.inits_lost,
        ),
        (
            "host_protocol_errors",
            "Sandboxes ended for lying",
            m.protocol_errors,
        ),
        ("host_reconnects", "Links made again", m.reconnects),
        (
            "host_events_dropped",
            "Malformed events of interpreters",
            m.events_dropped,
        ),
        (
            "host_runs_abandoned",
            "Runs whose client went away",
            m.runs_abandoned,
        ),
        (
            "host_runs_recovered",
            "Runs found after a restart",
            m.runs_recovered,
        ),
        ("host_forks", "Interpreters forked from a zygote", m.forks),
    ];
    rows.map(|(name, help, value)| Figure {
        name,
        help,
        counter: true,
        value,
    })
    .to_vec()
}
