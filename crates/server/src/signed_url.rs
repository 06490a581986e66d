//! URLs that carry their own permission: for clients, browsers and tools that fetch or send large
//! bodies without an API key.
//!
//! A URL has `signature=<token>` in its query. The token says what may be done ([`Grant`]) and is
//! signed with HMAC-SHA-256 under a secret that all servers of an installation share (it is made
//! once and kept in the store). A token is for one method of one resource, for one purpose, until
//! a time; it stands for the key that asked for it, and ends with it when that is revoked. It is
//! nothing but permission: whether the resource is still there, the route finds out.
//!
//! For a route: take [`Signed`] instead of `Caller`, then [`Signed::caller`] with what the
//! request is about. To make a URL: [`App::signed_url`].

mod sandbox_token;

use crate::app::App;
use crate::auth::{Actor, Caller, Principal};
use crate::error::{ApiError, ApiResult};
use crate::request::RequestContext;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crownest_api::scope::ScopeSet;
use crownest_api::{ErrorCode, IdKind, Scope, Timestamp};
use crownest_store::ServerSecret;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// How long a URL is good for unless a route has a reason for another time.
pub(crate) const LIFE_DEFAULT_MS: u64 = 15 * 60_000;
/// Name in the query.
const PARAMETER: &str = "signature";
/// Longest token that is looked at: a path of 4 KiB in it, written as base64.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// What the secret is kept under in the store.
const SECRET_KIND: &str = "signed_url";
const SECRET_BYTES: usize = 32;
/// Keeps these signatures apart from any others under the same secret, and from later formats.
const CONTEXT: &[u8] = b"crownest signed url 1\0";

/// What a URL is for. One for every route that takes signed URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    FileDownload,
    FileUpload,
    ArtifactDownload,
    CommandLogs,
    WorkspaceArchive,
    /// Not a URL: everything that the key may do in one sandbox.
    SandboxAccess,
}

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Grant {
    #[serde(rename = "u")]
    purpose: Purpose,
    #[serde(rename = "m")]
    method: String,
    /// What it is about, in words of the route: ids, and a path where there is one.
    #[serde(rename = "r")]
    resource: String,
    #[serde(rename = "o")]
    org_id: String,
    #[serde(rename = "p")]
    project_id: String,
    /// The API key that asked for it.
    #[serde(rename = "k")]
    key_id: String,
    /// Milliseconds since 1970.
    #[serde(rename = "e")]
    expires_at: i64,
    /// Which secret signed it.
    #[serde(rename = "s")]
    secret_id: String,
}

/// A URL to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signing<'a> {
    pub purpose: Purpose,
    pub method: &'a Method,
    /// Path and, after a `?`, parameters in the query, percent-encoded; without the origin.
    pub target: &'a str,
    /// As [`Signed::caller`] is told it.
    pub resource: &'a str,
    pub project_id: &'a str,
    pub life_ms: u64,
}

/// A signed URL and its end.
#[derive(Debug, Clone)]
pub(crate) struct SignedUrl {
    /// Absolute when the client's `Host` is usable or an origin is configured, else from `/`.
    pub url: String,
    pub expires_at: Timestamp,
}

/// The secret, once it was asked for.
#[derive(Debug, Default)]
pub(crate) struct SigningSecret(OnceCell<ServerSecret>);

impl App {
    /// A URL that allows what `signing` says, in the name of the caller.
    ///
    /// # Errors
    /// When the store has no secret to give.
    pub(crate) async fn signed_url(
        &self,
        who: &Principal,
        request: &RequestContext,
        signing: Signing<'_>,
    ) -> ApiResult<SignedUrl> {
        let secret = self.signing_secret().await?;
        let expires_at = Timestamp::now().plus_millis(signing.life_ms);
        let grant = Grant {
            purpose: signing.purpose,
            method: signing.method.as_str().to_owned(),
            resource: signing.resource.to_owned(),
            org_id: who.org_id.clone(),
            project_id: signing.project_id.to_owned(),
            key_id: who.key_id.to_string(),
            expires_at: expires_at.as_millis(),
            secret_id: secret.id.clone(),
        };
        let token = sign(&grant, &secret.secret);
        let origin = request.origin.as_deref().unwrap_or_default();
        let joint = if signing.target.contains('?') {
            '&'
        } else {
            '?'
        };
        let url = format!("{origin}{}{joint}{PARAMETER}={token}", signing.target);
        Ok(SignedUrl { url, expires_at })
    }

