//! Code runs: checked, started, driven to their end, answered whole or as a stream of events.

use crate::app::App;
use crate::artifacts::Naming;
use crate::audit::Deed;
use crate::auth::Principal;
use crate::budget::Share;
use crate::checks;
use crate::code::{self, Active, Context};
use crate::detached::{DetachedRequest, RunOptions};
use crate::error::{ApiError, ApiResult};
use crate::full_output::Spool;
use crate::host::{Kernel, Run, RunDone, RunEvent, RunOutcome as HostOutcome, RunSpec};
use crate::idempotency::Answer;
use crate::metrics;
use crate::output_budget::{self, Budget};
use crate::outputs::OutputPolicy;
use crate::request::RequestContext;
use crate::run_result::{Keeping, RunCollector, RunPlace, Step};
use crate::sandboxes::{LiveSandbox, Work};
use crate::sse;
use axum::http::StatusCode;
use bytes::Bytes;
use crownest_api::code::{
    CodeError, FullOutput, RejectedReason, RunAnswer, RunCode, RunCodeResult, RunStreamEvent,
};
use crownest_api::{ErrorCode, IdKind, Scope, limits};
use crownest_store::IDEMPOTENT_BODY_BYTES_MAX;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A stream that has nothing to say says so this often.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// Bytes of each stream and of the outputs in a replay that must be cut to be stored. Escaped in
/// JSON they can be six times as many.
const REPLAY_PART_BYTES_MAX: usize = 512 * 1024;
/// Output that is put into JSON at once; below a millisecond's work.
const ANSWER_INLINE_BYTES_MAX: usize = 256 * 1024;
/// Lines of a traceback in such a replay.
const REPLAY_TRACEBACK_LINES_MAX: usize = 50;

/// Room for what is small in the last event of a stream.
const COMPLETE_BYTES: usize = 1024;

/// A run whose request has been checked.
#[derive(Debug)]
pub(crate) struct CheckedRun {
    code: String,
    language: &'static str,
    context_id: Option<String>,
    cwd: Option<String>,
    timeout: Duration,
    policy: OutputPolicy,
    keeping: Keeping,
    /// Keep what the result does not hold.
    keep_full_output: bool,
    /// Somebody answers when the code asks for a line.
    input: bool,
    detached: bool,
}

/// An option that this route does not have.
fn unsupported(field: &str, message: &str) -> ApiError {
    ApiError::new(ErrorCode::UnsupportedRuntimeOption, message)
        .with_details(json!({ "field": field }))
}

impl CheckedRun {
    pub(crate) fn check(request: RunCode, who: &Principal) -> ApiResult<Self> {
        check_source(&request.code)?;
        let language = code::language(&request.language)?;
        if request
            .context_id
            .as_ref()
            .is_some_and(|id| !IdKind::CodeContext.matches(id))
        {
            return Err(ApiError::not_found("code context"));
        }
        let detached = request.detached.unwrap_or(false);
        let (default, max) = if detached {
            let default = limits::DETACHED_TIMEOUT_DEFAULT_MS;
            (default, limits::DETACHED_TIMEOUT_MAX_MS)
        } else {
            (limits::RUN_TIMEOUT_DEFAULT_MS, limits::RUN_TIMEOUT_MAX_MS)
        };
        let keep_full_output = request.keep_full_output.unwrap_or(false);
        if keep_full_output && request.output_budget.is_none() {
            let message = "keepFullOutput needs an outputBudget: without one, nothing is left out";
            return Err(ApiError::field("keepFullOutput", message));
        }
        Ok(Self {
            cwd: checks::cwd(request.cwd.as_deref())?,
            timeout: checks::timeout(request.timeout_ms, default, max)?,
            keeping: Keeping {
                budget: request.output_budget.map(Budget::check).transpose()?,
                ..Keeping::default()
            },
            keep_full_output,
            input: request.allow_input.unwrap_or(false),
            detached,
            policy: OutputPolicy {
                artifacts: request.artifact_policy.unwrap_or_default(),
                rich: request.rich_outputs.unwrap_or_default(),
                may_promote: who.scopes.contains(Scope::ArtifactCreate),
            },
            code: request.code,
            language,
            context_id: request.context_id,
        })
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached
    }

