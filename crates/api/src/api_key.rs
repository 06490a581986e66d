//! API keys, without their secret: that is shown once, when the key is made.

use crate::scope::Scope;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What every secret starts with.
pub const SECRET_PREFIX: &str = "cn_live_";
/// Characters of the secret that are stored and shown.
pub const SHOWN_PREFIX_CHARS: usize = 12;

/// An API key.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    pub id: String,
    pub org_id: String,
    pub name: String,
    /// First characters of the secret.
    #[schema(example = "cn_live_k3x9")]
    pub prefix: String,
    /// Last four characters of the secret.
    pub last4: String,
    pub scopes: Vec<Scope>,
    /// Projects that the key may touch; absent: all of the organization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_ids: Option<Vec<String>>,
    pub created_by_user_id: String,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
}

/// A key to make.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateApiKey {
    pub name: Option<String>,
    /// Absent: every project of the organization.
    pub project_ids: Option<Vec<String>>,
    /// At least one.
    pub scopes: Vec<Scope>,
}

/// A new key with its secret, which is shown this once.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewApiKeyAnswer {
    pub api_key: ApiKey,
    pub secret: String,
}

/// Answer with one key.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyAnswer {
    pub api_key: ApiKey,
}
