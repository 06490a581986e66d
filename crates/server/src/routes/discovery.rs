//! What a program finds by itself that knows nothing but the address of this server.

use crate::app::App;
use crate::discovery;
use crate::error::ApiResult;
use crate::request::Origin;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::Value;

const MARKDOWN: &str = "text/markdown; charset=utf-8";

/// How agents get in, to be read by them.
#[utoipa::path(
    get, path = "/auth.md", operation_id = "getAuthMd", tag = "discovery",
    responses((status = 200, body = String, content_type = "text/markdown")), security(())
)]
pub(super) async fn auth_md(Origin(origin): Origin) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, MARKDOWN)],
        discovery::auth_md(&origin),
    )
}

/// What this server does, to be read by language models.
#[utoipa::path(
    get, path = "/llms.txt", operation_id = "getLlmsTxt", tag = "discovery",
    responses((status = 200, body = String, content_type = "text/markdown")), security(())
)]
pub(super) async fn llms_txt(Origin(origin): Origin) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, MARKDOWN)],
        discovery::llms_txt(&origin),
    )
}

/// Where everything is (RFC 9727).
#[utoipa::path(
    get, path = "/.well-known/api-catalog", operation_id = "getApiCatalog", tag = "discovery",
    responses((status = 200, body = Object, content_type = "application/linkset+json")),
    security(())
)]
pub(super) async fn api_catalog(Origin(origin): Origin) -> impl IntoResponse {
    let catalog = discovery::api_catalog(&origin).to_string();
    (
        [(header::CONTENT_TYPE, "application/linkset+json")],
        catalog,
    )
}

/// Who guards this server (RFC 9728).
#[utoipa::path(
    get, path = "/.well-known/oauth-protected-resource",
    operation_id = "getProtectedResource", tag = "discovery",
    responses((status = 200, body = Object)), security(())
)]
pub(super) async fn protected_resource(Origin(origin): Origin) -> Json<Value> {
    Json(discovery::protected_resource(&origin))
}

/// How tokens are had (RFC 8414).
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server",
    operation_id = "getAuthorizationServer", tag = "discovery",
    responses((status = 200, body = Object)), security(())
)]
pub(super) async fn authorization_server(Origin(origin): Origin) -> Json<Value> {
    Json(discovery::authorization_server(&origin))
}

/// The public keys that access tokens of agents are signed with (RFC 7517).
#[utoipa::path(
    get, path = "/.well-known/jwks.json", operation_id = "getJwks", tag = "discovery",
    responses(
        (status = 200, body = Object),
        (status = 503, body = crownest_api::ErrorEnvelope)
    ),
    security(())
)]
pub(super) async fn jwks(State(app): State<App>) -> ApiResult<Json<Value>> {
    app.jwks().await.map(Json)
}
