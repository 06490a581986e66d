//! `/v1/workspace-runs/{id}/archive`: the archive of a run, with one request or in three.

use super::workspace_runs::Creator;
use crate::app::App;
use crate::error::ApiResult;
use crate::extract::{JsonBody, PathArgs};
use crate::idempotency::{AfterRestart, Answer, IdempotencyKey};
use crate::signed_url::{Purpose, Signed};
use crate::workspace_runs::{Announced, staged_resource};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use crownest_api::workspace_run::{
    ArchiveAnswer, ArchiveTransferAnswer, CreateArchiveTransfer, FinalizeArchive,
};
use crownest_api::{ErrorEnvelope, Scope};
use std::sync::Arc;

/// Uploads an archive (`.tar.gz`) of at most 8 MiB.
#[utoipa::path(
    put, path = "/v1/workspace-runs/{workspaceRunId}/archive", operation_id = "uploadWorkspaceArchive", tag = "workspace-runs",
    params(
        ("workspaceRunId" = String, Path), ("Idempotency-Key" = Option<String>, Header),
        ("x-crownest-archive-sha256" = String, Header, description = "SHA-256 of the body, in hexadecimal"),
        ("x-crownest-archive-size" = u64, Header, minimum = 1, maximum = 8_388_608, description = "Bytes of the body"),
    ),
    request_body(content = String, content_type = "application/gzip"),
    responses(
        (status = 200, body = ArchiveAnswer),
        (status = 409, body = ErrorEnvelope, description = "`upload_conflict`: the run has its archive, or is over"),
        (status = 413, body = ErrorEnvelope, description = "`file_too_large`"),
    ),
    security(("bearer" = ["workspace_run:create"]), ("apiKey" = ["workspace_run:create"]))
)]
pub(super) async fn upload(
    State(app): State<App>,
    caller: Creator,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let announced = Announced::of_headers(&headers)?;
    // The checksum stands for the bytes, which are not here yet.
    let fingerprint = format!("{} {}", announced.sha256, announced.size_bytes);
    let (worker, who) = (app.clone(), Arc::clone(&caller.principal));
    let request = caller.request.clone();
    let work = async move {
        let answer = worker
            .upload_archive(&who, &request, &id, announced, body)
            .await?;
        Answer::json::<ArchiveAnswer>(StatusCode::OK, &answer)
    };
    app.idempotent(
        &key,
        &caller,
        fingerprint.as_bytes(),
        AfterRestart::Repeat,
        work,
    )
    .await
}

/// Announces an archive of any size; send it to `uploadUrl`, then finalize it.
#[utoipa::path(
    post, path = "/v1/workspace-runs/{workspaceRunId}/archive-transfer", operation_id = "createWorkspaceArchiveTransfer", tag = "workspace-runs",
    params(("workspaceRunId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = CreateArchiveTransfer,
    responses(
        (status = 201, body = ArchiveTransferAnswer),
        (status = 409, body = ErrorEnvelope, description = "`upload_conflict`: the run has its archive, or is over"),
        (status = 413, body = ErrorEnvelope, description = "`file_too_large`"),
    ),
    security(("bearer" = ["workspace_run:create"]), ("apiKey" = ["workspace_run:create"]))
)]
pub(super) async fn transfer(
    State(app): State<App>,
    caller: Creator,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<CreateArchiveTransfer>,
) -> ApiResult<Response> {
    let (worker, who) = (app.clone(), Arc::clone(&caller.principal));
    let (request, asked) = (caller.request.clone(), body.value);
    let work = async move {
        let transfer = worker
            .create_archive_transfer(&who, &request, &id, asked)
            .await?;
        Answer::json(StatusCode::CREATED, &ArchiveTransferAnswer { transfer })
    };
    app.idempotent(&key, &caller, &body.raw, AfterRestart::Repeat, work)
        .await
}

/// Takes the bytes of an announced archive, of any length encoding.
#[utoipa::path(
    put, path = "/v1/workspace-runs/{workspaceRunId}/archive-transfer/{uploadId}", operation_id = "sendWorkspaceArchive", tag = "workspace-runs",
    params(
        ("workspaceRunId" = String, Path), ("uploadId" = String, Path),
        ("signature" = Option<String>, Query, description = "Instead of an API key, from `uploadUrl`"),
    ),
    request_body(content = String, content_type = "application/gzip"),
    responses(
        (status = 204),
        (status = 409, body = ErrorEnvelope, description = "`upload_conflict`"),
        (status = 410, body = ErrorEnvelope, description = "`upload_expired`"),
    ),
    security(("bearer" = ["workspace_run:create"]), ("apiKey" = ["workspace_run:create"]), ())
)]
pub(super) async fn send(
    State(app): State<App>,
    signed: Signed<{ Scope::WorkspaceRunCreate as u8 }>,
    PathArgs((id, upload_id)): PathArgs<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<StatusCode> {
    let resource = staged_resource(&id, &upload_id);
    let caller = signed.caller(Purpose::WorkspaceArchive, &resource).await?;
    app.upload_staged_archive(&caller, &caller.request, (&id, &upload_id), &headers, body)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes an archive that was sent the archive of its run.
#[utoipa::path(
    post, path = "/v1/workspace-runs/{workspaceRunId}/archive/finalize", operation_id = "finalizeWorkspaceArchive", tag = "workspace-runs",
    params(("workspaceRunId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = FinalizeArchive,
    responses(
        (status = 200, body = ArchiveAnswer),
        (status = 409, body = ErrorEnvelope, description = "`upload_incomplete`: nothing was received; `upload_conflict`"),
        (status = 410, body = ErrorEnvelope, description = "`upload_expired`"),
    ),
    security(("bearer" = ["workspace_run:create"]), ("apiKey" = ["workspace_run:create"]))
)]
pub(super) async fn finalize(
    State(app): State<App>,
    caller: Creator,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<FinalizeArchive>,
) -> ApiResult<Response> {
    let (worker, who) = (app.clone(), Arc::clone(&caller.principal));
    let (request, asked) = (caller.request.clone(), body.value);
    let work = async move {
        let answer = worker.finalize_archive(&who, &request, &id, asked).await?;
        Answer::json::<ArchiveAnswer>(StatusCode::OK, &answer)
    };
    app.idempotent(&key, &caller, &body.raw, AfterRestart::Repeat, work)
        .await
}
