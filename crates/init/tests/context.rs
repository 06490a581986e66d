//! Contexts: where their drivers come from, how they end.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::cell::RunOptions;
use crownest_init::link::{CallErrorCode, Death, EventKind, Request};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sandbox::driver::{DRIVER, died, run_request, spawn_request, start};
use sandbox::{Client, Sandbox};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

/// A driver that is not a child of init, as a zygote's; returns the answer to its adoption.
fn adopt(sandbox: &Sandbox, client: &mut Client) -> Child {
    let (control, theirs) = UnixStream::pair().unwrap();
    let (stdout, stdout_write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (stderr, stderr_write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let driver = DRIVER.replace("os.environ.pop(\"CROWNEST_KERNEL_FD\")", "0");
    let argv = ["/usr/bin/python3", "-S", "-c", &driver];
    let (child, mut pid) = sandbox.enter(&argv, [theirs.into(), stdout_write, stderr_write]);
    // setsid(1) may have forked; what counts is the process that says "ready".
    let mut peek = [0; 1];
    rustix::net::recv(&control, &mut peek[..], rustix::net::RecvFlags::PEEK).unwrap();
    let path = format!("/proc/{pid}/task/{pid}/children");
    if let Some(inner) = std::fs::read_to_string(path)
        .unwrap()
        .split_ascii_whitespace()
        .next()
    {
        pid = inner.parse().unwrap();
    }
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    let fds = [
        control.as_fd(),
        stdout.as_fd(),
        stderr.as_fd(),
        pidfd.as_fd(),
    ];
    let id = client.send(
        Request::ContextAdopt {
            language: "test".into(),
        },
        b"",
        &fds,
    );
    client.answer(id).map(|_| ()).unwrap();
    child
}

fn open_request(context: &str) -> Request {
    Request::ContextOpen {
        context: context.into(),
        language: "test".into(),
        cwd: "/tmp".into(),
        env: BTreeMap::from([("FROM".to_owned(), "open".to_owned())]),
    }
}

#[test]
fn an_adopted_driver_is_a_spare_until_it_is_opened() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    assert_eq!(
        client.refused(open_request("a"), b""),
        CallErrorCode::NoSpare
    );
    let mut child = adopt(&sandbox, &mut client);
    let mut client = sandbox.connect();
    let (
        EventKind::Hello {
            contexts, spares, ..
        },
        _,
    ) = client.hello()
    else {
        panic!()
    };
    assert_eq!(
        (contexts.len(), spares.as_slice()),
        (0, &["test".to_owned()][..])
    );
    client.call(open_request("a")).unwrap();
    assert_eq!(
        client.refused(open_request("b"), b""),
        CallErrorCode::NoSpare
    );
    let said = client.run_to_end(
        "a",
        1,
        "import os; print(os.getcwd(), os.environ['FROM'], os.getuid())",
    );
    assert_eq!(said.out(), "/tmp open 1000\n");
    let (EventKind::Hello { contexts, .. }, _) = sandbox.connect().hello() else {
        panic!()
    };
    assert_eq!(contexts[0].context, "a");
    // The connection above has taken over; take it back.
    let mut client = sandbox.connect();
    client.hello();
    // It is not init's child, and its exit code is known all the same on this kernel.
    let said = client.run_to_end("a", 2, "print('last', flush=True); os._exit(9)");
    assert_eq!(said.out(), "last\n");
    let code = died(&said).code;
    child.wait().unwrap();
    println!("exit code of an adopted driver: {code:?}");
    assert!(code == Some(9) || code.is_none(), "{code:?}");
    assert_eq!(
        client.refused(run_request("a", 3), b""),
        CallErrorCode::ContextDead
    );
    assert_eq!(
        client.refused(run_request("never", 3), b""),
        CallErrorCode::ContextUnknown
    );
}

fn spare_request() -> Request {
    let Request::ContextSpawn { language, argv, .. } = spawn_request("x", &[]) else {
        panic!()
    };
    Request::SpareSpawn { language, argv }
}

fn spares(sandbox: &Sandbox) -> Vec<String> {
    let (EventKind::Hello { spares, .. }, _) = sandbox.connect().hello() else {
        panic!()
    };
    spares
}

#[test]
fn a_spare_that_was_started_learns_of_its_context_when_it_is_opened() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.call(spare_request()).unwrap();
    assert_eq!(spares(&sandbox), ["test"]);
    let mut client = sandbox.connect();
    client.hello();
    let env = BTreeMap::from([("LATER".to_owned(), "known".to_owned())]);
    client.call(Request::Environment { env }).unwrap();
    client.call(open_request("a")).unwrap();
    assert_eq!(
        client.refused(open_request("b"), b""),
        CallErrorCode::NoSpare
    );
    let said = client.run_to_end(
        "a",
        1,
        "import os; print(os.getcwd(), os.environ['FROM'], os.environ['LATER'], os.getuid())",
    );
    assert_eq!(said.out(), "/tmp open known 1000\n");
    // It is a child of init's, so its end is known exactly.
    assert_eq!(
        died(&client.run_to_end("a", 2, "os._exit(9)")).code,
        Some(9)
    );
    let Request::SpareSpawn { language, .. } = spare_request() else {
        panic!()
    };
    let argv = vec!["/no/such".to_owned()];
    let bad = Request::SpareSpawn { language, argv };
    assert_eq!(client.refused(bad, b""), CallErrorCode::SpawnFailed);
}

