//! Runs, processes and contexts over a link that is slow, lost, or hostile.

use super::peer::pattern;
use super::{PATIENCE, cell, config, host, one, open, spec, template, until};
use crate::host::inbox::Inbox;
use crate::host::link::Link;
use crate::host::{
    ClosedReason, Exec, ExecEnd, ExecEvent, ExecSpec, Host, HostError, KnownSandbox, Run, RunEvent,
    RunOutcome, Runtimes,
};
use bytes::Bytes;
use crownest_init::identity::Identity;
use crownest_init::link::{Call, Request, WINDOW_BYTES_MAX};
use crownest_init::terminal::Stdin;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Waker};
use std::time::Duration;

const MIB: usize = 1024 * 1024;

/// All output of a run, and its end.
async fn finish(run: &mut Run) -> (Vec<u8>, RunOutcome) {
    let mut output = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, run.next())
            .await
            .expect("an event in time");
        match next.expect("an end") {
            RunEvent::Stdout(bytes) => output.extend_from_slice(&bytes),
            RunEvent::Done(done) => return (output, done.outcome),
            other => panic!("{other:?}"),
        }
    }
}

async fn finish_exec(exec: &mut Exec) -> (Vec<u8>, ExecEnd) {
    let mut output = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, exec.next())
            .await
            .expect("an event in time");
        match next.expect("an end") {
            ExecEvent::Stdout(bytes) => output.extend_from_slice(&bytes),
            ExecEvent::Stderr(_) => panic!("nothing writes there"),
            ExecEvent::Done(done) => return (output, done.outcome),
        }
    }
}

fn assert_whole(output: &[u8], length: usize) {
    assert_eq!(output.len(), length);
    assert!(
        output
            .iter()
            .enumerate()
            .all(|(i, byte)| *byte == pattern(i)),
        "order of the bytes"
    );
}

