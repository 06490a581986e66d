//! Previews: one for each port, few for each tenant, charged for exactly once.

use crate::bed::Bed;
use crate::rows::{found, preview, sandbox};
use crownest_store::{
    Ending, PREVIEW_MINUTES_METRIC, PageRequest, PreviewInserted, PreviewLimits, SandboxStatus,
    SecretHash, StoreError,
};
use std::sync::Arc;

on_both!(
    a_port_has_one_active_preview,
    few_are_active_at_the_same_time,
    of_many_insertions_at_once_as_many_pass_as_may,
    a_token_is_taken_once,
    a_revoked_preview_is_charged_once_and_stays_as_a_record,
    previews_end_with_their_sandbox_and_never_after_its_expiry,
    previews_left_over_by_a_kill_are_found,
);

const MINUTE: i64 = 60_000_000;
const LIMITS: PreviewLimits = PreviewLimits {
    per_sandbox: 3,
    per_org: 5,
};

/// Organizations a and b; sandboxes 1 and 2 of a, 3 of b.
async fn tenants(bed: &Bed) {
    for (org, sandboxes) in [("a", &["1", "2"][..]), ("b", &["3"])] {
        found(&bed.store, org).await;
        for id in sandboxes {
            let row = sandbox(org, id, 20);
            bed.store.insert_sandbox(&row).await.unwrap();
        }
    }
}

async fn insert(bed: &Bed, org: &str, sandbox: &str, id: &str, port: i64) -> PreviewInserted {
    let row = preview(org, sandbox, id, port);
    bed.store.insert_preview(&row, LIMITS).await.unwrap()
}

async fn end(bed: &Bed, sandbox: &str, at: i64) {
    let ending = Ending {
        status: SandboxStatus::Destroyed,
        reason: "user_killed",
        at,
    };
    assert!(bed.store.end_sandbox(sandbox, ending).await.unwrap());
}

async fn charged(bed: &Bed, org: &str) -> (i64, i64) {
    let sums = bed.store.usage_sums(org, &(0..i64::MAX)).await.unwrap();
    sums.iter()
        .find(|sum| sum.metric == PREVIEW_MINUTES_METRIC)
        .map_or((0, 0), |sum| (sum.amount, sum.events))
}

async fn a_port_has_one_active_preview(bed: Bed) {
    tenants(&bed).await;
    assert_eq!(insert(&bed, "a", "1", "1", 80).await, PreviewInserted::New);
    let first = preview("a", "1", "1", 80);
    assert_eq!(
        insert(&bed, "a", "1", "2", 80).await,
        PreviewInserted::Existing(Box::new(first.clone()))
    );
    assert_eq!(insert(&bed, "a", "2", "3", 80).await, PreviewInserted::New);
    bed.store
        .revoke_preview("org_a", "prv_1", 40)
        .await
        .unwrap();
    assert_eq!(insert(&bed, "a", "1", "4", 80).await, PreviewInserted::New);

    let page = bed
        .store
        .previews("org_a", "sbx_1", &PageRequest::default())
        .await
        .unwrap();
    let ids: Vec<_> = page.rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["prv_4", "prv_1"], "newest first, ended ones too");
    let by_slug = async |slug| bed.store.active_preview_by_slug(slug).await.unwrap();
    assert_eq!(by_slug("p-4").await, Some(preview("a", "1", "4", 80)));
    assert_eq!(by_slug("p-1").await, None, "revoked");

    for (org, id) in [("org_b", "prv_4"), ("org_a", "prv_9")] {
        let refused = bed.store.preview(org, id).await;
        assert!(matches!(refused, Err(StoreError::NotFound { .. })));
        let refused = bed.store.revoke_preview(org, id, 50).await;
        assert!(matches!(refused, Err(StoreError::NotFound { .. })));
    }
    let foreign = preview("b", "1", "5", 81);
    let refused = bed.store.insert_preview(&foreign, LIMITS).await;
    assert!(matches!(refused, Err(StoreError::NotFound { .. })));
}

async fn few_are_active_at_the_same_time(bed: Bed) {
    tenants(&bed).await;
    for (id, port) in [("1", 1), ("2", 2), ("3", 3)] {
        assert_eq!(insert(&bed, "a", "1", id, port).await, PreviewInserted::New);
    }
    let full = insert(&bed, "a", "1", "4", 4).await;
    assert_eq!(full, PreviewInserted::SandboxFull);
    for (id, port) in [("5", 1), ("6", 2)] {
        assert_eq!(insert(&bed, "a", "2", id, port).await, PreviewInserted::New);
    }
    let full = insert(&bed, "a", "2", "7", 3).await;
    assert_eq!(full, PreviewInserted::OrgFull);
    assert_eq!(bed.store.count_active_previews("org_a").await.unwrap(), 5);
    assert_eq!(insert(&bed, "b", "3", "8", 1).await, PreviewInserted::New);
    bed.store
        .revoke_preview("org_a", "prv_1", 40)
        .await
        .unwrap();
    assert_eq!(insert(&bed, "a", "2", "7", 3).await, PreviewInserted::New);
}

