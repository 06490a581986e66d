//! Snapshots: the file system of a sandbox, kept on this node for sandboxes to come.
//!
//! Order of a making: row, processes stopped, file, processes on, row. Order of a deletion: row,
//! file, row. Whatever is killed in between, a row leads to the file or the file belongs to nobody,
//! and the next server removes what is not whole ([`App::recover_snapshots`]). The file is the
//! spawner's: this process never sees a byte of it.

use crate::app::App;
use crate::audit::{AuditLog, Deed};
use crate::auth::{Principal, micros};
use crate::creation::Creation;
use crate::disk;
use crate::error::{ApiError, ApiResult};
use crate::host::{HostError, SandboxKey, SnapshotSize, SpawnerError};
use crate::pausing::time_left;
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use crownest_api::{ErrorCode, IdKind, Timestamp, new_id};
use crownest_store as store;
use crownest_store::SnapshotEnd;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Longest name of a snapshot.
pub(crate) const SNAPSHOT_NAME_BYTES_MAX: usize = 128;
/// The state of one that can be used.
const READY: &str = "ready";
/// Snapshots of one organization.
const SNAPSHOTS_PER_ORG_MAX: i64 = 100;

impl App {
    /// Begins to keep the files of a sandbox; its programs stand still for that time. The snapshot
    /// is `creating` when this returns, and becomes `ready` or `failed`.
    ///
    /// # Errors
    /// `quota_exceeded`, `unavailable` when the disk is full or the store cannot be asked.
    pub(crate) async fn create_snapshot(
        &self,
        who: &Principal,
        request: &RequestContext,
        live: &Arc<LiveSandbox>,
        name: Option<String>,
    ) -> ApiResult<store::Snapshot> {
        if name.as_ref().is_some_and(|name| {
            name.is_empty() || name.len() > SNAPSHOT_NAME_BYTES_MAX || name.contains('\0')
        }) {
            let message = format!("name has 1 to {SNAPSHOT_NAME_BYTES_MAX} bytes");
            return Err(ApiError::field("name", message));
        }
        self.check_room(who).await?;
        let id = new_id(IdKind::Snapshot);
        let now = micros(Timestamp::now());
        let row = {
            let sandbox = live.row();
            store::Snapshot {
                id,
                org_id: live.org_id.clone(),
                project_id: live.project_id.clone(),
                sandbox_id: live.id.clone(),
                node_id: sandbox.node_id.clone(),
                state: "creating".to_owned(),
                name,
                template_slug: sandbox.template_slug.clone(),
                template_version_id: sandbox.template_version_id.clone(),
                size_bytes: 0,
                entries: 0,
                failure: None,
                created_at: now,
                changed_at: now,
                created_by: who.key_id.to_string(),
            }
        };
        let details = json!({ "sandboxId": live.id });
        let event = AuditLog::event_by_key(who, request, deed("snapshot.create", &row), &details);
        let (app, live, made) = (self.clone(), Arc::clone(live), row.clone());
        // To its end in any case: nobody else would end the row before the next start.
        self.finish_anyway(async move {
            app.store.insert_snapshot(&made).await?;
            app.audit.push(event);
            let worker = app.clone();
            app.tasks
                .spawn(async move { worker.make_snapshot(&live, &made).await });
            ApiResult::Ok(())
        })
        .await?;
        Ok(row)
    }

    async fn check_room(&self, who: &Principal) -> ApiResult<()> {
        if self.store.count_snapshots(&who.org_id).await? >= SNAPSHOTS_PER_ORG_MAX {
            let message = format!("an organization has at most {SNAPSHOTS_PER_ORG_MAX} snapshots");
            return Err(ApiError::new(ErrorCode::QuotaExceeded, message)
                .with_details(json!({ "limit": SNAPSHOTS_PER_ORG_MAX })));
        }
        if disk::is_scarce(&self.config.data_dir, disk::FREE_BYTES_MIN) {
            let message = "the storage of the server is full; nothing was changed";
            return Err(ApiError::new(ErrorCode::Unavailable, message).retry_after(1_000));
        }
        Ok(())
    }

