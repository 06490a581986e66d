//! Detached code runs.

use crate::bed::Bed;
use crate::rows::{code_run, found, sandbox};
use crownest_store::{CodeRun, CodeRunStatus, Ending, PageRequest, SandboxStatus, StoreError};

on_both!(
    runs_are_listed_without_results_and_found_with_them,
    a_run_begins_and_ends_once,
    a_run_is_canceled_while_it_is_unfinished,
    a_run_needs_a_live_sandbox_of_its_organization,
    a_node_finds_what_is_unfinished,
    runs_go_when_their_time_is_over,
);

async fn bed_with_sandboxes(bed: &Bed) {
    for name in ["a", "b"] {
        found(&bed.store, name).await;
        let row = sandbox(name, name, 1);
        bed.store.insert_sandbox(&row).await.unwrap();
    }
}

fn ended(run: CodeRun, at: i64) -> CodeRun {
    CodeRun {
        status: CodeRunStatus::ContextDied,
        code: None,
        finished_at: Some(at),
        canceled_at: Some(80),
        log_omitted_bytes: 5_000_000_000,
        result: Some("{\"stdout\":[\"\\u0000\"]}".to_owned()),
        failure: Some("{}".to_owned()),
        ..run
    }
}

async fn runs_are_listed_without_results_and_found_with_them(bed: Bed) {
    bed_with_sandboxes(&bed).await;
    let rows = [code_run("a", "a", "1"), code_run("a", "a", "2")];
    for row in rows.iter().chain([&code_run("b", "b", "3")]) {
        bed.store.insert_code_run(row).await.unwrap();
    }
    let finished = ended(rows[0].clone(), 90);
    assert!(bed.store.finish_code_run(&finished).await.unwrap());
    let get = |org, sandbox, id| bed.store.code_run(org, sandbox, id);
    assert_eq!(get("org_a", "sbx_a", "crun_1").await.unwrap(), finished);
    assert_eq!(get("org_a", "sbx_a", "crun_2").await.unwrap(), rows[1]);
    for (org, sandbox, id) in [
        ("org_a", "sbx_a", "crun_3"),
        ("org_a", "sbx_b", "crun_1"),
        ("org_b", "sbx_a", "crun_1"),
    ] {
        let foreign = get(org, sandbox, id).await;
        assert!(
            matches!(foreign, Err(StoreError::NotFound { what: "code run" })),
            "{foreign:?}"
        );
    }
    let page = PageRequest::default();
    let listed = bed.store.code_runs("org_a", "sbx_a", &page).await.unwrap();
    let [second, first] = &listed.rows[..] else {
        panic!("{listed:?}")
    };
    assert_eq!((&second.id[..], &second.code), ("crun_2", &None));
    assert_eq!((first.status, &first.result), (finished.status, &None));
    let foreign = bed.store.code_runs("org_a", "sbx_b", &page).await.unwrap();
    assert_eq!(foreign.rows, []);
}

async fn a_run_begins_and_ends_once(bed: Bed) {
    bed_with_sandboxes(&bed).await;
    let row = code_run("a", "a", "1");
    bed.store.insert_code_run(&row).await.unwrap();
    assert!(bed.store.begin_code_run("crun_1", "{2}", 50).await.unwrap());
    let running = CodeRun {
        status: CodeRunStatus::Running,
        code: None,
        options: "{2}".to_owned(),
        begun_at: Some(50),
        ..row.clone()
    };
    let found = bed.store.code_run("org_a", "sbx_a", "crun_1").await;
    assert_eq!(found.unwrap(), running, "its source is forgotten");
    let unfinished = bed.store.finish_code_run(&running).await;
    assert!(
        matches!(unfinished, Err(StoreError::Invalid { .. })),
        "{unfinished:?}"
    );
    let finished = ended(running, 90);
    assert!(bed.store.finish_code_run(&finished).await.unwrap());
    let late = CodeRun {
        status: CodeRunStatus::Completed,
        ..finished.clone()
    };
    assert!(!bed.store.finish_code_run(&late).await.unwrap());
    assert!(!bed.store.begin_code_run("crun_1", "{}", 95).await.unwrap());
    let found = bed.store.code_run("org_a", "sbx_a", "crun_1").await;
    assert_eq!(found.unwrap(), finished);
}

