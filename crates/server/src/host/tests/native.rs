//! The host on the real thing: the spawner as root, namespaces, init, a Python from the zygote.
//!
//! Needs root, control groups and the built template `python`, so these tests are asked for by
//! name:
//! ```sh
//! cargo build --release -p crownest-runtime --example spawner_loop
//! export CROWNEST_TEST_SPAWNER=$PWD/target/release/examples/spawner_loop
//! cargo test --release -p crownest-server --lib -- --ignored --nocapture --test-threads=1 native_
//! ```

use super::{PATIENCE, config_of, until};
use crate::egress::{Policy, PolicyConfig};
use crate::host::{
    ContextSpec, ExecEnd, ExecEvent, ExecSpec, Host, HostConfig, HostError, Isolation, Kernel,
    KnownSandbox, Limits, Network, PoolTemplate, RunEvent, RunOutcome, RunSpec, Runtimes, Sandbox,
    SandboxSpec, TemplateRef, Within, WriteSpec,
};
use bytes::Bytes;
use crownest_init::identity::Identity;
use crownest_init::terminal::Stdin;
use crownest_runtime::client::SpawnerClient;
use crownest_runtime::layout::{Layout, claim_instance};
use crownest_runtime::{cgroup, template};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TEMPLATES_DIR: &str = "/var/lib/crownest/templates";
/// Path of the spawner's program; it must be a process of its own with a single thread.
const SPAWNER_VARIABLE: &str = "CROWNEST_TEST_SPAWNER";
const MIB: u64 = 1024 * 1024;

/// A spawner that ends with this value.
struct Spawner {
    child: Child,
    client: SpawnerClient,
    python: TemplateRef,
    _data: tempfile::TempDir,
    _claim: crownest_runtime::layout::Claim,
}

