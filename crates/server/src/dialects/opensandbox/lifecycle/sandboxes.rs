//! `GET` and `DELETE /sandboxes/{sandboxId}`

use super::record::{self, Sandbox};
use crate::app::App;
use crate::auth::{Caller, Principal};
use crate::error::{ApiError, ApiResult};
use crate::extract::PathArgs;
use crate::lifecycle::deed;
use crate::request::RequestContext;
use crate::sandboxes::{Found, LiveSandbox};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use crownest_api::sandbox::{DestroyedReason, SandboxStatus};
use crownest_api::{ErrorCode, Scope};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) fn router() -> Router<App> {
    Router::new().route("/sandboxes/{sandboxId}", get(read).delete(delete))
}

/// One sandbox, live or ended.
async fn read(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxRead as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<Sandbox>> {
    let sandbox = match app.find_sandbox(&caller, &id).await? {
        Found::Live(live) => {
            let row = live.row().clone();
            record::wire(&app, &row)
        }
        Found::Ended(row) => record::wire(&app, &row),
    };
    Ok(Json(sandbox))
}

/// Ends a sandbox and everything in it. Ending it again changes nothing.
async fn delete(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxKill as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<StatusCode> {
    if let Found::Live(live) = app.find_sandbox(&caller, &id).await? {
        let (worker, who) = (app.clone(), Arc::clone(&caller.principal));
        let request = caller.request.clone();
        app.finish_anyway(async move { kill(&worker, &who, &request, &live).await })
            .await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn kill(
    app: &App,
    who: &Principal,
    request: &RequestContext,
    live: &Arc<LiveSandbox>,
) -> ApiResult<()> {
    let (status, reason) = (SandboxStatus::Destroyed, DestroyedReason::UserKilled);
    app.end(live, status, reason).await;
    if !live.recorded.load(Ordering::Relaxed) {
        let message = "the sandbox has ended, which could not be recorded yet";
        return Err(ApiError::new(ErrorCode::Unavailable, message).retry_after(1_000));
    }
    let deed = deed("sandbox.kill", live, "ok");
    app.audit.by_key(who, request, deed, &json!({}));
    Ok(())
}
