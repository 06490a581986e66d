//! A process that is killed while it writes has lost nothing that it was told is stored.

use crate::bed::{Bed, runtime};
use crate::rows::{found, sandbox};
use crownest_store::{Store, StoreOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

on_both!(a_killed_writer_loses_no_committed_row);

/// Tells the child where to write. The test harness gives a test no arguments.
const URL_VARIABLE: &str = "CROWNEST_STORE_CRASH_TEST_URL";
/// Committed rows after which the child is killed.
const ROWS_BEFORE_KILL: usize = 300;
const WRITERS: usize = 4;

async fn a_killed_writer_loses_no_committed_row(bed: Bed) {
    found(&bed.store, "a").await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writer", "--ignored", "--nocapture"])
        .env(URL_VARIABLE, &bed.url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut committed = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // Lines of the harness, and a last one that the kill cut off, are not rows.
        if let Some(id) = line
            .strip_prefix("row ")
            .and_then(|rest| rest.strip_suffix(" end"))
        {
            committed.push(id.to_owned());
        }
        if committed.len() == ROWS_BEFORE_KILL {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(
        status.code().is_none(),
        "killed, not ended by itself: {status}"
    );
    assert!(committed.len() >= ROWS_BEFORE_KILL);

    let store = bed.another().await;
    for id in &committed {
        store.sandbox("org_a", id).await.unwrap();
    }
    // Whoever comes next can write, and the file is sound.
    store
        .insert_sandbox(&sandbox("a", "after", 1))
        .await
        .unwrap();
    if bed.is_sqlite() {
        let mut connection = bed.sqlite_connection().await;
        let check: String = sqlx::query_scalar("PRAGMA integrity_check")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(check, "ok");
    }
}

/// The process that is killed: writes rows for ever and says so after each.
#[test]
#[ignore = "the crash test starts it in a process of its own"]
fn writer() {
    let Ok(url) = std::env::var(URL_VARIABLE) else {
        return;
    };
    runtime().block_on(async {
        let store = Arc::new(Store::open(&url, &StoreOptions::default()).await.unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..WRITERS {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                for number in 0.. {
                    let row = sandbox("a", &format!("{task}_{number}"), number);
                    store.insert_sandbox(&row).await.unwrap();
                    let line = format!("row {} end\n", row.id);
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
        tasks.join_all().await;
    });
}
