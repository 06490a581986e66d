//! Questions about a context, lines that code asks for, and what runs cost.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::cell::{INPUT_BYTES_MAX, Query, RunOptions, RunUsage};
use crownest_init::link::{CallErrorCode, EventKind, Request, RunOutcome};
use sandbox::driver::{run_request, start};
use sandbox::{Client, Said};

fn asking(query: Query) -> RunOptions {
    RunOptions {
        query: Some(query),
        ..RunOptions::default()
    }
}

fn with_input() -> RunOptions {
    RunOptions {
        input: true,
        ..RunOptions::default()
    }
}

fn ask(client: &mut Client, run: u64, code: &str, query: Query) -> Said {
    client.run_with("c", run, code, 60_000, asking(query));
    client.until_end(run)
}

fn done(said: &Said) -> (u64, Option<RunUsage>) {
    match said.end {
        Some(EventKind::RunDone {
            background_dropped,
            usage,
            ..
        }) => (background_dropped, usage),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_query_has_one_answer_and_nothing_else() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let answering = "def answering(op):\n print('by accident', flush=True)\n \
        for ev in ('result', 'display', 'clear', 'error', 'notice', 'input'): say(ev, run=run, data={})\n \
        say('answer', run=run - 1, answer='stale')\n say('answer', run=run, answer=op)\n \
        say('answer', run=run, answer='second')";
    let said = client.run_to_end("c", 1, answering);
    assert!(done(&said).1.is_some());
    let cursor = Query::Complete { cursor: 3 };
    let said = ask(&mut client, 2, "prü", cursor);
    assert_eq!(
        (said.out().as_str(), said.kernel.len()),
        ("", 1),
        "{said:?}"
    );
    assert_eq!(
        said.kernel[0]["answer"],
        serde_json::json!({"op": "query", "run": 2, "query": "complete", "cursor": 3, "code": "prü"})
    );
    assert_eq!(said.outcome(), RunOutcome::Completed);
    assert_eq!(done(&said), (0, None), "a query is not metered");
    let said = ask(&mut client, 3, "", Query::Variables { limit: 9 });
    assert_eq!(said.kernel[0]["answer"]["limit"], 9);
    // What the two printed belongs to nobody, and is counted for the next run.
    let said = client.run_to_end("c", 4, "print('mine', state['count'])");
    assert_eq!(said.out(), "mine 2\n");
    assert_eq!(done(&said).0, 2 * 12);
    assert_eq!(said.kernel.len(), 0);
}

#[test]
fn an_answer_belongs_to_a_query() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let said = client.run_to_end("c", 1, "say('answer', run=run, answer={})");
    assert!(said.kernel.is_empty(), "{said:?}");
}

#[test]
fn background_output_outlives_a_query() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let background = "import threading, time\ndef answering(op): say('answer', run=op['run'], answer=1)\n\
        def f():\n while not os.path.exists('go'): time.sleep(0.005)\n \
        print('behind', flush=True)\n open('gone', 'w').close()\n\
        threading.Thread(target=f).start()";
    client.run_to_end("c", 1, &format!("import os\n{background}"));
    client.shell(
        2,
        "touch go; until [ -e gone ]; do sleep 0.01; done",
        Some(20_000),
    );
    client.until_end(2);
    ask(&mut client, 3, "", Query::Variables { limit: 1 });
    let said = client.run_to_end("c", 4, "print('mine')");
    assert_eq!(said.out(), "behind\nmine\n");
}

#[test]
fn a_query_is_interrupted_timed_out_and_buried_like_a_run() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.run_to_end("c", 1, "x = 1\ndef answering(op):\n while True: pass");
    let endless = asking(Query::Variables { limit: 1 });
    client.run_with("c", 2, "", 60_000, endless.clone());
    assert_eq!(
        client.refused(run_request("c", 3), b"1"),
        CallErrorCode::ContextBusy
    );
    client.call(Request::Interrupt { run: 2 }).unwrap();
    assert_eq!(client.until_end(2).outcome(), RunOutcome::Interrupted);
    client.run_with("c", 3, "", 100, endless.clone());
    let timed_out = RunOutcome::TimedOut {
        context_alive: true,
    };
    assert_eq!(client.until_end(3).outcome(), timed_out);
    assert_eq!(client.run_to_end("c", 4, "print(x)").out(), "1\n");
    let killed =
        "import os\ndef answering(op): print('x' * 100000, flush=True); os.kill(os.getpid(), 9)";
    client.run_to_end("c", 5, killed);
    client.run_with("c", 6, "", 60_000, endless);
    let said = client.until_end(6);
    assert!(matches!(said.outcome(), RunOutcome::Died(_)), "{said:?}");
    assert_eq!(said.out(), "");
    assert_eq!(
        client.refused(run_request("c", 7), b"1"),
        CallErrorCode::ContextDead
    );
}

