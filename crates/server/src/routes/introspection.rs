//! `/v1/sandboxes/{id}/code/contexts/{contextId}/…`: what is asked of a context beside runs. All
//! of it is an extension of the contract.

use crate::app::App;
use crate::audit::Deed;
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::introspection::{CheckedQuery, QueryAnswer};
use crate::sandboxes::LiveSandbox;
use axum::Json;
use axum::extract::State;
use crownest_api::introspection::{
    CompleteAnswer, CompleteCode, InputAnswer, InputLine, InspectAnswer, InspectCode,
    RestartAnswer, VariablesAnswer,
};
use crownest_api::{ErrorCode, Scope, limits};
use serde::Deserialize;
use serde_json::{Value, json};

type CodeCaller = Caller<{ Scope::CodeRun as u8 }>;

/// Query of [`variables`].
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VariablesQuery {
    limit: Option<u32>,
    timeout_ms: Option<u64>,
}

/// Extension: what may stand at a place of code that is being written.
///
/// Nothing runs but what the language does to find out; code of the context may (a property, a
/// `__dir__`). The question waits for its turn behind runs of the context, at most as long as its
/// timeout. `answered` is the only outcome with an answer.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/code/contexts/{contextId}/complete", operation_id = "completeCode", tag = "code",
    params(("sandboxId" = String, Path), ("contextId" = String, Path)),
    request_body = CompleteCode, responses((status = 200, body = CompleteAnswer)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn complete(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, context_id)): PathArgs<(String, String)>,
    body: JsonBody<CompleteCode>,
) -> ApiResult<Json<CompleteAnswer>> {
    let query = CheckedQuery::complete(body.value)?;
    let answer = ask(&app, &caller, &id, &context_id, query).await?;
    Ok(Json(answer.completions()))
}

/// Extension: what a name stands for, its signature and documentation.
///
/// The question waits and ends as that of `complete`.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/code/contexts/{contextId}/inspect", operation_id = "inspectCode", tag = "code",
    params(("sandboxId" = String, Path), ("contextId" = String, Path)),
    request_body = InspectCode, responses((status = 200, body = InspectAnswer)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn inspect(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, context_id)): PathArgs<(String, String)>,
    body: JsonBody<InspectCode>,
) -> ApiResult<Json<InspectAnswer>> {
    let query = CheckedQuery::inspect(body.value)?;
    let answer = ask(&app, &caller, &id, &context_id, query).await?;
    Ok(Json(answer.inspection()))
}

/// Extension: what is defined in a context, with types, shapes and the beginnings of values.
///
/// The question waits and ends as that of `complete`.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/code/contexts/{contextId}/variables", operation_id = "listCodeVariables", tag = "code",
    params(
        ("sandboxId" = String, Path), ("contextId" = String, Path),
        ("limit" = Option<u32>, Query, description = "Variables in the answer; 200 when absent", minimum = 1, maximum = 1000),
        ("timeoutMs" = Option<u64>, Query, description = "How long the answer may take; 5,000 when absent", minimum = 1, maximum = 30000)
    ),
    responses((status = 200, body = VariablesAnswer)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn variables(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, context_id)): PathArgs<(String, String)>,
    QueryArgs(query): QueryArgs<VariablesQuery>,
) -> ApiResult<Json<VariablesAnswer>> {
    let query = CheckedQuery::variables(query.limit, query.timeout_ms)?;
    let answer = ask(&app, &caller, &id, &context_id, query).await?;
    Ok(Json(answer.variables()))
}

/// Extension: gives a context a fresh interpreter under the same id. Everything that was defined
/// in it is gone; a run that is active ends with `context_died`; files stay.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/code/contexts/{contextId}/restart", operation_id = "restartCodeContext", tag = "code",
    params(("sandboxId" = String, Path), ("contextId" = String, Path)),
    responses((status = 200, body = RestartAnswer)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn restart(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, context_id)): PathArgs<(String, String)>,
) -> ApiResult<Json<RestartAnswer>> {
    let live = app.live_sandbox(&caller, &id).await?;
    let (context, interrupted) = app.restart_context(&live, &context_id).await?;
    let details = json!({ "sandboxId": live.id, "interrupted": interrupted });
    note(
        &app,
        &caller,
        "code_context.restart",
        &context_id,
        &live,
        &details,
    );
    Ok(Json(RestartAnswer {
        context,
        state_lost: true,
        interrupted,
    }))
}

/// Extension: answers the line that code of a context waits for (`allowInput` of its run, event
/// `input_request` of its stream). What the line says is not put on record.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/code/contexts/{contextId}/input", operation_id = "answerCodeInput", tag = "code",
    params(("sandboxId" = String, Path), ("contextId" = String, Path)),
    request_body = InputLine, responses((status = 200, body = InputAnswer)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn input(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, context_id)): PathArgs<(String, String)>,
    body: JsonBody<InputLine>,
) -> ApiResult<Json<InputAnswer>> {
    let line = body.value.value;
    check_line(line.as_deref())?;
    let live = app.live_sandbox(&caller, &id).await?;
    let run = live.context(&context_id)?.active_run().ok_or_else(|| {
        let message = "no code of this context waits for a line";
        ApiError::new(ErrorCode::InputNotAwaited, message)
    })?;
    let eof = line.is_none();
    live.host.answer_input(run, line).await?;
    let details = json!({ "sandboxId": live.id, "eof": eof });
    note(
        &app,
        &caller,
        "code_context.input",
        &context_id,
        &live,
        &details,
    );
    Ok(Json(InputAnswer { delivered: true }))
}

fn check_line(line: Option<&str>) -> ApiResult<()> {
    let Some(line) = line else { return Ok(()) };
    let max = limits::INPUT_LINE_BYTES_MAX;
    if line.len() > max || line.contains(['\n', '\r']) {
        let message = format!("value must be one line of at most {max} bytes");
        return Err(ApiError::field("value", message));
    }
    Ok(())
}

async fn ask(
    app: &App,
    caller: &CodeCaller,
    id: &str,
    context_id: &str,
    query: CheckedQuery,
) -> ApiResult<QueryAnswer> {
    let live = app.live_sandbox(caller, id).await?;
    let details = json!({ "sandboxId": live.id, "query": query.name() });
    let answer = app.ask_context(&live, context_id, query).await?;
    note(
        app,
        caller,
        "code_context.query",
        context_id,
        &live,
        &details,
    );
    Ok(answer)
}

fn note(
    app: &App,
    caller: &CodeCaller,
    action: &'static str,
    context_id: &str,
    live: &LiveSandbox,
    details: &Value,
) {
    let deed = Deed {
        action,
        resource_kind: "code_context",
        resource_id: context_id,
        project_id: Some(&live.project_id),
        outcome: "ok",
    };
    app.audit.by_key(caller, &caller.request, deed, details);
}
