//! Who asks, and what they may do.
//!
//! A request carries `Authorization: Bearer <key>` or `x-api-key: <key>`. Keys are 256 random
//! bits, so one fast hash is enough to store them by. What a key may do is read from the store
//! and kept for a moment; revoking drops it at once.

use crate::agents::AGENT_TOKEN_BYTES_MAX;
use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::plans::Plan;
use crate::request::RequestContext;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use crownest_api::agent::AGENT_TOKEN_PREFIX;
use crownest_api::api_key::SECRET_PREFIX;
use crownest_api::scope::ScopeSet;
use crownest_api::{ErrorCode, IdKind, Scope, Timestamp};
use crownest_store::{ApiKey, SecretHash, StoreError};
use serde_json::json;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// Bytes of randomness in a secret.
const SECRET_RANDOM_BYTES: usize = 32;
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 512;
/// Keys remembered; above it everything is forgotten at once, which costs one read per key.
const KEYS_CACHED_MAX: usize = 4_096;
/// After this a key is read again: another server may have revoked it.
const KEY_AGE_MAX: Duration = Duration::from_secs(5);
/// `lastUsedAt` is this exact.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// What kind of credential acts; the word of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    ApiKey,
    /// An access token of an agent that registered by itself.
    AgentCredential,
    /// A person at the dashboard of this machine.
    Human,
}

impl Actor {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::AgentCredential => "agent_credential",
            Self::Human => "human",
        }
    }
}

/// The credential behind a request.
#[derive(Debug)]
pub struct Principal {
    pub actor: Actor,
    /// Id of the key; of a human the user's.
    pub key_id: Arc<str>,
    pub org_id: String,
    pub user_id: String,
    pub plan: Plan,
    pub scopes: ScopeSet,
    /// None: every project of the organization.
    pub project_ids: Option<Vec<String>>,
}

impl Principal {
    /// Whether the key may touch that project of its organization.
    pub fn may_touch(&self, project_id: &str) -> bool {
        self.project_ids
            .as_ref()
            .is_none_or(|ids| ids.iter().any(|id| id == project_id))
    }

    /// Refuses a caller without `scope`.
    pub fn require(&self, scope: Scope) -> ApiResult<()> {
        if self.scopes.contains(scope) {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::Forbidden,
            format!("this key lacks the scope {scope}"),
        )
        .with_details(json!({ "scope": scope.as_str() })))
    }
}

/// How often it is looked whether the credential of a long connection still stands.
const CREDENTIAL_EVERY: Duration = Duration::from_secs(5);
/// Where a local dashboard may speak for a person.
const DASHBOARD_ROUTES: &str = "/v1/api-keys";

/// Whom a layer has found to be asking, by a credential that is not looked for here. Taken before
/// what the headers say.
#[derive(Debug, Clone)]
pub(crate) struct Vouched(pub Arc<Principal>);

/// No scope in particular: any valid key.
pub(crate) const ANY_SCOPE: u8 = u8::MAX;

/// An authenticated caller that has the scope with that number: `Caller<{ Scope::X as u8 }>`.
/// Taking one as an argument is what guards a route.
#[derive(Debug, Clone)]
pub(crate) struct Caller<const SCOPE: u8> {
    pub principal: Arc<Principal>,
    pub request: RequestContext,
}

impl<const SCOPE: u8> Deref for Caller<SCOPE> {
    type Target = Principal;
    fn deref(&self) -> &Principal {
        &self.principal
    }
}

impl<const SCOPE: u8> FromRequestParts<App> for Caller<SCOPE> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        let request = parts
            .extensions
            .get::<RequestContext>()
            .cloned()
            .ok_or_else(|| ApiError::internal("a route outside the request layer"))?;
        let principal = if let Some(Vouched(principal)) = parts.extensions.get() {
            Arc::clone(principal)
        } else {
            match app.at_dashboard(&parts.headers, &request).await? {
                Some(human) => human,
                None => app.authenticate(token(&parts.headers)?).await?,
            }
        };
        request.set_key(&principal.key_id);
        parts.extensions.insert(Arc::clone(&principal));
        if let Some(limit) = principal.plan.limits(&app.config).requests_per_minute_max {
            request.set_allowance(app.rates.count(&principal.key_id, limit)?);
        }
        if let Some(scope) = Scope::ALL
            .iter()
            .copied()
            .find(|scope| *scope as u8 == SCOPE)
            && let Err(refusal) = principal.require(scope)
        {
            if !principal.org_id.is_empty() {
                app.audit.refusal(&principal, &request, scope);
            }
            return Err(refusal);
        }
        if principal.org_id.is_empty() && SCOPE != Scope::AgentBootstrap as u8 {
            let message = "nobody has let this agent in yet";
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
        Ok(Self { principal, request })
    }
}

