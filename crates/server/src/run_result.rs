//! Collects what a run says into one bounded result.

mod promotions;
mod streams;

use crate::budget::Share;
use crate::host::{Bundle, RunDone, RunEvent, RunOutcome as HostOutcome};
use crate::output_budget::Budget;
use crate::outputs::{self, BundlePlace, OutputPolicy, Payload, Shaped};
use bytes::Bytes;
use crownest_api::code::{
    CodeError, CodeOutput, InputRequest, Notice, OutputOrigin, RunCodeResult, RunOutcome, RunUsage,
};
use crownest_api::limits;
use crownest_api::output_budget::BudgetReport;
use promotions::Promotions;
use std::ops::Range;
use std::time::Duration;
pub(crate) use streams::Collected;
use streams::{Stream, Streamed};

/// How much of a run a result holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeping {
    /// Of each stream; without a budget it holds the beginning.
    pub stream_bytes_max: usize,
    pub outputs_bytes_max: usize,
    pub budget: Option<Budget>,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            stream_bytes_max: limits::RUN_OUTPUT_BYTES_MAX,
            outputs_bytes_max: limits::RUN_OUTPUTS_BYTES_MAX,
            budget: None,
        }
    }
}

/// The result of a run in the making.
#[derive(Debug)]
pub(crate) struct RunCollector {
    policy: OutputPolicy,
    stdout: Stream,
    stderr: Stream,
    /// As it came, characters or not.
    stdout_bytes: u64,
    stderr_bytes: u64,
    outputs: Vec<CodeOutput>,
    outputs_bytes: usize,
    outputs_bytes_max: usize,
    outputs_omitted: u64,
    /// Rich outputs as they came.
    bundles_bytes: u64,
    outputs_share: Share,
    values: u32,
    promotions: Promotions,
    /// The next display replaces everything shown before it.
    clear_pending: bool,
    notices: Vec<Notice>,
    error: Option<CodeError>,
}

/// What one event brought, for those who stream.
#[derive(Debug)]
pub(crate) enum Step {
    Stdout(String),
    Stderr(String),
    /// These outputs of the collector are new.
    Outputs(Range<usize>),
    Notice(Notice),
    /// The code waits for a line.
    Input(InputRequest),
    Done(RunDone),
    Nothing,
}

impl RunCollector {
    pub(crate) fn new(policy: OutputPolicy, keeping: &Keeping) -> Self {
        Self {
            policy,
            stdout: Stream::new(keeping),
            stderr: Stream::new(keeping),
            stdout_bytes: 0,
            stderr_bytes: 0,
            outputs: Vec::new(),
            outputs_bytes: 0,
            outputs_bytes_max: keeping.outputs_bytes_max,
            outputs_omitted: 0,
            bundles_bytes: 0,
            outputs_share: Share::default(),
            values: 0,
            promotions: Promotions::default(),
            clear_pending: false,
            notices: Vec::new(),
            error: None,
        }
    }

    /// Whether it is certain already that the result will not hold all that was printed.
    pub(crate) fn has_lost_output(&self) -> bool {
        self.stdout.has_lost() || self.stderr.has_lost()
    }

    /// Takes one event.
    pub(crate) fn add(&mut self, event: RunEvent) -> Step {
        match event {
            RunEvent::Stdout(bytes) => {
                self.stdout_bytes += bytes.len() as u64;
                let text = text_of(bytes);
                self.stdout.push(&text);
                Step::Stdout(text)
            }
            RunEvent::Stderr(bytes) => {
                self.stderr_bytes += bytes.len() as u64;
                let text = text_of(bytes);
                self.stderr.push(&text);
                Step::Stderr(text)
            }
            RunEvent::Result(bundle) => self.place(bundle, true, None, false),
            RunEvent::Display {
                bundle,
                display_id,
                update,
            } => self.place(bundle, false, display_id, update),
            RunEvent::Clear { wait: true } => {
                self.clear_pending = true;
                Step::Nothing
            }
            RunEvent::Clear { wait: false } => {
                self.clear();
                Step::Nothing
            }
            RunEvent::Error {
                name,
                message,
                traceback,
                line,
            } => {
                let line = line.map(u64::from);
                let traceback = (!traceback.is_empty()).then_some(traceback);
                self.error = Some(CodeError {
                    message,
                    name: Some(name),
                    traceback,
                    line,
                });
                Step::Nothing
            }
            RunEvent::Notice { code, message } => {
                let notice = Notice { code, message };
                if self.notices.len() < limits::RUN_NOTICES_MAX {
                    self.notices.push(notice.clone());
                }
                Step::Notice(notice)
            }
            RunEvent::Input { prompt, password } => Step::Input(InputRequest { prompt, password }),
            // Nobody asked.
            RunEvent::Answer(_) => Step::Nothing,
            RunEvent::Done(done) => Step::Done(done),
        }
    }

