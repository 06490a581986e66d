//! The archive of a run on its way in: with one request, or announced, sent and finalized.
//!
//! An upload is a row before it is an object, and the object has the upload's name, so a sweep
//! finds whatever a killed server leaves. What came is measured while it comes; an archive that is
//! not what was announced is never a run's.

use super::announced::{Announced, size_mismatch};
use super::record::{Archive, Record};
use super::{deed, object_key};
use crate::app::App;
use crate::auth::{Principal, micros};
use crate::error::{ApiError, ApiResult};
use crate::objects::{ObjectsError, Stored};
use crate::request::RequestContext;
use crate::signed_url::{Purpose, Signing};
use axum::body::Body;
use axum::http::{HeaderMap, Method};
use bytes::Bytes;
use crownest_api::workspace_run::{
    ArchiveAnswer, ArchiveTransfer, CreateArchiveTransfer, FinalizeArchive, TransferStatus,
    WorkspaceRunEventKind,
};
use crownest_api::{ErrorCode, IdKind, Timestamp, new_id};
use crownest_store as store;
use futures_util::{Stream, StreamExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use store::WorkspaceRunStatus as Status;

/// Uploads of one run, refused and abandoned ones included.
const UPLOADS_MAX: i64 = 16;
/// How long an announced archive can be sent.
const TRANSFER_LIFE_MS: u64 = 3_600_000;
/// Longest silence of a client in the middle of an archive.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Uploads taken away in one step of a sweep.
const SWEEP_ROWS_MAX: i64 = 100;

fn conflict(message: &str) -> ApiError {
    ApiError::new(ErrorCode::UploadConflict, message)
}

/// What the URL of a staged upload is for.
pub(crate) fn staged_resource(run_id: &str, upload_id: &str) -> String {
    format!("{run_id} {upload_id}")
}

/// The bytes of a request. A client that falls silent ends them.
fn received(body: Body) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let body = Box::pin(body.into_data_stream());
    futures_util::stream::try_unfold(body, |mut body| async move {
        match tokio::time::timeout(IDLE_MAX, body.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(bytes))) => Ok(Some((bytes, body))),
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    })
}

impl App {
    /// Takes an archive that comes in one request.
    pub(crate) async fn upload_archive(
        &self,
        who: &Principal,
        request: &RequestContext,
        id: &str,
        announced: Announced,
        body: Body,
    ) -> ApiResult<ArchiveAnswer> {
        let run = self.find_run(who, id).await?;
        if let Some(answer) = answered_before(&run, &announced)? {
            return Ok(answer);
        }
        let upload = self.new_upload(&run, &announced).await?;
        let outcome = async {
            let stored = self.store_archive(&upload.id, &announced, body).await?;
            announced.matches(&stored)?;
            self.choose_archive(run, &upload.id, &announced).await
        }
        .await;
        match outcome {
            Ok(run) => self.uploaded(who, request, &run, &announced),
            Err(error) => {
                self.remove_upload(&upload.id).await;
                Err(error)
            }
        }
    }

    /// Announces an archive that comes in two steps.
    pub(crate) async fn create_archive_transfer(
        &self,
        who: &Principal,
        request: &RequestContext,
        id: &str,
        asked: CreateArchiveTransfer,
    ) -> ApiResult<ArchiveTransfer> {
        let max = self.config.workspace_archive_bytes_max;
        let announced = Announced::check(&asked.sha256, "sha256", asked.size_bytes, max)?;
        let run = self.find_run(who, id).await?;
        awaits_archive(&run)?;
        let upload = self.new_upload(&run, &announced).await?;
        let target = format!("/v1/workspace-runs/{id}/archive-transfer/{}", upload.id);
        let signing = Signing {
            purpose: Purpose::WorkspaceArchive,
            method: &Method::PUT,
            target: &target,
            resource: &staged_resource(id, &upload.id),
            project_id: &run.row.project_id,
            life_ms: TRANSFER_LIFE_MS,
        };
        // Relative: whatever the client calls this server, it finds it again.
        let mut nameless = request.clone();
        nameless.origin = None;
        let signed = self.signed_url(who, &nameless, signing).await?;
        let details = json!({ "uploadId": upload.id, "sizeBytes": announced.size_bytes });
        let deed = deed("workspace_run.archive_transfer", &run, "ok");
        self.audit.by_key(who, request, deed, &details);
        Ok(ArchiveTransfer {
            id: upload.id,
            checksum_algorithm: "sha256".to_owned(),
            expires_at: Timestamp::from_millis(upload.expires_at / 1_000),
            headers: BTreeMap::from([("content-type".to_owned(), "application/gzip".to_owned())]),
            max_size_bytes: max,
            method: "PUT".to_owned(),
            status: TransferStatus::Pending,
            upload_url: signed.url,
            workspace_run_id: id.to_owned(),
        })
    }

