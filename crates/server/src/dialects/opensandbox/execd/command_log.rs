//! What a command prints and how it ended: as a stream, as a status, as a log.

use super::super::error::{Failure, Refusal};
use super::events::{self, PING_EVERY};
use super::lines::Lines;
use crate::app::App;
use crate::auth::Caller;
use crate::command_log::LogStream;
use crate::commands::{Followed, Found};
use crate::error::ApiError;
use crate::extract::{PathArgs, QueryArgs};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use crownest_api::{ErrorCode, Scope, Timestamp};
use crownest_store as store;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

type CommandReader = Caller<{ Scope::CommandRead as u8 }>;

/// Events that are sent at once, and some.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Output that is made into events at once: lines of one byte become some sixty times as long.
const PIECE_BYTES_MAX: usize = 16 * 1024;
const TAIL_CURSOR: &str = "execd-commands-tail-cursor";

/// What stands for the exit code of a program that a signal has ended.
const NO_EXIT_CODE: i64 = -1;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/command/status/{commandId}", get(status))
        .route("/command/{commandId}/logs", get(logs))
}

/// The exit code as clients know it.
pub(super) fn exit_code(row: &store::Command) -> Option<i64> {
    if !row.status.is_terminal() {
        return None;
    }
    match (&row.termination_signal, row.exit_code) {
        (None, Some(code)) => Some(code),
        _ => Some(NO_EXIT_CODE),
    }
}

/// Why it is no success; None when it is one, or not over.
fn failure(row: &store::Command) -> Option<String> {
    let code = exit_code(row).filter(|code| *code != 0)?;
    Some(match (row.status, &row.termination_signal) {
        (store::CommandStatus::TimedOut, _) => "the command reached its timeout".to_owned(),
        (store::CommandStatus::Failed, _) => "the command could not be started".to_owned(),
        (_, Some(signal)) => match &row.killed_reason {
            Some(reason) => format!("ended by {signal} ({reason})"),
            None => format!("ended by {signal}"),
        },
        (_, None) if code == NO_EXIT_CODE => "the sandbox has ended".to_owned(),
        (_, None) => format!("exit status {code}"),
    })
}

/// A command whose output is sent to one client. A client that goes away ends it.
pub(super) struct Sent {
    frames: mpsc::Sender<Bytes>,
    followed: Followed,
    stdout: Lines,
    stderr: Lines,
}

impl Sent {
    pub(super) fn new(frames: mpsc::Sender<Bytes>, followed: Followed) -> Self {
        Self {
            frames,
            followed,
            stdout: Lines::new("stdout"),
            stderr: Lines::new("stderr"),
        }
    }

