//! Brings a database to the newest schema, all or nothing, one process at a time.
//!
//! Migrations are numbered from 1 without gaps and never edited once released: a database
//! remembers the digest of every one it was made with, and refuses a program that has another
//! text under the same number or that is older than the database.

use crate::StoreError;
use sqlx::{Connection, Executor, PgPool, SqliteConnection};

struct Migration {
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! migration {
    ($name:literal) => {
        Migration {
            sqlite: include_str!(concat!("../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../migrations/postgres/", $name, ".sql")),
        }
    };
}

/// All migrations; the first has version 1.
const MIGRATIONS: &[Migration] = &[
    migration!("0001_initial"),
    migration!("0002_commands"),
    migration!("0003_artifacts"),
    migration!("0004_previews"),
    migration!("0005_agents"),
    migration!("0006_workspace_runs"),
    migration!("0007_plans"),
    migration!("0008_code_runs"),
    migration!("0009_snapshots"),
    migration!("0010_terminals"),
];

const CREATE_VERSIONS: &str = "CREATE TABLE IF NOT EXISTS schema_versions \
     (version BIGINT PRIMARY KEY, digest TEXT NOT NULL)";
const LIST_VERSIONS: &str = "SELECT version, digest FROM schema_versions ORDER BY version";
const INSERT_VERSION: &str = "INSERT INTO schema_versions (version, digest) VALUES ($1, $2)";
/// A migration may take longer than an ordinary statement, and wait for another server's.
const PATIENCE_POSTGRES: &str =
    "SET LOCAL statement_timeout = '10min'; SET LOCAL lock_timeout = '10min'";
/// Any number, as long as every version of this program uses the same.
const LOCK_POSTGRES: &str = "SELECT pg_advisory_xact_lock(4855723381)";

pub(crate) async fn sqlite(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(connect)?;
    transaction
        .execute(CREATE_VERSIONS)
        .await
        .map_err(connect)?;
    let applied = sqlx::query_as(LIST_VERSIONS)
        .fetch_all(&mut *transaction)
        .await;
    for (version, sql) in pending(&applied.map_err(connect)?, |migration| migration.sqlite)? {
        let failed = |source| StoreError::Migrate { version, source };
        sqlx::raw_sql(sql)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        sqlx::query(INSERT_VERSION)
            .bind(version)
            .bind(digest(sql))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        tracing::info!(version, "migrated the database");
    }
    transaction.commit().await.map_err(connect)
}

pub(crate) async fn postgres(pool: &PgPool) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await.map_err(connect)?;
    transaction
        .execute(PATIENCE_POSTGRES)
        .await
        .map_err(connect)?;
    transaction.execute(LOCK_POSTGRES).await.map_err(connect)?;
    transaction
        .execute(CREATE_VERSIONS)
        .await
        .map_err(connect)?;
    let applied = sqlx::query_as(LIST_VERSIONS)
        .fetch_all(&mut *transaction)
        .await;
    for (version, sql) in pending(&applied.map_err(connect)?, |migration| migration.postgres)? {
        let failed = |source| StoreError::Migrate { version, source };
        sqlx::raw_sql(sql)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        sqlx::query(INSERT_VERSION)
            .bind(version)
            .bind(digest(sql))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        tracing::info!(version, "migrated the database");
    }
    transaction.commit().await.map_err(connect)
}

fn connect(source: sqlx::Error) -> StoreError {
    StoreError::Connect { source }
}

fn digest(sql: &str) -> String {
    blake3::hash(sql.as_bytes()).to_hex().to_string()
}

/// The migrations that are still to run, with their versions, after checking those that did.
fn pending(
    applied: &[(i64, String)],
    sql: impl Fn(&Migration) -> &'static str,
) -> Result<Vec<(i64, &'static str)>, StoreError> {
    let all: Vec<_> = (1_i64..).zip(MIGRATIONS.iter().map(sql)).collect();
    for (found, digest_found) in applied {
        match all.iter().find(|(version, _)| version == found) {
            None => {
                let known = all.last().map_or(0, |(version, _)| *version);
                return Err(StoreError::SchemaNewer {
                    found: *found,
                    known,
                });
            }
            Some((_, sql)) if digest(sql) != *digest_found => {
                return Err(StoreError::MigrationChanged { version: *found });
            }
            Some(_) => {}
        }
    }
    let done = applied.last().map_or(0, |(version, _)| *version);
    Ok(all
        .into_iter()
        .filter(|(version, _)| *version > done)
        .collect())
}
