//! API keys.

use crate::bed::Bed;
use crate::rows::{api_key, found};
use crownest_store::{ApiKey, PageRequest, SecretHash, StoreError};

on_both!(
    a_key_is_found_by_its_secret_alone,
    revoking_keeps_the_first_time,
    last_use_only_moves_forward,
    a_secret_belongs_to_one_key,
);

async fn a_key_is_found_by_its_secret_alone(bed: Bed) {
    found(&bed.store, "a").await;
    let limited = ApiKey {
        project_ids: Some(vec!["prj_a".to_owned()]),
        scopes: vec![],
        ..api_key("a", "2")
    };
    bed.store.insert_api_key(&api_key("a", "1")).await.unwrap();
    bed.store.insert_api_key(&limited).await.unwrap();

    let found = bed
        .store
        .api_key_by_hash(&SecretHash::of("cn_live_2"))
        .await
        .unwrap();
    assert_eq!(found, Some(limited.clone()));
    let unknown = bed
        .store
        .api_key_by_hash(&SecretHash::of("cn_live_"))
        .await
        .unwrap();
    assert_eq!(unknown, None);
    let page = bed
        .store
        .api_keys("org_a", &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(page.rows, [limited, api_key("a", "1")]);
    // Neither the secret nor its digest shows up in a log line.
    assert!(format!("{:?}", page.rows[0]).contains("hash: SecretHash(..)"));
}

async fn revoking_keeps_the_first_time(bed: Bed) {
    found(&bed.store, "a").await;
    bed.store.insert_api_key(&api_key("a", "1")).await.unwrap();
    let expected = ApiKey {
        revoked_at: Some(50),
        ..api_key("a", "1")
    };
    assert_eq!(
        bed.store
            .revoke_api_key("org_a", "key_1", 50)
            .await
            .unwrap(),
        expected
    );
    assert_eq!(
        bed.store
            .revoke_api_key("org_a", "key_1", 99)
            .await
            .unwrap(),
        expected
    );
    // Committed when the call returned: another connection sees it.
    let seen = bed
        .another()
        .await
        .api_key_by_hash(&expected.hash)
        .await
        .unwrap();
    assert_eq!(seen, Some(expected));
    let missing = bed.store.revoke_api_key("org_a", "key_9", 50).await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );
}

async fn last_use_only_moves_forward(bed: Bed) {
    found(&bed.store, "a").await;
    bed.store.insert_api_key(&api_key("a", "1")).await.unwrap();
    bed.store.insert_api_key(&api_key("a", "2")).await.unwrap();
    bed.store.touch_api_keys(&[]).await.unwrap();
    bed.store
        .touch_api_keys(&[("key_1", 70), ("key_gone", 70), ("key_2", 71)])
        .await
        .unwrap();
    bed.store
        .touch_api_keys(&[("key_1", 60), ("key_2", 80)])
        .await
        .unwrap();
    let used = async |id| bed.store.api_key("org_a", id).await.unwrap().last_used_at;
    assert_eq!(used("key_1").await, Some(70));
    assert_eq!(used("key_2").await, Some(80));
}

async fn a_secret_belongs_to_one_key(bed: Bed) {
    found(&bed.store, "a").await;
    bed.store.insert_api_key(&api_key("a", "1")).await.unwrap();
    let same_secret = ApiKey {
        id: "key_2".to_owned(),
        ..api_key("a", "1")
    };
    let refused = bed.store.insert_api_key(&same_secret).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    let nobody = ApiKey {
        created_by_user_id: "usr_none".to_owned(),
        ..api_key("a", "3")
    };
    let refused = bed.store.insert_api_key(&nobody).await;
    assert!(
        matches!(refused, Err(StoreError::NotFound { .. })),
        "{refused:?}"
    );
}
