//! Is the server there, can it work, and what has it counted.

use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::{host_metrics, metrics};
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use crownest_api::ErrorCode;
use serde::Serialize;
use utoipa::ToSchema;

/// Answer of the two probes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    status: &'static str,
}

const OK: Health = Health { status: "ok" };

/// Liveness: the process answers.
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "health",
    responses((status = 200, body = Health)), security(())
)]
pub(super) async fn healthz() -> Json<Health> {
    Json(OK)
}

/// Readiness: the store answers and the server is not stopping.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readyz", tag = "health",
    responses((status = 200, body = Health), (status = 503, body = crownest_api::ErrorEnvelope)),
    security(())
)]
pub(super) async fn readyz(State(app): State<App>) -> ApiResult<Json<Health>> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::new(
            ErrorCode::Unavailable,
            "the server is stopping",
        ));
    }
    app.store.nodes().await.map_err(|error| {
        let unready = ApiError::new(ErrorCode::Unavailable, "the store does not answer");
        ApiError {
            cause: Some(error.to_string()),
            ..unready
        }
    })?;
    Ok(Json(OK))
}

/// `/metrics`, where the configuration has it.
pub(super) fn metrics_router() -> Router<App> {
    Router::new().route("/metrics", get(scrape))
}

async fn scrape(State(app): State<App>) -> impl IntoResponse {
    let text = app.metrics.encode(&host_metrics::read(&app));
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}
