//! A few SQLite connections that are lent out one caller at a time.
//!
//! sqlx's own pool gives a connection back through a spawned task, which on the hot path costs
//! more than the statement. SQLite connections never go stale, so nothing of that is needed.

use crate::StoreError;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions};
use sqlx::{ConnectOptions, Connection as _, Sqlite, SqliteConnection};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

#[derive(Debug)]
pub(crate) struct Connections {
    options: SqliteConnectOptions,
    /// As many entries as free permits. `None` must be opened first: it was lost.
    free: Mutex<Vec<Option<SqliteConnection>>>,
    permits: Semaphore,
    count: u32,
    wait: Duration,
}

impl Connections {
    pub(crate) async fn open(
        options: SqliteConnectOptions,
        count: u32,
        wait: Duration,
    ) -> Result<Self, sqlx::Error> {
        let mut free = Vec::new();
        for _ in 0..count {
            free.push(Some(options.connect().await?));
        }
        let permits = Semaphore::new(free.len());
        Ok(Self {
            options,
            free: Mutex::new(free),
            permits,
            count,
            wait,
        })
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
    }
}
