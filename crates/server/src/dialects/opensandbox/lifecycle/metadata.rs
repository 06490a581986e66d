//! `PATCH /sandboxes/{sandboxId}/metadata`

use super::labels::{self, Patch};
use super::record::{self, Sandbox};
use crate::app::App;
use crate::auth::Caller;
use crate::dialects::opensandbox::error::Failure;
use crate::error::ApiError;
use crate::extract::{JsonBody, PathArgs};
use crate::lifecycle::deed;
use axum::extract::State;
use axum::routing::patch;
use axum::{Json, Router};
use crownest_api::Scope;
use serde_json::json;

pub(super) fn router() -> Router<App> {
    Router::new().route("/sandboxes/{sandboxId}/metadata", patch(change))
}

/// Changes labels by a merge patch.
async fn change(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxExtend as u8 }>,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<Patch>,
) -> Result<Json<Sandbox>, Failure> {
    let live = app.kept_sandbox(&caller, &id).await?;
    // One after the other, so that none writes over what it has not read.
    let turn = live.changing.lock().await;
    let before = live.row().metadata.clone();
    let after = labels::patched(before.clone(), body.value)?;
    if after != before {
        let stored = app
            .store
            .set_sandbox_metadata(&live.org_id, &live.id, &after)
            .await
            .map_err(ApiError::from)?;
        if !stored {
            return Err(ApiError::destroyed().into());
        }
        live.row().metadata = after;
        let deed = deed("sandbox.metadata", &live, "ok");
        app.audit.by_key(&caller, &caller.request, deed, &json!({}));
    }
    drop(turn);
    let row = live.row().clone();
    Ok(Json(record::wire(&app, &row)))
}
