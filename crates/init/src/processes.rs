//! What /proc says about the processes of this sandbox: sessions, groups, states.

use crate::sys::signals;
use crownest_init::process::Process;
use std::fs;

/// Rounds of a kill: a process may fork between being listed and being killed.
const KILL_ROUNDS_MAX: u32 = 4;
/// Processes looked at in one round, far above any pid limit of a sandbox.
const PROCESSES_MAX: usize = 65_536;

const SIGKILL: i32 = 9;

/// Kills the group `leader`, then everything else in the session `leader`. Processes that made
/// a session of their own are daemons and stay.
pub(crate) fn kill_session(leader: i32) {
    if leader <= 1 {
        // Session 0 is how sessions of other pid namespaces look; init may be in one.
        return;
    }
    let _ = signals::send(leader, true, SIGKILL);
    for _ in 0..KILL_ROUNDS_MAX {
        let alive = in_session(leader);
        if alive.is_empty() {
            return;
        }
        for process in alive {
            let _ = signals::send(process.pid, false, SIGKILL);
        }
    }
}

/// Everything alive in a session.
pub(crate) fn in_session(leader: i32) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .take(PROCESSES_MAX)
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(read)
        .filter(|process| process.session == leader && !matches!(process.state, b'Z' | b'X'))
        .collect()
}

/// None when there is no such process (any more).
pub(crate) fn read(pid: i32) -> Option<Process> {
    Process::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
}