    /// Takes the bytes of an announced archive.
    pub(crate) async fn upload_staged_archive(
        &self,
        who: &Principal,
        request: &RequestContext,
        (id, upload_id): (&str, &str),
        headers: &HeaderMap,
        body: Body,
    ) -> ApiResult<()> {
        let run = self.find_run(who, id).await?;
        let upload = self.find_upload(&run, upload_id).await?;
        if upload.status == "finalized" {
            return Err(conflict("this upload is finalized"));
        }
        awaits_archive(&run)?;
        still_open(&upload)?;
        let announced = announced_of(&upload);
        announced.fits_length(headers)?;
        let outcome = async {
            let stored = self.store_archive(upload_id, &announced, body).await?;
            announced.matches(&stored)?;
            Ok(stored)
        }
        .await;
        let stored = match outcome {
            Ok(stored) => stored,
            Err(error) => {
                // It can be sent again; what is there now is not what was announced.
                self.store
                    .set_workspace_run_upload(upload_id, "pending")
                    .await?;
                return Err(error);
            }
        };
        if !self
            .store
            .set_workspace_run_upload(upload_id, "uploaded")
            .await?
        {
            return Err(conflict("this upload was finalized meanwhile"));
        }
        let received = stored.size_bytes;
        let run = self
            .change_run(run, |run| {
                Ok((run.row.status == Status::AwaitingArchive)
                    .then(|| vec![run.event(&progress(received))]))
            })
            .await?;
        let details = json!({ "uploadId": upload_id, "sizeBytes": received });
        let deed = deed("workspace_run.archive_upload", &run, "ok");
        self.audit.by_key(who, request, deed, &details);
        Ok(())
    }

    /// Gives a run the archive that was sent for it.
    pub(crate) async fn finalize_archive(
        &self,
        who: &Principal,
        request: &RequestContext,
        id: &str,
        asked: FinalizeArchive,
    ) -> ApiResult<ArchiveAnswer> {
        let run = self.find_run(who, id).await?;
        let upload = self.find_upload(&run, &asked.upload_id).await?;
        let announced = announced_of(&upload);
        if asked.size_bytes != announced.size_bytes {
            return Err(size_mismatch(announced.size_bytes, Some(asked.size_bytes)));
        }
        if !asked.sha256.eq_ignore_ascii_case(&announced.sha256) {
            let message = "sha256 is not what was announced for this upload";
            return Err(ApiError::new(ErrorCode::UploadChecksumMismatch, message)
                .with_details(json!({ "expected": announced.sha256, "received": asked.sha256 })));
        }
        let chosen = run.state.archive.as_ref();
        if chosen.is_some_and(|archive| archive.upload_id == upload.id) {
            return archive_answer(&run);
        }
        awaits_archive(&run)?;
        match upload.status.as_str() {
            "uploaded" | "finalized" => {}
            _ => {
                still_open(&upload)?;
                let message = "the archive of this upload has not been received";
                return Err(ApiError::new(ErrorCode::UploadIncomplete, message));
            }
        }
        self.store
            .set_workspace_run_upload(&upload.id, "finalized")
            .await?;
        let run = self.choose_archive(run, &upload.id, &announced).await?;
        self.uploaded(who, request, &run, &announced)
    }

    fn uploaded(
        &self,
        who: &Principal,
        request: &RequestContext,
        run: &Record,
        announced: &Announced,
    ) -> ApiResult<ArchiveAnswer> {
        let details = json!({ "sha256": announced.sha256, "sizeBytes": announced.size_bytes });
        let deed = deed("workspace_run.archive", run, "ok");
        self.audit.by_key(who, request, deed, &details);
        archive_answer(run)
    }

    async fn new_upload(
        &self,
        run: &Record,
        announced: &Announced,
    ) -> ApiResult<store::WorkspaceRunUpload> {
        let now = Timestamp::now();
        let upload = store::WorkspaceRunUpload {
            id: new_id(IdKind::Upload),
            run_id: run.row.id.clone(),
            sha256: announced.sha256.clone(),
            size_bytes: i64::try_from(announced.size_bytes).unwrap_or(i64::MAX),
            status: "pending".to_owned(),
            created_at: micros(now),
            expires_at: micros(now.plus_millis(TRANSFER_LIFE_MS)),
        };
        let added = self
            .store
            .insert_workspace_run_upload(&upload, UPLOADS_MAX)
            .await?;
        if !added {
            return Err(conflict(
                "too many uploads were begun for this workspace run",
            ));
        }
        Ok(upload)
    }

