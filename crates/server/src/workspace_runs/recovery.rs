//! Runs of the server before: taken up where their records are; and those that nobody goes on with.

use super::record::{Failure, Record};
use crate::app::App;
use crate::auth::{Actor, Principal, micros};
use crate::error::{ApiError, ApiResult};
use crate::request::RequestContext;
use crownest_api::Timestamp;
use crownest_api::scope::ScopeSet;
use crownest_api::workspace_run::FailureReason;
use crownest_store as store;
use std::sync::Arc;
use std::time::Duration;
use store::WorkspaceRunStatus as Status;

/// How long a run waits for its archive and its start.
const WAIT_MAX_MS: i64 = 24 * 3_600_000;
const SWEEP_EVERY: Duration = Duration::from_secs(60);

impl App {
    /// Goes on with every run that an earlier server of this node has begun. After sandboxes and
    /// commands were restored.
    pub(crate) async fn restore_workspace_runs(&self) -> ApiResult<()> {
        let rows = self
            .store
            .active_workspace_runs(&self.config.node_id)
            .await?;
        for row in rows {
            let id = row.id.clone();
            match Record::read(row) {
                Ok(record) => {
                    let who = self.principal_of_run(&record).await?;
                    let request = RequestContext::new(record.spec.request_id.clone(), "", None);
                    self.carry_out(record, Arc::new(who), request);
                }
                Err(error) => tracing::error!(%error, run = id, "a run cannot be read"),
            }
        }
        Ok(())
    }

    /// Whoever asked for a run, as far as its later steps need it: scopes were checked then.
    async fn principal_of_run(&self, record: &Record) -> ApiResult<Principal> {
        Ok(Principal {
            actor: Actor::ApiKey,
            key_id: Arc::from(record.row.created_by.as_str()),
            plan: self.plan_of(&record.row.org_id).await?,
            org_id: record.row.org_id.clone(),
            user_id: String::new(),
            scopes: ScopeSet::default(),
            project_ids: None,
        })
    }

    /// Starts the task that ends runs whose archive never came, and removes archives.
    pub(crate) fn keep_workspace_runs(&self) {
        let app = self.clone();
        self.tasks.spawn(async move {
            loop {
                if let Err(error) = app.end_waiting_runs().await {
                    tracing::warn!(?error, "ending runs without an archive failed");
                }
                app.sweep_run_uploads();
                tokio::select! {
                    () = tokio::time::sleep(SWEEP_EVERY) => {}
                    () = app.stopping.cancelled() => return,
                }
            }
        });
    }

    async fn end_waiting_runs(&self) -> ApiResult<()> {
        let before = micros(Timestamp::now()) - WAIT_MAX_MS * 1_000;
        let node = &self.config.node_id;
        let limit = store::Limit::default();
        for row in self.store.open_workspace_runs(node, before, limit).await? {
            let record = Record::read(row).map_err(ApiError::internal)?;
            self.change_run(record, |record| match record.row.status {
                Status::AwaitingArchive | Status::ArchiveUploaded => {
                    let message = "no archive was uploaded and started within 24 hours";
                    let failure = Failure::new(FailureReason::UploadMissing, message);
                    record.state.failure = Some(failure);
                    Ok(Some(record.end(Status::Failed)))
                }
                _ => Ok(None),
            })
            .await?;
        }
        Ok(())
    }
}
