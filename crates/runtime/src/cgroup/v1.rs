//! Version 1: one hierarchy per controller, and perhaps a version 2 hierarchy without controllers
//! beside them ("hybrid"). Everything is done with version 1 where its freezer exists: entering a
//! version 2 group by `cgroup.procs` waits for an RCU grace period (6 to 16 ms, measured), which
//! every forked context would pay. A process that version 1 has frozen does not die before it is
//! thawed, so killing is signalling first and thawing after: it never runs in between.

use super::{Cgroups, Group, cpu_quota_us, list_directories, quota_millis};
use crate::command::{Limits, SandboxStats};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Controllers that a sandbox needs.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// Socket buffers of a sandbox: this part of its memory, and not more than so much.
const SOCKET_SHARE: u64 = 8;
const SOCKET_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Version 1, perhaps hybrid.
#[derive(Debug)]
pub struct V1 {
    memory: PathBuf,
    pids: PathBuf,
    cpu: PathBuf,
    /// Counts processor time. None where it is mounted together with `cpu`, which then counts.
    cpuacct: Option<PathBuf>,
    freezer: Option<PathBuf>,
    /// The version 2 hierarchy, used to freeze and kill where there is no freezer.
    unified: Option<PathBuf>,
}

impl V1 {
    /// Makes the parent groups of this instance.
    ///
    /// # Errors
    /// When one of the three controllers is not mounted, naming it.
    pub fn open(root: &Path, group: &str) -> io::Result<Self> {
        for controller in CONTROLLERS {
            if !root.join(controller).is_dir() {
                let text = format!("cgroup controller {controller} is neither in v1 nor in v2");
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
        }
        let parent = |hierarchy: &str| -> io::Result<PathBuf> {
            let path = root.join(hierarchy).join(group);
            fs::create_dir_all(&path)?;
            Ok(path)
        };
        let optional = |hierarchy: &str| -> io::Result<Option<PathBuf>> {
            if root.join(hierarchy).is_dir() {
                return parent(hierarchy).map(Some);
            }
            Ok(None)
        };
        let freezer = optional("freezer")?;
        let has_unified = root.join("unified").join("cgroup.controllers").exists();
        let unified = match freezer {
            None if has_unified => Some(parent("unified")?),
            _ => None,
        };
        let (memory, cpu) = (parent("memory")?, parent("cpu")?);
        // Groups below must count towards this one, or its limits would be theirs alone.
        let _ = Group(memory.clone()).write("memory.use_hierarchy", "1");
        let cpuacct = optional("cpuacct")?.filter(|cpuacct| !same_directory(cpuacct, &cpu));
        Ok(Self {
            memory,
            pids: parent("pids")?,
            cpu,
            cpuacct,
            freezer,
            unified,
        })
    }

    /// Every hierarchy that a sandbox has a group in.
    fn parents(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.memory, &self.pids, &self.cpu]
            .into_iter()
            .chain(&self.cpuacct)
            .chain(&self.freezer)
            .chain(&self.unified)
    }

    fn groups(&self, name: &str) -> Vec<Group> {
        self.parents()
            .map(|parent| Self::group(parent, name))
            .collect()
    }

    fn group(parent: &Path, name: &str) -> Group {
        Group(parent.join(name))
    }

    fn set_limits(&self, name: &str, limits: &Limits) -> io::Result<()> {
        let memory = Self::group(&self.memory, name);
        let bytes = limits.memory_bytes.to_string();
        memory.write("memory.limit_in_bytes", &bytes)?;
        // Absent without swap accounting; then there is no swap to fill either.
        let _ = memory.write("memory.memsw.limit_in_bytes", &bytes);
        // Writing it also turns the accounting of socket buffers on, which are outside the limit
        // above otherwise. Absent in kernels without it.
        let sockets = (limits.memory_bytes / SOCKET_SHARE).min(SOCKET_BYTES_MAX);
        let _ = memory.write("memory.kmem.tcp.limit_in_bytes", &sockets.to_string());
        Self::group(&self.pids, name).write("pids.max", &limits.pids.to_string())?;
        let cpu = Self::group(&self.cpu, name);
        cpu.write("cpu.cfs_period_us", &super::CPU_PERIOD_US.to_string())?;
        self.set_cpu(name, limits.cpu_millis)
    }
}

impl Cgroups for V1 {
    fn create(&self, name: &str, limits: &Limits) -> io::Result<()> {
        let mut made: Vec<Group> = Vec::new();
        let outcome = (|| {
            for group in self.groups(name) {
                group.make()?;
                made.push(group);
            }
            self.set_limits(name, limits)
        })();
        if outcome.is_err() {
            for group in made {
                let _ = group.remove();
            }
        }
        outcome
    }

