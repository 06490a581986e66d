//! `/session`: shells that keep their state, which are contexts of the shell's kernel. So functions,
//! aliases and variables survive as well as what is exported, and a shell that ends comes back.
//!
//! What a command prints to stderr is merged into stdout, by the shell itself: the order holds.

use super::super::error::{Failure, Refusal};
use super::code::CodeCaller;
use super::commands::timeout;
use super::events::{self, PING_EVERY};
use super::lines::Lines;
use super::{contexts, env_file, paths, stream};
use crate::app::App;
use crate::auth::Principal;
use crate::code::{Context, ContextCreation};
use crate::extract::{JsonBody, PathArgs};
use crate::host::RunEvent;
use crate::request::RequestContext;
use crate::runs::{CheckedRun, EventSink, StartedRun, Words};
use crate::sandboxes::LiveSandbox;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, post};
use axum::{Json, Router};
use bytes::Bytes;
use crownest_api::code::{CodeError, RunCodeResult, RunOutcome};
use crownest_api::limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// Before every command. What it prints to stderr goes the way of stdout.
const MERGE: &str = "exec 2>&1; ";
/// What the shell says of code that it cannot parse.
const SYNTAX_ERROR: &str = "SyntaxError";
/// Exit codes of what has none: of a shell that cannot parse, of an interrupted one, of one that
/// was killed.
const EXIT_SYNTAX: &str = "2";
const EXIT_INTERRUPTED: &str = "130";
const EXIT_KILLED: &str = "-1";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CreateRequest {
    cwd: Option<String>,
}

#[derive(Debug, Serialize)]
struct Created {
    session_id: String,
}

#[derive(Debug, Deserialize)]
struct RunRequest {
    command: String,
    #[serde(default)]
    cwd: Option<String>,
    /// Milliseconds; 0 stands for none.
    #[serde(default)]
    timeout: Option<i64>,
}

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/session", post(create))
        .route("/session/{sessionId}", delete(end))
        .route("/session/{sessionId}/run", post(run))
}

async fn create(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<CreateRequest>,
) -> Result<Json<Created>, Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    let nothing = BTreeMap::new();
    let (cwd, env) = env_file::surroundings(&live, body.value.cwd, nothing).await?;
    let creation = ContextCreation::session(cwd, env);
    let context = app.create_context(&live, creation).await?;
    contexts::note(&app, &caller, "code_context.create", &context.id, &live);
    Ok(Json(Created {
        session_id: context.id,
    }))
}

/// The session of that id. After a restart of the server, every context of the shell may be one.
fn session(live: &LiveSandbox, id: &str) -> Result<Arc<Context>, Refusal> {
    let context = live.context(id).ok();
    context
        .filter(|context| context.language == "bash")
        .ok_or_else(|| {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "CONTEXT_NOT_FOUND",
                "no such session",
            )
        })
}

async fn end(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, session_id)): PathArgs<(String, String)>,
) -> Result<(), Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    session(&live, &session_id)?;
    let worker = app.clone();
    app.finish_anyway(async move {
        worker.delete_context(&live, &session_id).await?;
        contexts::note(&worker, &caller, "code_context.delete", &session_id, &live);
        Ok(())
    })
    .await
}

async fn run(
    State(app): State<App>,
    caller: CodeCaller,
    PathArgs((id, session_id)): PathArgs<(String, String)>,
    body: JsonBody<RunRequest>,
) -> Result<Response, Failure> {
    let asked = body.value;
    if asked.command.trim().is_empty() {
        let status = StatusCode::BAD_REQUEST;
        return Err(Refusal::new(status, "INVALID_REQUEST_BODY", "command is needed").into());
    }
    let live = app.live_sandbox(&caller, &id).await?;
    let context = session(&live, &session_id)?;
    let cwd = asked.cwd.filter(|cwd| !cwd.is_empty());
    let directory = match &cwd {
        Some(cwd) => Some(paths::directory(&live, Some(cwd)).await?),
        None => None,
    };
    let millis = timeout(asked.timeout)?;
    let within = millis.map(|ms| Duration::from_millis(ms.min(limits::DETACHED_TIMEOUT_MAX_MS)));
    let code = format!("{MERGE}{}{}", news(&live, &context).await?, asked.command);
    let run = CheckedRun::streamed(code, "bash", Some(session_id))?.within(directory, within);
    let started = app.begin_run(&live, run).await?;
    let (frames, response) = stream::open(&context.id);
    let running = Running {
        app: app.clone(),
        who: Arc::clone(&caller.principal),
        request: caller.request.clone(),
        frames,
    };
    app.tasks.spawn(running.drive(started));
    Ok(response)
}

