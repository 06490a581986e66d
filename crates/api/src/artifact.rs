//! Artifacts: files that outlive their sandbox.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A file that is kept after its sandbox has ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    #[schema(example = "art_01h455vb4pex5vsknk084sn02q")]
    pub id: String,
    pub org_id: String,
    pub project_id: String,
    pub sandbox_id: String,
    #[schema(example = "report.html")]
    pub name: String,
    /// Where the bytes are in the object store.
    pub object_key: String,
    pub size_bytes: u64,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Where in the sandbox it came from; absent for outputs of runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_path: Option<String>,
    /// Extension: SHA-256 of the bytes, in lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// When it is deleted by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_expires_at: Option<Timestamp>,
}

/// `POST /v1/sandboxes/{id}/artifacts`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct CreateArtifact {
    /// Absolute under `/workspace`, or relative to it. A regular file.
    pub path: String,
    /// Default: the last component of the path.
    pub name: Option<String>,
}

/// Answer with one artifact.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ArtifactAnswer {
    pub artifact: Artifact,
}

/// A URL to download an artifact from. It carries its own permission until it expires; with an
/// API key it works as well, and then without end.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactDownloadUrl {
    /// Always `api_key`.
    #[schema(example = "api_key")]
    pub auth_mode: String,
    /// To be sent with the request; empty.
    pub headers: BTreeMap<String, String>,
    /// Always `GET`.
    #[schema(example = "GET")]
    pub method: String,
    pub url: String,
    pub expires_at: Timestamp,
}
