//! Agents: programs that register by themselves and act in an organization once a person has let
//! them in.
//!
//! Anonymous or for a named person, an agent registers and gets a claim token; a claim of it has a
//! code of six digits, which the person tells the operator of this server, who confirms it and
//! says for which organization, projects and scopes (`crownest admin agent-claim`). Then the
//! claim token trades for an access token. Owns: registrations, claims, the two grants, what an
//! access token is worth. Does not own: HTTP forms (routes), rows (store), signatures (`tokens`).
//!
//! Other identity providers are not configured: what they would say is refused.

mod grants;
mod keys;
mod tokens;

pub(crate) use grants::OAuthRefusal;
pub(crate) use keys::SigningKeys;
pub use keys::new_signing_key;

use crate::app::App;
use crate::auth::{Actor, Principal, micros, random, secret};
use crate::error::{ApiError, ApiResult};
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use crownest_api::agent::{
    AGENT_TOKEN_PREFIX, CLAIM_TOKEN_PREFIX, Claim, ClaimAnswer, ClaimRequest, IdentityAnswer,
    IdentityRequest, RegistrationKind,
};
use crownest_api::{ErrorCode, IdKind, Scope, Timestamp, limits, new_id};
use crownest_store::{AgentClaim, AgentCredential, AgentRegistration, SecretHash, StoreError};
use serde_json::json;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
pub(crate) use tokens::TOKEN_BYTES_MAX as AGENT_TOKEN_BYTES_MAX;
#[cfg(feature = "fuzzing")]
pub(crate) use tokens::forged;
use tokens::{Claims, Kind, TokenError};

/// How long a registration waits to be claimed.
const UNCLAIMED_MS: u64 = 24 * 3_600_000;
/// How long a person has for one claim.
const CLAIM_MS: u64 = 15 * 60_000;
/// Seconds between two questions after a token.
const POLL_SECONDS: u64 = 5;
const ACCESS_SECONDS: u64 = 3_600;
/// Life of an identity assertion of a claimed agent, which is how long it can be away.
pub(super) const ASSERTION_SECONDS: u64 = 30 * 24 * 3_600;
/// Rows that are over are kept this much longer.
pub(super) const KEEP_MS: u64 = 24 * 3_600_000;
/// Registrations that wait to be claimed, of everybody together.
const UNCLAIMED_MAX: i64 = 10_000;
/// Claims of one registration.
const CLAIMS_MAX: i64 = 10;
/// Access tokens of one registration that live at the same time.
const CREDENTIALS_LIVE_MAX: i64 = 64;
/// What one address may ask of the routes that need no credential, per minute: registrations and
/// claims, and everything else.
const REGISTRATIONS_PER_MINUTE_MAX: u32 = 120;
const REQUESTS_PER_MINUTE_MAX: u32 = 600;
/// A code that is taken is drawn again, this often.
const CODE_TRIES_MAX: u32 = 8;
const TEXT_CHARS_MAX: usize = 200;

/// What an agent may be granted when it did not say: everything about sandboxes, nothing about
/// keys, projects and bills.
#[must_use]
pub fn usual_scopes() -> Vec<Scope> {
    Scope::ALL
        .iter()
        .copied()
        .take_while(|scope| *scope < Scope::BackupCreate)
        .collect()
}

/// Where a request came from, for what is allowed per address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) Option<IpAddr>);

impl FromRequestParts<App> for Peer {
    type Rejection = Infallible;

    /// The other end of the connection; where a trusted proxy stands before this server, the
    /// address that the proxy added last.
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let other_end = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let other_end = other_end.map(|ConnectInfo(address)| address.ip());
        let said = parts.headers.get_all("x-forwarded-for").iter().next_back();
        let said = said
            .filter(|_| app.config.public_origin.is_some())
            .and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
        Ok(Self(said.or(other_end)))
    }
}

impl Peer {
    /// One household, however many addresses it has.
    fn network(self) -> String {
        match self.0 {
            None => "unknown".to_owned(),
            Some(IpAddr::V4(address)) => address.to_string(),
            Some(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
                Some(address) => address.to_string(),
                None => format!("{:x?}", &address.segments()[..4]),
            },
        }
    }
}