    async fn signing_secret(&self) -> ApiResult<&ServerSecret> {
        self.signing
            .0
            .get_or_try_init(|| async {
                let mut secret = vec![0; SECRET_BYTES];
                fill_random(&mut secret).map_err(ApiError::internal)?;
                let fresh = ServerSecret {
                    id: uuid::Uuid::now_v7().simple().to_string(),
                    kind: SECRET_KIND.to_owned(),
                    secret,
                    created_at: crate::auth::micros(Timestamp::now()),
                };
                Ok(self.store.server_secret_or(&fresh).await?)
            })
            .await
    }

    /// The key behind a grant, if it still stands.
    async fn principal_of(&self, grant: &Grant) -> ApiResult<Principal> {
        if IdKind::AgentCredential.matches(&grant.key_id) {
            let agent = self
                .agent_of(&grant.key_id)
                .await?
                .filter(|agent| agent.org_id == grant.org_id && agent.may_touch(&grant.project_id));
            return agent
                .map(|agent| Principal {
                    project_ids: Some(vec![grant.project_id.clone()]),
                    ..agent
                })
                .ok_or_else(|| refusal("the token that this URL was made with is over"));
        }
        let key = self.standing_key(&grant.org_id, &grant.key_id).await?;
        let key = key.ok_or_else(|| refusal("the key that this URL was made with is revoked"))?;
        let scopes: ScopeSet = key
            .scopes
            .iter()
            .filter_map(|scope| scope.parse().ok())
            .collect();
        Ok(Principal {
            actor: Actor::ApiKey,
            plan: self.plan_of(&key.org_id).await?,
            key_id: key.id.into(),
            org_id: key.org_id,
            user_id: key.created_by_user_id,
            scopes,
            project_ids: Some(vec![grant.project_id.clone()]),
        })
    }
}

/// A caller with a key, or with a signed URL instead. The route must ask for [`Signed::caller`]
/// before it does anything.
#[derive(Debug)]
pub(crate) enum Signed<const SCOPE: u8> {
    Key(Caller<SCOPE>),
    Url(Box<ByUrl>),
}

/// A request with a good token, which has not been compared with what it asks for.
#[derive(Debug)]
pub(crate) struct ByUrl {
    app: App,
    grant: Grant,
    method: Method,
    request: RequestContext,
}

impl<const SCOPE: u8> FromRequestParts<App> for Signed<SCOPE> {
    type Rejection = ApiError;

    /// A key is stronger than a signature: who sends both is judged by the key alone.
    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        let has_key = parts.headers.contains_key(header::AUTHORIZATION)
            || parts.headers.contains_key("x-api-key");
        let token = parts.uri.query().and_then(token_of);
        let Some(token) = token.filter(|_| !has_key) else {
            return Caller::from_request_parts(parts, app).await.map(Self::Key);
        };
        let secret = app.signing_secret().await?;
        let grant = verify(token, secret, Timestamp::now())?;
        let request = parts
            .extensions
            .get::<RequestContext>()
            .cloned()
            .ok_or_else(|| ApiError::internal("a route outside the request layer"))?;
        request.set_key(&Arc::from(grant.key_id.as_str()));
        Ok(Self::Url(Box::new(ByUrl {
            app: app.clone(),
            grant,
            // What may be read may be asked about.
            method: if parts.method == Method::HEAD {
                Method::GET
            } else {
                parts.method.clone()
            },
            request,
        })))
    }
}

impl<const SCOPE: u8> Signed<SCOPE> {
    /// Who asks for that resource, with that purpose. A caller by URL is confined to the project
    /// that the URL names.
    ///
    /// # Errors
    /// `unauthorized` when the URL is for something else or its key is revoked; `forbidden` when
    /// that lacks the scope.
    pub(crate) async fn caller(self, purpose: Purpose, resource: &str) -> ApiResult<Caller<SCOPE>> {
        let by_url = match self {
            Self::Key(caller) => return Ok(caller),
            Self::Url(by_url) => by_url,
        };
        let ByUrl {
            app,
            grant,
            method,
            request,
        } = *by_url;
        if grant.purpose != purpose || grant.method != method.as_str() || grant.resource != resource
        {
            return Err(refusal("the signature of this URL is for another request"));
        }
        let principal = Arc::new(app.principal_of(&grant).await?);
        if let Some(limit) = principal.plan.limits(&app.config).requests_per_minute_max {
            request.set_allowance(app.rates.count(&principal.key_id, limit)?);
        }
        let scope = Scope::ALL.iter().copied().find(|s| *s as u8 == SCOPE);
        if let Some(scope) = scope {
            principal.require(scope)?;
        }
        Ok(Caller { principal, request })
    }
}

fn refusal(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Unauthorized, message)
}

/// The token in a query.
fn token_of(query: &str) -> Option<&str> {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(PARAMETER)?.strip_prefix('='))
}

fn mac(payload: &[u8], secret: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(CONTEXT);
    mac.update(payload);
    mac
}

