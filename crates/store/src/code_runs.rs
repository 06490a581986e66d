//! Rows of detached code runs: what was asked for, where it is, how it ended. A row is there before
//! the run begins and a while after its end; runs that somebody waits for have none.
//!
//! `finished_at IS NULL` is what *unfinished* means in every statement here; it is set together
//! with a terminal status, once. What a run printed is not kept here.

use crate::column::{Column, row};
use crate::db::{on_reader, on_writer};
use crate::page::Listed;
use crate::{Cursor, Micros, Page, PageRequest, Store, StoreError};

/// State of a run as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CodeRunStatus {
    /// It waits for its turn in its context.
    Queued,
    Running,
    Completed,
    Interrupted,
    Canceled,
    TimedOut,
    OutOfMemory,
    ContextDied,
    /// It could not be begun, or what became of it is not known.
    Failed,
}

impl CodeRunStatus {
    const ALL: [Self; 9] = [
        Self::Queued,
        Self::Running,
        Self::Completed,
        Self::Interrupted,
        Self::Canceled,
        Self::TimedOut,
        Self::OutOfMemory,
        Self::ContextDied,
        Self::Failed,
    ];

    /// The word that is stored, which is also the word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Interrupted => "interrupted",
            Self::Canceled => "canceled",
            Self::TimedOut => "timed_out",
            Self::OutOfMemory => "out_of_memory",
            Self::ContextDied => "context_died",
            Self::Failed => "failed",
        }
    }

    /// Whether the run has ended.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

impl Column for CodeRunStatus {
    type Sql = String;

    fn from_sql(sql: String) -> Result<Self, sqlx::error::BoxDynError> {
        let known = Self::ALL.into_iter().find(|status| status.as_str() == sql);
        known.ok_or_else(|| "unknown status of a code run".into())
    }
}

/// One detached run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeRun {
    pub id: String,
    pub org_id: String,
    pub project_id: String,
    pub sandbox_id: String,
    pub context_id: String,
    pub language: String,
    /// Number of the run in its sandbox.
    pub run: i64,
    pub status: CodeRunStatus,
    /// JSON of the source that is to run; present exactly while it waits.
    pub code: Option<String>,
    /// JSON that only the caller understands: how it is to run.
    pub options: String,
    pub created_at: Micros,
    pub begun_at: Option<Micros>,
    /// `None` exactly while it is unfinished.
    pub finished_at: Option<Micros>,
    pub canceled_at: Option<Micros>,
    /// Of what it printed, what its log does not hold any more, or never did.
    pub log_omitted_bytes: i64,
    /// JSON, with the end; lists leave it out.
    pub result: Option<String>,
    /// JSON: why there is no result.
    pub failure: Option<String>,
    /// Id of the API key that asked for it.
    pub created_by: String,
}

row!(CodeRun {
    id,
    org_id,
    project_id,
    sandbox_id,
    context_id,
    language,
    run,
    status,
    code,
    options,
    created_at,
    begun_at,
    finished_at,
    canceled_at,
    log_omitted_bytes,
    result,
    failure,
    created_by,
});

impl Listed for CodeRun {
    fn position(&self) -> Cursor {
        Cursor::new(self.created_at, &self.id)
    }
}

const INSERT: &str = "INSERT INTO code_runs (id, org_id, project_id, sandbox_id, context_id, \
     language, run, status, code, options, created_at, log_omitted_bytes, created_by) \
     SELECT $1, org_id, project_id, id, $4, $5, $6, 'queued', $7, $8, $9, 0, $10 \
     FROM sandboxes WHERE id = $2 AND org_id = $3 AND destroyed_at IS NULL";

const FINISH: &str = "UPDATE code_runs SET status = $2, finished_at = $3, log_omitted_bytes = $4, \
     result = $5, failure = $6, canceled_at = $7, code = NULL \
     WHERE id = $1 AND finished_at IS NULL";

/// Without the results, which may be large.
pub(crate) const LIST: &str = "SELECT id, org_id, project_id, sandbox_id, context_id, language, \
     run, status, NULL AS code, options, created_at, begun_at, finished_at, canceled_at, \
     log_omitted_bytes, NULL AS result, failure, created_by FROM code_runs \
     WHERE sandbox_id = $1 AND org_id = $2 AND (created_at, id) < ($3, $4) \
     ORDER BY created_at DESC, id DESC LIMIT $5";

