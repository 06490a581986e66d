//! Agents: registrations, the claims by which a person lets one in, and the credentials that it
//! gets.
//!
//! A registration is nobody's until a claim of it is confirmed; then it belongs to one
//! organization for ever. Times decide what has expired, not jobs: purging only makes room.

use crate::column::{json, row};
use crate::db::{in_transaction, on_reader, on_writer};
use crate::{Micros, SecretHash, Store, StoreError};

/// An agent that has registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRegistration {
    pub id: String,
    /// How it registered.
    pub kind: String,
    pub status: String,
    pub platform: Option<String>,
    pub context_id: Option<String>,
    /// The only address that may claim it, when one was named.
    pub login_hint: Option<String>,
    pub requested_scopes: Vec<String>,
    /// Of the secret that is traded for the first token after the claim.
    pub claim_token_hash: Option<SecretHash>,
    pub org_id: Option<String>,
    /// The person in whose name it acts.
    pub user_id: Option<String>,
    pub project_ids: Option<Vec<String>>,
    pub scopes: Vec<String>,
    pub created_at: Micros,
    pub expires_at: Micros,
    pub claimed_at: Option<Micros>,
    pub revoked_at: Option<Micros>,
}

row!(AgentRegistration {
    id,
    kind,
    status,
    platform,
    context_id,
    login_hint,
    requested_scopes,
    claim_token_hash,
    org_id,
    user_id,
    project_ids,
    scopes,
    created_at,
    expires_at,
    claimed_at,
    revoked_at,
});

/// One attempt to have a registration claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentClaim {
    pub id: String,
    pub registration_id: String,
    /// What the person types. No two pending claims have the same.
    pub user_code: String,
    pub email: String,
    /// `pending`, `confirmed`, `denied`, `expired`, `superseded`.
    pub status: String,
    pub created_at: Micros,
    pub expires_at: Micros,
    pub polled_at: Option<Micros>,
    pub decided_at: Option<Micros>,
}

row!(AgentClaim {
    id,
    registration_id,
    user_code,
    email,
    status,
    created_at,
    expires_at,
    polled_at,
    decided_at,
});

/// What an access token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCredential {
    pub id: String,
    pub registration_id: String,
    /// `pre_claim` or `post_claim`.
    pub phase: String,
    pub org_id: Option<String>,
    pub user_id: Option<String>,
    pub project_ids: Option<Vec<String>>,
    pub scopes: Vec<String>,
    pub created_at: Micros,
    pub expires_at: Micros,
    pub revoked_at: Option<Micros>,
}

row!(AgentCredential {
    id,
    registration_id,
    phase,
    org_id,
    user_id,
    project_ids,
    scopes,
    created_at,
    expires_at,
    revoked_at,
});

/// What a person grants to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentGrant<'a> {
    pub org_id: &'a str,
    pub user_id: &'a str,
    /// `None`: every project of the organization.
    pub project_ids: Option<&'a [String]>,
    pub scopes: &'a [String],
}

/// What becomes of a credential that is to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialInserted {
    New,
    /// The registration is revoked, or in another phase.
    Refused,
    /// It has as many that live as it may have.
    Full,
}

