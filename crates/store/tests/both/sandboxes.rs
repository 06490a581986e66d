//! Sandboxes: life, filters, endings.

use crate::bed::Bed;
use crate::rows::{found, sandbox};
use crownest_store::{
    Ending, Expiry, Limit, PageRequest, Project, Sandbox, SandboxFilter, SandboxStatus, StoreError,
};
use std::collections::BTreeMap;
use std::sync::Arc;

on_both!(
    a_row_comes_back_as_it_went_in,
    metadata_filters_are_exact_and_all_must_hold,
    hostile_metadata_is_data,
    projects_narrow_the_list,
    of_many_endings_one_counts,
    an_ended_sandbox_stays_as_it_ended,
    extending_needs_a_live_sandbox,
    a_node_finds_its_own,
    the_overdue_come_first,
    a_sandbox_needs_a_project_of_its_organization,
);

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

async fn ids(bed: &Bed, filter: &SandboxFilter) -> Vec<String> {
    let page = bed
        .store
        .sandboxes("org_a", filter, &PageRequest::default())
        .await
        .unwrap();
    page.rows.into_iter().map(|row| row.id).collect()
}

async fn ids_with(bed: &Bed, wanted: &[(&str, &str)]) -> Vec<String> {
    ids(
        bed,
        &SandboxFilter {
            metadata: pairs(wanted),
            ..SandboxFilter::default()
        },
    )
    .await
}

fn ending(reason: &str) -> Ending<'_> {
    Ending {
        status: SandboxStatus::Destroyed,
        reason,
        at: 500,
    }
}

async fn a_row_comes_back_as_it_went_in(bed: Bed) {
    found(&bed.store, "a").await;
    let full = Sandbox {
        metadata: pairs(&[("é", "\u{1f980} \" '")]),
        ..sandbox("a", "1", 100)
    };
    let sparse = Sandbox {
        status: SandboxStatus::Creating,
        ready_at: None,
        runtime: None,
        ..sandbox("a", "2", 100)
    };
    for row in [&full, &sparse] {
        bed.store.insert_sandbox(row).await.unwrap();
        assert_eq!(&bed.store.sandbox("org_a", &row.id).await.unwrap(), row);
    }
    let twice = bed.store.insert_sandbox(&full).await;
    assert!(
        matches!(twice, Err(StoreError::Conflict { .. })),
        "{twice:?}"
    );

    assert!(
        bed.store
            .sandbox_is_ready("sbx_2", 140, "{}")
            .await
            .unwrap()
    );
    let ready = bed.store.sandbox("org_a", "sbx_2").await.unwrap();
    assert_eq!(
        (ready.status, ready.ready_at),
        (SandboxStatus::Ready, Some(140))
    );
    assert_eq!(ready.runtime.as_deref(), Some("{}"));
    assert!(
        bed.store
            .set_sandbox_status("sbx_2", SandboxStatus::Running)
            .await
            .unwrap()
    );
    let running = bed.store.sandbox("org_a", "sbx_2").await.unwrap();
    assert_eq!(running.status, SandboxStatus::Running);
    for terminal in [SandboxStatus::Destroyed, SandboxStatus::Failed] {
        let refused = bed.store.set_sandbox_status("sbx_2", terminal).await;
        assert!(
            matches!(refused, Err(StoreError::Invalid { .. })),
            "{refused:?}"
        );
    }
}

async fn metadata_filters_are_exact_and_all_must_hold(bed: Bed) {
    found(&bed.store, "a").await;
    let rows = [
        pairs(&[("agent.id", "x"), ("team", "red")]),
        pairs(&[("agent.id", "x"), ("team", "Red")]),
        pairs(&[("agent", "x")]),
        pairs(&[]),
    ];
    for (number, metadata) in (1..).zip(rows) {
        let row = Sandbox {
            metadata,
            ..sandbox("a", &number.to_string(), number)
        };
        bed.store.insert_sandbox(&row).await.unwrap();
    }
    assert_eq!(
        ids_with(&bed, &[]).await,
        ["sbx_4", "sbx_3", "sbx_2", "sbx_1"]
    );
    assert_eq!(
        ids_with(&bed, &[("agent.id", "x")]).await,
        ["sbx_2", "sbx_1"]
    );
    assert_eq!(
        ids_with(&bed, &[("agent.id", "x"), ("team", "red")]).await,
        ["sbx_1"]
    );
    assert_eq!(ids_with(&bed, &[("agent.id", "")]).await, [""; 0]);
    assert_eq!(ids_with(&bed, &[("id", "x")]).await, [""; 0]);
    assert_eq!(
        ids_with(&bed, &[("agent.id", "x"), ("none", "x")]).await,
        [""; 0]
    );
}

