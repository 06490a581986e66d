//! A fresh database for one test.

use crate::postgres_server;
use crownest_store::{Store, StoreOptions};
use std::io::Write as _;
use std::time::Duration;
use tempfile::TempDir;

/// A database of the test's own, and where it is.
pub(crate) struct Bed {
    pub(crate) store: Store,
    pub(crate) url: String,
    /// Holds the SQLite file.
    _directory: Option<TempDir>,
}

impl Bed {
    /// Another store on the same database, as another process would have it.
    pub(crate) async fn another(&self) -> Store {
        Store::open(&self.url, &StoreOptions::default())
            .await
            .unwrap()
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        !self.url.starts_with("postgres")
    }

    /// Runs SQL past the store, as an administrator would.
    pub(crate) async fn sql(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        if self.is_sqlite() {
            let mut connection = self.sqlite_connection().await;
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        } else {
            let mut connection = self.postgres_connection().await;
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        }
    }

    pub(crate) async fn sqlite_connection(&self) -> sqlx::SqliteConnection {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&self.url);
        sqlx::ConnectOptions::connect(&options).await.unwrap()
    }

    pub(crate) async fn postgres_connection(&self) -> sqlx::PgConnection {
        <sqlx::PgConnection as sqlx::Connection>::connect(&self.url)
            .await
            .unwrap()
    }
}

/// Short, so that a test of `Busy` ends soon.
pub(crate) fn impatient() -> StoreOptions {
    StoreOptions {
        busy_timeout: Duration::from_millis(150),
        ..StoreOptions::default()
    }
}

pub(crate) fn on_sqlite<T: Future<Output = ()>>(test: impl FnOnce(Bed) -> T) {
    let directory = tempfile::tempdir().unwrap();
    let url = directory.path().join("store.db").display().to_string();
    run(url, Some(directory), test);
}

pub(crate) fn on_postgres<T: Future<Output = ()>>(test: impl FnOnce(Bed) -> T) {
    match postgres_server::fresh_database() {
        Some(url) => run(url, None, test),
        None => {
            // Not `eprintln!`: the test harness would keep that to itself.
            let line = b"SKIP: postgresql is not installed, this test did not run on it\n";
            std::io::stderr().write_all(line).unwrap();
        }
    }
}

fn run<T: Future<Output = ()>>(
    url: String,
    directory: Option<TempDir>,
    test: impl FnOnce(Bed) -> T,
) {
    runtime().block_on(async {
        let store = Store::open(&url, &StoreOptions::default()).await.unwrap();
        test(Bed {
            store,
            url,
            _directory: directory,
        })
        .await;
    });
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}
