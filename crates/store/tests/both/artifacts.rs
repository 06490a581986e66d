//! Artifacts, and the secrets that servers share.

use crate::bed::Bed;
use crate::rows::{found, sandbox};
use crownest_store::{Artifact, PageRequest, ServerSecret, Store, StoreError};
use std::sync::Arc;

on_both!(
    an_artifact_is_found_once_it_is_stored_and_until_it_is_deleted,
    what_was_left_pending_is_named,
    time_takes_artifacts_away,
    another_tenants_artifacts_do_not_exist,
    of_many_secrets_one_is_kept,
);

fn artifact(org: &str, id: &str, created_at: i64) -> Artifact {
    Artifact {
        id: format!("art_{id}"),
        org_id: format!("org_{org}"),
        project_id: format!("prj_{org}"),
        sandbox_id: "sbx_1".to_owned(),
        node_id: "node_1".to_owned(),
        state: "pending".to_owned(),
        name: "report.html".to_owned(),
        object_key: format!("orgs/org_{org}/objects/{id}"),
        size_bytes: 0,
        sha256: None,
        content_type: Some("text/html".to_owned()),
        source_path: None,
        created_at,
        retention_expires_at: created_at + 1_000,
        deleted_at: None,
    }
}

async fn with_sandbox(bed: &Bed) -> &Store {
    found(&bed.store, "a").await;
    bed.store
        .insert_sandbox(&sandbox("a", "1", 1))
        .await
        .unwrap();
    &bed.store
}

fn not_found<T: std::fmt::Debug>(outcome: &Result<T, StoreError>) {
    assert!(
        matches!(outcome, Err(StoreError::NotFound { .. })),
        "{outcome:?}"
    );
}

async fn stored(store: &Store, id: &str, created_at: i64) -> Artifact {
    let row = artifact("a", id, created_at);
    store.insert_pending_artifact(&row).await.unwrap();
    store.artifact_stored(&row.id, 5, "ff").await.unwrap()
}

async fn to_remove(store: &Store) -> Vec<String> {
    let rows = store.artifacts_to_remove(10).await.unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

async fn an_artifact_is_found_once_it_is_stored_and_until_it_is_deleted(bed: Bed) {
    let store = with_sandbox(&bed).await;
    let row = artifact("a", "1", 10);
    store.insert_pending_artifact(&row).await.unwrap();
    not_found(&store.artifact("org_a", "art_1").await);
    let now = store.artifact_stored("art_1", 5, "ff").await.unwrap();
    let expected = Artifact {
        state: "stored".to_owned(),
        size_bytes: 5,
        sha256: Some("ff".to_owned()),
        ..row
    };
    assert_eq!(now, expected);
    assert_eq!(store.artifact("org_a", "art_1").await.unwrap(), expected);
    not_found(&store.artifact_stored("art_1", 5, "ff").await);
    let second = stored(store, "2", 20).await;
    let page = store
        .artifacts("org_a", "sbx_1", &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(page.rows, [second, expected]);

    let gone = store.delete_artifact("org_a", "art_1", 30).await.unwrap();
    assert_eq!(gone.deleted_at, Some(30));
    not_found(&store.artifact("org_a", "art_1").await);
    not_found(&store.delete_artifact("org_a", "art_1", 31).await);
    assert_eq!(to_remove(store).await, ["art_1"]);
    store.artifact_removed("art_1").await.unwrap();
    assert!(to_remove(store).await.is_empty());
}

async fn what_was_left_pending_is_named(bed: Bed) {
    let store = with_sandbox(&bed).await;
    for (id, node) in [("1", "node_1"), ("2", "node_2"), ("3", "node_1")] {
        let row = Artifact {
            node_id: node.to_owned(),
            ..artifact("a", id, 10)
        };
        store.insert_pending_artifact(&row).await.unwrap();
    }
    store.artifact_stored("art_3", 5, "ff").await.unwrap();
    let left = store.abandon_artifacts_of_node("node_1", 50).await;
    assert_eq!(left.unwrap(), 1);
    assert_eq!(to_remove(store).await, ["art_1"]);
    not_found(&store.artifact_stored("art_1", 5, "ff").await);
    store.abandon_artifact("art_2", 60).await.unwrap();
    store.abandon_artifact("art_3", 60).await.unwrap();
    assert_eq!(to_remove(store).await, ["art_1", "art_2"]);
    assert!(store.artifact("org_a", "art_3").await.is_ok());
}

async fn time_takes_artifacts_away(bed: Bed) {
    let store = with_sandbox(&bed).await;
    for (id, at) in [("1", 10), ("2", 20), ("3", 5_000)] {
        stored(store, id, at).await;
    }
    let half = artifact("a", "4", 30);
    store.insert_pending_artifact(&half).await.unwrap();
    assert_eq!(store.expire_artifacts(1_009, 29, 10).await.unwrap(), 0);
    assert_eq!(store.expire_artifacts(2_000, 29, 1).await.unwrap(), 1);
    assert_eq!(store.expire_artifacts(2_000, 30, 10).await.unwrap(), 2);
    assert_eq!(to_remove(store).await, ["art_1", "art_2", "art_4"]);
    assert!(store.artifact("org_a", "art_3").await.is_ok());
}

async fn another_tenants_artifacts_do_not_exist(bed: Bed) {
    let store = with_sandbox(&bed).await;
    found(store, "b").await;
    not_found(&store.insert_pending_artifact(&artifact("b", "1", 10)).await);
    stored(store, "2", 10).await;
    not_found(&store.artifact("org_b", "art_2").await);
    not_found(&store.delete_artifact("org_b", "art_2", 30).await);
    let page = store
        .artifacts("org_b", "sbx_1", &PageRequest::default())
        .await
        .unwrap();
    assert!(page.rows.is_empty());
}

async fn of_many_secrets_one_is_kept(bed: Bed) {
    let store = Arc::new(bed.another().await);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..10u8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let fresh = ServerSecret {
                id: number.to_string(),
                kind: "signed_url".to_owned(),
                secret: vec![number; 32],
                created_at: 1,
            };
            store.server_secret_or(&fresh).await.unwrap()
        });
    }
    let kept = tasks.join_all().await;
    assert!(kept.iter().all(|secret| *secret == kept[0]));
    assert!(!format!("{:?}", kept[0]).contains(&format!("{:?}", kept[0].secret)));
}
