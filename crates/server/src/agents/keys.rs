//! The keys that sign, over time.
//!
//! The newest key signs. It is replaced when it is [`ROTATE_AFTER_MS`] old, or when an operator
//! says so; the ones before are published until the last token that they signed has expired. All
//! of them are in the store, so that every server of an installation has the same.

use super::tokens::{ALGORITHM, Claims, Kind, Signer, TokenError, verify};
use super::{ASSERTION_SECONDS, KEEP_MS};
use crate::app::App;
use crate::auth::micros;
use crate::error::{ApiError, ApiResult};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crownest_api::Timestamp;
use crownest_store::SigningKey;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const ROTATE_AFTER_MS: u64 = 30 * 24 * 3_600_000;
/// After this the keys are read again: an operator may have made a new one.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A token with an unknown key has them read again, at most this often.
const UNKNOWN_READ_AFTER: Duration = Duration::from_millis(500);

/// What was read a moment ago.
#[derive(Debug, Default)]
pub(crate) struct SigningKeys(Mutex<Option<Arc<KeyRing>>>);

#[derive(Debug)]
struct KeyRing {
    signer: Signer,
    /// All of them: id, public key, newest first.
    public: Vec<(String, Vec<u8>)>,
    read_at: Instant,
}

impl KeyRing {
    fn public_key(&self, id: &str) -> Option<&[u8]> {
        let found = self.public.iter().find(|(known, _)| known == id);
        found.map(|(_, key)| key.as_slice())
    }
}

/// A new key, as it is kept.
///
/// # Errors
/// When there is no randomness to be had.
pub fn new_signing_key() -> ApiResult<SigningKey> {
    let id: [u8; 12] = crate::auth::random().map_err(ApiError::internal)?;
    let id = URL_SAFE_NO_PAD.encode(id);
    let (signer, private_key) = Signer::generate(id.clone()).map_err(ApiError::internal)?;
    Ok(SigningKey {
        id,
        algorithm: ALGORITHM.to_owned(),
        private_key,
        public_key: signer.public_key().to_vec(),
        created_at: micros(Timestamp::now()),
    })
}

impl App {
    /// The keys as of a moment ago, `fresh` or not.
    async fn key_ring(&self, age_max: Duration) -> ApiResult<Arc<KeyRing>> {
        if let Some(ring) = &*self
            .signing_keys
            .0
            .lock()
            .expect("no panic while it is held")
            && ring.read_at.elapsed() < age_max
        {
            return Ok(Arc::clone(ring));
        }
        let read_at = Instant::now();
        let mut kept = self.store.signing_keys().await?;
        let now = Timestamp::now().as_millis();
        let newest_at = |millis: u64| {
            let age = i64::try_from(millis).unwrap_or(i64::MAX);
            now.saturating_sub(age).saturating_mul(1_000)
        };
        let newer_than = newest_at(ROTATE_AFTER_MS);
        if kept.first().is_none_or(|key| key.created_at <= newer_than) {
            let key = new_signing_key()?;
            if self.store.insert_signing_key(&key, newer_than).await? {
                tracing::info!(key = key.id, "agents' tokens are signed with a new key");
            }
            kept = self.store.signing_keys().await?;
        }
        let newest = kept
            .first()
            .ok_or_else(|| ApiError::internal("no signing key"))?;
        let signer = Signer::from_kept(newest.id.clone(), &newest.private_key)
            .map_err(|error| ApiError::internal(format_args!("signing key: {error}")))?;
        let ring = Arc::new(KeyRing {
            signer,
            public: kept
                .into_iter()
                .filter(|key| key.algorithm == ALGORITHM)
                .map(|key| (key.id, key.public_key))
                .collect(),
            read_at,
        });
        *self
            .signing_keys
            .0
            .lock()
            .expect("no panic while it is held") = Some(Arc::clone(&ring));
        Ok(ring)
    }

    /// Signs with the newest key.
    pub(super) async fn sign(&self, kind: Kind, claims: &Claims) -> ApiResult<String> {
        let ring = self.key_ring(READ_AGAIN_AFTER).await?;
        Ok(ring.signer.sign(kind, claims))
    }

    /// The claims of a token of ours.
    pub(super) async fn believe(
        &self,
        token: &str,
        kind: Kind,
    ) -> ApiResult<Result<Claims, TokenError>> {
        let now = Timestamp::now();
        let ring = self.key_ring(READ_AGAIN_AFTER).await?;
        match verify(token, kind, now, |id| ring.public_key(id)) {
            // Another server may have made a key just now.
            Err(TokenError::UnknownKey) => {
                let ring = self.key_ring(UNKNOWN_READ_AFTER).await?;
                Ok(verify(token, kind, now, |id| ring.public_key(id)))
            }
            settled => Ok(settled),
        }
    }

    /// The public keys, for whoever wants to check a token.
    pub(crate) async fn jwks(&self) -> ApiResult<Value> {
        let ring = self.key_ring(READ_AGAIN_AFTER).await?;
        let keys: Vec<Value> = ring
            .public
            .iter()
            .map(|(id, key)| {
                json!({ "kty": "OKP", "crv": "Ed25519", "alg": ALGORITHM, "use": "sig",
                    "kid": id, "x": URL_SAFE_NO_PAD.encode(key) })
            })
            .collect();
        Ok(json!({ "keys": keys }))
    }

    /// Forgets keys whose last token has expired, and agents that nobody wanted.
    pub(crate) async fn purge_agents(&self) -> ApiResult<()> {
        let now = Timestamp::now().as_millis();
        let ago = |millis: u64| {
            let age = i64::try_from(millis).unwrap_or(i64::MAX);
            now.saturating_sub(age).saturating_mul(1_000)
        };
        let rows = self.store.purge_agents(ago(KEEP_MS)).await?;
        let signed_until = ROTATE_AFTER_MS + ASSERTION_SECONDS * 1_000 + KEEP_MS;
        let keys = self.store.delete_signing_keys(ago(signed_until)).await?;
        if rows + keys > 0 {
            tracing::info!(rows, keys, "agents purged");
        }
        Ok(())
    }
}
