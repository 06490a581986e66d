//! Sandboxes.

use crate::metadata::Metadata;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxStatus {
    Creating,
    Starting,
    Ready,
    /// A command or run is active.
    Running,
    /// Ready, and nothing is active.
    Idle,
    /// Extension: everything in it is stopped and kept in memory, until `/resume`.
    Paused,
    Expiring,
    Destroyed,
    Failed,
}

impl SandboxStatus {
    /// The word on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Paused => "paused",
            Self::Expiring => "expiring",
            Self::Destroyed => "destroyed",
            Self::Failed => "failed",
        }
    }

    /// Whether the sandbox is over for good.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Destroyed | Self::Failed)
    }
}

/// Why a sandbox is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DestroyedReason {
    IdleExpired,
    PlatformCleanup,
    TtlExpired,
    UserKilled,
}

impl DestroyedReason {
    /// The word on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdleExpired => "idle_expired",
            Self::PlatformCleanup => "platform_cleanup",
            Self::TtlExpired => "ttl_expired",
            Self::UserKilled => "user_killed",
        }
    }
}

/// Which network a sandbox has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Loopback, and HTTP(S) through the egress proxy.
    #[default]
    Proxy,
    /// Loopback only.
    None,
}

/// What a sandbox may use; absent values are the server's defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Memory of all its processes together, files in memory included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub memory_bytes: Option<u64>,
    /// Thousandths of one processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub pids: Option<u32>,
    /// What it may write to its file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub disk_bytes: Option<u64>,
}

/// A sandbox.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    #[schema(example = "sbx_06f3m2c9r7x8k4e1t5w0q2z6ya")]
    pub id: String,
    pub org_id: String,
    pub project_id: String,
    pub status: SandboxStatus,
    pub template_id: String,
    pub template_slug: String,
    pub template_version: String,
    pub template_version_id: String,
    pub ttl_ms: u64,
    pub expires_at: Timestamp,
    #[schema(value_type = BTreeMap<String, String>)]
    pub metadata: Metadata,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroyed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroyed_reason: Option<DestroyedReason>,
}

/// `POST /v1/sandboxes`. Every field may be left out.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateSandbox {
    /// Default: the key's only project, else the organization's default project.
    pub project_id: Option<String>,
    /// Slug: `base`, `python` or what else has been built.
    #[schema(example = "python")]
    pub template: Option<String>,
    pub template_version_id: Option<String>,
    /// Time to live from now; default and maximum one hour.
    #[schema(minimum = 1, maximum = 3_600_000)]
    pub ttl_ms: Option<u64>,
    /// At most 16 keys of at most 64 characters; values of at most 512; 4 KiB together.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub metadata: Option<Metadata>,
    /// A backup to start from; not enabled.
    pub restore_from: Option<String>,
    /// Extension: a snapshot whose files it begins with; brings its template along.
    pub snapshot_id: Option<String>,
    /// Extension: environment of every command and context in the sandbox.
    pub env: Option<BTreeMap<String, String>>,
    /// Extension: `proxy` (default) or `none`.
    pub network: Option<NetworkMode>,
    /// Extension: limits below the server's maxima.
    pub resources: Option<Resources>,
}

/// `POST /v1/sandboxes/{id}/extend` and `/ttl`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtendSandbox {
    /// New time to live, from now.
    #[schema(minimum = 1)]
    pub ttl_ms: u64,
}

/// Answer with one sandbox.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SandboxAnswer {
    pub sandbox: Sandbox,
}
