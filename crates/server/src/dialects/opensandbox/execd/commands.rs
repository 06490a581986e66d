//! `/command`: programs and shell commands, which are commands of `/v1` as well.

use super::super::error::{Failure, Refusal};
use super::command_log::Sent;
use super::{env_file, events, stream};
use crate::app::App;
use crate::auth::{Caller, Principal};
use crate::commands::{CheckedCommand, ForeignCommand};
use crate::error::{ApiError, ApiResult};
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use crate::sse;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use crownest_api::{ErrorCode, IdKind, Scope, new_id};
use crownest_init::identity::{ID_MAX, ID_MIN, Identity};
use futures_util::stream as streams;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) type CommandCaller = Caller<{ Scope::CommandRun as u8 }>;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RunRequest {
    command: Option<String>,
    argv: Option<Vec<String>>,
    cwd: Option<String>,
    background: Option<bool>,
    /// Milliseconds; 0 stands for none.
    timeout: Option<i64>,
    uid: Option<u32>,
    gid: Option<u32>,
    envs: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct InterruptQuery {
    id: Option<String>,
}

pub(super) fn router() -> Router<App> {
    Router::new().route("/command", post(run).delete(interrupt))
}

fn invalid(message: impl Into<String>) -> Failure {
    Refusal::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST_BODY", message).into()
}

async fn run(
    State(app): State<App>,
    caller: CommandCaller,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<RunRequest>,
) -> Result<Response, Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    begin(&app, &caller.principal, &caller.request, &live, body.value).await
}

/// A shell command that came where code is expected.
pub(super) async fn run_shell(
    app: &App,
    caller: (&Arc<Principal>, &RequestContext),
    live: &Arc<LiveSandbox>,
    command: String,
) -> Result<Response, Failure> {
    caller.0.require(Scope::CommandRun)?;
    let request = RunRequest {
        command: Some(command),
        ..RunRequest::default()
    };
    begin(app, caller.0, caller.1, live, request).await
}

async fn begin(
    app: &App,
    who: &Arc<Principal>,
    request: &RequestContext,
    live: &Arc<LiveSandbox>,
    asked: RunRequest,
) -> Result<Response, Failure> {
    let background = asked.background.unwrap_or(false);
    let id = new_id(IdKind::Command);
    let command = foreign(live, id.clone(), asked).await?;
    let program = command.argv.as_ref().and_then(|argv| argv.first().cloned());
    let checked = CheckedCommand::foreign(command)?;
    if background {
        return match app.start_background(who, request, live, checked).await {
            Ok(_) => Ok(at_once(&id, |out| events::push_complete(0, out))),
            Err(error) => not_started(&id, program, error),
        };
    }
    match app.follow_command(who, request, live, checked).await {
        Ok(followed) => {
            let (frames, response) = stream::open(&id);
            app.tasks.spawn(Sent::new(frames, followed).drive());
            Ok(response)
        }
        Err(error) => not_started(&id, program, error),
    }
}

/// A program that is not there is the client's affair, told as the end of its command.
fn not_started(id: &str, program: Option<String>, error: ApiError) -> Result<Response, Failure> {
    let Some(program) = program.filter(|_| error.code == ErrorCode::InvalidRequest) else {
        return Err(error.into());
    };
    let message = format!("{program:?}: {}", error.message);
    Ok(at_once(id, |out| {
        let traceback = std::slice::from_ref(&message);
        events::push_error("CommandExecError", &message, traceback, out);
    }))
}

/// A stream that is over at once.
fn at_once(id: &str, end: impl FnOnce(&mut Vec<u8>)) -> Response {
    let mut frames = events::beginning(id);
    end(&mut frames);
    sse::response(streams::iter([Ok(Bytes::from(frames))]))
}

