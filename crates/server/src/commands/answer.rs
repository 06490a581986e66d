//! What the one who waited for a command gets.

use super::collect::Collector;
use super::drive::{Finished, Pieces, Waited};
use super::record::wire;
use crate::budget::Share;
use crate::error::{ApiError, ApiResult};
use crate::idempotency::Answer;
use crate::run_result::Collected;
use axum::http::StatusCode;
use crownest_api::command::{Command, CommandAnswer};
use crownest_store::IDEMPOTENT_BODY_BYTES_MAX;
use std::collections::BTreeMap;
use tokio::sync::{mpsc, oneshot};

/// Bytes of each stream in a replay that must be cut to be stored. Escaped in JSON they can be
/// six times as many.
const REPLAY_STREAM_BYTES_MAX: usize = 512 * 1024;
/// Output that is put into JSON at once; below a millisecond's work.
const ANSWER_INLINE_BYTES_MAX: usize = 256 * 1024;

impl Waited {
    pub(super) fn new(finished: oneshot::Sender<Finished>, by: Collector) -> Self {
        Self {
            stdout: Collected::default(),
            stderr: Collected::default(),
            finished,
            follower: None,
            by,
        }
    }

    /// For one who gets the output as it comes, and nothing of it at the end.
    pub(super) fn following(self, follower: mpsc::Sender<Pieces>) -> Self {
        Self {
            stdout: Collected::up_to(0),
            stderr: Collected::up_to(0),
            follower: Some(follower),
            ..self
        }
    }
}

/// The answer of a command that was waited for. `env` is what its request said.
pub(super) async fn of_run(finished: Finished, env: BTreeMap<String, String>) -> ApiResult<Answer> {
    let mut command = Command {
        env,
        ..wire(&finished.row)
    };
    let (stdout, stdout_omitted, stdout_share) = finished.stdout.joined();
    let (stderr, stderr_omitted, stderr_share) = finished.stderr.joined();
    command.stdout = Some(stdout);
    command.stdout_truncated = Some(stdout_omitted.is_some());
    command.stdout_omitted_bytes = stdout_omitted;
    command.stderr = Some(stderr);
    command.stderr_truncated = Some(stderr_omitted.is_some());
    command.stderr_omitted_bytes = stderr_omitted;
    let share = stdout_share.join(stderr_share);
    if share.bytes() <= ANSWER_INLINE_BYTES_MAX {
        return answer(command, share);
    }
    tokio::task::spawn_blocking(move || answer(command, share))
        .await
        .map_err(ApiError::internal)?
}

/// What is too large to be stored is cut in the replay, and marked there.
fn answer(command: Command, share: Share) -> ApiResult<Answer> {
    let mut wrapped = CommandAnswer { command };
    let body = serde_json::to_vec(&wrapped).map_err(ApiError::internal)?;
    let mut answer = Answer {
        status: StatusCode::OK,
        body: share.hold(body),
        replay: None,
    };
    if answer.body.len() > IDEMPOTENT_BODY_BYTES_MAX {
        let command = &mut wrapped.command;
        cut(
            &mut command.stdout,
            &mut command.stdout_truncated,
            &mut command.stdout_omitted_bytes,
        );
        cut(
            &mut command.stderr,
            &mut command.stderr_truncated,
            &mut command.stderr_omitted_bytes,
        );
        answer.replay = Some(Answer::json(StatusCode::OK, &wrapped)?.body);
    }
    Ok(answer)
}

fn cut(text: &mut Option<String>, truncated: &mut Option<bool>, omitted: &mut Option<u64>) {
    let Some(text) = text else { return };
    let end = text.floor_char_boundary(REPLAY_STREAM_BYTES_MAX);
    let left_out = (text.len() - end) as u64;
    if left_out > 0 {
        text.truncate(end);
        *truncated = Some(true);
        *omitted = Some(omitted.unwrap_or(0) + left_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crownest_store as store;

    #[test]
    fn a_replay_that_is_too_large_is_cut_and_says_so() {
        let row = store::Command {
            id: "cmd_1".into(),
            org_id: "org_1".into(),
            project_id: "prj_1".into(),
            sandbox_id: "sbx_1".into(),
            exec: 1,
            command: "x".into(),
            cwd: "/workspace".into(),
            env_names: Vec::new(),
            background: false,
            status: store::CommandStatus::Exited,
            created_at: 0,
            finished_at: Some(1),
            duration_ms: Some(1),
            exit_code: Some(0),
            termination_signal: None,
            killed_reason: None,
            cancel_mode: None,
            canceled_at: None,
            stdout_bytes: 8 << 20,
            stderr_bytes: 5,
            log_omitted_bytes: 0,
            collect: None,
            collect_status: "not_requested".into(),
            collect_errors: None,
            created_by: "key_1".into(),
            terminal: None,
        };
        let command = Command {
            stdout: Some("\u{1}".repeat(8 << 20)),
            stderr: Some("short".into()),
            ..wire(&row)
        };
        let answer = answer(command, Share::default()).unwrap();
        let replay = answer.replay.unwrap();
        assert!(replay.len() <= IDEMPOTENT_BODY_BYTES_MAX);
        let replay: CommandAnswer = serde_json::from_slice(&replay).unwrap();
        let command = replay.command;
        assert_eq!(command.stdout.unwrap().len(), REPLAY_STREAM_BYTES_MAX);
        assert_eq!(command.stdout_truncated, Some(true));
        assert_eq!(command.stdout_omitted_bytes, Some((8 << 20) - (512 << 10)));
        assert_eq!(command.stderr.as_deref(), Some("short"));
    }
}