    async fn find_upload(
        &self,
        run: &Record,
        upload_id: &str,
    ) -> ApiResult<store::WorkspaceRunUpload> {
        let uploads = self.store.workspace_run_uploads(&run.row.id).await?;
        let found = uploads.into_iter().find(|upload| upload.id == upload_id);
        found.ok_or_else(|| {
            ApiError::new(
                ErrorCode::UploadNotFound,
                "this workspace run has no such upload",
            )
        })
    }

    async fn store_archive(
        &self,
        upload_id: &str,
        announced: &Announced,
        body: Body,
    ) -> ApiResult<Stored> {
        let max = announced.size_bytes;
        let stored = self
            .objects
            .put_stream(&object_key(upload_id), received(body), max)
            .await;
        stored.map_err(|error| match error {
            ObjectsError::TooLarge { .. } => size_mismatch(max, None),
            ObjectsError::Source(error) if error.kind() == io::ErrorKind::TimedOut => {
                ApiError::new(ErrorCode::InvalidRequest, "the request body fell silent")
            }
            ObjectsError::Source(_) => {
                ApiError::new(ErrorCode::InvalidRequest, "the request body broke off")
            }
            error => error.into(),
        })
    }

    /// Makes an upload the archive of its run, unless another one is it by now.
    async fn choose_archive(
        &self,
        run: Record,
        upload_id: &str,
        announced: &Announced,
    ) -> ApiResult<Record> {
        self.change_run(run, |run| {
            awaits_archive(run)?;
            let announced_before = run.state.last_seq > 1;
            run.state.archive = Some(Archive {
                upload_id: upload_id.to_owned(),
                sha256: announced.sha256.clone(),
                size_bytes: announced.size_bytes,
                uploaded_at: Timestamp::now(),
            });
            let mut events = Vec::new();
            if !announced_before {
                events.push(run.event(&progress(announced.size_bytes)));
            }
            events.push(run.enter(Status::ArchiveUploaded));
            Ok(Some(events))
        })
        .await
    }

    /// Removes an upload, its object first. What fails is tried again by the sweep.
    async fn remove_upload(&self, upload_id: &str) {
        if let Err(error) = self.objects.delete(&object_key(upload_id)).await {
            tracing::warn!(%error, upload = upload_id, "deleting an archive failed");
            return;
        }
        if let Err(error) = self.store.delete_workspace_run_upload(upload_id).await {
            tracing::warn!(%error, upload = upload_id, "forgetting an archive failed");
        }
    }

    /// Removes the archives of runs that are over, beside whatever else goes on.
    pub(super) fn sweep_run_uploads(&self) {
        let app = self.clone();
        self.tasks.spawn(async move {
            match app.store.stale_workspace_run_uploads(SWEEP_ROWS_MAX).await {
                Ok(uploads) => {
                    for upload in uploads {
                        app.remove_upload(&upload.id).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "looking for old archives failed"),
            }
        });
    }
}

/// The answer to an upload that was done before.
fn answered_before(run: &Record, announced: &Announced) -> ApiResult<Option<ArchiveAnswer>> {
    if let Some(archive) = &run.state.archive
        && archive.sha256 == announced.sha256
        && archive.size_bytes == announced.size_bytes
    {
        return archive_answer(run).map(Some);
    }
    awaits_archive(run).map(|()| None)
}

/// An archive that is here.
fn progress(received_bytes: u64) -> WorkspaceRunEventKind {
    WorkspaceRunEventKind::ArchiveProgress {
        received_bytes,
        size_bytes: Some(received_bytes),
    }
}

fn awaits_archive(run: &Record) -> ApiResult<()> {
    match run.row.status {
        Status::AwaitingArchive => Ok(()),
        Status::Succeeded | Status::Failed | Status::Canceled => {
            Err(conflict("this workspace run is over"))
        }
        _ => Err(conflict("this workspace run has its archive already")),
    }
}

fn still_open(upload: &store::WorkspaceRunUpload) -> ApiResult<()> {
    if micros(Timestamp::now()) < upload.expires_at {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::UploadExpired,
        "the time for this upload is over; begin another one",
    ))
}

fn announced_of(upload: &store::WorkspaceRunUpload) -> Announced {
    Announced {
        sha256: upload.sha256.clone(),
        size_bytes: u64::try_from(upload.size_bytes).unwrap_or(0),
    }
}

fn archive_answer(run: &Record) -> ApiResult<ArchiveAnswer> {
    Ok(ArchiveAnswer {
        archive: run
            .archive()
            .ok_or_else(|| ApiError::internal("a run without its archive"))?,
        workspace_run: run.wire(),
    })
}
