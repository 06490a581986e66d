//! `/v1/sandboxes`

use super::paging;
use crate::app::App;
use crate::auth::{Caller, Principal};
use crate::error::{ApiError, ApiResult};
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::idempotency::{AfterRestart, Answer, IdempotencyKey};
use crate::lifecycle::deed;
use crate::request::RequestContext;
use crate::sandboxes::{self, Found, LiveSandbox};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use crownest_api::page::{Page, PageQuery};
use crownest_api::sandbox::{
    CreateSandbox, DestroyedReason, ExtendSandbox, Sandbox, SandboxAnswer, SandboxStatus,
};
use crownest_api::{ErrorCode, Scope, limits};
use crownest_store::SandboxFilter;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Makes a sandbox. It can be used when this answers.
#[utoipa::path(
    post, path = "/v1/sandboxes", operation_id = "createSandbox", tag = "sandboxes",
    params(("Idempotency-Key" = Option<String>, Header)),
    request_body = CreateSandbox, responses((status = 201, body = SandboxAnswer)),
    security(("bearer" = ["sandbox:create"]), ("apiKey" = ["sandbox:create"]))
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxCreate as u8 }>,
    key: IdempotencyKey,
    body: JsonBody<CreateSandbox>,
) -> ApiResult<Response> {
    let mut creation = app.check_creation(&caller, body.value)?;
    let (worker, who, request) = (
        app.clone(),
        Arc::clone(&caller.principal),
        caller.request.clone(),
    );
    let work = async move {
        let app = worker.clone();
        if let Some(id) = creation.request.snapshot_id.take() {
            creation = app.creation_from_snapshot(&who, creation, &id).await?;
        }
        // To its end in any case: a sandbox that was made and has no row could not be found.
        let sandbox = worker
            .finish_anyway(async move { app.create_sandbox(&who, &request, creation).await })
            .await?;
        Answer::json(StatusCode::CREATED, &SandboxAnswer { sandbox })
    };
    app.idempotent(&key, &caller, &body.raw, AfterRestart::Repeat, work)
        .await
}

/// Live sandboxes, newest first; ended ones too with `include=historical`.
///
/// Every `metadata.<key>=<value>` in the query must match exactly; keys may contain dots.
#[utoipa::path(
    get, path = "/v1/sandboxes", operation_id = "listSandboxes", tag = "sandboxes",
    params(PageQuery, ("include" = Option<String>, Query, description = "`historical`: ended sandboxes too")),
    responses((status = 200, body = Page<Sandbox>)),
    security(("bearer" = ["sandbox:read"]), ("apiKey" = ["sandbox:read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxRead as u8 }>,
    QueryArgs(query): QueryArgs<Vec<(String, String)>>,
) -> ApiResult<Json<Page<Sandbox>>> {
    let (page, mut filter) = list_query(query)?;
    filter.project_ids.clone_from(&caller.project_ids);
    let rows = app
        .store
        .sandboxes(&caller.org_id, &filter, &paging::request(&page)?)
        .await?;
    Ok(Json(paging::answer(rows, |row| {
        match app.sandboxes.get(&row.id) {
            Some(live) => live.wire(),
            None => sandboxes::wire(&row),
        }
    })))
}

pub(crate) fn list_query(query: Vec<(String, String)>) -> ApiResult<(PageQuery, SandboxFilter)> {
    let (mut page, mut filter) = (PageQuery::default(), SandboxFilter::default());
    for (name, value) in query {
        match name.as_str() {
            "cursor" => page.cursor = Some(value),
            "limit" => {
                let limit = value.parse();
                page.limit =
                    Some(limit.map_err(|_| ApiError::field("limit", "limit must be an integer"))?);
            }
            "include" => filter.include_ended = value == "historical",
            _ => {
                if let Some(key) = name.strip_prefix("metadata.") {
                    filter.metadata.insert(key.to_owned(), value);
                }
            }
        }
    }
    if filter.metadata.len() > limits::METADATA_KEYS_MAX {
        return Err(ApiError::field("metadata", "too many metadata filters"));
    }
    if filter
        .metadata
        .iter()
        .any(|(key, value)| key.contains('\0') || value.contains('\0'))
    {
        return Err(ApiError::field(
            "metadata",
            "a metadata filter contains NUL",
        ));
    }
    Ok((page, filter))
}

/// One sandbox, live or ended.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}", operation_id = "getSandbox", tag = "sandboxes",
    params(("sandboxId" = String, Path)), responses((status = 200, body = SandboxAnswer)),
    security(("bearer" = ["sandbox:read"]), ("apiKey" = ["sandbox:read"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxRead as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<SandboxAnswer>> {
    let sandbox = match app.find_sandbox(&caller, &id).await? {
        Found::Live(live) => live.wire(),
        Found::Ended(row) => sandboxes::wire(&row),
    };
    Ok(Json(SandboxAnswer { sandbox }))
}

/// Ends a sandbox and everything in it. Ending it again changes nothing.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{sandboxId}", operation_id = "killSandbox", tag = "sandboxes",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = SandboxAnswer)),
    security(("bearer" = ["sandbox:kill"]), ("apiKey" = ["sandbox:kill"]))
)]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxKill as u8 }>,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
) -> ApiResult<Response> {
    let (worker, who) = (app.clone(), Arc::clone(&caller.principal));
    let request = caller.request.clone();
    let work = async move {
        let sandbox = match worker.find_sandbox(&who, &id).await? {
            Found::Ended(row) => sandboxes::wire(&row),
            Found::Live(live) => {
                let app = worker.clone();
                worker
                    .finish_anyway(async move { kill(&app, &who, &request, &live).await })
                    .await?
            }
        };
        Answer::json(StatusCode::OK, &SandboxAnswer { sandbox })
    };
    app.idempotent(&key, &caller, &[], AfterRestart::Repeat, work)
        .await
}

async fn kill(
    app: &App,
    who: &Principal,
    request: &RequestContext,
    live: &Arc<LiveSandbox>,
) -> ApiResult<Sandbox> {
    let (status, reason) = (SandboxStatus::Destroyed, DestroyedReason::UserKilled);
    app.end(live, status, reason).await;
    if !live.recorded.load(Ordering::Relaxed) {
        let message = "the sandbox has ended, which could not be recorded yet";
        return Err(ApiError::new(ErrorCode::Unavailable, message).retry_after(1_000));
    }
    let deed = deed("sandbox.kill", live, "ok");
    app.audit.by_key(who, request, deed, &json!({}));
    Ok(live.wire())
}

/// Gives a live sandbox a new time to live, from now. Deprecated: use `/ttl`.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/extend", operation_id = "extendSandbox", tag = "sandboxes",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = ExtendSandbox, responses((status = 200, body = SandboxAnswer)),
    security(("bearer" = ["sandbox:extend"]), ("apiKey" = ["sandbox:extend"]))
)]
pub(super) async fn extend(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxExtend as u8 }>,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<ExtendSandbox>,
) -> ApiResult<Response> {
    set_ttl(&app, &caller, &id, &key, body).await
}

