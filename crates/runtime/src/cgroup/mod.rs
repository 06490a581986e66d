//! Control groups of sandboxes, version 1 and version 2 behind one interface.
//!
//! Owns: one group per sandbox with its limits, how a process enters it, freezing, killing,
//! reading. Does not own: when (that is the spawner).
//!
//! A process enters by writing `0` to a descriptor that was opened for it beforehand: that works
//! from inside a new user namespace, since the rights are those of the opener, and on version 1 a
//! write to `tasks` avoids the lock that a write to `cgroup.procs` takes (55 µs against up to
//! 15 ms, measured). It must happen before the process allocates anything that should count.
//!
//! Who runs it: the spawner, as root.

mod v1;
mod v2;

use crate::command::{Limits, SandboxStats};
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use v1::V1;
pub use v2::V2;

/// Where the kernel shows control groups.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Period of the processor quota.
const CPU_PERIOD_US: u64 = 100_000;

/// What the spawner needs of control groups.
pub trait Cgroups: Debug {
    /// Makes the group of one sandbox and sets its limits.
    ///
    /// # Errors
    /// Those of the file system; whatever was made is removed again.
    fn create(&self, name: &str, limits: &Limits) -> io::Result<()>;

    /// Gives the group another ceiling of processor time, in thousandths of a processor.
    ///
    /// # Errors
    /// Those of the file system.
    fn set_cpu(&self, name: &str, cpu_millis: u32) -> io::Result<()>;

    /// Write-only descriptors; a process that writes `0` to all of them is in the group. One that
    /// was cloned into the version 2 group needs no entrance there, and the write would wait for
    /// an RCU grace period (6 to 16 ms, measured).
    ///
    /// # Errors
    /// Those of open(2).
    fn entrances(&self, name: &str, cloned_into: bool) -> io::Result<Vec<OwnedFd>>;

    /// Directory for `CLONE_INTO_CGROUP`: the version 2 group, where there is one.
    fn clone_into(&self, name: &str) -> Option<OwnedFd>;

    /// Stops or continues every process of the group.
    ///
    /// # Errors
    /// Those of the file system.
    fn freeze(&self, name: &str, frozen: bool) -> io::Result<()>;

    /// Whether every process of a group that is being frozen has stopped.
    ///
    /// # Errors
    /// Those of the file system.
    fn is_frozen(&self, name: &str) -> io::Result<bool>;

    /// Kills every process of the group, frozen or not.
    ///
    /// # Errors
    /// Those of the file system.
    fn kill(&self, name: &str) -> io::Result<()>;

    /// Removes the group: `Ok(false)` while processes are in it.
    ///
    /// # Errors
    /// Those of rmdir(2) other than "busy" and "not there".
    fn remove(&self, name: &str) -> io::Result<bool>;

    /// Processes that are in the group, by their numbers in this pid namespace.
    ///
    /// # Errors
    /// Those of the file system.
    fn members(&self, name: &str) -> io::Result<Vec<i32>>;

    /// What the group uses.
    ///
    /// # Errors
    /// Those of the file system, or malformed content.
    fn stats(&self, name: &str) -> io::Result<SandboxStats>;

    /// Names of the groups that exist.
    ///
    /// # Errors
    /// Those of readdir(3).
    fn list(&self) -> io::Result<Vec<String>>;

    /// For people.
    fn describe(&self) -> String;
}

/// Finds out which version this machine offers and makes the parent group of this instance.
///
/// # Errors
/// When neither memory, pids and cpu of version 1 nor of version 2 can be used.
pub fn open(root: &Path, group: &str) -> io::Result<Box<dyn Cgroups>> {
    if V2::usable(root) {
        return Ok(Box::new(V2::open(root, group)?));
    }
    Ok(Box::new(V1::open(root, group)?))
}

/// Whether an instance has sandboxes with processes, in whatever version. Groups that were left
/// empty by a crash do not count: the next spawner of that instance removes them.
#[must_use]
pub fn populated(root: &Path, group: &str) -> bool {
    [root.join("memory").join(group), root.join(group)]
        .iter()
        .any(|parent| {
            let names = list_directories(parent).unwrap_or_default();
            let members = |name| {
                Group(parent.join(name))
                    .members("cgroup.procs")
                    .unwrap_or_default()
            };
            names.iter().any(|name| !members(name).is_empty())
        })
}

/// Files of a control group. Only tests create them: in the real tree they are there.
#[derive(Debug, Clone)]
struct Group(PathBuf);

impl Group {
    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        use std::io::Write;
        let mut options = OpenOptions::new();
        options.write(true).create(cfg!(test));
        options.open(self.0.join(file))?.write_all(value.as_bytes())
    }

    fn read(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(self.0.join(file))
    }

    /// A file that holds one number.
    fn number(&self, file: &str) -> io::Result<u64> {
        self.read(file)?
            .trim()
            .parse()
            .map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// One line `key value` of a flat keyed file; 0 when the key is missing.
    fn keyed(&self, file: &str, key: &str) -> io::Result<u64> {
        let text = self.read(file)?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.map_or(Ok(0), |v| {
            v.trim()
                .parse()
                .map_err(|_| io::ErrorKind::InvalidData.into())
        })
    }

    fn entrance(&self, file: &str) -> io::Result<OwnedFd> {
        let mut options = OpenOptions::new();
        options.write(true).create(cfg!(test));
        Ok(options.open(self.0.join(file))?.into())
    }

    fn make(&self) -> io::Result<()> {
        fs::create_dir(&self.0)
    }

    /// `Ok(false)` when processes (or, in the fake tree, files) are in it.
    fn remove(&self) -> io::Result<bool> {
        match fs::remove_dir(&self.0) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn directory(&self) -> Option<OwnedFd> {
        File::open(&self.0).ok().map(OwnedFd::from)
    }

    fn members(&self, file: &str) -> io::Result<Vec<i32>> {
        Ok(self
            .read(file)?
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect())
    }

    /// Sends SIGKILL to every process listed; for trees without `cgroup.kill`.
    fn kill_listed(&self, file: &str) -> io::Result<()> {
        for pid in self
            .members(file)?
            .into_iter()
            .filter_map(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        Ok(())
    }
}

fn list_directories(parent: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

fn cpu_quota_us(cpu_millis: u32) -> u64 {
    u64::from(cpu_millis) * CPU_PERIOD_US / 1000
}

/// Thousandths of a processor; 0 for no quota.
fn quota_millis(quota_us: u64, period_us: u64) -> u32 {
    let millis = quota_us.saturating_mul(1000).checked_div(period_us);
    millis.map_or(0, |millis| u32::try_from(millis).unwrap_or(u32::MAX))
}
