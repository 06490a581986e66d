//! What `crownest serve` settles before it starts a child: options, the data directory and its
//! lock, the instance number, the listening socket.
//!
//! Who runs it: the supervisor, as root. Whatever is wrong is said here, before anything runs.

use crate::options::ServeOptions;
use crate::settings::{self, User};
use anyhow::{Context, bail};
use crownest_runtime::cgroup;
use crownest_runtime::layout::{Claim, Layout, claim_instance};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an address may be in use before that is an error.
const LISTEN_MS_MAX: u64 = 3_000;
const LISTEN_PAUSE_MS: u64 = 50;

/// Everything that is settled before a child is started.
pub(crate) struct Prepared {
    pub(crate) options: ServeOptions,
    pub(crate) user: User,
    pub(crate) claim: Claim,
    pub(crate) listener: TcpListener,
    _data_dir_lock: File,
}

impl Prepared {
    pub(crate) fn new(mut options: ServeOptions) -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!(
                "serve needs root to make sandboxes (requests are served by an unprivileged user); try sudo, and see: crownest doctor"
            );
        }
        let user = settings::user(&options.user)?;
        // Whatever is wrong is said before anything is started.
        options.limits()?;
        options.egress(Vec::new())?;
        options.environment()?;
        options.certificates()?;
        options.objects()?;
        let lock = open_data_dir(&options.data_dir, user)?;
        options.data_dir = options.data_dir.canonicalize().context("--data-dir")?;
        check_reachable(&options.data_dir, user)?;
        if let Some(directory) = &mut options.objects_dir {
            *directory = open_objects_dir(directory, user)?;
        }
        check_templates(&options)?;
        let root = Path::new(cgroup::CGROUP_ROOT);
        let live = |n| cgroup::populated(root, &Layout::new(n).cgroup());
        let claim = claim_instance(&options.data_dir, live)?;
        let listener =
            listen(&options.listen).with_context(|| format!("listening on {}", options.listen))?;
        raise_file_limit();
        Ok(Self {
            options,
            user,
            claim,
            listener,
            _data_dir_lock: lock,
        })
    }
}

/// Templates are run as root; the data directory is the server's. One inside the other would let a
/// server that was taken over put a template of its own there.
fn check_templates(options: &ServeOptions) -> anyhow::Result<()> {
    let Ok(templates) = options.templates_dir.canonicalize() else {
        return Ok(());
    };
    let objects = options.objects_dir.as_ref();
    if templates.starts_with(&options.data_dir) || objects.is_some_and(|o| templates.starts_with(o))
    {
        bail!(
            "--templates-dir must not be inside --data-dir or --objects-dir, which belong to the server's user"
        );
    }
    Ok(())
}

/// Binds the address, which a server whose supervisor was just killed may hold for a moment.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when an address becomes free, and nothing else happens yet"
)]
fn listen(address: &str) -> std::io::Result<TcpListener> {
    let started = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse
                    && started.elapsed() < Duration::from_millis(LISTEN_MS_MAX) =>
            {
                std::thread::sleep(Duration::from_millis(LISTEN_PAUSE_MS));
            }
            outcome => return outcome,
        }
    }
}

/// Makes the data directory, gives it to the server's user, and takes its lock.
fn open_data_dir(path: &Path, user: User) -> anyhow::Result<File> {
    let named = || path.display().to_string();
    fs::create_dir_all(path).with_context(|| format!("creating {}", named()))?;
    chown(path, Some(user.uid), Some(user.gid)).with_context(named)?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).with_context(named)?;
    // The directory is the server's: should that have been taken over, the name may be a link to
    // any file of root's, which must be neither followed nor emptied.
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mode = Mode::RUSR | Mode::WUSR;
    let lock = open(path.join("lock"), flags | OFlags::CLOEXEC, mode).with_context(named)?;
    let lock = File::from(lock);
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            bail!("{} is in use by another crownest serve", named())
        }
        Err(errno) => Err(errno).with_context(|| format!("locking {}", named())),
    }
}

/// Makes the directory of objects, when it is not in the data directory, and gives it to the
/// server's user. Its contents are not touched: nothing that root does later depends on them.
fn open_objects_dir(path: &Path, user: User) -> anyhow::Result<PathBuf> {
    let named = || path.display().to_string();
    fs::create_dir_all(path).with_context(|| format!("creating {}", named()))?;
    let path = path.canonicalize().context("--objects-dir")?;
    chown(&path, Some(user.uid), Some(user.gid)).with_context(named)?;
    fs::set_permissions(&path, Permissions::from_mode(0o700)).with_context(named)?;
    check_reachable(&path, user)?;
    Ok(path)
}

/// The server's user must be able to enter every directory above the data directory.
fn check_reachable(data_dir: &Path, user: User) -> anyhow::Result<()> {
    use std::os::unix::fs::MetadataExt;
    for directory in data_dir.ancestors() {
        let metadata = fs::metadata(directory).with_context(|| directory.display().to_string())?;
        let mode = metadata.mode();
        let may_enter = if metadata.uid() == user.uid {
            mode & 0o100 != 0
        } else if metadata.gid() == user.gid {
            mode & 0o010 != 0
        } else {
            mode & 0o001 != 0
        };
        if !may_enter {
            bail!(
                "the server's user (uid {}) may not enter {}; chmod o+x it, or choose another directory",
                user.uid,
                directory.display()
            );
        }
    }
    Ok(())
}

/// Every sandbox takes a few descriptors of the server.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "raising the limit of open files");
    }
}
