//! The record of a command: from what init says at its end to a row, from a row to the wire.

use crate::command_log::{LogError, LogFiles, LogIndex, LogStream, Position, read};
use crate::host::{ExecDone, ExecEnd};
use crownest_api::command::{CollectStatus, Command, CommandStatus};
use crownest_api::{Timestamp, limits};
use crownest_init::characters::complete_characters;
use crownest_store as store;

/// How far a log is read for what one of its streams begins with.
const LOOK_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How a process ended, in the words of the contract.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub status: store::CommandStatus,
    pub outcome: &'static str,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub killed_reason: Option<&'static str>,
}

impl Ended {
    /// `canceled`: a client had asked for its end before it was known.
    pub(super) fn of(done: &ExecDone, canceled: bool) -> Self {
        let none = Self {
            status: store::CommandStatus::Exited,
            outcome: "exited",
            exit_code: None,
            signal: None,
            killed_reason: None,
        };
        let ended = match done.outcome {
            ExecEnd::Exited { code } => Self {
                exit_code: Some(code),
                ..none
            },
            ExecEnd::Signaled { signal } => Self {
                status: store::CommandStatus::Killed,
                outcome: if done.out_of_memory {
                    "out_of_memory"
                } else {
                    "killed"
                },
                exit_code: Some(128 + signal),
                signal: Some(signal),
                killed_reason: done.out_of_memory.then_some("out_of_memory"),
            },
            ExecEnd::TimedOut { signal } => Self {
                status: store::CommandStatus::TimedOut,
                outcome: "timed_out",
                signal: Some(signal),
                ..none
            },
            ExecEnd::SandboxGone => return Self::with_sandbox(),
        };
        if canceled && ended.status != store::CommandStatus::TimedOut {
            return Self {
                status: store::CommandStatus::Canceled,
                outcome: "canceled",
                killed_reason: None,
                ..ended
            };
        }
        ended
    }

    /// Its sandbox ended under it.
    pub(super) fn with_sandbox() -> Self {
        Self {
            status: store::CommandStatus::Killed,
            outcome: "sandbox_destroyed",
            exit_code: None,
            signal: None,
            killed_reason: Some("sandbox_destroyed"),
        }
    }

    /// It ended by itself, with 0.
    pub(super) fn is_success(&self) -> bool {
        self.status == store::CommandStatus::Exited && self.exit_code == Some(0)
    }

    /// It was never started.
    pub(super) fn never_begun() -> Self {
        Self {
            status: store::CommandStatus::Failed,
            outcome: "failed",
            exit_code: None,
            signal: None,
            killed_reason: None,
        }
    }

    /// Writes the end into a row.
    pub(super) fn write(&self, row: &mut store::Command, at: Timestamp, duration_ms: Option<u64>) {
        row.status = self.status;
        row.finished_at = Some(crate::auth::micros(at));
        row.duration_ms = duration_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        row.exit_code = self.exit_code.map(i64::from);
        row.termination_signal = self.signal.map(signal_name);
        row.killed_reason = self.killed_reason.map(str::to_owned);
    }
}

/// Writes what is known of a log into a row.
pub(super) fn count_log(row: &mut store::Command, index: &LogIndex) {
    let stored = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let totals = index.totals();
    row.stdout_bytes = stored(totals.stdout);
    row.stderr_bytes = stored(totals.stderr);
    row.log_omitted_bytes = stored(index.omitted_bytes());
}

/// A row as clients see it, without its output.
pub(crate) fn wire(row: &store::Command) -> Command {
    let time = |micros: i64| Timestamp::from_millis(micros / 1_000);
    let count = |bytes: i64| u64::try_from(bytes).ok().filter(|bytes| *bytes > 0);
    Command {
        id: row.id.clone(),
        sandbox_id: row.sandbox_id.clone(),
        command: row.command.clone(),
        cwd: row.cwd.clone(),
        env: row
            .env_names
            .iter()
            .map(|name| (name.clone(), String::new()))
            .collect(),
        status: status(row.status),
        cancel_mode: row.cancel_mode.as_deref().and_then(word),
        canceled_at: row.canceled_at.map(time),
        exit_code: row.exit_code.and_then(|code| i32::try_from(code).ok()),
        stdout: None,
        stderr: None,
        stdout_truncated: None,
        stderr_truncated: None,
        stdout_omitted_bytes: None,
        stderr_omitted_bytes: None,
        log_omitted_bytes: count(row.log_omitted_bytes),
        started_at: Some(time(row.created_at)),
        finished_at: row.finished_at.map(time),
        duration_ms: row.duration_ms.and_then(|ms| u64::try_from(ms).ok()),
        collect_status: word(&row.collect_status),
        collect_errors: row
            .collect_errors
            .as_deref()
            .and_then(|errors| serde_json::from_str(errors).ok()),
        killed_reason: row.killed_reason.clone(),
        termination_signal: row.termination_signal.clone(),
    }
}

/// A word of the wire that is stored as it is.
fn word<T: serde::de::DeserializeOwned>(stored: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::from(stored)).ok()
}

/// The word that is stored for it.
pub(super) fn collect_word(status: CollectStatus) -> String {
    match status {
        CollectStatus::NotRequested => "not_requested",
        CollectStatus::Pending => "pending",
        CollectStatus::Skipped => "skipped",
        CollectStatus::Succeeded => "succeeded",
        CollectStatus::Partial => "partial",
        CollectStatus::Failed => "failed",
    }
    .to_owned()
}