    async fn make_snapshot(&self, live: &LiveSandbox, row: &store::Snapshot) {
        let outcome = self.keep_files(live, row).await;
        let why = match &outcome {
            Ok(_) => String::new(),
            Err(error) => {
                tracing::warn!(%error, snapshot = %row.id, "a snapshot failed");
                error.message.clone()
            }
        };
        let end = match outcome {
            Ok(size) => SnapshotEnd::Ready {
                size_bytes: i64::try_from(size.bytes).unwrap_or(i64::MAX),
                entries: i64::try_from(size.entries).unwrap_or(i64::MAX),
            },
            Err(_) => SnapshotEnd::Failed { why: &why },
        };
        let at = micros(Timestamp::now());
        if let Err(error) = self.store.end_snapshot(&row.id, end, at).await {
            // The next start finds the row and gives it up, with its file.
            tracing::error!(%error, snapshot = %row.id, "the end of a snapshot was not recorded");
        }
    }

    /// Stops what runs in the sandbox, unless it is paused, while its files are read.
    async fn keep_files(
        &self,
        live: &LiveSandbox,
        row: &store::Snapshot,
    ) -> ApiResult<SnapshotSize> {
        let key = key(row).ok_or_else(|| ApiError::internal("the id of a snapshot"))?;
        let _turn = live.turn.lock().await;
        if live.ending.load(Ordering::Relaxed) {
            return Err(ApiError::destroyed());
        }
        let paused = live.paused.load(Ordering::Relaxed);
        if !paused {
            live.host.pause().await?;
        }
        let kept = live.host.keep_files(&key).await;
        if !paused && let Err(error) = live.host.resume(time_left(live)).await {
            tracing::warn!(%error, sandbox = %live.id, "a sandbox stands still after a snapshot");
            live.host.go_on_at_last().await;
        }
        if kept.is_err() {
            // A spawner that was killed in the middle may have finished.
            let removed = self.host.remove_snapshot(&key).await;
            if let Err(error) = removed {
                tracing::warn!(%error, snapshot = %row.id, "removing a failed snapshot");
            }
        }
        kept.map_err(|error| match error {
            // Its words are for whoever asks why.
            HostError::Spawner(SpawnerError::Refused(what)) => {
                ApiError::new(ErrorCode::Unavailable, what)
            }
            other => other.into(),
        })
    }

    /// Snapshots that the caller may see and that pass the filter, newest first, and how many they
    /// are in all. Pages count from 1.
    pub(crate) async fn list_snapshots(
        &self,
        who: &Principal,
        mut filter: store::SnapshotFilter,
        page: u32,
        page_size: u32,
    ) -> ApiResult<(Vec<store::Snapshot>, i64)> {
        let limit = store::Limit::new(u64::from(page_size)).ok_or_else(|| {
            let max = store::PAGE_ROWS_MAX;
            ApiError::field("pageSize", format!("a page has 1 to {max} rows"))
        })?;
        let skip = i64::from(page.saturating_sub(1)) * i64::from(page_size);
        filter.project_ids.clone_from(&who.project_ids);
        Ok(self
            .store
            .snapshots(&who.org_id, &filter, skip, limit)
            .await?)
    }

    /// One snapshot, in whatever state.
    ///
    /// # Errors
    /// `not_found`, for those of others too.
    pub(crate) async fn get_snapshot(
        &self,
        who: &Principal,
        id: &str,
    ) -> ApiResult<store::Snapshot> {
        let unknown = || ApiError::not_found("snapshot");
        if !IdKind::Snapshot.matches(id) {
            return Err(unknown());
        }
        let row = self.store.snapshot(&who.org_id, id).await?;
        if who.may_touch(&row.project_id) {
            Ok(row)
        } else {
            Err(unknown())
        }
    }

    /// Takes a snapshot away: its file is gone when this returns.
    ///
    /// # Errors
    /// `not_found`; `snapshot_not_ready` while it is being made; `unavailable` when its file could not
    /// be removed: asking again, or the next start, does it.
    pub(crate) async fn delete_snapshot(
        &self,
        who: &Principal,
        request: &RequestContext,
        id: &str,
    ) -> ApiResult<()> {
        let row = self.get_snapshot(who, id).await?;
        if row.node_id != self.config.node_id {
            return Err(elsewhere());
        }
        let event = AuditLog::event_by_key(who, request, deed("snapshot.delete", &row), &json!({}));
        let app = self.clone();
        self.finish_anyway(async move {
            let now = micros(Timestamp::now());
            if !app.store.delete_snapshot(&row.org_id, &row.id, now).await? {
                let message = "the snapshot is being made";
                return Err(ApiError::new(ErrorCode::SnapshotNotReady, message));
            }
            app.remove_deleted(&row).await?;
            app.audit.push(event);
            Ok(())
        })
        .await
    }

