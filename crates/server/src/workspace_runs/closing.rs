//! The last steps of a run: files are kept, its own sandbox goes, the end is recorded.

use super::drive::Driver;
use super::failure::{Step, artifact_error};
use super::record::Failure;
use crate::checks;
use crate::error::{ApiError, ApiResult};
use crate::sandboxes::LiveSandbox;
use crownest_api::workspace_run::{CleanupStatus, WorkspaceRunEventKind};
use crownest_api::{IdKind, new_id};
use crownest_store as store;
use futures_util::FutureExt;
use std::sync::Arc;
use store::WorkspaceRunStatus as Status;

impl Driver {
    /// Keeps the files that were asked for, from the one on that was not tried yet.
    pub(super) async fn collect(&mut self, live: Option<&Arc<LiveSandbox>>) -> Step<()> {
        while let Some(asked) = self.record.spec.artifacts.get(self.record.state.collected) {
            let asked = asked.clone();
            self.choose_id().await?;
            let keeping = self.keep(live, &asked.path, asked.name.as_deref()).boxed();
            let event = match self.unless_ended(keeping).await? {
                Ok(artifact_id) => WorkspaceRunEventKind::ArtifactCollected {
                    artifact_id,
                    path: asked.path,
                },
                Err(error) => WorkspaceRunEventKind::ArtifactError {
                    error: artifact_error(&error, asked.path),
                },
            };
            self.record(|record| {
                record.state.collected += 1;
                record.state.keeping = None;
                match &event {
                    WorkspaceRunEventKind::ArtifactCollected { artifact_id, .. } => {
                        record.state.artifact_ids.push(artifact_id.clone());
                    }
                    WorkspaceRunEventKind::ArtifactError { error } => {
                        record.state.artifact_errors.push(error.clone());
                    }
                    _ => {}
                }
                vec![record.event(&event)]
            })
            .await?;
        }
        Ok(())
    }

    /// Records under which id the next file is kept, so that a server that is killed between
    /// keeping it and saying so has not kept it twice.
    async fn choose_id(&mut self) -> Step<()> {
        if let Some(id) = self.record.state.keeping.clone()
            && self.kept(&id).await.is_some()
        {
            return Ok(());
        }
        let id = new_id(IdKind::Artifact);
        self.record(|record| {
            record.state.keeping = Some(id.clone());
            Vec::new()
        })
        .await
    }

    async fn kept(&self, id: &str) -> Option<store::Artifact> {
        let kept = self.app.store.artifact(&self.record.row.org_id, id).await;
        kept.ok()
    }

    async fn keep(
        &self,
        live: Option<&Arc<LiveSandbox>>,
        path: &str,
        name: Option<&str>,
    ) -> ApiResult<String> {
        let id = self.record.state.keeping.clone().unwrap_or_default();
        let row = match self.kept(&id).await {
            Some(row) => row,
            None => {
                let live = live.ok_or_else(ApiError::destroyed)?;
                let path = checks::path("path", path)?;
                self.app.promote_path_as(id, live, &path, name).await?
            }
        };
        self.app.note_artifact_made(&self.who, &self.request, &row);
        Ok(row.id)
    }

    /// Takes the run's own sandbox away and records the end.
    pub(super) async fn finish(&mut self, status: Status, failure: Option<Failure>) -> Step<()> {
        if self.record.state.log.is_some_and(|log| log.count.is_none()) {
            let count = match self.command().await {
                Ok(found) => self.log_count(&found).await?,
                Err(_) => 0,
            };
            self.record(|record| {
                record.close_log(count);
                Vec::new()
            })
            .await?;
        }
        let own: Vec<_> = self
            .app
            .sandboxes
            .of_org(&self.record.row.org_id)
            .into_iter()
            .filter(|live| self.is_own(live))
            .collect();
        let wanted = self.record.spec.sandbox_id.is_none() && !self.record.spec.keep_sandbox;
        let mut cleanup = CleanupStatus::NotRequested;
        if wanted && (!own.is_empty() || self.record.state.sandbox_id.is_some()) {
            self.record(|record| {
                record.state.cleanup = Some(CleanupStatus::Pending);
                Vec::new()
            })
            .await?;
            cleanup = CleanupStatus::Succeeded;
            for live in own {
                if !self.end_sandbox(&live).await {
                    cleanup = CleanupStatus::Failed;
                }
            }
        }
        self.record(|record| {
            record.state.cleanup = Some(cleanup);
            record.state.failure.clone_from(&failure);
            record.end(status)
        })
        .await
    }
}
