//! `/v1/sandboxes/{id}/code`: contexts and runs.

use super::paging;
use crate::app::App;
use crate::audit::Deed;
use crate::auth::{Caller, Principal};
use crate::budget::Share;
use crate::code::ContextCreation;
use crate::error::{ApiError, ApiResult};
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::idempotency::{self, AfterRestart, Answer, IdempotencyKey, Reservation, Reserved};
use crate::request::RequestContext;
use crate::run_answer;
use crate::runs::{CheckedRun, EventSink, StartedRun};
use crate::sandboxes::LiveSandbox;
use crate::sse;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use crownest_api::code::{
    CodeContext, ContextAnswer, ContextIsolation, CreateContext, InterruptAnswer, RunAnswer,
    RunCode, RunStreamEvent,
};
use crownest_api::detached_run::CodeRunAnswer;
use crownest_api::page::{Page, PageQuery};
use crownest_api::{ErrorCode, Scope, Timestamp};
use futures_util::stream::{self, StreamExt};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

type CodeCaller = Caller<{ Scope::CodeRun as u8 }>;

/// Frames of a stream that wait for a slow client; then the code waits too.
const FRAMES_WAITING_MAX: usize = 16;

fn deed<'a>(action: &'static str, context_id: &'a str, live: &'a LiveSandbox) -> Deed<'a> {
    Deed {
        action,
        resource_kind: "code_context",
        resource_id: context_id,
        project_id: Some(&live.project_id),
        outcome: "ok",
    }
}

/// Starts an interpreter that keeps its state between runs.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/code/contexts", operation_id = "createCodeContext", tag = "code",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = CreateContext, responses((status = 201, body = ContextAnswer)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn create_context(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<CreateContext>,
) -> ApiResult<Response> {
    let creation = ContextCreation::check(&body.value)?;
    let live = app.live_sandbox(&caller, &id).await?;
    let (worker, who) = (app.clone(), Arc::clone(&caller.principal));
    let request = caller.request.clone();
    let work = async move {
        let context = worker.create_context(&live, creation).await?;
        let deed = deed("code_context.create", &context.id, &live);
        let details = json!({ "sandboxId": live.id, "language": context.language });
        worker.audit.by_key(&who, &request, deed, &details);
        Answer::json(StatusCode::CREATED, &ContextAnswer { context })
    };
    app.idempotent(&key, &caller, &body.raw, AfterRestart::Repeat, work)
        .await
}

/// Contexts of a sandbox, newest first.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/code/contexts", operation_id = "listCodeContexts", tag = "code",
    params(("sandboxId" = String, Path), PageQuery),
    responses((status = 200, body = Page<CodeContext>)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn list_contexts(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<PageQuery>,
) -> ApiResult<Json<Page<CodeContext>>> {
    let page = paging::request(&query)?;
    let live = app.live_sandbox(&caller, &id).await?;
    let rows = app.store.contexts(&live.org_id, &live.id, &page).await?;
    Ok(Json(paging::answer(rows, |row| CodeContext {
        isolation: ContextIsolation::from_text(&row.isolation),
        id: row.id,
        sandbox_id: row.sandbox_id,
        language: row.language,
        cwd: row.cwd,
        created_at: Timestamp::from_millis(row.created_at / 1_000),
        is_default: row.is_default.then_some(true),
        expires_at: None,
    })))
}

/// One context.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/code/contexts/{contextId}", operation_id = "getCodeContext", tag = "code",
    params(("sandboxId" = String, Path), ("contextId" = String, Path)),
    responses((status = 200, body = ContextAnswer)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn get_context(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, context_id)): PathArgs<(String, String)>,
) -> ApiResult<Json<ContextAnswer>> {
    let live = app.live_sandbox(&caller, &id).await?;
    let context = live.context(&context_id)?.wire(&live.id);
    Ok(Json(ContextAnswer { context }))
}

