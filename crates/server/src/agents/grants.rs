//! `/oauth2/token` and `/oauth2/revoke`: the two grants, in OAuth's words.

use super::tokens::{Claims, Kind, TokenError};
use super::{ACCESS_SECONDS, CREDENTIALS_LIVE_MAX, POLL_SECONDS, is_over, words};
use crate::app::App;
use crate::audit::Deed;
use crate::auth::micros;
use crate::error::{ApiError, ApiResult};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use crownest_api::agent::{
    AGENT_TOKEN_PREFIX, CLAIM_TOKEN_PREFIX, GRANT_CLAIM, GRANT_JWT_BEARER, OAuthError, TokenAnswer,
    TokenRequest,
};
use crownest_api::{IdKind, Scope, Timestamp, new_id};
use crownest_store::{
    AgentCredential, AgentRegistration, CredentialInserted, SecretHash, StoreError,
};
use serde_json::json;

/// Why there is no token.
#[derive(Debug)]
pub(crate) enum OAuthRefusal {
    /// In OAuth's form.
    Said {
        error: &'static str,
        description: &'static str,
        interval: Option<u64>,
    },
    /// A fault of the server, or a rate limit: in the API's form.
    Api(ApiError),
}

impl OAuthRefusal {
    fn new(error: &'static str, description: &'static str) -> Self {
        Self::Said {
            error,
            description,
            interval: None,
        }
    }

    fn wait(error: &'static str, description: &'static str) -> Self {
        Self::Said {
            error,
            description,
            interval: Some(POLL_SECONDS),
        }
    }

    pub(crate) fn invalid_request(description: &'static str) -> Self {
        Self::new("invalid_request", description)
    }
}

impl From<ApiError> for OAuthRefusal {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<StoreError> for OAuthRefusal {
    fn from(error: StoreError) -> Self {
        Self::Api(error.into())
    }
}

impl IntoResponse for OAuthRefusal {
    fn into_response(self) -> Response {
        let (error, description, interval) = match self {
            Self::Said {
                error,
                description,
                interval,
            } => (error, description, interval),
            Self::Api(error) => return error.into_response(),
        };
        let body = OAuthError {
            error: error.to_owned(),
            error_description: description.to_owned(),
            interval,
        };
        let mut response = (StatusCode::BAD_REQUEST, Json(body)).into_response();
        let no_store = HeaderValue::from_static("no-store");
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, no_store);
        response
    }
}

type Granted = Result<TokenAnswer, OAuthRefusal>;

impl App {
    /// `POST /oauth2/token`.
    pub(crate) async fn grant(&self, asked: TokenRequest, origin: &str) -> Granted {
        match asked.grant_type.as_deref() {
            Some(GRANT_CLAIM) => self.grant_claim(asked.claim_token.as_deref(), origin).await,
            Some(GRANT_JWT_BEARER) => {
                let scope = asked.scope.as_deref();
                self.grant_assertion(asked.assertion.as_deref(), scope, origin)
                    .await
            }
            Some(_) => Err(OAuthRefusal::new(
                "unsupported_grant_type",
                "the grants are the claim grant and the JWT bearer grant",
            )),
            None => Err(OAuthRefusal::invalid_request("grant_type is missing")),
        }
    }

    async fn grant_claim(&self, token: Option<&str>, origin: &str) -> Granted {
        let token = token.ok_or_else(|| OAuthRefusal::invalid_request("claim_token is missing"))?;
        let hash = SecretHash::of(token);
        let found = self.store.agent_registration_by_claim_token(&hash).await?;
        let invalid = || {
            OAuthRefusal::new(
                "invalid_claim_token",
                "the claim token is unknown, used or revoked",
            )
        };
        let registration = found.ok_or_else(invalid)?;
        if registration.claimed_at.is_none() {
            return Err(self.pending(&registration).await?);
        }
        let granted = registration.scopes.clone();
        let credential = credential(&registration, granted);
        if !self.store.redeem_agent_claim(&hash, &credential).await? {
            return Err(invalid());
        }
        let assertion = self.assertion(&registration, "post_claim", origin).await?;
        self.issued(&credential, Some(assertion), origin).await
    }