fn status(status: store::CommandStatus) -> CommandStatus {
    match status {
        store::CommandStatus::Running => CommandStatus::Running,
        store::CommandStatus::Exited => CommandStatus::Exited,
        store::CommandStatus::Failed => CommandStatus::Failed,
        store::CommandStatus::Canceled => CommandStatus::Canceled,
        store::CommandStatus::TimedOut => CommandStatus::TimedOut,
        store::CommandStatus::Killed => CommandStatus::Killed,
    }
}

/// The beginning of one stream, and how much there was of it.
#[derive(Debug)]
struct Beginning {
    stream: LogStream,
    bytes: Vec<u8>,
    printed: u64,
    /// There was more than there is room for.
    full: bool,
}

impl Beginning {
    fn new(stream: LogStream, printed: i64) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
            printed: u64::try_from(printed).unwrap_or(0),
            full: false,
        }
    }

    fn is_done(&self) -> bool {
        self.full || self.bytes.len() as u64 >= self.printed
    }

    fn take(&mut self, data: &[u8]) {
        let room = limits::RECORD_OUTPUT_BYTES_MAX - self.bytes.len();
        let kept = match data.get(..room) {
            Some(start) if data.len() > room => {
                self.full = true;
                &start[..complete_characters(start)]
            }
            _ => data,
        };
        self.bytes.extend_from_slice(kept);
    }

    /// The text, and how many bytes it leaves out.
    fn finish(self) -> (Option<String>, Option<bool>, Option<u64>) {
        let omitted = self.printed.saturating_sub(self.bytes.len() as u64);
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        (
            Some(text),
            Some(omitted > 0),
            (omitted > 0).then_some(omitted),
        )
    }
}

/// Adds what an ended command's streams begin with. While the object store does not give it, they
/// are said to begin with nothing: how the command ended can be asked for at any time.
pub(super) async fn add_output(
    command: &mut Command,
    row: &store::Command,
    files: &LogFiles,
    index: &LogIndex,
) -> Result<(), LogError> {
    let mut stdout = Beginning::new(LogStream::Stdout, row.stdout_bytes);
    let mut stderr = Beginning::new(LogStream::Stderr, row.stderr_bytes);
    let mut position = Position::after(None, index);
    let mut looked = 0;
    while looked < LOOK_BYTES_MAX && !(stdout.is_done() && stderr.is_done()) {
        let records = match read(files, index, &mut position, |records| records).await {
            Ok(Some(records)) => records,
            Ok(None) => break,
            Err(LogError::Objects(error)) => {
                tracing::warn!(%error, command = row.id, "its record is without its output");
                break;
            }
            Err(error) => return Err(error),
        };
        for record in records {
            looked += record.data.len();
            for stream in [&mut stdout, &mut stderr] {
                if stream.stream == record.stream && !stream.is_done() {
                    stream.take(&record.data);
                }
            }
        }
    }
    (
        command.stdout,
        command.stdout_truncated,
        command.stdout_omitted_bytes,
    ) = stdout.finish();
    (
        command.stderr,
        command.stderr_truncated,
        command.stderr_omitted_bytes,
    ) = stderr.finish();
    Ok(())
}

fn signal_name(signal: i32) -> String {
    const NAMES: [(i32, &str); 10] = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (13, "SIGPIPE"),
        (15, "SIGTERM"),
    ];
    let known = NAMES.iter().find(|(number, _)| *number == signal);
    known.map_or_else(|| format!("SIG{signal}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ended(outcome: ExecEnd, out_of_memory: bool, canceled: bool) -> Ended {
        let done = ExecDone {
            outcome,
            duration: Duration::ZERO,
            out_of_memory,
        };
        Ended::of(&done, canceled)
    }

    #[test]
    fn every_end_has_its_words() {
        let words = |outcome, out_of_memory| {
            let ended = ended(outcome, out_of_memory, false);
            (ended.outcome, ended.exit_code, ended.killed_reason)
        };
        assert_eq!(
            words(ExecEnd::Exited { code: 3 }, false),
            ("exited", Some(3), None)
        );
        let oom = ("out_of_memory", Some(137), Some("out_of_memory"));
        assert_eq!(words(ExecEnd::Signaled { signal: 9 }, true), oom);
        assert_eq!(
            words(ExecEnd::TimedOut { signal: 15 }, false),
            ("timed_out", None, None)
        );
        let gone = ("sandbox_destroyed", None, Some("sandbox_destroyed"));
        assert_eq!(words(ExecEnd::SandboxGone, false), gone);
    }

    #[test]
    fn a_cancel_explains_every_end_but_a_timeout_and_that_of_the_sandbox() {
        let status = |outcome| ended(outcome, false, true).status;
        let canceled = store::CommandStatus::Canceled;
        assert_eq!(status(ExecEnd::Exited { code: 0 }), canceled);
        assert_eq!(status(ExecEnd::Signaled { signal: 15 }), canceled);
        assert_eq!(
            status(ExecEnd::TimedOut { signal: 9 }),
            store::CommandStatus::TimedOut
        );
        assert_eq!(status(ExecEnd::SandboxGone), store::CommandStatus::Killed);
    }
}
