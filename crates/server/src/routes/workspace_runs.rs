//! `/v1/workspace-runs`: an archive, one command, and what is left of it.

use super::paging;
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::idempotency::{AfterRestart, Answer, IdempotencyKey};
use crate::sse;
use crate::workspace_runs::EventQuery;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use crownest_api::Scope;
use crownest_api::page::{Page, PageQuery};
use crownest_api::workspace_run::{
    CreateWorkspaceRun, EvidenceAnswer, WorkspaceRun, WorkspaceRunAnswer, WorkspaceRunEventPage,
};
use std::sync::Arc;

pub(super) type Creator = Caller<{ Scope::WorkspaceRunCreate as u8 }>;
type Reader = Caller<{ Scope::WorkspaceRunRead as u8 }>;
type Canceler = Caller<{ Scope::WorkspaceRunCancel as u8 }>;

/// Makes a run that waits for its archive.
#[utoipa::path(
    post, path = "/v1/workspace-runs", operation_id = "createWorkspaceRun", tag = "workspace-runs",
    params(("Idempotency-Key" = Option<String>, Header)),
    request_body = CreateWorkspaceRun, responses((status = 201, body = WorkspaceRunAnswer)),
    security(("bearer" = ["workspace_run:create"]), ("apiKey" = ["workspace_run:create"]))
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Creator,
    key: IdempotencyKey,
    body: JsonBody<CreateWorkspaceRun>,
) -> ApiResult<Response> {
    let (worker, who) = (app.clone(), Arc::clone(&caller.principal));
    let (request, asked) = (caller.request.clone(), body.value);
    let work = async move {
        let workspace_run = worker.create_workspace_run(&who, &request, asked).await?;
        Answer::json(StatusCode::CREATED, &WorkspaceRunAnswer { workspace_run })
    };
    app.idempotent(&key, &caller, &body.raw, AfterRestart::Repeat, work)
        .await
}

/// Runs, newest first.
#[utoipa::path(
    get, path = "/v1/workspace-runs", operation_id = "listWorkspaceRuns", tag = "workspace-runs",
    params(PageQuery), responses((status = 200, body = Page<WorkspaceRun>)),
    security(("bearer" = ["workspace_run:read"]), ("apiKey" = ["workspace_run:read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Reader,
    QueryArgs(query): QueryArgs<PageQuery>,
) -> ApiResult<Json<Page<WorkspaceRun>>> {
    let page = paging::request(&query)?;
    let runs = app.workspace_runs(&caller, &page).await?;
    Ok(Json(paging::answer(runs, |run| run)))
}

/// One run.
#[utoipa::path(
    get, path = "/v1/workspace-runs/{workspaceRunId}", operation_id = "getWorkspaceRun", tag = "workspace-runs",
    params(("workspaceRunId" = String, Path)), responses((status = 200, body = WorkspaceRunAnswer)),
    security(("bearer" = ["workspace_run:read"]), ("apiKey" = ["workspace_run:read"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Reader,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<WorkspaceRunAnswer>> {
    let workspace_run = app.workspace_run(&caller, &id).await?;
    Ok(Json(WorkspaceRunAnswer { workspace_run }))
}

/// Starts a run whose archive is there; it goes on whether or not a client does.
///
/// One that was started before is returned as it is. Without its archive: `upload_incomplete`.
#[utoipa::path(
    post, path = "/v1/workspace-runs/{workspaceRunId}/start", operation_id = "startWorkspaceRun", tag = "workspace-runs",
    params(("workspaceRunId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = WorkspaceRunAnswer), (status = 409, body = crownest_api::ErrorEnvelope)),
    security(("bearer" = ["workspace_run:create"]), ("apiKey" = ["workspace_run:create"]))
)]
pub(super) async fn start(
    State(app): State<App>,
    caller: Creator,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
) -> ApiResult<Response> {
    let (worker, who) = (app.clone(), Arc::clone(&caller.principal));
    let request = caller.request.clone();
    let work = async move {
        let app = worker.clone();
        // To its end in any case: a run that is on record as started is started.
        let workspace_run = worker
            .finish_anyway(async move { app.start_workspace_run(&who, &request, &id).await })
            .await?;
        Answer::json(StatusCode::OK, &WorkspaceRunAnswer { workspace_run })
    };
    app.idempotent(&key, &caller, b"", AfterRestart::Repeat, work)
        .await
}

/// Cancels a run at whatever stage it is. One that is over is returned as it is.
#[utoipa::path(
    post, path = "/v1/workspace-runs/{workspaceRunId}/cancel", operation_id = "cancelWorkspaceRun", tag = "workspace-runs",
    params(("workspaceRunId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = WorkspaceRunAnswer)),
    security(("bearer" = ["workspace_run:cancel"]), ("apiKey" = ["workspace_run:cancel"]))
)]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Canceler,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
) -> ApiResult<Response> {
    let (worker, who) = (app.clone(), Arc::clone(&caller.principal));
    let request = caller.request.clone();
    let work = async move {
        let workspace_run = worker.cancel_workspace_run(&who, &request, &id).await?;
        Answer::json(StatusCode::OK, &WorkspaceRunAnswer { workspace_run })
    };
    app.idempotent(&key, &caller, b"", AfterRestart::Repeat, work)
        .await
}

/// What happened in a run: a page, or with `stream=true` server-sent events until its end.
///
/// Events are numbered over both; a stream goes on after `afterSeq` or `Last-Event-ID`.
#[utoipa::path(
    get, path = "/v1/workspace-runs/{workspaceRunId}/events", operation_id = "listWorkspaceRunEvents", tag = "workspace-runs",
    params(
        ("workspaceRunId" = String, Path),
        ("afterSeq" = Option<u64>, Query, description = "Events after that number"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "Events on a page; default 100"),
        ("stream" = Option<bool>, Query, description = "Follow the run until its end"),
        ("Last-Event-ID" = Option<String>, Header, description = "As `afterSeq`; the larger one counts"),
    ),
    responses(
        (status = 200, content((WorkspaceRunEventPage = "application/json"), (String = "text/event-stream"))),
        (status = 409, body = crownest_api::ErrorEnvelope, description = "`stream_gap`: that output is not kept any more"),
    ),
    security(("bearer" = ["workspace_run:read"]), ("apiKey" = ["workspace_run:read"]))
)]
pub(super) async fn events(
    State(app): State<App>,
    caller: Reader,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<EventQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    if query.is_stream()? {
        let events = app
            .follow_workspace_run(&caller.principal, &id, &query, &headers)
            .await?;
        return Ok(sse::response(events));
    }
    let page = app
        .workspace_run_events(&caller, &id, &query, &headers)
        .await?;
    Ok(Json(page).into_response())
}

/// What is left of a run that is over.
#[utoipa::path(
    get, path = "/v1/workspace-runs/{workspaceRunId}/evidence", operation_id = "getWorkspaceRunEvidence", tag = "workspace-runs",
    params(("workspaceRunId" = String, Path)), responses((status = 200, body = EvidenceAnswer)),
    security(("bearer" = ["workspace_run:read"]), ("apiKey" = ["workspace_run:read"]))
)]
pub(super) async fn evidence(
    State(app): State<App>,
    caller: Reader,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<EvidenceAnswer>> {
    let evidence = app
        .workspace_run_evidence(&caller, &caller.request, &id)
        .await?;
    Ok(Json(EvidenceAnswer { evidence }))
}
