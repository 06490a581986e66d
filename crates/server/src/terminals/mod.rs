//! Terminals: shells that somebody types into.
//!
//! A terminal is a command (row, log, the task that drives it) that was started with a stdin: so it
//! is metered, recorded and found again by the next server as every command is, and what it
//! printed can be read again from its log. Owns what is more: that it is planned before it is
//! begun, that one client at a time has it ([`seat`]), and reading its output by the number of the
//! byte ([`output`]). Does not own how a client speaks with it: that is each dialect's.

mod output;
mod seat;

pub(crate) use output::{Output, Printed, Said};
pub(crate) use seat::{Places, Seat};

use crate::app::App;
use crate::audit::Deed;
use crate::auth::Principal;
use crate::commands::{CheckedCommand, ForeignCommand, Found, PTY};
use crate::error::{ApiError, ApiResult};
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use crownest_api::command::CancelMode;
use crownest_api::{ErrorCode, IdKind, new_id};
use crownest_init::identity::Identity;
use crownest_init::terminal::{Stdin, TerminalSize};
use crownest_store as store;
use seat::Seats;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

/// Terminals of one sandbox that are planned or running.
pub(crate) const TERMINALS_MAX: usize = 16;

/// Through what somebody types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A terminal of that size.
    Pty(TerminalSize),
    /// Pipes: stdout and stderr are apart, nothing is echoed.
    Pipe,
}

/// What is started when the first client is there.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// None: a shell that waits for commands.
    pub command: Option<String>,
    pub cwd: String,
    pub env: BTreeMap<String, String>,
}

/// A terminal that is planned or was begun.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Also the id of its command.
    pub id: String,
    pub sandbox_id: String,
    seats: Seats,
    /// None: it was begun, or deleted.
    plan: tokio::sync::Mutex<Option<Plan>>,
}

impl Terminal {
    fn new(id: String, sandbox_id: &str, plan: Option<Plan>) -> Arc<Self> {
        Arc::new(Self {
            id,
            sandbox_id: sandbox_id.to_owned(),
            seats: Seats::default(),
            plan: tokio::sync::Mutex::new(plan),
        })
    }

    /// The place of the one client, if nobody has it.
    pub(crate) fn try_sit(&self) -> Option<Seat> {
        self.seats.try_sit()
    }

    /// The place of the one client, whoever has it. None when that one does not give way.
    pub(crate) async fn take_over(&self) -> Option<Seat> {
        self.seats.take_over().await
    }
}

/// The terminals that this server has seen, by id.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    by_id: Mutex<HashMap<String, Arc<Terminal>>>,
}

impl Registry {
    fn by_id(&self) -> MutexGuard<'_, HashMap<String, Arc<Terminal>>> {
        self.by_id.lock().expect("no panic while it is held")
    }

    fn get(&self, id: &str) -> Option<Arc<Terminal>> {
        self.by_id().get(id).cloned()
    }

    /// Its sandbox has ended.
    pub(crate) fn forget_sandbox(&self, sandbox_id: &str) {
        self.by_id()
            .retain(|_, terminal| terminal.sandbox_id != sandbox_id);
    }
}

/// How a terminal is, for clients.
#[derive(Debug)]
pub(crate) enum State {
    /// Nobody has been there yet.
    Planned,
    Begun(Found),
}

impl App {
    /// Plans a terminal. Its shell begins with its first client, who says what kind it is.
    pub(crate) fn plan_terminal(
        &self,
        who: &Principal,
        request: &RequestContext,
        live: &LiveSandbox,
        plan: Plan,
    ) -> ApiResult<Arc<Terminal>> {
        // Checked now: the one who asks is here to be told.
        checked(String::new(), &plan, Kind::Pipe)?;
        let terminal = Terminal::new(new_id(IdKind::Command), &live.id, Some(plan));
        {
            let mut all = self.terminals.by_id();
            // Of what has ended nothing is kept here, nor a plan for a sandbox that has.
            all.retain(|id, known| {
                let there = || self.sandboxes.get(&known.sandbox_id).is_some();
                (known.is_of_use() && there()) || self.commands.get(id).is_some()
            });
            let of_sandbox = |known: &&Arc<Terminal>| known.sandbox_id == live.id;
            let planned = all.values().filter(of_sandbox);
            let planned = planned.filter(|known| self.commands.get(&known.id).is_none());
            let commands = self.commands.of_sandbox(&live.id);
            let running = commands.iter().filter(|c| c.row().terminal.is_some());
            if planned.count() + running.count() >= TERMINALS_MAX {
                return Err(ApiError::new(
                    ErrorCode::QuotaExceeded,
                    format!("the sandbox has {TERMINALS_MAX} terminals, which is the limit"),
                )
                .with_details(json!({ "limit": TERMINALS_MAX })));
            }
            all.insert(terminal.id.clone(), Arc::clone(&terminal));
        }
        self.note_terminal(who, request, live, "terminal.create", &terminal.id);
        Ok(terminal)
    }

