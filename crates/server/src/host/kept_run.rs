//! Runs that outlive their server: begun under a number that is on record before, handled event by
//! event, found again by the next server.
//!
//! Does not own what is on record. What a run is while its server lives is in `run.rs`.

use super::context::Context;
use super::error::HostError;
use super::link_task::drain_found;
use super::run::{Cell, run_event};
use super::sandbox::Sandbox;
use super::target::Target;
use super::types::{RunEvent, RunSpec, RunTarget};
use crownest_init::link::{Request, TargetState};
use std::future::poll_fn;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::sync::OwnedSemaphorePermit;

/// A run that was found and that nobody has taken up yet. It has the turn of its context.
#[derive(Debug)]
pub(super) struct FoundRun {
    pub(super) run: RunTarget,
    pub(super) context: Option<Arc<Context>>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl FoundRun {
    pub(super) fn new(sandbox: &Sandbox, state: &TargetState) -> Self {
        let context = state
            .context
            .as_deref()
            .and_then(|id| sandbox.contexts.get(id));
        let running = context.as_ref().filter(|_| !state.done);
        Self {
            run: RunTarget {
                id: state.target,
                done: state.done,
                seq: state.seq,
            },
            permit: running.and_then(|context| context.turn_of_running()),
            context,
        }
    }
}

impl Sandbox {
    /// A number for a run that is going to be begun, to be stored before it is.
    #[must_use]
    pub fn run_number(&self) -> u64 {
        self.next_target()
    }

    /// As [`Sandbox::run`], for a run under a number of [`Sandbox::run_number`] that goes on
    /// when this server ends. It waits for its turn behind however many others: the caller bounds
    /// their number. The number may be used again when this failed.
    ///
    /// # Errors
    /// As [`Sandbox::run`].
    pub async fn run_kept(self: &Arc<Self>, id: u64, spec: RunSpec) -> Result<KeptRun, HostError> {
        let context = self.open_for_run(&spec.context)?;
        let mut cell = Cell::of(spec)?;
        cell.options.keep = true;
        let permit = context.turn_whenever().await?;
        let target = self.begin(id, context, permit, cell)?;
        Ok(KeptRun {
            sandbox: Arc::clone(self),
            target,
        })
    }

    /// Takes up a run of [`Sandbox::recovered_runs`]. `handled_seq` is [`KeptRun::seq`] of the
    /// last event that was stored; 0 for none.
    ///
    /// # Errors
    /// [`HostError::TargetUnknown`] when there is no such run: it was never begun, or its end was
    /// acknowledged. [`HostError::Invalid`] when what comes after `handled_seq` was acknowledged.
    pub async fn attach_run(
        self: &Arc<Self>,
        id: u64,
        handled_seq: u64,
    ) -> Result<KeptRun, HostError> {
        let found = self.claim_found(id).ok_or(HostError::TargetUnknown)?;
        let attach = Request::Attach {
            target: id,
            seq: handled_seq,
        };
        let target = Target::taken_up_run(id, handled_seq, found.context.clone(), found.permit);
        let target = Arc::new(target);
        self.add_target(&target)?;
        if let Err(error) = self.call(attach).await {
            self.remove_target(id);
            // It can still be taken up behind another number, or ended.
            self.found_runs().push(FoundRun {
                run: found.run,
                context: found.context,
                permit: target.take_permit(),
            });
            return Err(error);
        }
        Ok(KeptRun {
            sandbox: Arc::clone(self),
            target,
        })
    }

    /// Runs found after a restart that nobody has taken up.
    #[must_use]
    pub fn recovered_runs(&self) -> Vec<RunTarget> {
        self.found_runs().iter().map(|found| found.run).collect()
    }

    /// Interrupts a run of [`Sandbox::recovered_runs`] that nobody wants, and forgets it.
    pub fn give_up_run(&self, id: u64) {
        if let Some(found) = self.claim_found(id) {
            drain_found(self, &self.link(), found);
        }
    }

    /// Interrupts that run and nothing else; state is kept. Not an error when it is over.
    ///
    /// # Errors
    /// When init cannot be reached.
    pub async fn interrupt_run(&self, id: u64) -> Result<(), HostError> {
        self.call(Request::Interrupt { run: id }).await.map(drop)
    }

    /// What init has that nobody waits for; those that were found before keep their turn.
    pub(super) fn set_recovered_runs(&self, states: Vec<TargetState>) {
        let mut found = self.found_runs();
        let mut before = std::mem::take(&mut *found);
        for state in states {
            let known = before.iter().position(|old| old.run.id == state.target);
            found.push(match known {
                Some(at) => {
                    let mut old = before.swap_remove(at);
                    old.run.seq = state.seq;
                    old.run.done = state.done;
                    old.permit = old.permit.filter(|_| !state.done);
                    old
                }
                None => FoundRun::new(self, &state),
            });
        }
    }

    fn claim_found(&self, id: u64) -> Option<FoundRun> {
        let mut found = self.found_runs();
        let at = found.iter().position(|found| found.run.id == id)?;
        Some(found.swap_remove(at))
    }

    fn found_runs(&self) -> MutexGuard<'_, Vec<FoundRun>> {
        self.recovered_runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that outlives its server. Dropping it only detaches: the code goes on until its output
/// window is full, and the next server finds it.
#[derive(Debug)]
pub struct KeptRun {
    sandbox: Arc<Sandbox>,
    target: Arc<Target>,
}

impl KeptRun {
    /// Its number, unique for the life of the sandbox.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.target.id
    }

    /// Number of the event last returned; store it together with what the event said.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.target.taken_seq()
    }

    /// The next event; calling it says that the one before was handled, which here means stored.
    /// The last one is [`RunEvent::Done`]. `None` after it, and without it only when the server
    /// stops. [`Heard::Nothing`] is an event that means nothing, and has to be handled like others.
    pub async fn next(&mut self) -> Option<Heard> {
        if let Some(seq) = self.target.ack_due() {
            self.ack(seq);
        }
        let item = poll_fn(|cx| self.target.poll_take(cx)).await?;
        Some(Heard::of(run_event(&self.sandbox, item).await))
    }

    /// The next event if it is there already; says nothing of the ones before.
    pub async fn next_waiting(&mut self) -> Option<Heard> {
        let item = self.target.take_waiting()?;
        Some(Heard::of(run_event(&self.sandbox, item).await))
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

impl Drop for KeptRun {
    fn drop(&mut self) {
        let mut targets = self.sandbox.targets();
        // Its number may have been given to a second try already.
        let registered = targets.get(&self.target.id);
        if registered.is_some_and(|found| Arc::ptr_eq(found, &self.target)) {
            targets.remove(&self.target.id);
        }
    }
}

/// One event of a run whose events are all to be accounted for.
#[derive(Debug)]
pub enum Heard {
    Event(RunEvent),
    /// A driver's frame that means nothing.
    Nothing,
}

impl Heard {
    fn of(event: Option<RunEvent>) -> Self {
        event.map_or(Self::Nothing, Self::Event)
    }
}