#[test]
fn a_flood_of_a_query_blocks_nobody() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let flood = "def answering(op):\n for _ in range(100): print('x' * 99999, flush=True)\n \
        say('answer', run=op['run'], answer=1)";
    client.run_to_end("c", 1, flood);
    let said = ask(&mut client, 2, "", Query::Variables { limit: 1 });
    assert_eq!((said.out().len(), said.kernel.len()), (0, 1));
    assert_eq!(done(&client.run_to_end("c", 3, "pass")).0, 100 * 100_000);
}

#[test]
fn a_line_is_asked_for_and_answered() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let code = "print('before', flush=True)\nprint(repr(ask('name? ')), repr(ask('again')))";
    client.run_with("c", 1, code, 60_000, with_input());
    assert_eq!(client.event().1, b"before\n");
    let (_, body) = client.event();
    let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (asked["ev"].as_str(), asked["prompt"].as_str()),
        (Some("input"), Some("name? "))
    );
    // Of another run, too long, no text: not passed on, and still awaited.
    let input = |run, eof| Request::Input { run, eof };
    let not_awaited = CallErrorCode::InputNotAwaited;
    assert_eq!(client.refused(input(2, false), b"x"), not_awaited);
    let long = vec![b'x'; INPUT_BYTES_MAX + 1];
    assert_eq!(
        client.refused(input(1, false), &long),
        CallErrorCode::Invalid
    );
    assert_eq!(
        client.refused(input(1, false), b"\xff"),
        CallErrorCode::Invalid
    );
    client.call_with(input(1, false), "Zoë".as_bytes()).unwrap();
    let (_, body) = client.event();
    assert!(String::from_utf8(body).unwrap().contains("again"));
    client.call_with(input(1, true), b"").unwrap();
    let said = client.until_end(1);
    assert_eq!(said.out(), "'Zoë' None\n");
    assert_eq!(client.refused(input(1, false), b"x"), not_awaited);
}

#[test]
fn nobody_is_asked_unless_the_run_said_so_and_once_at_a_time() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let said = client.run_to_end("c", 1, "say('input', run=run, prompt='x', password=False)");
    assert!(said.kernel.is_empty(), "{said:?}");
    // In one write, so that init has both before it can have answered the first.
    let twice = "import __main__, json, struct\n\
        d = json.dumps({'ev': 'input', 'run': run, 'prompt': 'x', 'password': True}).encode()\n\
        raw(2 * (struct.pack('>I', len(d)) + d))\nprint(__main__.read_frame()['value'])";
    client.run_with("c", 2, twice, 60_000, with_input());
    client.event();
    let eof = false;
    client
        .call_with(Request::Input { run: 2, eof }, b"one")
        .unwrap();
    let refused = client.refused(Request::Input { run: 2, eof }, b"two");
    assert_eq!(refused, CallErrorCode::InputNotAwaited);
    let said = client.until_end(2);
    assert_eq!((said.out().as_str(), said.kernel.len()), ("one\n", 0));
    // An interrupt ends the wait.
    client.run_with("c", 3, "ask('never')", 60_000, with_input());
    client.event();
    client.call(Request::Interrupt { run: 3 }).unwrap();
    assert_eq!(client.until_end(3).outcome(), RunOutcome::Interrupted);
}

#[test]
fn a_run_is_charged_for_what_it_did_and_for_nothing_else() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    let usage = |said: &Said| done(said).1.expect("measured");
    // Whatever the driver claims.
    let busy = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n\
        block = bytearray(48 << 20)\nblock[::4096] = b'x' * len(block[::4096])\ndel block";
    let first = usage(&client.run_to_end("c", 1, busy));
    assert!(first.cpu_us >= 200_000, "{first:?}");
    assert!(first.memory_peak_growth_bytes >= 40 << 20, "{first:?}");
    assert!(first.memory_peak_bytes > first.memory_bytes, "{first:?}");
    let second = usage(&client.run_to_end("c", 2, "x = 1"));
    assert!(second.cpu_us < 100_000, "{second:?}");
    assert_eq!(second.memory_peak_growth_bytes, 0);
    assert_eq!(second.memory_peak_bytes, first.memory_peak_bytes);
    let child = "import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', \
        'import time\\nwhile time.process_time() < 0.2: pass'])";
    let third = usage(&client.run_to_end("c", 3, child));
    assert!(third.cpu_us >= 150_000, "{third:?}");
    let said = client.run_to_end("c", 4, "import os; os._exit(1)");
    assert_eq!(done(&said).1, None, "nothing is known of what has died");
}

#[test]
fn a_kept_run_is_marked_for_the_next_server() {
    let Some((sandbox, mut client)) = start() else {
        return;
    };
    let keep = RunOptions {
        keep: true,
        ..RunOptions::default()
    };
    client.run_with("c", 1, "import time; time.sleep(0.2)", 60_000, keep);
    client
        .call(sandbox::driver::spawn_request("d", &[]))
        .unwrap();
    client.run("d", 2, "import time; time.sleep(0.2)", 60_000);
    let mut second = sandbox.connect();
    let (EventKind::Hello { targets, .. }, _) = second.hello() else {
        panic!()
    };
    let kept: Vec<_> = targets.iter().map(|t| (t.target, t.kept)).collect();
    assert_eq!(kept, [(1, true), (2, false)]);
}
