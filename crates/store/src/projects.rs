//! Projects: the parts of an organization that API keys can be limited to.

use crate::column::{json, row};
use crate::db::{on_reader, on_writer};
use crate::page::Listed;
use crate::{Cursor, Micros, Page, PageRequest, Store, StoreError};

/// One project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub id: String,
    pub org_id: String,
    pub name: String,
    /// Where things go that name no project. Exactly one per organization.
    pub is_default: bool,
    pub created_at: Micros,
}

row!(Project {
    id,
    org_id,
    name,
    is_default,
    created_at
});

impl Listed for Project {
    fn position(&self) -> Cursor {
        Cursor::new(self.created_at, &self.id)
    }
}

pub(crate) const INSERT: &str = "INSERT INTO projects (id, org_id, name, is_default, created_at) \
     VALUES ($1, $2, $3, $4, $5)";

macro_rules! list {
    ($in_list:literal) => {
        concat!(
            "SELECT * FROM projects WHERE org_id = $1 AND (created_at, id) < ($2, $3) ",
            "AND ($4 IS NULL OR id IN (",
            $in_list,
            ")) ORDER BY created_at DESC, id DESC LIMIT $5"
        )
    };
}
const LIST_SQLITE: &str = list!("SELECT value FROM json_each($4)");
const LIST_POSTGRES: &str = list!("SELECT jsonb_array_elements_text($4::jsonb)");

impl Store {
    /// Adds a project. `NotFound` when the organization does not exist, `Conflict` when the id
    /// is taken or the organization has a default project already.
    pub async fn insert_project(&self, project: &Project) -> Result<(), StoreError> {
        on_writer!(self, "project", db => sqlx::query(INSERT)
            .bind(&project.id)
            .bind(&project.org_id)
            .bind(&project.name)
            .bind(project.is_default)
            .bind(project.created_at)
            .execute(db)
            .await
            .map(|_| ()))
    }

    /// One project of the organization.
    pub async fn project(&self, org_id: &str, id: &str) -> Result<Project, StoreError> {
        on_reader!(self, "project", db => sqlx::query_as(
                "SELECT * FROM projects WHERE id = $1 AND org_id = $2")
            .bind(id)
            .bind(org_id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound { what: "project" })
    }

    /// The organization's default project.
    pub async fn default_project(&self, org_id: &str) -> Result<Project, StoreError> {
        on_reader!(self, "project", db => sqlx::query_as(
                "SELECT * FROM projects WHERE org_id = $1 AND is_default = TRUE")
            .bind(org_id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound { what: "project" })
    }

    /// The organization's projects, newest first; with `ids` only those of them.
    pub async fn projects(
        &self,
        org_id: &str,
        ids: Option<&[String]>,
        page: &PageRequest,
    ) -> Result<Page<Project>, StoreError> {
        let (at, id) = page.below();
        let ids = ids.map(|ids| json(&ids));
        let sql = self.db.pick(LIST_SQLITE, LIST_POSTGRES);
        let rows = on_reader!(self, "projects", db => sqlx::query_as(sql)
            .bind(org_id)
            .bind(at)
            .bind(id)
            .bind(&ids)
            .bind(page.limit.probe())
            .fetch_all(db)
            .await)?;
        Ok(Page::from_probe(rows, page.limit))
    }
}