/// Gives a live sandbox a new time to live, from now.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/ttl", operation_id = "setSandboxTtl", tag = "sandboxes",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = ExtendSandbox, responses((status = 200, body = SandboxAnswer)),
    security(("bearer" = ["sandbox:extend"]), ("apiKey" = ["sandbox:extend"]))
)]
pub(super) async fn ttl(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxExtend as u8 }>,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<ExtendSandbox>,
) -> ApiResult<Response> {
    set_ttl(&app, &caller, &id, &key, body).await
}

async fn set_ttl(
    app: &App,
    caller: &Caller<{ Scope::SandboxExtend as u8 }>,
    id: &str,
    key: &IdempotencyKey,
    body: JsonBody<ExtendSandbox>,
) -> ApiResult<Response> {
    let ttl_ms = body.value.ttl_ms;
    let (worker, who, id) = (app.clone(), Arc::clone(&caller.principal), id.to_owned());
    let request = caller.request.clone();
    let work = async move {
        let live = worker.kept_sandbox(&who, &id).await?;
        let sandbox = worker.extend_sandbox(&who, &live, ttl_ms).await?;
        let deed = deed("sandbox.extend", &live, "ok");
        worker
            .audit
            .by_key(&who, &request, deed, &json!({ "ttlMs": ttl_ms }));
        Answer::json(StatusCode::OK, &SandboxAnswer { sandbox })
    };
    app.idempotent(key, caller, &body.raw, AfterRestart::Repeat, work)
        .await
}

/// Extension: stops everything in a sandbox and keeps it in memory. Its time to live goes on and
/// is charged for. Runs and commands go on where they were after `/resume`; new ones are refused
/// with `sandbox_paused` until then, as is this of one that is paused.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/pause", operation_id = "pauseSandbox", tag = "sandboxes",
    params(("sandboxId" = String, Path)), responses((status = 200, body = SandboxAnswer)),
    security(("bearer" = ["sandbox:extend"]), ("apiKey" = ["sandbox:extend"]))
)]
pub(super) async fn pause(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxExtend as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<SandboxAnswer>> {
    let live = app.kept_sandbox(&caller, &id).await?;
    let sandbox = app.pause_sandbox(&caller, &caller.request, &live).await?;
    Ok(Json(SandboxAnswer { sandbox }))
}

/// Extension: lets everything in a paused sandbox go on. `sandbox_not_paused` for another.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/resume", operation_id = "resumeSandbox", tag = "sandboxes",
    params(("sandboxId" = String, Path)), responses((status = 200, body = SandboxAnswer)),
    security(("bearer" = ["sandbox:extend"]), ("apiKey" = ["sandbox:extend"]))
)]
pub(super) async fn resume(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxExtend as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<SandboxAnswer>> {
    let live = app.kept_sandbox(&caller, &id).await?;
    let sandbox = app.resume_sandbox(&caller, &caller.request, &live).await?;
    Ok(Json(SandboxAnswer { sandbox }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_filters_may_have_dots_and_are_all_kept() {
        let pairs = [
            ("metadata.agent.id", "x"),
            ("metadata.b", ""),
            ("other", "y"),
            ("limit", "3"),
        ];
        let query = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        let (page, filter) = list_query(query).unwrap();
        assert_eq!(page.limit, Some(3));
        assert_eq!(filter.metadata["agent.id"], "x");
        assert_eq!(filter.metadata["b"], "");
        assert_eq!(filter.metadata.len(), 2);
        assert!(list_query(vec![("limit".into(), "x".into())]).is_err());
    }
}