    /// How a registration stands that nobody has claimed yet.
    async fn pending(
        &self,
        registration: &AgentRegistration,
    ) -> Result<OAuthRefusal, OAuthRefusal> {
        if is_over(registration.expires_at) {
            return Ok(OAuthRefusal::new(
                "expired_token",
                "the registration has expired",
            ));
        }
        let newest = self.store.newest_agent_claim(&registration.id).await?;
        let Some(claim) = newest else {
            let description = "no claim was begun: send POST /agent/identity/claim";
            return Ok(OAuthRefusal::wait("authorization_pending", description));
        };
        match claim.status.as_str() {
            "denied" => {
                let description = "the claim was denied";
                return Ok(OAuthRefusal::new("authorization_denied", description));
            }
            "pending" if !is_over(claim.expires_at) => {}
            _ => return Ok(OAuthRefusal::new("expired_token", "the claim has expired")),
        }
        let now = Timestamp::now();
        let pause = i64::try_from(POLL_SECONDS * 1_000_000).unwrap_or(i64::MAX);
        let since = micros(now) - pause;
        let in_time = self.store.poll_agent_claim(&claim.id, micros(now), since);
        Ok(if in_time.await? {
            OAuthRefusal::wait(
                "authorization_pending",
                "nobody has confirmed the claim yet",
            )
        } else {
            OAuthRefusal::wait("slow_down", "ask again after the interval")
        })
    }

    async fn grant_assertion(
        &self,
        assertion: Option<&str>,
        scope: Option<&str>,
        origin: &str,
    ) -> Granted {
        let assertion =
            assertion.ok_or_else(|| OAuthRefusal::invalid_request("assertion is missing"))?;
        let invalid = || {
            let description = "the assertion is none of this server's, or what it says is over";
            OAuthRefusal::new("invalid_identity_assertion", description)
        };
        let claims = match self.believe(assertion, Kind::Identity).await? {
            Ok(claims) => claims,
            Err(TokenError::Expired) => {
                let description = "the assertion has expired";
                return Err(OAuthRefusal::new("expired_token", description));
            }
            Err(_) => return Err(invalid()),
        };
        let found = self.store.agent_registration(&claims.sub).await?;
        let registration = found
            .filter(|row| row.revoked_at.is_none() && phase(row) == claims.phase)
            .ok_or_else(invalid)?;
        let granted = match claims.phase.as_str() {
            "pre_claim" => words(&[Scope::AgentBootstrap]),
            _ => registration.scopes.clone(),
        };
        let credential = credential(&registration, narrowed(granted, scope)?);
        let inserted = self
            .store
            .insert_agent_credential(&credential, CREDENTIALS_LIVE_MAX);
        match inserted.await? {
            CredentialInserted::New => self.issued(&credential, None, origin).await,
            CredentialInserted::Refused => Err(invalid()),
            CredentialInserted::Full => {
                let description = "too many tokens of this agent live: use them, or revoke some";
                Err(OAuthRefusal::wait("slow_down", description))
            }
        }
    }

    /// The token of a credential that was just written.
    async fn issued(
        &self,
        credential: &AgentCredential,
        identity_assertion: Option<String>,
        origin: &str,
    ) -> Granted {
        let scope = credential.scopes.join(" ");
        let claims = Claims {
            iss: origin.to_owned(),
            aud: origin.to_owned(),
            sub: credential.registration_id.clone(),
            jti: credential.id.clone(),
            iat: credential.created_at / 1_000_000,
            exp: credential.expires_at / 1_000_000,
            phase: credential.phase.clone(),
            scope: scope.clone(),
            org: credential.org_id.clone(),
        };
        let jwt = self.sign(Kind::Access, &claims).await?;
        self.note_agent(credential, "agent_token.issue", "ok");
        Ok(TokenAnswer {
            access_token: format!("{AGENT_TOKEN_PREFIX}{jwt}"),
            token_type: "Bearer".to_owned(),
            expires_in: ACCESS_SECONDS,
            scope,
            identity_assertion,
        })
    }

