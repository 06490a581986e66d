//! Who asks, in this dialect: clients name their key in headers of their own.
//!
//! To the lifecycle API a client sends its key. To the ports of a sandbox it sends what the answer
//! about their endpoint told it to: a token that stands for that key in that sandbox. The key
//! itself is accepted there too. The layer puts a key where [`crate::auth::Caller`] looks for it
//! and vouches for who has a token, so handlers take a `Caller` with the scope they need, like
//! those of `/v1`.

use crate::app::App;
use crate::auth::Vouched;
use crate::error::{ApiError, ApiResult};
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use crownest_api::ErrorCode;
use crownest_api::agent::AGENT_TOKEN_PREFIX;
use crownest_api::api_key::SECRET_PREFIX;

/// Carries the API key to the lifecycle API, and to a sandbox's ports when its client goes through
/// the server.
const API_KEY: &str = "open-sandbox-api-key";
/// Carries what the answer about an endpoint said, to execd. Some clients put the API key there.
pub(super) const EXECD_TOKEN: &str = "x-execd-access-token";
/// The same for the egress API.
pub(super) const EGRESS_TOKEN: &str = "opensandbox-egress-auth";
/// The same for a sandbox whose endpoints are secured, as all of ours are.
pub(super) const SECURE_ACCESS: &str = "opensandbox-secure-access";
/// Every header in which this dialect carries a credential: none of them reaches a sandbox.
pub(super) const CREDENTIALS: [&str; 4] = [API_KEY, EXECD_TOKEN, EGRESS_TOKEN, SECURE_ACCESS];
/// Parts of the patterns of the routes below the ports of a sandbox.
const PORTS: &str = "/sandboxes/{sandboxId}/proxy/";
const SANDBOX: &str = "sandboxId";
const PORT: &str = "port";
/// Said of a token in a header.
const NO_TOKEN: &str = "the access token is not one of this sandbox, or it has ended";
/// Between the id of a sandbox and a token in a path.
pub(super) const PATH_TOKEN: char = '~';

/// Runs the rest with the credential under the name that the rest of the server knows.
pub(super) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match identify(&app, &mut parts).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => error.into_response(),
    }
}

async fn identify(app: &App, parts: &mut Parts) -> ApiResult<()> {
    // Nobody but this layer vouches for anybody.
    parts.extensions.remove::<Vouched>();
    let sandbox = sandbox_at_port(parts).await;
    let headers = &mut parts.headers;
    let given: Vec<HeaderValue> = CREDENTIALS
        .into_iter()
        .filter_map(|name| headers.remove(name))
        .collect();
    if let Some(key) = given.iter().find(|value| is_key(value)) {
        headers.remove(header::AUTHORIZATION);
        headers.insert("x-api-key", key.clone());
        return Ok(());
    }
    let Some(sandbox) = sandbox else {
        // No token is good here; whatever it is, it is judged as a key.
        if let Some(key) = given.into_iter().next() {
            headers.remove(header::AUTHORIZATION);
            headers.insert("x-api-key", key);
        }
        return Ok(());
    };
    let (id, in_path) = match sandbox.id.split_once(PATH_TOKEN) {
        Some((id, token)) => (id, Some(token)),
        None => (sandbox.id.as_str(), None),
    };
    let principal = match (given.first(), in_path, sandbox.port) {
        (Some(token), _, _) => {
            let malformed = "the access token is malformed";
            let token = token.to_str();
            let token = token.map_err(|_| ApiError::new(ErrorCode::InvalidApiKey, malformed))?;
            let principal = app.bearer_in(token, id).await;
            principal.map_err(|error| no_token_of_ours(error, Some(NO_TOKEN)))?
        }
        (None, Some(token), Some(port)) => {
            let principal = app.bearer_at(token, id, port).await;
            principal.map_err(|error| no_token_of_ours(error, None))?
        }
        (None, _, _) => return Ok(()),
    };
    strip_others(headers);
    parts.extensions.insert(Vouched(principal));
    Ok(())
}

/// A token that is not good is not a credential that is missing.
fn no_token_of_ours(error: ApiError, message: Option<&str>) -> ApiError {
    match error.code {
        ErrorCode::Unauthorized => {
            let message = message.map_or(error.message, str::to_owned);
            ApiError::new(ErrorCode::InvalidApiKey, message)
        }
        _ => error,
    }
}

/// A caller with a token is judged by that alone.
fn strip_others(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    headers.remove("x-api-key");
}

/// Whether it is meant to be an API key or an agent's access token.
fn is_key(value: &HeaderValue) -> bool {
    let value = value.as_bytes().trim_ascii();
    value.starts_with(SECRET_PREFIX.as_bytes()) || value.starts_with(AGENT_TOKEN_PREFIX.as_bytes())
}

/// What the path of a request to a port of a sandbox says.
struct AtPort {
    /// With whatever is behind it.
    id: String,
    /// None where a port has routes of its own.
    port: Option<u16>,
}

async fn sandbox_at_port(parts: &mut Parts) -> Option<AtPort> {
    let matched = parts.extensions.get::<MatchedPath>()?;
    if !matched.as_str().contains(PORTS) {
        return None;
    }
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let find = |name| params.iter().find(|(found, _)| *found == name);
    Some(AtPort {
        id: find(SANDBOX)?.1.to_owned(),
        port: find(PORT).and_then(|(_, port)| port.parse().ok()),
    })
}
