//! Contexts: one interpreter each, one run at a time.

use super::error::{HostError, printable};
use super::types::{CONTEXT_ID_BYTES_MAX, RUNS_QUEUED_MAX};
use crownest_init::link::Death;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Dead contexts of one sandbox that are still told apart from unknown ones.
const DEAD_CONTEXTS_MAX: usize = 256;

/// A context of a sandbox.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) id: String,
    /// One permit: the right to run a cell.
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Its driver is being started.
    Opening,
    Alive,
    Dead(String),
}

impl Context {
    fn new(id: &str, state: State) -> Arc<Self> {
        Arc::new(Self {
            id: id.to_owned(),
            turn: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_alive(&self) -> bool {
        *self.state() == State::Alive
    }

    /// Waits for the turn of a run, behind at most [`RUNS_QUEUED_MAX`] others.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, HostError> {
        if let Ok(permit) = Arc::clone(&self.turn).try_acquire_owned() {
            return self.alive().map(|()| permit);
        }
        self.alive()?;
        let place = Place::take(&self.waiting).ok_or(HostError::ContextBusy)?;
        let permit = Arc::clone(&self.turn).acquire_owned().await;
        drop(place);
        self.alive()?;
        permit.map_err(|_| HostError::ContextUnknown)
    }

    /// As [`Context::turn`], behind however many there are: whoever calls has counted them.
    pub(super) async fn turn_whenever(&self) -> Result<OwnedSemaphorePermit, HostError> {
        self.alive()?;
        let permit = Arc::clone(&self.turn).acquire_owned().await;
        self.alive()?;
        permit.map_err(|_| HostError::ContextUnknown)
    }

    /// The turn of a run that init has already, if nobody else has it.
    pub(super) fn turn_of_running(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turn).try_acquire_owned().ok()
    }

    fn alive(&self) -> Result<(), HostError> {
        match &*self.state() {
            State::Alive => Ok(()),
            State::Opening => Err(HostError::ContextUnknown),
            State::Dead(cause) => Err(HostError::ContextDead {
                cause: cause.clone(),
            }),
        }
    }

    fn die(&self, cause: &str) {
        let mut state = self.state();
        if !matches!(*state, State::Dead(_)) {
            *state = State::Dead(cause.to_owned());
        }
        drop(state);
        self.turn.close();
    }
}

/// A place in the queue, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::AcqRel) < RUNS_QUEUED_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All contexts of one sandbox.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<String, Arc<Context>>,
    dead: VecDeque<String>,
}

/// A context whose driver is being started; taken back when dropped before [`Opening::done`].
#[derive(Debug)]
pub(super) struct Opening<'a> {
    contexts: &'a Contexts,
    context: Option<Arc<Context>>,
}

impl Opening<'_> {
    pub(super) fn done(mut self) {
        if let Some(context) = self.context.take() {
            let mut state = context.state();
            if *state == State::Opening {
                *state = State::Alive;
            }
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(context) = self.context.take() {
            self.contexts.remove(&context.id);
        }
    }
}

impl Contexts {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves an id.
    pub(super) fn open(&self, id: &str) -> Result<Opening<'_>, HostError> {
        check_id(id)?;
        let mut inner = self.inner();
        if let Some(context) = inner.by_id.get(id) {
            return Err(match &*context.state() {
                State::Dead(cause) => HostError::ContextDead {
                    cause: cause.clone(),
                },
                State::Alive | State::Opening => HostError::ContextExists,
            });
        }
        let context = Context::new(id, State::Opening);
        inner.by_id.insert(id.to_owned(), Arc::clone(&context));
        Ok(Opening {
            contexts: self,
            context: Some(context),
        })
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Context>> {
        self.inner().by_id.get(id).cloned()
    }

    /// Forgets a context; who waits for its turn is told that there is none.
    pub(super) fn remove(&self, id: &str) {
        let mut inner = self.inner();
        inner.dead.retain(|dead| dead != id);
        if let Some(context) = inner.by_id.remove(id) {
            context.die("closed");
        }
    }

    /// Marks a context dead; its id stays known as a dead one.
    pub(super) fn die(&self, id: &str, cause: &str) {
        let mut inner = self.inner();
        let Some(context) = inner.by_id.get(id) else {
            return;
        };
        if matches!(*context.state(), State::Dead(_)) {
            return;
        }
        context.die(cause);
        inner.dead.push_back(id.to_owned());
        if inner.dead.len() > DEAD_CONTEXTS_MAX
            && let Some(oldest) = inner.dead.pop_front()
        {
            inner.by_id.remove(&oldest);
        }
    }

