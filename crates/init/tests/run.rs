//! Runs, with a driver that tells the truth or does not.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::link::{
    BACKGROUND_BYTES_MAX, CallErrorCode, EventKind, Request, RunOutcome, WINDOW_BYTES_MAX,
};
use sandbox::driver::{died, run_request, spawn_request, start};
use sandbox::{Said, position};
use std::time::{Duration, Instant};

#[test]
fn a_run_has_output_events_and_an_end() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let said = client.run_to_end(
        "c",
        1,
        "import os; x = 41\nprint(os.getcwd(), os.environ['FROM'], os.environ['HOME'], flush=True)\n\
         os.system('echo child; echo err >&2')\nsay('result', run=run, data={'text/plain': '42'})",
    );
    assert_eq!(said.out(), "/workspace spawn /home/user\nchild\n");
    assert_eq!(said.err(), "err\n");
    assert_eq!(said.kernel.len(), 1);
    assert_eq!(said.kernel[0]["data"]["text/plain"], "42");
    assert_eq!(said.outcome(), RunOutcome::Completed);
    let said = client.run_to_end("c", 2, "print(x + 1)\nraise ValueError('no')");
    assert_eq!(said.out(), "42\n");
    assert_eq!(said.kernel[0]["ev"], "error");
    let Some(EventKind::RunDone {
        execution_count: 2,
        cpu_us: Some(1),
        ..
    }) = said.end
    else {
        panic!("{:?}", said.end);
    };
}

#[test]
fn one_run_at_a_time_and_numbers_once() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.run(
        "c",
        1,
        "import time; time.sleep(0.3); print('slept')",
        60_000,
    );
    assert_eq!(
        client.refused(run_request("c", 2), b"1"),
        CallErrorCode::ContextBusy
    );
    assert_eq!(
        client.refused(run_request("x", 2), b"1"),
        CallErrorCode::ContextUnknown
    );
    assert_eq!(client.until_end(1).out(), "slept\n");
    client.acknowledge = false;
    client.run("c", 2, "1", 60_000);
    client.until_end(2);
    assert_eq!(
        client.refused(run_request("c", 2), b"1"),
        CallErrorCode::Invalid
    );
    assert_eq!(
        client.refused(run_request("c", 3), b"\xff"),
        CallErrorCode::Invalid
    );
    let huge = vec![b'"'; 7 * 1024 * 1024];
    assert_eq!(
        client.refused(run_request("c", 3), &huge),
        CallErrorCode::Invalid
    );
}

#[test]
fn forged_and_stale_frames_are_dropped() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.run_to_end("c", 1, "pass");
    let said = client.run_to_end(
        "c",
        2,
        "for n in (0, 1, 3, 2**63, 2**64 - 1): say('result', run=n, data={'n': n})\n\
         say('result', data={})\nsay('done', run=1, status='ok', count=1)\nsay('ready')\n\
         say('nonsense', run=run)\nsay('hello', run=run)\nsay('display', run=run, data={'n': 2})",
    );
    assert_eq!(said.kernel.len(), 1, "{:?}", said.kernel);
    assert_eq!(said.kernel[0]["data"]["n"], 2);
    assert_eq!(said.outcome(), RunOutcome::Completed);
    // A forged end ends the run early and harms only its own context.
    let forged = "say('done', run=run, status='ok', count=77)\nimport time; time.sleep(0.2)\n\
        say('result', run=run, data={'late': 1})";
    let said = client.run_to_end("c", 3, forged);
    let Some(EventKind::RunDone {
        execution_count: 77,
        ..
    }) = said.end
    else {
        panic!()
    };
    let said = client.run_to_end("c", 4, "print('fine')");
    assert_eq!(
        (said.out().as_str(), said.kernel.len()),
        ("fine\n", 0),
        "{said:?}"
    );
}

