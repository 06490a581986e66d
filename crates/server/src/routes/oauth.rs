//! `/oauth2/*`: forms in, OAuth's answers out.

use crate::agents::{OAuthRefusal, Peer};
use crate::app::App;
use crate::extract::read_body;
use crate::request::Origin;
use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderName, header};
use crownest_api::agent::{OAuthError, RevokeAnswer, RevokeRequest, TokenAnswer, TokenRequest};
use serde::de::DeserializeOwned;

/// Longest form: a token, and the names around it.
const FORM_BYTES_MAX: usize = 16 * 1024;
/// Tokens are kept by whoever asked, and by nothing on the way.
const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

/// A body of `application/x-www-form-urlencoded`, whatever its content type says.
pub(super) struct Form<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Form<T> {
    type Rejection = OAuthRefusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, OAuthRefusal> {
        let raw = read_body(request).await?;
        if raw.len() > FORM_BYTES_MAX {
            return Err(OAuthRefusal::invalid_request("the form is too large"));
        }
        serde_urlencoded::from_bytes(&raw)
            .map(Self)
            .map_err(|_| OAuthRefusal::invalid_request("the form cannot be read"))
    }
}

/// Trades a claim token or an identity assertion for an access token.
///
/// While nobody has confirmed the claim: `authorization_pending`, or `slow_down` when it was asked
/// sooner than after `interval` seconds.
#[utoipa::path(
    post, path = "/oauth2/token", operation_id = "issueToken", tag = "agents",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, body = TokenAnswer),
        (status = 400, body = OAuthError, description = "No token, and why"),
        (status = 413, body = crownest_api::ErrorEnvelope),
        (status = 429, body = crownest_api::ErrorEnvelope),
        (status = 503, body = crownest_api::ErrorEnvelope)
    ),
    security(())
)]
pub(super) async fn token(
    State(app): State<App>,
    peer: Peer,
    Origin(origin): Origin,
    Form(asked): Form<TokenRequest>,
) -> Result<([(HeaderName, &'static str); 1], Json<TokenAnswer>), OAuthRefusal> {
    app.allow_address(peer, false)?;
    let answer = Box::pin(app.grant(asked, &origin)).await?;
    Ok((NO_STORE, Json(answer)))
}

/// Revokes a token at once. An identity assertion or a claim token goes with everything that the
/// agent has. A token that is none is no error.
#[utoipa::path(
    post, path = "/oauth2/revoke", operation_id = "revokeToken", tag = "agents",
    request_body(content = RevokeRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, body = RevokeAnswer),
        (status = 400, body = OAuthError),
        (status = 413, body = crownest_api::ErrorEnvelope),
        (status = 429, body = crownest_api::ErrorEnvelope),
        (status = 503, body = crownest_api::ErrorEnvelope)
    ),
    security(())
)]
pub(super) async fn revoke(
    State(app): State<App>,
    peer: Peer,
    Form(asked): Form<RevokeRequest>,
) -> Result<Json<RevokeAnswer>, OAuthRefusal> {
    app.allow_address(peer, false)?;
    let token = asked
        .token
        .ok_or_else(|| OAuthRefusal::invalid_request("token is missing"))?;
    let revoked = Box::pin(app.revoke_token(&token)).await?;
    Ok(Json(RevokeAnswer { revoked }))
}
