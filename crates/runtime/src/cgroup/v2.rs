//! Version 2: one hierarchy, controllers delegated downwards.

use super::{Cgroups, Group, cpu_quota_us, list_directories, quota_millis};
use crate::command::{Limits, SandboxStats};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Controllers that a sandbox needs.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// Version 2.
#[derive(Debug)]
pub struct V2 {
    parent: PathBuf,
}

impl V2 {
    /// Whether `root` is a version 2 hierarchy with the controllers that sandboxes need.
    #[must_use]
    pub fn usable(root: &Path) -> bool {
        let Ok(text) = fs::read_to_string(root.join("cgroup.controllers")) else {
            return false;
        };
        CONTROLLERS
            .iter()
            .all(|needed| text.split_whitespace().any(|have| have == *needed))
    }

    /// Makes the parent group of this instance and passes the controllers down to it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(root: &Path, group: &str) -> io::Result<Self> {
        let enable = CONTROLLERS.map(|c| format!("+{c}")).join(" ");
        Group(root.to_owned()).write("cgroup.subtree_control", &enable)?;
        let parent = root.join(group);
        fs::create_dir_all(&parent)?;
        Group(parent.clone()).write("cgroup.subtree_control", &enable)?;
        Ok(Self { parent })
    }

    fn group(&self, name: &str) -> Group {
        Group(self.parent.join(name))
    }

    fn set_limits(group: &Group, limits: &Limits) -> io::Result<()> {
        group.write("memory.max", &limits.memory_bytes.to_string())?;
        // Absent without swap.
        let _ = group.write("memory.swap.max", "0");
        group.write("pids.max", &limits.pids.to_string())?;
        Self::set_cpu_of(group, limits.cpu_millis)
    }

    fn set_cpu_of(group: &Group, cpu_millis: u32) -> io::Result<()> {
        let quota_us = cpu_quota_us(cpu_millis);
        group.write("cpu.max", &format!("{quota_us} {}", super::CPU_PERIOD_US))
    }
}

impl Cgroups for V2 {
    fn create(&self, name: &str, limits: &Limits) -> io::Result<()> {
        let group = self.group(name);
        group.make()?;
        let outcome = Self::set_limits(&group, limits);
        if outcome.is_err() {
            let _ = group.remove();
        }
        outcome
    }

    fn set_cpu(&self, name: &str, cpu_millis: u32) -> io::Result<()> {
        Self::set_cpu_of(&self.group(name), cpu_millis)
    }

    fn entrances(&self, name: &str, cloned_into: bool) -> io::Result<Vec<OwnedFd>> {
        if cloned_into {
            return Ok(Vec::new());
        }
        Ok(vec![self.group(name).entrance("cgroup.procs")?])
    }

    fn clone_into(&self, name: &str) -> Option<OwnedFd> {
        self.group(name).directory()
    }

    fn freeze(&self, name: &str, frozen: bool) -> io::Result<()> {
        self.group(name)
            .write("cgroup.freeze", if frozen { "1" } else { "0" })
    }

    fn is_frozen(&self, name: &str) -> io::Result<bool> {
        Ok(self.group(name).keyed("cgroup.events", "frozen")? == 1)
    }

    fn kill(&self, name: &str) -> io::Result<()> {
        let group = self.group(name);
        // cgroup.kill is there from Linux 5.14.
        group.write("cgroup.kill", "1").or_else(|_| {
            group.write("cgroup.freeze", "0")?;
            group.kill_listed("cgroup.procs")
        })
    }

    fn remove(&self, name: &str) -> io::Result<bool> {
        self.group(name).remove()
    }

    fn members(&self, name: &str) -> io::Result<Vec<i32>> {
        self.group(name).members("cgroup.procs")
    }

    fn stats(&self, name: &str) -> io::Result<SandboxStats> {
        let group = self.group(name);
        Ok(SandboxStats {
            memory_bytes: group.number("memory.current")?,
            // memory.peak is there from Linux 5.19.
            memory_peak_bytes: group.number("memory.peak").unwrap_or(0),
            oom_kills: group.keyed("memory.events", "oom_kill")?,
            cpu_us: group.keyed("cpu.stat", "usage_usec")?,
            pids: u32::try_from(group.number("pids.current")?).unwrap_or(u32::MAX),
            memory_max_bytes: group.number("memory.max").unwrap_or(0),
            cpu_max_millis: cpu_max_millis(&group.read("cpu.max").unwrap_or_default()),
        })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list_directories(&self.parent)
    }

    fn describe(&self) -> String {
        "cgroup v2 (memory, pids, cpu)".to_owned()
    }
}

/// Thousandths of a processor in `quota period`; 0 for no quota.
fn cpu_max_millis(text: &str) -> u32 {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(quota)), Some(Ok(period))) => quota_millis(quota, period),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake_root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(
            root.path().join("cgroup.controllers"),
            "cpuset cpu io memory pids\n",
        )
        .unwrap();
        root
    }

    #[test]
    fn controllers_are_passed_down_and_limits_written() {
        let root = fake_root();
        assert!(V2::usable(root.path()));
        let v2 = V2::open(root.path(), "crownest-3").unwrap();
        let limits = Limits {
            memory_bytes: 1 << 26,
            pids: 20,
            cpu_millis: 250,
            ..Limits::default()
        };
        v2.create("k.7", &limits).unwrap();
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(read("cgroup.subtree_control"), "+memory +pids +cpu");
        assert_eq!(
            read("crownest-3/cgroup.subtree_control"),
            "+memory +pids +cpu"
        );
        assert_eq!(read("crownest-3/k.7/memory.max"), "67108864");
        assert_eq!(read("crownest-3/k.7/pids.max"), "20");
        assert_eq!(read("crownest-3/k.7/cpu.max"), "25000 100000");
        v2.set_cpu("k.7", 1_000).unwrap();
        assert_eq!(read("crownest-3/k.7/cpu.max"), "100000 100000");
        assert_eq!(v2.list().unwrap(), ["k.7"]);
    }

    #[test]
    fn stats_are_read_from_the_keyed_files() {
        let root = fake_root();
        let v2 = V2::open(root.path(), "g").unwrap();
        v2.create("k.7", &Limits::default()).unwrap();
        let group = root.path().join("g/k.7");
        fs::write(group.join("memory.current"), "1000\n").unwrap();
        fs::write(group.join("memory.peak"), "2000\n").unwrap();
        fs::write(group.join("memory.events"), "low 0\noom 3\noom_kill 2\n").unwrap();
        fs::write(group.join("cpu.stat"), "usage_usec 77\nuser_usec 1\n").unwrap();
        fs::write(group.join("pids.current"), "5\n").unwrap();
        let want = SandboxStats {
            memory_bytes: 1000,
            memory_peak_bytes: 2000,
            oom_kills: 2,
            cpu_us: 77,
            pids: 5,
            memory_max_bytes: Limits::default().memory_bytes,
            cpu_max_millis: Limits::default().cpu_millis,
        };
        assert_eq!(v2.stats("k.7").unwrap(), want);
    }

    #[test]
    fn a_hierarchy_without_our_controllers_is_not_usable() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "hugetlb\n").unwrap();
        assert!(!V2::usable(root.path()));
    }
}