/// A further scope of a route, as an argument after its [`Caller`] and before its body.
#[derive(Debug)]
pub(crate) struct Also<const SCOPE: u8>;

impl<const SCOPE: u8> FromRequestParts<App> for Also<SCOPE> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        let (Some(principal), Some(request), Some(scope)) = (
            parts.extensions.get::<Arc<Principal>>(),
            parts.extensions.get::<RequestContext>(),
            Scope::ALL.iter().find(|scope| **scope as u8 == SCOPE),
        ) else {
            return Err(ApiError::internal("a further scope without a caller"));
        };
        principal
            .require(*scope)
            .inspect_err(|_| app.audit.refusal(principal, request, *scope))?;
        Ok(Self)
    }
}

/// The token of a request.
pub(crate) fn token(headers: &HeaderMap) -> ApiResult<&str> {
    let malformed = || ApiError::new(ErrorCode::InvalidApiKey, "the API key is malformed");
    let token = if let Some(value) = headers.get(header::AUTHORIZATION) {
        let value = value.to_str().map_err(|_| malformed())?;
        let (scheme, token) = value.split_once(' ').ok_or_else(malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(malformed());
        }
        token.trim()
    } else if let Some(value) = headers.get("x-api-key") {
        value.to_str().map_err(|_| malformed())?.trim()
    } else {
        return Err(ApiError::new(
            ErrorCode::Unauthorized,
            "no API key: send Authorization: Bearer <key> or x-api-key: <key>",
        ));
    };
    if has_shape(token) {
        Ok(token)
    } else {
        Err(malformed())
    }
}