async fn a_run_is_canceled_while_it_is_unfinished(bed: Bed) {
    bed_with_sandboxes(&bed).await;
    let row = code_run("a", "a", "1");
    bed.store.insert_code_run(&row).await.unwrap();
    assert!(bed.store.cancel_code_run("crun_1", 70).await.unwrap());
    assert!(bed.store.cancel_code_run("crun_1", 75).await.unwrap());
    let found = bed.store.code_run("org_a", "sbx_a", "crun_1").await;
    assert_eq!(
        found.unwrap().canceled_at,
        Some(70),
        "when it was first asked for"
    );
    let finished = ended(row, 90);
    bed.store.finish_code_run(&finished).await.unwrap();
    assert!(!bed.store.cancel_code_run("crun_1", 99).await.unwrap());
}

async fn a_run_needs_a_live_sandbox_of_its_organization(bed: Bed) {
    bed_with_sandboxes(&bed).await;
    let foreign = bed.store.insert_code_run(&code_run("a", "b", "1")).await;
    assert!(
        matches!(foreign, Err(StoreError::NotFound { what: "sandbox" })),
        "{foreign:?}"
    );
    let row = code_run("a", "a", "1");
    bed.store.insert_code_run(&row).await.unwrap();
    let again = bed.store.insert_code_run(&row).await;
    assert!(
        matches!(again, Err(StoreError::Conflict { .. })),
        "{again:?}"
    );
    let ending = Ending {
        status: SandboxStatus::Destroyed,
        reason: "user_killed",
        at: 60,
    };
    bed.store.end_sandbox("sbx_a", ending).await.unwrap();
    let late = bed.store.insert_code_run(&code_run("a", "a", "2")).await;
    assert!(
        matches!(late, Err(StoreError::NotFound { what: "sandbox" })),
        "{late:?}"
    );
}

async fn a_node_finds_what_is_unfinished(bed: Bed) {
    bed_with_sandboxes(&bed).await;
    for id in ["1", "2", "3"] {
        let row = code_run("a", "a", id);
        bed.store.insert_code_run(&row).await.unwrap();
    }
    bed.store.begin_code_run("crun_2", "{}", 50).await.unwrap();
    let finished = ended(code_run("a", "a", "1"), 90);
    bed.store.finish_code_run(&finished).await.unwrap();
    let found = bed.store.unfinished_code_runs_of_node("node_1").await;
    let found = found.unwrap();
    let ids: Vec<_> = found.iter().map(|run| (&run.id[..], run.status)).collect();
    let (running, queued) = (CodeRunStatus::Running, CodeRunStatus::Queued);
    assert_eq!(ids, [("crun_2", running), ("crun_3", queued)]);
    assert_eq!(found[1].code, code_run("a", "a", "3").code);
    let elsewhere = bed.store.unfinished_code_runs_of_node("node_2").await;
    assert_eq!(elsewhere.unwrap(), []);
}

async fn runs_go_when_their_time_is_over(bed: Bed) {
    bed_with_sandboxes(&bed).await;
    for (id, at) in [
        ("1", Some(10)),
        ("2", Some(20)),
        ("3", Some(30)),
        ("4", None),
    ] {
        let row = code_run("a", "a", id);
        bed.store.insert_code_run(&row).await.unwrap();
        if let Some(at) = at {
            bed.store.finish_code_run(&ended(row, at)).await.unwrap();
        }
    }
    let over = bed.store.code_runs_ended_before(30, 10).await.unwrap();
    assert_eq!(over, ["crun_1", "crun_2"]);
    let first = bed.store.code_runs_ended_before(30, 1).await.unwrap();
    assert_eq!(first, ["crun_1"]);
    assert!(bed.store.delete_code_run("crun_1").await.unwrap());
    assert!(!bed.store.delete_code_run("crun_1").await.unwrap());
    assert!(!bed.store.delete_code_run("crun_4").await.unwrap());
    let page = PageRequest::default();
    let left = bed.store.code_runs("org_a", "sbx_a", &page).await.unwrap();
    assert_eq!(left.rows.len(), 3);
}
