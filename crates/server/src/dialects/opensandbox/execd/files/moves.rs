//! `/files/mv`.

use super::paths::{at, note, resolve};
use super::walk::refusal;
use super::{InSandbox, Writer};
use crate::app::App;
use crate::dialects::opensandbox::error::{Failure, Refusal};
use crate::error::ApiError;
use crate::extract::{PathArgs, read_body};
use crate::host::{ExecEnd, ExecEvent, ExecSpec, FileErrorKind, HostError};
use crate::sandboxes::LiveSandbox;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use crownest_init::identity::Identity;
use crownest_init::terminal::Stdin;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Longest time that a move between file systems takes.
const MOVE_MAX: Duration = Duration::from_secs(300);
/// What is kept of what `mv` says when it fails.
const SAID_BYTES_MAX: usize = 1_000;
/// Moves in one request.
const MOVES_MAX: usize = 500;

#[derive(Debug, Deserialize)]
struct Move {
    src: String,
    dest: String,
}

/// One after the other; what was moved before one that fails stays moved.
pub(super) async fn rename(
    State(app): State<App>,
    caller: Writer,
    PathArgs(InSandbox { id }): PathArgs<InSandbox>,
    request: Request,
) -> Result<(), Failure> {
    let body = read_body(request).await?;
    let moves: Vec<Move> = serde_json::from_slice(&body).map_err(|error| {
        refusal(
            "INVALID_REQUEST_BODY",
            format!("a list of moves is expected: {error}"),
        )
    })?;
    if moves.len() > MOVES_MAX {
        let message = format!("at most {MOVES_MAX} moves in one request");
        return Err(refusal("INVALID_REQUEST_BODY", message));
    }
    let live = app.live_sandbox(&caller, &id).await?;
    let (from, to) = moves.into_iter().map(|m| (m.src, m.dest)).unzip();
    let from: Vec<String> = resolve(&live, from).await?;
    let to = resolve(&live, to).await?;
    let (work, pairs) = (Arc::clone(&live), from.clone().into_iter().zip(to));
    let all = async move {
        for (from, to) in pairs {
            move_one(&work, &from, &to).await?;
        }
        Ok::<_, Failure>(())
    };
    app.finish_anyway(all).await?;
    note(&app, &caller, "file.move", &live, &from);
    Ok(())
}

async fn move_one(live: &Arc<LiveSandbox>, from: &str, to: &str) -> Result<(), Failure> {
    match live.host.rename_anywhere(from, to).await {
        Err(HostError::File {
            kind: FileErrorKind::OtherFileSystem,
            ..
        }) => copy_and_remove(live, from, to).await,
        moved => moved.map_err(at(from)),
    }
}

/// Moves to another file system, which `/tmp` is. A process of the sandbox does it, as slowly as it
/// has to be done; whatever tenant code made of `mv` by its own rights could only do what it may.
async fn copy_and_remove(live: &Arc<LiveSandbox>, from: &str, to: &str) -> Result<(), Failure> {
    let argv = ["/bin/mv", "-T", "-f", "--", from, to];
    let spec = ExecSpec {
        argv: argv.map(str::to_owned).to_vec(),
        cwd: "/".to_owned(),
        env: BTreeMap::new(),
        timeout: Some(MOVE_MAX),
        identity: Identity::default(),
        stdin: Stdin::Null,
    };
    let _work = live.work();
    let number = live.host.exec_number();
    let mut exec = match live.host.exec(number, spec).await {
        Err(HostError::SpawnFailed(why)) => {
            let message = format!("{from}: {to} is on another file system, and mv: {why}");
            let status = StatusCode::NOT_IMPLEMENTED;
            return Err(Refusal::new(status, "NOT_SUPPORTED", message).into());
        }
        started => started.map_err(ApiError::from)?,
    };
    let mut said = Vec::new();
    loop {
        match exec.next().await {
            Some(ExecEvent::Stdout(_)) => {}
            Some(ExecEvent::Stderr(bytes)) => {
                let left = SAID_BYTES_MAX.saturating_sub(said.len());
                said.extend_from_slice(&bytes[..bytes.len().min(left)]);
            }
            Some(ExecEvent::Done(done)) => {
                exec.acknowledge();
                return ended(&done.outcome, from, &said);
            }
            None => return Err(ApiError::from(HostError::ShuttingDown).into()),
        }
    }
}

fn ended(outcome: &ExecEnd, from: &str, said: &[u8]) -> Result<(), Failure> {
    let why = match outcome {
        ExecEnd::Exited { code: 0 } => return Ok(()),
        ExecEnd::SandboxGone => return Err(ApiError::destroyed().into()),
        ExecEnd::TimedOut { .. } => format!("not moved within {MOVE_MAX:?}"),
        ExecEnd::Exited { .. } | ExecEnd::Signaled { .. } => {
            let said = String::from_utf8_lossy(said);
            said.chars().filter(|c| !c.is_control()).collect()
        }
    };
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Err(Refusal::new(status, "RUNTIME_ERROR", format!("{from}: {why}")).into())
}