    fn set_cpu(&self, name: &str, cpu_millis: u32) -> io::Result<()> {
        let quota_us = cpu_quota_us(cpu_millis).to_string();
        Self::group(&self.cpu, name).write("cpu.cfs_quota_us", &quota_us)
    }

    fn entrances(&self, name: &str, cloned_into: bool) -> io::Result<Vec<OwnedFd>> {
        let mut fds = Vec::with_capacity(6);
        for parent in self.parents() {
            let unified = Some(parent) == self.unified.as_ref();
            match (unified, cloned_into) {
                (false, _) => fds.push(Self::group(parent, name).entrance("tasks")?),
                (true, false) => fds.push(Self::group(parent, name).entrance("cgroup.procs")?),
                (true, true) => {}
            }
        }
        Ok(fds)
    }

    fn clone_into(&self, name: &str) -> Option<OwnedFd> {
        Self::group(self.unified.as_ref()?, name).directory()
    }

    fn freeze(&self, name: &str, frozen: bool) -> io::Result<()> {
        if let Some(freezer) = &self.freezer {
            let state = if frozen { "FROZEN" } else { "THAWED" };
            return Self::group(freezer, name).write("freezer.state", state);
        }
        let Some(unified) = &self.unified else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        Self::group(unified, name).write("cgroup.freeze", if frozen { "1" } else { "0" })
    }

    fn is_frozen(&self, name: &str) -> io::Result<bool> {
        if let Some(freezer) = &self.freezer {
            // Reading it makes the kernel look at every process again.
            let state = Self::group(freezer, name).read("freezer.state")?;
            return Ok(state.trim() == "FROZEN");
        }
        let Some(unified) = &self.unified else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        Ok(Self::group(unified, name).keyed("cgroup.events", "frozen")? == 1)
    }

