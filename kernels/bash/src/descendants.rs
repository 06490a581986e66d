//! Programs of a cell that would not see an interrupt: those that have left the process group of
//! their shell (`timeout` does so, and what `set -m` starts), and those that were just being started.
//!
//! Found in /proc, which tenant code may have hidden or filled: without it, only the group of the
//! shell is signalled, as a terminal would.

use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use std::fs;

/// Unit of start times in /proc: `USER_HZ`, the same on every machine that Linux runs programs of.
const TICKS_PER_SECOND: u64 = 100;
/// How long a program usually takes from its fork to its exec, and at most.
const START_TICKS: u64 = 2;
const COPY_TICKS_MAX: u64 = 100;
/// Entries of /proc that are looked at.
const ENTRIES_MAX: usize = 65_536;

/// Now, as start times of processes are counted.
pub(crate) fn now_ticks() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let whole = u64::try_from(now.tv_sec).unwrap_or_default() * TICKS_PER_SECOND;
    whole + u64::try_from(now.tv_nsec).unwrap_or_default() / (1_000_000_000 / TICKS_PER_SECOND)
}

/// Sends `signal` to every process of this session that has begun since `since` and is neither in
/// the shell's group nor this driver. Older ones are jobs of earlier cells.
pub(crate) fn signal_strays(shell: Pid, since: u64, signal: Signal) {
    for process in session() {
        let left = process.group != shell.as_raw_nonzero().get();
        if left
            && process.started >= since
            && let Some(pid) = Pid::from_raw(process.id)
        {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Whether the shell is just starting a program of its group. Between fork and exec it is the
/// shell's own handler that takes a signal, for nobody: then the program does not end, and the
/// shell, which believes that the program has handled it, goes on.
pub(crate) fn is_starting(shell: Pid) -> bool {
    let shell = shell.as_raw_nonzero().get();
    let now = now_ticks();
    let Some(own) = Process::of(shell) else {
        return false;
    };
    let below = below(shell);
    below.iter().any(|process| {
        let age = now.saturating_sub(process.started);
        let is_leaf = !below.iter().any(|other| other.parent == process.id);
        // On a busy machine the exec may come late: it has the name of the shell until then.
        let is_copy = process.name == own.name && is_leaf && age <= COPY_TICKS_MAX;
        process.group == shell && (age <= START_TICKS || is_copy)
    })
}

/// Whether something runs that the shell has started about the time `moment`.
pub(crate) fn has_started(shell: Pid, moment: u64) -> bool {
    let around = moment.saturating_sub(1)..=moment + 1;
    let shell = shell.as_raw_nonzero().get();
    let mut started = below(shell).into_iter();
    started.any(|process| process.group == shell && around.contains(&process.started))
}

/// The processes below `parent`, nearest first. Asked of each for its children, since looking at
/// all of /proc takes so long that the next one is started meanwhile.
fn below(parent: i32) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![parent];
    while let Some(parent) = parents.pop() {
        let path = format!("/proc/{parent}/task/{parent}/children");
        let Ok(children) = fs::read_to_string(path) else {
            continue;
        };
        for child in children.split_whitespace().filter_map(|id| id.parse().ok()) {
            if found.len() < ENTRIES_MAX
                && let Some(process) = Process::of(child)
            {
                parents.push(child);
                found.push(process);
            }
        }
    }
    found
}

/// The other processes of this session.
fn session() -> impl Iterator<Item = Process> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let session = rustix::process::getsid(None).map(|pid| pid.as_raw_nonzero().get());
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .take(ENTRIES_MAX)
        .filter_map(|entry| Process::of(entry.file_name().to_str()?.parse().ok()?))
        .filter(move |process| Ok(process.session) == session && process.id != own)
}

/// What one line of /proc/<pid>/stat says of interest.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    id: i32,
    name: String,
    parent: i32,
    group: i32,
    session: i32,
    started: u64,
}

impl Process {
    fn of(id: i32) -> Option<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    /// `<pid> (<name>) <state> <parent> <group> <session> …`; the name may hold anything.
    fn read(stat: &str) -> Option<Self> {
        let (head, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        Some(Self {
            id: head.split_once(' ')?.0.parse().ok()?,
            name: head.split_once(" (")?.1.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_name() {
        let stat = "7 (a) b (c) S 1 5 4 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 9 9\n";
        assert_eq!(
            Process::read(stat),
            Some(Process {
                id: 7,
                name: "a) b (c".into(),
                parent: 1,
                group: 5,
                session: 4,
                started: 12345
            })
        );
        assert_eq!(Process::read("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_begun_before_now() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(Process::read(&stat).unwrap().started <= now_ticks());
    }
}
