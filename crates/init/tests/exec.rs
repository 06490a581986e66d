//! Processes: output, ends, signals.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::identity::Identity;
use crownest_init::link::{CallErrorCode, EventKind, ExecOutcome, Request};
use crownest_init::terminal::Stdin;
use sandbox::{Sandbox, shell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[test]
fn output_and_exit_code() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let said = client.shell_to_end(1, "echo out; echo err >&2; echo -n höhö; exit 3");
    assert_eq!(
        (said.out(), said.err()),
        ("out\nhöhö".into(), "err\n".into())
    );
    assert_eq!(said.exec_outcome(), ExecOutcome::Exited { code: 3 });
    // Acknowledged ends are forgotten, so the number could be used again; unknown ones stay so.
    let refused = client.refused(Request::Attach { target: 1, seq: 0 }, b"");
    assert_eq!(refused, CallErrorCode::UnknownTarget);
    let said = client.shell_to_end(2, "kill -SEGV $$");
    assert_eq!(said.exec_outcome(), ExecOutcome::Signaled { signal: 11 });
}

#[test]
fn a_process_is_the_user_and_has_no_rights() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let env = BTreeMap::from([("SHARED".to_owned(), "1".to_owned())]);
    client.call(Request::Environment { env }).unwrap();
    let script = "id -u; id -g; id -G; pwd; echo $HOME $SHARED; \
        grep -E '^(Cap|NoNewPrivs|SigBlk|SigIgn)' /proc/self/status; cat /proc/self/oom_score_adj; \
        umask; ls /proc/self/fd | wc -l; cat /proc/$$/stat | cut -d' ' -f5,6; echo $$";
    let said = client.shell_to_end(1, script);
    assert_eq!(said.err(), "");
    let out = said.out();
    let mut lines = out.lines();
    let mut next = || lines.next().unwrap();
    assert_eq!(
        [next(), next(), next(), next()],
        ["1000", "1000", "1000", "/workspace"]
    );
    assert_eq!(next(), "/home/user 1");
    assert_eq!(next(), "SigBlk:\t0000000000000000");
    assert_eq!(next(), "SigIgn:\t0000000000000000");
    assert_eq!(next(), "CapInh:\t0000000000000000");
    assert_eq!(next(), "CapPrm:\t0000000000000000");
    assert_eq!(next(), "CapEff:\t0000000000000000");
    next();
    assert_eq!(next(), "CapAmb:\t0000000000000000");
    assert_eq!(next(), "NoNewPrivs:\t1");
    assert_eq!([next(), next()], ["500", "0022"]);
    // 0, 1, 2 and the directory that ls reads.
    assert_eq!(next(), "4");
    let ids = next().to_owned();
    let pid = next();
    assert_eq!(ids, format!("{pid} {pid}"));
    // Init itself is out of reach.
    let said = client.shell_to_end(
        2,
        "kill -9 1; cat /proc/1/environ; head -c 1 /proc/1/mem; \
        ls /proc/1/fd; kill -0 1; true",
    );
    assert_eq!(said.out(), "");
    assert_eq!(said.err().matches("ermitted").count(), 2, "{}", said.err());
    assert_eq!(
        said.err().matches("ermission denied").count(),
        3,
        "{}",
        said.err()
    );
}

#[test]
fn a_process_runs_as_whom_it_names_and_gains_nothing_by_it() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let shell_as = |exec, command: &str, uid, gid| {
        let mut request = shell(exec, command, None);
        if let Request::Exec { identity, .. } = &mut request {
            *identity = Identity { uid, gid };
        }
        request
    };
    let script = "id -u; id -g; id -G; grep -E '^Cap(Prm|Eff)' /proc/self/status; \
        kill -9 1 2>&1 | grep -c permitted; echo x > /etc/hostname 2>/dev/null || echo no";
    let asked = client.call(shell_as(1, script, 2_000, 3_000));
    asked.unwrap();
    let said = client.until_end(1);
    let expected =
        "2000\n3000\n3000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n1\nno\n";
    assert_eq!(said.out(), expected, "{}", said.err());

    // Its neighbours of another id have no hold on it; init has.
    let started = client.call(shell_as(2, "exec sleep 60", 2_000, 2_000));
    let pid = started.unwrap().reply.pid.unwrap();
    let said = client.shell_to_end(3, &format!("kill -9 {pid} 2>&1 | grep -c permitted"));
    assert_eq!(said.out(), "1\n", "{}", said.err());
    let stop = Request::Signal {
        exec: 2,
        signal: 15,
        escalate: true,
        foreground: false,
    };
    client.call(stop).unwrap();
    let end = client.until_end(2).exec_outcome();
    assert_eq!(end, ExecOutcome::Signaled { signal: 15 });

    // Root of the namespace, init, an account of the template.
    for id in [0, 998, 33] {
        for (uid, gid) in [(id, 2_000), (2_000, id)] {
            let refused = client.refused(shell_as(4, "true", uid, gid), b"");
            assert_eq!(refused, CallErrorCode::Invalid, "{uid} {gid}");
        }
    }
}