    /// What is put on record of a detached run.
    pub(crate) fn detach(self) -> DetachedRequest {
        DetachedRequest {
            options: RunOptions {
                cwd: self.cwd,
                timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
                input: self.input,
                policy: self.policy,
                budget: self.keeping.budget,
                keep_full_output: self.keep_full_output,
                code_bytes: self.code.len() as u64,
                context_reset: false,
            },
            code: self.code,
            language: self.language,
            context_id: self.context_id,
        }
    }

    /// For the route whose client sees nothing before the end.
    pub(crate) fn for_answer(self) -> ApiResult<Self> {
        if self.input && !self.detached {
            let message = "a run that is waited for cannot ask for input: \
                nobody would see that it does; use the stream, or a detached run";
            return Err(unsupported("allowInput", message));
        }
        Ok(self)
    }

    /// For the route that streams.
    pub(crate) fn for_stream(self) -> ApiResult<Self> {
        if self.detached {
            let message =
                "a detached run is begun with POST /code/runs, and followed by its events";
            return Err(unsupported("detached", message));
        }
        Ok(self)
    }
}

/// What a kernel of several languages is told of a cell.
pub(crate) fn language_of_cell(language: &str) -> Option<String> {
    let kernel = Kernel::of(language).filter(|kernel| kernel.is_of_several());
    kernel.map(|_| language.to_owned())
}

/// Refuses more source than is taken.
pub(crate) fn check_source(code: &str) -> ApiResult<()> {
    let limit = limits::CODE_SOURCE_BYTES_MAX;
    if code.len() <= limit {
        return Ok(());
    }
    let message = format!("the source is larger than {limit} bytes");
    Err(ApiError::new(ErrorCode::CodeSourceTooLarge, message)
        .with_details(json!({ "field": "code", "limit": limit })))
}

/// A run that is on its way. Dropping it interrupts the code.
#[derive(Debug)]
pub(crate) struct StartedRun {
    run: Run,
    collector: RunCollector,
    /// The output that the result may not hold.
    spool: Option<Spool>,
    /// It would be kept, but may not.
    spool_refused: bool,
    place: RunPlace,
    project_id: String,
    started: Instant,
    /// The run is the context's active one until this is dropped.
    _active: Active,
    work: Work,
    /// What was sent, as long as it may have to be sent to another interpreter.
    unbegun: Option<RunSpec>,
}

/// Where the events of a stream go.
#[derive(Debug)]
pub(crate) struct EventSink {
    frames: mpsc::Sender<Bytes>,
    /// Whether the run goes on when nobody listens any more.
    outlive_client: bool,
}

impl EventSink {
    pub(crate) fn new(frames: mpsc::Sender<Bytes>, outlive_client: bool) -> Self {
        Self {
            frames,
            outlive_client,
        }
    }

    /// The last frame: whether anybody still listens makes no difference.
    pub(crate) async fn last(&self, frame: impl Into<Bytes>) {
        let _ = self.frames.send(frame.into()).await;
    }

    /// The last event of a stream that has no result.
    pub(crate) async fn broken_off(&self, error: &ApiError) {
        let error = CodeError {
            message: error.message.clone(),
            name: Some(error.code.as_str().to_owned()),
            traceback: None,
            line: None,
        };
        let mut frame = Vec::new();
        if sse::push_event("error", &RunStreamEvent::Error(&error), &mut frame).is_ok() {
            self.last(frame).await;
        }
    }

    async fn send(&self, frame: Vec<u8>) -> ApiResult<()> {
        if frame.is_empty() || self.frames.send(frame.into()).await.is_ok() || self.outlive_client {
            return Ok(());
        }
        Err(client_gone())
    }

    /// `RunStreamEvent::Stdout` or `Stderr`: `name` is that of the event and of its type.
    async fn text(&self, name: &str, text: &str) -> ApiResult<()> {
        let mut frame = Vec::new();
        sse::push_text_event(name, text, &mut frame);
        self.send(frame).await
    }

    async fn event(&self, name: &str, event: &RunStreamEvent<'_>) -> ApiResult<()> {
        let mut frame = Vec::new();
        sse::push_event(name, event, &mut frame).map_err(ApiError::internal)?;
        self.send(frame).await
    }
}

