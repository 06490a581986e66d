//! The store itself: opening, and running one statement on whichever database it is.
//!
//! Every statement is written once, in SQL that both databases understand. The macros below run
//! it in two arms, because the drivers' types differ and a common dynamic type would cost more
//! than the statement.

use crate::connections::Connections;
use crate::{StoreError, postgres, sqlite};
use sqlx::PgPool;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Connections that read beside the one that writes (SQLite).
const READERS: u32 = 3;
/// Connections to PostgreSQL.
const POSTGRES_CONNECTIONS_MAX: u32 = 16;
/// How long a call waits for the database before it is `Busy`.
const BUSY_TIMEOUT_MS: u64 = 5_000;

/// What survives a power cut (SQLite only; PostgreSQL decides this itself). A killed process
/// loses nothing either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// The last moments may be missing after a power cut; the database is never damaged.
    #[default]
    Normal,
    /// Every commit waits for the disk.
    Full,
}

/// How to open a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    pub durability: Durability,
    /// How long a call waits for the database before it fails with [`StoreError::Busy`].
    pub busy_timeout: Duration,
    /// Connections that only read (SQLite).
    pub readers: u32,
    /// Most connections (PostgreSQL).
    pub postgres_connections_max: u32,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            busy_timeout: Duration::from_millis(BUSY_TIMEOUT_MS),
            readers: READERS,
            postgres_connections_max: POSTGRES_CONNECTIONS_MAX,
        }
    }
}

/// The metadata of one installation. Share it by reference or in an `Arc`.
pub struct Store {
    pub(crate) db: Db,
}

impl fmt::Debug for Store {
    // The connection options hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.db.pick("Store(sqlite)", "Store(postgres)"))
    }
}

/// The two databases.
pub(crate) enum Db {
    Sqlite(Box<Sqlite>),
    Postgres(PgPool),
}

/// SQLite has one writer at a time, whatever one does: with one connection that writes, waiting
/// is a queue in this process instead of a retry loop in the database.
pub(crate) struct Sqlite {
    pub(crate) writer: Connections,
    pub(crate) readers: Connections,
    /// Folds the log back into the database file.
    pub(crate) folder: Connections,
}

impl Store {
    /// Opens the database and brings its schema up to date. `url` is a path, `sqlite:PATH` or
    /// `postgres://…`. A missing database file is made, readable by its owner only; a missing
    /// directory is an error.
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let db = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Db::Postgres(postgres::open(url, options).await?)
        } else {
            Db::Sqlite(Box::new(sqlite::open(sqlite_path(url)?, options).await?))
        };
        Ok(Self { db })
    }

    /// Waits for running calls and closes all connections. Calls made later fail with
    /// [`StoreError::Unavailable`].
    pub async fn close(&self) {
        match &self.db {
            Db::Sqlite(sqlite) => {
                sqlite.folder.close().await;
                sqlite.readers.close().await;
                // Last, so that it is the one that folds the log back into the database file.
                sqlite.writer.close().await;
            }
            Db::Postgres(pool) => pool.close().await,
        }
    }

    /// Keeps the database fit for as long as it is polled: SQLite's log is folded into the file
    /// from time to time, beside the commits. Never returns.
    pub async fn maintain(&self) {
        let Db::Sqlite(sqlite) = &self.db else {
            return std::future::pending().await;
        };
        loop {
            sqlite.writer.worked().await;
            if let Err(error) = sqlite.fold().await {
                tracing::warn!(%error, "folding the log of the database failed");
            }
        }
    }

    /// Asks the database for an answer: for health checks.
    pub async fn ping(&self) -> Result<(), StoreError> {
        on_reader!(self, "store", db => sqlx::query("SELECT 1").execute(db).await.map(|_| ()))
    }
}

/// The path that a SQLite URL means.
fn sqlite_path(url: &str) -> Result<&Path, StoreError> {
    let path = match url.strip_prefix("sqlite:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None if url.contains("://") => return Err(StoreError::UnsupportedUrl),
        None => url,
    };
    // Memory databases cannot be shared by several connections the way files are.
    if path.is_empty() || path.starts_with(':') || path.contains('\0') {
        return Err(StoreError::UnsupportedUrl);
    }
    Ok(Path::new(path))
}

impl Db {
    /// The text for the database in use, where the two must differ.
    pub(crate) fn pick(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self {
            Self::Sqlite(_) => sqlite,
            Self::Postgres(_) => postgres,
        }
    }
}

/// Runs `$body` with `$db` as a mutable connection that only reads.
macro_rules! on_reader {
    ($store:expr, $what:literal, $db:ident => $body:expr) => {
        $crate::db::on_connection!($store, readers, $what, $db => $body)
    };
}

/// Runs `$body` with `$db` as a mutable connection that may write.
macro_rules! on_writer {
    ($store:expr, $what:literal, $db:ident => $body:expr) => {
        $crate::db::on_connection!($store, writer, $what, $db => $body)
    };
}

macro_rules! on_connection {
    ($store:expr, $side:ident, $what:literal, $db:ident => $body:expr) => {
        match &$store.db {
            $crate::db::Db::Sqlite(sqlite) => {
                let mut lease = sqlite.$side.lease($what).await?;
                let outcome: Result<_, sqlx::Error> = {
                    let $db = &mut *lease;
                    $body
                };
                lease.settle(&outcome);
                outcome
            }
            $crate::db::Db::Postgres(pool) => {
                let mut lease = match pool.acquire().await {
                    Ok(lease) => lease,
                    Err(error) => return Err($crate::StoreError::from_sqlx($what, error)),
                };
                let $db = &mut *lease;
                $body
            }
        }
        .map_err(|error| $crate::StoreError::from_sqlx($what, error))
    };
}

/// Runs `$body`, an expression of type `Result<_, sqlx::Error>` in which `?` may be used, with
/// `$db` as a mutable connection inside one write transaction. An error or a dropped future
/// rolls back.
macro_rules! in_transaction {
    ($store:expr, $what:literal, $db:ident => $body:expr) => {
        match &$store.db {
            $crate::db::Db::Sqlite(sqlite) => {
                let mut lease = sqlite.writer.lease($what).await?;
                let outcome: Result<_, sqlx::Error> = async {
                    // Takes the write lock at once: a transaction that begins as a reader
                    // cannot wait for it later.
                    let mut transaction =
                        sqlx::Connection::begin_with(&mut *lease, "BEGIN IMMEDIATE").await?;
                    let $db = &mut *transaction;
                    let done: Result<_, sqlx::Error> = $body;
                    let value = done?;
                    transaction.commit().await?;
                    Ok(value)
                }
                .await;
                lease.settle(&outcome);
                outcome
            }
            $crate::db::Db::Postgres(pool) => {
                async {
                    let mut transaction = pool.begin().await?;
                    let $db = &mut *transaction;
                    let done: Result<_, sqlx::Error> = $body;
                    let value = done?;
                    transaction.commit().await?;
                    Ok(value)
                }
                .await
            }
        }
        .map_err(|error: sqlx::Error| $crate::StoreError::from_sqlx($what, error))
    };
}

pub(crate) use {in_transaction, on_connection, on_reader, on_writer};
