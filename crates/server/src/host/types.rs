//! What routes hand in and get back: specifications, events, timings. Plain data.

use super::kernel_event::Bundle;
use super::kernels::Runtimes;
use super::spawner::{Limits, Network, SandboxKey};
use crate::egress::SandboxRules;
use bytes::Bytes;
use crownest_init::cell::RunUsage;
use crownest_init::identity::Identity;
use crownest_init::link::{Death, ExecOutcome};
use crownest_init::terminal::Stdin;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// Runs that may wait for one context; the next is [`super::HostError::ContextBusy`].
pub const RUNS_QUEUED_MAX: usize = 16;
/// Longest id of a context.
pub const CONTEXT_ID_BYTES_MAX: usize = 64;
/// Longest time that may be asked for one run or process.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The template version that a sandbox is made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TemplateRef {
    /// Its name, for logs and metrics.
    pub slug: String,
    /// 64 hex digits: the content of its root file system.
    pub digest: String,
}

/// A sandbox to make.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// None: generated. A key of the caller's own rules the pool out, where keys exist already.
    pub key: Option<SandboxKey>,
    pub template: TemplateRef,
    pub limits: Limits,
    pub network: Network,
    /// What its files are at first; none: the template's alone. Rules the pool out.
    pub snapshot: Option<SandboxKey>,
    /// The versions that it uses.
    pub runtimes: Runtimes,
    /// Environment of every exec and context.
    pub env: BTreeMap<String, String>,
    /// A further variable of that environment, and what its value has before the sandbox's key.
    pub key_variable: Option<(&'static str, String)>,
    /// Egress rules of its own, under those of the operator.
    pub egress: Option<SandboxRules>,
    /// Time from now after which the sandbox ends itself, server or not.
    pub deadline: Duration,
}

/// Where the time of a create went.
#[derive(Debug, Clone, Copy, Default)]
pub struct CreateTimings {
    /// Handed out from the pool.
    pub pooled: bool,
    /// In the spawner; zero when pooled.
    pub spawner: Duration,
    /// Connecting to init and configuring it.
    pub link: Duration,
    pub total: Duration,
}

/// How a context gets its interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Forked from the template's zygote: milliseconds. Languages without a zygote get `Fresh`.
    Fork,
    /// A new process with its own address layout and hash seed.
    Fresh,
}

/// A context to open.
#[derive(Debug, Clone)]
pub struct ContextSpec {
    /// 1..=64 of `[A-Za-z0-9_-]`, unique in the sandbox.
    pub id: String,
    /// One of a kernel's, as it is answered: `python`, …
    pub language: String,
    pub cwd: String,
    pub env: BTreeMap<String, String>,
    pub isolation: Isolation,
}

/// A cell to run.
#[derive(Debug, Clone)]
pub struct RunSpec {
    pub context: String,
    pub code: String,
    /// From the start of the cell; time in the queue does not count.
    pub timeout: Duration,
    pub cwd: Option<String>,
    /// For a kernel of several languages: that of this cell.
    pub language: Option<String>,
    /// Somebody answers when the code asks for a line ([`RunEvent::Input`]).
    pub input: bool,
    /// Format of the file that is written beside each table that is shown.
    pub table_export: Option<String>,
}

/// A question about a context.
#[derive(Debug, Clone)]
pub struct QuerySpec {
    pub context: String,
    pub query: crownest_init::cell::Query,
    /// What it is about; empty when it is about no code.
    pub code: String,
    /// For its turn, and then again for its answer.
    pub timeout: Duration,
}

/// What came of a question.
#[derive(Debug, Clone)]
pub struct QueryDone {
    /// JSON of hostile code, at most a frame long. None: the driver does not know the question,
    /// or failed over it.
    pub answer: Option<Box<RawValue>>,
    pub outcome: RunOutcome,
}

/// A process to start.
#[derive(Debug, Clone)]
pub struct ExecSpec {
    pub argv: Vec<String>,
    pub cwd: String,
    pub env: BTreeMap<String, String>,
    /// None: only the sandbox's own deadline.
    pub timeout: Option<Duration>,
    pub identity: Identity,
    pub stdin: Stdin,
}

