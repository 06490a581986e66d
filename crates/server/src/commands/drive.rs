//! The task behind every command: takes what its process says, writes it down, records its end.
//!
//! Order: output is on disk before init is told that it was handled, and the end is in the store
//! before init may forget it. So a server that is killed at any moment finds at its next start
//! what it does not have yet, and nothing twice.

use super::collect::{Collection, Collector};
use super::live::LiveCommand;
use super::record::{Ended, count_log};
use crate::app::App;
use crate::command_log::{Entry, LogStream, LogWriter};
use crate::host::{Exec, ExecDone, ExecEnd, ExecEvent};
use crate::metrics;
use crate::run_result::Collected;
use crate::sandboxes::{LiveSandbox, Work};
use bytes::Bytes;
use crownest_api::Timestamp;
use crownest_store as store;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Output that is written at once. Init keeps as much until it is told.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// A command that has begun.
#[derive(Debug)]
pub(super) struct Driving {
    pub app: App,
    pub sandbox: Arc<LiveSandbox>,
    pub command: Arc<LiveCommand>,
    pub exec: Exec,
    /// None only while it is away, writing.
    pub writer: Option<LogWriter>,
    pub waited: Option<Waited>,
    pub work: Work,
}

/// What somebody who waits for a command wants of it.
#[derive(Debug)]
pub(super) struct Waited {
    pub stdout: Collected,
    pub stderr: Collected,
    pub finished: oneshot::Sender<Finished>,
    /// Gets the output as it comes.
    pub follower: Option<mpsc::Sender<Pieces>>,
    /// Who makes the artifacts that it leaves.
    pub by: Collector,
}

/// A command at its end, for the one who waited.
#[derive(Debug)]
pub(super) struct Finished {
    pub row: store::Command,
    pub outcome: &'static str,
    pub stdout: Collected,
    pub stderr: Collected,
}

impl Waited {
    /// Takes output. A follower that is slow makes the command wait; one that is gone does not.
    async fn take(&mut self, pieces: &[(LogStream, Bytes)], stopping: &CancellationToken) {
        if let Some(follower) = &self.follower {
            let sent = tokio::select! {
                sent = follower.send(pieces.to_vec()) => sent.is_ok(),
                () = stopping.cancelled() => false,
            };
            if !sent {
                self.follower = None;
            }
            return;
        }
        for (stream, data) in pieces {
            let kept = match stream {
                LogStream::Stdout => &mut self.stdout,
                LogStream::Stderr => &mut self.stderr,
            };
            kept.push(&String::from_utf8_lossy(data));
        }
    }
}

/// Output in the order in which it came.
pub(super) type Pieces = Vec<(LogStream, Bytes)>;

/// What was there to be taken.
#[derive(Debug, Default)]
struct Batch {
    pieces: Pieces,
    bytes: usize,
    /// Number of the last event with output.
    handled: u64,
    done: Option<ExecDone>,
}

impl Batch {
    fn add(&mut self, event: ExecEvent, seq: u64) {
        let (stream, data) = match event {
            ExecEvent::Stdout(data) => (LogStream::Stdout, data),
            ExecEvent::Stderr(data) => (LogStream::Stderr, data),
            ExecEvent::Done(done) => {
                self.done = Some(done);
                return;
            }
        };
        self.bytes += data.len();
        self.handled = seq;
        self.pieces.push((stream, data));
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_MAX || self.done.is_some()
    }
}

impl Driving {
    /// Drives the command to its end, or until the server stops: then the next one takes over.
    pub(super) async fn drive(mut self) {
        loop {
            let Some(mut batch) = self.next_batch().await else {
                return;
            };
            if let Some(waited) = &mut self.waited {
                waited.take(&batch.pieces, &self.app.stopping).await;
            }
            let done = batch.done.take();
            self.write(batch, done.is_some()).await;
            if let Some(done) = done {
                return self.finish(&done).await;
            }
        }
    }

    async fn next_batch(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        let first = self.exec.next().await?;
        batch.add(first, self.exec.seq());
        while !batch.is_full()
            && let Some(event) = self.exec.next_waiting().await
        {
            batch.add(event, self.exec.seq());
        }
        Some(batch)
    }

    async fn write(&mut self, batch: Batch, last: bool) {
        if let Some(writer) = self.writer.take() {
            let output = |(stream, data)| Entry::Output(stream, data);
            let entries = batch.pieces.into_iter().map(output).collect();
            self.writer = writer
                .append_patiently(entries, batch.handled, last, &self.command.id)
                .await;
        }
    }

    async fn finish(self, done: &ExecDone) {
        let canceled = self.command.row().cancel_mode.is_some();
        let ended = Ended::of(done, canceled);
        let collection = Collection::of_row(&self.command.row());
        let collected = match collection {
            Some(collection) => {
                let by = self.waited.as_ref().map(|waited| &waited.by);
                let of = (&*self.command.id, &ended);
                let collected = collection.collect(&self.app, &self.sandbox, by, of);
                Some(collected.await)
            }
            None => None,
        };
        let row = {
            let mut row = self.command.row();
            let duration = match done.outcome {
                // Init is not there to say it.
                ExecEnd::SandboxGone => None,
                _ => u64::try_from(done.duration.as_millis()).ok(),
            };
            end_row(&mut row, &ended, duration);
            count_log(&mut row, &self.command.log.index());
            if let Some(collected) = &collected {
                collected.write(&mut row);
            }
            row.clone()
        };
        let outcome = ended.outcome;
        self.app
            .metrics
            .commands
            .get_or_create(&metrics::Outcome { outcome })
            .inc();
        let recorded = self
            .app
            .record_command_end(&self.command, row.clone())
            .await;
        if recorded {
            self.exec.acknowledge();
        }
        drop(self.work);
        if let Some(waited) = self.waited {
            // Nobody may be there any more.
            let _ = waited.finished.send(Finished {
                row,
                outcome,
                stdout: waited.stdout,
                stderr: waited.stderr,
            });
        }
    }
}

/// Writes an end into a row. Of a command that was taken over, its own duration says when.
pub(super) fn end_row(row: &mut store::Command, ended: &Ended, duration_ms: Option<u64>) {
    let now = Timestamp::now();
    let begun = Timestamp::from_millis(row.created_at / 1_000);
    let elapsed = begun.millis_until(now);
    let duration_ms = duration_ms.unwrap_or(elapsed);
    let at = begun.plus_millis(duration_ms.min(elapsed));
    ended.write(row, at.max(begun), Some(duration_ms));
}

impl App {
    /// Writes the end of a command. False when the store could not take it now: it is known from
    /// memory until it can, and init is not told to forget it.
    pub(super) async fn record_command_end(
        &self,
        command: &Arc<LiveCommand>,
        row: store::Command,
    ) -> bool {
        let written = self.store.finish_command(&row).await;
        if let Err(error) = &written {
            tracing::error!(%error, command = %row.id, "writing the end of a command failed");
            self.persist("the end of a command", move |app| {
                let row = row.clone();
                async move {
                    app.store.finish_command(&row).await?;
                    app.commands.remove(&row.id);
                    Ok(())
                }
            });
        } else {
            self.commands.remove(&command.id);
        }
        command.finish();
        written.is_ok()
    }
}
