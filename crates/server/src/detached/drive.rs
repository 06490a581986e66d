//! The task behind every detached run: takes what it says, writes it down, records its end.
//!
//! Order, as that of a command: what was said is on disk before init is told that it was handled,
//! and the end is in the store before init may forget it. So a server that is killed at any
//! moment finds at its next start what it does not have yet, and nothing twice. Artifacts have ids
//! that follow from the run and the number of the event, so that there is one of each.

use super::By;
use super::live::LiveRun;
use super::log_event::Written;
use super::record::{self, RunOptions};
use crate::app::App;
use crate::auth::micros;
use crate::code::Active;
use crate::command_log::{
    Entry, Log, LogError, LogStream, LogWriter, Position, READ_BYTES_MAX, Record, read,
};
use crate::error::ApiResult;
use crate::full_output::{self, FULL_OUTPUT_BYTES_MAX};
use crate::host::{Heard, KeptRun, RunDone, RunEvent, RunOutcome as HostOutcome, RunSpec};
use crate::metrics;
use crate::output_budget;
use crate::run_result::{RunCollector, Step};
use crate::sandboxes::{LiveSandbox, Work};
use bytes::Bytes;
use crownest_api::Timestamp;
use crownest_api::code::{CodeError, RejectedReason, RunCodeResult};
use crownest_api::output_budget::FullOutput;
use crownest_store as store;
use futures_util::{Stream, TryStreamExt};
use std::io;
use std::sync::Arc;

/// What is written at once. Init keeps as much output until it is told.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// A run that has begun.
#[derive(Debug)]
pub(super) struct Driving {
    pub app: App,
    pub sandbox: Arc<LiveSandbox>,
    pub run: Arc<LiveRun>,
    pub kept: KeptRun,
    /// None only while it is away, writing.
    pub writer: Option<LogWriter>,
    pub collector: RunCollector,
    pub options: RunOptions,
    /// What was sent, as long as it may have to be sent to another interpreter.
    pub unbegun: Option<RunSpec>,
    pub by: Option<By>,
    /// None for a context that was deleted under it.
    pub active: Option<Active>,
    pub work: Work,
}

/// What was there to be taken.
#[derive(Debug, Default)]
struct Batch {
    entries: Vec<Entry>,
    bytes: usize,
    /// Number of the last event in it.
    handled: u64,
    done: Option<RunDone>,
}

impl Batch {
    fn add(&mut self, entry: Entry) {
        self.bytes += match &entry {
            Entry::Output(_, data) | Entry::Event(data) => data.len(),
        };
        self.entries.push(entry);
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_MAX || self.done.is_some()
    }
}

impl Driving {
    /// Drives the run to its end, or until the server stops: then the next one takes over.
    pub(super) async fn drive(mut self) {
        loop {
            let Some(mut batch) = self.next_batch().await else {
                return;
            };
            let done = batch.done.take();
            self.write(batch, done.is_some()).await;
            if let Some(done) = done {
                return self.finish(&done).await;
            }
        }
    }

    async fn next_batch(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        let mut heard = self.kept.next().await?;
        if let Some(spec) = self.unbegun.take()
            && never_began(&heard)
        {
            match self.begin_again(spec).await {
                Ok(()) => heard = self.kept.next().await?,
                Err(error) => tracing::warn!(%error, run = %self.run.id, "a run never began"),
            }
        }
        loop {
            self.take(heard, &mut batch).await;
            if batch.is_full() {
                return Some(batch);
            }
            match self.kept.next_waiting().await {
                Some(next) => heard = next,
                None => return Some(batch),
            }
        }
    }

    /// Gives the run a fresh interpreter, since the old one had died just before it came. Nothing
    /// of it was done, so nothing is done twice.
    async fn begin_again(&mut self, spec: RunSpec) -> ApiResult<()> {
        let context = self.sandbox.context(&spec.context)?;
        let number = self.run.number;
        let begun = self
            .app
            .start_kept_run(&self.sandbox, &context, number, spec);
        let (kept, context_reset) = begun.await?;
        self.kept = kept;
        self.options.context_reset |= context_reset;
        self.app.note_run_begun(&self.run, &self.options).await;
        if self.run.canceled.is_cancelled() {
            let _ = self.run.host.interrupt_run(number).await;
        }
        Ok(())
    }

