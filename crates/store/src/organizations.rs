//! Organizations: the tenants. Every other row names one.

use crate::column::row;
use crate::db::{in_transaction, on_reader, on_writer};
use crate::page::Listed;
use crate::{Cursor, Micros, Page, PageRequest, Project, Store, StoreError};

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    pub id: String,
    pub name: String,
    pub created_at: Micros,
    /// Name of its plan; `None` is the server's default. The store does not interpret it.
    pub plan: Option<String>,
}

row!(Organization {
    id,
    name,
    created_at,
    plan,
});

impl Listed for Organization {
    fn position(&self) -> Cursor {
        Cursor::new(self.created_at, &self.id)
    }
}

pub(crate) const INSERT: &str =
    "INSERT INTO organizations (id, name, created_at, plan) VALUES ($1, $2, $3, $4)";

impl Store {
    /// Adds an organization together with its default project, or neither. `Conflict` when an id
    /// is taken, `Invalid` when the project is not a default project of this organization.
    pub async fn insert_organization(
        &self,
        organization: &Organization,
        project: &Project,
    ) -> Result<(), StoreError> {
        if !project.is_default || project.org_id != organization.id {
            return Err(StoreError::Invalid {
                what: "default project",
            });
        }
        in_transaction!(self, "organization", db => {
            sqlx::query(INSERT)
                .bind(&organization.id)
                .bind(&organization.name)
                .bind(organization.created_at)
                .bind(&organization.plan)
                .execute(&mut *db)
                .await?;
            sqlx::query(crate::projects::INSERT)
                .bind(&project.id)
                .bind(&project.org_id)
                .bind(&project.name)
                .bind(project.is_default)
                .bind(project.created_at)
                .execute(&mut *db)
                .await
                .map(|_| ())
        })
    }

    /// One organization.
    pub async fn organization(&self, id: &str) -> Result<Organization, StoreError> {
        on_reader!(self, "organization", db => sqlx::query_as(
                "SELECT * FROM organizations WHERE id = $1")
            .bind(id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound {
            what: "organization",
        })
    }

    /// Gives an organization a plan.
    pub async fn set_plan(&self, id: &str, plan: Option<&str>) -> Result<(), StoreError> {
        let changed = on_writer!(self, "organization", db => sqlx::query(
                "UPDATE organizations SET plan = $2 WHERE id = $1")
            .bind(id)
            .bind(plan)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        if changed == 0 {
            return Err(StoreError::NotFound {
                what: "organization",
            });
        }
        Ok(())
    }

    /// All organizations, newest first.
    pub async fn organizations(
        &self,
        page: &PageRequest,
    ) -> Result<Page<Organization>, StoreError> {
        let (at, id) = page.below();
        let rows = on_reader!(self, "organizations", db => sqlx::query_as(
                "SELECT * FROM organizations WHERE (created_at, id) < ($1, $2) \
                 ORDER BY created_at DESC, id DESC LIMIT $3")
            .bind(at)
            .bind(id)
            .bind(page.limit.probe())
            .fetch_all(db)
            .await)?;
        Ok(Page::from_probe(rows, page.limit))
    }
}
