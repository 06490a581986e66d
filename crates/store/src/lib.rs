//! Metadata: organizations, users, projects, API keys, sandboxes, code contexts, detached code runs,
//! commands, idempotent replays, audit events, nodes and usage.
//!
//! The crate owns the schema, the SQL and the two databases it runs on (SQLite and PostgreSQL,
//! one logical schema, one set of functions). It does not know processes, HTTP or the wire
//! types: its rows are its own, ids and times come from the caller, and what a row means for a
//! client is decided elsewhere. File contents, artifacts and command logs are not kept here.
//!
//! - Ids are strings made by the caller; times are [`Micros`] since the Unix epoch.
//! - Everything that belongs to a tenant is asked for with the organization's id, so a row of
//!   another tenant looks exactly like a row that does not exist.
//! - Lists are newest first and paged with [`PageRequest`] and [`Page`].
//! - A function that returned `Ok` has committed.
//! - Every function may be cancelled by dropping its future: what it began is then either
//!   committed whole or not at all, and the connection stays usable.

mod column;
mod connections;
mod db;
mod error;
mod migrate;
mod page;
mod postgres;
mod sqlite;

mod agents;
mod api_keys;
mod artifacts;
mod audit_events;
mod bootstrap;
mod code_runs;
mod commands;
mod contexts;
mod idempotency;
mod nodes;
mod organizations;
mod previews;
mod projects;
mod recorded;
mod sandboxes;
mod server_secrets;
mod signing_keys;
mod snapshots;
mod usage_events;
mod users;
mod workspace_runs;

#[cfg(test)]
mod plans;

pub use agents::{AgentClaim, AgentCredential, AgentGrant, AgentRegistration, CredentialInserted};
pub use api_keys::{ApiKey, SecretHash};
pub use artifacts::Artifact;
pub use audit_events::{AuditEvent, AuditFilter};
pub use bootstrap::{Bootstrapped, Founding};
pub use code_runs::{CodeRun, CodeRunStatus};
pub use commands::{Command, CommandStatus};
pub use contexts::Context;
pub use db::{Durability, Store, StoreOptions};
pub use error::StoreError;
pub use idempotency::{
    Begun, IDEMPOTENT_BODY_BYTES_MAX, IDEMPOTENT_REPLAY_SECONDS, Owner, RequestHash, ScopeKey,
    StoredResponse,
};
pub use nodes::Node;
pub use organizations::Organization;
pub use page::{
    CURSOR_BYTES_MAX, Cursor, Limit, PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX, Page, PageRequest,
};
pub use previews::{
    PREVIEW_MINUTES_METRIC, Preview, PreviewInserted, PreviewLimits, SessionKey, preview_minutes,
};
pub use projects::Project;
pub use recorded::Records;
pub use sandboxes::{Ending, Expiry, Sandbox, SandboxFilter, SandboxStatus};
pub use server_secrets::ServerSecret;
pub use signing_keys::SigningKey;
pub use snapshots::{Snapshot, SnapshotEnd, SnapshotFilter};
pub use usage_events::{UsageEvent, UsageSum};
pub use users::User;
pub use workspace_runs::{WorkspaceRun, WorkspaceRunEvent, WorkspaceRunStatus, WorkspaceRunUpload};

/// Microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;