fn sign(grant: &Grant, secret: &[u8]) -> String {
    let payload = serde_json::to_vec(grant).expect("strings and numbers are always JSON");
    let tag = mac(&payload, secret).finalize().into_bytes();
    format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(payload),
        URL_SAFE_NO_PAD.encode(tag)
    )
}

/// What a token allows, if we signed it and its time is not over. The payload is not looked at
/// before its signature was found to be good; that comparison takes constant time.
fn verify(token: &str, secret: &ServerSecret, now: Timestamp) -> ApiResult<Grant> {
    let malformed = || refusal("the signature of this URL is malformed");
    if token.len() > TOKEN_BYTES_MAX {
        return Err(malformed());
    }
    let (payload, tag) = token.split_once('.').ok_or_else(malformed)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| malformed())?;
    let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| malformed())?;
    mac(&payload, &secret.secret)
        .verify_slice(&tag)
        .map_err(|_| refusal("the signature of this URL is wrong"))?;
    let grant: Grant = serde_json::from_slice(&payload).map_err(|_| malformed())?;
    if grant.secret_id != secret.id {
        return Err(refusal("the signature of this URL is wrong"));
    }
    if now.as_millis() >= grant.expires_at {
        return Err(refusal("this URL has expired; ask for a new one"));
    }
    Ok(grant)
}

/// Bytes of the kernel's random source.
fn fill_random(bytes: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
    }
    Ok(())
}

/// For fuzz/: any token is refused or means exactly what was signed.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_token(query: &str) {
    let secret = ServerSecret {
        id: "s".to_owned(),
        kind: SECRET_KIND.to_owned(),
        secret: vec![7; SECRET_BYTES],
        created_at: 0,
    };
    if let Some(token) = token_of(query) {
        assert!(verify(token, &secret, Timestamp::from_millis(0)).is_err());
    }
    let grant = Grant {
        purpose: Purpose::FileDownload,
        method: "GET".to_owned(),
        resource: query.to_owned(),
        org_id: query.to_owned(),
        project_id: String::new(),
        key_id: String::new(),
        expires_at: 1,
        secret_id: "s".to_owned(),
    };
    let token = sign(&grant, &secret.secret);
    if token.len() <= TOKEN_BYTES_MAX {
        let found = verify(&token, &secret, Timestamp::from_millis(0));
        assert_eq!(found.expect("we signed it"), grant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> ServerSecret {
        ServerSecret {
            id: "s1".to_owned(),
            kind: SECRET_KIND.to_owned(),
            secret: vec![3; SECRET_BYTES],
            created_at: 0,
        }
    }

    fn grant() -> Grant {
        Grant {
            purpose: Purpose::FileDownload,
            method: "GET".to_owned(),
            resource: "sbx_1 /workspace/ü".to_owned(),
            org_id: "org_1".to_owned(),
            project_id: "prj_1".to_owned(),
            key_id: "key_1".to_owned(),
            expires_at: 1_000,
            secret_id: "s1".to_owned(),
        }
    }

    fn verdict(token: &str, secret: &ServerSecret, now: i64) -> Result<Grant, String> {
        verify(token, secret, Timestamp::from_millis(now)).map_err(|error| {
            assert_eq!(error.code, ErrorCode::Unauthorized);
            error.message
        })
    }

    #[test]
    fn what_was_signed_is_what_is_found_until_its_time() {
        let token = sign(&grant(), &secret().secret);
        assert_eq!(verdict(&token, &secret(), 999), Ok(grant()));
        assert!(
            verdict(&token, &secret(), 1_000)
                .unwrap_err()
                .contains("expired")
        );
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let token = sign(&grant(), &secret().secret);
        for position in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[position] = if changed[position] == b'A' {
                b'B'
            } else {
                b'A'
            };
            let changed = String::from_utf8(changed).unwrap();
            assert!(verdict(&changed, &secret(), 0).is_err(), "{position}");
        }
        for cut in 0..token.len() {
            assert!(verdict(&token[..cut], &secret(), 0).is_err(), "{cut}");
        }
        let other = ServerSecret {
            secret: vec![4; SECRET_BYTES],
            ..secret()
        };
        assert!(verdict(&token, &other, 0).is_err());
        let renamed = ServerSecret {
            id: "s2".to_owned(),
            ..secret()
        };
        assert!(verdict(&token, &renamed, 0).is_err());
        assert!(verdict(&"A".repeat(TOKEN_BYTES_MAX + 1), &secret(), 0).is_err());
    }

    #[test]
    fn tokens_are_found_in_queries() {
        assert_eq!(token_of("path=a&signature=x.y&z"), Some("x.y"));
        assert_eq!(token_of("signature=x"), Some("x"));
        assert_eq!(token_of("signatures=x&asignature=y"), None);
    }
}
