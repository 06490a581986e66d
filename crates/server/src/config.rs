//! What the server is told at start. The command line reads it from files and arguments; here it
//! is plain values with the defaults of a self-hosted installation.

use crate::command_log::LogLimits;
use crate::plans::Plan;
use crate::templates::TemplateSource;
use crownest_api::limits;
use crownest_runtime::command::Limits;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a self-hosted server starts with.
const ARTIFACT_RETENTION_DAYS: u32 = 30;
const PREVIEWS_PER_ORG_MAX: u64 = 10;
const PREVIEWS_PER_SANDBOX_MAX: u64 = 3;
use std::time::Duration;

/// Directory of the logs of commands, in the data directory.
const LOGS_DIR: &str = "command-logs";
/// The same of detached code runs.
const RUN_LOGS_DIR: &str = "run-logs";
/// Log of one command that is kept when nothing else is said.
const COMMAND_LOG_BYTES_MAX: u64 = 256 * 1024 * 1024;
const COMMAND_LOG_DAYS: u64 = 30;
/// Largest archive of a workspace run when nothing else is said.
const WORKSPACE_ARCHIVE_BYTES_MAX: u64 = 512 << 20;

/// A program may think about an answer for two minutes.
const PREVIEW_ANSWER_MS_MAX: u64 = 120_000;

/// Configuration of the HTTP side. The host has its own.
#[derive(Debug, Clone)]
pub struct Config {
    /// Id of this machine in the store: `node_…`, the same over restarts.
    pub node_id: String,
    /// Origin under which clients reach the server (`https://sandboxes.example.org`); where it is
    /// absent the request's `Host` is used.
    pub public_origin: Option<String>,
    /// Previews are at `<slug>.preview.<domain>`.
    pub preview_domain: String,
    /// Longest silence of a preview's program before its answer begins.
    pub preview_answer_ms_max: u64,
    /// Slug of the template that is used when a request names none.
    pub default_template: String,
    /// What has been built; asked again when a template is not found.
    pub templates: TemplateSource,
    /// Plan of organizations that have none of their own.
    pub plan: Plan,
    /// Live sandboxes of one organization; none: as many as the machine takes.
    pub sandboxes_per_org_max: Option<u64>,
    /// Limits of a sandbox that asks for none, and the most that one may ask for.
    pub limits_default: Limits,
    pub limits_max: Limits,
    /// Longest time to live at creation, by an extension, and over all.
    pub ttl_max_ms: u64,
    pub extend_max_ms: u64,
    pub session_max_ms: u64,
    /// Days that an artifact is kept.
    pub artifact_retention_days: u32,
    /// Previews at once, of one organization and of one sandbox.
    pub previews_per_org_max: u64,
    pub previews_per_sandbox_max: u64,
    /// Requests of one key; none: the plan's.
    pub requests_per_minute_max: Option<u32>,
    /// Believe the headers of a dashboard on this machine that say who is asking.
    pub local_dashboard: bool,
    /// Environment of every sandbox, under its own.
    pub sandbox_env: BTreeMap<String, String>,
    /// Whether `/metrics` is served.
    pub metrics: bool,
    /// Where audit events are kept until the store has them; none: in memory alone.
    pub audit_dir: Option<PathBuf>,
    /// Where the server keeps what it writes.
    pub data_dir: PathBuf,
    /// Log of one command that is kept; above it the oldest part goes.
    pub command_log_bytes_max: u64,
    /// How long it is kept after it was last written to; 0: for ever.
    pub command_log_days: u64,
    /// Largest archive of a workspace run.
    pub workspace_archive_bytes_max: u64,
}

impl Config {
    /// Defaults for a machine with these templates.
    #[must_use]
    pub fn new(node_id: String, templates: TemplateSource) -> Self {
        Self {
            node_id,
            public_origin: None,
            preview_domain: "localhost".to_owned(),
            preview_answer_ms_max: PREVIEW_ANSWER_MS_MAX,
            default_template: "python".to_owned(),
            templates,
            plan: Plan::default(),
            sandboxes_per_org_max: None,
            limits_default: Limits::default(),
            limits_max: Limits {
                memory_bytes: 16 << 30,
                cpu_millis: 16_000,
                pids: 4_096,
                disk_bytes: 16 << 30,
                ..Limits::default()
            },
            ttl_max_ms: limits::SANDBOX_TTL_MAX_MS,
            extend_max_ms: limits::SANDBOX_EXTEND_MAX_MS,
            session_max_ms: limits::SANDBOX_SESSION_MAX_MS,
            artifact_retention_days: ARTIFACT_RETENTION_DAYS,
            previews_per_org_max: PREVIEWS_PER_ORG_MAX,
            previews_per_sandbox_max: PREVIEWS_PER_SANDBOX_MAX,
            requests_per_minute_max: None,
            local_dashboard: false,
            sandbox_env: BTreeMap::new(),
            metrics: true,
            audit_dir: None,
            data_dir: PathBuf::from("/var/lib/crownest/data"),
            command_log_bytes_max: COMMAND_LOG_BYTES_MAX,
            command_log_days: COMMAND_LOG_DAYS,
            workspace_archive_bytes_max: WORKSPACE_ARCHIVE_BYTES_MAX,
        }
    }

    /// Where the logs of commands are.
    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.data_dir.join(LOGS_DIR)
    }

    /// Where the logs of detached code runs are.
    pub(crate) fn run_logs_dir(&self) -> PathBuf {
        self.data_dir.join(RUN_LOGS_DIR)
    }

    pub(crate) fn command_log_age_max(&self) -> Option<Duration> {
        let seconds = self.command_log_days.saturating_mul(24 * 3_600);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    pub(crate) fn log_limits(&self) -> LogLimits {
        LogLimits::new(self.command_log_bytes_max)
    }
}
