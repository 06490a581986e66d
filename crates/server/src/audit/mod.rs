//! The audit log: who did what, kept longer than what it was done to.
//!
//! Events are gathered and written by one task in batches, so that no request waits for the store
//! and busy moments cost one commit instead of hundreds. Until the store has them they are in a
//! journal (see [`journal`]), so that a `kill -9` costs none. When the store cannot keep up, events
//! are dropped and counted, never blocked on. [`AuditLog::flush`] empties the queue at shutdown.

mod journal;

use crate::auth::{Actor, Principal, micros};
use crate::metrics::Metrics;
use crate::request::RequestContext;
use crownest_api::{IdKind, Scope, Timestamp, new_id};
use crownest_store::{AuditEvent, Store, StoreError};
use journal::{Journal, Side};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Events waiting to be written.
const QUEUE_EVENTS_MAX: usize = 8_192;
/// Events in one commit.
const BATCH_EVENTS_MAX: usize = 256;
/// How long the first event of a batch waits for others. A commit costs more processor time than
/// the run that it tells of.
const GATHER: Duration = Duration::from_millis(10);
/// Between two tries of a batch that the store could not take.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Actions that count as usage, and the metric of each.
const METERED: [(&str, &str); 5] = [
    ("code.run", "code_run_invocations"),
    ("code.start", "code_run_invocations"),
    ("command.run", "command_invocations"),
    ("command.start", "command_invocations"),
    ("terminal.start", "command_invocations"),
];

/// What was done, and to what.
#[derive(Debug, Clone, Copy)]
pub struct Deed<'a> {
    /// `sandbox.create`, `code.run`, …
    pub action: &'static str,
    pub resource_kind: &'static str,
    pub resource_id: &'a str,
    pub project_id: Option<&'a str>,
    pub outcome: &'static str,
}

/// See the module.
#[derive(Debug)]
pub struct AuditLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wanted: Notify,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
}

/// What the store has not got.
#[derive(Debug)]
struct Queue {
    /// Exactly the events on the journal's current side.
    pending: Vec<AuditEvent>,
    journal: Option<Journal>,
    closed: bool,
}