async fn of_many_insertions_at_once_as_many_pass_as_may(bed: Bed) {
    tenants(&bed).await;
    let store = Arc::new(bed.another().await);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let id = number.to_string();
            let row = preview("a", ["1", "2"][number % 2], &id, 1 + number as i64);
            store.insert_preview(&row, LIMITS).await.unwrap()
        });
    }
    let outcomes = tasks.join_all().await;
    let made = outcomes.iter().filter(|one| **one == PreviewInserted::New);
    assert_eq!(made.count(), 5);
    assert_eq!(bed.store.count_active_previews("org_a").await.unwrap(), 5);
}

async fn a_token_is_taken_once(bed: Bed) {
    tenants(&bed).await;
    insert(&bed, "a", "1", "1", 80).await;
    let take = async |id: &str, token: &str| {
        let token = SecretHash::of(token);
        bed.store.take_preview_token(id, &token).await.unwrap()
    };
    assert!(!take("prv_1", "pvt_2").await);
    assert!(!take("prv_2", "pvt_1").await);
    assert!(take("prv_1", "pvt_1").await);
    assert!(!take("prv_1", "pvt_1").await);

    insert(&bed, "a", "1", "2", 81).await;
    bed.store
        .revoke_preview("org_a", "prv_2", 40)
        .await
        .unwrap();
    assert!(!take("prv_2", "pvt_2").await, "revoked");
}

async fn a_revoked_preview_is_charged_once_and_stays_as_a_record(bed: Bed) {
    tenants(&bed).await;
    insert(&bed, "a", "1", "1", 80).await;
    let at = 30 + MINUTE + 1;
    let revoked = bed
        .store
        .revoke_preview("org_a", "prv_1", at)
        .await
        .unwrap();
    assert_eq!((revoked.revoked_at, revoked.ended_at), (Some(at), Some(at)));
    let again = bed
        .store
        .revoke_preview("org_a", "prv_1", at + MINUTE)
        .await
        .unwrap();
    assert_eq!(again, revoked);
    assert_eq!(bed.store.preview("org_a", "prv_1").await.unwrap(), revoked);
    end(&bed, "sbx_1", at + MINUTE).await;
    let left = bed
        .store
        .end_previews_of_sandbox("sbx_1", at + MINUTE)
        .await;
    assert_eq!(left.unwrap(), []);
    assert_eq!(charged(&bed, "org_a").await, (2, 1));
}

async fn previews_end_with_their_sandbox_and_never_after_its_expiry(bed: Bed) {
    tenants(&bed).await;
    insert(&bed, "a", "1", "1", 80).await;
    insert(&bed, "a", "1", "2", 81).await;
    insert(&bed, "a", "2", "3", 80).await;
    // Found dead long after its time was over, which is a minute after 20.
    end(&bed, "sbx_1", 20 + 60 * MINUTE).await;
    let ended = bed
        .store
        .end_previews_of_sandbox("sbx_1", 99 * MINUTE)
        .await
        .unwrap();
    assert_eq!(ended.len(), 2);
    for row in ended {
        assert_eq!((row.ended_at, row.revoked_at), (Some(20 + MINUTE), None));
    }
    assert_eq!(charged(&bed, "org_a").await, (2, 2));
    assert_eq!(bed.store.count_active_previews("org_a").await.unwrap(), 1);
    let row = preview("a", "1", "4", 90);
    let refused = bed.store.insert_preview(&row, LIMITS).await;
    assert!(matches!(refused, Err(StoreError::NotFound { .. })));
}

async fn previews_left_over_by_a_kill_are_found(bed: Bed) {
    tenants(&bed).await;
    insert(&bed, "a", "1", "1", 80).await;
    insert(&bed, "a", "2", "2", 80).await;
    let left = async || {
        let found = bed.store.ended_sandboxes_with_previews("node_1").await;
        found.unwrap()
    };
    assert_eq!(left().await, Vec::<String>::new());
    end(&bed, "sbx_1", 40).await;
    assert_eq!(left().await, ["sbx_1"]);
    let ended = bed.store.end_previews_of_sandbox("sbx_1", 99 * MINUTE);
    assert_eq!(ended.await.unwrap()[0].ended_at, Some(40));
    assert_eq!(left().await, Vec::<String>::new());
}
