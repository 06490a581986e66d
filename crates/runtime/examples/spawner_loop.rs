//! Times create, fork and destroy at the spawner itself, without a server: `spawner_loop N`.
//! Needs root and the template `python`. Prints p50, p95 and p99 in milliseconds.

use crownest_runtime::client::{CreateSpec, SpawnerClient};
use crownest_runtime::command::{Limits, Network, SandboxKey, TemplateDigest};
use crownest_runtime::layout::claim_instance;
use crownest_runtime::spawner::{self, SpawnerConfig};
use crownest_runtime::{cgroup, layout::Layout, template};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let templates_dir = Path::new("/var/lib/crownest/templates");
    if arguments.get(1).is_some_and(|a| a == "spawner") {
        let config = SpawnerConfig {
            snapshots_dir: None,
            layout: Layout::new(arguments[2].parse()?),
            templates_dir: templates_dir.to_owned(),
            server_uid: 0,
            server_gid: 0,
            certificates: None,
            zygote_forks_max: 10_000,
            zygote_age_max: Duration::from_secs(3600),
        };
        spawner::run(config, || println!("ready"))?;
        return Ok(());
    }
    let rounds: usize = arguments.get(1).map_or(Ok(100), |n| n.parse())?;
    let root = Path::new(cgroup::CGROUP_ROOT);
    let live = |n| cgroup::populated(root, &Layout::new(n).cgroup());
    let claim = claim_instance(Path::new("/tmp/spawner-loop"), live)?;
    let built = template::find("python", templates_dir)?;
    let digest = TemplateDigest::from_hex(&built.digest).ok_or("a digest is hex")?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["spawner", &claim.layout.instance.to_string()])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or("piped")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(measure(claim.layout.clone(), digest, rounds));
    child.kill()?;
    child.wait()?;
    // Held until here: the instance is ours.
    drop(claim);
    outcome
}

/// The first frame of a driver is "ready".
fn await_ready(control: OwnedFd) -> Result<(), Box<dyn std::error::Error>> {
    let mut stream = UnixStream::from(control);
    let mut length = [0u8; 4];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0u8; u32::from_be_bytes(length).try_into()?];
    stream.read_exact(&mut frame)?;
    let text = String::from_utf8(frame)?;
    if text.contains("\"ready\"") {
        Ok(())
    } else {
        Err(text.into())
    }
}

async fn measure(
    layout: Layout,
    template: TemplateDigest,
    rounds: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let client = SpawnerClient::connect(layout)?;
    for key in client.list().await? {
        client.destroy(&key).await?;
    }
    let spec = |n: usize| CreateSpec {
        snapshot: None,
        key: SandboxKey::new(&format!("loop{n}")).expect("letters and digits"),
        template,
        limits: Limits::default(),
        network: Network::Proxy,
    };
    let (mut create, mut fork, mut destroy) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..rounds {
        let spec = spec(n);
        let start = Instant::now();
        client.create(&spec).await?;
        create.push(start.elapsed());
        if n % 2 == 0 {
            let start = Instant::now();
            let driver = client.fork(&spec.key, template).await?;
            await_ready(driver.control)?;
            if n > 0 {
                fork.push(start.elapsed());
            }
        }
        let start = Instant::now();
        client.destroy(&spec.key).await?;
        destroy.push(start.elapsed());
    }
    for (name, mut times) in [("create", create), ("fork", fork), ("destroy", destroy)] {
        times.sort();
        let at = |p: usize| times[(times.len() * p / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
        println!(
            "{name:8} p50 {:7.3}  p95 {:7.3}  p99 {:7.3} ms",
            at(50),
            at(95),
            at(99)
        );
    }
    let left = client.list().await?;
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("left over: {left:?}").into())
    }
}
