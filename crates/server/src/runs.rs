//! Code runs: checked, started, driven to their end, answered whole or as a stream of events.

mod sink;

use crate::app::App;
use crate::audit::Deed;
use crate::auth::Principal;
use crate::budget::Share;
use crate::checks;
use crate::code::{self, Active, Context};
use crate::detached::{DetachedRequest, RunOptions};
use crate::error::{ApiError, ApiResult};
use crate::full_output::Spool;
use crate::host::{Kernel, Run, RunDone, RunEvent, RunOutcome as HostOutcome, RunSpec};
use crate::metrics;
use crate::output_budget::{self, Budget};
use crate::outputs::OutputPolicy;
use crate::request::RequestContext;
use crate::run_result::{Keeping, RunCollector, RunPlace, Step};
use crate::sandboxes::{LiveSandbox, Work};
use crownest_api::code::{ArtifactPolicy, RejectedReason, RichOutputs, RunCode, RunCodeResult};
use crownest_api::output_budget::FullOutput;
use crownest_api::{ErrorCode, IdKind, Scope, limits};
use serde_json::json;
use sink::next_event;
pub(crate) use sink::{EventSink, Words};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
        if request.table_export.is_some() {
            who.require(Scope::ArtifactCreate)?;
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
                tables: request.table_export,
            },
            code: request.code,
            language,
            context_id: request.context_id,
        })
    }

    /// A run whose output goes to a stream alone: a result would hold nothing of it.
    pub(crate) fn streamed(
        code: String,
        language: &'static str,
        context_id: Option<String>,
    ) -> ApiResult<Self> {
        check_source(&code)?;
        Ok(Self {
            code,
            language,
            context_id,
            cwd: None,
            timeout: Duration::from_millis(limits::DETACHED_TIMEOUT_MAX_MS),
            policy: OutputPolicy {
                artifacts: ArtifactPolicy::default(),
                rich: RichOutputs::default(),
                may_promote: false,
                tables: None,
            },
            keeping: Keeping {
                stream_bytes_max: 0,
                outputs_bytes_max: 0,
                budget: None,
            },
            keep_full_output: false,
            input: false,
            detached: false,
        })
    }

    /// The same in a directory, and with a limit of its own.
    pub(crate) fn within(self, cwd: Option<String>, timeout: Option<Duration>) -> Self {
        Self {
            cwd,
            timeout: timeout.unwrap_or(self.timeout),
            ..self
        }
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

impl StartedRun {
    pub(crate) fn context_id(&self) -> &str {
        &self.place.context_id
    }
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
            table_export: run.policy.exports(),
        };
        let unbegun = Some(spec.clone());
        let beginning = context.begin();
        let (host_run, context_reset) = self.start_run(live, &context, spec).await?;
        let (active, interrupted) = beginning.activate(host_run.id());
        if interrupted {
            live.host.interrupt_run(host_run.id()).await?;
        }
        Ok(StartedRun {
            _active: active,
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
            if let Some(sink) = sink {
                sink.as_it_came(&event).await?;
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
                sink.step(&run.collector, &step).await?;
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
        let unwanted = run.collector.unwanted_files();
        self.remove_exports(run.work.sandbox(), &unwanted).await;
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
            sink.failure(error).await?;
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
