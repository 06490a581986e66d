//! Messages between the server and init. One JSON object per frame head; bulk bytes are the
//! frame's body.
//!
//! The server connects to init's socket; the newest connection is the only one that counts, the
//! one before it is closed. On connect init sends [`Event::Hello`] with everything that is
//! running, so a restarted server finds its sandboxes as they are.
//!
//! Every request carries `id` and gets exactly one [`Event::Reply`] with the same `id`, except an
//! [`Request::Ack`] and a quiet [`Request::Run`]. What a run or a process says arrives as events
//! between its start and its end.
//!
//! Flow control, so that nothing is lost and nothing grows: init keeps the events of a run until
//! the server acknowledges them, at most [`WINDOW_BYTES_MAX`] un-acknowledged body bytes per run
//! or process. At the limit init stops reading the pipes, and the program blocks. `seq` counts
//! the events of one run or process from 1. After a reconnect the server sends
//! [`Request::Attach`] with the last `seq` it has handled; init sends the rest again.
//!
//! A run or process whose end was acknowledged is forgotten.

mod answers;

pub use answers::{
    CallError, CallErrorCode, ContextState, Death, ExecOutcome, FileEntry, FileKind, FileStat,
    Reply, ReplyResult, RunOutcome, TargetState,
};

use crate::cell::{RunOptions, RunUsage};
use crate::identity::Identity;
use crate::terminal::{Stdin, TerminalSize};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of this protocol; init and server refuse each other when it differs.
pub const LINK_VERSION: u32 = 6;
/// Un-acknowledged bytes that init keeps for one run or process: bodies, and a fixed cost for each
/// event. Acknowledge long before so many have come, at the latest after half of it.
pub const WINDOW_BYTES_MAX: usize = 1024 * 1024;
/// Longest piece of output in one event.
pub const OUTPUT_CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Contexts alive in one sandbox.
pub const CONTEXTS_MAX: usize = 64;
/// Processes started by `Exec` alive in one sandbox.
pub const EXECS_MAX: usize = 256;
/// Time between the interrupt of a run at its timeout and the kill of its context, and between
/// SIGTERM and SIGKILL of a process.
pub const KILL_GRACE_MS: u64 = 2_000;
/// Longest file that travels in one frame.
pub const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest piece of an upload. Below what init's allocator takes from the kernel anew each time.
pub const UPLOAD_PIECE_BYTES_MAX: usize = 120 * 1024;
/// Uploads that one sandbox takes at the same time.
pub const UPLOADS_MAX: usize = 32;
/// Output of one stream that a context may print while no run is active and that is kept for
/// its next run.
pub const BACKGROUND_BYTES_MAX: usize = 64 * 1024;
/// Runs and processes that init remembers at once: alive, or over and not yet acknowledged.
pub const TARGETS_MAX: usize = 512;
/// Time a driver has to say `ready`.
pub const DRIVER_READY_MS_MAX: u64 = 30_000;
/// Where programs are looked for when nothing else is said, with the place where package managers
/// put the programs of packages that the user installs.
pub const PATH_DEFAULT: &str =
    "/home/user/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Entries in one directory listing; a directory with more is refused with `too_many`.
pub const LIST_ENTRIES_MAX: usize = 10_000;
/// Entries that one `FileRemoveTree` removes or looks at before it answers: some milliseconds, in
/// which init does nothing else.
pub const REMOVE_BATCH_ENTRIES_MAX: usize = 256;
/// Paths in one `PathExpand`.
pub const EXPAND_PATHS_MAX: usize = 1_000;

/// Which of a process's two pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Where a path may lead. Symbolic links are followed inside the sandbox, then the result is
/// checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Within {
    /// `/workspace` and below; anything else is `path_outside_workspace`.
    Workspace,
    /// The whole file system of the sandbox.
    Root,
}

