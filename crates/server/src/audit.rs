//! The audit log: who did what, kept longer than what it was done to.
//!
//! Events go through a bounded queue to one task that writes them in batches, so that no request
//! waits for them. When the store cannot keep up, events are dropped and counted, never blocked
//! on. [`AuditLog::flush`] empties the queue at shutdown.

use crate::auth::{Principal, micros};
use crate::metrics::Metrics;
use crate::request::RequestContext;
use crownest_api::{IdKind, Scope, Timestamp, new_id};
use crownest_store::{AuditEvent, Store};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Events waiting to be written.
const QUEUE_EVENTS_MAX: usize = 8_192;
/// Events in one commit.
const BATCH_EVENTS_MAX: usize = 256;

/// Between two tries of a batch that the store could not take.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

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
    /// None once the log is closed.
    queue: Mutex<Option<mpsc::Sender<AuditEvent>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
}

impl AuditLog {
    /// Starts the writer.
    pub(crate) fn start(store: Arc<Store>, metrics: Arc<Metrics>) -> Self {
        let (queue, events) = mpsc::channel(QUEUE_EVENTS_MAX);
        let writer = tokio::spawn(write(Arc::clone(&store), events, Arc::clone(&metrics)));
        Self {
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
            store,
            metrics,
        }
    }

    /// Something that a key did.
    pub fn by_key(
        &self,
        who: &Principal,
        request: &RequestContext,
        deed: Deed<'_>,
        details: &Value,
    ) {
        self.push(key_event(who, request, deed, details));
    }

    /// As [`AuditLog::by_key`], on record when this returns, whatever kills the server then: for
    /// deeds that write a row anyway. A store that cannot take it gets it through the queue.
    pub async fn by_key_now(
        &self,
        who: &Principal,
        request: &RequestContext,
        deed: Deed<'_>,
        details: &Value,
    ) {
        let event = key_event(who, request, deed, details);
        let written = self.store.insert_audit_events(std::slice::from_ref(&event));
        if let Err(error) = written.await {
            tracing::warn!(%error, "writing an audit event failed; it is queued");
            self.push(event);
        }
    }

    /// Something that the server did by itself.
    pub fn by_system(&self, org_id: &str, deed: Deed<'_>, details: &Value) {
        self.push(AuditEvent {
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
        });
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

    fn push(&self, event: AuditEvent) {
        let queue = self.queue.lock().expect("no panic while it is held");
        let sent = queue
            .as_ref()
            .is_some_and(|queue| queue.try_send(event).is_ok());
        if !sent {
            self.metrics.audit_dropped.inc();
        }
    }

    /// Writes what is queued and closes the log.
    pub(crate) async fn flush(&self) {
        self.queue.lock().expect("no panic while it is held").take();
        let writer = self
            .writer
            .lock()
            .expect("no panic while it is held")
            .take();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the audit writer failed");
        }
    }
}

fn key_event(
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
        actor_kind: "api_key".to_owned(),
        actor_id: who.key_id.to_string(),
        action: deed.action.to_owned(),
        resource_kind: deed.resource_kind.to_owned(),
        resource_id: deed.resource_id.to_owned(),
        outcome: deed.outcome.to_owned(),
        request_id: Some(request.id.to_string()),
        details: details.to_string(),
    }
}

async fn write(store: Arc<Store>, mut events: mpsc::Receiver<AuditEvent>, metrics: Arc<Metrics>) {
    let mut batch = Vec::with_capacity(BATCH_EVENTS_MAX);
    while events.recv_many(&mut batch, BATCH_EVENTS_MAX).await > 0 {
        while let Err(error) = store.insert_audit_events(&batch).await {
            // A store that is away is waited for; meanwhile the queue fills. Not at shutdown.
            if error.is_transient() && !events.is_closed() {
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            metrics.audit_dropped.inc_by(batch.len() as u64);
            tracing::error!(%error, events = batch.len(), "writing audit events failed");
            break;
        }
        batch.clear();
    }
}
