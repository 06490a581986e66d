//! A sandbox's own services, under `/sandboxes/{sandboxId}/proxy/{port}/` and, as execd has them,
//! under `/proxy/{port}/` of its port: HTTP and WebSocket.
//!
//! Does not own the way into the sandbox and back ([`PortVisit`]).

use super::access::{CREDENTIALS, PATH_TOKEN};
use super::error::{Failure, no_route};
use super::{EGRESS_PORT, EXECD_PORT};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::extract::PathArgs;
use crate::previews::PortVisit;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::response::Response;
use axum::routing::{MethodRouter, any};
use crownest_api::{ErrorCode, Scope};
use serde::Deserialize;
use std::sync::Arc;

/// Says where in its own network a client is; it is nobody else's business.
const CLIENT_ADDRESS: &str = "open-sandbox-client-ip";
/// Parts of a path before what the sandbox sees: "", sandboxes, id, proxy, port.
const PARTS_BEFORE: usize = 5;
/// The same below execd: "", proxy, port.
const PARTS_BEFORE_IN_EXECD: usize = 3;

type Visitor = Caller<{ Scope::PreviewRead as u8 }>;

pub(super) fn router() -> Router<App> {
    at("/sandboxes/{sandboxId}/proxy/{port}", any(visit))
}

/// Routes below execd. The port has a name of its own: a token in a path is for the route above.
pub(super) fn execd_router() -> Router<App> {
    at("/proxy/{portInside}", any(visit_in_execd))
}

/// A port and everything below it.
fn at(port: &str, visit: MethodRouter<App>) -> Router<App> {
    Router::new()
        .route(port, visit.clone())
        .route(&format!("{port}/"), visit.clone())
        .route(&format!("{port}/{{*path}}"), visit)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    sandbox_id: String,
    port: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlaceInside {
    sandbox_id: String,
    port_inside: String,
}

async fn visit(
    State(app): State<App>,
    caller: Visitor,
    PathArgs(place): PathArgs<Place>,
    request: Request,
) -> Result<Response, Failure> {
    pass_on(&app, &caller, place, PARTS_BEFORE, request).await
}

async fn visit_in_execd(
    State(app): State<App>,
    caller: Visitor,
    PathArgs(place): PathArgs<PlaceInside>,
    request: Request,
) -> Result<Response, Failure> {
    let place = Place {
        sandbox_id: place.sandbox_id,
        port: place.port_inside,
    };
    pass_on(&app, &caller, place, PARTS_BEFORE_IN_EXECD, request).await
}

/// Passes a request on to a port of the sandbox.
async fn pass_on(
    app: &App,
    caller: &Visitor,
    place: Place,
    parts_before: usize,
    request: Request,
) -> Result<Response, Failure> {
    let port = place.port.parse().ok().filter(|port: &u16| *port > 0);
    let port = port.ok_or_else(|| ApiError::field("port", "port must be between 1 and 65535"))?;
    if [EXECD_PORT, EGRESS_PORT].contains(&port) {
        // Behind those is this server, which has no such route.
        return Err(no_route().await.into());
    }
    let id = place
        .sandbox_id
        .split(PATH_TOKEN)
        .next()
        .unwrap_or_default();
    let live = app.live_sandbox(caller, id).await?;
    let visit = PortVisit {
        live,
        port,
        target: inside(request.uri(), parts_before)?,
        who: Arc::clone(&caller.principal),
    };
    let kept_back = CREDENTIALS.into_iter().chain([CLIENT_ADDRESS]);
    let kept_back: Vec<&str> = kept_back.collect();
    Ok(visit.carry_out(app, request, &kept_back).await?)
}

/// Path and query as the sandbox sees them, byte for byte as the client wrote them.
fn inside(uri: &Uri, parts_before: usize) -> ApiResult<PathAndQuery> {
    let mut parts = uri.path().splitn(parts_before + 1, '/');
    let rest = parts.nth(parts_before).unwrap_or_default();
    let query = uri.query().map(|query| format!("?{query}"));
    let target = format!("/{rest}{}", query.unwrap_or_default());
    let malformed = |_| ApiError::new(ErrorCode::InvalidRequest, "the path is malformed");
    target.parse().map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_sees_what_is_behind_its_port() {
        for (uri, seen) in [
            ("/sandboxes/s/proxy/80", "/"),
            ("/sandboxes/s/proxy/80/", "/"),
            ("/sandboxes/s/proxy/80?a=/b", "/?a=/b"),
            (
                "/sandboxes/s/proxy/80/a//b/%2e%2E/c?x=%20&y",
                "/a//b/%2e%2E/c?x=%20&y",
            ),
            ("/sandboxes/s~t/proxy/80//x", "//x"),
            (
                "/sandboxes/s/proxy/80/sandboxes/x/proxy/1",
                "/sandboxes/x/proxy/1",
            ),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(inside(&uri, PARTS_BEFORE).unwrap(), seen, "{uri}");
        }
        let uri: Uri = "/proxy/80//a/proxy/1?x".parse().unwrap();
        assert_eq!(
            inside(&uri, PARTS_BEFORE_IN_EXECD).unwrap(),
            "//a/proxy/1?x"
        );
    }
}