/// What a run says. Everything in it comes from hostile code and is bounded, nothing more.
#[derive(Debug, Clone)]
pub enum RunEvent {
    Stdout(Bytes),
    Stderr(Bytes),
    /// Value of the last expression.
    Result(Bundle),
    Display {
        bundle: Bundle,
        display_id: Option<String>,
        /// Replaces what was shown under `display_id`.
        update: bool,
    },
    Clear {
        wait: bool,
    },
    Error {
        name: String,
        message: String,
        traceback: Vec<String>,
        /// 1-based line of the cell.
        line: Option<u32>,
    },
    /// Something about the run that is not an error.
    Notice {
        /// A word of small letters, digits and underscores.
        code: String,
        message: String,
    },
    /// The code waits for a line: see [`super::Sandbox::answer_input`].
    Input {
        prompt: String,
        password: bool,
    },
    /// What a query asked for; see [`QueryDone`].
    Answer(Box<RawValue>),
    /// Always the last.
    Done(RunDone),
}

/// The end of a run.
#[derive(Debug, Clone)]
pub struct RunDone {
    pub outcome: RunOutcome,
    pub execution_count: u64,
    pub duration: Duration,
    /// What the driver says the cell cost. It is tenant code: never bill by it.
    pub cpu: Option<Duration>,
    /// What init measured; none for an interpreter that has died.
    pub usage: Option<RunUsage>,
    /// Bytes printed between runs by background threads, for which there was no room.
    pub background_dropped: u64,
}

/// How a run ended. After `OutOfMemory`, `ContextDied`, `NeverBegan` and
/// `TimedOut { context_alive: false }` the context is dead: further runs fail with [`super::HostError::ContextDead`].
#[derive(Debug, Clone)]
pub enum RunOutcome {
    /// The driver answered: a value and an error are both results.
    Completed,
    Interrupted,
    TimedOut {
        context_alive: bool,
    },
    /// The kernel killed the interpreter at the sandbox's memory limit.
    OutOfMemory,
    ContextDied {
        /// What is known of the interpreter's death; empty when the whole sandbox went.
        death: Death,
        /// The same in words.
        cause: String,
    },
    /// The context was dead before init got the run: nothing of the cell was done.
    NeverBegan {
        cause: String,
    },
}

/// What a process says.
#[derive(Debug, Clone)]
pub enum ExecEvent {
    Stdout(Bytes),
    Stderr(Bytes),
    /// Always the last.
    Done(ExecDone),
}

/// The end of a process.
#[derive(Debug, Clone)]
pub struct ExecDone {
    pub outcome: ExecEnd,
    pub duration: Duration,
    /// Killed by SIGKILL while the sandbox's count of out-of-memory kills grew.
    pub out_of_memory: bool,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEnd {
    Exited {
        code: i32,
    },
    Signaled {
        signal: i32,
    },
    TimedOut {
        signal: i32,
    },
    /// The sandbox went away under it.
    SandboxGone,
}

impl From<ExecOutcome> for ExecEnd {
    fn from(outcome: ExecOutcome) -> Self {
        match outcome {
            ExecOutcome::Exited { code } => Self::Exited { code },
            ExecOutcome::Signaled { signal } => Self::Signaled { signal },
            ExecOutcome::TimedOut { signal } => Self::TimedOut { signal },
        }
    }
}

/// A process that was found running (or ended and not acknowledged) after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecTarget {
    pub id: u64,
    pub done: bool,
    /// Number of the last event that there is.
    pub seq: u64,
}

/// A run that was found after a restart and that is meant to outlive its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunTarget {
    pub id: u64,
    pub done: bool,
    /// Number of the last event that there is.
    pub seq: u64,
}

/// Why a sandbox is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosedReason {
    /// By `Host::destroy`.
    Destroyed,
    /// Init is gone: its deadline passed, it was killed, or it broke the protocol.
    InitGone,
    /// The server stops; the sandbox lives on and is found again.
    ServerStopped,
}

/// A sandbox that the store believes to live on this node.
#[derive(Debug, Clone)]
pub struct KnownSandbox {
    pub key: SandboxKey,
    pub template: TemplateRef,
    /// The versions that it uses.
    pub runtimes: Runtimes,
    /// Egress rules of its own.
    pub egress: Option<SandboxRules>,
    /// After which init ends it.
    pub time_left: Duration,
}

/// What `Host::recover` found.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    pub alive: Vec<SandboxKey>,
    pub gone: Vec<SandboxKey>,
    pub killed_unknown: usize,
}
