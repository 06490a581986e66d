//! Runs and processes, as their consumers see them.

use super::context::{Context, cause_of};
use super::counters::count;
use super::error::HostError;
use super::kernel_event;
use super::sandbox::{CALL_TIMEOUT, Sandbox, millis};
use super::target::{Item, Target};
use super::types::{
    ExecDone, ExecEnd, ExecEvent, ExecSpec, QueryDone, QuerySpec, RunDone, RunEvent, RunOutcome,
    RunSpec, TIMEOUT_MAX,
};
use bytes::Bytes;
use crownest_init::cell::{INPUT_BYTES_MAX, RunOptions};
use crownest_init::link::{Death, ExecOutcome, Request, RunOutcome as Outcome, Stream};
use crownest_init::terminal::{EXEC_INPUT_BYTES_MAX, TerminalSize};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// What the kernel sends at the memory limit.
const SIGKILL: i32 = 9;
/// Longest wait for a process to read what is written to it: it may have something else to do.
const EXEC_INPUT_WAIT_MAX: Duration = TIMEOUT_MAX;
/// Arguments of one process.
const ARGV_MAX: usize = 4_096;
/// Longest source of one cell.
const CODE_BYTES_MAX: usize = 8 * 1024 * 1024;

impl Sandbox {
    /// Runs one cell. Waits behind a running cell of the same context, then returns as soon as
    /// the cell is on its way; what comes of it is in [`Run::next`].
    ///
    /// # Errors
    /// [`HostError::ContextUnknown`], [`HostError::ContextDead`], [`HostError::ContextBusy`] when
    /// too many wait, [`HostError::SandboxGone`].
    pub async fn run(self: &Arc<Self>, spec: RunSpec) -> Result<Run, HostError> {
        let context = self.open_for_run(&spec.context)?;
        let cell = Cell::of(spec)?;
        let permit = context.turn().await?;
        let target = self.begin(self.next_target(), context, permit, cell)?;
        Ok(Run {
            sandbox: Arc::clone(self),
            target,
            over: false,
        })
    }

    /// The context of a run that is about to begin.
    pub(super) fn open_for_run(&self, id: &str) -> Result<Arc<Context>, HostError> {
        if self.is_closed() {
            return Err(HostError::SandboxGone);
        }
        self.contexts.get(id).ok_or(HostError::ContextUnknown)
    }

    /// Sends a cell on its way, in its context's turn.
    pub(super) fn begin(
        &self,
        id: u64,
        context: Arc<Context>,
        permit: OwnedSemaphorePermit,
        cell: Cell,
    ) -> Result<Arc<Target>, HostError> {
        let call = self.calls.next_id();
        let name = context.id.clone();
        let target = Target::run(id, call, context, permit);
        let target = Arc::new(if cell.options.keep {
            target.kept()
        } else {
            target
        });
        self.add_target(&target)?;
        // Init answers only to refuse, which ends the run like a death would: an answer in the
        // middle of every run would wake this process once more.
        let request = Request::Run {
            context: name,
            run: id,
            timeout_ms: cell.timeout_ms,
            cwd: cell.cwd,
            language: cell.language,
            quiet: true,
            options: cell.options,
        };
        self.calls.begin_run(call, Arc::clone(&target));
        let body = Bytes::from(cell.code.into_bytes());
        if let Err(error) = self.link().send_with(call, request, body, Vec::new()) {
            self.calls.forget(call);
            self.remove_target(id);
            return Err(self.lost(error));
        }
        count(&self.shared.counters.runs);
        Ok(target)
    }

    /// Asks about a context in its turn. What comes of it is in [`Asked::answer`].
    ///
    /// # Errors
    /// As [`Sandbox::run`]; [`HostError::ContextBusy`] also when its turn did not come in time.
    pub async fn ask(self: &Arc<Self>, spec: QuerySpec) -> Result<Asked, HostError> {
        let context = self.open_for_run(&spec.context)?;
        let cell = Cell {
            code: spec.code,
            cwd: None,
            language: None,
            timeout_ms: millis(spec.timeout, "the timeout")?,
            options: RunOptions {
                query: Some(spec.query),
                ..RunOptions::default()
            },
        };
        let permit = tokio::time::timeout(spec.timeout, context.turn())
            .await
            .unwrap_or(Err(HostError::ContextBusy))?;
        let target = self.begin(self.next_target(), context, permit, cell)?;
        Ok(Asked(Run {
            sandbox: Arc::clone(self),
            target,
            over: false,
        }))
    }