/// A message from the server with its number.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Call {
    /// Chosen by the server, unique on one connection.
    pub id: u64,
    /// File descriptors attached to this frame.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fds: u32,
    #[serde(flatten)]
    pub request: Request,
}

/// What the server asks. The body, where one is meant, is named in the comment.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Sets the time from now after which init ends the sandbox by itself. Replaces the last one.
    Deadline { after_ms: u64 },
    /// Environment of every later exec and context of the sandbox (added under their own).
    Environment { env: BTreeMap<String, String> },
    /// Takes over a driver that was forked from a zygote. Four fds: control socket, stdout read
    /// end, stderr read end, pidfd. The reply comes when the driver has said `ready`.
    /// It stays spare until `ContextOpen` claims it.
    ContextAdopt { language: String },
    /// Gives `context` a driver: a spare one of that language. Error `no_spare` when there is none.
    ContextOpen {
        context: String,
        language: String,
        cwd: String,
        env: BTreeMap<String, String>,
    },
    /// Gives `context` a driver started as a new process (`argv`), no zygote involved. The
    /// control socket is fd 3 and `CROWNEST_KERNEL_FD=3`. Reply when it has said `ready`.
    ContextSpawn {
        context: String,
        language: String,
        argv: Vec<String>,
        cwd: String,
        env: BTreeMap<String, String>,
    },
    /// Starts a driver as a new process for a context to come. Its environment is what every
    /// process of the sandbox gets; that of its context arrives with `ContextOpen`. Reply when it
    /// has said `ready`. It stays spare until `ContextOpen` claims it.
    SpareSpawn { language: String, argv: Vec<String> },
    /// The sandbox is about to be stopped: no timeout of a run, process or driver runs from now on,
    /// and the sandbox's own deadline is not acted upon. Replied at once.
    ClockStop,
    /// Takes that back. It is sent before the sandbox goes on, with a `Deadline` before it.
    ClockStart,
    /// Ends, that much later, every driver that no context has claimed by then.
    SpareDeadline { after_ms: u64 },
    /// Kills the context's driver and everything in its session.
    ContextClose { context: String },
    /// Runs one cell; body = source. Reply at once (or error `context_busy`, `context_dead`,
    /// `context_unknown`); then `Output` and `Kernel` events, then `RunDone`. With `quiet`, only an
    /// error is replied: that the run has begun is seen by what it says.
    Run {
        context: String,
        /// Unique for the life of the sandbox.
        run: u64,
        timeout_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cwd: Option<String>,
        /// For a driver of several languages: that of this cell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<String>,
        #[serde(default, skip_serializing_if = "is_false")]
        quiet: bool,
        #[serde(default, skip_serializing_if = "RunOptions::are_usual")]
        options: RunOptions,
    },
    /// Answers the line that a run waits for; body = the line, nothing with `eof`. Error
    /// `input_not_awaited` when it waits for none.
    Input {
        run: u64,
        #[serde(default, skip_serializing_if = "is_false")]
        eof: bool,
    },
    /// Interrupts that run, nothing else. Not an error when it is over.
    Interrupt { run: u64 },
    /// Starts a process. Reply `pid`; then `Output` events, then `ExecDone`.
    Exec {
        /// Unique for the life of the sandbox, numbered together with runs.
        exec: u64,
        argv: Vec<String>,
        cwd: String,
        env: BTreeMap<String, String>,
        /// None: no limit but the sandbox's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Identity::is_default")]
        identity: Identity,
        #[serde(default, skip_serializing_if = "Stdin::is_null")]
        stdin: Stdin,
    },
    /// Writes to the stdin of an exec; body = bytes (≤ [`crate::terminal::EXEC_INPUT_BYTES_MAX`]).
    /// `eof` closes a pipe behind them. The reply comes when all of it has been written, which is
    /// when the program makes room. Errors: `input_not_awaited` when it has no stdin or ended,
    /// `too_many` when too much waits already.
    ExecInput {
        exec: u64,
        #[serde(default, skip_serializing_if = "is_false")]
        eof: bool,
    },
    /// Changes the size of an exec's terminal. Not an error when it is over.
    ExecResize { exec: u64, size: TerminalSize },
    /// Sends a signal to the process group of an exec; with `foreground` to that which has its
    /// terminal, as a key would. With `escalate`, SIGKILL to all of its session follows after
    /// [`KILL_GRACE_MS`].
    Signal {
        exec: u64,
        signal: i32,
        escalate: bool,
        #[serde(default, skip_serializing_if = "is_false")]
        foreground: bool,
    },
    /// Everything of `target` up to `seq` has been handled. No reply.
    Ack { target: u64, seq: u64 },
    /// Send again what came after `seq`; acknowledges up to there. Error `unknown_target` when it
    /// was forgotten, `invalid` when events after `seq` were already acknowledged.
    Attach { target: u64, seq: u64 },
    /// Reply: `paths`, in their order, with `~` and `$NAME` of the sandbox's environment replaced.
    /// A name that is not set is nothing, as in a shell.
    PathExpand { paths: Vec<String> },
    /// Reply: `stat`; with `link` that of a link itself.
    FileStat {
        path: String,
        within: Within,
        #[serde(default, skip_serializing_if = "is_false")]
        link: bool,
    },
    /// Reply: `entries`, sorted by name. With `link`, a link to a directory is not a directory.
    FileList {
        path: String,
        within: Within,
        #[serde(default, skip_serializing_if = "is_false")]
        link: bool,
    },
    /// Reply body = content from `offset`, at most `length` bytes (≤ FILE_BYTES_MAX); `stat` too.
    FileRead {
        path: String,
        within: Within,
        offset: u64,
        length: u64,
    },
    /// Body = whole content (≤ FILE_BYTES_MAX). Atomic: written beside it, then renamed. An
    /// existing file keeps its mode. Reply: `stat`.
    FileWrite {
        path: String,
        within: Within,
        overwrite: bool,
        parents: bool,
        mode: u32,
    },
    /// Reply with one fd: the regular file, open for reading; and its `stat`. It stays that file,
    /// whatever is renamed meanwhile. For files of any size, which then cost init nothing.
    FileOpen { path: String, within: Within },
    /// Begins a file of any size, in pieces: refuses what `FileWrite` would refuse, then opens a
    /// file beside the target. An upload belongs to its connection: when that ends, so does it,
    /// and nothing is left of it.
    UploadBegin {
        /// Unique on this connection.
        upload: u64,
        path: String,
        within: Within,
        overwrite: bool,
        parents: bool,
        mode: u32,
        /// Also the mode of a file that is replaced, which keeps its own otherwise.
        #[serde(default, skip_serializing_if = "is_false")]
        mode_always: bool,
    },
    /// Body = the next piece (≤ [`UPLOAD_PIECE_BYTES_MAX`]). `offset` is what has come before: a
    /// piece out of order is `invalid`.
    UploadPiece { upload: u64, offset: u64 },
    /// Gives it its name. Reply: `stat`.
    UploadCommit { upload: u64 },
    /// Takes it back. Not an error when it is not there.
    UploadAbort { upload: u64 },
    /// Reply: `stat`.
    FileMkdir {
        path: String,
        within: Within,
        parents: bool,
    },
    FileMove {
        from: String,
        to: String,
        within: Within,
        overwrite: bool,
        /// Make missing directories above `to`.
        #[serde(default, skip_serializing_if = "is_false")]
        parents: bool,
    },
    /// A file or an empty directory.
    FileRemove { path: String, within: Within },
    /// A directory and what is in it: at most [`REMOVE_BATCH_ENTRIES_MAX`] entries. Links are
    /// removed, never followed. Reply: `more` when something is left; ask again.
    FileRemoveTree { path: String, within: Within },
    /// Changes mode and owner of what a path leads to, as far as the tenant's user may. Reply:
    /// `stat`.
    FileChange {
        path: String,
        within: Within,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gid: Option<u32>,
    },
    /// Makes entries below `/workspace` in their order; body = their bytes, one after the other.
    /// At most [`crate::unpack::ENTRIES_MAX`] entries and [`FILE_BYTES_MAX`] bytes. Not undone
    /// when one fails: the error names it.
    FileUnpack { entries: Vec<crate::unpack::Entry> },
    /// Reply with one fd: a non-blocking TCP connection to that port on the sandbox's loopback.
    Dial { port: u16 },
}

