//! First start, organizations, users, projects.

use crate::bed::Bed;
use crate::rows::{found, founding};
use crownest_store::{PageRequest, Project, StoreError};
use std::sync::Arc;

on_both!(
    the_first_start_makes_it_and_later_ones_find_it,
    of_many_first_starts_one_makes_it,
    a_founding_that_contradicts_itself_leaves_nothing,
    an_organization_comes_with_one_default_project,
    projects_can_be_narrowed_to_a_list,
    users_belong_to_an_organization,
);

async fn the_first_start_makes_it_and_later_ones_find_it(bed: Bed) {
    let first = bed.store.bootstrap(&founding("a")).await.unwrap();
    assert!(first.created);
    assert_eq!(first.founding, founding("a"));

    let again = bed.another().await.bootstrap(&founding("b")).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.founding, founding("a"));
    assert_eq!(
        bed.store.user("org_a", "usr_a").await.unwrap(),
        founding("a").user
    );
    let missing = bed.store.organization("org_b").await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing}");
}

async fn of_many_first_starts_one_makes_it(bed: Bed) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let store = Arc::new(bed.another().await);
        tasks.spawn(async move {
            store
                .bootstrap(&founding(&number.to_string()))
                .await
                .unwrap()
        });
    }
    let all = tasks.join_all().await;
    assert_eq!(all.iter().filter(|one| one.created).count(), 1);
    assert!(
        all.iter().all(|one| one.founding == all[0].founding),
        "all see the same"
    );
    let page = bed
        .store
        .organizations(&PageRequest::default())
        .await
        .unwrap();
    assert_eq!(page.rows.len(), 1);
}

async fn a_founding_that_contradicts_itself_leaves_nothing(bed: Bed) {
    let mut other = founding("a");
    other.user.org_id = "org_b".to_owned();
    assert!(matches!(
        bed.store.bootstrap(&other).await,
        Err(StoreError::Invalid { .. })
    ));
    let mut not_default = founding("a");
    not_default.project.is_default = false;
    assert!(matches!(
        bed.store.bootstrap(&not_default).await,
        Err(StoreError::Invalid { .. })
    ));
    let page = bed
        .store
        .organizations(&PageRequest::default())
        .await
        .unwrap();
    assert_eq!(page.rows, []);
}

async fn an_organization_comes_with_one_default_project(bed: Bed) {
    let org = found(&bed.store, "a").await;
    assert_eq!(bed.store.default_project(&org).await.unwrap().id, "prj_a");

    // A second organization whose project id is taken: neither row stays.
    let mut clash = founding("b");
    clash.project.id = "prj_a".to_owned();
    let refused = bed
        .store
        .insert_organization(&clash.organization, &clash.project)
        .await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    let missing = bed.store.organization("org_b").await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );

    let second = Project {
        id: "prj_2".to_owned(),
        ..founding("a").project
    };
    let refused = bed.store.insert_project(&second).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    bed.store
        .insert_project(&Project {
            is_default: false,
            ..second
        })
        .await
        .unwrap();
    assert_eq!(bed.store.default_project(&org).await.unwrap().id, "prj_a");
}

async fn projects_can_be_narrowed_to_a_list(bed: Bed) {
    let org = found(&bed.store, "a").await;
    for number in 1..=3_u8 {
        let project = Project {
            id: format!("prj_{number}"),
            org_id: org.clone(),
            name: "more".to_owned(),
            is_default: false,
            created_at: 10 + i64::from(number),
        };
        bed.store.insert_project(&project).await.unwrap();
    }
    let ids = |page: crownest_store::Page<Project>| -> Vec<String> {
        page.rows.into_iter().map(|row| row.id).collect()
    };
    let page = PageRequest::default();
    let all = bed.store.projects(&org, None, &page).await.unwrap();
    assert_eq!(ids(all), ["prj_3", "prj_2", "prj_1", "prj_a"]);
    let wanted = [
        "prj_2".to_owned(),
        "prj_a".to_owned(),
        "prj_elsewhere".to_owned(),
    ];
    let some = bed
        .store
        .projects(&org, Some(&wanted), &page)
        .await
        .unwrap();
    assert_eq!(ids(some), ["prj_2", "prj_a"]);
    let none = bed.store.projects(&org, Some(&[]), &page).await.unwrap();
    assert_eq!(ids(none), [""; 0]);

    let orphan = Project {
        org_id: "org_none".to_owned(),
        ..founding("x").project
    };
    let refused = bed.store.insert_project(&orphan).await;
    assert!(
        matches!(refused, Err(StoreError::NotFound { .. })),
        "{refused:?}"
    );
}

async fn users_belong_to_an_organization(bed: Bed) {
    let org = found(&bed.store, "a").await;
    let mut second = founding("a").user;
    second.id = "usr_2".to_owned();
    second.email = None;
    second.created_at = 11;
    bed.store.insert_user(&second).await.unwrap();
    let page = bed
        .store
        .users(&org, &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(page.rows, [second.clone(), founding("a").user]);
    assert_eq!(page.next, None);

    let twice = bed.store.insert_user(&second).await;
    assert!(
        matches!(twice, Err(StoreError::Conflict { .. })),
        "{twice:?}"
    );
    second.id = "usr_3".to_owned();
    second.org_id = "org_none".to_owned();
    let orphan = bed.store.insert_user(&second).await;
    assert!(
        matches!(orphan, Err(StoreError::NotFound { .. })),
        "{orphan:?}"
    );
}
