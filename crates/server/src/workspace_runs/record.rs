//! The record of a run: what was asked for, what has become of it, and both on the wire.

use crownest_api::Timestamp;
use crownest_api::metadata::Metadata;
use crownest_api::workspace_run::{
    ArtifactError, ArtifactRequest, CleanupStatus, FailureClass, FailureReason, WorkspaceArchive,
    WorkspaceRun, WorkspaceRunEventKind, WorkspaceRunEvidence, WorkspaceRunStatus,
};
use crownest_store as store;
use serde::{Deserialize, Serialize};

/// What was asked for; never changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Spec {
    pub command: String,
    pub artifacts: Vec<ArtifactRequest>,
    pub keep_sandbox: bool,
    pub metadata: Metadata,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_metadata: Option<Metadata>,
    /// A sandbox of the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    pub template: TemplateNote,
    pub timeout_ms: u64,
    /// The request that asked for it, for what is done in its name later.
    pub request_id: String,
}

/// The template, as it was when the run was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TemplateNote {
    pub id: String,
    pub slug: String,
    pub version: String,
    pub version_id: String,
}

/// What has become of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// Number of the last event.
    pub last_seq: u64,
    pub archive: Option<Archive>,
    pub started_at: Option<Timestamp>,
    /// A client wants its end.
    pub canceled: bool,
    pub sandbox_id: Option<String>,
    pub cleanup: Option<CleanupStatus>,
    pub command_id: Option<String>,
    /// Where the command's log is among the numbers of the events.
    pub log: Option<LogPlace>,
    pub exit_code: Option<i32>,
    /// Artifacts that were tried, in the order of the request.
    pub collected: usize,
    /// Id of the artifact that is being made of the next one.
    pub keeping: Option<String>,
    pub artifact_ids: Vec<String>,
    pub artifact_errors: Vec<ArtifactError>,
    pub failure: Option<Failure>,
    /// The command came to its own end.
    pub orchestrated: bool,
}

/// The archive that was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Archive {
    pub upload_id: String,
    pub sha256: String,
    pub size_bytes: u64,
    pub uploaded_at: Timestamp,
}

/// Record `n` of the log is event `base + n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogPlace {
    pub base: u64,
    /// How many there are, once that is known.
    pub count: Option<u64>,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub reason: FailureReason,
    pub message: String,
}

/// Longest message that is kept.
const MESSAGE_CHARS_MAX: usize = 1_000;

impl Failure {
    pub(super) fn new(reason: FailureReason, message: impl AsRef<str>) -> Self {
        let message = message.as_ref().chars().take(MESSAGE_CHARS_MAX).collect();
        Self { reason, message }
    }

    fn class(&self) -> FailureClass {
        match self.reason {
            FailureReason::ArchiveInvalid
            | FailureReason::ArchiveTooLarge
            | FailureReason::SandboxConflict
            | FailureReason::UploadMissing => FailureClass::UserInput,
            FailureReason::CommandExit | FailureReason::Timeout => FailureClass::UserCommand,
            FailureReason::ExtractionFailed
            | FailureReason::InternalError
            | FailureReason::SandboxUnavailable => FailureClass::Platform,
        }
    }
}

/// A row with its two documents read.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub row: store::WorkspaceRun,
    pub spec: Spec,
    pub state: State,
}

/// The event that a terminal one is stored as: the run in it is that of its row.
pub(super) const TERMINAL: &str = "\"terminal\"";

