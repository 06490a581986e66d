//! `/v1/artifacts` and `/v1/sandboxes/{id}/artifacts`.

use super::paging;
use crate::app::App;
use crate::artifacts::wire;
use crate::auth::{Also, Caller};
use crate::byte_range;
use crate::checks;
use crate::error::{ApiError, ApiResult};
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::file_transfers::{self, Download};
use crate::idempotency::{AfterRestart, Answer, IdempotencyKey};
use crate::objects::ObjectsError;
use crate::signed_url::{LIFE_DEFAULT_MS, Purpose, Signed, Signing};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use crownest_api::artifact::{Artifact, ArtifactAnswer, ArtifactDownloadUrl, CreateArtifact};
use crownest_api::page::{Page, PageQuery};
use crownest_api::{ErrorCode, ErrorEnvelope, IdKind, Scope};
use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;

type Reader = Caller<{ Scope::ArtifactRead as u8 }>;

/// Keeps a file of a sandbox after the sandbox has ended. Needs `file:read` as well.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/artifacts", operation_id = "createArtifact", tag = "artifacts",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = CreateArtifact, responses((status = 201, body = ArtifactAnswer)),
    security(("bearer" = ["artifact:create", "file:read"]), ("apiKey" = ["artifact:create", "file:read"]))
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller<{ Scope::ArtifactCreate as u8 }>,
    _reads: Also<{ Scope::FileRead as u8 }>,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<CreateArtifact>,
) -> ApiResult<Response> {
    let path = checks::path("path", &body.value.path)?;
    let live = app.live_sandbox(&caller, &id).await?;
    let (worker, by, name) = (app.clone(), caller.clone(), body.value.name);
    let work = async move {
        let _work = live.work();
        let row = worker.promote_path(&live, &path, name.as_deref()).await?;
        worker.note_artifact_deed(&by, "artifact.create", &row);
        let artifact = wire(row);
        Answer::json(StatusCode::CREATED, &ArtifactAnswer { artifact })
    };
    app.idempotent(&key, &caller, &body.raw, AfterRestart::Repeat, work)
        .await
}

