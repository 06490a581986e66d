//! The audit log: who did what to which resource, and how it ended. Rows are only ever added;
//! they outlive what they describe and point to it by id alone.

use crate::column::row;
use crate::db::{in_transaction, on_reader, on_writer};
use crate::page::Listed;
use crate::usage_events::{self, UsageEvent, bind_usage};
use crate::{Cursor, Micros, Page, PageRequest, Store, StoreError};
use serde::{Deserialize, Serialize};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    pub id: String,
    pub org_id: String,
    pub project_id: Option<String>,
    pub at: Micros,
    /// `api_key`, `human`, `agent_credential` or `system`; the store does not interpret it.
    pub actor_kind: String,
    pub actor_id: String,
    pub action: String,
    pub resource_kind: String,
    pub resource_id: String,
    pub outcome: String,
    pub request_id: Option<String>,
    /// JSON.
    pub details: String,
}

row!(AuditEvent {
    id,
    org_id,
    project_id,
    at,
    actor_kind,
    actor_id,
    action,
    resource_kind,
    resource_id,
    outcome,
    request_id,
    details,
});

impl Listed for AuditEvent {
    fn position(&self) -> Cursor {
        Cursor::new(self.at, &self.id)
    }
}

/// Which entries of an organization to list; `None` is all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditFilter<'a> {
    pub project_id: Option<&'a str>,
    pub actor_id: Option<&'a str>,
    pub action: Option<&'a str>,
    pub resource_kind: Option<&'a str>,
    pub resource_id: Option<&'a str>,
    /// Not older than this.
    pub from: Option<Micros>,
    /// Older than this.
    pub to: Option<Micros>,
}

/// Binds the values of [`INSERT`].
macro_rules! bind_audit {
    ($query:expr, $event:expr) => {
        $query
            .bind(&$event.id)
            .bind(&$event.org_id)
            .bind(&$event.project_id)
            .bind($event.at)
            .bind(&$event.actor_kind)
            .bind(&$event.actor_id)
            .bind(&$event.action)
            .bind(&$event.resource_kind)
            .bind(&$event.resource_id)
            .bind(&$event.outcome)
            .bind(&$event.request_id)
            .bind(&$event.details)
    };
}
pub(crate) use bind_audit;

/// Usage of a few events, one row for each resource and metric.
#[derive(Default)]
struct Counted {
    rows: Vec<UsageEvent>,
}

impl Counted {
    fn add(&mut self, event: &AuditEvent, metric: &str) {
        let of_same = |row: &&mut UsageEvent| {
            row.metric == metric
                && row.org_id == event.org_id
                && row.resource_id.as_deref() == Some(&event.resource_id)
        };
        if let Some(row) = self.rows.iter_mut().find(of_same) {
            row.amount += 1;
            return;
        }
        self.rows.push(UsageEvent {
            // Unique as the event's own is.
            id: event.id.clone(),
            org_id: event.org_id.clone(),
            project_id: event.project_id.clone(),
            resource_id: Some(event.resource_id.clone()),
            metric: metric.to_owned(),
            amount: 1,
            created_at: event.at,
        });
    }
}

macro_rules! insert {
    ($sql:expr, $event:expr, $db:expr) => {
        bind_audit!(sqlx::query($sql), $event)
            .execute($db)
            .await
            .map(|_| ())
    };
}

macro_rules! insert_sql {
    ($end:literal) => {
        concat!(
            "INSERT INTO audit_events (id, org_id, project_id, at, actor_kind, actor_id, action, ",
            "resource_kind, resource_id, outcome, request_id, details) ",
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            $end
        )
    };
}
pub(crate) const INSERT: &str = insert_sql!("");
const INSERT_IF_NEW: &str = insert_sql!(" ON CONFLICT (id) DO NOTHING");

macro_rules! list {
    ($resource:literal) => {
        concat!(
            "SELECT * FROM audit_events WHERE org_id = $1 AND (at, id) < ($2, $3) ",
            "AND ",
            $resource,
            " AND ($6 IS NULL OR resource_kind = $6) AND ($7 IS NULL OR project_id = $7) ",
            "AND ($8 IS NULL OR actor_id = $8) AND ($9 IS NULL OR action = $9) ",
            "ORDER BY at DESC, id DESC LIMIT $10"
        )
    };
}
pub(crate) const LIST: &str = list!("at >= $4 AND $5 IS NULL");
/// Its own statement, so that the history of one resource is found through its index. The plus
/// sign takes the start of the period out of SQLite's choice, which otherwise falls on the index
/// of the whole log.
pub(crate) const LIST_OF_RESOURCE: &str = list!("+at >= $4 AND resource_id = $5");

impl Store {
    /// Adds entries in one commit, all or none.
    pub async fn insert_audit_events(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        if let [event] = events {
            return on_writer!(self, "audit event", db => insert!(INSERT, event, db));
        }
        in_transaction!(self, "audit events", db => {
            for event in events {
                insert!(INSERT, event, &mut *db)?;
            }
            Ok(())
        })
    }

    /// Adds those entries that are not there yet, in one commit: for events that are tried again
    /// without knowing how the first try ended. An action that `metered` pairs with a metric is
    /// counted as usage in the same commit, so that what is paid for is what is on record.
    pub async fn insert_new_audit_events(
        &self,
        events: &[AuditEvent],
        metered: &[(&str, &str)],
    ) -> Result<(), StoreError> {
        in_transaction!(self, "audit events", db => {
            let mut counted = Counted::default();
            for event in events {
                let added = bind_audit!(sqlx::query(INSERT_IF_NEW), event)
                    .execute(&mut *db)
                    .await?
                    .rows_affected();
                if let (1, Some((_, metric))) =
                    (added, metered.iter().find(|(action, _)| *action == event.action))
                {
                    counted.add(event, metric);
                }
            }
            for usage in counted.rows {
                bind_usage!(sqlx::query(usage_events::INSERT), usage)
                    .execute(&mut *db)
                    .await?;
            }
            Ok(())
        })
    }

    /// Entries of the organization that pass the filter, newest first.
    pub async fn audit_events(
        &self,
        org_id: &str,
        filter: &AuditFilter<'_>,
        page: &PageRequest,
    ) -> Result<Page<AuditEvent>, StoreError> {
        let (at, id) = page.below_and_before(filter.to.unwrap_or(Micros::MAX));
        let sql = if filter.resource_id.is_some() {
            LIST_OF_RESOURCE
        } else {
            LIST
        };
        let rows = on_reader!(self, "audit events", db => sqlx::query_as(sql)
            .bind(org_id)
            .bind(at)
            .bind(id)
            .bind(filter.from.unwrap_or(Micros::MIN))
            .bind(filter.resource_id)
            .bind(filter.resource_kind)
            .bind(filter.project_id)
            .bind(filter.actor_id)
            .bind(filter.action)
            .bind(page.limit.probe())
            .fetch_all(db)
            .await)?;
        Ok(Page::from_probe(rows, page.limit))
    }
}