    /// Marks all dead: the sandbox is gone.
    pub(super) fn die_all(&self, cause: &str) {
        for context in self.inner().by_id.values() {
            context.die(cause);
        }
    }

    /// Makes the list agree with init's: contexts that init does not have are dead, contexts that
    /// only init has are alive.
    pub(super) fn reconcile(&self, alive: &[String]) {
        let known: Vec<Arc<Context>> = self.inner().by_id.values().cloned().collect();
        for context in known {
            if context.is_alive() && !alive.contains(&context.id) {
                self.die(&context.id, "its interpreter was gone after a reconnect");
            }
        }
        let mut inner = self.inner();
        for id in alive {
            if check_id(id).is_ok() && !inner.by_id.contains_key(id) {
                inner
                    .by_id
                    .insert(id.clone(), Context::new(id, State::Alive));
            }
        }
    }
}

fn check_id(id: &str) -> Result<(), HostError> {
    let letters = id
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if id.is_empty() || id.len() > CONTEXT_ID_BYTES_MAX || !letters {
        return Err(HostError::Invalid("the id of the context".into()));
    }
    Ok(())
}

/// A death in words.
pub(super) fn cause_of(death: &Death) -> String {
    match (&death.reason, death.signal, death.code) {
        (Some(reason), ..) => printable(reason),
        (None, Some(signal), _) => format!("killed by signal {signal}"),
        (None, None, Some(code)) => format!("the interpreter exited with code {code}"),
        (None, None, None) => "the interpreter ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(contexts: &Contexts, id: &str) -> Arc<Context> {
        contexts.open(id).unwrap().done();
        contexts.get(id).unwrap()
    }

    #[tokio::test]
    async fn runs_queue_up_to_the_limit_and_then_are_busy() {
        let contexts = Contexts::default();
        let context = alive(&contexts, "a");
        let first = context.turn().await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..RUNS_QUEUED_MAX {
            let context = Arc::clone(&context);
            waiting.push(Box::pin(async move { context.turn().await }));
        }
        for turn in &mut waiting {
            assert!(futures_util::poll!(turn.as_mut()).is_pending());
        }
        assert!(matches!(context.turn().await, Err(HostError::ContextBusy)));
        drop(first);
        let mut order = Vec::new();
        for (i, turn) in waiting.into_iter().enumerate() {
            drop(turn.await.unwrap());
            order.push(i);
        }
        assert_eq!(order.len(), RUNS_QUEUED_MAX);
    }

    #[tokio::test]
    async fn who_waits_for_a_context_that_dies_is_told_why() {
        let contexts = Contexts::default();
        let context = alive(&contexts, "a");
        let running = context.turn().await.unwrap();
        let mut waiting = Box::pin(context.turn());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        contexts.die("a", "killed by signal 11");
        let Err(HostError::ContextDead { cause }) = waiting.await else {
            panic!()
        };
        assert_eq!(cause, "killed by signal 11");
        drop(running);
        assert!(matches!(
            contexts.open("a"),
            Err(HostError::ContextDead { .. })
        ));
        contexts.remove("a");
        assert!(contexts.open("a").is_ok());
    }

    #[test]
    fn a_failed_open_leaves_no_trace() {
        let contexts = Contexts::default();
        let opening = contexts.open("a").unwrap();
        assert!(matches!(contexts.open("a"), Err(HostError::ContextExists)));
        drop(opening);
        assert!(contexts.open("a").is_ok());
    }

    #[test]
    fn dead_contexts_are_remembered_within_bounds() {
        let contexts = Contexts::default();
        for i in 0..2_000 {
            let id = format!("c{i}");
            alive(&contexts, &id);
            contexts.die(&id, "x");
        }
        assert_eq!(contexts.inner().by_id.len(), DEAD_CONTEXTS_MAX);
        assert!(contexts.get("c1999").is_some());
    }

    #[test]
    fn ids_are_checked() {
        let contexts = Contexts::default();
        for id in ["", "a b", "ä", "../x", &"x".repeat(65)] {
            assert!(
                matches!(contexts.open(id), Err(HostError::Invalid(_))),
                "{id}"
            );
        }
    }
}