    fn kill(&self, name: &str) -> io::Result<()> {
        if let Some(unified) = &self.unified {
            Self::group(unified, name).write("cgroup.kill", "1")?;
        }
        // What is signalled here and what init's end signals dies at the latest when it is thawed.
        Self::group(&self.memory, name).kill_listed("cgroup.procs")?;
        match &self.freezer {
            Some(freezer) => Self::group(freezer, name).write("freezer.state", "THAWED"),
            None => Ok(()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<bool> {
        let mut gone = true;
        for group in self.groups(name) {
            gone &= group.remove()?;
        }
        Ok(gone)
    }

    fn members(&self, name: &str) -> io::Result<Vec<i32>> {
        Self::group(&self.memory, name).members("cgroup.procs")
    }

    fn stats(&self, name: &str) -> io::Result<SandboxStats> {
        let memory = Self::group(&self.memory, name);
        let accounts = Self::group(self.cpuacct.as_ref().unwrap_or(&self.cpu), name);
        // Absent where no hierarchy has the controller.
        let cpu_us = accounts.number("cpuacct.usage").unwrap_or(0) / 1000;
        let pids = Self::group(&self.pids, name).number("pids.current")?;
        let cpu = Self::group(&self.cpu, name);
        let quota = cpu.number("cpu.cfs_quota_us").unwrap_or(0);
        let period = cpu.number("cpu.cfs_period_us").unwrap_or(0);
        Ok(SandboxStats {
            memory_bytes: memory.number("memory.usage_in_bytes")?,
            memory_peak_bytes: memory.number("memory.max_usage_in_bytes")?,
            oom_kills: memory.keyed("memory.oom_control", "oom_kill")?,
            cpu_us,
            pids: u32::try_from(pids).unwrap_or(u32::MAX),
            memory_max_bytes: memory.number("memory.limit_in_bytes").unwrap_or(0),
            cpu_max_millis: quota_millis(quota, period),
        })
    }

    /// From every hierarchy: a spawner that is killed while it makes or removes a sandbox leaves
    /// the group in some of them.
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for parent in self.parents() {
            names.extend(list_directories(parent)?);
        }
        Ok(names.into_iter().collect())
    }

    fn describe(&self) -> String {
        let freezer = match (&self.freezer, &self.unified) {
            (Some(_), _) => "freezer of v1",
            (None, Some(_)) => "freeze and kill through the unified hierarchy",
            (None, None) => "no freezer",
        };
        format!("cgroup v1 (memory, pids, cpu), {freezer}")
    }
}

/// Whether two paths lead to the same directory: `cpu` and `cpuacct` often are links to one.
fn same_directory(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    real(one).is_some() && real(one) == real(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake_root(hierarchies: &[&str], unified: bool) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for hierarchy in hierarchies {
            fs::create_dir(root.path().join(hierarchy)).unwrap();
        }
        if unified {
            fs::create_dir(root.path().join("unified")).unwrap();
            fs::write(root.path().join("unified/cgroup.controllers"), "hugetlb\n").unwrap();
        }
        root
    }

    #[test]
    fn limits_go_to_the_files_of_their_controllers() {
        let root = fake_root(&CONTROLLERS, false);
        let v1 = V1::open(root.path(), "crownest-0").unwrap();
        let limits = Limits {
            memory_bytes: 1 << 28,
            pids: 99,
            cpu_millis: 1500,
            ..Limits::default()
        };
        v1.create("a.1", &limits).unwrap();
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(
            read("memory/crownest-0/a.1/memory.limit_in_bytes"),
            "268435456"
        );
        assert_eq!(read("pids/crownest-0/a.1/pids.max"), "99");
        assert_eq!(read("cpu/crownest-0/a.1/cpu.cfs_quota_us"), "150000");
        v1.set_cpu("a.1", 1_000).unwrap();
        assert_eq!(read("cpu/crownest-0/a.1/cpu.cfs_quota_us"), "100000");
        assert_eq!(v1.list().unwrap(), ["a.1"]);
        assert!(v1.freeze("a.1", true).is_err(), "there is no freezer");
    }

    #[test]
    fn the_unified_hierarchy_freezes_where_there_is_no_freezer() {
        let root = fake_root(&CONTROLLERS, true);
        let v1 = V1::open(root.path(), "g").unwrap();
        v1.create("a.1", &Limits::default()).unwrap();
        assert_eq!(v1.entrances("a.1", false).unwrap().len(), 4);
        assert_eq!(v1.entrances("a.1", true).unwrap().len(), 3);
        v1.freeze("a.1", true).unwrap();
        let frozen = root.path().join("unified/g/a.1/cgroup.freeze");
        assert_eq!(fs::read_to_string(frozen).unwrap(), "1");
        let events = root.path().join("unified/g/a.1/cgroup.events");
        fs::write(&events, "populated 1\nfrozen 0\n").unwrap();
        assert!(!v1.is_frozen("a.1").unwrap());
        fs::write(&events, "populated 1\nfrozen 1\n").unwrap();
        assert!(v1.is_frozen("a.1").unwrap());
    }

    #[test]
    fn the_freezer_spares_the_wait_of_the_unified_hierarchy() {
        let all = ["memory", "cpu", "pids", "cpuacct", "freezer"];
        let root = fake_root(&all, true);
        let v1 = V1::open(root.path(), "g").unwrap();
        v1.create("a.1", &Limits::default()).unwrap();
        assert!(v1.clone_into("a.1").is_none());
        assert_eq!(v1.entrances("a.1", false).unwrap().len(), all.len());
        v1.freeze("a.1", true).unwrap();
        let state = root.path().join("freezer/g/a.1/freezer.state");
        assert_eq!(fs::read_to_string(&state).unwrap(), "FROZEN");
        assert!(v1.is_frozen("a.1").unwrap());
        fs::write(&state, "FREEZING\n").unwrap();
        assert!(!v1.is_frozen("a.1").unwrap(), "not every process yet");
        fs::write(&state, "FROZEN").unwrap();
        fs::write(root.path().join("memory/g/a.1/cgroup.procs"), "").unwrap();
        v1.kill("a.1").unwrap();
        assert_eq!(fs::read_to_string(&state).unwrap(), "THAWED");
    }

    #[test]
    fn what_is_left_in_one_hierarchy_is_found_and_removed() {
        let root = fake_root(&CONTROLLERS, false);
        let v1 = V1::open(root.path(), "g").unwrap();
        fs::create_dir(root.path().join("pids/g/a.1")).unwrap();
        assert_eq!(v1.list().unwrap(), ["a.1"]);
        assert!(v1.remove("a.1").unwrap());
        assert!(v1.list().unwrap().is_empty());
    }

    #[test]
    fn controllers_that_share_a_directory_have_one_group() {
        let root = fake_root(&["memory", "pids", "cpu,cpuacct"], false);
        for name in ["cpu", "cpuacct"] {
            std::os::unix::fs::symlink("cpu,cpuacct", root.path().join(name)).unwrap();
        }
        let v1 = V1::open(root.path(), "g").unwrap();
        v1.create("a.1", &Limits::default()).unwrap();
        assert_eq!(v1.entrances("a.1", false).unwrap().len(), 3);
    }

    #[test]
    fn creating_twice_fails_and_leaves_the_first_alone() {
        let root = fake_root(&CONTROLLERS, false);
        let v1 = V1::open(root.path(), "g").unwrap();
        v1.create("a.1", &Limits::default()).unwrap();
        assert!(v1.create("a.1", &Limits::default()).is_err());
        assert_eq!(v1.list().unwrap(), ["a.1"]);
    }

    #[test]
    fn a_missing_controller_is_named() {
        let root = fake_root(&["memory", "cpu"], false);
        let error = V1::open(root.path(), "g").unwrap_err();
        assert!(error.to_string().contains("pids"), "{error}");
    }
}
