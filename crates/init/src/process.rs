//! One process, as /proc tells of it.
//!
//! Who runs it: init, on text in which tenant code chooses the name of the program.

/// One process, as of a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub state: u8,
    pub group: i32,
    pub session: i32,
}

impl Process {
    /// Reads `/proc/<pid>/stat`; none when it is not one.
    ///
    /// The program's name is in parentheses and may contain anything, parentheses too.
    #[must_use]
    pub fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let group = fields.nth(1)?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        Some(Self {
            pid,
            state,
            group,
            session,
        })
    }
}

/// What one process has used, in the kernel's units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessUse {
    /// Page faults of all its threads: as long as this stays the same, no page has become its own.
    pub faults: u64,
    /// Processor time, in clock ticks, of the children that it has waited for.
    pub children_ticks: u64,
    /// Pages that are resident.
    pub resident_pages: u64,
}

impl ProcessUse {
    /// Reads `/proc/<pid>/stat`; none when it is not one.
    #[must_use]
    pub fn parse(stat: &[u8]) -> Option<Self> {
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
        // Numbered from the state on, which is field 3 of proc_pid_stat(5).
        let mut fields = rest.split_ascii_whitespace();
        let mut skip = |count: usize| fields.nth(count)?.parse::<u64>().ok();
        let minor = skip(7)?;
        let major = skip(1)?;
        let user = skip(3)?;
        let system = skip(0)?;
        let resident = skip(6)?;
        Some(Self {
            faults: minor.saturating_add(major),
            children_ticks: user.saturating_add(system),
            resident_pages: resident,
        })
    }
}

/// The most that was ever resident, in bytes, as `/proc/<pid>/status` tells it. A process without
/// memory of its own has none.
#[must_use]
pub fn peak_bytes(status: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\nVmHWM:";
    let at = status.windows(NAME.len()).position(|part| part == NAME)?;
    let line = status[at + NAME.len()..]
        .split(|byte| *byte == b'\n')
        .next()?;
    let text = std::str::from_utf8(line).ok()?.trim();
    let kib: u64 = text.strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_used_is_read_behind_any_name() {
        let stat = b"41 (a) 9 9 (b) S 1 41 41 0 -1 4194560 500 60 7 8 11 12 30 4 20 0 1 0 99 \
            1000000 321 18446744073709551615 1 1 0";
        let used = ProcessUse {
            faults: 507,
            children_ticks: 34,
            resident_pages: 321,
        };
        assert_eq!(ProcessUse::parse(stat), Some(used));
        for short in [&b"41 (a"[..], b"41 (a) S 1 41", b""] {
            assert_eq!(ProcessUse::parse(short), None);
        }
        let own = std::fs::read("/proc/self/stat").unwrap();
        assert!(ProcessUse::parse(&own).unwrap().resident_pages > 0);
    }

    #[test]
    fn the_peak_is_that_of_the_kernel_and_not_of_a_name() {
        // Line feeds in a name are escaped by the kernel.
        let status = b"Name:\tVmHWM: 9 kB\nVmPeak:\t 8 kB\nVmHWM:\t   12345 kB\nVmRSS:\t1 kB\n";
        assert_eq!(peak_bytes(status), Some(12_345 * 1024));
        assert_eq!(peak_bytes(b"Name:\tx\nState:\tZ\n"), None);
        let own = std::fs::read("/proc/self/status").unwrap();
        assert!(peak_bytes(&own).unwrap() > 0);
    }

    #[test]
    fn a_hostile_name_does_not_move_the_fields() {
        let stat = b"7 (a) S 1 1 1 (\xff) T 1 22 33 0 -1";
        let process = Process::parse(7, stat).unwrap();
        assert_eq!(
            process,
            Process {
                pid: 7,
                state: b'T',
                group: 22,
                session: 33
            }
        );
        assert_eq!(Process::parse(7, b"7 (x"), None);
        assert_eq!(Process::parse(7, b"7 (x) S"), None);
    }
}
