//! Detached runs that an earlier server of this node has put on record: followed on, begun in
//! their turn, or ended in the records.

use super::drive::Driving;
use super::live::LiveRun;
use super::log_event::{Assembler, restore};
use super::record::{self, RunOptions};
use super::start::Queued;
use crate::app::App;
use crate::command_log::{Log, LogError, LogStream, LogWriter, Position, Record, read};
use crate::error::{ApiError, ApiResult};
use crate::host::{HostError, KeptRun, RunEvent, RunTarget};
use crate::run_result::RunCollector;
use crate::sandboxes::LiveSandbox;
use crownest_api::ErrorCode;
use crownest_api::code::RejectedReason;
use crownest_api::output_budget::FullOutput;
use crownest_store as store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The runs of this node whose end is not on record, by sandbox, oldest first.
pub(crate) type Unfinished = HashMap<String, Vec<store::CodeRun>>;

impl App {
    /// What a starting server has to look for.
    pub(crate) async fn unfinished_code_runs(&self) -> ApiResult<Unfinished> {
        let mut by_sandbox = Unfinished::new();
        let node = &self.config.node_id;
        for row in self.store.unfinished_code_runs_of_node(node).await? {
            by_sandbox
                .entry(row.sandbox_id.clone())
                .or_default()
                .push(row);
        }
        Ok(by_sandbox)
    }

    /// Takes up the runs of a sandbox that lives on, and ends those that have no row.
    pub(crate) async fn restore_code_runs(
        &self,
        live: &Arc<LiveSandbox>,
        rows: Vec<store::CodeRun>,
    ) {
        for row in rows {
            let id = row.id.clone();
            if let Err(error) = self.restore_code_run(live, row).await {
                tracing::error!(%error, cause = error.cause, run = %id, "a run could not be taken up");
            }
        }
        for unknown in live.host.recovered_runs() {
            tracing::warn!(sandbox = %live.id, run = unknown.id, "a run without a record");
            live.host.give_up_run(unknown.id);
        }
    }

    async fn restore_code_run(
        &self,
        live: &Arc<LiveSandbox>,
        row: store::CodeRun,
    ) -> ApiResult<()> {
        let options = RunOptions::of_row(&row)?;
        let writer = self.reopen_run_log(&row.id).await?;
        let code = row.code.as_deref().map(serde_json::from_str::<String>);
        let code = code.transpose().map_err(ApiError::internal)?;
        let context = live.context(&row.context_id);
        let run = LiveRun::new(row, live, Arc::clone(writer.log()));
        // What was accepted before is not refused now.
        self.detached.insert(&run, usize::MAX);
        let found = live.host.recovered_runs();
        let found = found.into_iter().find(|found| found.id == run.number);
        match (found, code, context) {
            (Some(found), _, context) => {
                run.row().status = store::CodeRunStatus::Running;
                let kept = match self.attach(&run, &writer, found).await {
                    Ok(kept) => kept,
                    Err(error) => {
                        let error = ApiError::from(error);
                        self.end_unknown(&run, &error).await;
                        return Err(error);
                    }
                };
                let collector = replayed(&run.log, &options).await?;
                let driving = Driving {
                    active: context.ok().map(|context| context.activate(run.number)),
                    app: self.clone(),
                    sandbox: Arc::clone(live),
                    run,
                    kept,
                    writer: Some(writer),
                    collector,
                    options,
                    unbegun: None,
                    by: None,
                    work: live.work(),
                };
                self.tasks.spawn(driving.drive());
            }
            (None, Some(code), Ok(context)) => {
                let queued = Queued {
                    app: self.clone(),
                    sandbox: Arc::clone(live),
                    context,
                    run,
                    writer,
                    options,
                    code,
                    by: None,
                    work: live.work(),
                };
                let (accepted, accepts) = tokio::sync::oneshot::channel();
                self.tasks.spawn(queued.begin(Some(accepted)));
                // One after the other, so that they keep their order.
                let _ = accepts.await;
            }
            (None, Some(_), Err(error)) => self.end_unknown(&run, &error).await,
            (None, None, _) => {
                let message = "the run was lost; how it ended is not known";
                let error = ApiError::new(ErrorCode::InternalError, message);
                self.end_unknown(&run, &error).await;
            }
        }
        Ok(())
    }

