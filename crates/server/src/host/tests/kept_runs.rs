//! Runs that outlive their server, questions, and lines that code asks for.

use super::{PATIENCE, cell, host, one, open, template, until};
use crate::host::{
    Heard, Host, HostError, KeptRun, KnownSandbox, Query, QuerySpec, RunEvent, RunOutcome,
    Runtimes, Sandbox,
};
use crownest_init::link::Request;
use std::sync::Arc;
use std::time::Duration;

const MIB: usize = 1024 * 1024;

/// All output of a run behind what was handled, and its end.
async fn finish(run: &mut KeptRun) -> (Vec<u8>, RunOutcome) {
    let mut output = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, run.next())
            .await
            .expect("an event in time");
        match next.expect("an end") {
            Heard::Event(RunEvent::Stdout(bytes)) => output.extend_from_slice(&bytes),
            Heard::Event(RunEvent::Done(done)) => return (output, done.outcome),
            other => panic!("{other:?}"),
        }
    }
}

async fn recovered(host: &Host, sandbox: &Sandbox) -> Arc<Sandbox> {
    let known = KnownSandbox {
        time_left: Duration::from_secs(60),
        key: sandbox.key().clone(),
        template: template(),
        runtimes: Runtimes::default(),
        egress: None,
    };
    let found = host.recover(&[known]).await.unwrap();
    assert_eq!(found.alive.len(), 1);
    host.get(sandbox.key()).unwrap()
}

fn question(timeout: Duration) -> QuerySpec {
    QuerySpec {
        context: "a".into(),
        query: Query::Variables { limit: 1 },
        code: r#"kernel {"ev":"answer","run":1,"answer":[1]}"#.into(),
        timeout,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_run_is_taken_up_where_its_log_ended() {
    let (spawner, first, sandbox, peer) = one().await;
    let number = sandbox.run_number();
    let spec = cell(&format!("flood {}", 3 * MIB));
    let mut run = sandbox.run_kept(number, spec).await.unwrap();
    let Some(Heard::Event(RunEvent::Stdout(begun))) = run.next().await else {
        panic!()
    };
    let (mut log, handled) = (begun.to_vec(), run.seq());
    first.shutdown().await;
    // What is said after that is not handled by this server, and nothing is interrupted.
    while run.next().await.is_some() {}
    drop(run);
    let second = host(&spawner).await;
    let again = recovered(&second, &sandbox).await;
    let found: Vec<u64> = again.recovered_runs().iter().map(|run| run.id).collect();
    assert_eq!(found, [number]);
    assert!(matches!(
        again.attach_run(number + 1, 0).await,
        Err(HostError::TargetUnknown)
    ));
    // It has the turn of its context.
    let mut next = Box::pin(again.run(cell("echo next")));
    assert!(futures_util::poll!(next.as_mut()).is_pending());
    let mut run = again.attach_run(number, handled).await.unwrap();
    assert!(again.recovered_runs().is_empty());
    let (rest, outcome) = finish(&mut run).await;
    log.extend_from_slice(&rest);
    assert_eq!(log.len(), 3 * MIB);
    assert!(
        log.iter()
            .enumerate()
            .all(|(at, byte)| *byte == super::peer::pattern(at)),
        "order of the bytes"
    );
    assert!(matches!(outcome, RunOutcome::Completed));
    assert_eq!(peer.targets(), 1, "kept until the end is acknowledged");
    run.acknowledge();
    next.await.unwrap();
    until("forgotten", || peer.targets() <= 1).await;
    assert!(
        !peer
            .state()
            .requests
            .contains(&Request::Interrupt { run: number })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_kept_run_outlives_lost_links() {
    let (_spawner, host, sandbox, peer) = one().await;
    let number = sandbox.run_number();
    let mut run = sandbox.run_kept(number, cell("echo hi")).await.unwrap();
    assert_eq!(finish(&mut run).await.0, b"hi");
    peer.cut();
    until("the link is there again", || host.metrics().reconnects == 1).await;
    assert_eq!(peer.targets(), 1, "its end was not handled");
    assert!(sandbox.recovered_runs().is_empty(), "somebody has it");
    run.acknowledge();
    until("forgotten", || peer.targets() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_run_without_a_record_is_given_up() {
    let (spawner, first, sandbox, peer) = one().await;
    let number = sandbox.run_number();
    drop(sandbox.run_kept(number, cell("hang")).await.unwrap());
    first.shutdown().await;
    let second = host(&spawner).await;
    let again = recovered(&second, &sandbox).await;
    again.give_up_run(number);
    until("its end", || peer.targets() == 0).await;
    // The context is free again.
    let mut run = again.run(cell("echo free")).await.unwrap();
    assert!(matches!(run.next().await, Some(RunEvent::Stdout(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_has_its_turn_and_its_answer() {
    let (_spawner, _host, sandbox, _peer) = one().await;
    let asked = sandbox.ask(question(PATIENCE)).await.unwrap();
    let done = asked.answer().await.unwrap();
    assert_eq!(done.answer.unwrap().get(), "[1]");
    assert!(matches!(done.outcome, RunOutcome::Completed));
    let busy = sandbox.run(cell("hang")).await.unwrap();
    let refused = sandbox.ask(question(Duration::from_millis(20))).await;
    assert!(matches!(refused, Err(HostError::ContextBusy)));
    drop(busy);
    let asked = sandbox.ask(question(PATIENCE)).await.unwrap();
    assert!(asked.answer().await.unwrap().answer.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_reaches_the_run_that_asked() {
    let (_spawner, _host, sandbox, peer) = one().await;
    open(&sandbox, "b").await;
    let mut run = sandbox
        .run(cell(
            r#"ask {"ev":"input","run":1,"prompt":"name","password":true}"#,
        ))
        .await
        .unwrap();
    let Some(RunEvent::Input {
        prompt,
        password: true,
    }) = run.next().await
    else {
        panic!()
    };
    assert_eq!(prompt, "name");
    let nobody = sandbox.answer_input(run.id() + 7, None).await;
    assert!(matches!(nobody, Err(HostError::InputNotAwaited)));
    let long = sandbox
        .answer_input(run.id(), Some("x".repeat(70_000)))
        .await;
    assert!(matches!(long, Err(HostError::TooLarge { .. })));
    sandbox
        .answer_input(run.id(), Some("Ada".into()))
        .await
        .unwrap();
    assert!(matches!(run.next().await, Some(RunEvent::Done(_))));
    let input = Request::Input {
        run: run.id(),
        eof: false,
    };
    assert!(peer.state().requests.contains(&input));
}