/// Never seen by anybody: there is no client to send it to.
fn client_gone() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "the client went away")
}

impl App {
    /// Starts a run; returns when the code is on its way.
    pub(crate) async fn begin_run(
        &self,
        live: &Arc<LiveSandbox>,
        run: CheckedRun,
    ) -> ApiResult<StartedRun> {
        let started = Instant::now();
        let work = live.work();
        let code_bytes = run.code.len() as u64;
        let context: Arc<Context> = self
            .context_for_run(live, run.context_id.as_deref(), run.language)
            .await?;
        let spec = RunSpec {
            context: context.id.clone(),
            code: run.code,
            timeout: run.timeout,
            cwd: run.cwd,
            language: language_of_cell(run.language),
            input: run.input,
            table_export: None,
        };
        let unbegun = Some(spec.clone());
        let (host_run, context_reset) = self.start_run(live, &context, spec).await?;
        Ok(StartedRun {
            _active: context.activate(host_run.id()),
            run: host_run,
            collector: RunCollector::new(run.policy, &run.keeping),
            spool: (run.keep_full_output && run.policy.may_promote).then(Spool::new),
            spool_refused: run.keep_full_output && !run.policy.may_promote,
            place: RunPlace {
                sandbox_id: live.id.clone(),
                context_id: context.id.clone(),
                language: run.language.to_owned(),
                context_reset,
                code_bytes,
            },
            project_id: live.project_id.clone(),
            started,
            work,
            unbegun,
        })
    }

    /// Gives a run a fresh interpreter when init says that it never began, because the old one had
    /// died just before. Nothing of it was done, so nothing is done twice.
    async fn begin_again(
        &self,
        run: &mut StartedRun,
        spec: RunSpec,
        event: &RunEvent,
    ) -> ApiResult<bool> {
        let RunEvent::Done(RunDone {
            outcome: HostOutcome::NeverBegan { .. },
            ..
        }) = event
        else {
            return Ok(false);
        };
        let live = run.work.sandbox();
        let context = live.context(&spec.context)?;
        let (host_run, context_reset) = self.start_run(live, &context, spec).await?;
        run._active = context.activate(host_run.id());
        run.run = host_run;
        run.place.context_reset |= context_reset;
        Ok(true)
    }

    /// Drives a run to its end. With a sink, everything it says goes there too.
    pub(crate) async fn finish_run(
        &self,
        who: &Principal,
        request: &RequestContext,
        mut run: StartedRun,
        sink: Option<&EventSink>,
    ) -> ApiResult<(RunCodeResult, Share)> {
        let done = loop {
            let event = next_event(&mut run, sink).await?;
            let Some(event) = event else {
                return Err(ApiError::new(
                    ErrorCode::Unavailable,
                    "the server is stopping",
                ));
            };
            if let Some(spec) = run.unbegun.take()
                && self.begin_again(&mut run, spec, &event).await?
            {
                continue;
            }
            let step = run.collector.add(event);
            // A stream shows each output when it comes; an answer only those that are left at the
            // end. Without `artifactPolicy: "promote"` there is never one to promote.
            let now = sink.is_some() || matches!(step, Step::Done(_));
            if now && run.collector.has_promotions() {
                let live = run.work.sandbox();
                let by = Some((who, request));
                self.promote_outputs(by, None, live, &mut run.collector)
                    .await;
            }
            if let Some(sink) = sink {
                stream_step(&run.collector, &step, sink).await?;
            }
            if let (Some(spool), Step::Stdout(text) | Step::Stderr(text)) = (&mut run.spool, &step)
            {
                let lost = run.collector.has_lost_output();
                spool.push(self, run.work.sandbox(), text, lost).await;
            }
            if let Step::Done(done) = step {
                break done;
            }
        };
        let (mut result, share) = run.collector.finish(&done, run.place);
        if let Some(report) = &mut result.output_budget {
            let whole = output_budget::is_whole(report);
            report.full_output = match run.spool {
                Some(spool) => {
                    let live = run.work.sandbox();
                    spool.finish(self, live, (who, request), whole).await
                }
                None => (run.spool_refused && !whole).then_some(FullOutput::Rejected {
                    reason: RejectedReason::ArtifactScopeRequired,
                }),
            };
        }
        // Once, at the end: only there it is known whether the interpreter's own error (say a
        // KeyboardInterrupt) is the run's, or the interrupt or timeout that caused it.
        if let (Some(sink), Some(error)) = (sink, &result.error) {
            sink.event("error", &RunStreamEvent::Error(error)).await?;
        }
        let outcome = result.outcome.as_str();
        self.metrics
            .run_seconds
            .observe(run.started.elapsed().as_secs_f64());
        self.metrics
            .runs
            .get_or_create(&metrics::Outcome { outcome })
            .inc();
        let deed = Deed {
            action: "code.run",
            resource_kind: "sandbox",
            resource_id: &result.sandbox_id,
            project_id: Some(&run.project_id),
            outcome,
        };
        let details = json!({ "contextId": result.context_id, "language": result.language });
        self.audit.by_key(who, request, deed, &details);
        Ok((result, share))
    }
}