    /// `POST /oauth2/revoke`: whether there was something to revoke. An access token goes alone,
    /// an identity assertion or a claim token with everything that the agent has.
    pub(crate) async fn revoke_token(&self, token: &str) -> ApiResult<bool> {
        let now = micros(Timestamp::now());
        if let Some(jwt) = token.strip_prefix(AGENT_TOKEN_PREFIX) {
            let Ok(claims) = self.believe(jwt, Kind::Access).await? else {
                return Ok(false);
            };
            let Some(credential) = self.store.agent_credential(&claims.jti).await? else {
                return Ok(false);
            };
            let revoked = self.store.revoke_agent_credential(&claims.jti, now).await?;
            if revoked {
                self.note_agent(&credential, "agent_token.revoke", "ok");
            }
            return Ok(revoked);
        }
        let registration = if token.starts_with(CLAIM_TOKEN_PREFIX) {
            let hash = SecretHash::of(token);
            self.store.agent_registration_by_claim_token(&hash).await?
        } else {
            match self.believe(token, Kind::Identity).await? {
                Ok(claims) => self.store.agent_registration(&claims.sub).await?,
                Err(_) => None,
            }
        };
        let Some(registration) = registration else {
            return Ok(false);
        };
        let id = &registration.id;
        let revoked = self.store.revoke_agent_registration(id, now).await?;
        if revoked && registration.org_id.is_some() {
            let credential = credential(&registration, Vec::new());
            self.note_agent(&credential, "agent.revoke", "ok");
        }
        Ok(revoked)
    }

    /// Audits what an agent did, once it belongs to an organization that has an audit log.
    fn note_agent(
        &self,
        credential: &AgentCredential,
        action: &'static str,
        outcome: &'static str,
    ) {
        let Some(org_id) = &credential.org_id else {
            return;
        };
        let deed = Deed {
            action,
            resource_kind: "agent_registration",
            resource_id: &credential.registration_id,
            project_id: None,
            outcome,
        };
        let details = json!({ "scopes": credential.scopes });
        self.audit.by_agent(org_id, &credential.id, deed, &details);
    }
}

fn phase(registration: &AgentRegistration) -> &'static str {
    match registration.claimed_at {
        Some(_) => "post_claim",
        None => "pre_claim",
    }
}

fn credential(registration: &AgentRegistration, scopes: Vec<String>) -> AgentCredential {
    let now = Timestamp::now();
    AgentCredential {
        id: new_id(IdKind::AgentCredential),
        registration_id: registration.id.clone(),
        phase: phase(registration).to_owned(),
        org_id: registration.org_id.clone(),
        user_id: registration.user_id.clone(),
        project_ids: registration.project_ids.clone(),
        scopes,
        created_at: micros(now),
        expires_at: micros(now.plus_millis(ACCESS_SECONDS * 1_000)),
        revoked_at: None,
    }
}

/// Those of the granted scopes that were asked for; all of them when nothing was.
fn narrowed(granted: Vec<String>, asked: Option<&str>) -> Result<Vec<String>, OAuthRefusal> {
    let Some(asked) = asked.filter(|asked| !asked.trim().is_empty()) else {
        return Ok(granted);
    };
    let mut scopes = Vec::new();
    for word in asked.split_ascii_whitespace() {
        if !granted.iter().any(|scope| scope == word) {
            let description = "a scope was asked for that was not granted";
            return Err(OAuthRefusal::new("invalid_scope", description));
        }
        if !scopes.iter().any(|scope| scope == word) {
            scopes.push(word.to_owned());
        }
    }
    Ok(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_can_be_given_up_and_none_gained() {
        let granted = || vec!["code:run".to_owned(), "file:read".to_owned()];
        assert_eq!(narrowed(granted(), None).unwrap(), granted());
        assert_eq!(narrowed(granted(), Some(" ")).unwrap(), granted());
        let one = narrowed(granted(), Some("file:read file:read")).unwrap();
        assert_eq!(one, ["file:read"]);
        assert!(narrowed(granted(), Some("file:read file:write")).is_err());
    }
}