impl Record {
    /// # Errors
    /// When the row was not written by this program.
    pub(super) fn read(row: store::WorkspaceRun) -> serde_json::Result<Self> {
        Ok(Self {
            spec: serde_json::from_str(&row.spec)?,
            state: serde_json::from_str(&row.state)?,
            row,
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.row.id
    }

    pub(super) fn is_over(&self) -> bool {
        self.row.status.is_terminal()
    }

    /// Takes the next number. Nothing is numbered while the command's log still grows.
    pub(super) fn event(&mut self, kind: &WorkspaceRunEventKind) -> store::WorkspaceRunEvent {
        let event = serde_json::to_string(kind).unwrap_or_else(|_| "null".to_owned());
        self.numbered(event)
    }

    fn numbered(&mut self, event: String) -> store::WorkspaceRunEvent {
        self.state.last_seq += 1;
        store::WorkspaceRunEvent {
            run_id: self.row.id.clone(),
            seq: i64::try_from(self.state.last_seq).unwrap_or(i64::MAX),
            at: crate::auth::micros(Timestamp::now()),
            event,
        }
    }

    /// Enters a status, with the event that says so.
    pub(super) fn enter(&mut self, status: store::WorkspaceRunStatus) -> store::WorkspaceRunEvent {
        self.row.status = status;
        let status = status_on_wire(status);
        self.event(&WorkspaceRunEventKind::Status { status })
    }

    /// Ends it, with the last two events.
    pub(super) fn end(
        &mut self,
        status: store::WorkspaceRunStatus,
    ) -> Vec<store::WorkspaceRunEvent> {
        self.row.finished_at = Some(crate::auth::micros(Timestamp::now()));
        self.state
            .cleanup
            .get_or_insert(CleanupStatus::NotRequested);
        let entered = self.enter(status);
        vec![entered, self.numbered(TERMINAL.to_owned())]
    }

    /// The log has grown to its end: what follows is numbered behind it.
    pub(super) fn close_log(&mut self, count: u64) {
        if let Some(log) = &mut self.state.log
            && log.count.is_none()
        {
            log.count = Some(count);
            self.state.last_seq = log.base + count;
        }
    }

    /// As clients see it.
    pub(super) fn wire(&self) -> WorkspaceRun {
        let Self { row, spec, state } = self;
        let over = self.is_over();
        WorkspaceRun {
            id: row.id.clone(),
            org_id: row.org_id.clone(),
            project_id: row.project_id.clone(),
            status: status_on_wire(row.status),
            command: spec.command.clone(),
            keep_sandbox: spec.keep_sandbox,
            metadata: spec.metadata.clone(),
            template_id: spec.template.id.clone(),
            template_slug: spec.template.slug.clone(),
            template_version: spec.template.version.clone(),
            template_version_id: spec.template.version_id.clone(),
            created_at: time(row.created_at),
            archive: self.archive(),
            artifact_errors: state.artifact_errors.clone(),
            artifact_ids: state.artifact_ids.clone(),
            cleanup_status: state.cleanup,
            command_id: state.command_id.clone(),
            duration_ms: self.duration_ms(),
            env_keys: Some(Vec::new()),
            evidence_available: Some(over),
            exit_code: state.exit_code,
            failure_class: self.failure_class(),
            failure_reason: self.failure().map(|failure| failure.reason),
            failure_message: self.failure().map(|failure| failure.message.clone()),
            finished_at: row.finished_at.map(time),
            orchestration_succeeded: over.then_some(state.orchestrated),
            sandbox_id: state.sandbox_id.clone().or_else(|| spec.sandbox_id.clone()),
            source_metadata: spec.source_metadata.clone(),
            started_at: state.started_at,
            timeout_ms: Some(spec.timeout_ms),
            uploaded_at: state.archive.as_ref().map(|archive| archive.uploaded_at),
        }
    }

    /// What is left of it.
    pub(super) fn evidence(&self) -> WorkspaceRunEvidence {
        let run = self.wire();
        WorkspaceRunEvidence {
            workspace_run_id: run.id,
            org_id: run.org_id,
            project_id: run.project_id,
            status: run.status,
            artifact_errors: run.artifact_errors,
            artifact_ids: run.artifact_ids,
            cleanup_status: run.cleanup_status.unwrap_or(CleanupStatus::NotRequested),
            command: run.command,
            created_at: run.created_at,
            env_keys: Vec::new(),
            metadata: run.metadata,
            orchestration_succeeded: self.state.orchestrated,
            archive: run.archive,
            command_id: run.command_id,
            duration_ms: run.duration_ms,
            exit_code: run.exit_code,
            failure_class: run.failure_class,
            failure_reason: run.failure_reason,
            failure_message: run.failure_message,
            finished_at: run.finished_at,
            sandbox_id: run.sandbox_id,
            source_metadata: run.source_metadata,
            started_at: run.started_at,
            timeout_ms: run.timeout_ms,
        }
    }

    pub(super) fn archive(&self) -> Option<WorkspaceArchive> {
        let archive = self.state.archive.as_ref()?;
        Some(WorkspaceArchive {
            sha256: archive.sha256.clone(),
            size_bytes: archive.size_bytes,
            uploaded_at: Some(archive.uploaded_at),
        })
    }

    fn failure_class(&self) -> Option<FailureClass> {
        match self.row.status {
            store::WorkspaceRunStatus::Canceled => Some(FailureClass::Canceled),
            _ => self.failure().map(Failure::class),
        }
    }

    /// What it failed with; said when it is over.
    fn failure(&self) -> Option<&Failure> {
        self.state.failure.as_ref().filter(|_| self.is_over())
    }

    fn duration_ms(&self) -> Option<u64> {
        let finished_at = self.row.finished_at.map(time)?;
        Some(self.state.started_at?.millis_until(finished_at))
    }
}

fn time(micros: i64) -> Timestamp {
    Timestamp::from_millis(micros / 1_000)
}

fn status_on_wire(status: store::WorkspaceRunStatus) -> WorkspaceRunStatus {
    use store::WorkspaceRunStatus as Stored;
    match status {
        Stored::AwaitingArchive => WorkspaceRunStatus::AwaitingArchive,
        Stored::ArchiveUploaded => WorkspaceRunStatus::ArchiveUploaded,
        Stored::Starting => WorkspaceRunStatus::Starting,
        Stored::Extracting => WorkspaceRunStatus::Extracting,
        Stored::Running => WorkspaceRunStatus::Running,
        Stored::Collecting => WorkspaceRunStatus::Collecting,
        Stored::Succeeded => WorkspaceRunStatus::Succeeded,
        Stored::Failed => WorkspaceRunStatus::Failed,
        Stored::Canceled => WorkspaceRunStatus::Canceled,
    }
}