impl App {
    /// Counts a request that needs no credential.
    pub(crate) fn allow_address(&self, peer: Peer, registers: bool) -> ApiResult<()> {
        let (what, limit) = if registers {
            ("registrations", REGISTRATIONS_PER_MINUTE_MAX)
        } else {
            ("requests", REQUESTS_PER_MINUTE_MAX)
        };
        let key: Arc<str> = format!("{what} of {}", peer.network()).into();
        self.addresses.count(&key, limit).map(drop)
    }

    /// `POST /agent/identity`.
    pub(crate) async fn register_agent(
        &self,
        asked: IdentityRequest,
        origin: &str,
    ) -> ApiResult<IdentityAnswer> {
        let kind = match asked.kind.as_str() {
            "anonymous" => RegistrationKind::Anonymous,
            "service_auth" => RegistrationKind::ServiceAuth,
            "identity_assertion" => return Err(no_provider()),
            _ => {
                let message =
                    "type must be \"anonymous\", \"service_auth\" or \"identity_assertion\"";
                return Err(ApiError::field("type", message));
            }
        };
        let email = match kind {
            RegistrationKind::Anonymous => None,
            RegistrationKind::ServiceAuth => {
                let hint = asked.login_hint.as_deref().unwrap_or_default();
                check_email("login_hint", hint)?;
                Some(hint.to_owned())
            }
        };
        let requested = requested_scopes(asked.requested_scopes.as_deref().unwrap_or_default())?;
        let claim_token = secret(CLAIM_TOKEN_PREFIX).map_err(ApiError::internal)?;
        let now = Timestamp::now();
        let expires_at = now.plus_millis(UNCLAIMED_MS);
        let status = match kind {
            RegistrationKind::Anonymous => "anonymous_unclaimed",
            RegistrationKind::ServiceAuth => "pending_claim",
        };
        let registration = AgentRegistration {
            id: new_id(IdKind::AgentRegistration),
            kind: kind.as_str().to_owned(),
            status: status.to_owned(),
            platform: text("agent_platform", asked.agent_platform)?,
            context_id: text("agent_context_id", asked.agent_context_id)?,
            login_hint: email.clone(),
            requested_scopes: words(&requested),
            claim_token_hash: Some(SecretHash::of(&claim_token)),
            org_id: None,
            user_id: None,
            project_ids: None,
            scopes: Vec::new(),
            created_at: micros(now),
            expires_at: micros(expires_at),
            claimed_at: None,
            revoked_at: None,
        };
        let store = &self.store;
        if !store
            .insert_agent_registration(&registration, UNCLAIMED_MAX)
            .await?
        {
            let message = "too many registrations wait to be claimed";
            return Err(ApiError::new(ErrorCode::QuotaExceeded, message)
                .with_details(json!({ "limit": UNCLAIMED_MAX })));
        }
        tracing::info!(
            registration = registration.id,
            kind = kind.as_str(),
            "agent registered"
        );
        let claim = match &email {
            Some(email) => Some(self.begin_claim(&registration, email, origin).await?),
            None => None,
        };
        let anonymous = claim.is_none();
        let identity_assertion = match anonymous {
            true => Some(self.assertion(&registration, "pre_claim", origin).await?),
            false => None,
        };
        Ok(IdentityAnswer {
            registration_type: kind,
            status: match anonymous {
                true => "anonymous_unclaimed",
                false => "authorization_pending",
            }
            .to_owned(),
            registration_id: Some(registration.id),
            claim_token,
            identity_assertion,
            expires_at: anonymous.then_some(expires_at),
            scope: anonymous.then(|| Scope::AgentBootstrap.as_str().to_owned()),
            claim,
        })
    }

