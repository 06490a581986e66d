//! What can go wrong, named after the step that failed.

use sqlx::error::ErrorKind;
use std::io;
use std::path::PathBuf;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Neither a path, `sqlite:PATH` nor `postgres://…`. The URL may hold a password and is not
    /// repeated.
    #[error("the store URL is not a path, sqlite:PATH or postgres://USER@HOST/DATABASE")]
    UnsupportedUrl,
    #[error("the directory of the database does not exist: {}", directory.display())]
    DirectoryMissing { directory: PathBuf },
    #[error("cannot create or write the database file {}", path.display())]
    OpenFile { path: PathBuf, source: io::Error },
    #[error("cannot open the database")]
    Connect { source: sqlx::Error },
    #[error(
        "the database has schema version {found}, this program knows up to {known}: \
         it was used by a newer program"
    )]
    SchemaNewer { found: i64, known: i64 },
    #[error("migration {version} is not the one this database was made with")]
    MigrationChanged { version: i64 },
    #[error("migration {version} failed")]
    Migrate { version: i64, source: sqlx::Error },

    /// A row does not exist, or belongs to another tenant, or the row that a new row points to
    /// does not exist.
    #[error("{what}: not found")]
    NotFound { what: &'static str },
    /// A row with the same identity exists already.
    #[error("{what}: exists already")]
    Conflict { what: &'static str },
    /// A value that the store refuses before it asks the database.
    #[error("{what}: not valid")]
    Invalid { what: &'static str },
    /// Waited for the database as long as the options say. Worth trying again.
    #[error("{what}: the database is busy")]
    Busy { what: &'static str },
    /// There is no room for what was to be written; nothing was.
    #[error("{what}: the disk of the database is full")]
    Full {
        what: &'static str,
        source: sqlx::Error,
    },
    /// The database cannot be reached or cannot write (server down, read-only).
    #[error("{what}: the database is unavailable: {source}")]
    Unavailable {
        what: &'static str,
        source: sqlx::Error,
    },
    /// A stored row is not what this program writes.
    #[error("{what}: a stored row cannot be understood: {source}")]
    Decode {
        what: &'static str,
        source: sqlx::Error,
    },
    /// Anything else a statement can fail with.
    #[error("{what}: the statement failed: {source}")]
    Statement {
        what: &'static str,
        source: sqlx::Error,
    },
}

impl StoreError {
    /// Whether the same call may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. } | Self::Full { .. } | Self::Unavailable { .. }
        )
    }

    /// Sorts what a statement about `what` failed with.
    pub(crate) fn from_sqlx(what: &'static str, source: sqlx::Error) -> Self {
        match &source {
            sqlx::Error::Database(database) => match database.kind() {
                ErrorKind::UniqueViolation => Self::Conflict { what },
                ErrorKind::ForeignKeyViolation => Self::NotFound { what },
                ErrorKind::NotNullViolation | ErrorKind::CheckViolation => Self::Invalid { what },
                _ => match Trouble::of(database.as_ref()) {
                    Trouble::Busy => Self::Busy { what },
                    Trouble::Full => Self::Full { what, source },
                    Trouble::Unavailable => Self::Unavailable { what, source },
                    Trouble::Value => Self::Invalid { what },
                    Trouble::Other => Self::Statement { what, source },
                },
            },
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable { what, source },
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::Decode(_) => Self::Decode { what, source },
            _ => Self::Statement { what, source },
        }
    }
}

/// SQLite: the shared index of the log could not grow.
const IOERR_SHMSIZE: &str = "4874";

enum Trouble {
    Busy,
    Full,
    Unavailable,
    Value,
    Other,
}

impl Trouble {
    /// From the code of the database: SQLite's are numbers whose low byte is the class,
    /// PostgreSQL's are five characters whose first two are.
    fn of(error: &dyn sqlx::error::DatabaseError) -> Self {
        let Some(code) = error.code() else {
            return Self::Other;
        };
        if error
            .try_downcast_ref::<sqlx::sqlite::SqliteError>()
            .is_some()
        {
            return match code.parse::<i32>().map(|code| code & 0xff) {
                Ok(5 | 6) => Self::Busy, // BUSY, LOCKED
                Ok(13) => Self::Full,
                // IOERR of growing the shared index of the log: there is no other reason.
                Ok(10) if code.as_ref() == IOERR_SHMSIZE => Self::Full,
                Ok(8 | 10 | 14) => Self::Unavailable, // READONLY, IOERR, CANTOPEN
                _ => Self::Other,
            };
        }
        match code.as_ref() {
            "40001" | "40P01" | "55P03" | "53300" => Self::Busy,
            "22021" | "22P05" => Self::Value, // a NUL character in a text
            "53100" => Self::Full,
            "25006" => Self::Unavailable, // read-only: a standby
            other => match other.get(..2) {
                Some("08" | "53" | "57" | "58") => Self::Unavailable,
                _ => Self::Other,
            },
        }
    }
}
