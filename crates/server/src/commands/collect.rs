//! Files that a command should leave as artifacts: taken when its process has ended, before its
//! end is on record.
//!
//! Owns: what is taken and when, and what the record says of it. Does not own: artifacts.

use super::record::{Ended, collect_word};
use crate::app::App;
use crate::auth::Principal;
use crate::checks;
use crate::error::{ApiError, ApiResult};
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use crownest_api::command::{CollectError, CollectItem, CollectOn, CollectStatus};
use crownest_api::{ErrorCode, IdKind, Scope, limits, new_id};
use crownest_store as store;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a command is to leave; kept in its row, for a server that takes it over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Collection {
    items: Vec<CollectItem>,
    on: CollectOn,
    /// Ids of the artifacts that are being made, in the order of the items: on record before they
    /// are made, so that a server that is killed in the middle has not made them twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ids: Vec<String>,
}

/// Who is told to have made the artifacts; unknown once the server was restarted.
#[derive(Debug, Clone)]
pub(super) struct Collector {
    pub who: Arc<Principal>,
    pub request: RequestContext,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Collected {
    status: CollectStatus,
    errors: Vec<CollectError>,
}

impl Collection {
    /// None when nothing is asked for.
    pub(super) fn check(
        items: Option<Vec<CollectItem>>,
        on: Option<CollectOn>,
        who: &Principal,
    ) -> ApiResult<Option<Self>> {
        let items = items.unwrap_or_default();
        if items.is_empty() {
            return Ok(None);
        }
        if items.len() > limits::COLLECT_ITEMS_MAX {
            let max = limits::COLLECT_ITEMS_MAX;
            let message = format!("a command collects at most {max} files");
            return Err(ApiError::field("collect", message));
        }
        for item in &items {
            checks::path("collect", &item.path)?;
        }
        who.require(Scope::ArtifactCreate)?;
        Ok(Some(Self {
            items,
            on: on.unwrap_or_default(),
            ids: Vec::new(),
        }))
    }

    /// As a row keeps it.
    pub(super) fn stored(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    pub(super) fn of_row(row: &store::Command) -> Option<Self> {
        serde_json::from_str(row.collect.as_deref()?).ok()
    }

    /// Takes the files of a command that has ended.
    pub(super) async fn collect(
        mut self,
        app: &App,
        live: &Arc<LiveSandbox>,
        by: Option<&Collector>,
        (command, ended): (&str, &Ended),
    ) -> Collected {
        if self.on == CollectOn::Success && !ended.is_success() {
            return Collected {
                status: CollectStatus::Skipped,
                errors: Vec::new(),
            };
        }
        let known = self.choose_ids(app, &live.org_id, command).await;
        let mut errors = Vec::new();
        for ((item, id), known) in self.items.iter().zip(self.ids).zip(known) {
            let taken = match known {
                Some(artifact) => Ok(artifact),
                None => take(app, live, item, id).await,
            };
            match taken {
                Ok(artifact) => {
                    if let Some(by) = by {
                        app.note_artifact_made(&by.who, &by.request, &artifact);
                    }
                }
                Err(error) => errors.push(refused(item, &error)),
            }
        }
        Collected::of(self.items.len(), errors)
    }

    /// Chooses an id for every item and puts them on record; returns what a server before has
    /// made already.
    async fn choose_ids(
        &mut self,
        app: &App,
        org_id: &str,
        command: &str,
    ) -> Vec<Option<store::Artifact>> {
        let mut known = Vec::with_capacity(self.items.len());
        for id in &self.ids {
            known.push(app.store.artifact(org_id, id).await.ok());
        }
        known.resize(self.items.len(), None);
        self.ids.resize(self.items.len(), String::new());
        for (id, known) in self.ids.iter_mut().zip(&known) {
            if known.is_none() {
                *id = new_id(IdKind::Artifact);
            }
        }
        let plan = self.stored().unwrap_or_default();
        if let Err(error) = app.store.plan_collection(command, &plan).await {
            // They are taken all the same: a file more is better than one less.
            tracing::warn!(%error, command, "what is collected could not be put on record");
        }
        known
    }
}

async fn take(
    app: &App,
    live: &Arc<LiveSandbox>,
    item: &CollectItem,
    id: String,
) -> ApiResult<store::Artifact> {
    let path = checks::path("collect", &item.path)?;
    app.promote_path_as(id, live, &path, item.name.as_deref())
        .await
}

fn refused(item: &CollectItem, error: &ApiError) -> CollectError {
    let code = match error.code {
        ErrorCode::FileNotFound | ErrorCode::PathOutsideWorkspace => error.code.as_str(),
        _ => "artifact_collect_failed",
    };
    if let Some(cause) = &error.cause {
        tracing::warn!(%cause, "collecting an artifact failed");
    }
    CollectError {
        code: code.to_owned(),
        message: error.message.clone(),
        path: item.path.clone(),
    }
}

impl Collected {
    fn of(asked: usize, errors: Vec<CollectError>) -> Self {
        let status = match errors.len() {
            0 => CollectStatus::Succeeded,
            failed if failed == asked => CollectStatus::Failed,
            _ => CollectStatus::Partial,
        };
        Self { status, errors }
    }

    pub(super) fn write(&self, row: &mut store::Command) {
        row.collect_status = collect_word(self.status);
        if !self.errors.is_empty() {
            row.collect_errors = serde_json::to_string(&self.errors).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_how_much_was_taken() {
        let error = || CollectError {
            code: "file_not_found".into(),
            message: "not found".into(),
            path: "x".into(),
        };
        let status = |failed| {
            let errors = (0..failed).map(|_| error()).collect();
            Collected::of(2, errors).status
        };
        assert_eq!(status(0), CollectStatus::Succeeded);
        assert_eq!(status(1), CollectStatus::Partial);
        assert_eq!(status(2), CollectStatus::Failed);
    }
}
