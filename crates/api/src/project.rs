//! Projects: what sandboxes and keys belong to inside an organization.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A project.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    #[schema(example = "prj_06f3m2c9r7x8k4e1t5w0q2z6ya")]
    pub id: String,
    pub org_id: String,
    pub name: String,
    pub created_at: Timestamp,
}

/// `POST /v1/projects`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateProject {
    /// 1 to 128 characters.
    #[schema(min_length = 1, max_length = 128)]
    pub name: String,
}

/// Answer with one project.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProjectAnswer {
    pub project: Project,
}
