//! Opening: what is refused, with which words, and what a second opening finds.

use crate::bed::{Bed, impatient, on_sqlite, runtime};
use crate::rows::{found, founding, sandbox};
use crownest_store::{Durability, Store, StoreError, StoreOptions};
use std::error::Error as _;
use std::os::unix::fs::PermissionsExt as _;

on_both!(
    what_was_stored_is_there_after_opening_again,
    many_may_open_an_empty_database_at_once,
    a_newer_schema_is_refused,
    an_edited_migration_is_refused,
    a_locked_database_is_busy_and_then_works,
    a_closed_store_says_so,
);

async fn open_error(url: &str) -> StoreError {
    Store::open(url, &impatient()).await.unwrap_err()
}

async fn what_was_stored_is_there_after_opening_again(bed: Bed) {
    found(&bed.store, "a").await;
    bed.store
        .insert_sandbox(&sandbox("a", "1", 1))
        .await
        .unwrap();
    bed.store.close().await;
    let again = bed.another().await;
    again.ping().await.unwrap();
    assert_eq!(
        again.sandbox("org_a", "sbx_1").await.unwrap(),
        sandbox("a", "1", 1)
    );
}

async fn many_may_open_an_empty_database_at_once(bed: Bed) {
    bed.store.close().await;
    // Back to empty: the bed itself has opened it once.
    if bed.is_sqlite() {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", bed.url));
        }
    } else {
        bed.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            .await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let url = bed.url.clone();
        tasks.spawn(async move { Store::open(&url, &StoreOptions::default()).await.unwrap() });
    }
    let stores = tasks.join_all().await;
    stores[0].bootstrap(&founding("a")).await.unwrap();
    assert_eq!(
        stores[5].organization("org_a").await.unwrap(),
        founding("a").organization
    );
}

async fn a_newer_schema_is_refused(bed: Bed) {
    bed.sql("INSERT INTO schema_versions VALUES (99, 'x')")
        .await;
    let error = open_error(&bed.url).await;
    assert!(
        matches!(
            error,
            StoreError::SchemaNewer { found: 99, known } if known < 99
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("newer program"), "{error}");
}

async fn an_edited_migration_is_refused(bed: Bed) {
    bed.sql("UPDATE schema_versions SET digest = 'x'").await;
    let error = open_error(&bed.url).await;
    assert!(
        matches!(error, StoreError::MigrationChanged { version: 1 }),
        "{error:?}"
    );
}

async fn a_locked_database_is_busy_and_then_works(bed: Bed) {
    let store = Store::open(&bed.url, &impatient()).await.unwrap();
    let refused;
    if bed.is_sqlite() {
        let mut holder = bed.sqlite_connection().await;
        sqlx::raw_sql("BEGIN IMMEDIATE")
            .execute(&mut holder)
            .await
            .unwrap();
        refused = store.bootstrap(&founding("a")).await;
        let single = store.insert_user(&founding("b").user).await;
        assert!(matches!(single, Err(StoreError::Busy { .. })), "{single:?}");
        // Readers do not wait for a writer.
        assert!(matches!(
            store.organization("org_a").await,
            Err(StoreError::NotFound { .. })
        ));
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut holder)
            .await
            .unwrap();
    } else {
        let mut holder = bed.postgres_connection().await;
        let lock = "BEGIN; LOCK TABLE organizations IN EXCLUSIVE MODE";
        sqlx::raw_sql(lock).execute(&mut holder).await.unwrap();
        refused = store.bootstrap(&founding("a")).await;
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut holder)
            .await
            .unwrap();
    }
    let error = refused.unwrap_err();
    assert!(
        matches!(error, StoreError::Busy { .. }) && error.is_transient(),
        "{error:?}"
    );
    assert!(store.bootstrap(&founding("a")).await.unwrap().created);
}

async fn a_closed_store_says_so(bed: Bed) {
    bed.store.close().await;
    bed.store.close().await;
    let read = bed.store.organization("org_a").await.unwrap_err();
    let write = bed.store.bootstrap(&founding("a")).await.unwrap_err();
    for error in [read, write] {
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    }
}

#[test]
fn a_url_of_something_else_is_refused_without_repeating_it() {
    runtime().block_on(async {
        for url in [
            "",
            "sqlite:",
            "sqlite::memory:",
            ":memory:",
            "mysql://root:hunter2@h/db",
        ] {
            let error = open_error(url).await;
            assert!(
                matches!(error, StoreError::UnsupportedUrl),
                "{url}: {error:?}"
            );
            assert!(!format!("{error:?} {error}").contains("hunter2"));
        }
    });
}

#[test]
fn a_missing_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nowhere/store.db");
    let error = runtime().block_on(open_error(path.to_str().unwrap()));
    assert!(
        matches!(error, StoreError::DirectoryMissing { .. }),
        "{error:?}"
    );
    assert!(error.to_string().ends_with("/nowhere"), "{error}");
    assert!(
        !directory.path().join("nowhere").exists(),
        "it is not made behind one's back"
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    // Files cannot be made there by anyone, not even by root.
    let error = runtime().block_on(open_error("sqlite:/proc/store.db"));
    assert!(matches!(error, StoreError::OpenFile { .. }), "{error:?}");
    assert!(error.to_string().contains("/proc/store.db"), "{error}");
    assert!(error.source().is_some(), "the system's reason is kept");
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    let text = "not a database, but dear to somebody ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let error = runtime().block_on(open_error(path.to_str().unwrap()));
    assert!(matches!(error, StoreError::Connect { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn an_unreachable_server_is_a_connect_error() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("postgres:///db?user=u&host={}", directory.path().display());
    let error = runtime().block_on(open_error(&url));
    assert!(matches!(error, StoreError::Connect { .. }), "{error:?}");
}

#[test]
fn only_the_owner_may_read_the_file() {
    on_sqlite(async |bed: Bed| {
        found(&bed.store, "a").await;
        for suffix in ["", "-wal", "-shm"] {
            let metadata = std::fs::metadata(format!("{}{suffix}", bed.url)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{suffix}");
        }
    });
}

#[test]
fn every_form_of_a_path_and_both_durabilities_open_the_same_file() {
    on_sqlite(async |bed: Bed| {
        found(&bed.store, "a").await;
        for prefix in ["sqlite:", "sqlite://", ""] {
            let url = format!("{prefix}{}", bed.url);
            let options = StoreOptions {
                durability: Durability::Full,
                ..impatient()
            };
            let store = Store::open(&url, &options).await.unwrap();
            assert_eq!(
                store.organization("org_a").await.unwrap(),
                founding("a").organization
            );
        }
    });
}