    /// The terminal of that id in that sandbox, which the caller may see.
    pub(crate) async fn find_terminal(
        &self,
        who: &Principal,
        live: &LiveSandbox,
        id: &str,
    ) -> ApiResult<Arc<Terminal>> {
        let unknown = || ApiError::not_found("terminal");
        if let Some(known) = self.terminals.get(id) {
            return Some(known)
                .filter(|known| known.sandbox_id == live.id)
                .ok_or_else(unknown);
        }
        // Begun by a server before this one, or ended.
        let found = match self.find_command(who, id).await {
            Err(error) if error.code == ErrorCode::NotFound => return Err(unknown()),
            other => other?,
        };
        let row = found.row();
        let deleted = row.status.is_terminal() && row.cancel_mode.is_some();
        if row.sandbox_id != live.id || row.terminal.is_none() || deleted {
            return Err(unknown());
        }
        let terminal = Terminal::new(row.id, &live.id, None);
        if row.status.is_terminal() {
            return Ok(terminal);
        }
        let mut all = self.terminals.by_id();
        let known = all.entry(terminal.id.clone()).or_insert(terminal);
        Ok(Arc::clone(known))
    }

    /// How it is.
    pub(crate) async fn terminal_state(
        &self,
        who: &Principal,
        terminal: &Terminal,
    ) -> ApiResult<State> {
        if terminal.plan.lock().await.is_some() {
            return Ok(State::Planned);
        }
        match self.find_command(who, &terminal.id).await {
            Ok(Found::Stored(row)) if !row.status.is_terminal() => Err(ApiError::new(
                ErrorCode::Unavailable,
                "the terminal is not reachable from this server, or not yet",
            )),
            Ok(found) => Ok(State::Begun(found)),
            // It was deleted, or its start left nothing behind.
            Err(error) if error.code == ErrorCode::NotFound => Err(ApiError::not_found("terminal")),
            Err(error) => Err(error),
        }
    }

    /// The command of a terminal, which is begun now if it was not before.
    pub(crate) async fn begin_terminal(
        &self,
        who: &Principal,
        request: &RequestContext,
        live: &Arc<LiveSandbox>,
        (terminal, kind): (&Terminal, Kind),
    ) -> ApiResult<Found> {
        let mut plan = terminal.plan.lock().await;
        if let Some(plan) = plan.take() {
            let checked = checked(terminal.id.clone(), &plan, kind)?;
            let command = self.start_typed(who, request, live, checked).await?;
            return Ok(Found::Live(command));
        }
        drop(plan);
        match self.terminal_state(who, terminal).await? {
            State::Begun(found) => Ok(found),
            State::Planned => Err(ApiError::internal("a terminal was planned twice")),
        }
    }

    /// Ends everything in the session of a terminal and takes its place from whoever has it.
    pub(crate) async fn delete_terminal(
        &self,
        who: &Principal,
        request: &RequestContext,
        live: &LiveSandbox,
        terminal: &Terminal,
    ) -> ApiResult<()> {
        let planned = terminal.plan.lock().await.take().is_some();
        if !planned {
            self.cancel_command(who, request, &terminal.id, CancelMode::Force)
                .await?;
        }
        self.terminals.by_id().remove(&terminal.id);
        self.note_terminal(who, request, live, "terminal.delete", &terminal.id);
        Ok(())
    }

    /// Puts on record what was done with a terminal.
    pub(crate) fn note_terminal(
        &self,
        who: &Principal,
        request: &RequestContext,
        live: &LiveSandbox,
        action: &'static str,
        id: &str,
    ) {
        let deed = Deed {
            action,
            resource_kind: "command",
            resource_id: id,
            project_id: Some(&live.project_id),
            outcome: "ok",
        };
        let details = json!({ "sandboxId": live.id });
        self.audit.by_key(who, request, deed, &details);
    }
}

impl Terminal {
    /// Somebody has it, or will: it is not to be forgotten.
    fn is_of_use(&self) -> bool {
        let planned = self.plan.try_lock().map_or(true, |plan| plan.is_some());
        planned || self.seats.is_taken()
    }
}

/// What is started, in the words of commands.
fn checked(id: String, plan: &Plan, kind: Kind) -> ApiResult<CheckedCommand> {
    let waits = plan.command.is_none();
    let shell = match kind {
        Kind::Pty(_) => "bash -il",
        Kind::Pipe => "bash -l",
    };
    let command = ForeignCommand {
        id,
        shown: plan.command.clone().unwrap_or_else(|| shell.to_owned()),
        argv: None,
        cwd: plan.cwd.clone(),
        env: plan.env.clone(),
        timeout_ms: None,
        identity: Identity::default(),
    };
    let stdin = match kind {
        Kind::Pty(size) => Stdin::Terminal(size),
        Kind::Pipe => Stdin::Pipe,
    };
    Ok(CheckedCommand::foreign(command)?.typed_into(stdin, waits))
}

/// Whether the terminal of a command is one, rather than pipes.
pub(crate) fn is_pty(row: &store::Command) -> bool {
    row.terminal.as_deref() == Some(PTY)
}

/// How many bytes it has printed, kept or not.
pub(crate) fn printed(found: &Found) -> u64 {
    match found {
        Found::Live(command) => command.log.index().totals().printed(),
        Found::Stored(row) => {
            let count = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
            count(row.stdout_bytes).saturating_add(count(row.stderr_bytes))
        }
    }
}
