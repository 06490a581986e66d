//! Workspace runs: an archive, one command, and what it left.

use crate::metadata::Metadata;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceRunStatus {
    AwaitingArchive,
    ArchiveUploaded,
    Starting,
    Extracting,
    Running,
    Collecting,
    /// The command exited with 0.
    Succeeded,
    Failed,
    Canceled,
}

/// Why a run failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The archive is damaged, or has something in it that is refused.
    ArchiveInvalid,
    /// It is too large inside, or larger than the sandbox's disk.
    ArchiveTooLarge,
    /// The command exited with another code than 0, or by a signal.
    CommandExit,
    /// The sandbox did not take the files.
    ExtractionFailed,
    InternalError,
    /// Another run has that sandbox.
    SandboxConflict,
    /// The sandbox could not be made, or ended under the run.
    SandboxUnavailable,
    Timeout,
    /// No archive came in time.
    UploadMissing,
}

/// Whose failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    Canceled,
    Platform,
    UserCommand,
    UserInput,
}

/// What became of the run's own sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CleanupStatus {
    Failed,
    /// It is kept, or was the client's, or there is none.
    NotRequested,
    Pending,
    Succeeded,
}

/// A file to keep as an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactRequest {
    /// Inside the workspace; relative to it when it does not begin with a slash.
    pub path: String,
    /// Default: the last part of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A file that could not be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactError {
    /// `file_not_found`, `path_outside_workspace` or `artifact_collect_failed`.
    pub code: String,
    pub message: String,
    pub path: String,
}

/// The archive of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceArchive {
    /// Lower-case hexadecimal.
    pub sha256: String,
    pub size_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded_at: Option<Timestamp>,
}

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceRun {
    #[schema(example = "wsr_06f3m2c9r7x8k4e1t5w0q2z6ya")]
    pub id: String,
    pub org_id: String,
    pub project_id: String,
    pub status: WorkspaceRunStatus,
    pub command: String,
    pub keep_sandbox: bool,
    #[schema(value_type = BTreeMap<String, String>)]
    pub metadata: Metadata,
    pub template_id: String,
    pub template_slug: String,
    pub template_version: String,
    pub template_version_id: String,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<WorkspaceArchive>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifact_errors: Vec<ArtifactError>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifact_ids: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup_status: Option<CleanupStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// From the start to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_keys: Option<Vec<String>>,
    /// Whether `/evidence` answers: once the run is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_available: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_class: Option<FailureClass>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<FailureReason>,
    /// Extension: the failure in words, with the entry of the archive where that is the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Whether the command came to its own end, whatever that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orchestration_succeeded: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub source_metadata: Option<Metadata>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded_at: Option<Timestamp>,
}

/// `POST /v1/workspace-runs`
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateWorkspaceRun {
    /// Run by a shell in `/workspace` when the archive has been unpacked there.
    #[schema(min_length = 1, example = "python3 main.py")]
    pub command: String,
    /// At most 32 files to keep.
    pub artifacts: Option<Vec<ArtifactRequest>>,
    /// Keep the run's own sandbox until its time is over.
    pub keep_sandbox: Option<bool>,
    /// At most 16 keys of at most 64 characters; values of at most 512; 4 KiB together.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub metadata: Option<Metadata>,
    pub project_id: Option<String>,
    /// A live sandbox to use instead of a new one; it is never destroyed by the run.
    pub sandbox_id: Option<String>,
    /// Where the archive comes from; limits as for `metadata`.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub source_metadata: Option<Metadata>,
    pub template: Option<String>,
    pub template_version_id: Option<String>,
    /// Of the command; default 600,000.
    #[schema(minimum = 1, maximum = 3_000_000)]
    pub timeout_ms: Option<u64>,
}

/// `POST /v1/workspace-runs/{id}/archive-transfer`
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateArchiveTransfer {
    /// Of the archive, 64 hexadecimal digits.
    pub sha256: String,
    #[schema(minimum = 1)]
    pub size_bytes: u64,
}

/// `POST /v1/workspace-runs/{id}/archive/finalize`
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FinalizeArchive {
    pub sha256: String,
    #[schema(minimum = 1)]
    pub size_bytes: u64,
    pub upload_id: String,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransferStatus {
    Pending,
    Uploaded,
    Finalized,
    Expired,
}

/// Where an archive is to be sent.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveTransfer {
    pub id: String,
    /// Always `sha256`.
    pub checksum_algorithm: String,
    pub expires_at: Timestamp,
    /// To send with the bytes, exactly.
    pub headers: BTreeMap<String, String>,
    pub max_size_bytes: u64,
    /// Always `PUT`.
    pub method: String,
    pub status: TransferStatus,
    /// Relative to this server; carries its own permission.
    pub upload_url: String,
    pub workspace_run_id: String,
}

/// What is left of a run that is over.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceRunEvidence {
    pub workspace_run_id: String,
    pub org_id: String,
    pub project_id: String,
    pub status: WorkspaceRunStatus,
    pub artifact_errors: Vec<ArtifactError>,
    pub artifact_ids: Vec<String>,
    pub cleanup_status: CleanupStatus,
    pub command: String,
    pub created_at: Timestamp,
    pub env_keys: Vec<String>,
    #[schema(value_type = BTreeMap<String, String>)]
    pub metadata: Metadata,
    pub orchestration_succeeded: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<WorkspaceArchive>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_class: Option<FailureClass>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<FailureReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub source_metadata: Option<Metadata>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Something that happened in a run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(
    tag = "type",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum WorkspaceRunEventKind {
    Status {
        status: WorkspaceRunStatus,
    },
    ArchiveProgress {
        received_bytes: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_bytes: Option<u64>,
    },
    Stdout {
        data: String,
    },
    Stderr {
        data: String,
    },
    ArtifactCollected {
        artifact_id: String,
        path: String,
    },
    ArtifactError {
        error: ArtifactError,
    },
    /// Nothing has happened; has the number of the event before it.
    Heartbeat,
    /// The last one.
    Terminal {
        workspace_run: Box<WorkspaceRun>,
    },
    /// The stream cannot go on.
    Error {
        code: String,
        message: String,
    },
}

/// An event with its number.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceRunEvent {
    #[serde(flatten)]
    pub kind: WorkspaceRunEventKind,
    pub seq: u64,
    pub created_at: Timestamp,
}

/// A page of events.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceRunEventPage {
    pub data: Vec<WorkspaceRunEvent>,
    pub has_more: bool,
    /// Number of the last event here, for `afterSeq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_seq: Option<u64>,
}

/// Answer with one run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceRunAnswer {
    pub workspace_run: WorkspaceRun,
}

/// Answer with an archive and its run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveAnswer {
    pub archive: WorkspaceArchive,
    pub workspace_run: WorkspaceRun,
}

/// Answer with a transfer.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ArchiveTransferAnswer {
    pub transfer: ArchiveTransfer,
}

/// Answer with the evidence of a run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EvidenceAnswer {
    pub evidence: WorkspaceRunEvidence,
}