fn program(argv: &[&str]) -> ExecSpec {
    ExecSpec {
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        cwd: "/workspace".into(),
        env: BTreeMap::new(),
        timeout: None,
        identity: Identity::default(),
        stdin: Stdin::Null,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cell_says_something_and_is_forgotten() {
    let (_spawner, host, sandbox, peer) = one().await;
    let mut run = sandbox.run(cell("echo hello")).await.unwrap();
    let (output, outcome) = finish(&mut run).await;
    assert_eq!(output, b"hello");
    assert!(matches!(outcome, RunOutcome::Completed));
    assert!(run.next().await.is_none());
    until("the end is acknowledged", || peer.targets() == 0).await;
    assert_eq!(host.metrics().runs_alive, 0);
    assert_eq!(sandbox.calls.in_flight(), 0, "nothing waits for an answer");
}

#[tokio::test]
async fn what_nobody_waits_for_travels_with_the_next_frame() {
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let link = Link::from_stream(ours);
    let mut inbox = Inbox::default();
    let mut buffer = [0; 4_096];
    link.send_sometime(Request::Ack { target: 7, seq: 1 });
    let nothing = inbox.receive(theirs.as_fd(), &mut buffer);
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::WouldBlock);
    link.send(9, Request::Interrupt { run: 8 }).unwrap();
    let received = inbox.receive(theirs.as_fd(), &mut buffer).unwrap();
    assert!(received.is_all);
    let mut calls = Vec::new();
    while let Some(frame) = inbox.next_frame().unwrap() {
        calls.push(serde_json::from_slice::<Call>(&frame.head).unwrap().request);
    }
    let expected = [
        Request::Ack { target: 7, seq: 1 },
        Request::Interrupt { run: 8 },
    ];
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn a_read_that_ends_behind_descriptors_is_not_taken_for_all() {
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let link = Link::from_stream(ours);
    let mut inbox = Inbox::default();
    let mut buffer = [0; 4_096];
    let adopt = || Request::ContextAdopt {
        language: "python".into(),
    };
    let fd = || vec![std::io::stdin().as_fd().try_clone_to_owned().unwrap()];
    for id in [1, 2] {
        link.send_with(id, adopt(), Bytes::new(), fd()).unwrap();
    }
    let mut frames = 0;
    for read in [1, 2] {
        let received = inbox.receive(theirs.as_fd(), &mut buffer).unwrap();
        assert!(!received.is_all, "read {read}");
        while inbox.next_frame().unwrap().is_some() {
            assert_eq!(inbox.take_fds(1).unwrap().len(), 1);
            frames += 1;
        }
    }
    assert_eq!(frames, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rich_events_are_parsed_and_nonsense_is_counted() {
    let (_spawner, host, sandbox, _peer) = one().await;
    let json = r#"kernel {"ev":"result","run":1,"data":{"text/plain":"2"},"count":1}"#;
    let mut run = sandbox.run(cell(json)).await.unwrap();
    let Some(RunEvent::Result(bundle)) = run.next().await else {
        panic!()
    };
    assert!(bundle.get("text/plain").is_some());
    assert!(matches!(run.next().await, Some(RunEvent::Done(_))));
    let mut run = sandbox
        .run(cell(r#"kernel {"ev":"nonsense"}"#))
        .await
        .unwrap();
    assert!(matches!(run.next().await, Some(RunEvent::Done(_))));
    assert_eq!(host.metrics().events_dropped, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_stops_the_program_and_loses_nothing() {
    let (_spawner, _host, sandbox, peer) = one().await;
    let mut run = sandbox
        .run(cell(&format!("flood {}", 8 * MIB)))
        .await
        .unwrap();
    until("the window is full", || {
        peer.flooded(run.id()) >= WINDOW_BYTES_MAX - 64 * 1024
    })
    .await;
    // Another run goes through the same link while this one stands still.
    open(&sandbox, "b").await;
    let mut other = cell("echo x");
    other.context = "b".into();
    finish(&mut sandbox.run(other).await.unwrap()).await;
    assert!(
        peer.flooded(run.id()) <= WINDOW_BYTES_MAX + 64 * 1024,
        "nothing was acknowledged"
    );
    let (output, _) = finish(&mut run).await;
    assert_whole(&output, 8 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_bytes_do_not_starve_the_window() {
    let (_spawner, _host, sandbox, _peer) = one().await;
    let mut run = sandbox.run(cell("drip 20000")).await.unwrap();
    let (output, _) = finish(&mut run).await;
    assert_whole(&output, 20_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_run_is_interrupted_and_drained() {
    let (_spawner, host, sandbox, peer) = one().await;
    let run = sandbox
        .run(cell(&format!("flood {}", 64 * MIB)))
        .await
        .unwrap();
    let id = run.id();
    drop(run);
    let mut next = sandbox.run(cell("echo after")).await.unwrap();
    assert_eq!(finish(&mut next).await.0, b"after");
    until("all is acknowledged", || peer.targets() == 0).await;
    assert!(
        peer.state()
            .requests
            .contains(&Request::Interrupt { run: id })
    );
    assert_eq!(host.metrics().runs_abandoned, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_ends_the_run_and_keeps_the_context() {
    let (_spawner, _host, sandbox, _peer) = one().await;
    let mut run = sandbox.run(cell("hang")).await.unwrap();
    sandbox.interrupt_run(run.id()).await.unwrap();
    assert!(matches!(finish(&mut run).await.1, RunOutcome::Interrupted));
    assert!(sandbox.has_context("a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_link_loses_and_repeats_nothing() {
    let (_spawner, host, sandbox, peer) = one().await;
    for cut_after in [0, 1, 2, 7, 15, 16, 17] {
        peer.state().cut_after = Some(cut_after);
        let mut run = sandbox
            .run(cell(&format!("flood {}", 3 * MIB)))
            .await
            .unwrap();
        let (output, outcome) = finish(&mut run).await;
        assert!(
            matches!(outcome, RunOutcome::Completed),
            "cut after {cut_after}"
        );
        assert_whole(&output, 3 * MIB);
        peer.state().cut_after = None;
    }
    assert_eq!(host.metrics().reconnects, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_init_ends_everything_and_is_cleaned_up() {
    let (spawner, host, sandbox, peer) = one().await;
    let mut run = sandbox.run(cell("hang")).await.unwrap();
    let mut exec = sandbox
        .exec(sandbox.exec_number(), program(&["hang"]))
        .await
        .unwrap();
    drop(peer);
    spawner.kill(sandbox.key());
    assert_eq!(sandbox.closed().await, ClosedReason::InitGone);
    assert!(matches!(
        finish(&mut run).await.1,
        RunOutcome::ContextDied { .. }
    ));
    assert_eq!(finish_exec(&mut exec).await.1, ExecEnd::SandboxGone);
    assert!(matches!(
        sandbox.run(cell("echo x")).await,
        Err(HostError::SandboxGone)
    ));
    until("the spawner cleaned up", || {
        !spawner.destroyed.lock().unwrap().is_empty()
    })
    .await;
    assert!(host.get(sandbox.key()).is_none());
    assert_eq!(host.metrics().inits_lost, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_interpreter_takes_its_context_along() {
    let (spawner, _host, sandbox, _peer) = one().await;
    let mut run = sandbox.run(cell("die 11")).await.unwrap();
    let RunOutcome::ContextDied { death, cause } = finish(&mut run).await.1 else {
        panic!()
    };
    assert_eq!(
        (death.signal, cause.as_str()),
        (Some(11), "killed by signal 11")
    );
    assert!(!sandbox.has_context("a"));
    assert!(matches!(
        sandbox.run(cell("echo x")).await,
        Err(HostError::ContextDead { .. })
    ));
    sandbox.close_context("a").await.unwrap();
    open(&sandbox, "a").await;
    // SIGKILL is out of memory when, and only when, the kernel counted such a kill.
    spawner.oom_kills.store(1, Ordering::Release);
    let mut run = sandbox.run(cell("die 9")).await.unwrap();
    assert!(matches!(finish(&mut run).await.1, RunOutcome::OutOfMemory));
    sandbox.close_context("a").await.unwrap();
    open(&sandbox, "a").await;
    let mut run = sandbox.run(cell("die 9")).await.unwrap();
    assert!(matches!(
        finish(&mut run).await.1,
        RunOutcome::ContextDied { .. }
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_run_ends_with_the_reason() {
    let (_spawner, _host, sandbox, _peer) = one().await;
    let mut run = sandbox.run(cell("refuse")).await.unwrap();
    let RunOutcome::NeverBegan { cause } = finish(&mut run).await.1 else {
        panic!()
    };
    assert!(cause.contains("dead"), "{cause}");
    assert!(matches!(
        sandbox.run(cell("echo x")).await,
        Err(HostError::ContextDead { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_from_before_a_restart_gives_its_turn_up() {
    let (spawner, first, sandbox, peer) = one().await;
    let old = sandbox.run(cell("hang")).await.unwrap();
    let old_id = old.id();
    first.shutdown().await;
    let second = host(&spawner).await;
    let known = [KnownSandbox {
        time_left: Duration::from_secs(60),
        key: sandbox.key().clone(),
        template: template(),
        runtimes: Runtimes::new(),
        egress: None,
    }];
    second.recover(&known).await.unwrap();
    let again = second.get(sandbox.key()).unwrap();
    // Init refuses a second run while the first is on: this one has waited for it.
    let mut run = again.run(cell("echo next")).await.unwrap();
    assert_eq!(finish(&mut run).await.0, b"next");
    let interrupt = Request::Interrupt { run: old_id };
    assert!(peer.state().requests.contains(&interrupt));
    drop(old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_init_that_breaks_the_protocol_loses_its_sandbox() {
    let (spawner, host, sandbox, peer) = one().await;
    peer.misbehave();
    assert_eq!(sandbox.closed().await, ClosedReason::InitGone);
    until("destroyed", || {
        spawner.destroyed.lock().unwrap().contains(sandbox.key())
    })
    .await;
    assert_eq!(host.metrics().protocol_errors, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_attached_to_again_where_its_log_ended() {
    let (_spawner, _host, sandbox, peer) = one().await;
    let length = 2 * MIB;
    let mut exec = sandbox
        .exec(
            sandbox.exec_number(),
            program(&["flood", &length.to_string()]),
        )
        .await
        .unwrap();
    assert_eq!(exec.pid(), Some(7));
    let Some(ExecEvent::Stdout(first)) = exec.next().await else {
        panic!()
    };
    let mut log = first.to_vec();
    let (id, seq) = (exec.id(), exec.seq());
    drop(exec);
    let mut exec = sandbox.attach_exec(id, seq).await.unwrap();
    let (rest, end) = finish_exec(&mut exec).await;
    log.extend_from_slice(&rest);
    assert_whole(&log, length);
    assert_eq!(end, ExecEnd::Exited { code: 3 });
    assert_eq!(peer.targets(), 1, "kept until the end is acknowledged");
    exec.acknowledge();
    until("forgotten", || peer.targets() == 0).await;
    assert!(matches!(
        sandbox.attach_exec(id, seq).await,
        Err(HostError::TargetUnknown)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_what_is_alive_and_kills_what_nobody_knows() {
    let (spawner, first, sandbox, peer) = one().await;
    let (unknown, _) = first.create(spec()).await.unwrap();
    let mut run = sandbox
        .run(cell(&format!("flood {}", 4 * MIB)))
        .await
        .unwrap();
    let mut exec = sandbox
        .exec(sandbox.exec_number(), program(&["flood", "100000"]))
        .await
        .unwrap();
    let exec_id = exec.id();
    first.shutdown().await;
    assert_eq!(sandbox.closed().await, ClosedReason::ServerStopped);
    // The consumers learn nothing: what runs there goes on.
    while let Some(event) = run.next().await {
        assert!(matches!(event, RunEvent::Stdout(_)));
    }
    assert!(
        exec.next()
            .await
            .is_none_or(|event| !matches!(event, ExecEvent::Done(_)))
    );
    assert!(spawner.destroyed.lock().unwrap().is_empty());

    let second = host(&spawner).await;
    let gone = crate::host::SandboxKey::new("gone").unwrap();
    let known: Vec<KnownSandbox> = [sandbox.key().clone(), gone.clone()]
        .map(|key| KnownSandbox {
            time_left: Duration::from_secs(60),
            key,
            template: template(),
            runtimes: Runtimes::new(),
            egress: None,
        })
        .to_vec();
    let recovered = second.recover(&known).await.unwrap();
    assert_eq!(recovered.alive, [sandbox.key().clone()]);
    assert_eq!(recovered.gone, [gone]);
    assert_eq!(recovered.killed_unknown, 1);
    until("the end of the unknown one", || {
        *spawner.destroyed.lock().unwrap() == [unknown.key().clone()]
    })
    .await;

    let again = second.get(sandbox.key()).unwrap();
    assert!(again.has_context("a"));
    assert_eq!(
        again
            .recovered_execs()
            .iter()
            .map(|e| e.id)
            .collect::<Vec<_>>(),
        [exec_id]
    );
    let mut exec = again.attach_exec(exec_id, 0).await.unwrap();
    let (log, end) = finish_exec(&mut exec).await;
    assert_whole(&log, 100_000);
    assert_eq!(end, ExecEnd::Exited { code: 3 });
    exec.acknowledge();
    until("the old run was drained to its end", || peer.targets() == 0).await;
    let mut run = again.run(cell("echo new")).await.unwrap();
    assert!(
        run.id() > exec_id && run.id() < 1 << 53,
        "numbers are not used twice"
    );
    assert_eq!(finish(&mut run).await.0, b"new");
    assert_eq!(second.metrics().runs_recovered, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spawner_that_restarts_is_waited_for() {
    let (spawner, host, sandbox, _peer) = one().await;
    spawner.away.store(3, Ordering::Release);
    open(&sandbox, "b").await;
    spawner.away.store(2, Ordering::Release);
    host.create(spec()).await.unwrap();
    spawner.away.store(1_000, Ordering::Release);
    let refused = host.create(spec()).await;
    assert!(matches!(refused, Err(HostError::Spawner(_))), "{refused:?}");
    spawner.away.store(0, Ordering::Release);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_nobody_waits_for_leaves_nothing() {
    let (spawner, host, ..) = one().await;
    spawner.mute.store(true, Ordering::Release);
    let mut create = Box::pin(host.create(spec()));
    until("the spawner has made it", || {
        // Polled by hand: its init never speaks, so this cannot end by itself.
        let cx = &mut TaskContext::from_waker(Waker::noop());
        assert!(create.as_mut().poll(cx).is_pending());
        spawner.created.lock().unwrap().len() == 2
    })
    .await;
    drop(create);
    let key = spawner.created.lock().unwrap()[1].clone();
    until("destroyed", || {
        spawner.destroyed.lock().unwrap().contains(&key)
    })
    .await;
    assert!(host.get(&key).is_none());
    assert_eq!(host.metrics().live, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_sandboxes_is_bounded() {
    let (spawner, ..) = one().await;
    let mut config = config(&spawner);
    config.sandboxes_max = 2;
    let host = Host::start(config).await.unwrap();
    let (first, _) = host.create(spec()).await.unwrap();
    host.create(spec()).await.unwrap();
    assert!(matches!(
        host.create(spec()).await,
        Err(HostError::NodeFull { limit: 2 })
    ));
    host.destroy(first.key()).await.unwrap();
    assert!(host.get(first.key()).is_none());
    until("its place is free", || {
        spawner.destroyed.lock().unwrap().len() == 1
    })
    .await;
    let create = async {
        loop {
            match host.create(spec()).await {
                Err(HostError::NodeFull { .. }) => tokio::task::yield_now().await,
                other => return other,
            }
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, create)
            .await
            .unwrap()
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_checked_before_they_are_sent() {
    let (_spawner, _host, sandbox, peer) = one().await;
    let before = peer.state().requests.len();
    let long = Duration::from_secs(30 * 24 * 3600);
    assert!(matches!(
        sandbox.set_deadline(long).await,
        Err(HostError::Invalid(_))
    ));
    assert!(matches!(
        sandbox.exec(sandbox.exec_number(), program(&[])).await,
        Err(HostError::Invalid(_))
    ));
    let mut spec = program(&["true"]);
    spec.env.insert("BIG".into(), "x".repeat(9 * MIB));
    assert!(matches!(
        sandbox.exec(sandbox.exec_number(), spec).await,
        Err(HostError::TooLarge { .. })
    ));
    let within = crate::host::Within::Workspace;
    assert!(matches!(
        sandbox.stat("a\0b", within).await,
        Err(HostError::Invalid(_))
    ));
    assert_eq!(peer.state().requests.len(), before);
    assert_eq!(Arc::strong_count(&peer), 2, "the spawner's and this one");
}
