//! The pool, with many callers at once.

use super::{PeerSpawner, config, open, spec, template, until};
use crate::host::{Host, HostConfig, Limits, Network, PoolTemplate, SandboxKey};
use crownest_init::link::Request;
use std::collections::HashSet;
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
        driver: Some("python".into()),
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
