//! Version 1: one hierarchy per controller, and a version 2 hierarchy without controllers beside
//! them ("hybrid") on most machines. Limits come from version 1; freezing and killing go through
//! version 2 where it exists, because a process frozen by version 1 cannot be killed.

use super::{Cgroups, Group, cpu_quota_us, list_directories};
use crate::command::{Limits, SandboxStats};
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
    /// The version 2 hierarchy, else the version 1 freezer.
    unified: Option<PathBuf>,
    freezer: Option<PathBuf>,
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
        let unified = if root.join("unified").join("cgroup.controllers").exists() {
            Some(parent("unified")?)
        } else {
            None
        };
        let freezer = if unified.is_none() && root.join("freezer").is_dir() {
            Some(parent("freezer")?)
        } else {
            None
        };
        let memory = parent("memory")?;
        // Groups below must count towards this one, or its limits would be theirs alone.
        let _ = Group(memory.clone()).write("memory.use_hierarchy", "1");
        Ok(Self {
            memory,
            pids: parent("pids")?,
            cpu: parent("cpu")?,
            unified,
            freezer,
        })
    }

    fn groups(&self, name: &str) -> Vec<Group> {
        [
            Some(&self.memory),
            Some(&self.pids),
            Some(&self.cpu),
            self.unified.as_ref(),
            self.freezer.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(|parent| Group(parent.join(name)))
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
        cpu.write("cpu.cfs_quota_us", &cpu_quota_us(limits).to_string())
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

    fn entrances(&self, name: &str, cloned_into: bool) -> io::Result<Vec<OwnedFd>> {
        let mut fds = Vec::with_capacity(5);
        for parent in [&self.memory, &self.pids, &self.cpu]
            .into_iter()
            .chain(&self.freezer)
        {
            fds.push(Self::group(parent, name).entrance("tasks")?);
        }
        if let Some(unified) = self.unified.as_ref().filter(|_| !cloned_into) {
            fds.push(Self::group(unified, name).entrance("cgroup.procs")?);
        }
        Ok(fds)
    }

    fn clone_into(&self, name: &str) -> Option<OwnedFd> {
        Self::group(self.unified.as_ref()?, name).directory()
    }

    fn freeze(&self, name: &str, frozen: bool) -> io::Result<()> {
        if let Some(unified) = &self.unified {
            return Self::group(unified, name)
                .write("cgroup.freeze", if frozen { "1" } else { "0" });
        }
        let Some(freezer) = &self.freezer else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        Self::group(freezer, name).write("freezer.state", if frozen { "FROZEN" } else { "THAWED" })
    }

    fn kill(&self, name: &str) -> io::Result<()> {
        if let Some(unified) = &self.unified {
            Self::group(unified, name).write("cgroup.kill", "1")?;
        } else if self.freezer.is_some() {
            self.freeze(name, false)?;
        }
        // Members that are only in the version 1 groups: none by design, all without version 2.
        Self::group(&self.memory, name).kill_listed("cgroup.procs")
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
        let cpu_us = match &self.unified {
            // cpu.stat is there without the controller.
            Some(unified) => Self::group(unified, name).keyed("cpu.stat", "usage_usec")?,
            None => 0,
        };
        let pids = Self::group(&self.pids, name).number("pids.current")?;
        Ok(SandboxStats {
            memory_bytes: memory.number("memory.usage_in_bytes")?,
            memory_peak_bytes: memory.number("memory.max_usage_in_bytes")?,
            oom_kills: memory.keyed("memory.oom_control", "oom_kill")?,
            cpu_us,
            pids: u32::try_from(pids).unwrap_or(u32::MAX),
        })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list_directories(&self.memory)
    }

    fn describe(&self) -> String {
        let freezer = match (&self.unified, &self.freezer) {
            (Some(_), _) => "freeze and kill through the unified hierarchy",
            (None, Some(_)) => "freeze through the v1 freezer",
            (None, None) => "no freezer",
        };
        format!("cgroup v1 (memory, pids, cpu), {freezer}")
    }
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
        let root = fake_root(&CONTROLLERS, true);
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
        assert_eq!(v1.entrances("a.1", false).unwrap().len(), 4);
        assert_eq!(v1.entrances("a.1", true).unwrap().len(), 3);
        assert_eq!(v1.list().unwrap(), ["a.1"]);
        v1.freeze("a.1", true).unwrap();
        assert_eq!(read("unified/crownest-0/a.1/cgroup.freeze"), "1");
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
