//! The host's own counters as figures of a scrape.

use crate::host::Host;
use crate::metrics::Figure;

/// Reads them.
#[must_use]
pub(crate) fn read(host: &Host) -> Vec<Figure> {
    let m = host.metrics();
    let counter = |name, help, value| Figure {
        name,
        help,
        counter: true,
        value,
    };
    let gauge = |name, help, value| Figure {
        name,
        help,
        counter: false,
        value,
    };
    vec![
        gauge(
            "host_sandboxes_live",
            "Sandboxes handed out and not gone",
            m.live,
        ),
        gauge("host_runs_active", "Runs that are not over", m.runs_alive),
        gauge("pool_ready", "Prepared sandboxes", m.pool_size),
        counter("pool_hits", "Creates served from the pool", m.pool_hits),
        counter(
            "pool_misses",
            "Creates that found no prepared sandbox",
            m.pool_misses,
        ),
        counter(
            "pool_discarded",
            "Prepared sandboxes that died or grew old",
            m.pool_discarded,
        ),
        counter(
            "pool_refill_failures",
            "Prepared sandboxes that could not be made",
            m.pool_refill_failures,
        ),
        counter(
            "host_creates",
            "Sandboxes made, prepared ones included",
            m.creates,
        ),
        counter(
            "host_create_failures",
            "Sandboxes that could not be made",
            m.create_failures,
        ),
        counter("host_destroys", "Sandboxes destroyed", m.destroys),
        counter(
            "host_destroy_failures",
            "Destroys that were not confirmed",
            m.destroy_failures,
        ),
        counter(
            "host_inits_lost",
            "Sandboxes whose init ended by itself",
            m.inits_lost,
        ),
        counter(
            "host_protocol_errors",
            "Sandboxes ended for breaking the protocol",
            m.protocol_errors,
        ),
        counter(
            "host_reconnects",
            "Links to sandboxes that were made again",
            m.reconnects,
        ),
        counter(
            "host_events_dropped",
            "Malformed events of interpreters",
            m.events_dropped,
        ),
        counter(
            "host_runs_abandoned",
            "Runs whose client went away",
            m.runs_abandoned,
        ),
        counter(
            "host_runs_recovered",
            "Runs found after a restart",
            m.runs_recovered,
        ),
        counter("host_forks", "Interpreters forked from a zygote", m.forks),
    ]
}