#[test]
fn broken_frames_end_the_context() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let broken = [
        "raw(struct.pack('>I', 12 * 1024 * 1024 + 1) + b'x' * 1000)",
        "raw(struct.pack('>I', 0xffffffff))",
        "raw(struct.pack('>I', 0))",
        "raw(struct.pack('>I', 3) + b'{x}')",
        "raw(struct.pack('>I', 10) + b'[\"done\",1]')",
        "raw(struct.pack('>I', 13) + b'{\"ev\":\"\\xff\\xfe\"}  ')",
        "raw(struct.pack('>I', 2) + b'{}')",
        "raw(b'GET / HTTP/1.1\\r\\n\\r\\n' * 100)",
    ];
    for (run, code) in (1..).zip(broken) {
        let code = format!("import struct, time\n{code}\ntime.sleep(100)");
        let said = client.run_to_end("c", run, &code);
        let death = died(&said);
        assert_eq!(death.reason.as_deref(), Some("bad_frame"), "{code}");
        assert_eq!(death.signal, Some(9), "{code}");
        client.call(spawn_request("c", &[])).unwrap();
    }
    // The largest that is allowed goes through.
    let code = "say('result', run=run, data={'text/plain': 'x' * (12 * 1024 * 1024 - 200)})";
    let said = client.run_to_end("c", 100, code);
    let text = said.kernel[0]["data"]["text/plain"].as_str().unwrap();
    assert_eq!(text.len(), 12 * 1024 * 1024 - 200);
}

#[test]
fn deep_json_is_only_carried() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let code = "import struct\nd = b'{\"ev\":\"result\",\"run\":1,\"data\":' + b'[' * 2000000 + \
        b']' * 2000000 + b'}'\nraw(struct.pack('>I', len(d)) + d)";
    client.run("c", 1, code, 60_000);
    let (kind, body) = client.event();
    assert!(matches!(kind, EventKind::Kernel { target: 1, .. }));
    assert!(body.len() > 4_000_000);
    assert_eq!(client.until_end(1).outcome(), RunOutcome::Completed);
}

#[test]
fn an_interrupt_ends_the_run_and_keeps_the_state() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.run(
        "c",
        1,
        "x = 5\nprint('in', flush=True)\nwhile True: pass",
        60_000,
    );
    assert_eq!(client.event().1, b"in\n");
    // Of another run: nothing happens.
    client.call(Request::Interrupt { run: 2 }).unwrap();
    let started = Instant::now();
    client.call(Request::Interrupt { run: 1 }).unwrap();
    assert_eq!(client.until_end(1).outcome(), RunOutcome::Interrupted);
    println!("interrupt to end: {:?}", started.elapsed());
    client.call(Request::Interrupt { run: 1 }).unwrap();
    assert_eq!(client.run_to_end("c", 2, "print(x)").out(), "5\n");
    // A driver that has stopped itself is woken.
    client.run(
        "c",
        3,
        "import os\nprint('in', flush=True)\nos.kill(os.getpid(), 19)",
        60_000,
    );
    assert_eq!(client.event().1, b"in\n");
    client.shell(
        4,
        "until grep -q '^State:.T' /proc/[0-9]*/status; do :; done",
        Some(20_000),
    );
    client.until_end(4);
    client.call(Request::Interrupt { run: 3 }).unwrap();
    assert_eq!(client.until_end(3).outcome(), RunOutcome::Interrupted);
    // A child in the foreground that the driver waits for.
    client.run(
        "c",
        5,
        "print('in', flush=True)\nos.system('sleep 100')\nprint('after')",
        60_000,
    );
    assert_eq!(client.event().1, b"in\n");
    client.call(Request::Interrupt { run: 5 }).unwrap();
    client.until_end(5);
}