impl Store {
    /// Adds a queued run. Its project is that of the sandbox, whatever the row says. `NotFound`
    /// when the organization has no such live sandbox, `Conflict` when the id is taken.
    pub async fn insert_code_run(&self, run: &CodeRun) -> Result<(), StoreError> {
        // From the sandbox's row, so that a run never names another tenant's sandbox.
        let inserted = on_writer!(self, "code run", db => sqlx::query(INSERT)
            .bind(&run.id)
            .bind(&run.sandbox_id)
            .bind(&run.org_id)
            .bind(&run.context_id)
            .bind(&run.language)
            .bind(run.run)
            .bind(&run.code)
            .bind(&run.options)
            .bind(run.created_at)
            .bind(&run.created_by)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        match inserted {
            0 => Err(StoreError::NotFound { what: "sandbox" }),
            _ => Ok(()),
        }
    }

    /// One run of a sandbox of the organization.
    pub async fn code_run(
        &self,
        org_id: &str,
        sandbox_id: &str,
        id: &str,
    ) -> Result<CodeRun, StoreError> {
        on_reader!(self, "code run", db => sqlx::query_as(
                "SELECT * FROM code_runs WHERE id = $1 AND sandbox_id = $2 AND org_id = $3")
            .bind(id)
            .bind(sandbox_id)
            .bind(org_id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound { what: "code run" })
    }

    /// The runs of one sandbox of the organization, newest first, without their results.
    pub async fn code_runs(
        &self,
        org_id: &str,
        sandbox_id: &str,
        page: &PageRequest,
    ) -> Result<Page<CodeRun>, StoreError> {
        let (at, id) = page.below();
        let rows = on_reader!(self, "code runs", db => sqlx::query_as(LIST)
            .bind(sandbox_id)
            .bind(org_id)
            .bind(at)
            .bind(id)
            .bind(page.limit.probe())
            .fetch_all(db)
            .await)?;
        Ok(Page::from_probe(rows, page.limit))
    }

    /// All runs of a node whose end is not known, oldest first: what a starting server compares
    /// with the runs that it finds.
    pub async fn unfinished_code_runs_of_node(
        &self,
        node_id: &str,
    ) -> Result<Vec<CodeRun>, StoreError> {
        on_reader!(self, "code runs", db => sqlx::query_as(
                "SELECT r.* FROM code_runs AS r JOIN sandboxes AS s ON s.id = r.sandbox_id \
                 WHERE r.finished_at IS NULL AND s.node_id = $1 ORDER BY r.created_at, r.id")
            .bind(node_id)
            .fetch_all(db)
            .await)
    }

    /// Says that a queued run has begun, and forgets its source. `false` when it has ended.
    pub async fn begin_code_run(
        &self,
        id: &str,
        options: &str,
        at: Micros,
    ) -> Result<bool, StoreError> {
        on_writer!(self, "code run", db => sqlx::query(
                "UPDATE code_runs SET status = 'running', begun_at = $3, options = $2, code = NULL \
                 WHERE id = $1 AND finished_at IS NULL")
            .bind(id)
            .bind(options)
            .bind(at)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Says that an unfinished run is to be canceled. `false` when it has ended.
    pub async fn cancel_code_run(&self, id: &str, at: Micros) -> Result<bool, StoreError> {
        on_writer!(self, "code run", db => sqlx::query(
                "UPDATE code_runs SET canceled_at = COALESCE(canceled_at, $2) \
                 WHERE id = $1 AND finished_at IS NULL")
            .bind(id)
            .bind(at)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Ends a run with everything in `run` that is known at its end. Of any number of callers
    /// exactly one gets `true`. `Invalid` unless it has a terminal status and a time.
    pub async fn finish_code_run(&self, run: &CodeRun) -> Result<bool, StoreError> {
        if !run.status.is_terminal() || run.finished_at.is_none() {
            return Err(StoreError::Invalid {
                what: "code run status",
            });
        }
        on_writer!(self, "code run", db => sqlx::query(FINISH)
            .bind(&run.id)
            .bind(run.status.as_str())
            .bind(run.finished_at)
            .bind(run.log_omitted_bytes)
            .bind(&run.result)
            .bind(&run.failure)
            .bind(run.canceled_at)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }

    /// Ids of runs that ended before `before`, at most `limit`, oldest first.
    pub async fn code_runs_ended_before(
        &self,
        before: Micros,
        limit: i64,
    ) -> Result<Vec<String>, StoreError> {
        on_reader!(self, "code runs", db => sqlx::query_scalar(
                "SELECT id FROM code_runs WHERE finished_at < $1 \
                 ORDER BY finished_at, id LIMIT $2")
            .bind(before)
            .bind(limit)
            .fetch_all(db)
            .await)
    }

    /// Forgets a run that has ended. `false` when there is none of that id.
    pub async fn delete_code_run(&self, id: &str) -> Result<bool, StoreError> {
        on_writer!(self, "code run", db => sqlx::query(
                "DELETE FROM code_runs WHERE id = $1 AND finished_at IS NOT NULL")
            .bind(id)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
    }
}
