//! `/pty`: terminals, which are those of the whole server. A session is planned by a POST, begins
//! with its first WebSocket, which says whether it is a terminal or pipes, and ends with its shell.

use super::super::error::{Failure, Refusal};
use super::commands::CommandCaller;
use super::terminal_socket::{Connection, MODE_PIPE};
use super::{command_log, env_file};
use crate::app::App;
use crate::auth::{Caller, Principal};
use crate::error::ApiError;
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::sandboxes::LiveSandbox;
use crate::terminals::{self, Kind, Plan, State as TerminalState, Terminal};
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use crownest_api::{ErrorCode, Scope};
use crownest_init::terminal::TerminalSize;
use crownest_store as store;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CreateRequest {
    cwd: Option<String>,
    command: Option<String>,
}

#[derive(Debug, Serialize)]
struct Created {
    session_id: String,
}

#[derive(Debug, Serialize)]
struct Status {
    session_id: String,
    running: bool,
    /// How many bytes it has printed.
    output_offset: u64,
    launch_attempted: bool,
    launch_failed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SocketQuery {
    pty: Option<String>,
    since: Option<String>,
    takeover: Option<String>,
}

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/pty", post(create))
        .route("/pty/{sessionId}", get(status).delete(end))
        .route("/pty/{sessionId}/ws", get(socket))
}

fn invalid(message: &str) -> Failure {
    Refusal::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST_BODY", message).into()
}

async fn create(
    State(app): State<App>,
    caller: CommandCaller,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<CreateRequest>,
) -> Result<(StatusCode, Json<Created>), Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    let nothing = BTreeMap::new();
    let (cwd, env) = env_file::surroundings(&live, body.value.cwd, nothing).await?;
    let plan = Plan {
        command: body.value.command.filter(|command| !command.is_empty()),
        cwd,
        env,
    };
    let terminal = app.plan_terminal(&caller, &caller.request, &live, plan)?;
    let session_id = terminal.id.clone();
    Ok((StatusCode::CREATED, Json(Created { session_id })))
}

/// The session of that id in that sandbox.
async fn session(
    app: &App,
    who: &Principal,
    live: &LiveSandbox,
    id: &str,
) -> Result<Arc<Terminal>, Failure> {
    app.find_terminal(who, live, id).await.map_err(|error| {
        if error.code != ErrorCode::NotFound {
            return Failure::from(error);
        }
        let (status, code) = (StatusCode::NOT_FOUND, "CONTEXT_NOT_FOUND");
        Refusal::new(status, code, "no such pty session").into()
    })
}

async fn status(
    State(app): State<App>,
    caller: Caller<{ Scope::CommandRead as u8 }>,
    PathArgs((id, session_id)): PathArgs<(String, String)>,
) -> Result<Json<Status>, Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    let terminal = session(&app, &caller, &live, &session_id).await?;
    let planned = Status {
        session_id,
        running: false,
        output_offset: 0,
        launch_attempted: false,
        launch_failed: false,
        exit_code: None,
    };
    Ok(Json(match app.terminal_state(&caller, &terminal).await? {
        TerminalState::Planned => planned,
        TerminalState::Begun(found) => {
            let row = found.row();
            Status {
                running: !row.status.is_terminal(),
                output_offset: terminals::printed(&found),
                launch_attempted: true,
                launch_failed: row.status == store::CommandStatus::Failed,
                exit_code: command_log::exit_code(&row),
                ..planned
            }
        }
    }))
}

async fn end(
    State(app): State<App>,
    caller: Caller<{ Scope::CommandCancel as u8 }>,
    PathArgs((id, session_id)): PathArgs<(String, String)>,
) -> Result<(), Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    let terminal = session(&app, &caller, &live, &session_id).await?;
    let worker = app.clone();
    // To its end, whoever waits.
    app.finish_anyway(async move {
        let request = caller.request.clone();
        worker
            .delete_terminal(&caller, &request, &live, &terminal)
            .await
    })
    .await?;
    Ok(())
}

async fn socket(
    State(app): State<App>,
    caller: CommandCaller,
    PathArgs((id, session_id)): PathArgs<(String, String)>,
    QueryArgs(query): QueryArgs<SocketQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    let terminal = session(&app, &caller, &live, &session_id).await?;
    let since = match query.since.as_deref() {
        None | Some("") => None,
        Some(since) => Some(since.parse().map_err(|_| {
            invalid("since must be a number of bytes: output_offset of the session's status")
        })?),
    };
    let kind = match query.pty.as_deref() {
        Some("0") => Kind::Pipe,
        None | Some("" | "1") => Kind::Pty(TerminalSize::DEFAULT),
        Some(_) => return Err(invalid("pty must be 0 or 1")),
    };
    let takes_over = query.takeover.as_deref() == Some("1");
    let Ok(upgrade) = upgrade else {
        return Err(invalid("a session is spoken to through a WebSocket"));
    };
    let place = live.terminal_clients.enter().ok_or_else(|| {
        let message = "too many clients are connected to sessions of this sandbox";
        ApiError::new(ErrorCode::RateLimited, message).retry_after(1_000)
    })?;
    let seat = terminal.try_sit();
    if seat.is_none() && !takes_over {
        let message = "another client is connected to this session; takeover=1 takes its place";
        return Err(Refusal::new(StatusCode::CONFLICT, "ALREADY_CONNECTED", message).into());
    }
    let connection = Connection {
        app,
        who: caller.principal.clone(),
        request: caller.request.clone(),
        live,
        terminal,
        kind,
        since,
    };
    Ok(connection.open(upgrade, place, seat))
}

/// The word for what somebody types through.
pub(super) fn mode(row: &store::Command) -> &'static str {
    if terminals::is_pty(row) {
        "pty"
    } else {
        MODE_PIPE
    }
}

/// What a client is told when its session could not begin.
pub(super) fn start_failure(error: &ApiError) -> (&'static str, &str) {
    match error.code {
        ErrorCode::NotFound => ("SESSION_GONE", "the session was deleted"),
        ErrorCode::InternalError => ("START_FAILED", "the shell could not be started"),
        _ => ("START_FAILED", &error.message),
    }
}