async fn hostile_metadata_is_data(bed: Bed) {
    found(&bed.store, "a").await;
    let nasty = [
        ("$.\"a\"", "' OR 1=1 --"),
        ("{}", "[\"x\"]"),
        ("%", "_"),
        ("", ""),
        ("n", "1"),
        ("b", "true"),
        ("z", "null"),
        ("\u{2028}\\u0041", "\u{7f}\u{1}\n"),
    ];
    let row = Sandbox {
        metadata: pairs(&nasty),
        ..sandbox("a", "1", 1)
    };
    bed.store.insert_sandbox(&row).await.unwrap();
    bed.store
        .insert_sandbox(&sandbox("a", "2", 2))
        .await
        .unwrap();
    for (key, value) in nasty {
        assert_eq!(ids_with(&bed, &[(key, value)]).await, ["sbx_1"], "{key:?}");
        assert_eq!(ids_with(&bed, &[(key, "other")]).await, [""; 0], "{key:?}");
    }
    // What PostgreSQL cannot look at is refused on both, stored or looked for.
    let nul = Sandbox {
        metadata: pairs(&[("k", "a\0b")]),
        ..sandbox("a", "3", 3)
    };
    let refused = bed.store.insert_sandbox(&nul).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid { .. })),
        "{refused:?}"
    );
    let filter = SandboxFilter {
        metadata: pairs(&[("k", "\0")]),
        ..SandboxFilter::default()
    };
    let refused = bed
        .store
        .sandboxes("org_a", &filter, &PageRequest::default())
        .await;
    assert!(
        matches!(refused, Err(StoreError::Invalid { .. })),
        "{refused:?}"
    );
}

async fn projects_narrow_the_list(bed: Bed) {
    let org_id = found(&bed.store, "a").await;
    let project = Project {
        id: "prj_2".to_owned(),
        org_id,
        name: "two".to_owned(),
        is_default: false,
        created_at: 11,
    };
    bed.store.insert_project(&project).await.unwrap();
    bed.store
        .insert_sandbox(&sandbox("a", "1", 1))
        .await
        .unwrap();
    let second = Sandbox {
        project_id: "prj_2".to_owned(),
        ..sandbox("a", "2", 2)
    };
    bed.store.insert_sandbox(&second).await.unwrap();
    let of = |projects: &[&str]| SandboxFilter {
        project_ids: Some(projects.iter().map(|id| (*id).to_owned()).collect()),
        ..SandboxFilter::default()
    };
    assert_eq!(ids(&bed, &of(&["prj_2"])).await, ["sbx_2"]);
    assert_eq!(
        ids(&bed, &of(&["prj_2", "prj_a"])).await,
        ["sbx_2", "sbx_1"]
    );
    assert_eq!(ids(&bed, &of(&[])).await, [""; 0]);
}

async fn of_many_endings_one_counts(bed: Bed) {
    found(&bed.store, "a").await;
    bed.store
        .insert_sandbox(&sandbox("a", "1", 1))
        .await
        .unwrap();
    let url = bed.url.clone();
    let stores = [Arc::new(bed.another().await), Arc::new(bed.another().await)];
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let store = Arc::clone(&stores[number % 2]);
        tasks.spawn(async move {
            let reason = format!("reason {number}");
            let changed = store.end_sandbox("sbx_1", ending(&reason)).await.unwrap();
            changed.then_some(reason)
        });
    }
    let winners: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let row = bed.store.sandbox("org_a", "sbx_1").await.unwrap();
    assert_eq!(winners, [row.destroyed_reason.unwrap()], "{url}");
}

