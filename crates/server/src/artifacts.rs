//! Artifacts: files that outlive their sandbox, from a path in it or from what a run displayed.
//!
//! Order of making one: row (pending), object, row (stored). Order of taking one away: row
//! (removing: nobody finds it any more), object, row (removed: the tombstone). Whatever is killed
//! in between, a row leads to the object, and a sweep finishes the work: at the start of a server
//! and every minute.

use crate::app::App;
use crate::audit::Deed;
use crate::auth::{Caller, Principal, micros};
use crate::error::{ApiError, ApiResult};
use crate::host::Within;
use crate::objects::ObjectsError;
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use axum::body::Bytes;
use crownest_api::artifact::Artifact;
use crownest_api::{ErrorCode, IdKind, Timestamp, derived_id, new_id};
use crownest_store as store;
use futures_util::Stream;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Largest artifact.
pub(crate) const ARTIFACT_BYTES_MAX: u64 = 16 << 30;
/// Longest name.
const NAME_CHARS_MAX: usize = 255;
/// How often what is over or was left behind is taken away.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Artifacts taken away in one step of a sweep.
const SWEEP_ROWS_MAX: i64 = 100;
/// An artifact that has been pending for so long is nobody's: whoever wrote it is dead.
const PENDING_MAX_MS: i64 = 6 * 3_600_000;
const DAY_MS: u64 = 24 * 3_600_000;

/// What an artifact is to be called, and what it is.
#[derive(Debug, Clone)]
pub(crate) struct Naming {
    pub name: String,
    pub content_type: String,
    pub source_path: Option<String>,
}

impl App {
    /// Makes an artifact of a file in a sandbox. `path` as `checks::path` returns it. Goes on to
    /// its end when the caller does not wait.
    ///
    /// # Errors
    /// Those of the file (`file_not_found`, `path_outside_workspace`, `path_is_directory` …);
    /// `file_too_large`; `unavailable` when the object store is away.
    pub(crate) async fn promote_path(
        &self,
        live: &Arc<LiveSandbox>,
        path: &str,
        name: Option<&str>,
    ) -> ApiResult<store::Artifact> {
        let id = new_id(IdKind::Artifact);
        self.promote_path_as(id, live, path, name).await
    }

    /// The same under an id that the caller has put on record, to find it again after a kill.
    pub(crate) async fn promote_path_as(
        &self,
        id: String,
        live: &Arc<LiveSandbox>,
        path: &str,
        name: Option<&str>,
    ) -> ApiResult<store::Artifact> {
        let file = self.open_file(live, path, Within::Workspace).await?;
        let size = file.stat.size;
        if size > ARTIFACT_BYTES_MAX {
            return Err(ObjectsError::TooLarge {
                limit: ARTIFACT_BYTES_MAX,
            }
            .into());
        }
        let name = match name {
            Some(name) => checked_name(name)?,
            // A path is bytes; a name is shown.
            None => file.name().replace(|c: char| c.is_control(), "_"),
        };
        let naming = Naming {
            content_type: content_type_of(&name, file.name()).to_owned(),
            name,
            source_path: Some(file.stat.path.clone()),
        };
        let bytes = file.bytes(0..size);
        let (app, live) = (self.clone(), Arc::clone(live));
        self.finish_anyway(async move { app.store_artifact(id, &live, naming, bytes, size).await })
            .await
    }

    /// Makes an artifact of bytes that came from a sandbox.
    pub(crate) async fn promote_bytes(
        &self,
        live: &Arc<LiveSandbox>,
        naming: Naming,
        bytes: Bytes,
    ) -> ApiResult<store::Artifact> {
        let size = bytes.len() as u64;
        let source = futures_util::stream::iter([Ok(bytes)]);
        let id = new_id(IdKind::Artifact);
        let (app, live) = (self.clone(), Arc::clone(live));
        self.finish_anyway(async move { app.store_artifact(id, &live, naming, source, size).await })
            .await
    }

