//! Workspace runs: changes by version, events, uploads.

use crate::bed::Bed;
use crate::rows::{found, workspace_run};
use crownest_store::{
    Limit, PageRequest, StoreError, WorkspaceRun, WorkspaceRunEvent, WorkspaceRunStatus,
    WorkspaceRunUpload,
};

on_both!(
    a_run_comes_back_as_it_went_in,
    of_two_changes_of_one_version_one_counts,
    a_change_and_its_events_are_one,
    events_come_in_their_order,
    lists_are_narrowed_to_projects,
    what_a_starting_server_goes_on_with,
    uploads_are_counted_and_outlive_nothing,
);

fn event(run: &str, seq: i64) -> WorkspaceRunEvent {
    WorkspaceRunEvent {
        run_id: format!("wsr_{run}"),
        seq,
        at: 100 + seq,
        event: format!("{{\"n\":{seq}}}"),
    }
}

fn upload(run: &str, id: &str) -> WorkspaceRunUpload {
    WorkspaceRunUpload {
        id: format!("upl_{id}"),
        run_id: format!("wsr_{run}"),
        sha256: "ab".repeat(32),
        size_bytes: 1 << 40,
        status: "pending".to_owned(),
        created_at: 5,
        expires_at: 50,
    }
}

fn over(run: &WorkspaceRun) -> WorkspaceRun {
    WorkspaceRun {
        status: WorkspaceRunStatus::Succeeded,
        finished_at: Some(900),
        ..run.clone()
    }
}

async fn a_run_comes_back_as_it_went_in(bed: Bed) {
    found(&bed.store, "a").await;
    found(&bed.store, "b").await;
    let run = workspace_run("a", "1", 100);
    bed.store
        .insert_workspace_run(&run, &[event("1", 1)])
        .await
        .unwrap();
    assert_eq!(
        bed.store.workspace_run("org_a", "wsr_1").await.unwrap(),
        run
    );
    let foreign = bed.store.workspace_run("org_b", "wsr_1").await;
    assert!(matches!(foreign, Err(StoreError::NotFound { .. })));
    let twice = bed.store.insert_workspace_run(&run, &[]).await;
    assert!(matches!(twice, Err(StoreError::Conflict { .. })));
    let nowhere = WorkspaceRun {
        project_id: "prj_b".to_owned(),
        ..workspace_run("a", "2", 100)
    };
    let refused = bed.store.insert_workspace_run(&nowhere, &[]).await;
    assert!(matches!(refused, Err(StoreError::NotFound { .. })));
}

async fn of_two_changes_of_one_version_one_counts(bed: Bed) {
    found(&bed.store, "a").await;
    let run = workspace_run("a", "1", 100);
    bed.store.insert_workspace_run(&run, &[]).await.unwrap();
    let mut first = WorkspaceRun {
        status: WorkspaceRunStatus::Starting,
        ..run.clone()
    };
    let second = WorkspaceRun {
        state: "{\"canceled\":true}".to_owned(),
        ..run
    };
    assert!(bed.store.change_workspace_run(&first, &[]).await.unwrap());
    assert!(!bed.store.change_workspace_run(&second, &[]).await.unwrap());
    first.version = 2;
    assert_eq!(
        bed.store.workspace_run("org_a", "wsr_1").await.unwrap(),
        first
    );
    assert!(
        bed.store
            .change_workspace_run(&over(&first), &[])
            .await
            .unwrap()
    );
}

async fn a_change_and_its_events_are_one(bed: Bed) {
    found(&bed.store, "a").await;
    let run = workspace_run("a", "1", 100);
    bed.store
        .insert_workspace_run(&run, &[event("1", 1)])
        .await
        .unwrap();
    // The number is taken: nothing of it is written.
    let taken = bed
        .store
        .change_workspace_run(&over(&run), &[event("1", 2), event("1", 1)])
        .await;
    assert!(matches!(taken, Err(StoreError::Conflict { .. })));
    let stale = WorkspaceRun { version: 7, ..run };
    assert!(
        !bed.store
            .change_workspace_run(&stale, &[event("1", 3)])
            .await
            .unwrap()
    );
    let events = bed
        .store
        .workspace_run_events("wsr_1", 0, Limit::default())
        .await
        .unwrap();
    assert_eq!(events, [event("1", 1)]);
    let stored = bed.store.workspace_run("org_a", "wsr_1").await.unwrap();
    assert_eq!(stored.version, 1);
}

async fn events_come_in_their_order(bed: Bed) {
    found(&bed.store, "a").await;
    for id in ["1", "2"] {
        let events: Vec<_> = [1, 2, 700].map(|seq| event(id, seq)).into();
        bed.store
            .insert_workspace_run(&workspace_run("a", id, 100), &events)
            .await
            .unwrap();
    }
    let seqs = async |after, limit| {
        let limit = Limit::new(limit).unwrap();
        let events = bed
            .store
            .workspace_run_events("wsr_1", after, limit)
            .await
            .unwrap();
        events.iter().map(|event| event.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 2).await, [1, 2]);
    assert_eq!(seqs(1, 50).await, [2, 700]);
    assert_eq!(seqs(700, 50).await, [0; 0]);
}

