//! `/ping`: whether a sandbox can be used.

use crate::app::App;
use crate::auth::{ANY_SCOPE, Caller};
use crate::error::ApiResult;
use crate::extract::PathArgs;
use axum::Router;
use axum::extract::State;
use axum::routing::get;

pub(super) fn router() -> Router<App> {
    Router::new().route("/ping", get(ping))
}

/// Empty: clients look at the status alone.
async fn ping(
    State(app): State<App>,
    caller: Caller<ANY_SCOPE>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<()> {
    app.live_sandbox(&caller, &id).await?;
    Ok(())
}