    /// The same for bytes that are named by `origin`: of what a killed server has stored for it
    /// already there is no second one.
    pub(crate) async fn promote_bytes_once(
        &self,
        origin: &str,
        live: &Arc<LiveSandbox>,
        naming: Naming,
        bytes: Bytes,
    ) -> ApiResult<store::Artifact> {
        let size = bytes.len() as u64;
        let (app, live, origin) = (self.clone(), Arc::clone(live), origin.to_owned());
        self.finish_anyway(async move {
            let source = || futures_util::stream::iter([Ok(bytes.clone())]);
            app.store_artifact_once(&origin, &live, naming, source, size)
                .await
        })
        .await
    }

    /// Makes an artifact of what a stream brings, at most `bytes_max`. When the stream fails, or
    /// this future is dropped, there is none.
    pub(crate) async fn promote_stream<S>(
        &self,
        live: &Arc<LiveSandbox>,
        naming: Naming,
        source: S,
        bytes_max: u64,
    ) -> ApiResult<store::Artifact>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let id = new_id(IdKind::Artifact);
        self.store_artifact(id, live, naming, source, bytes_max)
            .await
    }

    /// An artifact whose id follows from where it comes from. One that is half written, by a
    /// server that is dead, is left to the sweep: then there is another one.
    pub(crate) async fn store_artifact_once<S>(
        &self,
        origin: &str,
        live: &Arc<LiveSandbox>,
        naming: Naming,
        source: impl Fn() -> S,
        bytes_max: u64,
    ) -> ApiResult<store::Artifact>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        if let Some(known) = self.artifact_of(origin, live).await? {
            return Ok(known);
        }
        let (id, first) = (id_of(origin), naming.clone());
        match self
            .store_artifact(id, live, first, source(), bytes_max)
            .await
        {
            Err(error) if error.code == ErrorCode::UploadConflict => {}
            stored => return stored,
        }
        let id = new_id(IdKind::Artifact);
        self.store_artifact(id, live, naming, source(), bytes_max)
            .await
    }

    /// The artifact that was stored for it before.
    pub(crate) async fn artifact_of(
        &self,
        origin: &str,
        live: &LiveSandbox,
    ) -> ApiResult<Option<store::Artifact>> {
        match self.store.artifact(&live.org_id, &id_of(origin)).await {
            Err(store::StoreError::NotFound { .. }) => Ok(None),
            known => Ok(Some(known?)),
        }
    }

    async fn store_artifact<S>(
        &self,
        id: String,
        live: &Arc<LiveSandbox>,
        naming: Naming,
        source: S,
        size: u64,
    ) -> ApiResult<store::Artifact>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let now = Timestamp::now();
        let plan = self.plan_of(&live.org_id).await?;
        let days = u64::from(plan.limits(&self.config).artifact_retention_days);
        let row = store::Artifact {
            object_key: format!(
                "orgs/{}/projects/{}/objects/{id}",
                live.org_id, live.project_id
            ),
            id,
            org_id: live.org_id.clone(),
            project_id: live.project_id.clone(),
            sandbox_id: live.id.clone(),
            node_id: self.config.node_id.clone(),
            state: "pending".to_owned(),
            name: naming.name,
            size_bytes: 0,
            sha256: None,
            content_type: Some(naming.content_type),
            source_path: naming.source_path,
            created_at: micros(now),
            retention_expires_at: micros(now.plus_millis(days.saturating_mul(DAY_MS))),
            deleted_at: None,
        };
        match self.store.insert_pending_artifact(&row).await {
            Err(store::StoreError::Conflict { .. }) => {
                let message = "an artifact of that id is there already";
                return Err(ApiError::new(ErrorCode::UploadConflict, message));
            }
            inserted => inserted?,
        }
        let outcome = self.fill_artifact(live, &row, source, size).await;
        if outcome.is_err() {
            let at = micros(Timestamp::now());
            // What cannot be given up now is when the time of pending ones is over.
            if self.store.abandon_artifact(&row.id, at).await.is_ok() {
                self.remove_object(&row).await;
            }
        }
        outcome
    }

    async fn fill_artifact<S>(
        &self,
        live: &LiveSandbox,
        row: &store::Artifact,
        source: S,
        size: u64,
    ) -> ApiResult<store::Artifact>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let stored = match self.objects.put_stream(&row.object_key, source, size).await {
            Ok(stored) => stored,
            Err(ObjectsError::Source(_)) if live.host.is_closed() => {
                return Err(ApiError::destroyed());
            }
            Err(ObjectsError::Source(error)) => {
                let message = format!("the file changed while it was read: {error}");
                return Err(ApiError::new(ErrorCode::UploadConflict, message));
            }
            Err(error) => return Err(error.into()),
        };
        let size = i64::try_from(stored.size_bytes).unwrap_or(i64::MAX);
        let row = self
            .store
            .artifact_stored(&row.id, size, &stored.sha256)
            .await?;
        self.note_usage(&live.row(), "artifact_bytes_stored", size);
        Ok(row)
    }

    /// A stored artifact that the caller may know of.
    pub(crate) async fn find_artifact(
        &self,
        who: &Principal,
        id: &str,
    ) -> ApiResult<store::Artifact> {
        let unknown = || ApiError::not_found("artifact");
        if !IdKind::Artifact.matches(id) {
            return Err(unknown());
        }
        let row = self.store.artifact(&who.org_id, id).await?;
        let is_over = row.retention_expires_at <= micros(Timestamp::now());
        if is_over || !who.may_touch(&row.project_id) {
            return Err(unknown());
        }
        Ok(row)
    }

    /// Takes an artifact away, and returns its tombstone.
    pub(crate) async fn delete_artifact(
        &self,
        row: &store::Artifact,
    ) -> ApiResult<store::Artifact> {
        let (app, org_id, id) = (self.clone(), row.org_id.clone(), row.id.clone());
        self.finish_anyway(async move {
            let at = micros(Timestamp::now());
            let gone = app.store.delete_artifact(&org_id, &id, at).await?;
            app.remove_object(&gone).await;
            Ok(gone)
        })
        .await
    }

    /// Deletes the object of an artifact that is *removing*. What fails is tried by the next sweep.
    async fn remove_object(&self, row: &store::Artifact) -> bool {
        if let Err(error) = self.objects.delete(&row.object_key).await {
            tracing::warn!(%error, artifact = row.id, "deleting an object failed");
            return false;
        }
        if let Err(error) = self.store.artifact_removed(&row.id).await {
            tracing::warn!(%error, artifact = row.id, "noting that an object is gone failed");
            return false;
        }
        true
    }

    /// Starts the task that takes away what is over, and what the server before left behind.
    pub(crate) fn keep_artifacts(&self) {
        let app = self.clone();
        // Not later: runs that go on may be writing some again by then.
        let now = micros(Timestamp::now());
        self.tasks.spawn(async move {
            let node = &app.config.node_id;
            match app.store.abandon_artifacts_of_node(node, now).await {
                Ok(0) => {}
                Ok(left) => tracing::info!(left, "artifacts were left half written"),
                Err(error) => tracing::warn!(%error, "looking for half written artifacts failed"),
            }
            loop {
                if let Err(error) = app.sweep_artifacts().await {
                    tracing::warn!(%error, "taking artifacts away failed");
                }
                tokio::select! {
                    () = tokio::time::sleep(SWEEP_EVERY) => {}
                    () = app.stopping.cancelled() => return,
                }
            }
        });
    }

    async fn sweep_artifacts(&self) -> Result<(), store::StoreError> {
        while !self.stopping.is_cancelled() {
            let now = micros(Timestamp::now());
            let pending_before = now - PENDING_MAX_MS * 1_000;
            let expired = self
                .store
                .expire_artifacts(now, pending_before, SWEEP_ROWS_MAX)
                .await?;
            let rows = self.store.artifacts_to_remove(SWEEP_ROWS_MAX).await?;
            let mut removed = 0;
            for row in &rows {
                removed += u64::from(self.remove_object(row).await);
            }
            // When nothing can be removed, the next try is a minute away.
            if expired == 0 && removed == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Puts what was done to an artifact on record.
    pub(crate) fn note_artifact_deed<const SCOPE: u8>(
        &self,
        caller: &Caller<SCOPE>,
        action: &'static str,
        row: &store::Artifact,
    ) {
        self.note_deed(caller, &caller.request, action, row);
    }

    /// Puts an artifact on record that a run, a command or a workspace run has made.
    pub(crate) fn note_artifact_made(
        &self,
        who: &Principal,
        request: &RequestContext,
        row: &store::Artifact,
    ) {
        self.note_deed(who, request, "artifact.create", row);
    }

    fn note_deed(
        &self,
        who: &Principal,
        request: &RequestContext,
        action: &'static str,
        row: &store::Artifact,
    ) {
        let deed = Deed {
            action,
            resource_kind: "artifact",
            resource_id: &row.id,
            project_id: Some(&row.project_id),
            outcome: "ok",
        };
        let details = serde_json::json!({
            "sandboxId": row.sandbox_id, "name": row.name, "sizeBytes": row.size_bytes,
        });
        self.audit.by_key(who, request, deed, &details);
    }
}

fn id_of(origin: &str) -> String {
    let digest = blake3::hash(origin.as_bytes());
    let bits = digest
        .as_bytes()
        .first_chunk()
        .map_or(0, |bytes| u128::from_be_bytes(*bytes));
    derived_id(IdKind::Artifact, bits)
}

/// A row as clients see it.
pub(crate) fn wire(row: store::Artifact) -> Artifact {
    let time = |micros: i64| Timestamp::from_millis(micros / 1_000);
    Artifact {
        id: row.id,
        org_id: row.org_id,
        project_id: row.project_id,
        sandbox_id: row.sandbox_id,
        name: row.name,
        object_key: row.object_key,
        size_bytes: u64::try_from(row.size_bytes).unwrap_or(0),
        created_at: time(row.created_at),
        content_type: row.content_type,
        source_path: row.source_path,
        sha256: row.sha256,
        deleted_at: row.deleted_at.map(time),
        retention_expires_at: Some(time(row.retention_expires_at)),
    }
}

/// A name that a client gives: shown to people and put into headers, never a path.
fn checked_name(name: &str) -> ApiResult<String> {
    let chars = name.chars().take(NAME_CHARS_MAX + 1).count();
    if name.trim().is_empty() || chars > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        let message = format!("name must have 1 to {NAME_CHARS_MAX} printable characters");
        return Err(ApiError::field("name", message));
    }
    Ok(name.to_owned())
}

