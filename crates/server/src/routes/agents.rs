//! `/agent/*`: agents that register by themselves. None of it needs a credential but `bootstrap`.

use crate::agents::{Peer, no_provider};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::extract::{JsonBody, read_body};
use crate::request::Origin;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use crownest_api::Scope;
use crownest_api::agent::{Bootstrap, ClaimAnswer, ClaimRequest, IdentityAnswer, IdentityRequest};

/// Registers an agent.
///
/// `anonymous` can be claimed by anybody who has its claim token, `service_auth` by the person of
/// `login_hint`. `identity_assertion` is refused: this server trusts no provider.
#[utoipa::path(
    post, path = "/agent/identity", operation_id = "registerAgent", tag = "agents",
    request_body = IdentityRequest,
    responses(
        (status = 200, body = IdentityAnswer),
        (status = 400, body = crownest_api::ErrorEnvelope),
        (status = 403, body = crownest_api::ErrorEnvelope, description = "No provider is trusted"),
        (status = 413, body = crownest_api::ErrorEnvelope),
        (status = 429, body = crownest_api::ErrorEnvelope),
        (status = 503, body = crownest_api::ErrorEnvelope)
    ),
    security(())
)]
pub(super) async fn identity(
    State(app): State<App>,
    peer: Peer,
    Origin(origin): Origin,
    body: JsonBody<IdentityRequest>,
) -> ApiResult<Json<IdentityAnswer>> {
    app.allow_address(peer, true)?;
    let answer = Box::pin(app.register_agent(body.value, &origin)).await?;
    Ok(Json(answer))
}

/// Begins a claim of a registration, in place of the one before.
///
/// The code is for the person who will confirm it. Nothing is sent to the address.
#[utoipa::path(
    post, path = "/agent/identity/claim", operation_id = "claimAgent", tag = "agents",
    request_body = ClaimRequest,
    responses(
        (status = 201, body = ClaimAnswer),
        (status = 400, body = crownest_api::ErrorEnvelope, description = "`invalid_claim_token`, or a malformed request"),
        (status = 403, body = crownest_api::ErrorEnvelope, description = "Another address, or a revoked registration"),
        (status = 413, body = crownest_api::ErrorEnvelope),
        (status = 429, body = crownest_api::ErrorEnvelope),
        (status = 503, body = crownest_api::ErrorEnvelope)
    ),
    security(())
)]
pub(super) async fn claim(
    State(app): State<App>,
    peer: Peer,
    Origin(origin): Origin,
    body: JsonBody<ClaimRequest>,
) -> ApiResult<(StatusCode, Json<ClaimAnswer>)> {
    app.allow_address(peer, true)?;
    let answer = Box::pin(app.claim_agent(body.value, &origin)).await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

/// What an agent can find out before a person has let it in.
#[utoipa::path(
    get, path = "/agent/bootstrap", operation_id = "bootstrapAgent", tag = "agents",
    responses((status = 200, body = Bootstrap)),
    security(("bearer" = ["agent:bootstrap"]), ("apiKey" = ["agent:bootstrap"]))
)]
pub(super) async fn bootstrap(
    caller: Caller<{ Scope::AgentBootstrap as u8 }>,
    Origin(origin): Origin,
) -> Json<Bootstrap> {
    let capabilities = [
        "sandboxes",
        "code",
        "commands",
        "files",
        "artifacts",
        "previews",
    ];
    Json(Bootstrap {
        auth_md_uri: format!("{origin}/auth.md"),
        capabilities: capabilities.map(str::to_owned).to_vec(),
        pricing_uri: format!("{origin}/llms.txt"),
        scopes: caller.scopes.iter().collect(),
        templates_uri: format!("{origin}/llms.txt"),
    })
}

/// Takes security events of identity providers. None is trusted, so each is refused.
#[utoipa::path(
    post, path = "/agent/event/notify", operation_id = "notifyAgentEvent", tag = "agents",
    request_body(content = String, content_type = "text/plain", description = "A security event token"),
    responses(
        (status = 403, body = crownest_api::ErrorEnvelope, description = "No provider is trusted"),
        (status = 400, body = crownest_api::ErrorEnvelope),
        (status = 413, body = crownest_api::ErrorEnvelope),
        (status = 429, body = crownest_api::ErrorEnvelope)
    ),
    security(())
)]
pub(super) async fn notify(
    State(app): State<App>,
    peer: Peer,
    request: Request,
) -> Result<(), ApiError> {
    app.allow_address(peer, false)?;
    read_body(request).await?;
    Err(no_provider())
}