/// Ends a context and its interpreter.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{sandboxId}/code/contexts/{contextId}", operation_id = "deleteCodeContext", tag = "code",
    params(("sandboxId" = String, Path), ("contextId" = String, Path)),
    responses((status = 200, body = ContextAnswer)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn delete_context(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, context_id)): PathArgs<(String, String)>,
) -> ApiResult<Json<ContextAnswer>> {
    let live = app.live_sandbox(&caller, &id).await?;
    let worker = app.clone();
    let context = app
        .finish_anyway(async move {
            let context = worker.delete_context(&live, &context_id).await?;
            let deed = deed("code_context.delete", &context.id, &live);
            let details = json!({ "sandboxId": live.id });
            worker
                .audit
                .by_key(&caller, &caller.request, deed, &details);
            Ok::<_, ApiError>(context)
        })
        .await?;
    Ok(Json(ContextAnswer { context }))
}

/// Extension: interrupts the run, or the question, that is active in a context; its state is kept.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/code/contexts/{contextId}/interrupt", operation_id = "interruptCodeContext", tag = "code",
    params(("sandboxId" = String, Path), ("contextId" = String, Path)),
    responses((status = 200, body = InterruptAnswer)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn interrupt(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, context_id)): PathArgs<(String, String)>,
) -> ApiResult<Json<InterruptAnswer>> {
    let live = app.live_sandbox(&caller, &id).await?;
    let context = live.context(&context_id)?;
    let interrupted = live.interrupt_context(&context).await?;
    let deed = deed("code_context.interrupt", &context_id, &live);
    let details = json!({ "sandboxId": live.id, "interrupted": interrupted });
    app.audit.by_key(&caller, &caller.request, deed, &details);
    Ok(Json(InterruptAnswer { interrupted }))
}

