//! Snapshots of file systems.

use crate::bed::Bed;
use crate::rows::{found, sandbox};
use crownest_store::{Limit, Snapshot, SnapshotEnd, SnapshotFilter, Store, StoreError};

on_both!(
    a_snapshot_ends_once,
    a_snapshot_is_deleted_in_two_steps,
    lists_are_filtered_paged_and_counted,
    another_tenants_snapshots_do_not_exist,
    what_a_node_has_is_named,
);

fn snapshot(org: &str, id: &str, created_at: i64) -> Snapshot {
    Snapshot {
        id: format!("snap_{id}"),
        org_id: format!("org_{org}"),
        project_id: format!("prj_{org}"),
        sandbox_id: "sbx_1".to_owned(),
        node_id: "node_1".to_owned(),
        state: "creating".to_owned(),
        name: Some(format!("name {id}")),
        template_slug: "python-node".to_owned(),
        template_version_id: "tplv_1".to_owned(),
        size_bytes: 0,
        entries: 0,
        failure: None,
        created_at,
        changed_at: created_at,
        created_by: "key_1".to_owned(),
    }
}

async fn with_sandbox(bed: &Bed) -> &Store {
    found(&bed.store, "a").await;
    found(&bed.store, "b").await;
    let row = sandbox("a", "1", 1);
    bed.store.insert_sandbox(&row).await.unwrap();
    &bed.store
}

async fn ready(store: &Store, id: &str, created_at: i64) -> Snapshot {
    let row = snapshot("a", id, created_at);
    store.insert_snapshot(&row).await.unwrap();
    let end = SnapshotEnd::Ready {
        size_bytes: 4096,
        entries: 3,
    };
    assert!(store.end_snapshot(&row.id, end, 50).await.unwrap());
    store.snapshot("org_a", &row.id).await.unwrap()
}

async fn a_snapshot_ends_once(bed: Bed) {
    let store = with_sandbox(&bed).await;
    let row = snapshot("a", "1", 10);
    store.insert_snapshot(&row).await.unwrap();
    assert_eq!(store.snapshot("org_a", "snap_1").await.unwrap(), row);
    let again = store.insert_snapshot(&row).await;
    assert!(
        matches!(again, Err(StoreError::Conflict { .. })),
        "{again:?}"
    );
    let failed = SnapshotEnd::Failed { why: "no room" };
    assert!(store.end_snapshot("snap_1", failed, 20).await.unwrap());
    let end = SnapshotEnd::Ready {
        size_bytes: 1,
        entries: 1,
    };
    assert!(!store.end_snapshot("snap_1", end, 30).await.unwrap());
    let expected = Snapshot {
        state: "failed".to_owned(),
        failure: Some("no room".to_owned()),
        changed_at: 20,
        ..row
    };
    assert_eq!(store.snapshot("org_a", "snap_1").await.unwrap(), expected);

    let row = ready(store, "2", 40).await;
    assert_eq!(
        (row.state.as_str(), row.size_bytes, row.entries),
        ("ready", 4096, 3)
    );
    store.snapshot_lost("snap_2", "gone", 60).await.unwrap();
    let row = store.snapshot("org_a", "snap_2").await.unwrap();
    assert_eq!((row.state.as_str(), row.changed_at), ("failed", 60));
}

async fn a_snapshot_is_deleted_in_two_steps(bed: Bed) {
    let store = with_sandbox(&bed).await;
    let row = snapshot("a", "1", 10);
    store.insert_snapshot(&row).await.unwrap();
    assert!(
        !store.delete_snapshot("org_a", "snap_1", 20).await.unwrap(),
        "being made"
    );
    ready(store, "2", 20).await;
    assert!(!store.delete_snapshot("org_b", "snap_2", 30).await.unwrap());
    store.snapshot_deleted("snap_2").await.unwrap();
    assert_eq!(
        store.snapshot("org_a", "snap_2").await.unwrap().state,
        "ready"
    );
    assert!(store.delete_snapshot("org_a", "snap_2", 30).await.unwrap());
    // Whoever is killed in between does both again.
    assert!(store.delete_snapshot("org_a", "snap_2", 31).await.unwrap());
    assert_eq!(
        store.snapshot("org_a", "snap_2").await.unwrap().state,
        "deleting"
    );
    store.snapshot_deleted("snap_2").await.unwrap();
    let gone = store.snapshot("org_a", "snap_2").await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
    assert_eq!(store.count_snapshots("org_a").await.unwrap(), 1);
}

