//! Users: the people of an organization. How they sign in is not known here.

use crate::column::row;
use crate::db::{on_reader, on_writer};
use crate::page::Listed;
use crate::{Cursor, Micros, Page, PageRequest, Store, StoreError};

/// A member of one organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: String,
    pub org_id: String,
    pub name: String,
    pub email: Option<String>,
    /// `owner`, `admin` or `member`; the store does not interpret it.
    pub role: String,
    pub created_at: Micros,
}

row!(User {
    id,
    org_id,
    name,
    email,
    role,
    created_at
});

impl Listed for User {
    fn position(&self) -> Cursor {
        Cursor::new(self.created_at, &self.id)
    }
}

pub(crate) const INSERT: &str = "INSERT INTO users (id, org_id, name, email, role, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6)";

impl Store {
    /// Adds a user. `NotFound` when the organization does not exist.
    pub async fn insert_user(&self, user: &User) -> Result<(), StoreError> {
        on_writer!(self, "user", db => sqlx::query(INSERT)
            .bind(&user.id)
            .bind(&user.org_id)
            .bind(&user.name)
            .bind(&user.email)
            .bind(&user.role)
            .bind(user.created_at)
            .execute(db)
            .await
            .map(|_| ()))
    }

    /// One user of the organization.
    pub async fn user(&self, org_id: &str, id: &str) -> Result<User, StoreError> {
        on_reader!(self, "user", db => sqlx::query_as(
                "SELECT * FROM users WHERE id = $1 AND org_id = $2")
            .bind(id)
            .bind(org_id)
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound { what: "user" })
    }

    /// The organization's users, newest first.
    pub async fn users(&self, org_id: &str, page: &PageRequest) -> Result<Page<User>, StoreError> {
        let (at, id) = page.below();
        let rows = on_reader!(self, "users", db => sqlx::query_as(
                "SELECT * FROM users WHERE org_id = $1 AND (created_at, id) < ($2, $3) \
                 ORDER BY created_at DESC, id DESC LIMIT $4")
            .bind(org_id)
            .bind(at)
            .bind(id)
            .bind(page.limit.probe())
            .fetch_all(db)
            .await)?;
        Ok(Page::from_probe(rows, page.limit))
    }
}