    /// Attaches behind what is in the log. When that is behind what init was told, as after a disk
    /// that did not take everything, it goes on with what there is.
    async fn attach(
        &self,
        run: &LiveRun,
        writer: &LogWriter,
        found: RunTarget,
    ) -> Result<KeptRun, HostError> {
        match run.host.attach_run(run.number, writer.handled()).await {
            Err(HostError::Invalid(_)) => {}
            other => return other,
        }
        tracing::error!(run = %run.id, "output of a run was lost between two servers");
        // Behind everything that it has said, but before its end.
        let seq = found.seq.saturating_sub(u64::from(found.done));
        run.host.attach_run(run.number, seq).await
    }

    /// Ends the runs of sandboxes that are gone.
    pub(crate) async fn end_lost_code_runs(&self, unfinished: Unfinished) {
        for row in unfinished.into_values().flatten() {
            let id = row.id.clone();
            if let Err(error) = self.end_lost_code_run(row).await {
                tracing::error!(%error, cause = error.cause, run = %id, "writing the end of a run failed");
            }
        }
    }

    async fn end_lost_code_run(&self, mut row: store::CodeRun) -> ApiResult<()> {
        if row.status == store::CodeRunStatus::Queued && row.begun_at.is_none() {
            record::end_without_result(&mut row, &ApiError::destroyed());
            self.store.finish_code_run(&row).await?;
            return Ok(());
        }
        let options = RunOptions::of_row(&row)?;
        let writer = self.reopen_run_log(&row.id).await?;
        let collector = replayed(writer.log(), &options).await?;
        let done = record::gone("the sandbox ended");
        let (result, _share) = collector.finish(&done, options.place(&row));
        let kept = std::future::ready(FullOutput::Rejected {
            reason: RejectedReason::RequiresArtifactPromotion,
        });
        let row = self
            .ended_row(writer.log(), row, &options, result, kept)
            .await;
        self.store.finish_code_run(&row).await?;
        Ok(())
    }

    async fn end_unknown(&self, run: &Arc<LiveRun>, error: &ApiError) {
        let row = {
            let mut row = run.row();
            record::end_without_result(&mut row, error);
            row.clone()
        };
        self.record_code_run_end(run, row).await;
    }

    async fn reopen_run_log(&self, id: &str) -> ApiResult<LogWriter> {
        let (files, limits) = (self.run_log_files(id), self.config.log_limits());
        tokio::task::spawn_blocking(move || LogWriter::reopen(files, limits))
            .await
            .map_err(ApiError::internal)?
            .map_err(|error| ApiError::internal(format_args!("taking up a log: {error}")))
    }
}

/// A collector that knows what the log has.
async fn replayed(log: &Arc<Log>, options: &RunOptions) -> ApiResult<RunCollector> {
    let collector = RunCollector::new(options.policy, &options.keeping());
    let replay = Arc::new(Mutex::new(Replay {
        collector,
        assembler: Assembler::default(),
    }));
    let index = log.index();
    let mut position = Position::after(None, &index);
    loop {
        let shared = Arc::clone(&replay);
        let some = read(&log.files, &index, &mut position, move |records| {
            let mut replay = shared.lock().unwrap_or_else(PoisonError::into_inner);
            replay.take(records);
        });
        match some.await {
            Ok(Some(())) => {}
            // The end, or a log that is damaged: what can be read has been.
            Ok(None) | Err(LogError::Gap { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let replay = Arc::into_inner(replay).and_then(|replay| replay.into_inner().ok());
    let replay = replay.ok_or_else(|| ApiError::internal("a log was read by nobody"))?;
    Ok(replay.collector)
}

struct Replay {
    collector: RunCollector,
    assembler: Assembler,
}

impl Replay {
    fn take(&mut self, records: Vec<Record>) {
        for record in records {
            match (record.event, record.stream) {
                (Some(part), _) => {
                    if let Some(event) = self.assembler.push(&record, part)
                        && !restore(&event, &mut self.collector)
                    {
                        tracing::error!(seq = record.seq, "an event of a log cannot be read");
                    }
                }
                (None, LogStream::Stdout) => {
                    self.collector.add(RunEvent::Stdout(record.data));
                }
                (None, LogStream::Stderr) => {
                    self.collector.add(RunEvent::Stderr(record.data));
                }
            }
        }
    }
}