async fn lists_are_filtered_paged_and_counted(bed: Bed) {
    let store = with_sandbox(&bed).await;
    for number in 1..=5 {
        ready(store, &number.to_string(), number * 10).await;
    }
    let row = snapshot("a", "6", 60);
    store.insert_snapshot(&row).await.unwrap();
    let list = async |filter: SnapshotFilter, skip, rows| {
        let limit = Limit::new(rows).unwrap();
        let (found, total) = store
            .snapshots("org_a", &filter, skip, limit)
            .await
            .unwrap();
        let ids: Vec<String> = found
            .into_iter()
            .map(|row| row.id[5..].to_owned())
            .collect();
        (ids.join(""), total)
    };
    let all = SnapshotFilter::default();
    assert_eq!(list(all.clone(), 0, 500).await, ("654321".to_owned(), 6));
    assert_eq!(list(all.clone(), 2, 2).await, ("43".to_owned(), 6));
    assert_eq!(list(all.clone(), 6, 2).await, (String::new(), 6));
    let states = SnapshotFilter {
        states: Some(vec!["creating".to_owned(), "failed".to_owned()]),
        ..all.clone()
    };
    assert_eq!(list(states, 0, 9).await, ("6".to_owned(), 1));
    let name = SnapshotFilter {
        name: Some("name 3".to_owned()),
        sandbox_id: Some("sbx_1".to_owned()),
        ..all.clone()
    };
    assert_eq!(list(name, 0, 9).await, ("3".to_owned(), 1));
    let elsewhere = SnapshotFilter {
        sandbox_id: Some("sbx_2".to_owned()),
        ..all.clone()
    };
    assert_eq!(list(elsewhere, 0, 9).await, (String::new(), 0));
    let projects = |ids: &[&str]| SnapshotFilter {
        project_ids: Some(ids.iter().map(|id| (*id).to_owned()).collect()),
        ..SnapshotFilter::default()
    };
    assert_eq!(list(projects(&["prj_a"]), 0, 9).await.1, 6);
    assert_eq!(list(projects(&[]), 0, 9).await.1, 0);
}

async fn another_tenants_snapshots_do_not_exist(bed: Bed) {
    let store = with_sandbox(&bed).await;
    let foreign = store.insert_snapshot(&snapshot("b", "1", 10)).await;
    assert!(
        matches!(foreign, Err(StoreError::NotFound { .. })),
        "{foreign:?}"
    );
    ready(store, "2", 20).await;
    let foreign = store.snapshot("org_b", "snap_2").await;
    assert!(
        matches!(foreign, Err(StoreError::NotFound { .. })),
        "{foreign:?}"
    );
    let limit = Limit::new(9).unwrap();
    let (rows, total) = store
        .snapshots("org_b", &SnapshotFilter::default(), 0, limit)
        .await
        .unwrap();
    assert_eq!((rows.len(), total), (0, 0));
    assert_eq!(store.count_snapshots("org_b").await.unwrap(), 0);
}

async fn what_a_node_has_is_named(bed: Bed) {
    let store = with_sandbox(&bed).await;
    ready(store, "2", 20).await;
    let row = snapshot("a", "1", 10);
    store.insert_snapshot(&row).await.unwrap();
    let rows = store.snapshots_of_node("node_1").await.unwrap();
    let states: Vec<_> = rows.iter().map(|row| row.state.as_str()).collect();
    assert_eq!(states, ["creating", "ready"]);
    assert!(store.snapshots_of_node("node_2").await.unwrap().is_empty());
}
