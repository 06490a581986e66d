//! `/code`: cells in contexts, and their interruption.
//!
//! A context runs one cell at a time. A second is refused as busy, inside of its stream, as clients
//! know it.

use super::super::error::Failure;
use super::events::{self, CodeWords};
use super::stream;
use crate::app::App;
use crate::auth::{Caller, Principal};
use crate::code::{self, Context};
use crate::error::{ApiError, ApiResult};
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::request::RequestContext;
use crate::runs::{CheckedRun, EventSink, StartedRun};
use crate::sandboxes::LiveSandbox;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use crownest_api::code::{CodeError, RunCodeResult, RunOutcome};
use crownest_api::{ErrorCode, Scope};
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::mpsc;

pub(super) type CodeCaller = Caller<{ Scope::CodeRun as u8 }>;

/// What clients call the shell where a language is expected.
const SHELL: &str = "command";

#[derive(Debug, Deserialize)]
struct RunRequest {
    code: String,
    #[serde(default)]
    context: Option<Named>,
}

/// The context that a cell is for: by its id, else the default one of a language.
#[derive(Debug, Default, Deserialize)]
struct Named {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    language: Option<String>,
}

#[derive(Debug, Deserialize)]
struct InterruptQuery {
    id: Option<String>,
}

pub(super) fn router() -> Router<App> {
    Router::new().route("/code", post(run).delete(interrupt))
}

async fn run(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<RunRequest>,
) -> Result<Response, Failure> {
    let named = body.value.context.unwrap_or_default();
    let language = named.language.filter(|language| !language.is_empty());
    let context_id = named.id.filter(|id| !id.is_empty());
    let live = app.live_sandbox(&caller, &id).await?;
    let (language, context) = match (context_id, language.as_deref()) {
        (Some(id), language) => {
            let context = live.context(&id).map_err(stream::refused)?;
            (language_in(&context, language)?, Some(context))
        }
        (None, None | Some(SHELL)) => {
            let who = (&caller.principal, &caller.request);
            return super::commands::run_shell(&app, who, &live, body.value.code).await;
        }
        (None, Some(language)) => (code::language(language).map_err(stream::refused)?, None),
    };
    let context_id = context.as_ref().map(|context| context.id.clone());
    let run = CheckedRun::streamed(body.value.code, language, context_id)?;
    if let Some(context) = context.filter(|context| context.is_busy()) {
        return Ok(busy(&context));
    }
    let started = app.begin_run(&live, run).await.map_err(stream::refused)?;
    let (frames, response) = stream::open(started.context_id());
    let coding = Coding {
        app: app.clone(),
        who: Arc::clone(&caller.principal),
        request: caller.request.clone(),
        frames,
    };
    app.tasks.spawn(coding.drive(started));
    Ok(response)
}

/// The language of a cell for a context: that of the request if the context runs it, else its own.
fn language_in(context: &Context, asked: Option<&str>) -> ApiResult<&'static str> {
    let asked = asked.and_then(|word| code::language(word).ok());
    match asked.filter(|language| code::runs(&context.language, language)) {
        Some(language) => Ok(language),
        None => code::language(&context.language),
    }
}

fn busy(context: &Context) -> Response {
    let (frames, response) = stream::open(&context.id);
    let error = ApiError::new(
        ErrorCode::Unavailable,
        "error running codes: session is busy",
    );
    let mut frame = Vec::new();
    events::push_failure(&error, &mut frame);
    if frames.try_send(frame.into()).is_err() {
        tracing::error!("a new channel has no room");
    }
    response
}

/// A cell on its way to the end of its stream. A client that goes away interrupts it.
struct Coding {
    app: App,
    who: Arc<Principal>,
    request: RequestContext,
    frames: mpsc::Sender<Bytes>,
}

impl Coding {
    async fn drive(self, started: StartedRun) {
        let words = Arc::new(CodeWords::default());
        let sink = EventSink::in_words(self.frames, Arc::clone(&words) as _);
        let finished = self
            .app
            .finish_run(&self.who, &self.request, started, Some(&sink))
            .await;
        let mut last = Vec::new();
        match finished {
            Ok((result, _share)) => push_end(&result, &words, &mut last),
            Err(error) => events::push_failure(&error, &mut last),
        }
        sink.last(last).await;
    }
}

/// The events that a stream of a run ends with.
fn push_end(result: &RunCodeResult, words: &CodeWords, out: &mut Vec<u8>) {
    if result.execution_count > 0 {
        events::push_count(result.execution_count, out);
    }
    let Some(error) = &result.error else {
        return events::push_complete(result.duration_ms.unwrap_or(0), out);
    };
    let (name, value) = named(result.outcome, error, words);
    let traceback = error.traceback.as_deref().unwrap_or_default();
    events::push_error(&name, &value, traceback, out);
}

/// Name and message of a failure as clients know them: an interrupt is what the interpreter made of
/// it (`KeyboardInterrupt`).
fn named(outcome: RunOutcome, error: &CodeError, words: &CodeWords) -> (String, String) {
    let raised = match outcome {
        RunOutcome::Interrupted => words.raised().take(),
        _ => None,
    };
    raised.unwrap_or_else(|| {
        let name = error.name.clone().unwrap_or_default();
        (name, error.message.clone())
    })
}

/// Interrupts the cell that runs in a context, or is about to.
async fn interrupt(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<InterruptQuery>,
) -> Result<(), Failure> {
    let context_id = super::required("id", query.id)?;
    let live: Arc<LiveSandbox> = app.live_sandbox(&caller, &id).await?;
    let context = live.context(&context_id).map_err(stream::refused)?;
    live.interrupt_context(&context).await?;
    super::contexts::note(&app, &caller, "code_context.interrupt", &context_id, &live);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(outcome: RunOutcome, name: &str, raised: Option<&str>) -> String {
        let error = CodeError {
            message: "why".to_owned(),
            name: Some(name.to_owned()),
            traceback: None,
            line: None,
        };
        let words = CodeWords::default();
        *words.raised() = raised.map(|name| (name.to_owned(), "raised".to_owned()));
        named(outcome, &error, &words).0
    }

    #[test]
    fn failures_have_the_names_that_clients_know() {
        let completed = RunOutcome::Completed;
        assert_eq!(name_of(completed, "KeyError", Some("KeyError")), "KeyError");
        let interrupted = |raised| name_of(RunOutcome::Interrupted, "Interrupted", raised);
        assert_eq!(interrupted(Some("KeyboardInterrupt")), "KeyboardInterrupt");
        assert_eq!(interrupted(None), "Interrupted");
        let late = name_of(
            RunOutcome::TimedOut,
            "TimeoutError",
            Some("KeyboardInterrupt"),
        );
        assert_eq!(late, "TimeoutError");
    }
}