#[test]
fn a_spare_that_nobody_claims_ends_and_a_context_stays() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.call(spare_request()).unwrap();
    client.call(open_request("mine")).unwrap();
    client.call(spare_request()).unwrap();
    client.call(spare_request()).unwrap();
    let deadline = |after_ms| Request::SpareDeadline { after_ms };
    client.call(deadline(u64::MAX)).unwrap();
    assert_eq!(spares(&sandbox).len(), 2);
    let mut client = sandbox.connect();
    client.hello();
    client.call(deadline(1)).unwrap();
    // Only the context's driver is left.
    let alive = "while [ $(pgrep -xc python3) != 1 ]; do sleep 0.01; done";
    let said = client.shell_to_end(7, &format!("timeout 20 bash -c \"{alive}\"; echo $?"));
    assert_eq!(said.out(), "0\n");
    assert_eq!(
        client.refused(open_request("late"), b""),
        CallErrorCode::NoSpare
    );
    assert_eq!(client.run_to_end("mine", 1, "print(1)").out(), "1\n");
    assert!(spares(&sandbox).is_empty());
    // What is started afterwards is for somebody.
    let mut client = sandbox.connect();
    client.hello();
    client.call(spare_request()).unwrap();
    client.call(open_request("late")).unwrap();
}

#[test]
fn the_language_of_a_cell_reaches_the_driver() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let run = |run, language: Option<&str>| Request::Run {
        context: "c".into(),
        run,
        timeout_ms: 60_000,
        cwd: None,
        language: language.map(str::to_owned),
        quiet: false,
        options: RunOptions::default(),
    };
    client
        .call_with(run(1, Some("typescript")), b"print(frame['language'])")
        .unwrap();
    assert_eq!(client.until_end(1).out(), "typescript\n");
    client
        .call_with(run(2, None), b"print('language' in frame)")
        .unwrap();
    assert_eq!(client.until_end(2).out(), "False\n");
    assert_eq!(
        client.refused(run(3, Some("a b")), b"1"),
        CallErrorCode::Invalid
    );
}

#[test]
fn adoption_checks_what_it_is_given() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let request = Request::ContextAdopt {
        language: "test".into(),
    };
    assert_eq!(client.refused(request.clone(), b""), CallErrorCode::Invalid);
    // A process outside of the sandbox, init itself, and something that is no pidfd.
    let (one, _two) = UnixStream::pair().unwrap();
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
    let init = pidfd_open(Pid::from_raw(sandbox.init).unwrap(), PidfdFlags::empty()).unwrap();
    for pidfd in [own.as_fd(), init.as_fd(), one.as_fd()] {
        let fds = [one.as_fd(), one.as_fd(), one.as_fd(), pidfd];
        let id = client.send(request.clone(), b"", &fds);
        assert_eq!(
            client.answer(id).err().unwrap().code,
            CallErrorCode::Invalid
        );
    }
}

