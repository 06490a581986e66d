//! Routes of the original that this server does not have: they say so.

use super::request::not_built;
use crate::app::App;
use crate::auth::{ANY_SCOPE, Caller};
use crate::dialects::opensandbox::error::Refusal;
use axum::Router;
use axum::routing::any;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/templates", any(templates))
        .route("/templates/{*rest}", any(templates))
        .route("/pools", any(pools))
        .route("/pools/{*rest}", any(pools))
}

/// Templates of this server are built by its operator.
async fn templates(_caller: Caller<ANY_SCOPE>) -> Refusal {
    not_built("making templates over this API")
}

/// Prepared sandboxes are the server's own affair: its pool is configured.
async fn pools(_caller: Caller<ANY_SCOPE>) -> Refusal {
    not_built("managing pools over this API")
}