    /// Shows a value, at its own place or, for an update, at that of what it replaces.
    fn place(
        &mut self,
        mut bundle: Bundle,
        is_result: bool,
        display_id: Option<String>,
        update: bool,
    ) -> Step {
        self.bundles_bytes += bundle.bytes();
        bundle.export = self.promotions.admit_export(bundle.export.take());
        let replaced = if update {
            self.withdraw(display_id.as_deref())
        } else {
            None
        };
        let place = BundlePlace {
            value_index: replaced.unwrap_or(self.values),
            is_result,
            display_id,
        };
        self.show(outputs::shape(bundle, &place, self.policy))
    }

    pub(crate) fn outputs(&self, range: Range<usize>) -> &[CodeOutput] {
        self.outputs.get(range).unwrap_or_default()
    }

    fn clear(&mut self) {
        self.outputs.clear();
        self.promotions.drop_all();
        self.outputs_share.give_back(self.outputs_bytes);
        self.outputs_bytes = 0;
        self.clear_pending = false;
    }

    fn show(&mut self, new: Vec<Shaped>) -> Step {
        if self.clear_pending {
            self.clear();
        }
        self.values = self.values.saturating_add(1);
        let start = self.outputs.len();
        for Shaped {
            mut output,
            payload,
        } in new
        {
            let weight = outputs::weight(&output) + payload.as_ref().map_or(0, Payload::held_bytes);
            let fits = self.outputs.len() < limits::RUN_OUTPUTS_MAX
                && self.outputs_bytes + weight <= self.outputs_bytes_max
                && self.outputs_share.take(weight);
            if fits {
                self.outputs_bytes += weight;
                if let Some(payload) = payload {
                    self.promotions.begin(&mut output, payload);
                }
                self.outputs.push(output);
            } else {
                self.outputs_omitted += 1;
                if let Some(payload) = payload {
                    self.promotions.drop_payload(payload);
                }
            }
        }
        Step::Outputs(start..self.outputs.len())
    }

    /// Takes back what was shown under that display id and says which value it was.
    fn withdraw(&mut self, display_id: Option<&str>) -> Option<u32> {
        let id = display_id?;
        let mut found = None;
        self.outputs.retain(|output| {
            let origin = origin(output);
            let ours = origin.display_id.as_deref() == Some(id);
            if ours {
                found = Some(origin.value_index);
                let mut weight = outputs::weight(output);
                if let CodeOutput::Artifact { artifact_id, .. } = output {
                    weight += self.promotions.withdraw(artifact_id);
                }
                self.outputs_bytes -= weight;
                self.outputs_share.give_back(weight);
            }
            !ours
        });
        found
    }

    /// How many outputs there was no room for.
    pub(crate) fn outputs_omitted(&self) -> u64 {
        self.outputs_omitted
    }

    /// Takes back what was shown under a display id, in a run that is taken up again.
    pub(crate) fn restore_withdrawn(&mut self, display_id: &str) {
        self.withdraw(Some(display_id));
    }

    /// What the interpreter has raised last.
    pub(crate) fn raised(&self) -> Option<&CodeError> {
        self.error.as_ref()
    }

    pub(crate) fn restore_error(&mut self, error: CodeError) {
        self.error = Some(error);
    }

    pub(crate) fn restore_notice(&mut self, notice: Notice) {
        if self.notices.len() < limits::RUN_NOTICES_MAX {
            self.notices.push(notice);
        }
    }

    pub(crate) fn restore_cleared(&mut self, wait: bool) {
        self.add(RunEvent::Clear { wait });
    }

    /// A value of so many bytes was shown, of which so many outputs did not fit.
    pub(crate) fn restore_shown(&mut self, bytes: u64, omitted: u64) {
        if self.clear_pending {
            self.clear();
        }
        self.bundles_bytes += bytes;
        self.outputs_omitted += omitted;
        self.values = self.values.saturating_add(1);
    }

    /// One of its outputs that did fit.
    pub(crate) fn restore_output(&mut self, output: CodeOutput) {
        let weight = outputs::weight(&output);
        if self.outputs_share.take(weight) {
            self.outputs_bytes += weight;
            self.outputs.push(output);
        } else {
            self.outputs_omitted += 1;
        }
    }

