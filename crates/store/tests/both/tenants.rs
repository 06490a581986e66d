//! Tenants do not see each other: with a foreign organization's id every call answers as if the
//! row did not exist, and changes nothing.

use crate::bed::Bed;
use crate::rows::{api_key, audit_event, context, found, sandbox};
use crownest_store::{AuditFilter, Expiry, PageRequest, SandboxFilter, StoreError, UsageEvent};
use std::fmt::Debug;

on_both!(another_tenants_rows_do_not_exist);

#[allow(
    clippy::needless_pass_by_value,
    reason = "callers read better without borrowing"
)]
fn absent<T: Debug>(answer: Result<T, StoreError>) {
    assert!(
        matches!(answer, Err(StoreError::NotFound { .. })),
        "{answer:?}"
    );
}

async fn another_tenants_rows_do_not_exist(bed: Bed) {
    let store = &bed.store;
    found(store, "a").await;
    let spy = found(store, "spy").await;
    store.insert_api_key(&api_key("a", "1")).await.unwrap();
    store.insert_sandbox(&sandbox("a", "1", 1)).await.unwrap();
    store.insert_context(&context("a", "1", "1")).await.unwrap();
    store
        .insert_audit_events(&[audit_event("a", "1", 1)])
        .await
        .unwrap();
    let usage = UsageEvent {
        id: "use_1".to_owned(),
        org_id: "org_a".to_owned(),
        project_id: None,
        resource_id: None,
        metric: "sandbox_creates".to_owned(),
        amount: 1,
        created_at: 1,
    };
    store.insert_usage_events(&[usage]).await.unwrap();

    absent(store.user(&spy, "usr_a").await);
    absent(store.project(&spy, "prj_a").await);
    absent(store.api_key(&spy, "key_1").await);
    absent(store.revoke_api_key(&spy, "key_1", 9).await);
    absent(store.sandbox(&spy, "sbx_1").await);
    absent(store.context(&spy, "cctx_1").await);
    absent(store.delete_context(&spy, "cctx_1").await);
    absent(store.insert_context(&context("spy", "1", "2")).await);
    let expiry = Expiry {
        ttl_ms: 1,
        expires_at: 1,
    };
    assert_eq!(
        store.extend_sandbox(&spy, "sbx_1", expiry).await.unwrap(),
        None
    );
    assert_eq!(store.count_live_sandboxes(&spy).await.unwrap(), 0);

    let page = PageRequest::default();
    let foreign = ["prj_a".to_owned()];
    let all = SandboxFilter {
        include_ended: true,
        ..SandboxFilter::default()
    };
    let theirs = SandboxFilter {
        project_ids: Some(foreign.to_vec()),
        ..all.clone()
    };
    assert_eq!(
        store
            .projects(&spy, Some(&foreign), &page)
            .await
            .unwrap()
            .rows,
        []
    );
    assert_eq!(store.api_keys(&spy, &page).await.unwrap().rows, []);
    assert_eq!(store.sandboxes(&spy, &all, &page).await.unwrap().rows, []);
    assert_eq!(
        store.sandboxes(&spy, &theirs, &page).await.unwrap().rows,
        []
    );
    assert_eq!(store.contexts(&spy, "sbx_1", &page).await.unwrap().rows, []);
    let audit = AuditFilter {
        resource_id: Some("sbx_1"),
        ..AuditFilter::default()
    };
    assert_eq!(
        store.audit_events(&spy, &audit, &page).await.unwrap().rows,
        []
    );
    assert_eq!(
        store
            .audit_events(&spy, &AuditFilter::default(), &page)
            .await
            .unwrap()
            .rows,
        []
    );
    assert_eq!(store.usage_sums(&spy, &(0..99)).await.unwrap(), []);
    assert_eq!(
        store
            .usage_events(&spy, &(0..99), &page)
            .await
            .unwrap()
            .rows,
        []
    );

    // And nothing of it changed.
    assert_eq!(
        store.api_key("org_a", "key_1").await.unwrap(),
        api_key("a", "1")
    );
    assert_eq!(
        store.sandbox("org_a", "sbx_1").await.unwrap(),
        sandbox("a", "1", 1)
    );
    assert_eq!(
        store.context("org_a", "cctx_1").await.unwrap(),
        context("a", "1", "1")
    );
}
