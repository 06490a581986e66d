//! Processes that somebody types into: terminals and pipes.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::link::{CallErrorCode, EventKind, ExecOutcome, Request};
use crownest_init::terminal::{EXEC_INPUT_BYTES_MAX, Stdin, TerminalSize};
use sandbox::{Client, Sandbox, shell};

fn typed(exec: u64, command: &str, typed_into: Stdin) -> Request {
    let mut request = shell(exec, command, None);
    let Request::Exec { stdin, .. } = &mut request else {
        panic!("{request:?}");
    };
    *stdin = typed_into;
    request
}

fn input(exec: u64, eof: bool) -> Request {
    Request::ExecInput { exec, eof }
}

/// Output until it ends with `end`.
fn until(client: &mut Client, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        match client.event() {
            (EventKind::Output { .. }, body) => text.push_str(&String::from_utf8(body).unwrap()),
            (EventKind::Reply { .. }, _) => {}
            (other, _) => panic!("{other:?} after {text:?}"),
        }
    }
    text
}

#[test]
fn a_pipe_is_read_to_its_end() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client
        .call(typed(1, "wc -c; echo err >&2", Stdin::Pipe))
        .unwrap();
    let piece = vec![b'x'; EXEC_INPUT_BYTES_MAX];
    for _ in 0..8 {
        client.call_with(input(1, false), &piece).unwrap();
    }
    client.call_with(input(1, true), b"last").unwrap();
    let said = client.until_end(1);
    assert_eq!(said.out().trim(), (8 * piece.len() + 4).to_string());
    assert_eq!(said.err(), "err\n");
    assert_eq!(said.exec_outcome(), ExecOutcome::Exited { code: 0 });
}

#[test]
fn input_that_nobody_takes_is_refused() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    client.shell(1, "sleep 600", None);
    let refused = client.refused(input(1, false), b"x");
    assert_eq!(refused, CallErrorCode::InputNotAwaited);
    let refused = client.refused(input(9, false), b"x");
    assert_eq!(refused, CallErrorCode::UnknownTarget);
    client
        .call(typed(2, "exec <&-; echo closed; sleep 600", Stdin::Pipe))
        .unwrap();
    assert_eq!(until(&mut client, "\n"), "closed\n");
    let refused = client.refused(input(2, false), b"x");
    assert_eq!(refused, CallErrorCode::InputNotAwaited);
    let long = vec![0; EXEC_INPUT_BYTES_MAX + 1];
    let refused = client.refused(input(2, false), &long);
    assert_eq!(refused, CallErrorCode::Invalid);
    let size = TerminalSize::DEFAULT;
    let refused = client.refused(Request::ExecResize { exec: 2, size }, b"");
    assert_eq!(refused, CallErrorCode::Invalid);
}

#[test]
fn a_terminal_is_one() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let size = TerminalSize { rows: 30, cols: 90 };
    let command = "stty size; stat -c '%u %a' $(tty); echo $TERM; \
        cut -d' ' -f5-8 /proc/$$/stat; echo $$; read line; echo got $line; exit 4";
    client
        .call(typed(1, command, Stdin::Terminal(size)))
        .unwrap();
    client.call_with(input(1, false), b"typed\n").unwrap();
    let said = client.until_end(1);
    let out = said.out();
    let lines: Vec<&str> = out.split("\r\n").filter(|line| *line != "typed").collect();
    assert_eq!(lines[..3], ["30 90", "1000 620", "xterm-256color"], "{out}");
    let pid = lines[4];
    let of_session: Vec<&str> = lines[3].split(' ').collect();
    assert_eq!((of_session[0], of_session[1]), (pid, pid), "{out}");
    assert_ne!(of_session[2], "0", "it has a controlling terminal: {out}");
    assert_eq!(lines[5], "got typed", "{out}");
    assert_eq!(said.exec_outcome(), ExecOutcome::Exited { code: 4 });
    let none = TerminalSize { rows: 0, cols: 90 };
    let refused = client.refused(typed(2, "true", Stdin::Terminal(none)), b"");
    assert_eq!(refused, CallErrorCode::Invalid);
}

#[test]
fn keys_and_signals_reach_the_foreground() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let terminal = Stdin::Terminal(TerminalSize::DEFAULT);
    // It ends by itself: bash would end with a job that SIGINT has killed.
    let job = "sh -c 'trap \"echo int; exit\" INT; trap \"echo term; exit\" TERM; echo up; read a'";
    let last = "trap 'kill $!; stty size; exit' WINCH; sleep 600 & echo x; wait";
    let script = format!("set -m; stty -echo; {job}; {job}; {last}");
    client.call(typed(1, &script, terminal)).unwrap();
    assert_eq!(until(&mut client, "up\r\n"), "up\r\n");
    client.call_with(input(1, false), b"\x03").unwrap();
    assert!(until(&mut client, "up\r\n").ends_with("int\r\nup\r\n"));
    let signal = Request::Signal {
        exec: 1,
        signal: 15,
        escalate: false,
        foreground: true,
    };
    client.call(signal).unwrap();
    assert!(until(&mut client, "x\r\n").ends_with("term\r\nx\r\n"));
    let size = TerminalSize { rows: 5, cols: 7 };
    client.call(Request::ExecResize { exec: 1, size }).unwrap();
    // The shell may say that it has ended its job.
    let said = client.until_end(1).out();
    assert!(said.starts_with("5 7\r\n"), "{said}");
}

#[test]
fn everything_printed_comes_before_the_end() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let terminal = Stdin::Terminal(TerminalSize::DEFAULT);
    for exec in 1..=20 {
        client.call(typed(exec, "seq 1 20000", terminal)).unwrap();
        let said = client.until_end(exec);
        let expected: String = (1..=20_000).map(|n| format!("{n}\r\n")).collect();
        assert_eq!(said.out().len(), expected.len());
        assert_eq!(said.out(), expected);
    }
}

#[test]
fn terminals_are_given_back() {
    let Some(sandbox) = Sandbox::start("none") else {
        return;
    };
    let mut client = sandbox.connect();
    client.hello();
    let terminal = Stdin::Terminal(TerminalSize::DEFAULT);
    // The sandbox has 8, and each is free again when its program has ended.
    for exec in 1..=30 {
        client.call(typed(exec, "tty", terminal)).unwrap();
        assert!(client.until_end(exec).out().starts_with("/dev/pts/"));
    }
}