async fn an_ended_sandbox_stays_as_it_ended(bed: Bed) {
    found(&bed.store, "a").await;
    for (id, at) in [("1", 1), ("2", 2), ("3", 3)] {
        bed.store
            .insert_sandbox(&sandbox("a", id, at))
            .await
            .unwrap();
    }
    assert!(
        bed.store
            .end_sandbox("sbx_1", ending("user_killed"))
            .await
            .unwrap()
    );
    let failed = Ending {
        status: SandboxStatus::Failed,
        reason: "init died",
        at: 501,
    };
    assert!(bed.store.end_sandbox("sbx_2", failed).await.unwrap());
    let not_an_end = Ending {
        status: SandboxStatus::Idle,
        reason: "",
        at: 1,
    };
    let refused = bed.store.end_sandbox("sbx_3", not_an_end).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid { .. })),
        "{refused:?}"
    );

    assert!(!bed.store.end_sandbox("sbx_1", failed).await.unwrap());
    assert!(!bed.store.sandbox_is_ready("sbx_1", 1, "{}").await.unwrap());
    assert!(
        !bed.store
            .set_sandbox_status("sbx_1", SandboxStatus::Running)
            .await
            .unwrap()
    );
    assert!(!bed.store.end_sandbox("sbx_none", failed).await.unwrap());

    let expected = Sandbox {
        status: SandboxStatus::Destroyed,
        destroyed_at: Some(500),
        destroyed_reason: Some("user_killed".to_owned()),
        ..sandbox("a", "1", 1)
    };
    assert_eq!(bed.store.sandbox("org_a", "sbx_1").await.unwrap(), expected);
    assert_eq!(ids(&bed, &SandboxFilter::default()).await, ["sbx_3"]);
    let all = SandboxFilter {
        include_ended: true,
        ..SandboxFilter::default()
    };
    assert_eq!(ids(&bed, &all).await, ["sbx_3", "sbx_2", "sbx_1"]);
    assert_eq!(bed.store.count_live_sandboxes("org_a").await.unwrap(), 1);

    // A row whose status and end time disagree is refused by the schema itself.
    let odd = Sandbox {
        status: SandboxStatus::Destroyed,
        ..sandbox("a", "4", 4)
    };
    let refused = bed.store.insert_sandbox(&odd).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid { .. })),
        "{refused:?}"
    );
}

async fn extending_needs_a_live_sandbox(bed: Bed) {
    found(&bed.store, "a").await;
    bed.store
        .insert_sandbox(&sandbox("a", "1", 1))
        .await
        .unwrap();
    let expiry = Expiry {
        ttl_ms: 5,
        expires_at: 777,
    };
    let row = bed
        .store
        .extend_sandbox("org_a", "sbx_1", expiry)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        row,
        Sandbox {
            ttl_ms: 5,
            expires_at: 777,
            ..sandbox("a", "1", 1)
        }
    );
    assert_eq!(
        bed.another().await.sandbox("org_a", "sbx_1").await.unwrap(),
        row
    );

    assert_eq!(
        bed.store
            .extend_sandbox("org_b", "sbx_1", expiry)
            .await
            .unwrap(),
        None
    );
    assert!(
        bed.store
            .end_sandbox("sbx_1", ending("ttl_expired"))
            .await
            .unwrap()
    );
    assert_eq!(
        bed.store
            .extend_sandbox("org_a", "sbx_1", expiry)
            .await
            .unwrap(),
        None
    );
}

async fn a_node_finds_its_own(bed: Bed) {
    found(&bed.store, "a").await;
    found(&bed.store, "b").await;
    let elsewhere = Sandbox {
        node_id: "node_2".to_owned(),
        ..sandbox("a", "3", 3)
    };
    for row in [
        &sandbox("b", "2", 2),
        &sandbox("a", "1", 1),
        &elsewhere,
        &sandbox("a", "4", 4),
    ] {
        bed.store.insert_sandbox(row).await.unwrap();
    }
    bed.store
        .end_sandbox("sbx_4", ending("user_killed"))
        .await
        .unwrap();
    let mine = bed.store.live_sandboxes_of_node("node_1").await.unwrap();
    assert_eq!(mine, [sandbox("a", "1", 1), sandbox("b", "2", 2)]);
}

async fn the_overdue_come_first(bed: Bed) {
    found(&bed.store, "a").await;
    for (id, expires_at) in [("1", 900), ("2", 300), ("3", 600), ("4", 100)] {
        let row = Sandbox {
            expires_at,
            ..sandbox("a", id, 1)
        };
        bed.store.insert_sandbox(&row).await.unwrap();
    }
    bed.store
        .end_sandbox("sbx_4", ending("user_killed"))
        .await
        .unwrap();
    let expired = async |node: &str, before, limit| -> Vec<String> {
        let limit = Limit::new(limit).unwrap();
        let rows = bed
            .store
            .expired_sandboxes(node, before, limit)
            .await
            .unwrap();
        rows.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(expired("node_1", 900, 10).await, ["sbx_2", "sbx_3"]);
    assert_eq!(
        expired("node_1", 901, 10).await,
        ["sbx_2", "sbx_3", "sbx_1"]
    );
    assert_eq!(expired("node_1", 901, 1).await, ["sbx_2"]);
    assert_eq!(expired("node_2", 901, 10).await, [""; 0]);
}

async fn a_sandbox_needs_a_project_of_its_organization(bed: Bed) {
    found(&bed.store, "a").await;
    found(&bed.store, "b").await;
    let foreign = Sandbox {
        project_id: "prj_b".to_owned(),
        ..sandbox("a", "1", 1)
    };
    let refused = bed.store.insert_sandbox(&foreign).await;
    assert!(
        matches!(refused, Err(StoreError::NotFound { .. })),
        "{refused:?}"
    );
}