    /// The result, once the run is over, and the memory that it has taken.
    pub(crate) fn finish(mut self, done: &RunDone, place: RunPlace) -> (RunCodeResult, Share) {
        let (outcome, error) = outcome(&done.outcome);
        if let Some(mut error) = error {
            // Where the code was is still worth knowing.
            error.traceback = self.error.take().and_then(|shown| shown.traceback);
            self.error = Some(error);
        }
        // An updated display keeps its place among the values.
        self.outputs
            .sort_by_key(|output| origin(output).value_index);
        let mut usage = usage(done, &place);
        usage.stdout_bytes = self.stdout_bytes;
        usage.stderr_bytes = self.stderr_bytes;
        usage.output_bytes = self.bundles_bytes;
        let stdout: Streamed = self.stdout.finish();
        let stderr: Streamed = self.stderr.finish();
        let output_budget = stdout.counts.zip(stderr.counts).map(|(stdout, stderr)| {
            let full_output = None;
            BudgetReport {
                stdout,
                stderr,
                full_output,
            }
        });
        let result = RunCodeResult {
            sandbox_id: place.sandbox_id,
            context_id: place.context_id,
            language: place.language,
            execution_count: done.execution_count,
            stdout: stdout.chunks,
            stderr: stderr.chunks,
            outputs: self.outputs,
            stdout_truncated: stdout.omitted_bytes.map(|_| true),
            stderr_truncated: stderr.omitted_bytes.map(|_| true),
            stdout_omitted_bytes: stdout.omitted_bytes,
            stderr_omitted_bytes: stderr.omitted_bytes,
            outputs_omitted: (self.outputs_omitted > 0).then_some(self.outputs_omitted),
            background_dropped_bytes: (done.background_dropped > 0)
                .then_some(done.background_dropped),
            error: self.error,
            // Of a run that went with its sandbox nobody knows it.
            duration_ms: (!done.duration.is_zero())
                .then(|| u64::try_from(done.duration.as_millis()).unwrap_or(u64::MAX)),
            outcome,
            context_reset: place.context_reset.then_some(true),
            usage: Some(usage),
            notices: self.notices,
            output_budget,
        };
        let share = stdout.share.join(stderr.share).join(self.outputs_share);
        (result, share)
    }
}

/// What init measured; what was printed and shown is counted elsewhere.
fn usage(done: &RunDone, place: &RunPlace) -> RunUsage {
    let measured = done.usage;
    RunUsage {
        cpu_ms: measured.map(|usage| Duration::from_micros(usage.cpu_us).as_secs_f64() * 1e3),
        memory_bytes: measured.map(|usage| usage.memory_bytes),
        peak_memory_bytes: measured.map(|usage| usage.memory_peak_bytes),
        peak_memory_growth_bytes: measured.map(|usage| usage.memory_peak_growth_bytes),
        stdout_bytes: 0,
        stderr_bytes: 0,
        output_bytes: 0,
        code_bytes: place.code_bytes,
    }
}

/// Where a run took place.
#[derive(Debug, Clone)]
pub(crate) struct RunPlace {
    pub sandbox_id: String,
    pub context_id: String,
    pub language: String,
    pub context_reset: bool,
    /// Of the source.
    pub code_bytes: u64,
}

fn origin(output: &CodeOutput) -> &OutputOrigin {
    let (CodeOutput::Inline { origin, .. }
    | CodeOutput::Artifact { origin, .. }
    | CodeOutput::Rejected { origin, .. }) = output;
    origin
}

/// Without a copy when it is UTF-8, as nearly always.
fn text_of(bytes: Bytes) -> String {
    String::from_utf8(bytes.into())
        .unwrap_or_else(|broken| String::from_utf8_lossy(broken.as_bytes()).into_owned())
}

/// The outcome on the wire, and the error that a run that did not complete is reported with.
/// It replaces an exception of the interpreter, which is only how the interruption showed itself.
fn outcome(outcome: &HostOutcome) -> (RunOutcome, Option<CodeError>) {
    let error = |name: &str, message: String| {
        Some(CodeError {
            message,
            name: Some(name.to_owned()),
            traceback: None,
            line: None,
        })
    };
    match outcome {
        HostOutcome::Completed => (RunOutcome::Completed, None),
        HostOutcome::Interrupted => (
            RunOutcome::Interrupted,
            error("Interrupted", "the run was interrupted".into()),
        ),
        HostOutcome::TimedOut { context_alive } => {
            let state = if *context_alive {
                "state is kept"
            } else {
                "state is lost"
            };
            let message = format!("the run reached its timeout; the context's {state}");
            (RunOutcome::TimedOut, error("TimeoutError", message))
        }
        HostOutcome::OutOfMemory => (
            RunOutcome::OutOfMemory,
            error(
                "OutOfMemory",
                "the sandbox reached its memory limit; the context's state is lost".into(),
            ),
        ),
        HostOutcome::ContextDied { cause, .. } | HostOutcome::NeverBegan { cause } => {
            let message = format!("the interpreter ended ({cause}); the context's state is lost");
            (RunOutcome::ContextDied, error("ContextDied", message))
        }
    }
}

#[cfg(test)]
mod tests;
