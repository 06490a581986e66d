//! Prints what one call costs, end to end, on the caller's side: the figures that creating a
//! sandbox and a keyed code run wait for.
//!
//! `cargo run --release -p crownest-store --example latency [-- URL [CALLS]]`; without a URL a
//! SQLite file in a temporary directory is used.

use crownest_store::{
    ApiKey, Begun, Founding, Organization, Owner, Project, RequestHash, Sandbox, SandboxStatus,
    ScopeKey, SecretHash, Store, StoreError, StoreOptions, StoredResponse, User,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CALLS: usize = 20_000;
/// Tasks that insert at once in the throughput measurement.
const TASKS: usize = 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let directory = tempfile::tempdir()?;
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| directory.path().join("store.db").display().to_string());
    let calls = arguments.next().map_or(Ok(CALLS), |text| text.parse())?;
    // In a task, because that is where a server's calls are made.
    tokio::spawn(measure(url, calls)).await?
}

async fn measure(url: String, calls: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
    let store = Store::open(&url, &StoreOptions::default()).await?;
    // A run of its own, so that a database that is there already can be used.
    let run = std::process::id();
    let founding = founding(run);
    store
        .insert_organization(&founding.organization, &founding.project)
        .await?;
    store.insert_user(&founding.user).await?;
    store.insert_api_key(&api_key(run)).await?;

    // What a call costs before the database does anything: two thread switches (SQLite) or one
    // round trip (PostgreSQL).
    let mut times = Times::new("ping");
    for _ in 0..calls {
        times.add(store.ping()).await?;
    }
    times.print();

    let mut times = Times::new("insert_sandbox");
    for number in 0..calls {
        let row = sandbox(run, number);
        times.add(store.insert_sandbox(&row)).await?;
    }
    times.print();

    let store = Arc::new(store);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for number in 0..calls / TASKS {
                store
                    .insert_sandbox(&sandbox(run, calls * (task + 1) + number))
                    .await?;
            }
            Ok::<_, StoreError>(())
        });
    }
    for outcome in tasks.join_all().await {
        outcome?;
    }
    let each = start.elapsed().as_secs_f64() * 1e6 / ((calls / TASKS) * TASKS) as f64;
    println!("insert_sandbox, {TASKS} tasks   {each:11.1} us a row, all together");

    let mut times = Times::new("sandbox");
    for number in 0..calls {
        let id = format!("sbx_{run}_{number}");
        times
            .add(store.sandbox(&founding.organization.id, &id))
            .await?;
    }
    times.print();

    let mut times = Times::new("api_key_by_hash");
    let hash = SecretHash::of(&format!("secret-{run}"));
    for _ in 0..calls {
        times.add(store.api_key_by_hash(&hash)).await?;
    }
    times.print();

    let owner = Owner {
        node_id: "node".into(),
        boot_id: "boot".into(),
    };
    let response = StoredResponse {
        status: 200,
        content_type: "application/json".into(),
        body: vec![b'x'; 400],
    };
    let request = RequestHash::of(&[b"body"]);
    let mut begin = Times::new("begin_idempotent");
    let mut finish = Times::new("finish_idempotent");
    let mut replay = Times::new("begin_idempotent, replay");
    for number in 0..calls {
        let key = ScopeKey::of("org", "key", "POST", "/v1", &format!("{run}-{number}"));
        let begun = begin
            .add(store.begin_idempotent(&key, &request, &owner, 1))
            .await?;
        assert_eq!(begun, Begun::New, "a fresh key");
        finish
            .add(store.finish_idempotent(&key, &owner, &response))
            .await?;
        replay
            .add(store.begin_idempotent(&key, &request, &owner, 2))
            .await?;
    }
    begin.print();
    finish.print();
    replay.print();
    store.close().await;
    Ok(())
}

struct Times {
    name: &'static str,
    took: Vec<Duration>,
}

impl Times {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            took: Vec::new(),
        }
    }

    async fn add<T>(&mut self, call: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let answer = call.await;
        self.took.push(start.elapsed());
        answer
    }

    fn print(mut self) {
        self.took.sort_unstable();
        let at = |per_mille: usize| {
            let index = (self.took.len() * per_mille / 1000).min(self.took.len() - 1);
            self.took[index].as_secs_f64() * 1e6
        };
        println!(
            "{:26} p50 {:7.1} us   p95 {:7.1} us   p99 {:7.1} us",
            self.name,
            at(500),
            at(950),
            at(990)
        );
    }
}

fn founding(run: u32) -> Founding {
    let org_id = format!("org_{run}");
    Founding {
        organization: Organization {
            id: org_id.clone(),
            name: "bench".into(),
            created_at: 1,
            plan: None,
        },
        user: User {
            id: format!("usr_{run}"),
            org_id: org_id.clone(),
            name: "bench".into(),
            email: None,
            role: "owner".into(),
            created_at: 1,
        },
        project: Project {
            id: format!("prj_{run}"),
            org_id,
            name: "Default".into(),
            is_default: true,
            created_at: 1,
        },
    }
}

fn api_key(run: u32) -> ApiKey {
    ApiKey {
        id: format!("key_{run}"),
        org_id: format!("org_{run}"),
        name: "bench".into(),
        prefix: "cn_live_abcd".into(),
        last4: "wxyz".into(),
        hash: SecretHash::of(&format!("secret-{run}")),
        scopes: vec!["sandbox:create".into()],
        project_ids: None,
        created_by_user_id: format!("usr_{run}"),
        created_at: 1,
        revoked_at: None,
        last_used_at: None,
    }
}

fn sandbox(run: u32, number: usize) -> Sandbox {
    let now = i64::try_from(number).expect("few calls");
    Sandbox {
        id: format!("sbx_{run}_{number}"),
        org_id: format!("org_{run}"),
        project_id: format!("prj_{run}"),
        node_id: "node_1".into(),
        status: SandboxStatus::Ready,
        template_slug: "python-node".into(),
        template_id: "tpl_python_node".into(),
        template_version: "2026-06-01".into(),
        template_version_id: "tplv_0123456789abcdef".into(),
        ttl_ms: 3_600_000,
        created_at: now,
        ready_at: Some(now),
        expires_at: now + 3_600_000_000,
        destroyed_at: None,
        destroyed_reason: None,
        metadata: BTreeMap::from([("agent".into(), "bench".into())]),
        runtime: Some("{\"slot\":17,\"generation\":3}".into()),
        network_mode: "egress".into(),
        created_by: format!("key_{run}"),
    }
}
