//! Flow control and reconnects: nothing is lost and nothing grows.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::link::{CallErrorCode, EventKind, ExecOutcome, Request, WINDOW_BYTES_MAX};
use sandbox::{Said, Sandbox, position};
use std::time::Instant;

#[test]
fn slow_acknowledgement_loses_nothing_and_holds_little() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.acknowledge = false;
    let total = 20 * 1024 * 1024;
    client.shell(1, "seq 1 99999999 | head -c 20971520; echo over >&2", None);
    client.shell(2, "echo not held up", None);
    let (mut first, mut second) = (Said::default(), Said::default());
    let (mut last, mut held) = (0, 0);
    while first.end.is_none() {
        let (kind, body) = client.event();
        let (target, seq) = position(&kind).unwrap();
        if target == 2 {
            second.add(kind, &body);
            continue;
        }
        assert_eq!(seq, last + 1);
        last = seq;
        held += body.len();
        assert!(
            held <= WINDOW_BYTES_MAX + 64 * 1024,
            "{held} bytes are unacknowledged"
        );
        first.add(kind, &body);
        if held > WINDOW_BYTES_MAX / 2 {
            client.send(Request::Ack { target: 1, seq }, b"", &[]);
            held = 0;
        }
    }
    assert_eq!(second.out(), "not held up\n");
    assert_eq!(first.err(), "over\n");
    assert_eq!(first.stdout.len(), total);
    let lines = first.out();
    for (number, line) in (1..).zip(lines.lines().take(2_000_000)) {
        assert_eq!(line, number.to_string());
    }
}

#[test]
fn a_full_window_stops_the_program_and_nobody_else() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.acknowledge = false;
    client.shell(
        1,
        "for i in $(seq 200); do head -c 65536 /dev/zero; echo $i > progress; done",
        None,
    );
    let mut bytes = 0;
    while bytes < WINDOW_BYTES_MAX - 128 * 1024 {
        let (kind, body) = client.event();
        assert!(!matches!(kind, EventKind::ExecDone { .. }), "{kind:?}");
        bytes += body.len();
    }
    client.ignored = Some(1);
    for exec in 2..20 {
        let said = client.shell_to_end(exec, "echo hello");
        assert_eq!(said.out(), "hello\n");
        client.send(
            Request::Ack {
                target: exec,
                seq: u64::MAX,
            },
            b"",
            &[],
        );
    }
    // The window and two pipes' worth have gone through, not 200 pieces.
    let progress: u64 = client
        .shell_to_end(30, "cat progress")
        .out()
        .trim()
        .parse()
        .unwrap();
    assert!(progress < 24, "{progress}");
}

#[test]
fn one_acknowledgement_is_enough_for_what_has_ended_with_a_full_window() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.acknowledge = false;
    client.shell(1, "echo $$ > pid; exec cat /dev/zero", None);
    let mut bytes = 0;
    while bytes < WINDOW_BYTES_MAX - 128 * 1024 {
        let (kind, body) = client.event();
        assert!(!matches!(kind, EventKind::ExecDone { .. }), "{kind:?}");
        bytes += body.len();
    }
    client.ignored = Some(1);
    // Gone from /proc: init has reaped it, and what the window had no room for is in the pipe.
    let killed = "p=$(cat pid); kill -9 $p; while [ -e /proc/$p ]; do sleep 0.01; done; echo gone";
    assert_eq!(client.shell_to_end(2, killed).out(), "gone\n");
    client.ignored = None;
    // A server that was away for a moment says this once, and then has nothing more to say.
    let seq = u64::MAX;
    client.send(Request::Ack { target: 1, seq }, b"", &[]);
    let mut rest = Said::default();
    while rest.end.is_none() {
        let (kind, body) = client.event();
        rest.add(kind, &body);
    }
    assert!(!rest.stdout.is_empty(), "the window was not full");
}

#[test]
fn a_new_connection_takes_up_where_the_last_one_ended() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.acknowledge = false;
    client.shell(
        7,
        "for i in $(seq 300); do echo line $i; sleep 0.002; done; exit 4",
        None,
    );
    let mut said = Said::default();
    let (mut handled, mut connections) = (0, 1);
    while said.end.is_none() {
        let (kind, body) = client.event();
        let (target, seq) = position(&kind).unwrap();
        assert_eq!((target, seq), (7, handled + 1));
        handled = seq;
        said.add(kind, &body);
        if seq % 7 == 0 && said.end.is_none() {
            client = sandbox.connect();
            client.acknowledge = false;
            connections += 1;
            let (EventKind::Hello { targets, .. }, None) = client.hello() else {
                panic!()
            };
            assert_eq!(targets.len(), 1);
            assert!(targets[0].target == 7 && targets[0].seq >= handled);
            client
                .call(Request::Attach {
                    target: 7,
                    seq: handled,
                })
                .unwrap();
        }
    }
    assert!(connections > 10, "{connections}");
    let expected: String = (1..=300).map(|i| format!("line {i}\n")).collect();
    assert_eq!(said.out(), expected);
    assert_eq!(said.exec_outcome(), ExecOutcome::Exited { code: 4 });
    // Ended but not acknowledged: still there for the next connection, then gone.
    let mut client = sandbox.connect();
    let (EventKind::Hello { targets, .. }, _) = client.hello() else {
        panic!()
    };
    assert!(targets[0].done);
    client
        .call(Request::Attach { target: 7, seq: 0 })
        .err()
        .unwrap();
    client
        .call(Request::Attach {
            target: 7,
            seq: handled,
        })
        .unwrap();
    let refused = client.refused(
        Request::Attach {
            target: 7,
            seq: handled,
        },
        b"",
    );
    assert_eq!(refused, CallErrorCode::UnknownTarget);
}

#[test]
fn output_waits_for_a_server_that_is_away() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.shell(
        1,
        "read -t 0.2 < <(sleep 1); head -c 3000000 /dev/zero | tr '\\0' x",
        None,
    );
    drop(client);
    let mut client = sandbox.connect();
    client.hello();
    client.call(Request::Attach { target: 1, seq: 0 }).unwrap();
    assert_eq!(client.until_end(1).stdout.len(), 3_000_000);
}

#[test]
fn characters_come_whole() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.shell(
        1,
        "for i in $(seq 30); do printf '\\xf0\\x9f'; sleep 0.01; printf '\\x98\\x80'; \
        done; printf '\\xe2\\x82'",
        None,
    );
    let mut all = Vec::new();
    loop {
        let (kind, body) = client.event();
        if matches!(kind, EventKind::ExecDone { .. }) {
            break;
        }
        if body != [0xe2, 0x82] {
            assert!(std::str::from_utf8(&body).is_ok(), "{body:?}");
        }
        all.extend(body);
    }
    assert_eq!(all.len(), 30 * 4 + 2);
}

#[test]
fn output_is_fast() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let line = "x".repeat(79);
    let total = 200_000_000;
    let started = Instant::now();
    client.shell(1, &format!("yes {line} | head -c {total}"), None);
    let mut bytes = 0;
    loop {
        let (kind, body) = client.event();
        bytes += body.len();
        if matches!(kind, EventKind::ExecDone { .. }) {
            break;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(bytes, total);
    let (mb, lines) = (bytes as f64 / 1e6 / seconds, bytes as f64 / 80.0 / seconds);
    println!("output: {mb:.0} MB/s, {lines:.0} lines of 80 bytes per second");
    assert!(lines > 100_000.0, "{lines}");
}
