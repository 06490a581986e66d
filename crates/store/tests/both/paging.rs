//! Pages: every row once, newest first, whatever the page size and however many rows share a
//! creation time.

use crate::bed::Bed;
use crate::rows::{found, sandbox};
use crownest_store::{Cursor, Limit, Page, PageRequest, Sandbox, SandboxFilter};
use proptest::collection::btree_set;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;
use tokio::runtime::Handle;

on_both!(
    pages_put_together_are_the_list,
    rows_that_come_or_go_do_not_disturb_a_reader
);

/// Databases are slow for a property test; ties and page ends are frequent by design instead.
const CASES: u32 = 24;

async fn pages_put_together_are_the_list(bed: Bed) {
    let case = Cell::new(0);
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(CASES)
    });
    let times_and_ids = btree_set((0_i64..4, "[A-Za-z0-9_-]{1,3}"), 0..14);
    tokio::task::block_in_place(|| {
        runner
            .run(&(times_and_ids, 1_u64..6), |(rows, limit)| {
                case.set(case.get() + 1);
                Handle::current().block_on(check(&bed, &format!("c{}", case.get()), rows, limit));
                Ok(())
            })
            .unwrap();
    });
}

async fn check(bed: &Bed, org: &str, rows: std::collections::BTreeSet<(i64, String)>, limit: u64) {
    let org_id = found(&bed.store, org).await;
    let mut expected = Vec::new();
    for (at, id) in rows {
        // Ids are unique in the whole table; the same text may come with two times.
        let row = sandbox(org, &format!("{id}_{at}_{org}"), at);
        bed.store.insert_sandbox(&row).await.unwrap();
        expected.push((row.created_at, row.id));
    }
    expected.sort_unstable();
    expected.reverse();

    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = page(bed, &org_id, after, limit).await;
        let full = page.rows.len() == usize::try_from(limit).unwrap();
        assert!(full || page.next.is_none(), "only the last page is short");
        seen.extend(page.rows.into_iter().map(|row| (row.created_at, row.id)));
        // As text and back, the way a client carries it.
        let Some(next) = page.next else { break };
        after = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(seen, expected);
}

async fn page(bed: &Bed, org_id: &str, after: Option<Cursor>, limit: u64) -> Page<Sandbox> {
    let request = PageRequest {
        after,
        limit: Limit::new(limit).unwrap(),
    };
    bed.store
        .sandboxes(org_id, &SandboxFilter::default(), &request)
        .await
        .unwrap()
}

async fn rows_that_come_or_go_do_not_disturb_a_reader(bed: Bed) {
    let org_id = found(&bed.store, "a").await;
    for number in 1..=6 {
        bed.store
            .insert_sandbox(&sandbox("a", &number.to_string(), number))
            .await
            .unwrap();
    }
    let first = page(&bed, &org_id, None, 2).await;
    assert_eq!(first.rows.last().unwrap().id, "sbx_5");
    // A newer row appears and the very row that the cursor names goes away.
    bed.store
        .insert_sandbox(&sandbox("a", "7", 7))
        .await
        .unwrap();
    let ending = crownest_store::Ending {
        status: crownest_store::SandboxStatus::Destroyed,
        reason: "user_killed",
        at: 9,
    };
    bed.store.end_sandbox("sbx_5", ending).await.unwrap();
    let second = page(&bed, &org_id, first.next, 3).await;
    let ids: Vec<_> = second.rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["sbx_4", "sbx_3", "sbx_2"]);
}
