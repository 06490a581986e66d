//! `POST /sandboxes/{sandboxId}/pause` and `…/resume`: everything in it stops and goes on, its
//! memory kept.

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::PathArgs;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use crownest_api::Scope;

type Changer = Caller<{ Scope::SandboxExtend as u8 }>;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/sandboxes/{sandboxId}/pause", post(pause))
        .route("/sandboxes/{sandboxId}/resume", post(resume))
}

/// It is paused when this answers; clients ask until they see that.
async fn pause(
    State(app): State<App>,
    caller: Changer,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<StatusCode> {
    let live = app.kept_sandbox(&caller, &id).await?;
    app.pause_sandbox(&caller, &caller.request, &live).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn resume(
    State(app): State<App>,
    caller: Changer,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<StatusCode> {
    let live = app.kept_sandbox(&caller, &id).await?;
    app.resume_sandbox(&caller, &caller.request, &live).await?;
    Ok(StatusCode::ACCEPTED)
}
