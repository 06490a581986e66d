//! Agents that register by themselves: identities, claims, tokens. Field names are those of OAuth,
//! in snake case.

use crate::scope::Scope;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// First characters of every access token of an agent.
pub const AGENT_TOKEN_PREFIX: &str = "cn_agent_";
/// First characters of every claim token.
pub const CLAIM_TOKEN_PREFIX: &str = "cn_claim_";
/// Trades an identity assertion for an access token.
pub const GRANT_JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Trades a claim token for an access token, once a person has confirmed the claim.
pub const GRANT_CLAIM: &str = "urn:crownest:params:oauth:grant-type:claim";

/// `POST /agent/identity`: which fields count depends on `type`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct IdentityRequest {
    /// `anonymous`, `service_auth` or `identity_assertion`.
    #[serde(rename = "type")]
    #[schema(example = "anonymous")]
    pub kind: String,
    /// The agent's own word for the conversation or task that it works on.
    #[serde(default)]
    pub agent_context_id: Option<String>,
    /// What runs the agent; shown to the person who confirms.
    #[serde(default)]
    pub agent_platform: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<Scope>>)]
    pub requested_scopes: Option<Vec<String>>,
    /// `service_auth`: e-mail address of the person to ask.
    #[serde(default)]
    pub login_hint: Option<String>,
    /// `identity_assertion`: what a trusted provider says of the agent.
    #[serde(default)]
    pub assertion: Option<String>,
}

/// How an agent registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationKind {
    Anonymous,
    ServiceAuth,
}

impl RegistrationKind {
    /// The word on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::ServiceAuth => "service_auth",
        }
    }
}

/// What a person needs to confirm a claim, and the agent to wait for it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Claim {
    pub registration_id: String,
    /// Six digits for the person.
    #[schema(example = "493817")]
    pub user_code: String,
    /// Where the person reads what to do with them.
    pub verification_uri: String,
    /// Seconds to wait between two requests for the token.
    pub interval: u64,
    pub claim_expires_at: Timestamp,
}

/// Answer to a registration. Which fields are there depends on how it was made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IdentityAnswer {
    pub registration_type: RegistrationKind,
    /// `anonymous_unclaimed` or `authorization_pending`.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_id: Option<String>,
    /// Secret: starts a claim and is traded for the token. It works until it was traded.
    pub claim_token: String,
    /// Anonymous: trades for a token that may call `/agent/bootstrap` and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_assertion: Option<String>,
    /// Anonymous: when the registration is forgotten unless it is claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Anonymous: scopes of tokens before the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Service: the claim that was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
}

/// `POST /agent/identity/claim`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct ClaimRequest {
    pub claim_token: String,
    /// Address of the person who will confirm; shown to whoever does.
    pub email: String,
}

/// Answer to the begin of a claim.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClaimAnswer {
    pub claim: Claim,
    /// `authorization_pending`
    pub status: String,
}

/// `POST /oauth2/token`, a form.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct TokenRequest {
    /// One of the two grants.
    #[schema(
        required = true,
        example = "urn:crownest:params:oauth:grant-type:claim"
    )]
    pub grant_type: Option<String>,
    /// Claim grant.
    pub claim_token: Option<String>,
    /// JWT bearer grant: an `identity_assertion` of this server.
    pub assertion: Option<String>,
    /// JWT bearer grant: fewer scopes than were granted, space-separated.
    pub scope: Option<String>,
}

/// A token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenAnswer {
    #[schema(example = "cn_agent_…")]
    pub access_token: String,
    /// `Bearer`
    pub token_type: String,
    /// Seconds.
    pub expires_in: u64,
    /// Space-separated.
    pub scope: String,
    /// Trades for the next token when this one has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_assertion: Option<String>,
}

/// A refusal of `/oauth2/*`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OAuthError {
    /// `authorization_pending`, `slow_down`, `expired_token`, `authorization_denied`,
    /// `invalid_claim_token`, `invalid_identity_assertion`, or a word of RFC 6749.
    pub error: String,
    pub error_description: String,
    /// Seconds to wait before the next request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<u64>,
}

/// `POST /oauth2/revoke`, a form.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct RevokeRequest {
    /// An access token, an identity assertion or a claim token.
    #[schema(required = true)]
    pub token: Option<String>,
    pub token_type_hint: Option<String>,
}

/// Answer to a revocation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevokeAnswer {
    /// Whether there was something to revoke.
    pub revoked: bool,
}

/// `GET /agent/bootstrap`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Bootstrap {
    pub auth_md_uri: String,
    /// What a claimed agent can be allowed to do.
    pub capabilities: Vec<String>,
    pub pricing_uri: String,
    /// Scopes of the credential that asked.
    pub scopes: Vec<Scope>,
    pub templates_uri: String,
}
