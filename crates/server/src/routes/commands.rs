//! `/v1/sandboxes/{id}/commands`: shell commands that are waited for.

use crate::app::App;
use crate::auth::Caller;
use crate::commands::{CheckedCommand, unsupported};
use crate::error::ApiResult;
use crate::extract::{JsonBody, PathArgs};
use crate::idempotency::{AfterRestart, Answer, IdempotencyKey};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use crownest_api::Scope;
use crownest_api::command::{CommandAnswer, RunCommand};
use std::sync::Arc;

type CommandCaller = Caller<{ Scope::CommandRun as u8 }>;

/// Runs a shell command to its end. A non-zero exit code is an answer (200).
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/commands", operation_id = "createCommand", tag = "commands",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = RunCommand, responses((status = 200, body = CommandAnswer)),
    security(("bearer" = ["command:run"]), ("apiKey" = ["command:run"]))
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: CommandCaller,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<RunCommand>,
) -> ApiResult<Response> {
    blocking(&app, &caller, id, &key, body).await
}

/// Runs a shell command to its end. Deprecated: use `POST …/commands`.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/commands/run", operation_id = "runCommand", tag = "commands",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = RunCommand, responses((status = 200, body = CommandAnswer)),
    security(("bearer" = ["command:run"]), ("apiKey" = ["command:run"]))
)]
pub(super) async fn run(
    State(app): State<App>,
    caller: CommandCaller,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<RunCommand>,
) -> ApiResult<Response> {
    blocking(&app, &caller, id, &key, body).await
}

/// Background commands: not available yet, answers `unsupported_runtime_option`.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/commands/start", operation_id = "startCommand", tag = "commands",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = RunCommand, responses((status = 400, body = crownest_api::ErrorEnvelope)),
    security(("bearer" = ["command:run"]), ("apiKey" = ["command:run"]))
)]
pub(super) async fn start(
    State(app): State<App>,
    caller: CommandCaller,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<RunCommand>,
) -> ApiResult<Response> {
    app.live_sandbox(&caller, &id).await?;
    CheckedCommand::check(body.value, &caller)?;
    Err(unsupported(
        "background",
        "background commands are not available yet",
    ))
}

async fn blocking(
    app: &App,
    caller: &CommandCaller,
    id: String,
    key: &IdempotencyKey,
    body: JsonBody<RunCommand>,
) -> ApiResult<Response> {
    let command = CheckedCommand::check(body.value, caller)?;
    let (worker, who, request) = (
        app.clone(),
        Arc::clone(&caller.principal),
        caller.request.clone(),
    );
    let keyed = key.is_some();
    let work = async move {
        let live = worker.live_sandbox(&who, &id).await?;
        let done = worker.run_command(&who, &request, &live, command).await;
        let command = IdempotencyKey::begun(keyed, done)?;
        Answer::json(StatusCode::OK, &CommandAnswer { command })
    };
    app.idempotent(key, caller, &body.raw, AfterRestart::Refuse, work)
        .await
}