/// What is asked for, checked, with the environment that the sandbox's file adds.
async fn foreign(
    live: &LiveSandbox,
    id: String,
    asked: RunRequest,
) -> Result<ForeignCommand, Failure> {
    let command = asked.command.filter(|command| !command.is_empty());
    let argv = asked.argv.filter(|argv| !argv.is_empty());
    let shown = match (&argv, command) {
        (Some(_), Some(_)) => return Err(invalid("command and argv exclude each other")),
        (Some(argv), None) => shown(argv),
        (None, Some(command)) => command,
        (None, None) => return Err(invalid("command or argv is needed")),
    };
    let identity = identity(asked.uid, asked.gid)?;
    let env = asked.envs.unwrap_or_default();
    let (cwd, env) = env_file::surroundings(live, asked.cwd, env).await?;
    Ok(ForeignCommand {
        id,
        shown,
        argv,
        cwd,
        env,
        timeout_ms: timeout(asked.timeout)?,
        identity,
    })
}

/// As a shell would be told it, for the record.
fn shown(argv: &[String]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./=:,+@%".contains(&byte);
    let word = |word: &String| match word.as_str() {
        text if !text.is_empty() && text.bytes().all(plain) => text.to_owned(),
        text => format!("'{}'", text.replace('\'', "'\\''")),
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Who it runs as. A user without a group has the group of its own number.
fn identity(uid: Option<u32>, gid: Option<u32>) -> Result<Identity, Failure> {
    let Some(uid) = uid else {
        return match gid {
            Some(_) => Err(invalid("gid needs uid")),
            None => Ok(Identity::default()),
        };
    };
    let identity = Identity {
        uid,
        gid: gid.unwrap_or(uid),
    };
    if identity.is_allowed() {
        return Ok(identity);
    }
    let message = format!(
        "a command can run as any uid and gid from {ID_MIN} to {ID_MAX}; there is no root in a \
         sandbox, and ids below are accounts of its template"
    );
    Err(Refusal::new(StatusCode::BAD_REQUEST, "NOT_SUPPORTED", message).into())
}

pub(super) fn timeout(asked: Option<i64>) -> Result<Option<u64>, Failure> {
    match asked {
        None | Some(0) => Ok(None),
        Some(millis) => {
            let millis = u64::try_from(millis);
            let positive = millis.map_err(|_| invalid("timeout must not be negative"))?;
            Ok(Some(positive))
        }
    }
}

/// Ends a command of this sandbox: SIGTERM to its processes, SIGKILL a little later.
async fn interrupt(
    State(app): State<App>,
    caller: Caller<{ Scope::CommandCancel as u8 }>,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<InterruptQuery>,
) -> Result<(), Failure> {
    let command_id = super::required("id", query.id)?;
    let live = app.live_sandbox(&caller, &id).await?;
    let runs = app.runs_in(&caller, &live, &command_id).await?;
    if !runs {
        let message = "no command of that id is running";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return Err(Refusal::new(status, "RUNTIME_ERROR", message).into());
    }
    let (worker, who) = (app.clone(), caller);
    // To its end, whoever waits.
    app.finish_anyway(async move {
        let mode = crownest_api::command::CancelMode::Graceful;
        let request = who.request.clone();
        worker
            .cancel_command(&who, &request, &command_id, mode)
            .await
    })
    .await?;
    Ok(())
}

impl App {
    /// Whether a command of that id runs in that sandbox.
    async fn runs_in(&self, who: &Principal, live: &LiveSandbox, id: &str) -> ApiResult<bool> {
        match self.find_command(who, id).await {
            Ok(found) => {
                let row = found.row();
                Ok(row.sandbox_id == live.id && !row.status.is_terminal())
            }
            Err(error) if error.code == ErrorCode::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_shown_as_a_shell_would_be_told_it() {
        let argv = ["printf", "%s\n", "it's", ""].map(str::to_owned);
        assert_eq!(shown(&argv), "printf '%s\n' 'it'\\''s' ''");
    }

    #[test]
    fn a_command_runs_as_whom_it_names_but_not_as_the_system() {
        let ids = |uid, gid| identity(uid, gid).map(|of| (of.uid, of.gid)).ok();
        assert_eq!(ids(None, None), Some((1_000, 1_000)));
        assert_eq!(ids(Some(2_000), None), Some((2_000, 2_000)));
        assert_eq!(ids(Some(1_000), Some(65_534)), Some((1_000, 65_534)));
        for (uid, gid) in [
            (Some(0), None),
            (Some(998), None),
            (Some(65_535), None),
            (Some(1_000), Some(0)),
            (None, Some(1_000)),
        ] {
            assert_eq!(ids(uid, gid), None);
        }
    }
}
