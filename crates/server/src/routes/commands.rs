//! `/v1/sandboxes/{id}/commands` and `/v1/commands`: shell commands and their records.
//!
//! What they print is in [`super::command_logs`].

use super::paging;
use crate::app::App;
use crate::auth::Caller;
use crate::commands::{CheckedCommand, Wait, respond, wire};
use crate::error::ApiResult;
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::idempotency::{AfterRestart, Answer, IdempotencyKey};
use crate::sandboxes::Found;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use crownest_api::Scope;
use crownest_api::command::{CancelCommand, Command, CommandAnswer, RunCommand};
use crownest_api::page::{Page, PageQuery};
use std::sync::Arc;

/// Since when `/run` and `/start` are old ways (2026-06-01), and until when they work at least.
const DEPRECATED_SINCE: &str = "@1780272000";
const WORKS_UNTIL: &str = "Tue, 01 Jun 2027 00:00:00 GMT";

type CommandCaller = Caller<{ Scope::CommandRun as u8 }>;
type CommandReader = Caller<{ Scope::CommandRead as u8 }>;

/// Runs a shell command, to its end (200) or in the background (202).
///
/// A non-zero exit code and a timeout are answers. One that takes minutes begins with spaces, so
/// that no client gives the connection up. Without a key in `Idempotency-Key` a command
/// that is waited for is ended when its client goes away.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/commands", operation_id = "createCommand", tag = "commands",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = RunCommand,
    responses(
        (status = 200, description = "It has ended", body = CommandAnswer),
        (status = 202, description = "It has begun, in the background", body = CommandAnswer)
    ),
    security(("bearer" = ["command:run"]), ("apiKey" = ["command:run"]))
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: CommandCaller,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<RunCommand>,
) -> ApiResult<Response> {
    let wait = match body.value.background {
        Some(true) => Wait::Begin,
        Some(false) | None => Wait::End,
    };
    respond(carry_out(app, caller, id, key, body, wait)).await
}

/// Runs a shell command to its end. Deprecated: use `POST …/commands`.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/commands/run", operation_id = "runCommand", tag = "commands",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = RunCommand,
    responses((status = 200, description = "It has ended", body = CommandAnswer, headers(
        ("Deprecation" = String), ("Sunset" = String), ("Link" = String)
    ))),
    security(("bearer" = ["command:run"]), ("apiKey" = ["command:run"]))
)]
pub(super) async fn run(
    State(app): State<App>,
    caller: CommandCaller,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<RunCommand>,
) -> ApiResult<Response> {
    let successor = successor(&id);
    let response = respond(carry_out(app, caller, id, key, body, Wait::End)).await?;
    Ok(deprecated(response, &successor))
}

/// Starts a shell command in the background. Deprecated: use `POST …/commands`.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/commands/start", operation_id = "startCommand", tag = "commands",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = RunCommand,
    responses((status = 202, description = "It has begun", body = CommandAnswer, headers(
        ("Deprecation" = String), ("Sunset" = String), ("Link" = String)
    ))),
    security(("bearer" = ["command:run"]), ("apiKey" = ["command:run"]))
)]
pub(super) async fn start(
    State(app): State<App>,
    caller: CommandCaller,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<RunCommand>,
) -> ApiResult<Response> {
    let successor = successor(&id);
    let response = carry_out(app, caller, id, key, body, Wait::Begin).await?;
    Ok(deprecated(response, &successor))
}

async fn carry_out(
    app: App,
    caller: CommandCaller,
    id: String,
    key: IdempotencyKey,
    body: JsonBody<RunCommand>,
    wait: Wait,
) -> ApiResult<Response> {
    let command = CheckedCommand::check(body.value, wait, &caller)?;
    let (worker, who, request) = (
        app.clone(),
        Arc::clone(&caller.principal),
        caller.request.clone(),
    );
    let keyed = key.is_some();
    let work = async move {
        let live = worker.live_sandbox(&who, &id).await?;
        match wait {
            Wait::End => {
                let done = worker.run_command(&who, &request, &live, command).await;
                IdempotencyKey::begun(keyed, done)
            }
            Wait::Begin => {
                let begun = worker
                    .start_background(&who, &request, &live, command)
                    .await;
                let command = IdempotencyKey::begun(keyed, begun)?;
                Answer::json(StatusCode::ACCEPTED, &CommandAnswer { command })
            }
        }
    };
    app.idempotent(&key, &caller, &body.raw, AfterRestart::Refuse, work)
        .await
}

/// The route to use instead, when its path can stand in a header.
fn successor(id: &str) -> Option<HeaderValue> {
    let clean = id
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let link = format!("</v1/sandboxes/{id}/commands>; rel=\"successor-version\"");
    clean.then(|| HeaderValue::from_str(&link).ok()).flatten()
}

fn deprecated(mut response: Response, successor: &Option<HeaderValue>) -> Response {
    let headers = response.headers_mut();
    headers.insert("deprecation", HeaderValue::from_static(DEPRECATED_SINCE));
    headers.insert("sunset", HeaderValue::from_static(WORKS_UNTIL));
    if let Some(link) = successor {
        headers.insert(header::LINK, link.clone());
    }
    response
}

/// Extension: the commands of a sandbox, live or ended, newest first, without their output.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/commands", operation_id = "listCommands", tag = "commands",
    params(("sandboxId" = String, Path), PageQuery),
    responses((status = 200, body = Page<Command>)),
    security(("bearer" = ["command:read"]), ("apiKey" = ["command:read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: CommandReader,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<PageQuery>,
) -> ApiResult<Json<Page<Command>>> {
    let page = paging::request(&query)?;
    let sandbox_id = match app.find_sandbox(&caller, &id).await? {
        Found::Live(live) => live.id.clone(),
        Found::Ended(row) => row.id,
    };
    let rows = app
        .store
        .commands(&caller.org_id, &sandbox_id, &page)
        .await?;
    Ok(Json(paging::answer(rows, |row| wire(&row))))
}

/// One command, running or ended; its sandbox may be gone.
#[utoipa::path(
    get, path = "/v1/commands/{commandId}", operation_id = "getCommand", tag = "commands",
    params(("commandId" = String, Path)), responses((status = 200, body = CommandAnswer)),
    security(("bearer" = ["command:read"]), ("apiKey" = ["command:read"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: CommandReader,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<CommandAnswer>> {
    let found = app.find_command(&caller, &id).await?;
    let command = app.command_record(&found).await?;
    Ok(Json(CommandAnswer { command }))
}

/// Cancels a command; one that has ended stays as it is.
///
/// Answers when the command has ended, or after three seconds with what it is then.
#[utoipa::path(
    post, path = "/v1/commands/{commandId}/cancel", operation_id = "cancelCommand", tag = "commands",
    params(("commandId" = String, Path)), request_body = CancelCommand,
    responses((status = 200, body = CommandAnswer)),
    security(("bearer" = ["command:cancel"]), ("apiKey" = ["command:cancel"]))
)]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller<{ Scope::CommandCancel as u8 }>,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<CancelCommand>,
) -> ApiResult<Json<CommandAnswer>> {
    let mode = body.value.mode.unwrap_or_default();
    let command = app
        .cancel_command(&caller, &caller.request, &id, mode)
        .await?;
    Ok(Json(CommandAnswer { command }))
}
