//! Code contexts: the interpreters of a sandbox. A row is there exactly as long as its
//! interpreter; what ran in it is never stored.

use crate::column::row;
use crate::db::{on_reader, on_writer};
use crate::page::Listed;
use crate::{Cursor, Micros, Page, PageRequest, Store, StoreError};

/// One interpreter with its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub id: String,
    pub sandbox_id: String,
    pub org_id: String,
    pub language: String,
    pub cwd: String,
    /// Serves runs that name no context. At most one per sandbox and language.
    pub is_default: bool,
    pub isolation: String,
    pub created_at: Micros,
}

row!(Context {
    id,
    sandbox_id,
    org_id,
    language,
    cwd,
    is_default,
    isolation,
    created_at
});

impl Listed for Context {
    fn position(&self) -> Cursor {
        Cursor::new(self.created_at, &self.id)
    }
}

pub(crate) const DELETE_OF_SANDBOX: &str = "DELETE FROM contexts WHERE sandbox_id = $1";

impl Store {
    /// Adds a context. `Conflict` when the id is taken or the sandbox has a default context of
    /// this language already (another request was first: use that one); `NotFound` when the
    /// organization has no such sandbox.
    pub async fn insert_context(&self, context: &Context) -> Result<(), StoreError> {
        // From the sandbox's row, so that a context never names another tenant's sandbox.
        let inserted = on_writer!(self, "context", db => sqlx::query(
                "INSERT INTO contexts (id, sandbox_id, org_id, language, cwd, is_default, \
                 isolation, created_at) \
                 SELECT $1, id, org_id, $4, $5, $6, $7, $8 FROM sandboxes \
                 WHERE id = $2 AND org_id = $3")
            .bind(&context.id)
            .bind(&context.sandbox_id)
            .bind(&context.org_id)
            .bind(&context.language)
            .bind(&context.cwd)
            .bind(context.is_default)
            .bind(&context.isolation)
            .bind(context.created_at)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        match inserted {
            0 => Err(StoreError::NotFound { what: "sandbox" }),
            _ => Ok(()),
        }
    }

    /// One context of the organization.
    pub async fn context(&self, org_id: &str, id: &str) -> Result<Context, StoreError> {
        on_reader!(self, "context", db => sqlx::query_as(
                "SELECT * FROM contexts WHERE id = $1 AND org_id = $2")
            .bind(id)
            .bind(org_id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound { what: "context" })
    }

    /// The contexts of one sandbox of the organization, newest first.
    pub async fn contexts(
        &self,
        org_id: &str,
        sandbox_id: &str,
        page: &PageRequest,
    ) -> Result<Page<Context>, StoreError> {
        let (at, id) = page.below();
        let rows = on_reader!(self, "contexts", db => sqlx::query_as(
                "SELECT * FROM contexts \
                 WHERE sandbox_id = $1 AND org_id = $2 AND (created_at, id) < ($3, $4) \
                 ORDER BY created_at DESC, id DESC LIMIT $5")
            .bind(sandbox_id)
            .bind(org_id)
            .bind(at)
            .bind(id)
            .bind(page.limit.probe())
            .fetch_all(db)
            .await)?;
        Ok(Page::from_probe(rows, page.limit))
    }

    /// The default context of a sandbox for a language, if it was made already.
    pub async fn default_context(
        &self,
        org_id: &str,
        sandbox_id: &str,
        language: &str,
    ) -> Result<Option<Context>, StoreError> {
        on_reader!(self, "context", db => sqlx::query_as(
                "SELECT * FROM contexts \
                 WHERE sandbox_id = $1 AND org_id = $2 AND language = $3 AND is_default = TRUE")
            .bind(sandbox_id)
            .bind(org_id)
            .bind(language)
            .fetch_optional(db)
            .await)
    }

    /// Removes a context and returns what it was. `NotFound` when it is not there (any more).
    pub async fn delete_context(&self, org_id: &str, id: &str) -> Result<Context, StoreError> {
        on_writer!(self, "context", db => sqlx::query_as(
                "DELETE FROM contexts WHERE id = $1 AND org_id = $2 RETURNING *")
            .bind(id)
            .bind(org_id)
            .fetch_all(db)
            .await)?
        .pop()
        .ok_or(StoreError::NotFound { what: "context" })
    }

    /// Removes all contexts of a sandbox and returns how many there were.
    pub async fn delete_contexts_of_sandbox(&self, sandbox_id: &str) -> Result<u64, StoreError> {
        on_writer!(self, "contexts", db => sqlx::query(DELETE_OF_SANDBOX)
            .bind(sandbox_id)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))
    }
}
