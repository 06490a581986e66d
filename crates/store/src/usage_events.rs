//! Usage: what was consumed, one append-only row per event.

use crate::column::row;
use crate::db::{in_transaction, on_reader, on_writer};
use crate::page::Listed;
use crate::{Cursor, Micros, Page, PageRequest, Store, StoreError};
use std::ops::Range;

/// Something consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEvent {
    pub id: String,
    pub org_id: String,
    pub project_id: Option<String>,
    pub resource_id: Option<String>,
    pub metric: String,
    /// Whole units of the metric; a metric that needs fractions counts in smaller units.
    pub amount: i64,
    pub created_at: Micros,
}

row!(UsageEvent {
    id,
    org_id,
    project_id,
    resource_id,
    metric,
    amount,
    created_at
});

impl Listed for UsageEvent {
    fn position(&self) -> Cursor {
        Cursor::new(self.created_at, &self.id)
    }
}

/// All events of one metric in a period together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSum {
    pub metric: String,
    pub amount: i64,
    pub events: i64,
}

row!(UsageSum {
    metric,
    amount,
    events
});

/// Binds the values of [`INSERT`].
macro_rules! bind_usage {
    ($query:expr, $event:expr) => {
        $query
            .bind(&$event.id)
            .bind(&$event.org_id)
            .bind(&$event.project_id)
            .bind(&$event.resource_id)
            .bind(&$event.metric)
            .bind($event.amount)
            .bind($event.created_at)
    };
}
pub(crate) use bind_usage;

macro_rules! insert {
    ($event:expr, $db:expr) => {
        bind_usage!(sqlx::query(INSERT), $event)
            .execute($db)
            .await
            .map(|_| ())
    };
}

pub(crate) const INSERT: &str = "INSERT INTO usage_events (id, org_id, project_id, resource_id, \
     metric, amount, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)";

impl Store {
    /// Adds events in one commit, all or none. `Conflict` when one of them is there already, so
    /// that an event which is sent twice counts once.
    pub async fn insert_usage_events(&self, events: &[UsageEvent]) -> Result<(), StoreError> {
        if let [event] = events {
            return on_writer!(self, "usage event", db => insert!(event, db));
        }
        in_transaction!(self, "usage events", db => {
            for event in events {
                insert!(event, &mut *db)?;
            }
            Ok(())
        })
    }

    /// The organization's consumption by metric, from the start of the period to before its end.
    pub async fn usage_sums(
        &self,
        org_id: &str,
        period: &Range<Micros>,
    ) -> Result<Vec<UsageSum>, StoreError> {
        on_reader!(self, "usage", db => sqlx::query_as(
                "SELECT metric, CAST(SUM(amount) AS BIGINT) AS amount, COUNT(*) AS events \
                 FROM usage_events WHERE org_id = $1 AND created_at >= $2 AND created_at < $3 \
                 GROUP BY metric ORDER BY metric")
            .bind(org_id)
            .bind(period.start)
            .bind(period.end)
            .fetch_all(db)
            .await)
    }

    /// The organization's events of a period, newest first.
    pub async fn usage_events(
        &self,
        org_id: &str,
        period: &Range<Micros>,
        page: &PageRequest,
    ) -> Result<Page<UsageEvent>, StoreError> {
        let (at, id) = page.below_and_before(period.end);
        let rows = on_reader!(self, "usage events", db => sqlx::query_as(
                "SELECT * FROM usage_events WHERE org_id = $1 \
                 AND created_at >= $2 AND (created_at, id) < ($3, $4) \
                 ORDER BY created_at DESC, id DESC LIMIT $5")
            .bind(org_id)
            .bind(period.start)
            .bind(at)
            .bind(id)
            .bind(page.limit.probe())
            .fetch_all(db)
            .await)?;
        Ok(Page::from_probe(rows, page.limit))
    }
}
