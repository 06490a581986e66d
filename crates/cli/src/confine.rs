//! How the server gives up what it does not need: capabilities, files, system calls.
//!
//! Who runs it: the server process, as root at first, before it has read a byte from anybody and
//! while it has one thread. Order matters: credentials, then files, then calls, since each step
//! takes away what the one before needed.

use crate::options::ServeOptions;
use anyhow::Context;
use crownest_runtime::layout::Layout;
use crownest_runtime::{seccomp, sys};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus,
};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};
use std::io;
use std::path::{Path, PathBuf};

/// Newest rules that this code knows; an older kernel applies the ones that it has.
const LANDLOCK: ABI = ABI::V5;
/// What the C library reads to resolve names, what TLS reads, what a server reads about itself.
const READABLE: [&str; 7] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/proc",
    "/run/systemd/resolve",
    "/dev/urandom",
];

/// Becomes that user, with no capability and no way to get one.
///
/// # Errors
/// Those of the system calls.
pub(crate) fn drop_privileges(uid: u32, gid: u32) -> io::Result<()> {
    use rustix::thread as task;
    for capability in CapabilitySet::all() {
        match task::remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know cannot be held either.
            Err(rustix::io::Errno::INVAL) => {}
            other => other?,
        }
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    task::set_thread_groups(&[])?;
    task::set_thread_res_gid(gid, gid, gid)?;
    task::set_thread_res_uid(uid, uid, uid)?;
    let none = CapabilitySet::empty();
    task::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(task::set_no_new_privs(true)?)
}

/// Leaves the data directory writable and what [`READABLE`] names readable; nothing else exists.
/// A kernel without Landlock leaves it at file permissions, and the log says so.
///
/// # Errors
/// When a rule cannot be made.
pub(crate) fn restrict_files(options: &ServeOptions, layout: &Layout) -> anyhow::Result<()> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // No links either: root opens files in that directory when it starts the next server.
    let write = AccessFs::from_all(LANDLOCK)
        & !AccessFs::Execute
        & !AccessFs::MakeChar
        & !AccessFs::MakeBlock
        & !AccessFs::MakeSym
        & !AccessFs::MakeSock
        & !AccessFs::MakeFifo;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .create()?;
    rules = allow(rules, &options.data_dir, write)?;
    if let Some(directory) = sqlite_directory(options) {
        rules = allow(rules, &directory, write)?;
    }
    rules = allow(rules, layout.root(), read)?;
    rules = allow(rules, &options.templates_dir, read)?;
    for path in READABLE {
        rules = allow(rules, Path::new(path), read)?;
    }
    let status = rules
        .restrict_self()
        .context("entering the Landlock domain")?;
    if status.ruleset == RulesetStatus::NotEnforced {
        tracing::warn!("this kernel has no Landlock: the server can read what its user can read");
    }
    Ok(())
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> anyhow::Result<RulesetCreated> {
    // What is not there cannot be reached either.
    let Ok(file) = PathFd::new(path) else {
        return Ok(rules);
    };
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(LANDLOCK)
    };
    rules
        .add_rule(PathBeneath::new(file, access))
        .with_context(|| path.display().to_string())
}

/// Directory of a database that is elsewhere than in the data directory.
fn sqlite_directory(options: &ServeOptions) -> Option<PathBuf> {
    let url = options.database_url.as_deref()?;
    if url.contains("://") && !url.starts_with("sqlite:") {
        return None;
    }
    let path = url.strip_prefix("sqlite:").unwrap_or(url);
    Some(
        Path::new(path.strip_prefix("//").unwrap_or(path))
            .parent()?
            .to_owned(),
    )
}

/// Refuses the calls that a server never makes, among them starting any program.
///
/// # Errors
/// Those of seccomp(2).
pub(crate) fn restrict_calls() -> io::Result<()> {
    sys::install_filter(&seccomp::server_filter())
}
