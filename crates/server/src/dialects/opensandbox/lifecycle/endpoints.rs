//! `GET /sandboxes/{sandboxId}/endpoints/{port}`: where clients find a port, and what they have to
//! show there.
//!
//! Every port is under this server's own address. An endpoint needs a token: in a header that the
//! answer names or, where an end is asked for, in the path, for what cannot send headers.

use crate::app::App;
use crate::auth::Caller;
use crate::dialects::opensandbox::access::{EGRESS_TOKEN, EXECD_TOKEN, PATH_TOKEN, SECURE_ACCESS};
use crate::dialects::opensandbox::{EGRESS_PORT, EXECD_PORT, PREFIX};
use crate::error::{ApiError, ApiResult};
use crate::extract::{PathArgs, QueryArgs};
use crate::request::Origin;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header;
use axum::routing::get;
use axum::{Json, Router};
use crownest_api::{Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) fn router() -> Router<App> {
    Router::new().route("/sandboxes/{sandboxId}/endpoints/{port}", get(endpoint))
}

#[derive(Debug, Serialize)]
struct Endpoint {
    endpoint: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'static str, String>,
}

#[derive(Debug, Deserialize)]
struct Query {
    #[serde(default)]
    use_server_proxy: bool,
    /// Seconds since 1970.
    expires: Option<String>,
}

async fn endpoint(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxRead as u8 }>,
    PathArgs((id, port)): PathArgs<(String, String)>,
    QueryArgs(query): QueryArgs<Query>,
    origin: Origin,
    headers: HeaderMap,
) -> ApiResult<Json<Endpoint>> {
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| ApiError::field("port", "port must be between 1 and 65535"))?;
    let expires_at = query.expires.as_deref().map(end_of).transpose()?;
    if query.use_server_proxy && expires_at.is_some() {
        let message = "expires cannot be combined with use_server_proxy";
        return Err(ApiError::field("expires", message));
    }
    let live = app.kept_sandbox(&caller, &id).await?;
    let authority = authority(&origin, &headers);
    let place = |sandbox: &str| format!("{authority}{PREFIX}/v1/sandboxes/{sandbox}/proxy/{port}");
    // execd and the egress API are asked by clients, which send headers.
    let ours = [EXECD_PORT, EGRESS_PORT].contains(&port);
    if let Some(end) = expires_at.filter(|_| !ours) {
        let token = app.port_token(&caller, &live, port, end).await?;
        return Ok(Json(Endpoint {
            endpoint: place(&format!("{id}{PATH_TOKEN}{token}")),
            headers: BTreeMap::new(),
        }));
    }
    let name = match port {
        EXECD_PORT => EXECD_TOKEN,
        EGRESS_PORT => EGRESS_TOKEN,
        _ => SECURE_ACCESS,
    };
    Ok(Json(Endpoint {
        endpoint: place(&id),
        headers: BTreeMap::from([(name, app.sandbox_token(&caller, &live).await?)]),
    }))
}

fn end_of(seconds: &str) -> ApiResult<Timestamp> {
    let refuse = || {
        ApiError::field(
            "expires",
            "expires must be a second in the future, since 1970",
        )
    };
    let millis = seconds
        .parse::<i64>()
        .ok()
        .and_then(|seconds| seconds.checked_mul(1_000))
        .ok_or_else(refuse)?;
    let end = Timestamp::from_millis(millis);
    if end <= Timestamp::now() {
        return Err(refuse());
    }
    Ok(end)
}

/// Host and port under which the client reaches this server.
fn authority(origin: &Origin, headers: &HeaderMap) -> String {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let of_origin = origin.0.split_once("://").map(|(_, authority)| authority);
    of_origin.or(host).unwrap_or("localhost").to_owned()
}
