//! The hidden subcommand behind which the spawner runs.
//!
//! Who runs it: root, started by the supervisor with nothing but these arguments.

use anyhow::Context;
use crownest_runtime::layout::Layout;
use crownest_runtime::spawner::{self, SpawnerConfig};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct SpawnerArgs {
    #[arg(long)]
    instance: u32,
    #[arg(long)]
    templates_dir: PathBuf,
    #[arg(long)]
    snapshots_dir: Option<PathBuf>,
    #[arg(long)]
    server_uid: u32,
    #[arg(long)]
    server_gid: u32,
    #[arg(long)]
    certificates: Option<PathBuf>,
    #[arg(long)]
    zygote_forks_max: u32,
    #[arg(long)]
    zygote_age_seconds_max: u64,
    #[arg(long)]
    log: String,
    #[arg(long)]
    log_json: bool,
}

/// Runs until killed. Says "ready" on stdout when commands can be sent.
///
/// # Errors
/// When the machine lacks something; `crownest doctor` says what.
pub(crate) fn run(args: &SpawnerArgs) -> anyhow::Result<()> {
    super::supervisor::die_with_parent().context("following the supervisor")?;
    super::settings::start_log(&args.log, args.log_json);
    let config = SpawnerConfig {
        layout: Layout::new(args.instance),
        templates_dir: args.templates_dir.clone(),
        snapshots_dir: args.snapshots_dir.clone(),
        server_uid: args.server_uid,
        server_gid: args.server_gid,
        certificates: args.certificates.clone(),
        zygote_forks_max: args.zygote_forks_max,
        zygote_age_max: Duration::from_secs(args.zygote_age_seconds_max),
    };
    spawner::run(config, || {
        println!("ready");
        // The supervisor reads one line; later words would have no reader.
        let _ = rustix::stdio::dup2_stdout(rustix::stdio::stderr());
    })
    .context("the spawner cannot run; crownest doctor says what this machine lacks")
}