/// Whether it looks like a key or like an access token of an agent.
fn has_shape(token: &str) -> bool {
    if let Some(jwt) = token.strip_prefix(AGENT_TOKEN_PREFIX) {
        return jwt.len() <= AGENT_TOKEN_BYTES_MAX
            && jwt
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    }
    token.starts_with(SECRET_PREFIX)
        && token.len() <= TOKEN_BYTES_MAX
        && token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl App {
    /// Whose token that is.
    pub(crate) async fn authenticate(&self, token: &str) -> ApiResult<Arc<Principal>> {
        if token.starts_with(AGENT_TOKEN_PREFIX) {
            // Boxed: most callers have a key, and carry this future's size for nothing.
            return Box::pin(self.authenticate_agent(token)).await;
        }
        let digest = *blake3::hash(token.as_bytes()).as_bytes();
        if let Some(principal) = self.keys.get(&digest) {
            return Ok(principal);
        }
        let generation = self.keys.generation();
        let key = self.store.api_key_by_hash(&SecretHash::of(token)).await?;
        let key = key.filter(|key| key.revoked_at.is_none()).ok_or_else(|| {
            ApiError::new(
                ErrorCode::InvalidApiKey,
                "the API key is unknown or revoked",
            )
        })?;
        let principal = Arc::new(Principal {
            actor: Actor::ApiKey,
            plan: self.plan_of(&key.org_id).await?,
            key_id: key.id.into(),
            org_id: key.org_id,
            user_id: key.created_by_user_id,
            scopes: key
                .scopes
                .iter()
                .filter_map(|scope| scope.parse().ok())
                .collect(),
            project_ids: key.project_ids,
        });
        if self.keys.insert(digest, &principal, generation) {
            self.touch(&principal);
        }
        Ok(principal)
    }

    /// Whether the credential behind a principal still stands. A person at the dashboard has none.
    async fn still_stands(&self, who: &Principal) -> ApiResult<bool> {
        match who.actor {
            Actor::ApiKey => Ok(self.standing_key(&who.org_id, &who.key_id).await?.is_some()),
            Actor::AgentCredential => match self.agent_of(&who.key_id).await {
                Err(error) if error.code == ErrorCode::AgentRegistrationRevoked => Ok(false),
                other => Ok(other?.is_some()),
            },
            Actor::Human => Ok(true),
        }
    }

    /// Returns when the credential behind a principal is over: for whoever is connected for longer
    /// than a request takes. What cannot be looked up is looked up again.
    pub(crate) async fn revocation(&self, who: &Principal) {
        loop {
            tokio::time::sleep(CREDENTIAL_EVERY).await;
            match self.still_stands(who).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::warn!(error = %error.message, "looking a credential up"),
            }
        }
    }

    /// A key, unless it is revoked or gone.
    pub(crate) async fn standing_key(
        &self,
        org_id: &str,
        key_id: &str,
    ) -> ApiResult<Option<ApiKey>> {
        match self.store.api_key(org_id, key_id).await {
            Ok(key) => Ok(Some(key).filter(|key| key.revoked_at.is_none())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The person that a dashboard on this machine speaks for: only where the configuration says
    /// so, only about API keys, and only without a key.
    async fn at_dashboard(
        &self,
        headers: &HeaderMap,
        request: &RequestContext,
    ) -> ApiResult<Option<Arc<Principal>>> {
        let asked = self.config.local_dashboard
            && request.route.starts_with(DASHBOARD_ROUTES)
            && !headers.contains_key(header::AUTHORIZATION)
            && !headers.contains_key("x-api-key");
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (true, Some(org_id), Some(user_id)) = (
            asked,
            text("x-crownest-org-id").filter(|id| IdKind::Organization.matches(id)),
            text("x-crownest-user-id").filter(|id| IdKind::User.matches(id)),
        ) else {
            return Ok(None);
        };
        let may_manage = |role: &str| matches!(role, "owner" | "admin");
        let user = match self.store.user(org_id, user_id).await {
            Ok(user) => user,
            Err(StoreError::NotFound { .. }) => {
                return Err(ApiError::new(ErrorCode::Unauthorized, "no such user"));
            }
            Err(error) => return Err(error.into()),
        };
        if !may_manage(&user.role) || !text("x-crownest-role").is_some_and(may_manage) {
            let message = "only an owner or admin manages API keys";
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
        Ok(Some(Arc::new(Principal {
            actor: Actor::Human,
            key_id: user.id.clone().into(),
            plan: self.plan_of(org_id).await?,
            org_id: user.org_id,
            user_id: user.id,
            scopes: ScopeSet::all(),
            project_ids: None,
        })))
    }

    pub(crate) async fn plan_of(&self, org_id: &str) -> ApiResult<Plan> {
        let organization = self.store.organization(org_id).await?;
        match organization.plan.as_deref().map(str::parse) {
            None => Ok(self.config.plan),
            Some(Ok(plan)) => Ok(plan),
            Some(Err(error)) => Err(ApiError::internal(format_args!("{org_id}: {error}"))),
        }
    }

    /// Notes the use of a key, beside the request.
    fn touch(&self, principal: &Arc<Principal>) {
        let (app, key_id) = (self.clone(), Arc::clone(&principal.key_id));
        self.tasks.spawn(async move {
            let now = micros(Timestamp::now());
            if let Err(error) = app.store.touch_api_keys(&[(&key_id, now)]).await {
                tracing::warn!(%error, "noting the use of a key failed");
            }
        });
    }
}

/// Milliseconds of the API as microseconds of the store.
pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_millis().saturating_mul(1_000)
}

/// A new API key.
///
/// # Errors
/// When the kernel has no randomness to give.
pub(crate) fn new_secret() -> std::io::Result<String> {
    secret(SECRET_PREFIX)
}

/// Bytes that nobody can guess.
///
/// # Errors
/// When the kernel has no randomness to give.
pub(crate) fn random<const BYTES: usize>() -> std::io::Result<[u8; BYTES]> {
    let mut random = [0u8; BYTES];
    let mut filled = 0;
    while filled < random.len() {
        filled +=
            rustix::rand::getrandom(&mut random[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(random)
}

/// A new secret that begins with that prefix.
///
/// # Errors
/// When the kernel has no randomness to give.
pub(crate) fn secret(prefix: &str) -> std::io::Result<String> {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let random: [u8; SECRET_RANDOM_BYTES] = random()?;
    let mut secret = String::from(prefix);
    let (mut bits, mut count) = (0u32, 0);
    for byte in random {
        bits = (bits << 8) | u32::from(byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            secret.push(char::from(ALPHABET[(bits >> count) as usize & 31]));
        }
    }
    // The bit that is left over.
    secret.push(char::from(ALPHABET[(bits << (5 - count)) as usize & 31]));
    Ok(secret)
}

/// Keys that were valid a moment ago.
#[derive(Default)]
pub(crate) struct KeyCache(Mutex<Cached>);

#[derive(Default)]
struct Cached {
    /// By the first eight bytes of the digest; the rest is compared in constant time.
    keys: HashMap<u64, Entry>,
    /// When each key was last noted as used.
    touched: HashMap<Arc<str>, Instant>,
    /// Grows at every revocation, so that a key that was read before is not remembered after.
    generation: u64,
}

struct Entry {
    digest: [u8; 32],
    principal: Arc<Principal>,
    read_at: Instant,
}

impl KeyCache {
    fn lock(&self) -> MutexGuard<'_, Cached> {
        self.0.lock().expect("no panic while it is held")
    }

    pub(crate) fn get(&self, digest: &[u8; 32]) -> Option<Arc<Principal>> {
        let cached = self.lock();
        let entry = cached.keys.get(&slot(digest))?;
        let same = bool::from(entry.digest.ct_eq(digest));
        (same && entry.read_at.elapsed() < KEY_AGE_MAX).then(|| Arc::clone(&entry.principal))
    }

    pub(crate) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Remembers a key that was read in `generation`. True when its use should be noted now.
    pub(crate) fn insert(
        &self,
        digest: [u8; 32],
        principal: &Arc<Principal>,
        generation: u64,
    ) -> bool {
        let now = Instant::now();
        let mut cached = self.lock();
        if cached.generation == generation {
            if cached.keys.len() >= KEYS_CACHED_MAX {
                cached.keys.clear();
            }
            let entry = Entry {
                digest,
                principal: Arc::clone(principal),
                read_at: now,
            };
            cached.keys.insert(slot(&digest), entry);
        }
        if cached.touched.len() >= KEYS_CACHED_MAX {
            cached.touched.clear();
        }
        let last = cached.touched.get(&principal.key_id);
        let due = last.is_none_or(|last| now.duration_since(*last) >= TOUCH_EVERY);
        if due {
            cached.touched.insert(Arc::clone(&principal.key_id), now);
        }
        due
    }

    /// Forgets a key that was revoked.
    pub(crate) fn revoke(&self, key_id: &str) {
        let mut cached = self.lock();
        cached.generation += 1;
        cached
            .keys
            .retain(|_, entry| &*entry.principal.key_id != key_id);
    }
}

fn slot(digest: &[u8; 32]) -> u64 {
    let (first, _) = digest
        .split_first_chunk::<8>()
        .expect("a digest has 32 bytes");
    u64::from_le_bytes(*first)
}

impl std::fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyCache(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_distinct_and_pass_their_own_check() {
        let secrets = [new_secret().unwrap(), new_secret().unwrap()];
        assert_ne!(secrets[0], secrets[1]);
        for secret in &secrets {
            assert_eq!(secret.len(), SECRET_PREFIX.len() + 52);
            let mut headers = HeaderMap::new();
            headers.insert("x-api-key", secret.parse().unwrap());
            assert_eq!(token(&headers).unwrap(), secret);
        }
    }

    #[test]
    fn a_key_read_before_a_revocation_is_not_remembered_after_it() {
        let cache = KeyCache::default();
        let principal = Arc::new(Principal {
            actor: Actor::ApiKey,
            plan: Plan::SelfHosted,
            key_id: "key_1".into(),
            org_id: "org_1".into(),
            user_id: "usr_1".into(),
            scopes: ScopeSet::all(),
            project_ids: None,
        });
        let digest = [7; 32];
        cache.insert(digest, &principal, cache.generation());
        assert!(cache.get(&digest).is_some());
        let read_before = cache.generation();
        cache.revoke("key_1");
        assert!(cache.get(&digest).is_none());
        cache.insert(digest, &principal, read_before);
        assert!(cache.get(&digest).is_none());
    }
}