/// Artifacts of a sandbox, live or ended, newest first.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/artifacts", operation_id = "listArtifacts", tag = "artifacts",
    params(("sandboxId" = String, Path), PageQuery),
    responses((status = 200, body = Page<Artifact>)),
    security(("bearer" = ["artifact:read"]), ("apiKey" = ["artifact:read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Reader,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<PageQuery>,
) -> ApiResult<Json<Page<Artifact>>> {
    let page = paging::request(&query)?;
    let unknown = || ApiError::not_found("sandbox");
    if !IdKind::Sandbox.matches(&id) {
        return Err(unknown());
    }
    // Whichever node it lives on: its artifacts are everybody's.
    let sandbox = app.store.sandbox(&caller.org_id, &id).await?;
    if !caller.may_touch(&sandbox.project_id) {
        return Err(unknown());
    }
    let rows = app.store.artifacts(&caller.org_id, &id, &page).await?;
    Ok(Json(paging::answer(rows, wire)))
}

/// One artifact.
#[utoipa::path(
    get, path = "/v1/artifacts/{artifactId}", operation_id = "getArtifact", tag = "artifacts",
    params(("artifactId" = String, Path)), responses((status = 200, body = ArtifactAnswer)),
    security(("bearer" = ["artifact:read"]), ("apiKey" = ["artifact:read"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Reader,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<ArtifactAnswer>> {
    let artifact = wire(app.find_artifact(&caller, &id).await?);
    Ok(Json(ArtifactAnswer { artifact }))
}

/// Deletes an artifact and its bytes.
#[utoipa::path(
    delete, path = "/v1/artifacts/{artifactId}", operation_id = "deleteArtifact", tag = "artifacts",
    params(("artifactId" = String, Path)), responses((status = 200, body = ArtifactAnswer)),
    security(("bearer" = ["artifact:delete"]), ("apiKey" = ["artifact:delete"]))
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller<{ Scope::ArtifactDelete as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<ArtifactAnswer>> {
    let row = app.find_artifact(&caller, &id).await?;
    let gone = app.delete_artifact(&row).await?;
    app.note_artifact_deed(&caller, "artifact.delete", &gone);
    let artifact = wire(gone);
    Ok(Json(ArtifactAnswer { artifact }))
}

/// A URL to download an artifact from.
///
/// It carries its own permission, for fifteen minutes; an API key works as well.
#[utoipa::path(
    post, path = "/v1/artifacts/{artifactId}/download-url", operation_id = "createArtifactDownloadUrl", tag = "artifacts",
    params(("artifactId" = String, Path)), responses((status = 200, body = ArtifactDownloadUrl)),
    security(("bearer" = ["artifact:read"]), ("apiKey" = ["artifact:read"]))
)]
pub(super) async fn download_url(
    State(app): State<App>,
    caller: Reader,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<ArtifactDownloadUrl>> {
    let row = app.find_artifact(&caller, &id).await?;
    let signing = Signing {
        purpose: Purpose::ArtifactDownload,
        method: &Method::GET,
        target: &format!("/v1/artifacts/{id}/download"),
        resource: &id,
        project_id: &row.project_id,
        life_ms: LIFE_DEFAULT_MS,
    };
    let signed = app.signed_url(&caller, &caller.request, signing).await?;
    app.note_artifact_deed(&caller, "artifact.download_url", &row);
    Ok(Json(ArtifactDownloadUrl {
        auth_mode: "api_key".to_owned(),
        headers: BTreeMap::new(),
        method: "GET".to_owned(),
        url: signed.url,
        expires_at: signed.expires_at,
    }))
}

/// The bytes of an artifact, or one range of them, to be saved and never shown.
#[utoipa::path(
    get, path = "/v1/artifacts/{artifactId}/download", operation_id = "downloadArtifact", tag = "artifacts",
    params(
        ("artifactId" = String, Path),
        ("signature" = Option<String>, Query, description = "Instead of an API key, from `download-url`"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-Range" = Option<String>, Header, description = "The range only if this is still the `ETag`"),
    ),
    responses(
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, description = "That range", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 416, description = "None of that range is there", body = ErrorEnvelope),
    ),
    security(("bearer" = ["artifact:read"]), ("apiKey" = ["artifact:read"]))
)]
pub(super) async fn download(
    State(app): State<App>,
    signed: Signed<{ Scope::ArtifactRead as u8 }>,
    PathArgs(id): PathArgs<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let caller = signed.caller(Purpose::ArtifactDownload, &id).await?;
    let row = app.find_artifact(&caller, &id).await?;
    let download = Download {
        size: u64::try_from(row.size_bytes).unwrap_or(0),
        etag: format!("\"{}\"", row.sha256.as_deref().unwrap_or_default()),
        name: &row.name,
        content_type: row
            .content_type
            .as_deref()
            .unwrap_or("application/octet-stream"),
    };
    let Some(range) = file_transfers::part(&headers, &download) else {
        return Ok(byte_range::refusal(download.size));
    };
    // Nothing of an empty object can be asked for.
    let bytes = if range.is_empty() {
        stream::empty().boxed()
    } else {
        let whole = range.end - range.start == download.size;
        let part = (!whole).then(|| range.clone());
        match app.objects.get(&row.object_key, part).await {
            Ok(object) => object.bytes,
            Err(ObjectsError::NotFound) => {
                let message = "the bytes of this artifact are not in the object store";
                return Err(ApiError::new(ErrorCode::DownloadExportFailed, message));
            }
            Err(error) => return Err(error.into()),
        }
    };
    app.note_artifact_deed(&caller, "artifact.download", &row);
    Ok(file_transfers::answer(&download, &range, bytes))
}