#[test]
fn a_driver_that_does_not_start_is_reported() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let error = client
        .call(spawn_request("c", &[("DRIVER_FAILS", "1")]))
        .err()
        .unwrap();
    assert_eq!(error.code, CallErrorCode::SpawnFailed);
    assert!(error.message.contains("exit code 5"), "{}", error.message);
    let Request::ContextSpawn {
        context,
        language,
        cwd,
        env,
        ..
    } = spawn_request("c", &[])
    else {
        panic!()
    };
    let argv = vec!["/no/such".to_owned()];
    let request = Request::ContextSpawn {
        context,
        language,
        argv,
        cwd,
        env,
    };
    let error = client.call(request).err().unwrap();
    assert!(
        error.message.starts_with("program: No such file"),
        "{}",
        error.message
    );
    // One that says nothing: the context exists, is not usable, and can be closed.
    let id = client.send(spawn_request("s", &[("DRIVER_SILENT", "1")]), b"", &[]);
    assert_eq!(
        client.refused(run_request("s", 1), b""),
        CallErrorCode::ContextBusy
    );
    assert_eq!(
        client.refused(spawn_request("s", &[]), b""),
        CallErrorCode::ContextExists
    );
    client.send(
        Request::ContextClose {
            context: "s".into(),
        },
        b"",
        &[],
    );
    assert_eq!(
        client.answer(id).err().unwrap().code,
        CallErrorCode::SpawnFailed
    );
    client.call(spawn_request("s", &[])).unwrap();
    assert_eq!(client.run_to_end("s", 1, "print(1)").out(), "1\n");
}

#[test]
fn a_death_under_a_run_is_its_end() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let said = client.run_to_end(
        "c",
        1,
        "print('a' * 60000, flush=True)\nimport os; os._exit(3)",
    );
    assert_eq!(said.stdout.len(), 60_001);
    assert_eq!(
        died(&said),
        Death {
            code: Some(3),
            signal: None,
            reason: None
        }
    );
    client.call(spawn_request("c", &[])).unwrap();
    let said = client.run_to_end("c", 2, "import os; os.kill(os.getpid(), 11)");
    assert_eq!(died(&said).signal, Some(11));
    // A result that was sent just before still comes.
    client.call(spawn_request("c", &[])).unwrap();
    let said = client.run_to_end(
        "c",
        3,
        "say('result', run=run, data={}); import os; os._exit(0)",
    );
    assert_eq!((said.kernel.len(), died(&said).code), (1, Some(0)));
}

#[test]
fn a_death_between_runs_is_an_event() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.run(
        "c",
        1,
        "import os; os.system('(sleep 0.2; kill -9 %d) &' % os.getpid())",
        60_000,
    );
    client.until_end(1);
    let (kind, _) = client.event();
    let EventKind::ContextDied { context, death } = kind else {
        panic!("{kind:?}")
    };
    assert_eq!((context.as_str(), death.signal), ("c", Some(9)));
    assert_eq!(
        client.refused(run_request("c", 2), b"1"),
        CallErrorCode::ContextDead
    );
    client.call(spawn_request("c", &[])).unwrap();
    assert_eq!(client.run_to_end("c", 2, "print(2)").out(), "2\n");
}

#[test]
fn a_daemon_that_holds_the_pipes_does_not_hold_the_end() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let daemon = "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork(): os._exit(0)\n \
        while True:\n  print('noise' * 100, flush=True)\n  \
        if os.path.exists('/workspace/stop'): open('/workspace/stopped', 'w'); os._exit(0)\n\
        os.wait()\n";
    let started = Instant::now();
    let said = client.run_to_end("c", 1, &format!("{daemon}print('main', flush=True)"));
    assert!(said.out().contains("main\n"));
    let said = client.run_to_end("c", 2, "os._exit(4)");
    assert_eq!(died(&said).code, Some(4));
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    client.shell(
        3,
        "touch stop; until [ -e stopped ]; do sleep 0.01; done",
        Some(20_000),
    );
    let end = client.until_end(3).exec_outcome();
    assert_eq!(end, crownest_init::link::ExecOutcome::Exited { code: 0 });
}

#[test]
fn closing_kills_and_frees_the_name() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.run("c", 1, "import time; time.sleep(1000)", 60_000);
    client
        .call(Request::ContextClose {
            context: "c".into(),
        })
        .unwrap();
    assert_eq!(died(&client.until_end(1)).reason.as_deref(), Some("closed"));
    assert_eq!(
        client.refused(run_request("c", 2), b"1"),
        CallErrorCode::ContextUnknown
    );
    client.call(spawn_request("c", &[])).unwrap();
    assert_eq!(client.run_to_end("c", 2, "print(2)").out(), "2\n");
}
