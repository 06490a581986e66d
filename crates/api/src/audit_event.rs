//! Audit events: who did what, and how it ended. They outlive what they describe.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

/// One entry of the audit log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    pub id: String,
    pub org_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    pub created_at: Timestamp,
    pub actor: AuditActor,
    /// `<noun>.<verb>`: `sandbox.create`, `code.run`, `request.refuse` …
    #[schema(example = "sandbox.create")]
    pub action: String,
    pub resource: AuditResource,
    /// `ok`, or how it ended: `completed`, `timed_out`, `forbidden` …
    pub outcome: String,
    /// The request that did it; absent for what the server did by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What else is known, by action.
    #[schema(value_type = Object)]
    pub details: Box<RawValue>,
}

/// Who did it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditActor {
    /// `api_key`, `agent_credential`, `human` or `system`.
    pub kind: String,
    pub id: String,
}

/// What it was done to. It may be gone.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditResource {
    pub kind: String,
    pub id: String,
}

/// Which entries to list. All that are given must match.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    pub project_id: Option<String>,
    pub actor_id: Option<String>,
    pub action: Option<String>,
    pub resource_kind: Option<String>,
    pub resource_id: Option<String>,
    /// Not older than this.
    #[param(value_type = Option<String>, format = DateTime)]
    pub from: Option<Timestamp>,
    /// Older than this.
    #[param(value_type = Option<String>, format = DateTime)]
    pub to: Option<Timestamp>,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// Items on a page, 1 to 500; 50 when absent.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
}
