//! Opening a SQLite database file.

use crate::connections::Connections;
use crate::db::{Durability, Sqlite};
use crate::{StoreError, StoreOptions, migrate};
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Prepared statements that a connection keeps. The crate has fewer, so none is prepared twice.
const STATEMENTS_CACHED: usize = 128;
/// Memory that a connection may keep pages in (a negative number of KiB, as SQLite takes it).
const CACHE_KIB: &str = "-16384";
/// Pages (4 KiB each) that the log may grow to before a commit folds it back itself and waits for
/// the disk: only when [`Sqlite::fold`] cannot keep up.
const WAL_PAGES_MAX: &str = "32000";
/// Size to which the log file is cut back when it was larger once.
const WAL_BYTES_KEPT: &str = "16777216";
/// Tries to open while another process opens the same file: changing the journal mode and
/// recovering the log do not wait like other statements do.
const OPEN_TRIES_MAX: u32 = 5;

pub(crate) async fn open(path: &Path, options: &StoreOptions) -> Result<Sqlite, StoreError> {
    create_file(path)?;
    let connect = connect_options(path, options);
    let mut first = first_connection(&connect, options).await?;
    migrate::sqlite(&mut first).await?;
    let source = |source| StoreError::Connect { source };
    sqlx::Connection::close(first).await.map_err(source)?;

    let writer = Connections::open(connect.clone(), 1, options.busy_timeout);
    // `query_only` instead of opening the file read-only: a reader must be able to recover the
    // log of a killed process.
    let reading = connect.pragma("query_only", "ON");
    let readers = Connections::open(reading, options.readers.max(1), options.busy_timeout);
    // Made when it is wanted first: most processes that open a store are done before.
    let folder = Connections::closed(connect_options(path, options), 1, options.busy_timeout);
    Ok(Sqlite {
        writer: writer.await.map_err(source)?,
        readers: readers.await.map_err(source)?,
        folder,
    })
}

impl Sqlite {
    /// Moves what is committed from the log into the database file. This waits for the disk,
    /// seconds when others keep it busy, and no commit waits for this.
    pub(crate) async fn fold(&self) -> Result<(), StoreError> {
        let what = "log";
        let mut lease = self.folder.lease(what).await?;
        let folded = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(&mut *lease)
            .await;
        lease.settle(&folded);
        folded
            .map(drop)
            .map_err(|error| StoreError::from_sqlx(what, error))
    }
}

/// Makes the file if it is missing, so that its mode and not the process's umask decides who
/// reads it (SQLite gives its log files the same mode), and says plainly why it cannot.
fn create_file(path: &Path) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        return Err(StoreError::DirectoryMissing {
            directory: directory.to_owned(),
        });
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(|_| ())
        .map_err(|source| StoreError::OpenFile {
            path: path.to_owned(),
            source,
        })
}

fn connect_options(path: &Path, options: &StoreOptions) -> SqliteConnectOptions {
    let synchronous = match options.durability {
        Durability::Normal => SqliteSynchronous::Normal,
        Durability::Full => SqliteSynchronous::Full,
    };
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .foreign_keys(true)
        .busy_timeout(options.busy_timeout)
        .statement_cache_capacity(STATEMENTS_CACHED)
        .pragma("cache_size", CACHE_KIB)
        .pragma("wal_autocheckpoint", WAL_PAGES_MAX)
        .pragma("journal_size_limit", WAL_BYTES_KEPT)
        .pragma("trusted_schema", "OFF")
        // What a statement in a transaction may have to take back goes to a temporary file when it
        // is more than 64 KiB (a few pages that split), and the server may make files in no
        // directory where SQLite looks for room.
        .pragma("temp_store", "MEMORY")
        .thread_name(|number| format!("sqlite-{number}"))
        .disable_statement_logging()
}

async fn first_connection(
    connect: &SqliteConnectOptions,
    options: &StoreOptions,
) -> Result<sqlx::SqliteConnection, StoreError> {
    let pause = options.busy_timeout / OPEN_TRIES_MAX;
    let mut tries = 1;
    loop {
        match connect.connect().await {
            Ok(connection) => return Ok(connection),
            Err(source) => {
                if tries == OPEN_TRIES_MAX || !is_busy(&source) {
                    return Err(StoreError::Connect { source });
                }
            }
        }
        tries += 1;
        tokio::time::sleep(pause).await;
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.and_then(|code| code.parse::<i32>().ok())
        .is_some_and(|code| code & 0xff == 5)
}