    /// Answers the line that a run waits for; none is the end of the file.
    ///
    /// # Errors
    /// [`HostError::InputNotAwaited`], [`HostError::TooLarge`].
    pub async fn answer_input(&self, run: u64, line: Option<String>) -> Result<(), HostError> {
        let eof = line.is_none();
        let body = Bytes::from(line.unwrap_or_default().into_bytes());
        if body.len() > INPUT_BYTES_MAX {
            return Err(HostError::TooLarge {
                what: "the line",
                limit: INPUT_BYTES_MAX,
            });
        }
        self.call_with(Request::Input { run, eof }, body, Vec::new(), CALL_TIMEOUT)
            .await
            .map(drop)
    }

    /// A number for a process that is going to be started, to be stored before it is.
    #[must_use]
    pub fn exec_number(&self) -> u64 {
        self.next_target()
    }

    /// Starts a process under a number of [`Sandbox::exec_number`]; returns when it runs. The
    /// number may be used again when this failed with [`HostError::SpawnFailed`].
    ///
    /// # Errors
    /// [`HostError::SpawnFailed`] when the program cannot be started, [`HostError::TooMany`].
    pub async fn exec(self: &Arc<Self>, id: u64, spec: ExecSpec) -> Result<Exec, HostError> {
        let timeout_ms = spec.timeout.map(|t| millis(t, "the timeout")).transpose()?;
        if spec.argv.is_empty() || spec.argv.len() > ARGV_MAX {
            return Err(HostError::Invalid(format!(
                "1 to {ARGV_MAX} arguments are needed"
            )));
        }
        let mut exec = Exec::new(self, Arc::new(Target::exec(id, 0)));
        self.add_target(&exec.target)?;
        let request = Request::Exec {
            exec: id,
            argv: spec.argv,
            cwd: spec.cwd,
            env: spec.env,
            timeout_ms,
            identity: spec.identity,
            stdin: spec.stdin,
        };
        let answer = self.call(request).await?;
        exec.pid = answer.reply.pid;
        count(&self.shared.counters.execs);
        Ok(exec)
    }

    /// Takes up a process again, after [`super::Host::recover`] or after its [`Exec`] was dropped.
    /// `handled_seq` is [`Exec::seq`] of the last event that was stored; 0 for none.
    ///
    /// # Errors
    /// [`HostError::TargetUnknown`] when its end was acknowledged, or it never was.
    pub async fn attach_exec(
        self: &Arc<Self>,
        id: u64,
        handled_seq: u64,
    ) -> Result<Exec, HostError> {
        if self.targets().contains_key(&id) {
            return Err(HostError::Invalid("this process has a consumer".into()));
        }
        let exec = Exec::new(self, Arc::new(Target::exec(id, handled_seq)));
        self.add_target(&exec.target)?;
        self.call(Request::Attach {
            target: id,
            seq: handled_seq,
        })
        .await?;
        self.claim_recovered_exec(id);
        Ok(exec)
    }
}

/// A cell, checked and in the words of the link.
#[derive(Debug)]
pub(super) struct Cell {
    code: String,
    cwd: Option<String>,
    language: Option<String>,
    timeout_ms: u64,
    pub(super) options: RunOptions,
}

impl Cell {
    pub(super) fn of(spec: RunSpec) -> Result<Self, HostError> {
        if spec.code.len() > CODE_BYTES_MAX {
            return Err(HostError::TooLarge {
                what: "the code",
                limit: CODE_BYTES_MAX,
            });
        }
        Ok(Self {
            timeout_ms: millis(spec.timeout, "the timeout")?,
            code: spec.code,
            cwd: spec.cwd,
            language: spec.language,
            options: RunOptions {
                input: spec.input,
                table_export: spec.table_export,
                ..RunOptions::default()
            },
        })
    }
}

/// A cell that runs. Dropping it before its end interrupts the cell; what it still says is
/// acknowledged and thrown away, so that it can never block the context.
#[derive(Debug)]
pub struct Run {
    sandbox: Arc<Sandbox>,
    target: Arc<Target>,
    over: bool,
}

impl Run {
    /// Its number, unique for the life of the sandbox.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.target.id
    }

    /// The next event; the last one is [`RunEvent::Done`]. `None` after it, and without it only
    /// when the server stops.
    pub async fn next(&mut self) -> Option<RunEvent> {
        loop {
            if let Some(seq) = self.target.ack_due() {
                self.ack(seq);
            }
            let item = poll_fn(|cx| self.target.poll_take(cx)).await?;
            self.over |= item.is_end();
            if matches!(item, Item::RunDone { .. }) {
                self.sandbox.link().send_sometime(Request::Ack {
                    target: self.target.id,
                    seq: self.target.taken_seq(),
                });
            }
            let event = run_event(&self.sandbox, item).await;
            if event.is_some() {
                return event;
            }
        }
    }

    fn ack(&self, seq: u64) {
        self.sandbox.link().send_later(Request::Ack {
            target: self.target.id,
            seq,
        });
    }
}

