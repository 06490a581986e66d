//! `/v1/sandboxes/{id}/code/runs/{runId}`: detached runs. All of it is an extension of the contract.

use super::paging;
use crate::app::App;
use crate::auth::Caller;
use crate::commands::{LogQuery, Place};
use crate::detached;
use crate::error::ApiResult;
use crate::extract::{PathArgs, QueryArgs};
use crate::sse;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use crownest_api::Scope;
use crownest_api::detached_run::{CodeRun, CodeRunAnswer, CodeRunEvent};
use crownest_api::page::{Page, PageQuery};

type CodeCaller = Caller<{ Scope::CodeRun as u8 }>;

/// Extension: the detached runs of a sandbox, newest first, without their results.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/code/runs", operation_id = "listCodeRuns", tag = "code",
    params(("sandboxId" = String, Path), PageQuery),
    responses((status = 200, body = Page<CodeRun>)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<PageQuery>,
) -> ApiResult<Json<Page<CodeRun>>> {
    let page = paging::request(&query)?;
    let rows = app.list_detached(&caller, &id, &page).await?;
    Ok(Json(paging::answer(rows, |row| detached::list_item(&row))))
}

/// Extension: a detached run, with its result once it has ended. It can be read for a day after
/// that, also when its sandbox has ended.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/code/runs/{runId}", operation_id = "getCodeRun", tag = "code",
    params(("sandboxId" = String, Path), ("runId" = String, Path)),
    responses((status = 200, body = CodeRunAnswer)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, run_id)): PathArgs<(String, String)>,
) -> ApiResult<Json<CodeRunAnswer>> {
    let run = app.detached_record(&caller, &id, &run_id).await?;
    Ok(Json(CodeRunAnswer { run }))
}

/// Extension: a detached run as server-sent events: what it has said, then what it says.
///
/// Events are `stdout`, `stderr`, `output`, `notice` and `input_request`, whose `id` is their
/// `seq`, `heartbeat`, and last `complete` with the run and its result, after `error` when it is
/// reported with one. To go on after a break without losing a byte, send `afterSeq` or
/// `Last-Event-ID`; of two, the later one counts. What is not kept any more is 409 `stream_gap`.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/code/runs/{runId}/events", operation_id = "streamCodeRun", tag = "code",
    params(
        ("sandboxId" = String, Path), ("runId" = String, Path),
        ("afterSeq" = Option<u64>, Query, description = "Only events after this number"),
        ("Last-Event-ID" = Option<u64>, Header, description = "As `afterSeq`; what browsers send")
    ),
    responses((status = 200, content_type = "text/event-stream", body = CodeRunEvent)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn events(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, run_id)): PathArgs<(String, String)>,
    QueryArgs(query): QueryArgs<LogQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let place = Place::check(&query, Some(&headers))?;
    let events = app.follow_detached(&caller, &id, &run_id, place).await?;
    Ok(sse::response(events))
}

/// Extension: ends a detached run: one that waits for its turn does not begin, one that has begun is
/// interrupted and keeps the state of its context.
///
/// The answer waits a moment for the end. Code that catches the interrupt goes on until its
/// timeout. A run that has ended is answered as it is.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/code/runs/{runId}/cancel", operation_id = "cancelCodeRun", tag = "code",
    params(("sandboxId" = String, Path), ("runId" = String, Path)),
    responses((status = 200, body = CodeRunAnswer)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, run_id)): PathArgs<(String, String)>,
) -> ApiResult<Json<CodeRunAnswer>> {
    let request = caller.request.clone();
    let run = app.cancel_detached(&caller, &request, &id, &run_id).await?;
    Ok(Json(CodeRunAnswer { run }))
}