impl AuditLog {
    /// Starts the writer, with a journal in `dir` if there is one.
    pub(crate) fn start(store: Arc<Store>, metrics: Arc<Metrics>, dir: Option<&Path>) -> Self {
        let journal = dir.and_then(|dir| match Journal::open(dir) {
            Ok(journal) => Some(journal),
            Err(error) => {
                tracing::error!(%error, dir = %dir.display(), "no audit journal: a crash costs the last events");
                None
            }
        });
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                pending: Vec::new(),
                journal,
                closed: false,
            }),
            wanted: Notify::new(),
            store,
            metrics,
        });
        let writer = tokio::spawn(write(Arc::clone(&shared)));
        Self {
            shared,
            writer: Mutex::new(Some(writer)),
        }
    }

    /// Writes what servers before this one left in their journals in `dir`.
    ///
    /// # Errors
    /// When the store cannot take it; the journals stay.
    pub(crate) async fn restore(&self, dir: &Path) -> Result<(), StoreError> {
        // Before the loop: the lock must not be held while the store is waited for.
        let found = journal::left(dir, self.shared.lock().journal.as_ref());
        for left in found {
            let (events, torn) = left.read();
            if torn > 0 {
                tracing::error!(torn, "lines of an audit journal cannot be read");
            }
            for batch in events.chunks(BATCH_EVENTS_MAX) {
                self.shared
                    .store
                    .insert_new_audit_events(batch, &METERED)
                    .await?;
            }
            if !events.is_empty() {
                tracing::info!(
                    events = events.len(),
                    "audit events of a killed server restored"
                );
            }
            left.remove();
        }
        Ok(())
    }

    /// Something that a key did.
    pub fn by_key(
        &self,
        who: &Principal,
        request: &RequestContext,
        deed: Deed<'_>,
        details: &Value,
    ) {
        self.push(Self::event_by_key(who, request, deed, details));
    }

    /// What a key did, to be written together with what it changed.
    pub(crate) fn event_by_key(
        who: &Principal,
        request: &RequestContext,
        deed: Deed<'_>,
        details: &Value,
    ) -> AuditEvent {
        AuditEvent {
            id: new_id(IdKind::AuditEvent),
            org_id: who.org_id.clone(),
            project_id: deed.project_id.map(str::to_owned),
            at: micros(Timestamp::now()),
            actor_kind: who.actor.as_str().to_owned(),
            actor_id: who.key_id.to_string(),
            action: deed.action.to_owned(),
            resource_kind: deed.resource_kind.to_owned(),
            resource_id: deed.resource_id.to_owned(),
            outcome: deed.outcome.to_owned(),
            request_id: Some(request.id.to_string()),
            details: details.to_string(),
        }
    }

    /// Something that the server did by itself.
    pub(crate) fn by_system(&self, org_id: &str, deed: Deed<'_>, details: &Value) {
        self.push(Self::event_by_system(org_id, deed, details));
    }

    /// Something that an agent did before, or beside, a request with its token.
    pub(crate) fn by_agent(
        &self,
        org_id: &str,
        credential_id: &str,
        deed: Deed<'_>,
        details: &Value,
    ) {
        self.push(AuditEvent {
            actor_kind: Actor::AgentCredential.as_str().to_owned(),
            actor_id: credential_id.to_owned(),
            ..Self::event_by_system(org_id, deed, details)
        });
    }

    /// What the server did by itself, to be written together with what it changed.
    pub(crate) fn event_by_system(org_id: &str, deed: Deed<'_>, details: &Value) -> AuditEvent {
        AuditEvent {
            id: new_id(IdKind::AuditEvent),
            org_id: org_id.to_owned(),
            project_id: deed.project_id.map(str::to_owned),
            at: micros(Timestamp::now()),
            actor_kind: "system".to_owned(),
            actor_id: "system".to_owned(),
            action: deed.action.to_owned(),
            resource_kind: deed.resource_kind.to_owned(),
            resource_id: deed.resource_id.to_owned(),
            outcome: deed.outcome.to_owned(),
            request_id: None,
            details: details.to_string(),
        }
    }

    /// A key was refused for want of a scope.
    pub(crate) fn refusal(&self, who: &Principal, request: &RequestContext, scope: Scope) {
        let deed = Deed {
            action: "request.refuse",
            resource_kind: "route",
            resource_id: &request.route,
            project_id: None,
            outcome: "forbidden",
        };
        self.by_key(who, request, deed, &json!({ "scope": scope.as_str() }));
    }

    /// An event that was made before.
    pub(crate) fn push(&self, event: AuditEvent) {
        let mut queue = self.shared.lock();
        if queue.closed || queue.pending.len() >= QUEUE_EVENTS_MAX {
            drop(queue);
            self.shared.metrics.audit_dropped.inc();
            return;
        }
        if let Some(journal) = &mut queue.journal {
            // On the path of requests: one write(2) into the page cache, some 5 us.
            journal.append(&event);
        }
        queue.pending.push(event);
        drop(queue);
        self.shared.wanted.notify_one();
    }

    /// Writes what is queued and closes the log. What the store does not take stays in the
    /// journal for the next start.
    pub(crate) async fn flush(&self) {
        self.shared.lock().closed = true;
        self.shared.wanted.notify_one();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the audit writer failed");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that waits, and the side of the journal that it is on.
    fn take(&self) -> (Vec<AuditEvent>, Option<Side>) {
        let mut queue = self.lock();
        let events = std::mem::take(&mut queue.pending);
        // An empty side has nothing to be turned away from.
        let journal = queue.journal.as_mut().filter(|_| !events.is_empty());
        let side = journal.map(Journal::swap);
        (events, side)
    }

    /// Hands one batch to the store. False when it must be kept for the next start.
    async fn write(&self, batch: &[AuditEvent]) -> bool {
        loop {
            let Err(error) = self.store.insert_new_audit_events(batch, &METERED).await else {
                return true;
            };
            let closed = self.lock().closed;
            tracing::error!(%error, events = batch.len(), "writing audit events failed");
            match (error.is_transient(), closed) {
                // A store that is away is waited for; meanwhile the queue fills.
                (true, false) => tokio::time::sleep(RETRY_PAUSE).await,
                (true, true) => return false,
                (false, _) => {
                    self.metrics.audit_dropped.inc_by(batch.len() as u64);
                    return true;
                }
            }
        }
    }
}

async fn write(shared: Arc<Shared>) {
    loop {
        shared.wanted.notified().await;
        if !shared.lock().closed {
            tokio::time::sleep(GATHER).await;
        }
        let closed = shared.lock().closed;
        let (events, side) = shared.take();
        let mut kept = false;
        for batch in events.chunks(BATCH_EVENTS_MAX) {
            kept |= !shared.write(batch).await;
        }
        let mut queue = shared.lock();
        if let Some(journal) = &mut queue.journal {
            if let Some(side) = side
                && !kept
            {
                journal.clear(side);
            }
            if closed && !kept {
                journal.remove();
            }
        }
        if closed {
            return;
        }
    }
}