    /// `POST /agent/identity/claim`.
    pub(crate) async fn claim_agent(
        &self,
        asked: ClaimRequest,
        origin: &str,
    ) -> ApiResult<ClaimAnswer> {
        check_email("email", &asked.email)?;
        let refused = || {
            let message = "the claim token is unknown, used, or of a registration that is over";
            ApiError::new(ErrorCode::InvalidClaimToken, message)
        };
        let hash = SecretHash::of(&asked.claim_token);
        let found = self.store.agent_registration_by_claim_token(&hash).await?;
        let registration = found.ok_or_else(refused)?;
        if registration.revoked_at.is_some() {
            let message = "the registration is revoked";
            return Err(ApiError::new(ErrorCode::AgentRegistrationRevoked, message));
        }
        if registration.claimed_at.is_some() || is_over(registration.expires_at) {
            return Err(refused());
        }
        let hint = registration.login_hint.as_deref();
        if hint.is_some_and(|hint| !hint.eq_ignore_ascii_case(&asked.email)) {
            let message = "the registration is for another address";
            return Err(ApiError::new(ErrorCode::ClaimEmailMismatch, message));
        }
        let claim = self
            .begin_claim(&registration, &asked.email, origin)
            .await?;
        Ok(ClaimAnswer {
            claim,
            status: "authorization_pending".to_owned(),
        })
    }