    pub(super) async fn drive(mut self) {
        loop {
            let pieces = tokio::select! {
                biased;
                pieces = self.followed.next() => pieces,
                () = self.frames.closed() => return,
                () = tokio::time::sleep(PING_EVERY) => {
                    if self.frames.send(events::ping().into()).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let Some(pieces) = pieces else { break };
            if !self.send(&pieces).await {
                return;
            }
        }
        let mut last = Vec::new();
        self.stdout.finish(&mut last);
        self.stderr.finish(&mut last);
        match self.followed.end().await {
            Ok(row) => push_end(&row, &mut last),
            Err(error) => events::push_failure(&error, &mut last),
        }
        // Whether anybody still listens makes no difference.
        let _ = self.frames.send(last.into()).await;
    }

    /// False: the client is gone.
    async fn send(&mut self, pieces: &[(LogStream, Bytes)]) -> bool {
        let mut frame = Vec::new();
        for (stream, data) in pieces {
            let lines = match stream {
                LogStream::Stdout => &mut self.stdout,
                LogStream::Stderr => &mut self.stderr,
            };
            for piece in data.chunks(PIECE_BYTES_MAX) {
                lines.push(piece, &mut frame);
                if frame.len() >= FRAME_BYTES_MAX
                    && self
                        .frames
                        .send(std::mem::take(&mut frame).into())
                        .await
                        .is_err()
                {
                    return false;
                }
            }
        }
        frame.is_empty() || self.frames.send(frame.into()).await.is_ok()
    }
}

fn push_end(row: &store::Command, out: &mut Vec<u8>) {
    let Some(why) = failure(row) else {
        let millis = row.duration_ms.and_then(|ms| u64::try_from(ms).ok());
        return events::push_complete(millis.unwrap_or(0), out);
    };
    let code = exit_code(row).unwrap_or(NO_EXIT_CODE).to_string();
    events::push_error("CommandExecError", &code, &[why], out);
}

#[derive(Debug, Serialize)]
struct Status {
    id: String,
    content: String,
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    started_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
}

async fn find(
    app: &App,
    caller: &CommandReader,
    sandbox_id: &str,
    command_id: &str,
) -> Result<Option<Found>, ApiError> {
    let live = app.live_sandbox(caller, sandbox_id).await?;
    match app.find_command(caller, command_id).await {
        Ok(found) => Ok(Some(found).filter(|found| found.row().sandbox_id == live.id)),
        Err(error) if error.code == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn status(
    State(app): State<App>,
    caller: CommandReader,
    PathArgs((id, command_id)): PathArgs<(String, String)>,
) -> Result<Json<Status>, Failure> {
    let Some(found) = find(&app, &caller, &id, &command_id).await? else {
        let message = "no such command";
        return Err(Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", message).into());
    };
    let row = found.row();
    let time = |micros: i64| Timestamp::from_millis(micros / 1_000);
    Ok(Json(Status {
        running: !row.status.is_terminal(),
        exit_code: exit_code(&row),
        error: failure(&row),
        started_at: time(row.created_at),
        finished_at: row.finished_at.map(time),
        id: row.id,
        content: row.command,
    }))
}

#[derive(Debug, Deserialize)]
struct LogsQuery {
    cursor: Option<String>,
}

/// What a command in the background has printed behind a place, both streams in their order. The
/// place is a count of bytes; that of the end is in a header.
async fn logs(
    State(app): State<App>,
    caller: CommandReader,
    PathArgs((id, command_id)): PathArgs<(String, String)>,
    QueryArgs(query): QueryArgs<LogsQuery>,
) -> Result<Response, Failure> {
    let refusal = |message| Refusal::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST_BODY", message);
    let cursor: u64 = match query.cursor.as_deref() {
        None | Some("") => 0,
        Some(text) => text
            .parse()
            .map_err(|_| refusal("cursor must be a non-negative integer"))?,
    };
    let found = find(&app, &caller, &id, &command_id).await?;
    let found = found.filter(|found| found.row().background);
    let found = found.ok_or_else(|| refusal("no command in the background has that id"))?;
    let (_, index) = app.log_of(&found).await?;
    let printed = match &found {
        Found::Live(_) => index.totals().printed(),
        // Its segments do not say how long the last of them is.
        Found::Stored(row) => {
            let count = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
            count(row.stdout_bytes).saturating_add(count(row.stderr_bytes))
        }
    };
    // What is not kept any more cannot be skipped.
    let kept_from = index.dropped_bytes().unwrap_or(printed);
    let skipped = cursor.saturating_sub(kept_from);
    let wanted = printed.saturating_sub(cursor.max(kept_from));
    let log = app.download_log(&found).await?;
    let mut response = Response::new(Body::from_stream(window(log, skipped, wanted)));
    let headers = response.headers_mut();
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, text);
    headers.insert(TAIL_CURSOR, HeaderValue::from(printed));
    Ok(response)
}

/// That many bytes of a stream, behind that many others.
fn window<S>(
    bytes: S,
    mut skipped: u64,
    mut wanted: u64,
) -> impl futures_util::Stream<Item = Result<Bytes, ApiError>> + Send + 'static
where
    S: futures_util::Stream<Item = Result<Bytes, ApiError>> + Send + 'static,
{
    let pieces = bytes.map(move |piece| {
        let mut piece = piece?;
        let skip = piece
            .len()
            .min(usize::try_from(skipped).unwrap_or(usize::MAX));
        let _ = piece.split_to(skip);
        skipped -= skip as u64;
        piece.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        wanted -= piece.len() as u64;
        Ok((piece, wanted == 0 && skipped == 0))
    });
    // The piece that brings the last byte is the last that is asked for.
    futures_util::stream::unfold((Box::pin(pieces), false), |(mut pieces, over)| async move {
        if over {
            return None;
        }
        let (piece, over) = match pieces.next().await? {
            Ok((piece, over)) => (Ok(piece), over),
            Err(error) => (Err(error), true),
        };
        Some((piece, (pieces, over)))
    })
}