/// What the extension of a name, or else that of the file itself, says that it is. Nobody looks
/// into the file: what it claims to be is as good as what its name claims.
fn content_type_of(name: &str, file_name: &str) -> &'static str {
    [name, file_name]
        .into_iter()
        .find_map(by_extension)
        .unwrap_or("application/octet-stream")
}

fn by_extension(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "txt" | "log" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "tsv" => "text/tab-separated-values; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "py" => "text/x-python; charset=utf-8",
        "xml" => "application/xml",
        "json" => "application/json",
        "jsonl" | "ndjson" => "application/x-ndjson",
        "yaml" | "yml" => "application/yaml",
        "toml" => "application/toml",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "tar" => "application/x-tar",
        "zst" => "application/zstd",
        "parquet" => "application/vnd.apache.parquet",
        "ipynb" => "application/x-ipynb+json",
        "sqlite" | "db" => "application/vnd.sqlite3",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "wasm" => "application/wasm",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_come_from_names() {
        assert_eq!(content_type_of("a.PNG", "x"), "image/png");
        assert_eq!(
            content_type_of("report", "out.csv"),
            "text/csv; charset=utf-8"
        );
        assert_eq!(content_type_of("report", "out"), "application/octet-stream");
    }

    #[test]
    fn names_are_printable_and_short() {
        assert!(checked_name("Ergebnis ü.html").is_ok());
        for bad in ["", "  ", "a\nb", "a\0", &"x".repeat(256)] {
            assert_eq!(
                checked_name(bad).unwrap_err().code,
                ErrorCode::InvalidRequest
            );
        }
    }
}
