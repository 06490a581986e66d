//! A sandbox as clients of this dialect see it, and what only this dialect remembers of one.

use super::image;
use crate::app::App;
use crate::recovery;
use crate::sandboxes;
use crownest_api::Timestamp;
use crownest_api::metadata::Metadata;
use crownest_api::sandbox::{self as api, DestroyedReason, SandboxStatus};
use crownest_store as store;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the row of a sandbox that was made here remembers of the request.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::dialects::opensandbox) struct Note {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// The command that the entrypoint is; none: it needs no process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, String>,
}

impl Note {
    /// Of a sandbox that was made here; none of any other.
    pub(in crate::dialects::opensandbox) fn of(row: &store::Sandbox) -> Option<Self> {
        serde_json::from_value(recovery::dialect(row)?).ok()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::dialects::opensandbox) struct Platform {
    pub os: String,
    pub arch: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_at: Option<Timestamp>,
}

/// An image, as it was asked for.
#[derive(Debug, Serialize)]
pub(super) struct Image {
    pub uri: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sandbox {
    pub id: String,
    /// Not in the answer to a creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    pub status: Status,
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, String>,
    pub entrypoint: Vec<String>,
    pub expires_at: Timestamp,
    pub created_at: Timestamp,
}

/// A row as clients see it.
pub(super) fn wire(app: &App, row: &store::Sandbox) -> Sandbox {
    let (sandbox, ending) = match app.sandboxes.get(&row.id) {
        Some(live) => {
            let ending = live.ending.load(std::sync::atomic::Ordering::Relaxed);
            (live.wire(), ending)
        }
        None => (sandboxes::wire(row), false),
    };
    let note = Note::of(row).unwrap_or_default();
    // Of a sandbox that was made elsewhere, its template is what it was made from.
    let image = match (&note.snapshot_id, note.image) {
        (Some(_), _) => None,
        (None, Some(uri)) => Some(uri),
        (None, None) => Some(image::of_template(&sandbox.template_slug)),
    };
    Sandbox {
        image: image.map(|uri| Image { uri }),
        snapshot_id: note.snapshot_id,
        platform: note.platform,
        status: status(&sandbox, ending),
        metadata: sandbox.metadata,
        extensions: note.extensions,
        entrypoint: note.entrypoint,
        expires_at: sandbox.expires_at,
        created_at: sandbox.created_at.unwrap_or(sandbox.expires_at),
        id: sandbox.id,
    }
}

fn status(sandbox: &api::Sandbox, ending: bool) -> Status {
    let state = match sandbox.status {
        SandboxStatus::Destroyed => "Terminated",
        SandboxStatus::Failed => "Failed",
        _ if ending => "Stopping",
        SandboxStatus::Creating | SandboxStatus::Starting => "Pending",
        SandboxStatus::Ready | SandboxStatus::Running | SandboxStatus::Idle => "Running",
        SandboxStatus::Paused => "Paused",
        SandboxStatus::Expiring => "Stopping",
    };
    let ended = sandbox.destroyed_reason.map(|reason| match reason {
        DestroyedReason::UserKilled => ("user_delete", "it was deleted"),
        DestroyedReason::TtlExpired => ("ttl_expiry", "its time was over"),
        DestroyedReason::IdleExpired => ("idle_expiry", "it was idle for too long"),
        DestroyedReason::PlatformCleanup => ("runtime_error", "it died, or its machine restarted"),
    });
    Status {
        state,
        reason: ended.map(|(reason, _)| reason),
        message: ended.map(|(_, message)| message),
        last_transition_at: sandbox.destroyed_at,
    }
}

/// The states there can be, for filters.
pub(super) fn is_over(state: &str) -> bool {
    matches!(state, "Terminated" | "Failed")
}