/// What init says.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Event {
    /// File descriptors attached to this frame.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fds: u32,
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Kinds of [`Event`].
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "ev", rename_all = "snake_case")]
pub enum EventKind {
    /// First on every connection. One fd when the sandbox has an egress listener (network mode
    /// `proxy`): the listening TCP socket at 127.0.0.1:3128 in the sandbox's network namespace.
    Hello {
        version: u32,
        /// Contexts that have a driver, by their id.
        contexts: Vec<ContextState>,
        /// Spare drivers by language.
        spares: Vec<String>,
        /// Runs and processes whose end has not been acknowledged.
        targets: Vec<TargetState>,
        /// Milliseconds until the sandbox ends itself; absent when no deadline was set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
        /// Whether it waits for a `ClockStart`.
        #[serde(default, skip_serializing_if = "is_false")]
        clock_stopped: bool,
    },
    /// Answer to the call with that id. Body when the request says so.
    Reply {
        id: u64,
        #[serde(flatten)]
        result: ReplyResult,
    },
    /// Body = bytes of one stream, in order, never split inside a UTF-8 character unless the
    /// program itself wrote a broken one.
    Output {
        target: u64,
        seq: u64,
        stream: Stream,
    },
    /// Body = one JSON event of the driver: `result`, `display`, `clear`, `error`, `notice` or
    /// `input`, of a query `answer`; with the number of its run checked by init.
    Kernel { target: u64, seq: u64 },
    /// The run is over and every byte it wrote has been sent.
    RunDone {
        target: u64,
        seq: u64,
        outcome: RunOutcome,
        execution_count: u64,
        duration_us: u64,
        /// Bytes that background threads or children printed between the last run and this one
        /// and that init had no room for ([`BACKGROUND_BYTES_MAX`] per stream are kept and come
        /// as the first `Output` of this run).
        #[serde(default, skip_serializing_if = "is_zero_u64")]
        background_dropped: u64,
        /// What the driver says the cell cost. It is tenant code: never bill by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu_us: Option<u64>,
        /// What init itself measured; absent for a query and for a driver that has died.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<RunUsage>,
    },
    /// The process is over and every byte it wrote has been sent.
    ExecDone {
        target: u64,
        seq: u64,
        outcome: ExecOutcome,
        duration_us: u64,
    },
    /// The context's driver is gone, outside of any run.
    ContextDied { context: String, death: Death },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shapes on the wire: a change here is a change of protocol and needs a new LINK_VERSION.
    #[test]
    fn wire_shapes() {
        let call = Call {
            id: 7,
            fds: 0,
            request: Request::Interrupt { run: 3 },
        };
        assert_eq!(
            serde_json::to_string(&call).unwrap(),
            r#"{"id":7,"op":"interrupt","run":3}"#
        );
        let event = Event {
            fds: 0,
            kind: EventKind::Reply {
                id: 7,
                result: ReplyResult::Ok(Reply::default()),
            },
        };
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"ev":"reply","id":7,"ok":{}}"#
        );
        let done = EventKind::RunDone {
            target: 3,
            seq: 2,
            outcome: RunOutcome::TimedOut {
                context_alive: true,
            },
            execution_count: 1,
            duration_us: 5,
            background_dropped: 0,
            cpu_us: None,
            usage: None,
        };
        let text = serde_json::to_string(&Event {
            fds: 0,
            kind: done.clone(),
        })
        .unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap().kind, done);
    }
}