    async fn remove_deleted(&self, row: &store::Snapshot) -> ApiResult<()> {
        if let Some(key) = key(row) {
            self.host.remove_snapshot(&key).await?;
        }
        Ok(self.store.snapshot_deleted(&row.id).await?)
    }

    /// Makes a creation one from a snapshot: same template version, its files first.
    ///
    /// # Errors
    /// `not_found`, `snapshot_not_ready`; `storage_full` when the disk of the sandbox would be too
    /// small; `unavailable` when it is on another node.
    pub(crate) async fn creation_from_snapshot(
        &self,
        who: &Principal,
        mut creation: Creation,
        id: &str,
    ) -> ApiResult<Creation> {
        let row = self.get_snapshot(who, id).await?;
        if row.state != READY {
            let message = format!("the snapshot is {}", row.state);
            return Err(ApiError::new(ErrorCode::SnapshotNotReady, message)
                .with_details(json!({ "state": row.state })));
        }
        if row.node_id != self.config.node_id {
            return Err(elsewhere());
        }
        let asked = &creation.request;
        let other = |asked: &Option<String>, has: &str| asked.as_ref().is_some_and(|a| a != has);
        if other(&asked.template, &row.template_slug)
            || other(&asked.template_version_id, &row.template_version_id)
        {
            let message = "the snapshot was made of a sandbox of another template";
            return Err(ApiError::new(ErrorCode::BackupTemplateMismatch, message)
                .with_details(json!({ "template": row.template_slug })));
        }
        let disk = creation.limits.disk_bytes;
        if u64::try_from(row.size_bytes).unwrap_or(u64::MAX) > disk {
            let message = "the files of the snapshot do not fit on the disk that is asked for";
            return Err(ApiError::new(ErrorCode::StorageFull, message)
                .with_details(json!({ "sizeBytes": row.size_bytes, "limit": disk })));
        }
        creation.request.template = Some(row.template_slug.clone());
        creation.request.template_version_id = Some(row.template_version_id.clone());
        creation.snapshot = Some(row);
        Ok(creation)
    }

    /// Makes rows and files agree after a start: what was being made is given up, what was being
    /// deleted is, and a file that no row leads to is removed.
    pub(crate) async fn recover_snapshots(&self) -> ApiResult<()> {
        let rows = self.store.snapshots_of_node(&self.config.node_id).await?;
        // A directory that cannot be looked into says nothing of what is in it.
        let files: Option<HashSet<SandboxKey>> = match self.host.list_snapshots().await {
            Ok(files) => Some(files.into_iter().collect()),
            Err(error) => {
                tracing::error!(%error, "the files of snapshots cannot be listed");
                None
            }
        };
        let now = micros(Timestamp::now());
        let mut kept = HashSet::new();
        for row in &rows {
            let key = key(row);
            let has_file = |key: &SandboxKey| files.as_ref().is_none_or(|all| all.contains(key));
            match row.state.as_str() {
                READY if key.as_ref().is_some_and(has_file) => kept.extend(key),
                READY => {
                    let why = "its file is gone";
                    tracing::error!(snapshot = %row.id, why, "a snapshot is lost");
                    self.store.snapshot_lost(&row.id, why, now).await?;
                }
                "creating" => {
                    let why = "the server was restarted while it was made";
                    let end = SnapshotEnd::Failed { why };
                    self.store.end_snapshot(&row.id, end, now).await?;
                }
                "deleting" => {
                    if let Err(error) = self.remove_deleted(row).await {
                        tracing::error!(%error, snapshot = %row.id, "removing a snapshot");
                    }
                }
                _ => {}
            }
        }
        for key in files.iter().flatten().filter(|key| !kept.contains(*key)) {
            if let Err(error) = self.host.remove_snapshot(key).await {
                tracing::error!(%error, %key, "removing what belongs to no snapshot");
            }
        }
        Ok(())
    }
}

/// What the file of a snapshot is called.
pub(crate) fn key(row: &store::Snapshot) -> Option<SandboxKey> {
    SandboxKey::new(IdKind::Snapshot.suffix(&row.id)?)
}

fn elsewhere() -> ApiError {
    let message = "the snapshot is on another node";
    ApiError::new(ErrorCode::Unavailable, message)
}

fn deed<'a>(action: &'static str, row: &'a store::Snapshot) -> Deed<'a> {
    Deed {
        action,
        resource_kind: "snapshot",
        resource_id: &row.id,
        project_id: Some(&row.project_id),
        outcome: "ok",
    }
}