async fn lists_are_narrowed_to_projects(bed: Bed) {
    found(&bed.store, "a").await;
    for (id, at) in [("1", 100), ("2", 200), ("3", 200)] {
        bed.store
            .insert_workspace_run(&workspace_run("a", id, at), &[])
            .await
            .unwrap();
    }
    let ids = async |projects: Option<Vec<String>>, page: PageRequest| {
        let page = bed
            .store
            .workspace_runs("org_a", projects.as_ref(), &page)
            .await
            .unwrap();
        let ids: Vec<_> = page.rows.into_iter().map(|run| run.id).collect();
        (ids, page.next)
    };
    let all = PageRequest::default;
    assert_eq!(ids(None, all()).await.0, ["wsr_3", "wsr_2", "wsr_1"]);
    assert_eq!(ids(Some(vec!["prj_a".into()]), all()).await.0.len(), 3);
    assert_eq!(ids(Some(vec!["prj_x".into()]), all()).await.0.len(), 0);
    let two = PageRequest {
        limit: Limit::new(2).unwrap(),
        ..all()
    };
    let (first, next) = ids(None, two.clone()).await;
    assert_eq!(first, ["wsr_3", "wsr_2"]);
    let (last, next) = ids(None, PageRequest { after: next, ..two }).await;
    assert_eq!((last, next), (vec!["wsr_1".to_owned()], None));
}

async fn what_a_starting_server_goes_on_with(bed: Bed) {
    found(&bed.store, "a").await;
    for (id, status, node) in [
        ("1", WorkspaceRunStatus::AwaitingArchive, "node_1"),
        ("2", WorkspaceRunStatus::ArchiveUploaded, "node_1"),
        ("3", WorkspaceRunStatus::Running, "node_1"),
        ("4", WorkspaceRunStatus::Collecting, "node_2"),
        ("5", WorkspaceRunStatus::Starting, "node_1"),
    ] {
        let run = WorkspaceRun {
            status,
            node_id: node.to_owned(),
            ..workspace_run("a", id, 100)
        };
        bed.store.insert_workspace_run(&run, &[]).await.unwrap();
    }
    let done = over(&workspace_run("a", "6", 100));
    bed.store.insert_workspace_run(&done, &[]).await.unwrap();
    let ids = |runs: Vec<WorkspaceRun>| runs.into_iter().map(|run| run.id).collect::<Vec<_>>();
    let active = bed.store.active_workspace_runs("node_1").await.unwrap();
    assert_eq!(ids(active), ["wsr_3", "wsr_5"]);
    let open = async |before| {
        let limit = Limit::default();
        ids(bed
            .store
            .open_workspace_runs("node_1", before, limit)
            .await
            .unwrap())
    };
    assert_eq!(open(100).await, [""; 0]);
    assert_eq!(open(101).await, ["wsr_1", "wsr_2", "wsr_3", "wsr_5"]);
}

async fn uploads_are_counted_and_outlive_nothing(bed: Bed) {
    found(&bed.store, "a").await;
    let run = workspace_run("a", "1", 100);
    bed.store.insert_workspace_run(&run, &[]).await.unwrap();
    for (id, added) in [("1", true), ("2", true), ("3", false)] {
        let upload = upload("1", id);
        let outcome = bed.store.insert_workspace_run_upload(&upload, 2).await;
        assert_eq!(outcome.unwrap(), added, "{id}");
    }
    let store = &bed.store;
    assert!(
        store
            .set_workspace_run_upload("upl_1", "uploaded")
            .await
            .unwrap()
    );
    assert!(
        store
            .set_workspace_run_upload("upl_1", "finalized")
            .await
            .unwrap()
    );
    assert!(
        !store
            .set_workspace_run_upload("upl_1", "uploaded")
            .await
            .unwrap()
    );
    let uploads = store.workspace_run_uploads("wsr_1").await.unwrap();
    let finalized = WorkspaceRunUpload {
        status: "finalized".to_owned(),
        ..upload("1", "1")
    };
    assert_eq!(uploads, [finalized, upload("1", "2")]);
    assert!(
        store
            .stale_workspace_run_uploads(10)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(store.change_workspace_run(&over(&run), &[]).await.unwrap());
    assert_eq!(
        store.stale_workspace_run_uploads(10).await.unwrap().len(),
        2
    );
    store.delete_workspace_run_upload("upl_1").await.unwrap();
    assert_eq!(store.stale_workspace_run_uploads(1).await.unwrap().len(), 1);
}