macro_rules! insert_credential {
    ($credential:expr, $db:expr) => {
        sqlx::query(
            "INSERT INTO agent_credentials (id, registration_id, phase, org_id, user_id, \
             project_ids, scopes, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(&$credential.id)
        .bind(&$credential.registration_id)
        .bind(&$credential.phase)
        .bind(&$credential.org_id)
        .bind(&$credential.user_id)
        .bind($credential.project_ids.as_ref().map(json))
        .bind(json(&$credential.scopes))
        .bind($credential.created_at)
        .bind($credential.expires_at)
        .execute(&mut *$db)
        .await
        .map(|_| ())
    };
}

impl Store {
    /// Adds a registration that nobody has claimed. `false` when `unclaimed_max` live ones wait
    /// for that already.
    pub async fn insert_agent_registration(
        &self,
        registration: &AgentRegistration,
        unclaimed_max: i64,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "agent registration", db => sqlx::query(
                "INSERT INTO agent_registrations (id, kind, status, platform, context_id, \
                 login_hint, requested_scopes, claim_token_hash, scopes, created_at, expires_at) \
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 WHERE (SELECT COUNT(*) \
                 FROM agent_registrations WHERE claimed_at IS NULL AND expires_at > $10) < $12")
            .bind(&registration.id)
            .bind(&registration.kind)
            .bind(&registration.status)
            .bind(&registration.platform)
            .bind(&registration.context_id)
            .bind(&registration.login_hint)
            .bind(json(&registration.requested_scopes))
            .bind(registration.claim_token_hash.as_ref().map(SecretHash::as_bytes))
            .bind(json(&registration.scopes))
            .bind(registration.created_at)
            .bind(registration.expires_at)
            .bind(unclaimed_max)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// The registration of that id, of whatever organization.
    pub async fn agent_registration(
        &self,
        id: &str,
    ) -> Result<Option<AgentRegistration>, StoreError> {
        on_reader!(self, "agent registration", db => sqlx::query_as(
                "SELECT * FROM agent_registrations WHERE id = $1")
            .bind(id)
            .fetch_optional(db)
            .await)
    }

    /// The registration whose claim token that is.
    pub async fn agent_registration_by_claim_token(
        &self,
        token: &SecretHash,
    ) -> Result<Option<AgentRegistration>, StoreError> {
        on_reader!(self, "agent registration", db => sqlx::query_as(
                "SELECT * FROM agent_registrations WHERE claim_token_hash = $1")
            .bind(token.as_bytes())
            .fetch_optional(db)
            .await)
    }

    /// Registrations of an organization, newest first, at most `limit`.
    pub async fn agent_registrations(
        &self,
        org_id: &str,
        limit: i64,
    ) -> Result<Vec<AgentRegistration>, StoreError> {
        on_reader!(self, "agent registrations", db => sqlx::query_as(
                "SELECT * FROM agent_registrations WHERE org_id = $1 \
                 ORDER BY created_at DESC, id DESC LIMIT $2")
            .bind(org_id)
            .bind(limit)
            .fetch_all(db)
            .await)
    }

    /// Adds a pending claim in place of the one before. `false` when the registration has had
    /// `claims_max`; `Conflict` when a pending claim has that code.
    pub async fn insert_agent_claim(
        &self,
        claim: &AgentClaim,
        claims_max: i64,
    ) -> Result<bool, StoreError> {
        in_transaction!(self, "agent claim", db => {
            // Writes first: the row's lock makes claims of one registration follow each other.
            sqlx::query("UPDATE agent_registrations SET status = 'pending_claim' WHERE id = $1")
                .bind(&claim.registration_id)
                .execute(&mut *db)
                .await?;
            sqlx::query(
                    "UPDATE agent_claims SET status = CASE WHEN expires_at <= $2 THEN 'expired' \
                     ELSE 'superseded' END \
                     WHERE status = 'pending' AND (registration_id = $1 OR expires_at <= $2)")
                .bind(&claim.registration_id)
                .bind(claim.created_at)
                .execute(&mut *db)
                .await?;
            let before: i64 = sqlx::query_scalar(
                    "SELECT COUNT(*) FROM agent_claims WHERE registration_id = $1")
                .bind(&claim.registration_id)
                .fetch_one(&mut *db)
                .await?;
            if before >= claims_max {
                Ok(false)
            } else {
                sqlx::query(
                        "INSERT INTO agent_claims (id, registration_id, user_code, email, status, \
                         created_at, expires_at) VALUES ($1, $2, $3, $4, 'pending', $5, $6)")
                    .bind(&claim.id)
                    .bind(&claim.registration_id)
                    .bind(&claim.user_code)
                    .bind(&claim.email)
                    .bind(claim.created_at)
                    .bind(claim.expires_at)
                    .execute(&mut *db)
                    .await
                    .map(|_| true)
            }
        })
    }

    /// The newest claim of a registration.
    pub async fn newest_agent_claim(
        &self,
        registration_id: &str,
    ) -> Result<Option<AgentClaim>, StoreError> {
        on_reader!(self, "agent claim", db => sqlx::query_as(
                "SELECT * FROM agent_claims WHERE registration_id = $1 \
                 ORDER BY created_at DESC, id DESC LIMIT 1")
            .bind(registration_id)
            .fetch_optional(db)
            .await)
    }

    /// Notes that an agent asked how its claim stands. `false` when it asked after `since`
    /// already.
    pub async fn poll_agent_claim(
        &self,
        id: &str,
        now: Micros,
        since: Micros,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "agent claim", db => sqlx::query(
                "UPDATE agent_claims SET polled_at = $2 \
                 WHERE id = $1 AND (polled_at IS NULL OR polled_at <= $3)")
            .bind(id)
            .bind(now)
            .bind(since)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Claims that a person may decide, newest first, at most `limit`.
    pub async fn pending_agent_claims(
        &self,
        now: Micros,
        limit: i64,
    ) -> Result<Vec<AgentClaim>, StoreError> {
        on_reader!(self, "agent claims", db => sqlx::query_as(
                "SELECT * FROM agent_claims WHERE status = 'pending' AND expires_at > $1 \
                 ORDER BY created_at DESC, id DESC LIMIT $2")
            .bind(now)
            .bind(limit)
            .fetch_all(db)
            .await)
    }

    /// Decides the pending claim with that code: grants, or denies when there is no grant.
    /// `None` when there is no such claim, or not any more.
    pub async fn decide_agent_claim(
        &self,
        user_code: &str,
        grant: Option<AgentGrant<'_>>,
        now: Micros,
    ) -> Result<Option<AgentClaim>, StoreError> {
        let decision = if grant.is_some() {
            "confirmed"
        } else {
            "denied"
        };
        in_transaction!(self, "agent claim", db => {
            let decided: Option<AgentClaim> = sqlx::query_as(
                    "UPDATE agent_claims SET status = $2, decided_at = $3 \
                     WHERE user_code = $1 AND status = 'pending' AND expires_at > $3 RETURNING *")
                .bind(user_code)
                .bind(decision)
                .bind(now)
                .fetch_all(&mut *db)
                .await?
                .pop();
            if let (Some(claim), Some(grant)) = (&decided, grant) {
                let granted = sqlx::query(
                        "UPDATE agent_registrations SET status = 'claimed', org_id = $2, \
                         user_id = $3, project_ids = $4, scopes = $5, claimed_at = $6 \
                         WHERE id = $1 AND revoked_at IS NULL AND claimed_at IS NULL")
                    .bind(&claim.registration_id)
                    .bind(grant.org_id)
                    .bind(grant.user_id)
                    .bind(grant.project_ids.map(|ids| json(&ids)))
                    .bind(json(&grant.scopes))
                    .bind(now)
                    .execute(&mut *db)
                    .await?;
                if granted.rows_affected() == 0 {
                    // Revoked meanwhile: nothing is granted and nothing was decided.
                    return Err(sqlx::Error::RowNotFound);
                }
            }
            Ok(decided)
        })
        .or_else(|error| match error {
            StoreError::Statement {
                source: sqlx::Error::RowNotFound,
                ..
            } => Ok(None),
            other => Err(other),
        })
    }

    /// Trades the claim token of a claimed registration for its first credential. Of any number
    /// of callers with the right token one gets `true`.
    pub async fn redeem_agent_claim(
        &self,
        token: &SecretHash,
        credential: &AgentCredential,
    ) -> Result<bool, StoreError> {
        in_transaction!(self, "agent credential", db => {
            let redeemed = sqlx::query(
                    "UPDATE agent_registrations SET claim_token_hash = NULL \
                     WHERE id = $1 AND claim_token_hash = $2 AND claimed_at IS NOT NULL \
                     AND revoked_at IS NULL")
                .bind(&credential.registration_id)
                .bind(token.as_bytes())
                .execute(&mut *db)
                .await?
                .rows_affected() == 1;
            if redeemed {
                insert_credential!(credential, db)?;
            }
            Ok(redeemed)
        })
    }

    /// Adds a credential of a registration in the credential's own phase, unless `live_max` of
    /// them live.
    pub async fn insert_agent_credential(
        &self,
        credential: &AgentCredential,
        live_max: i64,
    ) -> Result<CredentialInserted, StoreError> {
        in_transaction!(self, "agent credential", db => {
            // The same row as a revocation writes: one comes after the other.
            let mine = sqlx::query(
                    "UPDATE agent_registrations SET status = status WHERE id = $1 \
                     AND revoked_at IS NULL AND (claimed_at IS NULL) = ($2 = 'pre_claim')")
                .bind(&credential.registration_id)
                .bind(&credential.phase)
                .execute(&mut *db)
                .await?
                .rows_affected();
            let live: i64 = sqlx::query_scalar(
                    "SELECT COUNT(*) FROM agent_credentials \
                     WHERE registration_id = $1 AND expires_at > $2 AND revoked_at IS NULL")
                .bind(&credential.registration_id)
                .bind(credential.created_at)
                .fetch_one(&mut *db)
                .await?;
            if mine == 0 {
                Ok(CredentialInserted::Refused)
            } else if live >= live_max {
                Ok(CredentialInserted::Full)
            } else {
                insert_credential!(credential, db).map(|()| CredentialInserted::New)
            }
        })
    }

    /// A credential that nobody has revoked, nor its registration; it may have expired.
    pub async fn agent_credential(&self, id: &str) -> Result<Option<AgentCredential>, StoreError> {
        on_reader!(self, "agent credential", db => sqlx::query_as(
                "SELECT c.* FROM agent_credentials AS c \
                 JOIN agent_registrations AS r ON r.id = c.registration_id \
                 WHERE c.id = $1 AND c.revoked_at IS NULL AND r.revoked_at IS NULL")
            .bind(id)
            .fetch_optional(db)
            .await)
    }

    /// Revokes one credential. `false` when there was nothing to revoke.
    pub async fn revoke_agent_credential(&self, id: &str, at: Micros) -> Result<bool, StoreError> {
        on_writer!(self, "agent credential", db => sqlx::query(
                "UPDATE agent_credentials SET revoked_at = $2 \
                 WHERE id = $1 AND revoked_at IS NULL")
            .bind(id)
            .bind(at)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Revokes a registration with everything that it has. `false` when it was revoked before or
    /// never was.
    pub async fn revoke_agent_registration(
        &self,
        id: &str,
        at: Micros,
    ) -> Result<bool, StoreError> {
        in_transaction!(self, "agent registration", db => {
            let revoked = sqlx::query(
                    "UPDATE agent_registrations SET status = 'revoked', revoked_at = $2, \
                     claim_token_hash = NULL WHERE id = $1 AND revoked_at IS NULL")
                .bind(id)
                .bind(at)
                .execute(&mut *db)
                .await?
                .rows_affected() == 1;
            sqlx::query(
                    "UPDATE agent_claims SET status = 'superseded' \
                     WHERE registration_id = $1 AND status = 'pending'")
                .bind(id)
                .execute(&mut *db)
                .await?;
            Ok(revoked)
        })
    }

    /// Removes credentials that expired before `before`, and registrations that nobody claimed
    /// until then, with their claims. Returns how many rows there were.
    pub async fn purge_agents(&self, before: Micros) -> Result<u64, StoreError> {
        const UNCLAIMED: &str = "registration_id IN (SELECT id FROM agent_registrations \
             WHERE claimed_at IS NULL AND expires_at < $1)";
        in_transaction!(self, "agents", db => {
            let mut removed = 0;
            for sql in [
                "DELETE FROM agent_credentials WHERE expires_at < $1".to_owned(),
                format!("DELETE FROM agent_credentials WHERE {UNCLAIMED}"),
                format!("DELETE FROM agent_claims WHERE {UNCLAIMED}"),
                "DELETE FROM agent_registrations WHERE claimed_at IS NULL AND expires_at < $1"
                    .to_owned(),
            ] {
                // Made of constants alone.
                let done = sqlx::query(sqlx::AssertSqlSafe(sql))
                    .bind(before)
                    .execute(&mut *db)
                    .await?;
                removed += done.rows_affected();
            }
            Ok(removed)
        })
    }
}