#[test]
fn what_cannot_start_says_why() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let exec = |argv: &[&str], cwd: &str| Request::Exec {
        exec: 1,
        argv: argv.iter().map(|s| (*s).to_owned()).collect(),
        cwd: cwd.into(),
        env: BTreeMap::new(),
        timeout_ms: None,
        identity: Identity::default(),
        stdin: Stdin::Null,
    };
    for (argv, cwd, message) in [
        (&["/no/such"][..], "/workspace", "program: No such file"),
        (&["no-such"][..], "/workspace", "program: No such file"),
        (
            &["/etc/passwd"][..],
            "/workspace",
            "program: Permission denied",
        ),
        (&["true"][..], "/no/such", "working directory: No such file"),
        (
            &["true"][..],
            "/etc/passwd",
            "working directory: Not a directory",
        ),
    ] {
        let error = client.call(exec(argv, cwd)).err().unwrap();
        assert_eq!(error.code, CallErrorCode::SpawnFailed);
        assert!(error.message.starts_with(message), "{}", error.message);
    }
    for argv in [&[][..], &[""][..], &["a\0b"][..]] {
        assert_eq!(
            client.refused(exec(argv, "/workspace"), b""),
            CallErrorCode::Invalid
        );
    }
    client.call(exec(&["true"], "/workspace")).unwrap();
    assert_eq!(
        client.until_end(1).exec_outcome(),
        ExecOutcome::Exited { code: 0 }
    );
}

#[test]
fn a_timeout_asks_first_and_kills_then() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.shell(1, "sleep 100", Some(100));
    assert_eq!(
        client.until_end(1).exec_outcome(),
        ExecOutcome::TimedOut { signal: 15 }
    );
    client.shell(
        2,
        "trap 'echo asked' TERM; while true; do read -t 1 < /dev/zero; done",
        Some(100),
    );
    let said = client.until_end(2);
    assert_eq!(said.exec_outcome(), ExecOutcome::TimedOut { signal: 9 });
    assert_eq!(said.out(), "asked\n");
    // A process that has stopped itself.
    client.shell(3, "kill -STOP $$; echo no", Some(100));
    assert_eq!(
        client.until_end(3).exec_outcome(),
        ExecOutcome::TimedOut { signal: 15 }
    );
}

#[test]
fn signals_reach_the_group_and_escalate() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.shell(
        1,
        "trap 'echo usr1; exit 7' USR1; echo ready; while :; do sleep 0.01; done",
        None,
    );
    let (kind, body) = client.event();
    assert!(matches!(kind, EventKind::Output { .. }));
    assert_eq!(body, b"ready\n");
    client
        .call(Request::Signal {
            exec: 1,
            signal: 10,
            escalate: false,
            foreground: false,
        })
        .unwrap();
    let said = client.until_end(1);
    assert_eq!(
        (said.out().as_str(), said.exec_outcome()),
        ("usr1\n", ExecOutcome::Exited { code: 7 })
    );
    client.shell(
        2,
        "trap '' TERM; echo ready; while :; do sleep 0.01; done",
        None,
    );
    client.event();
    client
        .call(Request::Signal {
            exec: 2,
            signal: 15,
            escalate: true,
            foreground: false,
        })
        .unwrap();
    assert_eq!(
        client.until_end(2).exec_outcome(),
        ExecOutcome::Signaled { signal: 9 }
    );
    for signal in [0, -1, 65] {
        let request = Request::Signal {
            exec: 2,
            signal,
            escalate: false,
            foreground: false,
        };
        assert_eq!(client.refused(request, b""), CallErrorCode::Invalid);
    }
    let request = Request::Signal {
        exec: 9,
        signal: 9,
        escalate: false,
        foreground: false,
    };
    assert_eq!(client.refused(request, b""), CallErrorCode::UnknownTarget);
}

#[test]
fn a_daemon_neither_delays_the_end_nor_dies_of_it() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let daemon = "(setsid bash -c 'while :; do echo noise; [ -e stop ] && exec touch stopped; \
        sleep 0.01; done' &) ; echo main";
    let started = Instant::now();
    let said = client.shell_to_end(1, daemon);
    assert!(said.out().contains("main\n"));
    assert!(started.elapsed() < Duration::from_secs(5));
    // It has outlived the reader of its pipe, and it can still write: it gets to its end.
    client.shell(
        2,
        "touch stop; until [ -e stopped ]; do sleep 0.01; done",
        Some(20_000),
    );
    assert_eq!(
        client.until_end(2).exec_outcome(),
        ExecOutcome::Exited { code: 0 }
    );
}

#[test]
fn orphans_are_reaped() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.shell_to_end(1, "for i in $(seq 50); do (setsid true &) ; done");
    let said = client.shell_to_end(
        2,
        "for i in $(seq 500); do \
        z=$(grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l); \
        [ $z = 0 ] && exit 0; sleep 0.01; done; exit 1",
    );
    assert_eq!(said.exec_outcome(), ExecOutcome::Exited { code: 0 });
}

#[test]
fn a_trivial_process_is_fast() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let mut times: Vec<Duration> = (0..200)
        .map(|exec| {
            let started = Instant::now();
            let request = Request::Exec {
                exec,
                argv: vec!["/bin/true".into()],
                cwd: "/workspace".into(),
                env: BTreeMap::new(),
                timeout_ms: None,
                identity: Identity::default(),
                stdin: Stdin::Null,
            };
            client.call(request).unwrap();
            client.until_end(exec);
            started.elapsed()
        })
        .collect();
    times.sort();
    println!("true: p50 {:?}, p95 {:?}", times[100], times[190]);
    assert!(
        times[100] < Duration::from_millis(50),
        "p50 is {:?}",
        times[100]
    );
}

#[test]
fn numbers_and_limits_are_checked() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.shell(1, "sleep 1000", None);
    assert_eq!(
        client.refused(shell(1, "true", None), b""),
        CallErrorCode::Invalid
    );
    let mut refused = None;
    for exec in 2..400 {
        if let Err(error) = client.call(shell(exec, "exec sleep 1000", None)) {
            refused = Some((exec, error.code));
            break;
        }
    }
    let most = crownest_init::link::EXECS_MAX as u64;
    assert_eq!(refused, Some((most + 1, CallErrorCode::TooMany)));
}