/// Runs code and answers with everything that came of it.
///
/// An exception in the code is an answer (200) with `error`. Without a key in `Idempotency-Key`
/// the code is interrupted when the client goes away.
///
/// Extension: with `detached` the answer (202) is the run, which goes on whoever is connected; it
/// is followed and fetched below `/code/runs/{runId}`.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/code/runs", operation_id = "runCode", tag = "code",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = RunCode,
    responses((status = 200, body = RunAnswer), (status = 202, body = CodeRunAnswer)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn run(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<RunCode>,
) -> ApiResult<Response> {
    let run = CheckedRun::check(body.value, &caller)?.for_answer()?;
    let (worker, who, request) = (
        app.clone(),
        Arc::clone(&caller.principal),
        caller.request.clone(),
    );
    let keyed = key.is_some();
    let work = async move {
        let live = worker.live_sandbox(&who, &id).await?;
        if run.is_detached() {
            let run = worker
                .start_detached(&who, &request, &live, run.detach())
                .await?;
            return Answer::json(StatusCode::ACCEPTED, &CodeRunAnswer { run });
        }
        let started = worker.begin_run(&live, run).await?;
        let finished = worker.finish_run(&who, &request, started, None).await;
        let (result, share) = IdempotencyKey::begun(keyed, finished)?;
        run_answer::answer_beside(result, share).await
    };
    app.idempotent(&key, &caller, &body.raw, AfterRestart::Refuse, work)
        .await
}

/// Runs code and streams what it says as server-sent events.
///
/// Events are `stdout`, `stderr`, `output`, `error` and, always last, `complete` with the same
/// result as the blocking route. A replay of a completed key is a single `complete`.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/code/runs/stream", operation_id = "streamCode", tag = "code",
    params(("sandboxId" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = RunCode,
    responses((status = 200, content_type = "text/event-stream", body = RunStreamEvent<'_>)),
    security(("bearer" = ["code:run"]), ("apiKey" = ["code:run"]))
)]
pub(super) async fn stream(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs(id): PathArgs<String>,
    key: IdempotencyKey,
    body: JsonBody<RunCode>,
) -> ApiResult<Response> {
    let run = CheckedRun::check(body.value, &caller)?.for_stream()?;
    let reservation = match app
        .reserve(&key, &caller, &body.raw, AfterRestart::Refuse)
        .await?
    {
        Reserved::Replay(stored) => return replay(stored),
        Reserved::Ours(reservation) => Some(reservation),
        Reserved::Unkeyed => None,
    };
    let (frames, mut waiting) = mpsc::channel(FRAMES_WAITING_MAX);
    let (begun, begins) = oneshot::channel();
    let streamed = Streamed {
        sink: EventSink::new(frames, reservation.is_some()),
        app: app.clone(),
        who: Arc::clone(&caller.principal),
        request: caller.request.clone(),
        reservation,
    };
    app.tasks
        .spawn(async move { streamed.drive(&id, run, begun).await });
    begins
        .await
        .map_err(|_| ApiError::internal("the task of a stream ended early"))??;
    Ok(sse::response(
        stream::poll_fn(move |cx| waiting.poll_recv(cx)).map(Ok),
    ))
}

/// A streamed run, from its first check to its stored end.
struct Streamed {
    app: App,
    who: Arc<Principal>,
    request: RequestContext,
    sink: EventSink,
    reservation: Option<Reservation>,
}

impl Streamed {
    async fn drive(self, id: &str, run: CheckedRun, mut begun: oneshot::Sender<ApiResult<()>>) {
        let started = tokio::select! {
            started = self.begin(id, run) => started,
            // Without a key, nobody is left to run it for.
            () = begun.closed(), if self.reservation.is_none() => return,
        };
        let started = match started {
            Ok(started) => started,
            Err(error) => {
                if let Some(reservation) = self.reservation {
                    reservation.settle(&Err(error.clone())).await;
                }
                // The client may be gone already; then nobody needs the refusal.
                let _ = begun.send(Err(error));
                return;
            }
        };
        if begun.send(Ok(())).is_err() && self.reservation.is_none() {
            return;
        }
        self.finish(started).await;
    }

    async fn begin(&self, id: &str, run: CheckedRun) -> ApiResult<StartedRun> {
        let live: Arc<LiveSandbox> = self.app.live_sandbox(&self.who, id).await?;
        self.app.begin_run(&live, run).await
    }

    async fn finish(self, started: StartedRun) {
        let outcome = self
            .app
            .finish_run(&self.who, &self.request, started, Some(&self.sink))
            .await;
        match IdempotencyKey::begun(self.reservation.is_some(), outcome) {
            Ok((result, share)) => {
                // Serialized before anything is stored, stored before it is sent.
                let complete = run_answer::complete_frame(&result).map(|frame| share.hold(frame));
                if let Some(reservation) = self.reservation {
                    let answer = run_answer::answer(result, Share::default());
                    reservation.settle(&answer).await;
                }
                match complete {
                    Ok(frame) => self.sink.last(frame).await,
                    Err(error) => tracing::error!(%error, "a result could not be serialized"),
                }
            }
            Err(error) => {
                let stopping = [ErrorCode::Unavailable, ErrorCode::RequestInterrupted];
                if !stopping.contains(&error.code) {
                    tracing::error!(%error, request = &*self.request.id, "a stream broke off");
                }
                // A stream that just ended would look like a run that had nothing to say.
                self.sink.broken_off(&error).await;
                if let Some(reservation) = self.reservation {
                    reservation.settle(&Err(error)).await;
                }
            }
        }
    }
}

/// The single event of a replayed stream.
fn replay(stored: crownest_store::StoredResponse) -> ApiResult<Response> {
    if !(200..300).contains(&stored.status) {
        return idempotency::replay(stored);
    }
    let answer: RunAnswer = serde_json::from_slice(&stored.body).map_err(ApiError::internal)?;
    let frame: Bytes = run_answer::complete_frame(&answer.run)?.into();
    Ok(sse::response(stream::iter([Ok(frame)])))
}