    /// A new claim in place of the one before.
    async fn begin_claim(
        &self,
        registration: &AgentRegistration,
        email: &str,
        origin: &str,
    ) -> ApiResult<Claim> {
        let now = Timestamp::now();
        let expires_at = now.plus_millis(CLAIM_MS);
        for _ in 0..CODE_TRIES_MAX {
            let claim = AgentClaim {
                id: new_id(IdKind::AgentClaim),
                registration_id: registration.id.clone(),
                user_code: user_code().map_err(ApiError::internal)?,
                email: email.to_owned(),
                status: "pending".to_owned(),
                created_at: micros(now),
                expires_at: micros(expires_at),
                polled_at: None,
                decided_at: None,
            };
            match self.store.insert_agent_claim(&claim, CLAIMS_MAX).await {
                Ok(true) => {
                    return Ok(Claim {
                        registration_id: claim.registration_id,
                        user_code: claim.user_code,
                        verification_uri: format!("{origin}/auth.md"),
                        interval: POLL_SECONDS,
                        claim_expires_at: expires_at,
                    });
                }
                Ok(false) => {
                    let message = "this registration was claimed too often: register again";
                    return Err(ApiError::new(ErrorCode::QuotaExceeded, message)
                        .with_details(json!({ "limit": CLAIMS_MAX })));
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::internal("no free code for a claim"))
    }

    /// What an agent shows to get its next access token.
    async fn assertion(
        &self,
        registration: &AgentRegistration,
        phase: &str,
        origin: &str,
    ) -> ApiResult<String> {
        let now = Timestamp::now().as_millis() / 1_000;
        let seconds = i64::try_from(ASSERTION_SECONDS).unwrap_or(i64::MAX);
        let exp = match phase {
            "pre_claim" => registration.expires_at / 1_000_000,
            _ => now.saturating_add(seconds),
        };
        let claims = Claims {
            iss: origin.to_owned(),
            aud: origin.to_owned(),
            sub: registration.id.clone(),
            jti: new_id(IdKind::Request),
            iat: now,
            exp,
            phase: phase.to_owned(),
            scope: String::new(),
            org: registration.org_id.clone(),
        };
        self.sign(Kind::Identity, &claims).await
    }

    /// The agent behind an access token. Nothing is remembered between two requests, so that a
    /// revocation works at once on every server.
    pub(crate) async fn authenticate_agent(&self, token: &str) -> ApiResult<Arc<Principal>> {
        let refused = || {
            let message = "the access token is not valid, or revoked";
            ApiError::new(ErrorCode::InvalidApiKey, message)
        };
        let expired = || {
            let message =
                "the access token has expired: trade the identity assertion for a new one";
            ApiError::new(ErrorCode::AgentTokenExpired, message)
        };
        let jwt = token.strip_prefix(AGENT_TOKEN_PREFIX).ok_or_else(refused)?;
        let claims = match self.believe(jwt, Kind::Access).await? {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return Err(expired()),
            Err(_) => return Err(refused()),
        };
        let found = self.store.agent_credential(&claims.jti).await?;
        let credential = found.ok_or_else(refused)?;
        if is_over(credential.expires_at) {
            return Err(expired());
        }
        self.agent_principal(credential).await.map(Arc::new)
    }

    /// The agent behind a credential that is neither revoked nor over.
    pub(crate) async fn agent_of(&self, credential_id: &str) -> ApiResult<Option<Principal>> {
        match self.store.agent_credential(credential_id).await? {
            Some(credential) if !is_over(credential.expires_at) => {
                self.agent_principal(credential).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    async fn agent_principal(&self, credential: AgentCredential) -> ApiResult<Principal> {
        let org_id = credential.org_id.unwrap_or_default();
        let plan = match org_id.as_str() {
            // Not anybody's yet: it has no scope that leads to a plan.
            "" => self.config.plan,
            org_id => self.plan_of(org_id).await?,
        };
        Ok(Principal {
            actor: Actor::AgentCredential,
            key_id: credential.id.into(),
            org_id,
            user_id: credential.user_id.unwrap_or_default(),
            plan,
            scopes: credential
                .scopes
                .iter()
                .filter_map(|scope| scope.parse().ok())
                .collect(),
            project_ids: credential.project_ids,
        })
    }
}

/// Nobody else is trusted to say who an agent is.
pub(crate) fn no_provider() -> ApiError {
    let message = "no identity provider is trusted by this server";
    ApiError::new(ErrorCode::AgentProviderUntrusted, message)
}

fn is_over(expires_at: i64) -> bool {
    expires_at <= micros(Timestamp::now())
}

fn requested_scopes(asked: &[String]) -> ApiResult<Vec<Scope>> {
    let unknown = |_| ApiError::field("requested_scopes", "requested_scopes has an unknown scope");
    let mut scopes = Vec::new();
    for word in asked {
        let scope: Scope = word.parse().map_err(unknown)?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Ok(scopes)
}

fn words(scopes: &[Scope]) -> Vec<String> {
    scopes
        .iter()
        .map(|scope| scope.as_str().to_owned())
        .collect()
}

/// Text that an operator will see on a terminal.
fn text(field: &str, given: Option<String>) -> ApiResult<Option<String>> {
    let Some(given) = given else { return Ok(None) };
    let fits = given.chars().take(TEXT_CHARS_MAX + 1).count() <= TEXT_CHARS_MAX;
    if fits && !given.chars().any(char::is_control) {
        return Ok(Some(given));
    }
    let message = format!("{field} must have at most {TEXT_CHARS_MAX} printable characters");
    Err(ApiError::field(field, message))
}

/// An address as it is shown to whoever decides: nothing is ever sent there.
fn check_email(field: &str, email: &str) -> ApiResult<()> {
    let plain = |b: u8| b.is_ascii_graphic() && !b"<>\"'`\\@".contains(&b);
    let ok = email.len() <= limits::NAME_CHARS_MAX
        && email.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && !host.is_empty() && name.bytes().chain(host.bytes()).all(plain)
        });
    if ok {
        return Ok(());
    }
    Err(ApiError::field(
        field,
        format!("{field} must be an e-mail address"),
    ))
}

/// Six digits, each as likely as any other.
fn user_code() -> std::io::Result<String> {
    const CODES: u32 = 1_000_000;
    const UNFAIR: u32 = u32::MAX - u32::MAX % CODES;
    loop {
        let number = u32::from_le_bytes(random()?);
        if number < UNFAIR {
            return Ok(format!("{:06}", number % CODES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_six_digits() {
        for _ in 0..100 {
            let code = user_code().unwrap();
            assert!(code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()));
        }
    }

    #[test]
    fn addresses_and_texts_are_fit_for_a_terminal() {
        assert!(check_email("email", "ada@example.org").is_ok());
        for bad in ["", "@", "a@", "@b", "a b@c", "a@b@c", "a@b\u{1b}[2J", "ä@b"] {
            assert!(check_email("email", bad).is_err(), "{bad}");
        }
        assert!(text("x", Some("Ünïcode 1".into())).is_ok());
        assert!(text("x", Some("a\nb".into())).is_err());
        assert!(text("x", Some("x".repeat(TEXT_CHARS_MAX + 1))).is_err());
    }

    #[test]
    fn a_network_is_one_however_many_addresses_it_has() {
        let network = |address: &str| Peer(Some(address.parse().unwrap())).network();
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }

    #[test]
    fn what_is_usual_holds_no_key_and_no_bill() {
        let usual = usual_scopes();
        assert_eq!(usual.len(), 19);
        assert!(!usual.contains(&Scope::ApiKeyRead) && !usual.contains(&Scope::UsageRead));
    }
}
