//! `/code/context` and `/code/contexts`: the contexts of `/v1`, in this dialect's words.

use super::super::error::{Failure, Refusal};
use super::code::CodeCaller;
use super::paths;
use super::stream;
use crate::app::App;
use crate::audit::Deed;
use crate::code::{self, Context, ContextCreation};
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::sandboxes::LiveSandbox;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

#[derive(Debug, Deserialize)]
struct CreateRequest {
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    cwd: Option<String>,
}

#[derive(Debug, Serialize)]
struct CodeContext {
    id: String,
    language: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<String>,
}

#[derive(Debug, Deserialize)]
struct LanguageQuery {
    language: Option<String>,
}

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/code/context", post(create))
        .route("/code/contexts", get(list).delete(delete_of_language))
        .route("/code/contexts/{contextId}", get(one).delete(delete))
}

async fn create(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<CreateRequest>,
) -> Result<Json<CodeContext>, Failure> {
    let word = body.value.language.filter(|word| !word.is_empty());
    let word = word.ok_or_else(|| {
        let status = StatusCode::BAD_REQUEST;
        Refusal::new(status, "INVALID_REQUEST_BODY", "language is needed")
    })?;
    let language = code::language(&word).map_err(stream::refused)?;
    let asked = body.value.cwd.filter(|cwd| !cwd.is_empty());
    let live = app.live_sandbox(&caller, &id).await?;
    let cwd = paths::directory(&live, asked.as_deref()).await?;
    let creation = ContextCreation::at(language, cwd.clone());
    let created = app.create_context(&live, creation).await;
    let context = created.map_err(stream::refused)?;
    note(&app, &caller, "code_context.create", &context.id, &live);
    Ok(Json(CodeContext {
        id: context.id,
        language: context.language,
        cwd: Some(cwd),
    }))
}

/// Puts on record what was done with a context, in the same words as `/v1`.
pub(super) fn note(
    app: &App,
    caller: &CodeCaller,
    action: &'static str,
    context_id: &str,
    live: &LiveSandbox,
) {
    let deed = Deed {
        action,
        resource_kind: "code_context",
        resource_id: context_id,
        project_id: Some(&live.project_id),
        outcome: "ok",
    };
    let details = json!({ "sandboxId": live.id });
    app.audit.by_key(caller, &caller.request, deed, &details);
}

/// Contexts of one language, or all. Those of sessions are no contexts to clients.
fn contexts(live: &LiveSandbox, language: Option<&str>) -> Vec<Arc<Context>> {
    let language = language.map(|word| code::language(word).unwrap_or_default());
    let of = |context: &Arc<Context>| {
        context.session.is_none() && language.is_none_or(|language| context.language == language)
    };
    live.all_contexts().into_iter().filter(of).collect()
}

async fn list(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<LanguageQuery>,
) -> Result<Json<Vec<CodeContext>>, Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    let language = query.language.filter(|language| !language.is_empty());
    let found = contexts(&live, language.as_deref());
    Ok(Json(found.iter().map(|found| wire(found)).collect()))
}

fn wire(context: &Context) -> CodeContext {
    CodeContext {
        id: context.id.clone(),
        language: context.language.clone(),
        cwd: None,
    }
}

fn unknown() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "CONTEXT_NOT_FOUND",
        "no such code context",
    )
}

async fn one(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, context_id)): PathArgs<(String, String)>,
) -> Result<Json<CodeContext>, Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    let context = live.context(&context_id).map_err(|_| unknown())?;
    Ok(Json(wire(&context)))
}

async fn delete(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, context_id)): PathArgs<(String, String)>,
) -> Result<(), Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    live.context(&context_id).map_err(|_| unknown())?;
    remove(&app, caller, live, vec![context_id]).await
}

async fn delete_of_language(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<LanguageQuery>,
) -> Result<(), Failure> {
    let language = super::required("language", query.language)?;
    let live = app.live_sandbox(&caller, &id).await?;
    let found = contexts(&live, Some(&language));
    let ids = found.iter().map(|context| context.id.clone()).collect();
    remove(&app, caller, live, ids).await
}

/// To the end, whether or not the client stays.
async fn remove(
    app: &App,
    caller: CodeCaller,
    live: Arc<LiveSandbox>,
    ids: Vec<String>,
) -> Result<(), Failure> {
    let worker = app.clone();
    app.finish_anyway(async move {
        for id in ids {
            match worker.delete_context(&live, &id).await {
                Ok(_) => note(&worker, &caller, "code_context.delete", &id, &live),
                // Somebody else was faster.
                Err(error) if error.code == crownest_api::ErrorCode::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    })
    .await
}