/// A question that is on its way. Dropping it interrupts what answers.
#[derive(Debug)]
pub struct Asked(Run);

impl Asked {
    /// Its number among the runs of the sandbox.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    /// Waits for what comes of it. `None` only when the server stops.
    pub async fn answer(mut self) -> Option<QueryDone> {
        let mut answer = None;
        loop {
            match self.0.next().await? {
                RunEvent::Answer(said) => answer = Some(said),
                RunEvent::Done(done) => {
                    let outcome = done.outcome;
                    return Some(QueryDone { answer, outcome });
                }
                _ => {}
            }
        }
    }
}

/// What an item of a run means; none for an event of the driver that means nothing.
pub(super) async fn run_event(sandbox: &Sandbox, item: Item) -> Option<RunEvent> {
    Some(match item {
        Item::Output {
            stream: Stream::Stdout,
            data,
        } => RunEvent::Stdout(data.into()),
        Item::Output {
            stream: Stream::Stderr,
            data,
        } => RunEvent::Stderr(data.into()),
        Item::Kernel { json } => {
            let event = kernel_event::parse(&json);
            if event.is_none() {
                count(&sandbox.shared.counters.events_dropped);
            }
            event?
        }
        Item::RunDone {
            outcome,
            execution_count,
            duration,
            cpu,
            usage,
            background_dropped,
        } => RunEvent::Done(RunDone {
            outcome: run_outcome(sandbox, outcome).await,
            execution_count,
            duration,
            cpu,
            usage,
            background_dropped,
        }),
        Item::Gone { cause } => RunEvent::Done(gone(cause)),
        Item::NeverBegan { cause } => RunEvent::Done(RunDone {
            outcome: RunOutcome::NeverBegan { cause },
            ..gone(String::new())
        }),
        Item::ExecDone { .. } => {
            // An init that mixes up its own events ends the run, not the server.
            RunEvent::Done(gone("init confused a run with a process".into()))
        }
    })
}

async fn run_outcome(sandbox: &Sandbox, outcome: Outcome) -> RunOutcome {
    match outcome {
        Outcome::Completed => RunOutcome::Completed,
        Outcome::Interrupted => RunOutcome::Interrupted,
        Outcome::TimedOut { context_alive } => RunOutcome::TimedOut { context_alive },
        Outcome::Died(death) => {
            if killed_by_kernel(&death) && sandbox.new_oom_kill().await {
                return RunOutcome::OutOfMemory;
            }
            RunOutcome::ContextDied {
                cause: cause_of(&death),
                death,
            }
        }
    }
}

fn gone(cause: String) -> RunDone {
    RunDone {
        outcome: RunOutcome::ContextDied {
            death: Death::default(),
            cause,
        },
        execution_count: 0,
        duration: Duration::ZERO,
        cpu: None,
        usage: None,
        background_dropped: 0,
    }
}

/// SIGKILL that init did not send.
fn killed_by_kernel(death: &Death) -> bool {
    death.signal == Some(SIGKILL) && death.reason.is_none()
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let (seq, alive) = self.target.abandon();
        count(&self.sandbox.shared.counters.runs_abandoned);
        let link = self.sandbox.link();
        self.ack(seq);
        if alive {
            // A lost link is noticed by its own task; the run's timeout ends it in any case.
            let id = self.sandbox.calls.next_id();
            let _ = link.send(
                id,
                Request::Interrupt {
                    run: self.target.id,
                },
            );
        }
    }
}

/// A process. Dropping it only detaches: the process goes on until its output window is full, and
/// [`Sandbox::attach_exec`] finds it again.
#[derive(Debug)]
pub struct Exec {
    sandbox: Arc<Sandbox>,
    target: Arc<Target>,
    pid: Option<i32>,
}

impl Exec {
    fn new(sandbox: &Arc<Sandbox>, target: Arc<Target>) -> Self {
        Self {
            sandbox: Arc::clone(sandbox),
            target,
            pid: None,
        }
    }

