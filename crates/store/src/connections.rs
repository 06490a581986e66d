//! A few SQLite connections that are lent out one caller at a time.
//!
//! sqlx's own pool gives a connection back through a spawned task, which on the hot path costs
//! more than the statement. SQLite connections never go stale, so nothing of that is needed.

use crate::StoreError;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions};
use sqlx::{ConnectOptions, Connection as _, Sqlite, SqliteConnection};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// After so many leases somebody is told that there was work: of the writer, about as many commits
/// of some pages each.
const NOTICE_LEASES: u32 = 500;

#[derive(Debug)]
pub(crate) struct Connections {
    options: SqliteConnectOptions,
    /// As many entries as free permits. `None` must be opened first: it was lost.
    free: Mutex<Vec<Option<SqliteConnection>>>,
    permits: Semaphore,
    count: u32,
    wait: Duration,
    /// Leases since the last notice.
    leases: AtomicU32,
    /// Told at every [`NOTICE_LEASES`].
    worked: Notify,
}

impl Connections {
    pub(crate) async fn open(
        options: SqliteConnectOptions,
        count: u32,
        wait: Duration,
    ) -> Result<Self, sqlx::Error> {
        let mut opened = Self::closed(options, 0, wait);
        for _ in 0..count {
            opened.add(Some(opened.options.connect().await?));
        }
        Ok(opened)
    }

    /// None of them is open before it is lent out.
    pub(crate) fn closed(options: SqliteConnectOptions, count: u32, wait: Duration) -> Self {
        let mut closed = Self {
            options,
            free: Mutex::default(),
            permits: Semaphore::new(0),
            count: 0,
            wait,
            leases: AtomicU32::new(0),
            worked: Notify::new(),
        };
        for _ in 0..count {
            closed.add(None);
        }
        closed
    }

    fn add(&mut self, connection: Option<SqliteConnection>) {
        self.free
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
        self.permits.add_permits(1);
        self.count += 1;
    }

    /// A connection for as long as the lease lives.
    pub(crate) async fn lease(&self, what: &'static str) -> Result<Lease<'_>, StoreError> {
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => tokio::time::timeout(self.wait, self.permits.acquire())
                .await
                .map_err(|_| StoreError::Busy { what })?
                .map_err(|_| StoreError::Unavailable {
                    what,
                    source: sqlx::Error::PoolClosed,
                })?,
        };
        // From here on the lease's drop puts the slot back, whatever happens.
        let slot = self.take().flatten();
        let mut lease = Lease {
            home: self,
            connection: slot,
            in_transaction: false,
            _permit: permit,
        };
        if lease.connection.is_none() {
            let opened = self.options.connect().await;
            lease.connection = Some(opened.map_err(|error| StoreError::from_sqlx(what, error))?);
        }
        Ok(lease)
    }

    /// Waits until there has been some work since the last time.
    pub(crate) async fn worked(&self) {
        self.worked.notified().await;
    }

    /// Waits for every lease to end, then closes. Leases asked for later are refused.
    pub(crate) async fn close(&self) {
        let Ok(_all) = self.permits.acquire_many(self.count).await else {
            return;
        };
        self.permits.close();
        while let Some(slot) = self.take() {
            if let Some(connection) = slot
                && let Err(error) = connection.close().await
            {
                tracing::warn!(%error, "closing a database connection");
            }
        }
    }

    fn take(&self) -> Option<Option<SqliteConnection>> {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }
}

/// One connection, given back on drop.
pub(crate) struct Lease<'a> {
    home: &'a Connections,
    connection: Option<SqliteConnection>,
    /// A script has begun a transaction and is not known to have ended it.
    in_transaction: bool,
    _permit: SemaphorePermit<'a>,
}

impl Lease<'_> {
    /// Runs a script that is a whole transaction, from BEGIN to COMMIT: one trip to the
    /// connection's thread and back, where every statement for itself would be one. When it fails
    /// nothing of it is left; when this future is dropped, the connection goes, and with it
    /// whatever had not been committed.
    pub(crate) async fn run_transaction(
        &mut self,
        script: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<(), sqlx::Error> {
        self.in_transaction = true;
        let outcome = script.execute(&mut **self).await;
        // Without a transaction, because BEGIN itself failed, ROLLBACK fails too: then a new
        // connection costs less than to find out.
        self.in_transaction = match &outcome {
            Ok(_) => false,
            Err(_) => sqlx::query("ROLLBACK").execute(&mut **self).await.is_err(),
        };
        outcome.map(drop)
    }

    /// Looks at what a statement ended with: a connection whose thread died is not lent again.
    pub(crate) fn settle<T>(&mut self, outcome: &Result<T, sqlx::Error>) {
        if matches!(outcome, Err(sqlx::Error::WorkerCrashed)) {
            self.connection = None;
        }
    }
}

impl Deref for Lease<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.connection
            .as_ref()
            .expect("a lease is handed out with its connection open")
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection
            .as_mut()
            .expect("a lease is handed out with its connection open")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let slot = self.connection.take().filter(|_| !self.in_transaction);
        self.home
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(slot);
        if self.home.leases.fetch_add(1, Ordering::Relaxed) + 1 >= NOTICE_LEASES {
            self.home.leases.store(0, Ordering::Relaxed);
            self.home.worked.notify_one();
        }
    }
}
