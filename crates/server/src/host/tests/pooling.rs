//! The pool, with many callers at once.

use super::{PeerSpawner, config, open, spec, template, until};
use crate::host::{
    ContextSpec, Host, HostConfig, Isolation, Kernel, Limits, Network, PoolTemplate, Runtimes,
    Sandbox, SandboxKey, SandboxSpec,
};
use crownest_init::link::Request;
use crownest_runtime::template::RuntimeVersion;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn pooled(spawner: &Arc<PeerSpawner>, size: usize) -> HostConfig {
    let mut config = config(spawner);
    config.pool.refill_per_second = 10_000;
    config.pool.refill_concurrency = 4;
    config.pool.memory_available_bytes_min = 0;
    config.pool.templates = vec![PoolTemplate {
        template: template(),
        size,
        limits: Limits::default(),
        network: Network::None,
        runtimes: Runtimes::new(),
        drivers: vec![Kernel::named("python").unwrap()],
    }];
    config
}

async fn full(host: &Host, size: u64) {
    until("the pool is full", || host.metrics().pool_size == size).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_two_callers_get_the_same_sandbox() {
    let spawner = PeerSpawner::new();
    let host = Host::start(pooled(&spawner, 16)).await.unwrap();
    full(&host, 16).await;
    let callers: Vec<_> = (0..200)
        .map(|_| {
            let host = host.clone();
            tokio::spawn(async move {
                let (sandbox, timings) = host.create(spec()).await.unwrap();
                open(&sandbox, "a").await;
                let key = sandbox.key().clone();
                host.destroy(&key).await.unwrap();
                (key, timings.pooled)
            })
        })
        .collect();
    let mut keys: HashSet<SandboxKey> = HashSet::new();
    let mut hits = 0;
    for caller in callers {
        let (key, pooled) = caller.await.unwrap();
        assert!(keys.insert(key), "a sandbox was handed out twice");
        hits += u64::from(pooled);
    }
    let metrics = host.metrics();
    assert!(hits >= 16, "the sixteen that were ready");
    assert_eq!((metrics.pool_hits, metrics.pool_misses), (hits, 200 - hits));
    full(&host, 16).await;
    host.shutdown().await;
    let destroyed: HashSet<_> = spawner.destroyed.lock().unwrap().iter().cloned().collect();
    let created: HashSet<_> = spawner.created.lock().unwrap().iter().cloned().collect();
    assert_eq!(destroyed, created, "nothing is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_same_recipe_comes_from_the_pool() {
    let spawner = PeerSpawner::new();
    let host = Host::start(pooled(&spawner, 1)).await.unwrap();
    full(&host, 1).await;
    let mut other = spec();
    other.limits.pids += 1;
    assert!(!host.create(other).await.unwrap().1.pooled);
    let mut other = spec();
    other.network = Network::Proxy;
    assert!(!host.create(other).await.unwrap().1.pooled);
    let mut other = spec();
    other.key = SandboxKey::new("mine");
    assert!(!host.create(other).await.unwrap().1.pooled);
    assert_eq!(host.metrics().pool_misses, 0);

    let mut wanted = spec();
    wanted.env.insert("A".into(), "1".into());
    let (sandbox, timings) = host.create(wanted).await.unwrap();
    assert!(timings.pooled);
    let forks = host.metrics().forks;
    open(&sandbox, "a").await;
    let requests = spawner.peer(sandbox.key()).state().requests.clone();
    assert!(
        requests
            .iter()
            .any(|r| matches!(r, Request::Environment { .. }))
    );
    assert_eq!(
        requests
            .iter()
            .rfind(|r| matches!(r, Request::Deadline { .. })),
        Some(&Request::Deadline { after_ms: 60_500 })
    );
    assert!(
        host.metrics().forks <= forks + 1,
        "the context used the spare, not a new fork"
    );
    assert_eq!(
        requests
            .iter()
            .filter(|r| matches!(r, Request::ContextAdopt { .. }))
            .count(),
        1
    );
}

fn node(version: &str) -> Runtimes {
    let version = RuntimeVersion {
        version: version.into(),
        home: format!("/opt/node/{version}"),
    };
    Runtimes::from([("node".to_owned(), version)])
}

fn with_node(spawner: &Arc<PeerSpawner>, size: usize) -> HostConfig {
    let mut config = pooled(spawner, size);
    config.pool.templates[0].runtimes = node("24");
    let drivers = &mut config.pool.templates[0].drivers;
    drivers.push(Kernel::named("node").unwrap());
    config
}

async fn complete(host: &Host, size: u64) {
    until("the pool is complete", || {
        host.metrics().pool_complete == size
    })
    .await;
}

async fn open_node(sandbox: &Sandbox, id: &str, isolation: Isolation) {
    let context = ContextSpec {
        id: id.into(),
        language: "typescript".into(),
        cwd: "/workspace".into(),
        env: BTreeMap::new(),
        isolation,
    };
    sandbox.open_context(context).await.unwrap();
}

/// Programs of drivers that were started for a context.
fn spawned(requests: &[Request]) -> Vec<&str> {
    let mut programs = Vec::new();
    for request in requests {
        if let Request::ContextSpawn { argv, .. } = request {
            programs.push(argv[0].as_str());
        }
    }
    programs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_started_driver_waits_for_the_first_context_that_it_fits() {
    let spawner = PeerSpawner::new();
    let host = Host::start(with_node(&spawner, 1)).await.unwrap();
    complete(&host, 1).await;
    let mut wanted = spec();
    wanted.runtimes = node("24");
    wanted.env.insert("TOKEN".into(), "1".into());
    let (sandbox, timings) = host.create(wanted).await.unwrap();
    assert!(timings.pooled);
    open_node(&sandbox, "first", Isolation::Fork).await;
    open_node(&sandbox, "second", Isolation::Fork).await;
    let requests = spawner.peer(sandbox.key()).state().requests.clone();
    assert_eq!(spawned(&requests), ["/opt/node/24/bin/node"], "the second");
    let claims = |request: &&Request| matches!(request, Request::ContextOpen { language, .. } if language == "node:24");
    assert_eq!(requests.iter().filter(claims).count(), 1);
    let ends = |r: &Request| matches!(r, Request::SpareDeadline { after_ms: 300_000 });
    assert!(requests.iter().any(ends), "what is not claimed ends");
    let metrics = host.metrics();
    assert_eq!(metrics.spares_claimed, 1);
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_started_driver_of_another_version_or_environment_is_not_taken() {
    let other_version = |wanted: &mut SandboxSpec| wanted.runtimes = node("20");
    let other_environment = |wanted: &mut SandboxSpec| {
        wanted.env.insert("NODE_OPTIONS".into(), "--x".into());
    };
    let nothing = |_: &mut SandboxSpec| {};
    type Change<'a> = &'a dyn Fn(&mut SandboxSpec);
    let cases: [(Change<'_>, Isolation, &str); 3] = [
        (&other_version, Isolation::Fork, "/opt/node/20/bin/node"),
        (&other_environment, Isolation::Fork, "/opt/node/24/bin/node"),
        (&nothing, Isolation::Fresh, "/opt/node/24/bin/node"),
    ];
    for (change, isolation, program) in cases {
        let spawner = PeerSpawner::new();
        let host = Host::start(with_node(&spawner, 1)).await.unwrap();
        complete(&host, 1).await;
        let mut wanted = spec();
        wanted.runtimes = node("24");
        change(&mut wanted);
        let (sandbox, timings) = host.create(wanted).await.unwrap();
        assert!(timings.pooled, "the sandbox itself is as good as any");
        open_node(&sandbox, "a", isolation).await;
        let requests = spawner.peer(sandbox.key()).state().requests.clone();
        assert_eq!(spawned(&requests), [program]);
        // What is forked fits whatever was asked for.
        open(&sandbox, "b").await;
        assert_eq!(host.metrics().spares_claimed, 0);
        host.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_that_is_gone_is_replaced_without_a_word() {
    let spawner = PeerSpawner::new();
    let host = Host::start(with_node(&spawner, 1)).await.unwrap();
    complete(&host, 1).await;
    let mut wanted = spec();
    wanted.runtimes = node("24");
    let (sandbox, _) = host.create(wanted).await.unwrap();
    spawner.peer(sandbox.key()).state().spares.clear();
    open_node(&sandbox, "a", Isolation::Fork).await;
    open(&sandbox, "b").await;
    let requests = spawner.peer(sandbox.key()).state().requests.clone();
    assert_eq!(spawned(&requests), ["/opt/node/24/bin/node"]);
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_and_old_entries_are_replaced() {
    let spawner = PeerSpawner::new();
    let host = Host::start(pooled(&spawner, 1)).await.unwrap();
    full(&host, 1).await;
    let first = spawner.created.lock().unwrap()[0].clone();
    spawner.kill(&first);
    until("replaced", || spawner.created.lock().unwrap().len() == 2).await;
    full(&host, 1).await;
    let (sandbox, timings) = host.create(spec()).await.unwrap();
    assert!(timings.pooled && *sandbox.key() != first);
    host.shutdown().await;

    let spawner = PeerSpawner::new();
    let mut config = pooled(&spawner, 1);
    config.pool.entry_age_max = Duration::ZERO;
    let host = Host::start(config).await.unwrap();
    until("renewed again and again", || {
        spawner.destroyed.lock().unwrap().len() > 3
    })
    .await;
    let (_, timings) = host.create(spec()).await.unwrap();
    assert!(!timings.pooled, "nothing older than its age is handed out");
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_gives_way_when_the_node_is_full() {
    let spawner = PeerSpawner::new();
    let mut config = pooled(&spawner, 2);
    config.sandboxes_max = 2;
    let host = Host::start(config).await.unwrap();
    full(&host, 2).await;
    let mut other = spec();
    other.limits.pids += 1;
    let (sandbox, _) = host.create(other).await.unwrap();
    assert!(host.get(sandbox.key()).is_some());
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_short_of_memory_gets_no_pool() {
    let spawner = PeerSpawner::new();
    let mut config = pooled(&spawner, 4);
    config.pool.memory_available_bytes_min = u64::MAX;
    let host = Host::start(config).await.unwrap();
    let (_, timings) = host.create(spec()).await.unwrap();
    assert!(!timings.pooled);
    assert_eq!(spawner.created.lock().unwrap().len(), 1);
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_cannot_be_filled_is_counted_and_not_in_the_way() {
    let spawner = PeerSpawner::new();
    spawner.away.store(usize::MAX, Ordering::Release);
    let host = Host::start(pooled(&spawner, 1)).await.unwrap();
    until("a failure", || host.metrics().pool_refill_failures > 0).await;
    spawner.away.store(0, Ordering::Release);
    assert!(host.create(spec()).await.is_ok());
    host.shutdown().await;
}
