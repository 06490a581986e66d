//! Where things are on disk, and which instance of CrowNest this is.
//!
//! Several servers run side by side on one machine, each with its own data directory. What they
//! share is numbered: an *instance* is a number below [`INSTANCES_MAX`] that gives its server a
//! directory under `/run/crownest`, a control group and a range of uids. The number is held by a
//! file lock and remembered in the data directory, because sandboxes outlive the server.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Servers with different data directories on one machine.
pub const INSTANCES_MAX: u32 = 12;
/// Directory of everything that lives as long as the machine is up.
pub const RUN_DIR: &str = "/run/crownest";
/// First uid of the first sandbox. Far above people, daemons and /etc/subuid ranges.
const UID_BASE: u32 = 0x2000_0000;
/// Uids of one sandbox.
pub const UIDS_PER_SANDBOX: u32 = 65_536;

/// Paths and numbers of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub instance: u32,
    root: PathBuf,
}

impl Layout {
    /// Of the instance with that number.
    ///
    /// # Panics
    /// When the number is not below [`INSTANCES_MAX`]: it comes from [`claim_instance`].
    #[must_use]
    pub fn new(instance: u32) -> Self {
        assert!(
            instance < INSTANCES_MAX,
            "instance number from claim_instance"
        );
        Self {
            instance,
            root: Path::new(RUN_DIR).join(instance.to_string()),
        }
    }

    /// Everything of this instance.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the spawner listens; owned by the server's user.
    #[must_use]
    pub fn spawner_socket(&self) -> PathBuf {
        self.root.join("spawner.sock")
    }

    /// Where the inits listen, one socket per sandbox.
    #[must_use]
    pub fn init_sockets(&self) -> PathBuf {
        self.root.join("init")
    }

    /// Where the init of one sandbox listens.
    #[must_use]
    pub fn init_socket(&self, key: &crate::command::SandboxKey) -> PathBuf {
        self.init_sockets().join(key.as_str())
    }

    /// Mount point of the spawner's own files; empty outside its mount namespace.
    #[must_use]
    pub fn stage(&self) -> PathBuf {
        self.root.join("stage")
    }

    /// Name of this instance's control group.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("crownest-{}", self.instance)
    }

    /// First host uid of the sandbox in that slot.
    #[must_use]
    pub fn uid_base(&self, slot: u32) -> u32 {
        debug_assert!(slot < crate::command::SANDBOXES_MAX);
        UID_BASE + (self.instance * crate::command::SANDBOXES_MAX + slot) * UIDS_PER_SANDBOX
    }
}

/// Why no instance could be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("creating {path}: {source}")]
    RunDir { path: PathBuf, source: io::Error },
    /// Each number with its data directory, and why it is not free.
    #[error(
        "all {INSTANCES_MAX} instance numbers of this machine are taken; stop one of these servers, \
         or wait until the sandboxes of a dead one have ended: {}", holders.join("; ")
    )]
    AllTaken { holders: Vec<String> },
}

/// An instance number, held until this is dropped.
#[derive(Debug)]
pub struct Claim {
    pub layout: Layout,
    _lock: File,
}

/// Takes an instance number for the server with this data directory: the one it had before if
/// possible, since its sandboxes may still be running there, else a free one without sandboxes.
///
/// Who runs it: the supervisor, as root.
///
/// # Errors
/// [`ClaimError`]
pub fn claim_instance(data_dir: &Path, live: impl Fn(u32) -> bool) -> Result<Claim, ClaimError> {
    let run_dir = Path::new(RUN_DIR);
    create_dir(run_dir)?;
    let (instance, lock) = choose(run_dir, data_dir, live)?;
    finish_claim(instance, lock)
}

fn choose(
    run_dir: &Path,
    data_dir: &Path,
    live: impl Fn(u32) -> bool,
) -> Result<(u32, File), ClaimError> {
    let owner = data_dir.as_os_str().as_encoded_bytes();
    let mut free = None;
    let mut holders = Vec::new();
    for instance in 0..INSTANCES_MAX {
        let path = run_dir.join(format!("{instance}.lock"));
        let holder = fs::read(&path).unwrap_or_default();
        let named = || format!("{instance}: {}", String::from_utf8_lossy(&holder));
        let Some(lock) = try_lock(&path)? else {
            holders.push(format!("{} (running)", named()));
            continue;
        };
        if holder == owner {
            return Ok((instance, lock));
        }
        if live(instance) {
            holders.push(format!("{} (stopped, its sandboxes live on)", named()));
        } else if free.is_none() {
            free = Some((instance, lock));
        }
    }
    let (instance, mut lock) = free.ok_or(ClaimError::AllTaken { holders })?;
    lock.set_len(0)
        .and_then(|()| lock.write_all(owner))
        .map_err(run_dir_error(run_dir))?;
    Ok((instance, lock))
}

fn finish_claim(instance: u32, lock: File) -> Result<Claim, ClaimError> {
    let layout = Layout::new(instance);
    create_dir(layout.root())?;
    Ok(Claim {
        layout,
        _lock: lock,
    })
}

fn try_lock(path: &Path) -> Result<Option<File>, ClaimError> {
    let file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(path)
        .map_err(run_dir_error(path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(run_dir_error(path)(errno.into())),
    }
}

fn create_dir(path: &Path) -> Result<(), ClaimError> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(path).map_err(run_dir_error(path))?;
    // Others may pass through to a socket that is theirs, not look around.
    fs::set_permissions(path, fs::Permissions::from_mode(0o711)).map_err(run_dir_error(path))
}

fn run_dir_error(path: &Path) -> impl FnOnce(io::Error) -> ClaimError + use<> {
    let path = path.to_owned();
    move |source| ClaimError::RunDir { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_finds_no_number_learns_who_has_them() {
        let run_dir = tempfile::tempdir().unwrap();
        let claim = |name: &str, live: &dyn Fn(u32) -> bool| {
            choose(run_dir.path(), &Path::new("/data").join(name), live)
        };
        let nobody = |_| false;
        let mut held = Vec::new();
        for n in 0..INSTANCES_MAX {
            let (instance, lock) = claim(&format!("s{n}"), &nobody).unwrap();
            assert_eq!(instance, n);
            held.push(lock);
        }
        let full = claim("late", &nobody).unwrap_err().to_string();
        assert!(full.contains("0: /data/s0 (running)"), "{full}");
        assert!(full.contains("11: /data/s11 (running)"), "{full}");

        // A server that is gone gives its number back, but not while its sandboxes live.
        held.remove(3);
        let full = claim("late", &|n| n == 3).unwrap_err().to_string();
        assert!(
            full.contains("3: /data/s3 (stopped, its sandboxes live on)"),
            "{full}"
        );
        assert_eq!(
            claim("s3", &|n| n == 3).unwrap().0,
            3,
            "its own data directory finds it"
        );
        assert_eq!(claim("late", &nobody).unwrap().0, 3);
    }
}
