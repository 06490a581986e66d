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

/// Leaves the data directory (and that of objects) writable and what [`READABLE`] names readable; nothing else exists.
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
    if let Some(directory) = &options.objects_dir {
        rules = allow(rules, directory, write)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType, socket};
    use std::fs::{self, File, OpenOptions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::process::Command;

    /// Nobody's on any machine: what it may not do, no user of the server may.
    const UID: u32 = 64_999;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: ServeOptions,
    }

    /// What a process can try, and whether it could. All of it works for root unconfined.
    fn attempts(data_dir: &Path, outside: &Path) -> Vec<(&'static str, bool)> {
        use rustix::mount::{MountFlags, mount};
        let write = |path: PathBuf| fs::write(path, b"x").is_ok();
        let packet = socket(AddressFamily::PACKET, SocketType::RAW, None);
        let under = outside.join("under");
        let mounted = mount("none", &under, "tmpfs", MountFlags::empty(), None);
        let found = vec![
            ("read a secret of root", File::open("/etc/shadow").is_ok()),
            (
                "read a file that everybody may",
                File::open(outside.join("open")).is_ok(),
            ),
            (
                "list a directory of everybody",
                fs::read_dir(outside).is_ok(),
            ),
            ("write where everybody may", write(outside.join("new"))),
            (
                "change a file of everybody",
                OpenOptions::new()
                    .append(true)
                    .open(outside.join("open"))
                    .is_ok(),
            ),
            (
                "make a link in its own directory",
                symlink("/etc/shadow", data_dir.join("link")).is_ok(),
            ),
            (
                "start a program",
                Command::new("/bin/true").status().is_ok(),
            ),
            ("mount", mounted.is_ok()),
            ("open a packet socket", packet.is_ok()),
            (
                "become root again",
                rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok(),
            ),
        ];
        if mounted.is_ok() {
            rustix::mount::unmount(&under, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
        found
    }

    /// Transactions whose statements now and then split pages of every index at once: what such a
    /// statement may have to take back is more than the database keeps in memory unless it is told
    /// to, and there is no directory for a temporary file.
    fn write_transactions(database: &Path) {
        use crownest_store::{AuditEvent, Records, Sandbox, SandboxStatus, Store, UsageEvent};
        const TRANSACTIONS: usize = 3_000;
        let now = 1_000_000;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = Store::open(database.to_str().unwrap(), &Default::default())
                .await
                .unwrap();
            let owner = crownest_server::bootstrap(&store).await.unwrap().unwrap();
            for number in 0..TRANSACTIONS {
                // Ids without order, so that they go everywhere in an index.
                let id = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let sandbox = Sandbox {
                    id: format!("sbx_{id}"),
                    org_id: owner.org_id.clone(),
                    project_id: owner.project_id.clone(),
                    node_id: "node_1".into(),
                    status: SandboxStatus::Ready,
                    template_slug: "python".into(),
                    template_id: "tpl_python".into(),
                    template_version: "1".into(),
                    template_version_id: "tplv_1".into(),
                    ttl_ms: 1,
                    created_at: now,
                    ready_at: Some(now),
                    expires_at: now,
                    destroyed_at: None,
                    destroyed_reason: None,
                    metadata: std::collections::BTreeMap::new(),
                    runtime: None,
                    network_mode: "none".into(),
                    created_by: "key_1".into(),
                };
                let usage = UsageEvent {
                    id: format!("use_{id}"),
                    org_id: owner.org_id.clone(),
                    project_id: None,
                    resource_id: None,
                    metric: "m".into(),
                    amount: 1,
                    created_at: now,
                };
                let audit = AuditEvent {
                    id: format!("aud_{id}"),
                    org_id: owner.org_id.clone(),
                    project_id: None,
                    at: now,
                    actor_kind: "api_key".into(),
                    actor_id: "key_1".into(),
                    action: "sandbox.create".into(),
                    resource_kind: "sandbox".into(),
                    // Long enough that every page of the index over it has few entries.
                    resource_id: id.repeat(40),
                    outcome: "ok".into(),
                    request_id: None,
                    details: "x".repeat(600),
                };
                let records = Records {
                    usage: &usage,
                    audit: Some(&audit),
                };
                store.begin_sandbox(&sandbox, records).await.unwrap();
            }
            store.close().await;
        });
    }

    /// Credentials, Landlock and filters belong to a thread: the test confines one of its own
    /// with what the server runs at its start, and lets it try.
    #[test]
    fn a_server_reaches_its_own_and_nothing_else() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP: confinement: needs root");
            return;
        }
        let base = PathBuf::from(format!("/tmp/crownest-confine-{}", std::process::id()));
        let (data_dir, outside) = (base.join("data"), base.join("outside"));
        for dir in [&data_dir, &outside.join("under")] {
            fs::create_dir_all(dir).unwrap();
        }
        chown(&data_dir, Some(UID), Some(UID)).unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(outside.join("open"), b"for all").unwrap();
        fs::set_permissions(outside.join("open"), fs::Permissions::from_mode(0o666)).unwrap();

        let control = attempts(&data_dir, &outside);
        assert!(
            control.iter().all(|(_, could)| *could),
            "unconfined: {control:?}"
        );
        fs::remove_file(data_dir.join("link")).unwrap();
        fs::remove_file(outside.join("new")).unwrap();

        let arguments = ["serve", "--data-dir", data_dir.to_str().unwrap()];
        let options = Line::parse_from(arguments).serve;
        let (data, away) = (data_dir.clone(), outside.clone());
        let confined = std::thread::spawn(move || {
            drop_privileges(UID, UID).unwrap();
            restrict_files(&options, &Layout::new(0)).unwrap();
            restrict_calls().unwrap();
            // What it is there for still works.
            fs::write(data.join("database"), b"rows").unwrap();
            assert_eq!(fs::read(data.join("database")).unwrap(), b"rows");
            assert!(File::open("/etc/hosts").is_ok());
            write_transactions(&data.join("crownest.db"));
            assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok());
            let netlink = socket(AddressFamily::NETLINK, SocketType::RAW, None);
            assert_ne!(
                netlink.err(),
                Some(Errno::PERM),
                "the resolver asks for routes"
            );
            attempts(&data, &away)
        })
        .join()
        .unwrap();
        fs::remove_dir_all(&base).unwrap();
        let could: Vec<_> = confined.iter().filter(|(_, could)| *could).collect();
        let landlock = sys::landlock_abi().is_ok();
        if landlock {
            assert!(could.is_empty(), "confined: {could:?}");
        } else {
            eprintln!("SKIP: confinement of files: this kernel has no Landlock");
        }
    }
}
