//! The connection itself: hostile frames, ports, the deadline, the end.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a test")]

mod sandbox;

use crownest_init::link::{CallErrorCode, EventKind, ExecOutcome, LINK_VERSION, Request};
use rustix::net::{SocketFlags, accept_with};
use sandbox::{Client, Sandbox};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn start() -> Option<(Sandbox, Client)> {
    let sandbox = Sandbox::start("none")?;
    let mut client = sandbox.connect();
    client.hello();
    Some((sandbox, client))
}

#[test]
fn garbage_costs_the_connection_and_nothing_else() {
    let Some((sandbox, mut first)) = start() else {
        return;
    };
    first.shell(1, "sleep 0.5; echo survived", None);
    let head = |json: &str| {
        let mut bytes = u32::try_from(json.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(json.as_bytes());
        bytes
    };
    let hostile: Vec<Vec<u8>> = vec![
        vec![0; 8],
        vec![0xff; 64],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        head("{}"),
        head("[]"),
        head("nonsense"),
        head(r#"{"id":1,"op":"no_such"}"#),
        head(r#"{"id":-1,"op":"dial","port":1}"#),
        head(r#"{"id":1,"op":"dial","port":70000}"#),
        head(r#"{"id":1,"fds":4,"op":"context_adopt","language":"x"}"#),
        head(r#"{"id":1,"fds":4294967295,"op":"context_adopt","language":"x"}"#),
        head(&"[".repeat(100_000)),
    ];
    for bytes in hostile {
        let mut client = sandbox.connect();
        client.hello();
        client.stream.write_all(&bytes).unwrap();
        assert!(
            client.frame().is_none(),
            "{:?}",
            &bytes[..bytes.len().min(60)]
        );
    }
    let mut client = sandbox.connect();
    client.hello();
    client.call(Request::Attach { target: 1, seq: 0 }).unwrap();
    assert_eq!(client.until_end(1).out(), "survived\n");
}

#[test]
fn the_newest_connection_wins() {
    let Some((sandbox, mut first)) = start() else {
        return;
    };
    let mut second = sandbox.connect();
    let (
        EventKind::Hello {
            version,
            deadline_ms,
            ..
        },
        egress,
    ) = second.hello()
    else {
        panic!()
    };
    assert_eq!((version, deadline_ms), (LINK_VERSION, None));
    assert!(egress.is_none());
    assert!(first.frame().is_none());
    assert_eq!(second.shell_to_end(1, "echo 2").out(), "2\n");
}

#[test]
fn requests_that_waited_for_room_are_answered() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    client.write("big", &vec![7; 4 << 20]).unwrap();
    // Each answer alone is above what is queued at once, and nothing follows the last request.
    let read = Request::FileRead {
        path: "big".into(),
        within: crownest_init::link::Within::Workspace,
        offset: 0,
        length: 4 << 20,
    };
    let ids: Vec<u64> = (0..8)
        .map(|_| client.send(read.clone(), b"", &[]))
        .collect();
    for id in ids {
        assert_eq!(client.answer(id).unwrap().body.len(), 4 << 20);
    }
}

#[test]
fn a_peer_that_does_not_read_stops_nothing() {
    let Some((sandbox, mut client)) = start() else {
        return;
    };
    client.write("big", &vec![0; 4 << 20]).unwrap();
    let read = Request::FileRead {
        path: "big".into(),
        within: crownest_init::link::Within::Workspace,
        offset: 0,
        length: 4 << 20,
    };
    let before = memory_of(sandbox.init);
    // 800 MiB of answers that nobody fetches: requests wait, memory does not grow.
    client.stream.set_nonblocking(true).unwrap();
    for id in 0..200 {
        let call = crownest_init::link::Call {
            id,
            fds: 0,
            request: read.clone(),
        };
        let mut bytes = Vec::new();
        let head = serde_json::to_vec(&call).unwrap();
        crownest_init::frame::encode(&head, b"", &mut bytes);
        if client.stream.write(&bytes).is_err() {
            break;
        }
    }
    let mut other = sandbox.connect();
    other.hello();
    assert_eq!(other.shell_to_end(1, "echo fine").out(), "fine\n");
    let grown = memory_of(sandbox.init).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes more");
}

fn memory_of(pid: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let kib: usize = line
        .split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib * 1024
}

#[test]
fn ports_are_reached_by_descriptor() {
    let Some((_sandbox, mut client)) = start() else {
        return;
    };
    assert_eq!(
        client.refused(Request::Dial { port: 8080 }, b""),
        CallErrorCode::PortClosed
    );
    assert_eq!(
        client.refused(Request::Dial { port: 0 }, b""),
        CallErrorCode::PortClosed
    );
    let server = |host: &str, port: u16| {
        format!(
            "import socket; s = socket.create_server(('{host}', {port}), family=socket.AF_INET6 if \
             ':' in '{host}' else socket.AF_INET, backlog=1); print('up', flush=True); \
             c = s.accept()[0]; c.sendall(c.recv(100).upper()); c.close()"
        )
    };
    for (exec, host, port) in [(1, "127.0.0.1", 8080), (2, "::1", 8081)] {
        client.shell(
            exec,
            &format!("exec python3 -c \"{}\"", server(host, port)),
            None,
        );
        assert_eq!(client.event().1, b"up\n");
        let mut fds = client.call(Request::Dial { port }).unwrap().fds;
        let mut stream = TcpStream::from(fds.pop().unwrap());
        stream.set_nonblocking(false).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "HELLO", "{host}");
        client.until_end(exec);
    }
    // A listener that never accepts: the queue fills up, the answer comes in bounded time, and
    // other requests do not wait for it.
    let full = "import socket, time; s = socket.create_server(('127.0.0.1', 9), backlog=0)";
    let full = full.replace(", 9)", ", 9009)");
    client.shell(
        3,
        &format!("exec python3 -c \"{full}; print('up', flush=True); time.sleep(1000)\""),
        None,
    );
    assert_eq!(client.event().1, b"up\n");
    let started = Instant::now();
    let mut held = Vec::new();
    let refused = loop {
        let id = client.send(Request::Dial { port: 9009 }, b"", &[]);
        let at_once = client.call(Request::FileStat {
            path: ".".into(),
            within: crownest_init::link::Within::Workspace,
            link: false,
        });
        at_once.unwrap();
        match client.answer(id) {
            Ok(answered) => held.extend(answered.fds),
            Err(error) => break error.code,
        }
    };
    assert_eq!(refused, CallErrorCode::PortClosed);
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn the_egress_listener_is_handed_out_and_kept() {
    let Some(sandbox) = Sandbox::start("proxy") else {
        return;
    };
    for round in 0..2 {
        let mut client = sandbox.connect();
        let (_, egress) = client.hello();
        let egress = egress.expect("a listener");
        client.shell(
            round,
            "exec 3<>/dev/tcp/127.0.0.1/3128; echo hello >&3; cat <&3",
            None,
        );
        let stream = loop {
            match accept_with(&egress, SocketFlags::CLOEXEC) {
                Ok(stream) => break stream,
                Err(rustix::io::Errno::AGAIN) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        let mut stream = TcpStream::from(stream);
        let mut line = [0; 6];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"hello\n");
        stream.write_all(b"proxied").unwrap();
        drop(stream);
        assert_eq!(client.until_end(round).out(), "proxied");
        // Not for visitors from outside.
        assert_eq!(
            client.refused(Request::Dial { port: 3128 }, b""),
            CallErrorCode::PortClosed
        );
        // Not for another program in the sandbox to take, either.
        let bind = "python3 -c \"import socket; socket.create_server(('127.0.0.1', 3128))\"";
        let said = client.shell_to_end(10 + round, bind);
        assert!(
            said.err().contains("Address already in use"),
            "{}",
            said.err()
        );
    }
}

#[test]
fn the_deadline_ends_everything() {
    let Some((mut sandbox, mut client)) = start() else {
        return;
    };
    client
        .call(Request::Deadline {
            after_ms: 3_600_000,
        })
        .unwrap();
    let mut client = sandbox.connect();
    let (
        EventKind::Hello {
            deadline_ms: Some(left),
            ..
        },
        _,
    ) = client.hello()
    else {
        panic!()
    };
    assert!((3_590_000..=3_600_000).contains(&left), "{left}");
    client.shell(
        1,
        "trap '' TERM INT HUP; setsid sleep 1000 & sleep 1000",
        None,
    );
    client
        .call(Request::Deadline { after_ms: u64::MAX })
        .unwrap();
    client.call(Request::Deadline { after_ms: 200 }).unwrap();
    let started = Instant::now();
    while client.frame().is_some() {}
    assert_eq!(sandbox.wait(), Some(0));
    let took = started.elapsed();
    assert!(
        took > Duration::from_millis(100) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[test]
fn nothing_is_over_while_the_clock_stands() {
    let Some((mut sandbox, mut client)) = start() else {
        return;
    };
    client.shell(1, "sleep 1; echo in time", Some(400));
    client.call(Request::ClockStop).unwrap();
    // Over long before the process ends: heard of, and not acted upon.
    client.call(Request::Deadline { after_ms: 100 }).unwrap();
    let said = client.until_end(1);
    assert_eq!(said.exec_outcome(), ExecOutcome::Exited { code: 0 });
    assert_eq!(said.out(), "in time\n");

    // It is on record for the next server, which gives the sandbox its time and the clock a start.
    let mut client = sandbox.connect();
    let (EventKind::Hello { clock_stopped, .. }, _) = client.hello() else {
        panic!()
    };
    assert!(clock_stopped);
    client.call(Request::Deadline { after_ms: 60_000 }).unwrap();
    client.call(Request::ClockStart).unwrap();
    let started = Instant::now();
    client.shell(2, "sleep 100", Some(300));
    let said = client.until_end(2);
    assert_eq!(said.exec_outcome(), ExecOutcome::TimedOut { signal: 15 });
    assert!(started.elapsed() < Duration::from_secs(20));
    client.call(Request::Deadline { after_ms: 100 }).unwrap();
    assert_eq!(sandbox.wait(), Some(0));
}

#[test]
fn a_signal_from_outside_ends_the_sandbox_and_none_from_inside() {
    let Some((mut sandbox, mut client)) = start() else {
        return;
    };
    let said = client.shell_to_end(
        1,
        "for s in 1 2 3 9 15 17 19; do kill -$s 1; done; kill -9 -1; true",
    );
    println!("{said:?}");
    let mut client = sandbox.connect();
    client.hello();
    assert_eq!(client.shell_to_end(2, "echo alive").out(), "alive\n");
    let init = rustix::process::Pid::from_raw(sandbox.init).unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::TERM).unwrap();
    assert_eq!(sandbox.wait(), Some(0));
}

#[test]
fn idle_costs_little() {
    let Some((sandbox, mut client)) = start() else {
        return;
    };
    client.shell_to_end(1, "head -c 3000000 /dev/zero");
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", sandbox.init)).unwrap();
    let kib = |name: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    };
    println!(
        "idle: PSS {} KiB, of it anonymous {} KiB",
        kib("Pss:"),
        kib("Pss_Anon:")
    );
    assert!(kib("Pss:") < 8 * 1024);
    let stat = |field: usize| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", sandbox.init)).unwrap();
        stat.rsplit(") ")
            .next()
            .unwrap()
            .split(' ')
            .nth(field)
            .unwrap()
            .parse()
            .unwrap()
    };
    // utime and stime in ticks: an event loop that spins would use them up.
    let before = stat(11) + stat(12);
    client.shell_to_end(2, "sleep 1");
    assert!(stat(11) + stat(12) - before < 20);
}
