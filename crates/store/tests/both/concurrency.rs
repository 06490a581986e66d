//! Many callers, callers that go away, connections that die.

use crate::bed::{Bed, on_postgres, on_sqlite};
use crate::rows::{api_key, audit_event, found, founding, sandbox};
use crownest_store::{AuditFilter, PageRequest, StoreError, UsageEvent};
use std::sync::Arc;
use std::task::Poll;

on_both!(
    many_writers_and_readers_at_once,
    a_caller_that_goes_away_leaves_whole_batches
);

async fn many_writers_and_readers_at_once(bed: Bed) {
    found(&bed.store, "a").await;
    let store = Arc::new(bed.another().await);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..40 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for number in 0..10 {
                let row = sandbox("a", &format!("{task}_{number}"), number);
                store.insert_sandbox(&row).await.unwrap();
                // One's own write is visible at once, also on another connection.
                assert_eq!(store.sandbox("org_a", &row.id).await.unwrap(), row);
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(bed.store.count_live_sandboxes("org_a").await.unwrap(), 400);
}

async fn a_caller_that_goes_away_leaves_whole_batches(bed: Bed) {
    const BATCH: usize = 4;
    let event = |batch: usize, number: usize| UsageEvent {
        id: format!("use_{batch}_{number}"),
        org_id: format!("org_{batch}"),
        project_id: None,
        resource_id: None,
        metric: "m".to_owned(),
        amount: 1,
        created_at: 1,
    };
    let mut cut_short = 0;
    for batch in 0..60 {
        let events: Vec<_> = (0..BATCH).map(|number| event(batch, number)).collect();
        let mut call = Box::pin(bed.store.insert_usage_events(&events));
        // The future is dropped after a number of steps that grows: at first before it has begun,
        // in the end after it has committed, and in between everywhere.
        let steps = batch * batch / 4;
        for step in 0..=steps {
            let polled = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
            if let Poll::Ready(done) = polled {
                done.unwrap();
                break;
            }
            cut_short += usize::from(step == steps);
            tokio::task::yield_now().await;
        }
        drop(call);
        let sums = bed
            .store
            .usage_sums(&format!("org_{batch}"), &(0..9))
            .await
            .unwrap();
        let rows = sums.first().map_or(0, |sum| sum.events);
        assert!(rows == 0 || rows == 4, "batch {batch} has {rows} rows");
    }
    assert!(cut_short > 0, "some calls must have been cut short");
    // The connections still work, for writing too.
    assert!(bed.store.bootstrap(&founding("a")).await.unwrap().created);
}

/// What a server does in tasks of its own must be allowed to move between threads.
#[test]
fn batches_can_be_written_from_a_spawned_task() {
    on_sqlite(async |bed: Bed| {
        found(&bed.store, "a").await;
        bed.store.insert_api_key(&api_key("a", "1")).await.unwrap();
        let store = Arc::new(bed.another().await);
        let task = tokio::spawn(async move {
            let id = String::from("key_1");
            store.touch_api_keys(&[(id.as_str(), 77)]).await.unwrap();
            store
                .insert_audit_events(&[audit_event("a", "1", 1)])
                .await
                .unwrap();
            let filter = AuditFilter {
                action: Some("sandbox.create"),
                ..AuditFilter::default()
            };
            let page = PageRequest::default();
            store
                .audit_events("org_a", &filter, &page)
                .await
                .unwrap()
                .rows
                .len()
        });
        assert_eq!(task.await.unwrap(), 1);
        let key = bed.store.api_key("org_a", "key_1").await.unwrap();
        assert_eq!(key.last_used_at, Some(77));
    });
}

/// The server closes every connection of the store, as when it restarts. A call may fail, but
/// says that it is worth trying again, and the store finds its way back.
#[test]
fn lost_connections_are_replaced() {
    on_postgres(async |bed: Bed| {
        found(&bed.store, "a").await;
        bed.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
        // At most one failure for every connection that was open.
        for _ in 0..=20 {
            match bed.store.organizations(&PageRequest::default()).await {
                Ok(page) => {
                    assert_eq!(page.rows.len(), 1);
                    return;
                }
                Err(error) => {
                    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
                    assert!(error.is_transient());
                }
            }
        }
        panic!("the store did not find its way back");
    });
}
