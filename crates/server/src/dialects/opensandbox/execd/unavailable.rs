//! What this server does not have of execd, said clearly: 501 with a code of its own.

use super::super::error::Refusal;
use crate::app::App;
use crate::auth::{ANY_SCOPE, Caller};
use crate::error::ApiResult;
use crate::extract::PathArgs;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{any, get};
use axum::{Json, Router};
use serde_json::{Value, json};

const ISOLATED: &str = "isolated sessions inside of a sandbox; make another sandbox instead";

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/isolated/capabilities", get(capabilities))
        .route("/v1/isolated/{*rest}", any(isolated))
}

/// A refusal of what was not built.
pub(super) fn not_built(what: &str) -> Refusal {
    let message = format!("this server does not have {what}");
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "NOT_SUPPORTED", message)
}

async fn isolated() -> Refusal {
    not_built(ISOLATED)
}

/// Clients ask this first, to do without: it is an answer and no failure.
async fn capabilities(
    State(app): State<App>,
    caller: Caller<ANY_SCOPE>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<Value>> {
    app.live_sandbox(&caller, &id).await?;
    Ok(Json(json!({
        "available": false,
        "message": format!("this server does not have {ISOLATED}"),
        "setpriv_available": false,
        "userns_available": false,
        "commit_supported": false,
        "diff_supported": false,
    })))
}
