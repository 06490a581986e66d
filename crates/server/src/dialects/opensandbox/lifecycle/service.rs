//! What clients and load balancers ask about the service itself.

use crate::app::App;
use crate::auth::{ANY_SCOPE, Caller};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/health", get(health))
        .route("/version", get(version))
        .route("/metrics/events", post(event))
}

/// The server answers. Whether it can make sandboxes, `/readyz` says.
async fn health() -> Json<Value> {
    Json(json!({ "status": "healthy" }))
}

async fn version() -> Json<Value> {
    Json(json!({ "name": "crownest", "version": env!("CARGO_PKG_VERSION") }))
}

/// How long a client found a creation to take. It is taken and not kept: this server measures
/// creations itself, and nothing that a client says of them is needed.
async fn event(_caller: Caller<ANY_SCOPE>) -> StatusCode {
    StatusCode::NO_CONTENT
}
