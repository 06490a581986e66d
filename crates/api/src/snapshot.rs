//! Snapshots: file systems of sandboxes, kept for sandboxes to come. An extension.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a snapshot is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStatus {
    /// The sandbox stands still while its files are read.
    Creating,
    /// Sandboxes can begin with it.
    Ready,
    /// `failure` says why.
    Failed,
    Deleting,
}

/// The files that a sandbox had at some moment.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    #[schema(example = "snap_06f3m2c9r7x8k4e1t5w0q2z6ya")]
    pub id: String,
    pub project_id: String,
    pub sandbox_id: String,
    pub status: SnapshotStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub template_slug: String,
    pub template_version_id: String,
    /// What its files take in a sandbox, once it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    pub created_at: Timestamp,
}

/// `POST /v1/sandboxes/{id}/snapshots`.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct CreateSnapshot {
    /// For people; need not be unique.
    #[schema(min_length = 1, max_length = 128)]
    pub name: Option<String>,
}

/// Answer with one snapshot.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SnapshotAnswer {
    pub snapshot: Snapshot,
}

/// Answer with a page of snapshots, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    pub data: Vec<Snapshot>,
    /// Snapshots on all pages.
    pub total: u64,
}
