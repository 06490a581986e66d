//! `/v1/snapshots`, an extension.

use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use crownest_api::snapshot::{
    CreateSnapshot, Snapshot, SnapshotAnswer, SnapshotList, SnapshotStatus,
};
use crownest_api::{Scope, Timestamp};
use crownest_store as store;
use serde::Deserialize;

/// Rows of a page when the client does not say.
const PAGE_SIZE_DEFAULT: u32 = 50;

/// Keeps the files of a sandbox: everything written outside `/tmp`, over its template.
///
/// Its programs stand still for that time, unless it is paused. The snapshot is `creating` in the
/// answer, then `ready` or `failed`. `snapshotId` of a creation begins a sandbox with it.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/snapshots", operation_id = "createSnapshot", tag = "snapshots",
    params(("sandboxId" = String, Path)), request_body = CreateSnapshot,
    responses((status = 202, body = SnapshotAnswer)),
    security(("bearer" = ["artifact:create"]), ("apiKey" = ["artifact:create"]))
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller<{ Scope::ArtifactCreate as u8 }>,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<CreateSnapshot>,
) -> ApiResult<(StatusCode, Json<SnapshotAnswer>)> {
    let live = app.kept_sandbox(&caller, &id).await?;
    let name = body.value.name;
    let row = app
        .create_snapshot(&caller, &caller.request, &live, name)
        .await?;
    let snapshot = wire(row);
    Ok((StatusCode::ACCEPTED, Json(SnapshotAnswer { snapshot })))
}

/// Which snapshots to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct SnapshotQuery {
    sandbox_id: Option<String>,
    name: Option<String>,
    /// Counts from 1.
    #[param(minimum = 1)]
    page: Option<u32>,
    #[param(minimum = 1, maximum = 500)]
    page_size: Option<u32>,
}

/// Snapshots, newest first.
#[utoipa::path(
    get, path = "/v1/snapshots", operation_id = "listSnapshots", tag = "snapshots",
    params(SnapshotQuery), responses((status = 200, body = SnapshotList)),
    security(("bearer" = ["artifact:read"]), ("apiKey" = ["artifact:read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller<{ Scope::ArtifactRead as u8 }>,
    QueryArgs(query): QueryArgs<SnapshotQuery>,
) -> ApiResult<Json<SnapshotList>> {
    let page = query.page.unwrap_or(1);
    if page == 0 {
        return Err(ApiError::field("page", "pages count from 1"));
    }
    let filter = store::SnapshotFilter {
        sandbox_id: query.sandbox_id,
        name: query.name,
        ..store::SnapshotFilter::default()
    };
    let size = query.page_size.unwrap_or(PAGE_SIZE_DEFAULT);
    let (rows, total) = app.list_snapshots(&caller, filter, page, size).await?;
    Ok(Json(SnapshotList {
        data: rows.into_iter().map(wire).collect(),
        total: u64::try_from(total).unwrap_or(0),
    }))
}

/// One snapshot.
#[utoipa::path(
    get, path = "/v1/snapshots/{snapshotId}", operation_id = "getSnapshot", tag = "snapshots",
    params(("snapshotId" = String, Path)), responses((status = 200, body = SnapshotAnswer)),
    security(("bearer" = ["artifact:read"]), ("apiKey" = ["artifact:read"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller<{ Scope::ArtifactRead as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<SnapshotAnswer>> {
    let snapshot = wire(app.get_snapshot(&caller, &id).await?);
    Ok(Json(SnapshotAnswer { snapshot }))
}

/// Deletes a snapshot and its file. Sandboxes that began with it keep what they have.
#[utoipa::path(
    delete, path = "/v1/snapshots/{snapshotId}", operation_id = "deleteSnapshot", tag = "snapshots",
    params(("snapshotId" = String, Path)), responses((status = 204)),
    security(("bearer" = ["artifact:delete"]), ("apiKey" = ["artifact:delete"]))
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller<{ Scope::ArtifactDelete as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<StatusCode> {
    app.delete_snapshot(&caller, &caller.request, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn wire(row: store::Snapshot) -> Snapshot {
    let status = match row.state.as_str() {
        "creating" => SnapshotStatus::Creating,
        "ready" => SnapshotStatus::Ready,
        "deleting" => SnapshotStatus::Deleting,
        _ => SnapshotStatus::Failed,
    };
    let ready = status == SnapshotStatus::Ready;
    Snapshot {
        id: row.id,
        project_id: row.project_id,
        sandbox_id: row.sandbox_id,
        status,
        name: row.name,
        template_slug: row.template_slug,
        template_version_id: row.template_version_id,
        size_bytes: ready.then(|| u64::try_from(row.size_bytes).unwrap_or(0)),
        failure: row.failure,
        created_at: Timestamp::from_millis(row.created_at / 1_000),
    }
}
