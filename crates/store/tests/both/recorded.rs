//! Beginnings and ends of sandboxes, with what is recorded of them.

use crate::bed::Bed;
use crate::rows::{audit_event, context, found, sandbox};
use crownest_store::{
    AuditFilter, Ending, Limit, PAGE_ROWS_MAX, PageRequest, Records, SandboxStatus, StoreError,
    UsageEvent,
};
use std::task::Poll;
use std::time::Duration;

on_both!(
    a_beginning_is_written_with_its_records,
    a_refused_beginning_leaves_nothing,
    of_two_endings_one_is_recorded,
    a_beginning_that_nobody_waits_for_is_whole_or_not_at_all
);

fn usage(id: &str) -> UsageEvent {
    UsageEvent {
        id: format!("use_{id}"),
        org_id: "org_a".to_owned(),
        project_id: Some("prj_a".to_owned()),
        resource_id: Some("sbx_1".to_owned()),
        metric: "m".to_owned(),
        amount: 1,
        created_at: 1,
    }
}

fn ending(reason: &str) -> Ending<'_> {
    Ending {
        status: SandboxStatus::Destroyed,
        reason,
        at: 500,
    }
}

/// Calls that are dropped on the way; all their events fit on one page.
const CUT_SHORT_MAX: usize = 60;
const TRIES_MAX: usize = 500;

/// One page of everything.
fn all() -> PageRequest {
    PageRequest {
        limit: Limit::new(PAGE_ROWS_MAX.into()).unwrap(),
        ..PageRequest::default()
    }
}

/// How many usage events and audit events the organization has.
async fn recorded(bed: &Bed) -> (i64, usize) {
    let sums = bed.store.usage_sums("org_a", &(0..9)).await.unwrap();
    let audit = bed
        .store
        .audit_events("org_a", &AuditFilter::default(), &all())
        .await
        .unwrap();
    (sums.first().map_or(0, |sum| sum.events), audit.rows.len())
}

async fn a_beginning_is_written_with_its_records(bed: Bed) {
    found(&bed.store, "a").await;
    let row = sandbox("a", "1", 1);
    let event = audit_event("a", "1", 1);
    let records = Records {
        usage: &usage("1"),
        audit: Some(&event),
    };
    bed.store.begin_sandbox(&row, records).await.unwrap();
    assert_eq!(bed.store.sandbox("org_a", "sbx_1").await.unwrap(), row);
    assert_eq!(recorded(&bed).await, (1, 1));
    let found = bed
        .store
        .audit_events("org_a", &AuditFilter::default(), &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(found.rows, [event]);

    let records = Records {
        usage: &usage("2"),
        audit: None,
    };
    let second = sandbox("a", "2", 2);
    bed.store.begin_sandbox(&second, records).await.unwrap();
    assert_eq!(recorded(&bed).await, (2, 1));
}

async fn a_refused_beginning_leaves_nothing(bed: Bed) {
    found(&bed.store, "a").await;
    let event = audit_event("a", "1", 1);
    let records = Records {
        usage: &usage("1"),
        audit: Some(&event),
    };
    let mut homeless = sandbox("a", "1", 1);
    homeless.project_id = "prj_none".to_owned();
    let refused = bed.store.begin_sandbox(&homeless, records).await;
    assert!(
        matches!(refused, Err(StoreError::NotFound { .. })),
        "{refused:?}"
    );
    assert_eq!(recorded(&bed).await, (0, 0));

    // The last statement fails: the ones before it are taken back.
    bed.store
        .insert_audit_events(std::slice::from_ref(&event))
        .await
        .unwrap();
    let row = sandbox("a", "1", 1);
    let refused = bed.store.begin_sandbox(&row, records).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    assert_eq!(recorded(&bed).await, (0, 1));
    let none = bed.store.sandbox("org_a", "sbx_1").await;
    assert!(matches!(none, Err(StoreError::NotFound { .. })), "{none:?}");

    // The connection is fit for the next.
    let records = Records {
        audit: None,
        ..records
    };
    bed.store.begin_sandbox(&row, records).await.unwrap();
    assert_eq!(recorded(&bed).await, (1, 1));
}

async fn of_two_endings_one_is_recorded(bed: Bed) {
    found(&bed.store, "a").await;
    let row = sandbox("a", "1", 1);
    bed.store.insert_sandbox(&row).await.unwrap();
    let open = context("a", "1", "1");
    bed.store.insert_context(&open).await.unwrap();
    for number in ["1", "2"] {
        let event = audit_event("a", number, 1);
        let records = Records {
            usage: &usage(number),
            audit: Some(&event),
        };
        bed.store
            .end_sandbox_recorded("sbx_1", ending(number), records)
            .await
            .unwrap();
    }
    let row = bed.store.sandbox("org_a", "sbx_1").await.unwrap();
    assert_eq!(row.destroyed_reason.as_deref(), Some("1"));
    assert_eq!(row.destroyed_at, Some(500));
    assert_eq!(recorded(&bed).await, (1, 1));
    let contexts = bed
        .store
        .contexts("org_a", "sbx_1", &PageRequest::default())
        .await
        .unwrap();
    assert!(contexts.rows.is_empty());
    let not_an_end = Ending {
        status: SandboxStatus::Idle,
        ..ending("")
    };
    let records = Records {
        usage: &usage("3"),
        audit: None,
    };
    let refused = bed
        .store
        .end_sandbox_recorded("sbx_1", not_an_end, records)
        .await;
    assert!(
        matches!(refused, Err(StoreError::Invalid { .. })),
        "{refused:?}"
    );
}

async fn a_beginning_that_nobody_waits_for_is_whole_or_not_at_all(bed: Bed) {
    found(&bed.store, "a").await;
    let mut cut_short = 0;
    for number in 0..CUT_SHORT_MAX {
        let row = sandbox("a", &number.to_string(), 1);
        let event = audit_event("a", &number.to_string(), 1);
        let usage = usage(&number.to_string());
        let records = Records {
            usage: &usage,
            audit: Some(&event),
        };
        let mut call = Box::pin(bed.store.begin_sandbox(&row, records));
        // Dropped after a number of steps that grows: before it has begun, after it has
        // committed, and in between.
        let steps = number * number / 4;
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
    }
    assert!(cut_short > 0, "some calls must have been cut short");
    // The writer still works.
    let records = Records {
        usage: &usage("last"),
        audit: Some(&audit_event("a", "last", 1)),
    };
    let last = sandbox("a", "last", 1);
    bed.store.begin_sandbox(&last, records).await.unwrap();
    // PostgreSQL may still be at a commit whose caller has gone.
    let mut tries = 0;
    loop {
        let live = bed.store.count_live_sandboxes("org_a").await.unwrap();
        let (used, audited) = recorded(&bed).await;
        if live == used && usize::try_from(live).unwrap() == audited {
            break;
        }
        tries += 1;
        assert!(tries < TRIES_MAX, "{live} {used} {audited}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