#[test]
fn a_timeout_interrupts_and_then_kills() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.run("c", 1, "while True: pass", 100);
    assert_eq!(
        client.until_end(1).outcome(),
        RunOutcome::TimedOut {
            context_alive: true
        }
    );
    client.run("c", 2, "print('alive')", 60_000);
    assert_eq!(client.until_end(2).out(), "alive\n");
    let stubborn = "import signal, os\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n\
        os.system('sleep 1000 & echo $!')\nwhile True: pass";
    client.run("c", 3, stubborn, 100);
    let said = client.until_end(3);
    assert_eq!(
        said.outcome(),
        RunOutcome::TimedOut {
            context_alive: false
        }
    );
    // Its children have gone with it.
    let pid = said.out().trim().to_owned();
    client.shell(
        4,
        &format!("while kill -0 {pid}; do sleep 0.01; done 2>/dev/null"),
        Some(20_000),
    );
    let end = client.until_end(4).exec_outcome();
    assert_eq!(end, crownest_init::link::ExecOutcome::Exited { code: 0 });
    assert_eq!(
        client.refused(run_request("c", 5), b"1"),
        CallErrorCode::ContextDead
    );
    // Stopped for good, and without a control socket: both are found and killed.
    client.call(spawn_request("c", &[])).unwrap();
    client.run(
        "c",
        5,
        "import os\nwhile True: os.kill(os.getpid(), 19)",
        100,
    );
    client.until_end(5);
    client
        .call(Request::ContextClose {
            context: "c".into(),
        })
        .unwrap();
    client.call(spawn_request("c", &[])).unwrap();
    client.run(
        "c",
        6,
        "import os, time\nos.closerange(0, 100)\ntime.sleep(1000)",
        60_000,
    );
    assert_eq!(
        died(&client.until_end(6)).reason.as_deref(),
        Some("control_closed")
    );
}

#[test]
fn background_output_belongs_to_the_next_run() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let flood = "import threading, time, os\ndef f():\n time.sleep(0.1)\n \
        for i in range(3000): print('x' * 99, flush=True)\n print('end', file=open('/workspace/end', 'w'))\n\
        threading.Thread(target=f).start()";
    let said = client.run_to_end("c", 1, flood);
    assert_eq!(said.out(), "");
    // A thread that prints is never stopped, though nobody asks for its output.
    client.shell(2, "until [ -s end ]; do sleep 0.01; done", Some(20_000));
    let end = client.until_end(2).exec_outcome();
    assert_eq!(end, crownest_init::link::ExecOutcome::Exited { code: 0 });
    let said = client.run_to_end("c", 3, "print('mine')");
    assert!(said.out().ends_with("mine\n"));
    let Some(EventKind::RunDone {
        background_dropped, ..
    }) = said.end
    else {
        panic!()
    };
    assert_eq!(
        said.stdout.len() - 5 + usize::try_from(background_dropped).unwrap(),
        300_000
    );
    assert!(said.stdout.len() <= BACKGROUND_BYTES_MAX + 5);
    let said = client.run_to_end("c", 4, "pass");
    let Some(EventKind::RunDone {
        background_dropped: 0,
        ..
    }) = said.end
    else {
        panic!()
    };
}

#[test]
fn a_flood_is_held_by_the_window_and_whole_in_the_end() {
    let Some((sandbox, mut client)) = start() else {
        return;
    };
    client.acknowledge = false;
    client.run(
        "c",
        1,
        "for i in range(400000): print(i)\nsay('result', run=run, data={})",
        60_000,
    );
    let mut said = Said::default();
    let (mut handled, mut bytes) = (0, 0);
    while bytes < WINDOW_BYTES_MAX / 2 {
        let (kind, body) = client.event();
        bytes += body.len();
        handled = position(&kind).unwrap().1;
        said.add(kind, &body);
    }
    let mut client = sandbox.connect();
    client.hello();
    client
        .call(Request::Attach {
            target: 1,
            seq: handled,
        })
        .unwrap();
    let rest = client.until_end(1);
    said.stdout.extend(&rest.stdout);
    let expected: String = (0..400_000).map(|i| format!("{i}\n")).collect();
    assert!(said.out() == expected, "{} bytes", said.stdout.len());
    assert_eq!(
        (rest.kernel.len(), rest.outcome()),
        (1, RunOutcome::Completed)
    );
}

#[test]
fn warm_runs_are_fast_and_keep_their_output() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    // Unbuffered: two writes and then `done`, so that all three often come in one turn.
    client
        .call(spawn_request("u", &[("PYTHONUNBUFFERED", "1")]))
        .unwrap();
    let mut times: Vec<Duration> = (1..=500)
        .map(|run| {
            let started = Instant::now();
            let said = client.run_to_end("u", run, "print(1 + 1)");
            assert_eq!(said.out(), "2\n");
            started.elapsed()
        })
        .collect();
    times.sort();
    println!("run: p50 {:?}, p95 {:?}", times[250], times[475]);
    assert!(
        times[250] < Duration::from_millis(20),
        "p50 is {:?}",
        times[250]
    );
}