impl Drop for Spawner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_child(layout: &Layout) -> Child {
    let program = std::env::var_os(SPAWNER_VARIABLE).expect("CROWNEST_TEST_SPAWNER is set");
    let mut child = Command::new(program)
        .args(["spawner", &layout.instance.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn start() -> Spawner {
    let data = tempfile::tempdir().unwrap();
    let root = Path::new(cgroup::CGROUP_ROOT);
    let live = |n| cgroup::populated(root, &Layout::new(n).cgroup());
    let claim = claim_instance(data.path(), live).unwrap();
    let built = template::find("python", Path::new(TEMPLATES_DIR)).unwrap();
    let child = start_child(&claim.layout);
    let client = SpawnerClient::connect(claim.layout.clone()).unwrap();
    let python = TemplateRef {
        slug: "python".into(),
        digest: built.digest,
    };
    Spawner {
        child,
        client,
        python,
        _data: data,
        _claim: claim,
    }
}

impl Spawner {
    fn config(&self) -> HostConfig {
        config_of(Arc::new(self.client.clone()))
    }

    fn spec(&self) -> SandboxSpec {
        SandboxSpec {
            snapshot: None,
            key: None,
            template: self.python.clone(),
            limits: Limits::default(),
            network: Network::Proxy,
            runtimes: Runtimes::new(),
            env: BTreeMap::from([("GREETING".into(), "hello".into())]),
            key_variable: None,
            egress: None,
            deadline: Duration::from_secs(300),
        }
    }
}

async fn open(sandbox: &Arc<Sandbox>, id: &str, isolation: Isolation) {
    let spec = ContextSpec {
        id: id.into(),
        language: "python".into(),
        cwd: "/workspace".into(),
        env: BTreeMap::new(),
        isolation,
    };
    sandbox.open_context(spec).await.unwrap();
}

/// What a cell printed, the plain text of its value, and how it ended.
async fn run_in(sandbox: &Arc<Sandbox>, id: &str, code: &str) -> (String, String, RunOutcome) {
    let spec = RunSpec {
        context: id.into(),
        code: code.into(),
        timeout: Duration::from_secs(60),
        cwd: None,
        language: None,
        input: false,
        table_export: None,
    };
    let mut run = sandbox.run(spec).await.unwrap();
    let (mut printed, mut value) = (Vec::new(), String::new());
    loop {
        let next = tokio::time::timeout(2 * PATIENCE, run.next())
            .await
            .expect("in time");
        match next.expect("an end") {
            RunEvent::Stdout(bytes) => printed.extend_from_slice(&bytes),
            RunEvent::Stderr(bytes) => printed.extend_from_slice(&bytes),
            RunEvent::Result(bundle) => value = format!("{:?}", bundle.get("text/plain").unwrap()),
            RunEvent::Error { name, message, .. } => value = format!("{name}: {message}"),
            RunEvent::Done(done) => {
                return (String::from_utf8(printed).unwrap(), value, done.outcome);
            }
            _ => {}
        }
    }
}

async fn value_of(sandbox: &Arc<Sandbox>, code: &str) -> String {
    let (printed, value, outcome) = run_in(sandbox, "a", code).await;
    assert!(
        matches!(outcome, RunOutcome::Completed),
        "{code}: {outcome:?} {printed}"
    );
    value
}

async fn finish(mut exec: crate::host::Exec) -> (String, ExecEnd) {
    let mut output = Vec::new();
    while let Some(event) = exec.next().await {
        match event {
            ExecEvent::Stdout(bytes) | ExecEvent::Stderr(bytes) => output.extend_from_slice(&bytes),
            ExecEvent::Done(done) => {
                exec.acknowledge();
                return (String::from_utf8(output).unwrap(), done.outcome);
            }
        }
    }
    panic!("no end");
}

fn shell(command: &str) -> ExecSpec {
    ExecSpec {
        argv: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
        cwd: "/workspace".into(),
        env: BTreeMap::new(),
        timeout: None,
        identity: Identity::default(),
        stdin: Stdin::Null,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and the template python"]
async fn native_code_commands_files_and_ports() {
    let spawner = start();
    let host = Host::start(spawner.config()).await.unwrap();
    let (sandbox, timings) = host.create(spawner.spec()).await.unwrap();
    println!("cold create: {timings:?}");
    for (id, isolation) in [("a", Isolation::Fork), ("b", Isolation::Fresh)] {
        open(&sandbox, id, isolation).await;
    }
    assert!(value_of(&sandbox, "1+1").await.contains("\"2\""));
    let (printed, ..) = run_in(&sandbox, "a", "import os; print(os.environ['GREETING'])").await;
    assert_eq!(printed, "hello\n");
    value_of(&sandbox, "x = 41").await;
    assert!(
        run_in(&sandbox, "b", "x").await.1.starts_with("NameError"),
        "contexts are apart"
    );

    let (output, end) = finish(
        sandbox
            .exec(sandbox.exec_number(), shell("echo $GREETING; exit 3"))
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        (output.as_str(), end),
        ("hello\n", ExecEnd::Exited { code: 3 })
    );

    let content = Bytes::from_static(b"some bytes\0\xff");
    let path = "/workspace/new/file.bin";
    let spec = WriteSpec {
        path: path.into(),
        within: Within::Workspace,
        overwrite: false,
        parents: true,
        mode: 0o644,
        content: content.clone(),
    };
    assert_eq!(
        sandbox.write(spec).await.unwrap().size,
        content.len() as u64
    );
    let (stat, read) = sandbox.read(path, Within::Workspace, 5, 100).await.unwrap();
    assert_eq!(
        (stat.size, read),
        (content.len() as u64, content.slice(5..))
    );
    let outside = sandbox.read("/etc/passwd", Within::Workspace, 0, 10).await;
    assert!(
        matches!(outside, Err(HostError::File { .. })),
        "{outside:?}"
    );
    let listed = sandbox
        .list("/workspace/new", Within::Workspace)
        .await
        .unwrap();
    assert_eq!(listed[0].name, "file.bin");
    sandbox
        .rename(path, "/workspace/f", Within::Workspace, false)
        .await
        .unwrap();
    sandbox
        .remove("/workspace/f", Within::Workspace)
        .await
        .unwrap();

    let serve = "import threading, http.server as h\n\
                 s = h.HTTPServer(('127.0.0.1', 8000), h.SimpleHTTPRequestHandler)\n\
                 threading.Thread(target=s.serve_forever, daemon=True).start()";
    value_of(&sandbox, serve).await;
    let mut stream = sandbox.dial(8000).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.0 200"));
    assert!(matches!(
        sandbox.dial(8001).await,
        Err(HostError::PortClosed(8001))
    ));

    let stats = sandbox.stats().await.unwrap();
    assert!(stats.pids >= 3 && stats.memory_bytes > 0, "{stats:?}");
    host.destroy(sandbox.key()).await.unwrap();
    let list = || async { spawner.client.list().await.unwrap() };
    until_empty(list).await;
    host.shutdown().await;
}

async fn until_empty<F: Future<Output = Vec<crate::host::SandboxKey>>>(list: impl Fn() -> F) {
    let gone = async { while !list().await.is_empty() {} };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("all sandboxes gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and the template python"]
async fn native_interrupts_memory_and_death() {
    let spawner = start();
    let host = Host::start(spawner.config()).await.unwrap();
    let mut spec = spawner.spec();
    spec.limits.memory_bytes = 256 * MIB;
    let (sandbox, _) = host.create(spec).await.unwrap();
    open(&sandbox, "a", Isolation::Fork).await;
    value_of(&sandbox, "x = 41").await;
    let busy = RunSpec {
        context: "a".into(),
        code: "print('in', flush=True)\nwhile True: pass".into(),
        timeout: Duration::from_secs(60),
        cwd: None,
        language: None,
        input: false,
        table_export: None,
    };
    let mut run = sandbox.run(busy.clone()).await.unwrap();
    assert!(matches!(run.next().await, Some(RunEvent::Stdout(_))));
    let asked = Instant::now();
    sandbox.interrupt_run(run.id()).await.unwrap();
    let outcome = loop {
        if let RunEvent::Done(done) = run.next().await.unwrap() {
            break done.outcome;
        }
    };
    println!("interrupt: {:?}", asked.elapsed());
    assert!(matches!(outcome, RunOutcome::Interrupted), "{outcome:?}");
    // A run whose consumer goes away is interrupted too, and the next one gets the context.
    drop(sandbox.run(busy).await.unwrap());
    assert!(value_of(&sandbox, "x + 1").await.contains("\"42\""));

    let (.., outcome) = run_in(&sandbox, "a", "y = bytearray(1 << 30)").await;
    assert!(matches!(outcome, RunOutcome::OutOfMemory), "{outcome:?}");
    assert!(!sandbox.has_context("a"));
    open(&sandbox, "c", Isolation::Fork).await;
    let (.., outcome) = run_in(&sandbox, "c", "import os; os.kill(os.getpid(), 9)").await;
    assert!(
        matches!(outcome, RunOutcome::ContextDied { .. }),
        "{outcome:?}"
    );

    sandbox
        .set_deadline(Duration::from_millis(50))
        .await
        .unwrap();
    sandbox.closed().await;
    until("gone from the host", || host.get(sandbox.key()).is_none()).await;
    until_empty(|| async { spawner.client.list().await.unwrap() }).await;
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and the template python"]
async fn native_egress_is_judged() {
    let spawner = start();
    let mut config = spawner.config();
    let target = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    let rules = PolicyConfig {
        allow: vec!["localhost".into()],
        ..PolicyConfig::default()
    };
    config.egress = Arc::new(Policy::new(rules).unwrap());
    let host = Host::start(config).await.unwrap();
    let (sandbox, _) = host.create(spawner.spec()).await.unwrap();
    open(&sandbox, "a", Isolation::Fork).await;
    tokio::spawn(async move {
        let (mut stream, _) = target.accept().await.unwrap();
        let mut head = [0; 1_024];
        let _ = stream.read(&mut head).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nallowed";
        stream.write_all(answer).await.unwrap();
    });
    let ask = |url: String| {
        format!(
            "import urllib.request as u, urllib.error\n\
             o = u.build_opener(u.ProxyHandler({{'http': 'http://127.0.0.1:3128'}}))\n\
             try: r = o.open('{url}', timeout=20).read().decode()\n\
             except urllib.error.HTTPError as e: r = f'{{e.code}} {{e.reason}}'\nr"
        )
    };
    let denied = value_of(&sandbox, &ask("http://169.254.169.254/latest".into())).await;
    assert!(
        denied.contains("403 host 169.254.169.254") && denied.contains("metadata"),
        "{denied}"
    );
    let allowed = value_of(&sandbox, &ask(format!("http://localhost:{port}/"))).await;
    assert!(allowed.contains("allowed"), "{allowed}");
    let direct = "import socket\n\
                  try: socket.create_connection(('1.1.1.1', 80), 5); r = 'connected'\n\
                  except OSError as e: r = e.strerror\nr";
    let direct = value_of(&sandbox, direct).await;
    assert!(direct.contains("unreachable"), "{direct}");
    let counts = sandbox.egress_counters().unwrap();
    assert_eq!((counts.refused, counts.connections), (1, 1));
    host.destroy(sandbox.key()).await.unwrap();
    until_empty(|| async { spawner.client.list().await.unwrap() }).await;
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and the template python"]
async fn native_restarts_lose_nothing() {
    let mut spawner = start();
    let first = Host::start(spawner.config()).await.unwrap();
    let (sandbox, _) = first.create(spawner.spec()).await.unwrap();
    let (unknown, _) = first.create(spawner.spec()).await.unwrap();
    open(&sandbox, "a", Isolation::Fork).await;
    value_of(&sandbox, "x = 41").await;
    let lines = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 4";
    let mut exec = sandbox
        .exec(sandbox.exec_number(), shell(lines))
        .await
        .unwrap();
    let Some(ExecEvent::Stdout(begin)) = exec.next().await else {
        panic!()
    };
    let (id, seq) = (exec.id(), exec.seq());
    drop(exec);
    first.shutdown().await;
    // The spawner is killed hard as well; both come back.
    spawner.child.kill().unwrap();
    spawner.child.wait().unwrap();
    spawner.child = start_child(&spawner._claim.layout);

    let second = Host::start(spawner.config()).await.unwrap();
    let known = [KnownSandbox {
        time_left: Duration::from_secs(60),
        key: sandbox.key().clone(),
        template: spawner.python.clone(),
        runtimes: Runtimes::new(),
        egress: None,
    }];
    let recovered = second.recover(&known).await.unwrap();
    assert_eq!(recovered.alive, [sandbox.key().clone()], "{recovered:?}");
    assert_eq!(recovered.killed_unknown, 1, "{}", unknown.key());
    let again = second.get(sandbox.key()).unwrap();
    let mut log = String::from_utf8(begin.to_vec()).unwrap();
    let (rest, end) = finish(again.attach_exec(id, seq).await.unwrap()).await;
    log.push_str(&rest);
    let expected: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(log, expected, "whole, once, in order");
    assert_eq!(end, ExecEnd::Exited { code: 4 });
    assert!(
        value_of(&again, "x + 1").await.contains("\"42\""),
        "state is kept"
    );
    open(&again, "new", Isolation::Fork).await;
    second.destroy(again.key()).await.unwrap();
    until_empty(|| async { spawner.client.list().await.unwrap() }).await;
    second.shutdown().await;
}

fn percentiles(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |p: usize| times[(times.len() * p / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "{name:32} p50 {:8.3}  p95 {:8.3}  p99 {:8.3} ms",
        at(50),
        at(95),
        at(99)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; needs root and the template python"]
async fn native_measurements() {
    let spawner = start();
    let mut config = spawner.config();
    config.pool.templates = vec![PoolTemplate {
        template: spawner.python.clone(),
        size: 8,
        limits: Limits::default(),
        network: Network::Proxy,
        runtimes: Runtimes::new(),
        drivers: vec![Kernel::named("python").unwrap()],
    }];
    let host = Host::start(config).await.unwrap();
    until("the pool is full", || host.metrics().pool_size == 8).await;
    let (mut warm, mut hit, mut hit_first) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..30 {
        until("the pool is full", || host.metrics().pool_size == 8).await;
        let began = Instant::now();
        let (sandbox, timings) = host.create(spawner.spec()).await.unwrap();
        assert!(timings.pooled);
        hit.push(began.elapsed());
        open(&sandbox, "a", Isolation::Fork).await;
        value_of(&sandbox, "1+1").await;
        hit_first.push(began.elapsed());
        for _ in 0..100 {
            let began = Instant::now();
            value_of(&sandbox, "1+1").await;
            warm.push(began.elapsed());
        }
        host.destroy(sandbox.key()).await.unwrap();
    }
    let (mut cold, mut cold_first) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        let mut spec = spawner.spec();
        spec.limits.pids -= 1;
        let began = Instant::now();
        let (sandbox, timings) = host.create(spec).await.unwrap();
        assert!(!timings.pooled);
        cold.push(began.elapsed());
        open(&sandbox, "a", Isolation::Fork).await;
        value_of(&sandbox, "1+1").await;
        cold_first.push(began.elapsed());
        host.destroy(sandbox.key()).await.unwrap();
    }
    for (name, times) in [
        ("create, pool", hit),
        ("create to first result, pool", hit_first),
        ("create, cold", cold),
        ("create to first result, cold", cold_first),
        ("warm 1+1", warm),
    ] {
        percentiles(name, times);
    }
    host.shutdown().await;
    until_empty(|| async { spawner.client.list().await.unwrap() }).await;
}
