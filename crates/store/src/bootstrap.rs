//! The first organization, made when a server starts on an empty database.

use crate::db::in_transaction;
use crate::{Organization, Project, Store, StoreError, User, organizations, projects, users};

/// What an installation starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    pub organization: Organization,
    pub user: User,
    /// The organization's default project.
    pub project: Project,
}

/// What [`Store::bootstrap`] found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrapped {
    /// Whether this call made it: then, and only then, a first API key is due.
    pub created: bool,
    /// The oldest organization, its oldest user and its default project.
    pub founding: Founding,
}

/// Serializes first starts (PostgreSQL; a SQLite write transaction is alone anyway).
const LOCK: &str = "LOCK TABLE organizations IN SHARE ROW EXCLUSIVE MODE";
const NO_LOCK: &str = "SELECT 1";

impl Store {
    /// Makes the organization, user and project of `founding` if there is no organization yet,
    /// all or nothing; of any number of servers that start at once one makes them. Otherwise
    /// reads what is there.
    pub async fn bootstrap(&self, founding: &Founding) -> Result<Bootstrapped, StoreError> {
        let Founding {
            organization,
            user,
            project,
        } = founding;
        if user.org_id != organization.id || project.org_id != organization.id {
            return Err(StoreError::Invalid { what: "founding" });
        }
        if !project.is_default {
            return Err(StoreError::Invalid {
                what: "default project",
            });
        }
        let lock = self.db.pick(NO_LOCK, LOCK);
        in_transaction!(self, "founding", db => {
            sqlx::query(lock).execute(&mut *db).await?;
            let first: Option<Organization> = sqlx::query_as(
                    "SELECT * FROM organizations ORDER BY created_at, id LIMIT 1")
                .fetch_optional(&mut *db)
                .await?;
            if let Some(organization) = first {
                let user = sqlx::query_as(
                        "SELECT * FROM users WHERE org_id = $1 ORDER BY created_at, id LIMIT 1")
                    .bind(&organization.id)
                    .fetch_one(&mut *db)
                    .await?;
                let project = sqlx::query_as(
                        "SELECT * FROM projects WHERE org_id = $1 AND is_default = TRUE")
                    .bind(&organization.id)
                    .fetch_one(&mut *db)
                    .await?;
                let founding = Founding { organization, user, project };
                Ok(Bootstrapped { created: false, founding })
            } else {
                sqlx::query(organizations::INSERT)
                    .bind(&organization.id)
                    .bind(&organization.name)
                    .bind(organization.created_at)
                    .bind(&organization.plan)
                    .execute(&mut *db)
                    .await?;
                sqlx::query(users::INSERT)
                    .bind(&user.id)
                    .bind(&user.org_id)
                    .bind(&user.name)
                    .bind(&user.email)
                    .bind(&user.role)
                    .bind(user.created_at)
                    .execute(&mut *db)
                    .await?;
                sqlx::query(projects::INSERT)
                    .bind(&project.id)
                    .bind(&project.org_id)
                    .bind(&project.name)
                    .bind(project.is_default)
                    .bind(project.created_at)
                    .execute(&mut *db)
                    .await?;
                Ok(Bootstrapped { created: true, founding: founding.clone() })
            }
        })
    }
}
