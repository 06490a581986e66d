//! Code contexts.

use crate::bed::Bed;
use crate::rows::{context, found, sandbox};
use crownest_store::{Context, PageRequest, StoreError};
use std::sync::Arc;

on_both!(
    contexts_are_listed_found_and_removed,
    of_many_default_contexts_one_is_made,
    one_default_for_every_language,
    a_context_needs_a_sandbox_of_its_organization,
);

fn default(id: &str, language: &str) -> Context {
    Context {
        is_default: true,
        language: language.to_owned(),
        ..context("a", "1", id)
    }
}

async fn contexts_are_listed_found_and_removed(bed: Bed) {
    found(&bed.store, "a").await;
    bed.store
        .insert_sandbox(&sandbox("a", "1", 1))
        .await
        .unwrap();
    bed.store
        .insert_sandbox(&sandbox("a", "2", 1))
        .await
        .unwrap();
    let other = context("a", "2", "9");
    let rows = [
        context("a", "1", "1"),
        default("2", "python"),
        context("a", "1", "3"),
    ];
    for row in rows.iter().chain([&other]) {
        bed.store.insert_context(row).await.unwrap();
    }
    assert_eq!(bed.store.context("org_a", "cctx_2").await.unwrap(), rows[1]);
    let page = bed
        .store
        .contexts("org_a", "sbx_1", &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(
        page.rows,
        [rows[2].clone(), rows[1].clone(), rows[0].clone()]
    );

    assert_eq!(
        bed.store.delete_context("org_a", "cctx_1").await.unwrap(),
        rows[0]
    );
    let again = bed.store.delete_context("org_a", "cctx_1").await;
    assert!(
        matches!(again, Err(StoreError::NotFound { .. })),
        "{again:?}"
    );
    assert_eq!(
        bed.store.delete_contexts_of_sandbox("sbx_1").await.unwrap(),
        2
    );
    assert_eq!(
        bed.store.delete_contexts_of_sandbox("sbx_1").await.unwrap(),
        0
    );
    assert_eq!(bed.store.context("org_a", "cctx_9").await.unwrap(), other);
}

async fn of_many_default_contexts_one_is_made(bed: Bed) {
    found(&bed.store, "a").await;
    bed.store
        .insert_sandbox(&sandbox("a", "1", 1))
        .await
        .unwrap();
    let store = Arc::new(bed.another().await);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            match store
                .insert_context(&default(&number.to_string(), "python"))
                .await
            {
                Ok(()) => true,
                Err(StoreError::Conflict { .. }) => false,
                Err(other) => panic!("{other}"),
            }
        });
    }
    let made = tasks
        .join_all()
        .await
        .into_iter()
        .filter(|made| *made)
        .count();
    assert_eq!(made, 1);
    let found = bed
        .store
        .default_context("org_a", "sbx_1", "python")
        .await
        .unwrap();
    assert!(found.unwrap().is_default);
}

async fn one_default_for_every_language(bed: Bed) {
    found(&bed.store, "a").await;
    bed.store
        .insert_sandbox(&sandbox("a", "1", 1))
        .await
        .unwrap();
    bed.store
        .insert_context(&context("a", "1", "0"))
        .await
        .unwrap();
    assert_eq!(
        bed.store
            .default_context("org_a", "sbx_1", "python")
            .await
            .unwrap(),
        None
    );
    bed.store
        .insert_context(&default("1", "python"))
        .await
        .unwrap();
    bed.store
        .insert_context(&default("2", "javascript"))
        .await
        .unwrap();
    let found = async |org, language| {
        bed.store
            .default_context(org, "sbx_1", language)
            .await
            .unwrap()
            .map(|row| row.id)
    };
    assert_eq!(found("org_a", "python").await.as_deref(), Some("cctx_1"));
    assert_eq!(
        found("org_a", "javascript").await.as_deref(),
        Some("cctx_2")
    );
    assert_eq!(found("org_a", "go").await, None);
    assert_eq!(found("org_b", "python").await, None);
    // A removed default makes room for another.
    bed.store.delete_context("org_a", "cctx_1").await.unwrap();
    bed.store
        .insert_context(&default("3", "python"))
        .await
        .unwrap();
    assert_eq!(found("org_a", "python").await.as_deref(), Some("cctx_3"));
}

async fn a_context_needs_a_sandbox_of_its_organization(bed: Bed) {
    found(&bed.store, "a").await;
    found(&bed.store, "b").await;
    bed.store
        .insert_sandbox(&sandbox("a", "1", 1))
        .await
        .unwrap();
    for row in [context("b", "1", "1"), context("a", "none", "2")] {
        let refused = bed.store.insert_context(&row).await;
        assert!(
            matches!(refused, Err(StoreError::NotFound { .. })),
            "{refused:?}"
        );
    }
}
