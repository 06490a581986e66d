//! The processes of a server on this machine, as /proc shows them: their memory and their
//! processor time. Needs root, since they belong to other users.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

/// Every sandbox has users of its own: their numbers differ above these bits.
const UID_RANGE_BITS: u32 = 16;

/// Memory of one process in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Its part of what it shares included.
    pub(crate) pss: f64,
    /// What nobody else has.
    pub(crate) private: f64,
}

/// Memory of what runs in sandboxes, by the range of user numbers that each has.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    pub(crate) sandboxes: BTreeMap<u32, Vec<Size>>,
}

/// Memory of what runs in the sandboxes below a server.
pub(crate) fn sandboxes_below(server: u32) -> Result<Processes> {
    let mut found = Processes::default();
    for (pid, uid) in tree(server)? {
        let range = uid >> UID_RANGE_BITS;
        // Range 0 are the users of the machine: the server itself and the zygote.
        if range > 0 {
            found.sandboxes.entry(range).or_default().push(size(pid)?);
        }
    }
    Ok(found)
}

/// What the server's own processes (server, spawner, zygotes) hold and share with nobody.
pub(crate) fn resident_mib(server: u32) -> Result<f64> {
    let own = tree(server)?
        .into_iter()
        .filter(|(_, uid)| uid >> UID_RANGE_BITS == 0);
    own.map(|(pid, _)| Ok(size(pid)?.private)).sum()
}

/// The most that each of the server's own processes has held so far, added up.
pub(crate) fn peak_mib(server: u32) -> Result<f64> {
    let own = tree(server)?
        .into_iter()
        .filter(|(_, uid)| uid >> UID_RANGE_BITS == 0);
    own.map(|(pid, _)| {
        let path = format!("/proc/{pid}/status");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok())
            .map(|kib| kib / 1024.0)
            .with_context(|| format!("VmHWM {path}"))
    })
    .sum()
}

/// Processor time that the processes of a server have used so far; of those that live. Unlike
/// latency it hardly depends on what else the machine does.
pub(crate) fn processor_time(server: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for (pid, _) in tree(server)? {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            // A thread that ends meanwhile counts for nothing.
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let word = text.split_whitespace().next();
            nanoseconds += word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A process and everything below it, with the user of each.
fn tree(root: u32) -> Result<Vec<(u32, u32)>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok())
            && let Some((parent, uid)) = parent_and_uid(pid)
        {
            all.insert(pid, (parent, uid));
        }
    }
    let mut ours = BTreeSet::from([root]);
    // Pids need not grow from parent to child: go on until nothing is added.
    loop {
        let before = ours.len();
        for (pid, (parent, _)) in &all {
            if ours.contains(parent) {
                ours.insert(*pid);
            }
        }
        if ours.len() == before {
            break;
        }
    }
    let user = |pid: u32| all.get(&pid).map(|(_, uid)| (pid, *uid));
    Ok(ours.into_iter().filter_map(user).collect())
}

/// `None` for a process that is gone meanwhile.
fn parent_and_uid(pid: u32) -> Option<(u32, u32)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u32>().ok()
    };
    Some((field("PPid:")?, field("Uid:")?))
}

fn size(pid: u32) -> Result<Size> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let mib = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok())
            .map(|kib| kib / 1024.0)
            .with_context(|| format!("{field} {path}"))
    };
    Ok(Size {
        pss: mib("Pss:")?,
        private: mib("Private_Dirty:")? + mib("Private_Clean:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_finds_itself_and_its_time_grows() {
        let own = std::process::id();
        assert!(tree(own).unwrap().iter().any(|(pid, _)| *pid == own));
        let before = processor_time(own).unwrap();
        let mut sum = 0u64;
        while processor_time(own).unwrap() == before {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(sum > 0 || processor_time(own).unwrap() > before);
        assert!(size(own).unwrap().pss > 0.0);
    }
}
