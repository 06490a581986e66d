//! The result of a run as it goes out: the answer, the last event of a stream, and what is kept of
//! it for a request that comes again or a run that is asked for later.

use crate::budget::Share;
use crate::error::{ApiError, ApiResult};
use crate::idempotency::Answer;
use crate::sse;
use axum::http::StatusCode;
use crownest_api::code::{RunAnswer, RunCodeResult, RunStreamEvent};
use crownest_store::IDEMPOTENT_BODY_BYTES_MAX;

/// Bytes of each stream and of the outputs in a replay that must be cut to be stored. Escaped in
/// JSON they can be six times as many.
const REPLAY_PART_BYTES_MAX: usize = 512 * 1024;
/// Output that is put into JSON at once; below a millisecond's work.
const ANSWER_INLINE_BYTES_MAX: usize = 256 * 1024;
/// Lines of a traceback in such a replay.
const REPLAY_TRACEBACK_LINES_MAX: usize = 50;
/// Room for what is small in the last event of a stream.
const COMPLETE_BYTES: usize = 1024;

/// The last event of a stream.
pub(crate) fn complete_frame(run: &RunCodeResult) -> ApiResult<Vec<u8>> {
    // Grown piece by piece, a large one would be copied many times over.
    let text: usize = run.stdout.iter().chain(&run.stderr).map(String::len).sum();
    let mut frame = Vec::with_capacity(text + text / 16 + COMPLETE_BYTES);
    sse::push_event("complete", &RunStreamEvent::Complete(run), &mut frame)
        .map_err(ApiError::internal)?;
    Ok(frame)
}

/// As [`answer`], beside the event loop when that takes long: everybody else waits for it meanwhile.
pub(crate) async fn answer_beside(run: RunCodeResult, share: Share) -> ApiResult<Answer> {
    if share.bytes() <= ANSWER_INLINE_BYTES_MAX {
        return answer(run, share);
    }
    tokio::task::spawn_blocking(move || answer(run, share))
        .await
        .map_err(ApiError::internal)?
}

/// A result as it is stored: cut and marked when it is too large.
pub(crate) fn stored_result(mut run: RunCodeResult) -> ApiResult<String> {
    let text = serde_json::to_string(&run).map_err(ApiError::internal)?;
    if text.len() <= IDEMPOTENT_BODY_BYTES_MAX {
        return Ok(text);
    }
    cut(&mut run);
    serde_json::to_string(&run).map_err(ApiError::internal)
}

/// The answer of a run. What is too large to be stored is cut in the replay, and marked there.
pub(crate) fn answer(run: RunCodeResult, share: Share) -> ApiResult<Answer> {
    let mut wrapped = RunAnswer { run };
    let body = serde_json::to_vec(&wrapped).map_err(ApiError::internal)?;
    let mut answer = Answer {
        status: StatusCode::OK,
        body: share.hold(body),
        replay: None,
    };
    if answer.body.len() > IDEMPOTENT_BODY_BYTES_MAX {
        cut(&mut wrapped.run);
        answer.replay = Some(Answer::json(StatusCode::OK, &wrapped)?.body);
    }
    Ok(answer)
}

fn cut(run: &mut RunCodeResult) {
    cut_stream(
        &mut run.stdout,
        &mut run.stdout_truncated,
        &mut run.stdout_omitted_bytes,
    );
    cut_stream(
        &mut run.stderr,
        &mut run.stderr_truncated,
        &mut run.stderr_omitted_bytes,
    );
    let mut bytes = 0;
    let before = run.outputs.len();
    run.outputs.retain(|output| {
        let weight = crate::outputs::weight(output);
        let fits = bytes + weight <= REPLAY_PART_BYTES_MAX;
        bytes += if fits { weight } else { 0 };
        fits
    });
    let cut = (before - run.outputs.len()) as u64;
    if cut > 0 {
        run.outputs_omitted = Some(run.outputs_omitted.unwrap_or(0) + cut);
    }
    if let Some(traceback) = run
        .error
        .as_mut()
        .and_then(|error| error.traceback.as_mut())
    {
        let skip = traceback.len().saturating_sub(REPLAY_TRACEBACK_LINES_MAX);
        traceback.drain(..skip);
    }
}

fn cut_stream(chunks: &mut Vec<String>, truncated: &mut Option<bool>, omitted: &mut Option<u64>) {
    let all: usize = chunks.iter().map(String::len).sum();
    if all <= REPLAY_PART_BYTES_MAX {
        return;
    }
    let mut text = chunks.concat();
    text.truncate(text.floor_char_boundary(REPLAY_PART_BYTES_MAX));
    *truncated = Some(true);
    *omitted = Some(omitted.unwrap_or(0) + (all - text.len()) as u64);
    *chunks = vec![text];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crownest_api::code::RunOutcome;

    #[test]
    fn a_replay_that_is_too_large_is_cut_and_says_so() {
        let run = RunCodeResult {
            sandbox_id: "sbx_1".into(),
            context_id: "cctx_1".into(),
            language: "python".into(),
            execution_count: 1,
            stdout: vec!["\u{1}".repeat(8 * 1024 * 1024)],
            stderr: vec!["short".into()],
            outputs: Vec::new(),
            stdout_truncated: None,
            stderr_truncated: None,
            stdout_omitted_bytes: None,
            stderr_omitted_bytes: None,
            outputs_omitted: None,
            background_dropped_bytes: None,
            error: None,
            duration_ms: None,
            outcome: RunOutcome::Completed,
            context_reset: None,
            usage: None,
            notices: Vec::new(),
            output_budget: None,
        };
        let answer = answer(run, Share::default()).unwrap();
        assert!(answer.body.len() > IDEMPOTENT_BODY_BYTES_MAX);
        let replay = answer.replay.unwrap();
        assert!(replay.len() <= IDEMPOTENT_BODY_BYTES_MAX);
        let replay: RunAnswer = serde_json::from_slice(&replay).unwrap();
        assert_eq!(replay.run.stdout[0].len(), REPLAY_PART_BYTES_MAX);
        assert_eq!(replay.run.stdout_truncated, Some(true));
        assert_eq!(
            replay.run.stdout_omitted_bytes,
            Some(8 * 1024 * 1024 - 512 * 1024)
        );
        assert_eq!(
            (&replay.run.stderr[0][..], replay.run.stderr_truncated),
            ("short", None)
        );
    }
}