impl App {
    /// Makes artifacts of the outputs that wait for it. What fails is an output that was rejected,
    /// never a run that failed. `by`: who is told to have made them, where that is known. `origin`:
    /// what displayed them, where a server after this one may see it again.
    pub(crate) async fn promote_outputs(
        &self,
        by: Option<(&Principal, &RequestContext)>,
        origin: Option<&str>,
        live: &Arc<LiveSandbox>,
        collector: &mut RunCollector,
    ) {
        for (number, promotion) in collector.promotions().into_iter().enumerate() {
            let naming = Naming {
                name: promotion.name.clone(),
                content_type: promotion.content_type.clone(),
                source_path: None,
            };
            let bytes = promotion.bytes.clone();
            let promoted = match origin {
                None => self.promote_bytes(live, naming, bytes).await,
                Some(origin) => {
                    let origin = format!("{origin}/{number}");
                    self.promote_bytes_once(&origin, live, naming, bytes).await
                }
            };
            let outcome = match promoted {
                Ok(row) => {
                    if let Some((who, request)) = by {
                        self.note_artifact_made(who, request, &row);
                    }
                    Ok(row.id)
                }
                Err(error) if error.code == ErrorCode::FileTooLarge => {
                    Err(RejectedReason::OutputTooLarge)
                }
                Err(error) => {
                    tracing::error!(%error, cause = error.cause, "an output could not be promoted");
                    Err(RejectedReason::RequiresArtifactPromotion)
                }
            };
            collector.settle(&promotion, outcome);
        }
    }
}

/// The next event of a run, with the stream kept alive meanwhile.
async fn next_event(run: &mut StartedRun, sink: Option<&EventSink>) -> ApiResult<Option<RunEvent>> {
    loop {
        tokio::select! {
            biased;
            event = run.run.next() => return Ok(event),
            () = idle(sink) => {
                if let Some(sink) = sink {
                    sink.send(sse::HEARTBEAT.to_vec()).await?;
                }
            }
            () = gone(sink) => return Err(client_gone()),
        }
    }
}

/// Resolves when a stream has been silent for long enough.
async fn idle(sink: Option<&EventSink>) {
    if sink.is_some() {
        tokio::time::sleep(HEARTBEAT_EVERY).await;
    } else {
        std::future::pending::<()>().await;
    }
}

/// Resolves when nobody listens and nobody will.
async fn gone(sink: Option<&EventSink>) {
    match sink {
        Some(sink) if !sink.outlive_client => sink.frames.closed().await,
        _ => std::future::pending().await,
    }
}

async fn stream_step(collector: &RunCollector, step: &Step, sink: &EventSink) -> ApiResult<()> {
    match step {
        Step::Stdout(text) => sink.text("stdout", text).await,
        Step::Stderr(text) => sink.text("stderr", text).await,
        Step::Outputs(range) => {
            for output in collector.outputs(range.clone()) {
                sink.event("output", &RunStreamEvent::Output(output))
                    .await?;
            }
            Ok(())
        }
        Step::Notice(notice) => sink.event("notice", &RunStreamEvent::Notice(notice)).await,
        Step::Input(asked) => {
            let event = RunStreamEvent::InputRequest(asked);
            sink.event("input_request", &event).await
        }
        Step::Done(_) | Step::Nothing => Ok(()),
    }
}

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
