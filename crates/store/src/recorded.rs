//! The beginning and the end of a sandbox, each in one commit with what is recorded of it: usage
//! that somebody pays for, and the audit event. What is known of a sandbox is then known whole or
//! not at all, whenever the program is killed; and SQLite is asked once instead of four times.

use crate::audit_events::{self, bind_audit};
use crate::column::{check_metadata, json};
use crate::contexts;
use crate::db::Db;
use crate::sandboxes::{self, bind_sandbox};
use crate::usage_events::{self, bind_usage};
use crate::{AuditEvent, Ending, Sandbox, Store, StoreError, UsageEvent};

/// What is recorded of a change, in the same commit.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    pub usage: &'a UsageEvent,
    pub audit: Option<&'a AuditEvent>,
}

/// The values of an absent audit event, all NULL: the script leaves it out.
const AUDIT_COLUMNS: usize = 12;

const BEGIN_SQLITE: &str = "BEGIN IMMEDIATE; \
     INSERT INTO sandboxes (id, org_id, project_id, node_id, status, template_slug, template_id, \
     template_version, template_version_id, ttl_ms, created_at, ready_at, expires_at, \
     destroyed_at, destroyed_reason, metadata, runtime, network_mode, created_by) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
     $19); \
     INSERT INTO usage_events (id, org_id, project_id, resource_id, metric, amount, created_at) \
     VALUES ($20, $21, $22, $23, $24, $25, $26); \
     INSERT INTO audit_events (id, org_id, project_id, at, actor_kind, actor_id, action, \
     resource_kind, resource_id, outcome, request_id, details) \
     SELECT $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38 WHERE $27 IS NOT NULL; \
     COMMIT";

/// The records come first, since they are made only while the row is live.
const END_SQLITE: &str = "BEGIN IMMEDIATE; \
     INSERT INTO usage_events (id, org_id, project_id, resource_id, metric, amount, created_at) \
     SELECT $5, $6, $7, $8, $9, $10, $11 \
     WHERE EXISTS (SELECT 1 FROM sandboxes WHERE id = $1 AND destroyed_at IS NULL); \
     INSERT INTO audit_events (id, org_id, project_id, at, actor_kind, actor_id, action, \
     resource_kind, resource_id, outcome, request_id, details) \
     SELECT $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23 WHERE $12 IS NOT NULL \
     AND EXISTS (SELECT 1 FROM sandboxes WHERE id = $1 AND destroyed_at IS NULL); \
     UPDATE sandboxes SET status = $2, destroyed_reason = $3, destroyed_at = $4 \
     WHERE id = $1 AND destroyed_at IS NULL; \
     DELETE FROM contexts WHERE sandbox_id = $1; \
     COMMIT";

/// Binds an audit event, or as many NULLs.
macro_rules! bind_optional_audit {
    ($query:expr, $event:expr) => {
        match $event {
            Some(event) => bind_audit!($query, event),
            None => (0..AUDIT_COLUMNS).fold($query, |query, _| query.bind(None::<String>)),
        }
    };
}

impl Store {
    /// As [`Store::insert_sandbox`], with its records.
    pub async fn begin_sandbox(
        &self,
        sandbox: &Sandbox,
        records: Records<'_>,
    ) -> Result<(), StoreError> {
        check_metadata(&sandbox.metadata)?;
        let metadata = json(&sandbox.metadata);
        let what = "sandbox";
        match &self.db {
            Db::Sqlite(sqlite) => {
                let mut lease = sqlite.writer.lease(what).await?;
                let script = bind_sandbox!(sqlx::query(BEGIN_SQLITE), sandbox, metadata);
                let script = bind_usage!(script, records.usage);
                let outcome = lease
                    .run_transaction(bind_optional_audit!(script, records.audit))
                    .await;
                lease.settle(&outcome);
                outcome
            }
            Db::Postgres(pool) => {
                async {
                    let mut transaction = pool.begin().await?;
                    let db = &mut *transaction;
                    bind_sandbox!(sqlx::query(sandboxes::INSERT), sandbox, metadata)
                        .execute(&mut *db)
                        .await?;
                    bind_usage!(sqlx::query(usage_events::INSERT), records.usage)
                        .execute(&mut *db)
                        .await?;
                    if let Some(event) = records.audit {
                        bind_audit!(sqlx::query(audit_events::INSERT), event)
                            .execute(&mut *db)
                            .await?;
                    }
                    transaction.commit().await
                }
                .await
            }
        }
        .map_err(|error| StoreError::from_sqlx(what, error))
    }

    /// As [`Store::end_sandbox`], with its records and without its contexts. Nothing is recorded
    /// for one that has ended already.
    pub async fn end_sandbox_recorded(
        &self,
        id: &str,
        ending: Ending<'_>,
        records: Records<'_>,
    ) -> Result<(), StoreError> {
        let what = "sandbox";
        if !ending.status.is_terminal() {
            return Err(StoreError::Invalid {
                what: "sandbox status",
            });
        }
        match &self.db {
            Db::Sqlite(sqlite) => {
                let mut lease = sqlite.writer.lease(what).await?;
                let script = sqlx::query(END_SQLITE)
                    .bind(id)
                    .bind(ending.status.as_str())
                    .bind(ending.reason)
                    .bind(ending.at);
                let script = bind_usage!(script, records.usage);
                let outcome = lease
                    .run_transaction(bind_optional_audit!(script, records.audit))
                    .await;
                lease.settle(&outcome);
                outcome
            }
            Db::Postgres(pool) => {
                async {
                    let mut transaction = pool.begin().await?;
                    let db = &mut *transaction;
                    let ended = sqlx::query(sandboxes::END)
                        .bind(id)
                        .bind(ending.status.as_str())
                        .bind(ending.reason)
                        .bind(ending.at)
                        .execute(&mut *db)
                        .await?
                        .rows_affected();
                    if ended == 1 {
                        bind_usage!(sqlx::query(usage_events::INSERT), records.usage)
                            .execute(&mut *db)
                            .await?;
                    }
                    if let (1, Some(event)) = (ended, records.audit) {
                        bind_audit!(sqlx::query(audit_events::INSERT), event)
                            .execute(&mut *db)
                            .await?;
                    }
                    sqlx::query(contexts::DELETE_OF_SANDBOX)
                        .bind(id)
                        .execute(&mut *db)
                        .await?;
                    transaction.commit().await
                }
                .await
            }
        }
        .map_err(|error| StoreError::from_sqlx(what, error))
    }
}
