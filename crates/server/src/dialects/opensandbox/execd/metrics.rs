//! `/metrics`: what a sandbox uses, from its own control group, at once.

use super::super::error::Failure;
use crate::app::App;
use crate::auth::{ANY_SCOPE, Caller};
use crate::error::ApiResult;
use crate::extract::PathArgs;
use crate::sandboxes::{CpuSeen, LiveSandbox};
use crate::sse;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use crownest_api::Timestamp;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

/// Between two samples of a stream.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Shortest time over which use of the processors is said anew.
const CPU_WINDOW_MIN: Duration = Duration::from_millis(200);
const MIB: f64 = 1024.0 * 1024.0;

#[derive(Debug, Serialize)]
struct Metrics {
    cpu_count: f64,
    cpu_used_pct: f64,
    mem_total_mib: f64,
    mem_used_mib: f64,
    timestamp: i64,
}

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/metrics", get(once))
        .route("/metrics/watch", get(watch))
}

async fn once(
    State(app): State<App>,
    caller: Caller<ANY_SCOPE>,
    PathArgs(id): PathArgs<String>,
) -> Result<Json<Metrics>, Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    Ok(Json(sample(&live).await?))
}

/// Each second one line, until the client, its credential or the sandbox is gone.
async fn watch(
    State(app): State<App>,
    caller: Caller<ANY_SCOPE>,
    PathArgs(id): PathArgs<String>,
) -> Result<Response, Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    let mut ticks = interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (asker, who) = (app.clone(), Arc::clone(&caller.principal));
    let lines = stream::unfold((app, live, ticks), |(app, live, mut ticks)| async move {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = live.host.closed() => return None,
            () = app.stopping.cancelled() => return None,
        }
        let sample = sample(&live).await.ok()?;
        let mut line = serde_json::to_vec(&sample).ok()?;
        line.push(b'\n');
        Some((Ok(Bytes::from(line)), (app, live, ticks)))
    });
    let over = async move { asker.revocation(&who).await };
    Ok(sse::response(lines.take_until(Box::pin(over))))
}

async fn sample(live: &Arc<LiveSandbox>) -> ApiResult<Metrics> {
    let stats = live.host.stats().await?;
    // A machine's own limits are not asked for: every sandbox has some.
    let cpu_count = f64::from(stats.cpu_max_millis) / 1e3;
    let born = live.charged_ms().unsigned_abs();
    Ok(Metrics {
        cpu_count,
        cpu_used_pct: cpu_used_pct(live, stats.cpu_us, cpu_count, Duration::from_millis(born)),
        mem_total_mib: stats.memory_max_bytes as f64 / MIB,
        mem_used_mib: stats.memory_bytes as f64 / MIB,
        timestamp: Timestamp::now().as_millis(),
    })
}

/// Use of its processors since somebody looked last; the first time, since it is there.
fn cpu_used_pct(live: &LiveSandbox, cpu_us: u64, cpu_count: f64, age: Duration) -> f64 {
    let mut seen = live.cpu_seen.lock().expect("no panic while it is held");
    let at = Instant::now();
    let (spent_us, over) = match *seen {
        Some(last) if at - last.at < CPU_WINDOW_MIN => return last.used_pct,
        Some(last) => (cpu_us.saturating_sub(last.cpu_us), at - last.at),
        None => (cpu_us, age),
    };
    let had_us = over.as_secs_f64() * 1e6 * cpu_count;
    let used_pct = if had_us > 0.0 {
        (spent_us as f64 / had_us * 100.0).clamp(0.0, 100.0)
    } else {
        0.0
    };
    *seen = Some(CpuSeen {
        at,
        cpu_us,
        used_pct,
    });
    used_pct
}