    /// Its number, unique for the life of the sandbox; store it to attach again.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.target.id
    }

    /// Its pid inside the sandbox; unknown when it was attached to.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// Number of the event last returned; store it together with what the event said.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.target.taken_seq()
    }

    /// The next event; calling it says that the one before was handled (stored, if it has to
    /// outlive the server). The last one is [`ExecEvent::Done`]. `None` after it, and without it
    /// only when the server stops.
    pub async fn next(&mut self) -> Option<ExecEvent> {
        if let Some(seq) = self.target.ack_due() {
            self.ack(seq);
        }
        let item = poll_fn(|cx| self.target.poll_take(cx)).await?;
        Some(self.event(item).await)
    }

    /// The next event if it is there already; says nothing of the ones before.
    pub async fn next_waiting(&mut self) -> Option<ExecEvent> {
        let item = self.target.take_waiting()?;
        Some(self.event(item).await)
    }

    async fn event(&self, item: Item) -> ExecEvent {
        match item {
            Item::Output {
                stream: Stream::Stdout,
                data,
            } => ExecEvent::Stdout(data.into()),
            Item::Output {
                stream: Stream::Stderr,
                data,
            } => ExecEvent::Stderr(data.into()),
            Item::ExecDone { outcome, duration } => {
                let killed = outcome == ExecOutcome::Signaled { signal: SIGKILL };
                ExecEvent::Done(ExecDone {
                    out_of_memory: killed && self.sandbox.new_oom_kill().await,
                    outcome: outcome.into(),
                    duration,
                })
            }
            Item::Gone { .. }
            | Item::NeverBegan { .. }
            | Item::Kernel { .. }
            | Item::RunDone { .. } => ExecEvent::Done(ExecDone {
                outcome: ExecEnd::SandboxGone,
                duration: Duration::ZERO,
                out_of_memory: false,
            }),
        }
    }

    /// Sends a signal to its process group; with `escalate`, SIGKILL follows after a grace time.
    ///
    /// # Errors
    /// [`HostError::TargetUnknown`] when it is over.
    pub async fn signal(&self, signal: i32, escalate: bool) -> Result<(), HostError> {
        self.sandbox
            .signal_exec(self.target.id, signal, escalate)
            .await
    }

    /// Everything it said, and its end, has been handled: init forgets it.
    pub fn acknowledge(self) {
        self.ack(self.target.taken_seq());
    }

    fn ack(&self, seq: u64) {
        self.sandbox.link().send_later(Request::Ack {
            target: self.target.id,
            seq,
        });
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        self.sandbox.remove_target(self.target.id);
    }
}

impl Sandbox {
    /// Sends a signal to a process by its number, from wherever its consumer is.
    ///
    /// # Errors
    /// [`HostError::TargetUnknown`] when it is over.
    pub async fn signal_exec(&self, id: u64, signal: i32, escalate: bool) -> Result<(), HostError> {
        if !(1..=64).contains(&signal) {
            return Err(HostError::Invalid(format!("signal {signal}")));
        }
        self.call(Request::Signal {
            exec: id,
            signal,
            escalate,
            foreground: false,
        })
        .await
        .map(drop)
    }

    /// Sends a signal to the process group that has the terminal of a process, as a key would.
    ///
    /// # Errors
    /// As [`Sandbox::signal_exec`].
    pub async fn signal_foreground(&self, id: u64, signal: i32) -> Result<(), HostError> {
        if !(1..=64).contains(&signal) {
            return Err(HostError::Invalid(format!("signal {signal}")));
        }
        self.call(Request::Signal {
            exec: id,
            signal,
            escalate: false,
            foreground: true,
        })
        .await
        .map(drop)
    }

    /// Writes to the stdin of a process, one piece after the other, each when the process has made
    /// room for the one before; `eof` closes a pipe behind them. What was written when the link is
    /// lost is not written again.
    ///
    /// # Errors
    /// [`HostError::InputNotAwaited`] when it reads nothing, [`HostError::TargetUnknown`] when it
    /// is over, [`HostError::TooMany`] when too much of what others wrote waits already.
    pub async fn write_exec(&self, id: u64, bytes: Bytes, eof: bool) -> Result<(), HostError> {
        let mut rest = bytes;
        loop {
            let piece = rest.split_to(rest.len().min(EXEC_INPUT_BYTES_MAX));
            let last = rest.is_empty();
            let request = Request::ExecInput {
                exec: id,
                eof: eof && last,
            };
            self.call_with(request, piece, Vec::new(), EXEC_INPUT_WAIT_MAX)
                .await?;
            if last {
                return Ok(());
            }
        }
    }

    /// Changes the size of a process's terminal.
    ///
    /// # Errors
    /// [`HostError::Invalid`] when it has none, [`HostError::TargetUnknown`] when it is over.
    pub async fn resize_exec(&self, id: u64, size: TerminalSize) -> Result<(), HostError> {
        self.call(Request::ExecResize { exec: id, size })
            .await
            .map(drop)
    }
}
