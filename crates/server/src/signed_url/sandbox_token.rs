//! Tokens for one sandbox: what a client is given instead of its key where it sends a credential
//! with every request, to hosts and ports that it was told.
//!
//! A token is a grant like that of a URL. It stands for the key that asked for it, in one sandbox,
//! and ends with either.

use super::{Grant, Purpose, TOKEN_BYTES_MAX, refusal, sign, verify};
use crate::app::App;
use crate::auth::{Actor, Principal};
use crate::error::ApiResult;
use crate::sandboxes::LiveSandbox;
use crownest_api::Timestamp;
use std::sync::Arc;

/// Stands for every method.
const ANY_METHOD: &str = "*";

impl App {
    /// A token that stands for the caller in that sandbox, as long as a sandbox can live.
    ///
    /// # Errors
    /// When the store has no secret to give.
    pub(crate) async fn sandbox_token(
        &self,
        who: &Principal,
        live: &LiveSandbox,
    ) -> ApiResult<String> {
        let life_ms = who.plan.limits(&self.config).session_ttl_max_ms;
        let end = Timestamp::now().plus_millis(life_ms);
        self.token(who, live, live.id.clone(), end).await
    }

    /// A token that opens one port of that sandbox and nothing else, until `end`.
    ///
    /// # Errors
    /// When the store has no secret to give.
    pub(crate) async fn port_token(
        &self,
        who: &Principal,
        live: &LiveSandbox,
        port: u16,
        end: Timestamp,
    ) -> ApiResult<String> {
        self.token(who, live, port_of(&live.id, port), end).await
    }

    async fn token(
        &self,
        who: &Principal,
        live: &LiveSandbox,
        resource: String,
        end: Timestamp,
    ) -> ApiResult<String> {
        let secret = self.signing_secret().await?;
        let grant = Grant {
            purpose: Purpose::SandboxAccess,
            method: ANY_METHOD.to_owned(),
            resource,
            org_id: live.org_id.clone(),
            project_id: live.project_id.clone(),
            key_id: who.key_id.to_string(),
            expires_at: end.as_millis(),
            secret_id: secret.id.clone(),
        };
        Ok(sign(&grant, &secret.secret))
    }

    /// Who stands behind a token of [`App::sandbox_token`].
    ///
    /// # Errors
    /// `unauthorized` when it is not ours, for something else, over, or its key is revoked.
    pub(crate) async fn bearer_in(&self, token: &str, id: &str) -> ApiResult<Arc<Principal>> {
        self.bearer(token, id).await
    }

    /// Who stands behind a token of [`App::port_token`].
    ///
    /// # Errors
    /// As [`App::bearer_in`].
    pub(crate) async fn bearer_at(
        &self,
        token: &str,
        id: &str,
        port: u16,
    ) -> ApiResult<Arc<Principal>> {
        self.bearer(token, &port_of(id, port)).await
    }

    async fn bearer(&self, token: &str, resource: &str) -> ApiResult<Arc<Principal>> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(refusal("the token of this sandbox is malformed"));
        }
        let secret = self.signing_secret().await?;
        let grant = verify(token, secret, Timestamp::now())?;
        if grant.purpose != Purpose::SandboxAccess || grant.resource != resource {
            return Err(refusal("this token is for something else"));
        }
        // Under a name of its own: what is remembered for a token is never found by a key.
        let digest = *blake3::Hasher::new_derive_key("crownest sandbox token 1")
            .update(token.as_bytes())
            .finalize()
            .as_bytes();
        if let Some(principal) = self.keys.get(&digest) {
            return Ok(principal);
        }
        let generation = self.keys.generation();
        let principal = Arc::new(self.principal_of(&grant).await?);
        // Whether an agent's credential stands is asked each time.
        if principal.actor == Actor::ApiKey {
            self.keys.insert(digest, &principal, generation);
        }
        Ok(principal)
    }
}

/// What a token for a port is about; no id of a sandbox looks like this.
fn port_of(id: &str, port: u16) -> String {
    format!("{id}:{port}")
}