    async fn take(&mut self, heard: Heard, batch: &mut Batch) {
        let event = match heard {
            Heard::Event(RunEvent::Done(done)) => {
                batch.done = Some(done);
                return;
            }
            Heard::Event(event) => event,
            Heard::Nothing => {
                batch.handled = self.kept.seq();
                batch.add(Entry::Event(Written::Nothing.encode()));
                return;
            }
        };
        batch.handled = self.kept.seq();
        match event {
            RunEvent::Stdout(data) => {
                batch.add(Entry::Output(LogStream::Stdout, data.clone()));
                self.collector.add(RunEvent::Stdout(data));
            }
            RunEvent::Stderr(data) => {
                batch.add(Entry::Output(LogStream::Stderr, data.clone()));
                self.collector.add(RunEvent::Stderr(data));
            }
            event => {
                let told = Told::of(&mut self.collector, event);
                if self.collector.has_promotions() {
                    let by = By::of(self.by.as_ref());
                    // After a kill it comes again under the same number.
                    let origin = format!("{}/{}", self.run.id, batch.handled);
                    let collector = &mut self.collector;
                    self.app
                        .promote_outputs(by, Some(&origin), &self.sandbox, collector)
                        .await;
                }
                for entry in told.entries(&self.collector) {
                    batch.add(Entry::Event(entry));
                }
            }
        }
    }

    async fn write(&mut self, batch: Batch, last: bool) {
        if let Some(writer) = self.writer.take() {
            let (entries, handled) = (batch.entries, batch.handled);
            self.writer = writer
                .append_patiently(entries, handled, last, &self.run.id)
                .await;
        }
    }

    async fn finish(mut self, done: &RunDone) {
        // The turn of the context is over already.
        drop(self.active);
        let unwanted = self.collector.unwanted_files();
        self.app.remove_exports(&self.sandbox, &unwanted).await;
        let row = self.run.row().clone();
        let (result, _share) = self.collector.finish(done, self.options.place(&row));
        let by = self.by.as_ref();
        let keep = self
            .app
            .keep_full_output(&self.run, &self.sandbox, &self.options, by);
        let keep = Box::pin(keep);
        let row = self
            .app
            .ended_row(&self.run.log, row, &self.options, result, keep)
            .await;
        *self.run.row() = row.clone();
        let seconds = done.duration.as_secs_f64();
        self.app.metrics.run_seconds.observe(seconds);
        let outcome = row.status.as_str();
        self.app
            .metrics
            .runs
            .get_or_create(&metrics::Outcome { outcome })
            .inc();
        if self.app.record_code_run_end(&self.run, row).await {
            self.kept.acknowledge();
        }
        drop(self.work);
    }
}

fn never_began(heard: &Heard) -> bool {
    matches!(
        heard,
        Heard::Event(RunEvent::Done(RunDone {
            outcome: HostOutcome::NeverBegan { .. },
            ..
        }))
    )
}

/// What an event has told a collector, on its way into the log.
struct Told {
    first: Vec<Bytes>,
    outputs: std::ops::Range<usize>,
    last: Option<Bytes>,
}

impl Told {
    fn of(collector: &mut RunCollector, event: RunEvent) -> Self {
        let mut first = Vec::new();
        let shown = match &event {
            RunEvent::Result(bundle) => Some(bundle.bytes()),
            RunEvent::Display {
                bundle,
                display_id,
                update,
            } => {
                if let (Some(display_id), true) = (display_id, update) {
                    first.push(Written::Withdrawn { display_id }.encode());
                }
                Some(bundle.bytes())
            }
            RunEvent::Clear { wait } => {
                first.push(Written::Cleared { wait: *wait }.encode());
                None
            }
            _ => None,
        };
        let omitted = collector.outputs_omitted();
        let step = collector.add(event);
        if let Some(bytes) = shown {
            let omitted = collector.outputs_omitted() - omitted;
            first.push(Written::Shown { bytes, omitted }.encode());
        }
        let (mut outputs, mut last) = (0..0, None);
        match &step {
            Step::Outputs(range) => outputs = range.clone(),
            Step::Notice(data) => last = Some(Written::Notice { data }.encode()),
            Step::Input(data) => last = Some(Written::InputRequest { data }.encode()),
            Step::Nothing => {
                let raised = collector.raised();
                last = raised.map(|data| Written::Raised { data }.encode());
            }
            Step::Stdout(_) | Step::Stderr(_) | Step::Done(_) => {}
        }
        Self {
            first,
            outputs,
            last,
        }
    }

    /// At least one for every event, so that its number is on record.
    fn entries(self, collector: &RunCollector) -> Vec<Bytes> {
        let mut entries = self.first;
        let outputs = collector.outputs(self.outputs).iter();
        entries.extend(outputs.map(|data| Written::Output { data }.encode()));
        entries.extend(self.last);
        if entries.is_empty() {
            entries.push(Written::Nothing.encode());
        }
        entries
    }
}

