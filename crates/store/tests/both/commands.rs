//! Commands.

use crate::bed::Bed;
use crate::rows::{command, found, sandbox};
use crownest_store::{Command, CommandStatus, Ending, PageRequest, SandboxStatus, StoreError};

on_both!(
    commands_are_listed_and_found,
    a_command_ends_once,
    a_command_is_canceled_while_it_runs,
    a_command_needs_a_live_sandbox_of_its_organization,
    a_node_finds_what_ran_on_it,
);

async fn bed_with_sandboxes(bed: &Bed) {
    for name in ["a", "b"] {
        found(&bed.store, name).await;
        let row = sandbox(name, name, 1);
        bed.store.insert_sandbox(&row).await.unwrap();
    }
}

fn finished(command: Command) -> Command {
    Command {
        status: CommandStatus::Canceled,
        finished_at: Some(90),
        duration_ms: Some(12),
        exit_code: Some(143),
        termination_signal: Some("SIGTERM".to_owned()),
        cancel_mode: Some("graceful".to_owned()),
        canceled_at: Some(80),
        stdout_bytes: 5_000_000_000,
        stderr_bytes: 2,
        log_omitted_bytes: 4_000_000_000,
        collect_status: "partial".to_owned(),
        collect_errors: Some("[]".to_owned()),
        ..command
    }
}

async fn commands_are_listed_and_found(bed: Bed) {
    bed_with_sandboxes(&bed).await;
    let rows = [
        command("a", "a", "1"),
        Command {
            background: false,
            collect: Some("{}".to_owned()),
            terminal: Some("pty".to_owned()),
            ..command("a", "a", "2")
        },
    ];
    for row in rows.iter().chain([&command("b", "b", "3")]) {
        bed.store.insert_command(row).await.unwrap();
    }
    assert_eq!(bed.store.command("org_a", "cmd_2").await.unwrap(), rows[1]);
    let foreign = bed.store.command("org_a", "cmd_3").await;
    assert!(
        matches!(foreign, Err(StoreError::NotFound { what: "command" })),
        "{foreign:?}"
    );
    let page = PageRequest::default();
    let listed = bed.store.commands("org_a", "sbx_a", &page).await.unwrap();
    assert_eq!(listed.rows, [rows[1].clone(), rows[0].clone()]);
    let foreign = bed.store.commands("org_a", "sbx_b", &page).await.unwrap();
    assert_eq!(foreign.rows, []);
}

async fn a_command_ends_once(bed: Bed) {
    bed_with_sandboxes(&bed).await;
    let row = command("a", "a", "1");
    bed.store.insert_command(&row).await.unwrap();
    let unfinished = bed.store.finish_command(&row).await;
    assert!(
        matches!(unfinished, Err(StoreError::Invalid { .. })),
        "{unfinished:?}"
    );
    let ended = finished(row);
    assert!(bed.store.finish_command(&ended).await.unwrap());
    let late = Command {
        status: CommandStatus::Exited,
        ..ended.clone()
    };
    assert!(!bed.store.finish_command(&late).await.unwrap());
    assert_eq!(bed.store.command("org_a", "cmd_1").await.unwrap(), ended);
}

async fn a_command_is_canceled_while_it_runs(bed: Bed) {
    bed_with_sandboxes(&bed).await;
    let row = command("a", "a", "1");
    bed.store.insert_command(&row).await.unwrap();
    assert!(
        bed.store
            .cancel_command("cmd_1", "graceful", 70)
            .await
            .unwrap()
    );
    assert!(
        bed.store
            .cancel_command("cmd_1", "force", 75)
            .await
            .unwrap()
    );
    let canceled = bed.store.command("org_a", "cmd_1").await.unwrap();
    assert_eq!(canceled.cancel_mode.as_deref(), Some("force"));
    assert_eq!(
        canceled.canceled_at,
        Some(70),
        "when it was first asked for"
    );
    bed.store.finish_command(&finished(row)).await.unwrap();
    assert!(
        !bed.store
            .cancel_command("cmd_1", "force", 99)
            .await
            .unwrap()
    );
}

async fn a_command_needs_a_live_sandbox_of_its_organization(bed: Bed) {
    bed_with_sandboxes(&bed).await;
    let foreign = bed.store.insert_command(&command("a", "b", "1")).await;
    assert!(
        matches!(foreign, Err(StoreError::NotFound { what: "sandbox" })),
        "{foreign:?}"
    );
    let row = command("a", "a", "1");
    bed.store.insert_command(&row).await.unwrap();
    let again = bed.store.insert_command(&row).await;
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
    let late = bed.store.insert_command(&command("a", "a", "2")).await;
    assert!(
        matches!(late, Err(StoreError::NotFound { what: "sandbox" })),
        "{late:?}"
    );
}

async fn a_node_finds_what_ran_on_it(bed: Bed) {
    bed_with_sandboxes(&bed).await;
    for id in ["1", "2"] {
        bed.store
            .insert_command(&command("a", "a", id))
            .await
            .unwrap();
    }
    let ended = finished(command("a", "a", "1"));
    bed.store.finish_command(&ended).await.unwrap();
    let ending = Ending {
        status: SandboxStatus::Destroyed,
        reason: "user_killed",
        at: 60,
    };
    bed.store.end_sandbox("sbx_a", ending).await.unwrap();
    let found = bed.store.running_commands_of_node("node_1").await.unwrap();
    assert_eq!(found, [command("a", "a", "2")], "its sandbox may be gone");
    let elsewhere = bed.store.running_commands_of_node("node_2").await.unwrap();
    assert_eq!(elsewhere, []);
}