/// Commands that give a session what was added to the file of environment since it got it last.
async fn news(live: &LiveSandbox, context: &Context) -> Result<String, Failure> {
    let Some(session) = &context.session else {
        return Ok(String::new());
    };
    let now = env_file::environment(live, BTreeMap::new()).await?;
    let mut given = session.given.lock().await;
    let mut exports = String::new();
    for (name, value) in &now {
        if given.get(name) != Some(value) {
            let value = value.replace('\'', "'\\''");
            // Writing to a string does not fail.
            let _ = write!(exports, "export {name}='{value}'; ");
        }
    }
    *given = now;
    Ok(exports)
}

/// A command of a session on its way to the end of its stream. A client that goes away interrupts
/// it.
struct Running {
    app: App,
    who: Arc<Principal>,
    request: RequestContext,
    frames: mpsc::Sender<Bytes>,
}

impl Running {
    async fn drive(self, started: StartedRun) {
        let words = Arc::new(SessionWords(Mutex::new(Lines::new("stdout"))));
        let sink = EventSink::in_words(self.frames, Arc::clone(&words) as _);
        let finished = self
            .app
            .finish_run(&self.who, &self.request, started, Some(&sink))
            .await;
        let mut last = Vec::new();
        match finished {
            Ok((result, _share)) => words.push_end(&result, &mut last),
            Err(error) => {
                words.lines().finish(&mut last);
                events::push_failure(&error, &mut last);
            }
        }
        sink.last(last).await;
    }
}

/// A command of a session in these words: one event per line.
#[derive(Debug)]
struct SessionWords(Mutex<Lines>);

impl SessionWords {
    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().expect("no panic while it is held")
    }

    fn push_end(&self, result: &RunCodeResult, out: &mut Vec<u8>) {
        let Some(error) = &result.error else {
            self.lines().finish(out);
            return events::push_complete(result.duration_ms.unwrap_or(0), out);
        };
        let mut lines = self.lines();
        if error.name.as_deref() == Some(SYNTAX_ERROR) {
            // Where a shell says it.
            lines.finish(out);
            lines.push(format!("bash: {}\n", error.message).as_bytes(), out);
        }
        lines.finish(out);
        let code = exit_code(result.outcome, error);
        events::push_error(
            "CommandExecError",
            &code,
            std::slice::from_ref(&error.message),
            out,
        );
    }
}

impl Words for SessionWords {
    fn event(&self, event: &RunEvent, frames: &mut Vec<u8>) {
        if let RunEvent::Stdout(bytes) | RunEvent::Stderr(bytes) = event {
            self.lines().push(bytes, frames);
        }
    }

    fn sign_of_life(&self) -> (Duration, Vec<u8>) {
        (PING_EVERY, events::ping())
    }
}

/// The exit code, which the shell's kernel says as `exit status 3 (…)`.
fn exit_code(outcome: RunOutcome, error: &CodeError) -> String {
    match outcome {
        RunOutcome::Completed => {}
        RunOutcome::Interrupted => return EXIT_INTERRUPTED.to_owned(),
        _ => return EXIT_KILLED.to_owned(),
    }
    let status = error.message.strip_prefix("exit status ");
    let digits: String = status
        .unwrap_or_default()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    match (error.name.as_deref(), digits.is_empty()) {
        (Some("ExitCode"), false) => digits,
        (Some(SYNTAX_ERROR), _) => EXIT_SYNTAX.to_owned(),
        (Some("WorkingDirectory"), _) => "1".to_owned(),
        _ => EXIT_KILLED.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_shell() {
        let code = |name: &str, message: &str| {
            let error = CodeError {
                message: message.to_owned(),
                name: Some(name.to_owned()),
                traceback: None,
                line: None,
            };
            exit_code(RunOutcome::Completed, &error)
        };
        assert_eq!(
            code("ExitCode", "exit status 127 (command not found)"),
            "127"
        );
        assert_eq!(code("ExitCode", "exit status 3"), "3");
        assert_eq!(code("ExitCode", "something else"), "-1");
        assert_eq!(code("SyntaxError", "unexpected EOF"), "2");
        assert_eq!(code("ShellKilled", "by a signal"), "-1");
    }
}