/// As the log has it, for a run without artifacts.
#[cfg(test)]
pub(super) fn told(collector: &mut RunCollector, event: RunEvent) -> Vec<Bytes> {
    Told::of(collector, event).entries(collector)
}

impl App {
    /// Puts on record that a run has begun. When the store cannot take it now, the next server sees
    /// it by what init says.
    pub(super) async fn note_run_begun(&self, run: &LiveRun, options: &RunOptions) {
        let at = micros(Timestamp::now());
        let options = options.stored().unwrap_or_default();
        {
            let mut row = run.row();
            row.status = store::CodeRunStatus::Running;
            row.begun_at = Some(at);
            row.code = None;
            row.options.clone_from(&options);
        }
        let noted = self.store.begin_code_run(&run.id, &options, at).await;
        if let Err(error) = noted {
            tracing::warn!(%error, run = %run.id, "writing that a run has begun failed");
        }
    }

    /// The row of a run at its end, with its result. `keep` makes an artifact of the whole output,
    /// and is asked only where the result does not hold it.
    pub(super) async fn ended_row(
        &self,
        log: &Log,
        mut row: store::CodeRun,
        options: &RunOptions,
        mut result: RunCodeResult,
        keep: impl Future<Output = FullOutput>,
    ) -> store::CodeRun {
        let index = log.index();
        // Also of what the collector of this server has not seen.
        if let Some(usage) = &mut result.usage {
            usage.stdout_bytes = index.totals().stdout;
            usage.stderr_bytes = index.totals().stderr;
        }
        if let Some(report) = &mut result.output_budget
            && options.keep_full_output
            && !output_budget::is_whole(report)
        {
            report.full_output = Some(keep.await);
        }
        row.log_omitted_bytes = i64::try_from(index.omitted_bytes()).unwrap_or(i64::MAX);
        if let Err(error) = record::end_with_result(&mut row, result) {
            record::end_without_result(&mut row, &error);
        }
        row
    }

    /// Makes an artifact of everything that a run has printed.
    async fn keep_full_output(
        &self,
        run: &LiveRun,
        live: &Arc<LiveSandbox>,
        options: &RunOptions,
        by: Option<&By>,
    ) -> FullOutput {
        if !options.policy.may_promote {
            return FullOutput::Rejected {
                reason: RejectedReason::ArtifactScopeRequired,
            };
        }
        let source = || printed(run).map_err(io::Error::other);
        let (origin, naming) = (format!("{}/output", run.id), full_output::naming());
        let made = self
            .store_artifact_once(&origin, live, naming, source, FULL_OUTPUT_BYTES_MAX)
            .await;
        if let (Ok(row), Some((who, request))) = (&made, By::of(by)) {
            self.note_artifact_made(who, request, row);
        }
        full_output::described(made)
    }

    /// Writes the end of a run. False when the store could not take it now: it is known from memory
    /// until it can, and init is not told to forget it.
    pub(super) async fn record_code_run_end(
        &self,
        run: &Arc<LiveRun>,
        row: store::CodeRun,
    ) -> bool {
        let written = self.store.finish_code_run(&row).await;
        if let Err(error) = &written {
            tracing::error!(%error, run = %row.id, "writing the end of a detached run failed");
            self.persist("the end of a detached run", move |app| {
                let row = row.clone();
                async move {
                    app.store.finish_code_run(&row).await?;
                    app.detached.remove(&row.id);
                    Ok(())
                }
            });
        } else {
            self.detached.remove(&run.id);
        }
        run.finish();
        written.is_ok()
    }
}

/// What a run has printed, from its log: both streams in their order, as text.
fn printed(run: &LiveRun) -> impl Stream<Item = Result<Bytes, LogError>> + Send + use<> {
    let (files, index) = (run.log.files.clone(), run.log.index());
    let position = Position::after(None, &index);
    futures_util::stream::try_unfold(
        (files, index, position),
        |(files, index, mut position)| async move {
            let some = read(&files, &index, &mut position, |records| text_of(&records));
            let text = some.await?;
            Ok(text.map(|text| (text, (files, index, position))))
        },
    )
}

fn text_of(records: &[Record]) -> Bytes {
    let mut text = Vec::with_capacity(READ_BYTES_MAX);
    for record in records.iter().filter(|record| record.event.is_none()) {
        text.extend_from_slice(String::from_utf8_lossy(&record.data).as_bytes());
    }
    text.into()
}

/// The error that a run is reported with, as its result has it.
pub(super) fn error_of(result: &serde_json::value::RawValue) -> Option<CodeError> {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(default)]
        error: Option<CodeError>,
    }
    serde_json::from_str::<Head>(result.get()).ok()?.error
}
