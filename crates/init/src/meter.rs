//! What runs cost, as the kernel counts it: read from outside, never asked of the driver.
//!
//! On the path of every run, so it opens nothing there and reads little: `stat` and a clock at both
//! ends (some five microseconds together), and `status`, which takes the kernel twice as long as
//! both, only when pages were touched since it was read last; without that no peak can have risen.

use crate::sys::clock;
use crownest_init::cell::RunUsage;
use crownest_init::process::{ProcessUse, peak_bytes};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, pread};
use std::os::fd::OwnedFd;

/// Longest `stat` or `status`; the kernel's own are a third of it.
const TEXT_BYTES_MAX: usize = 4096;

/// The counters of one driver. Opened once: a number that somebody else has by now answers nothing.
#[derive(Debug)]
pub(crate) struct Meter {
    pid: i32,
    stat: OwnedFd,
    status: OwnedFd,
    peak: Option<Peak>,
}

/// The highest use of memory, as of so many page faults.
#[derive(Debug, Clone, Copy)]
struct Peak {
    faults: u64,
    bytes: u64,
}

/// The counters at the start of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    cpu_ns: u64,
    children_ticks: u64,
    peak_bytes: u64,
}

impl Meter {
    pub(crate) fn open(pid: i32) -> Result<Self, Errno> {
        let open = |name| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::open(format!("/proc/{pid}/{name}"), flags, Mode::empty())
        };
        Ok(Self {
            pid,
            stat: open("stat")?,
            status: open("status")?,
            peak: None,
        })
    }

    /// Right before a run begins. None when the process is not there any more.
    pub(crate) fn begin(&mut self) -> Option<Begun> {
        let used = self.used()?;
        let peak_bytes = self.peak(used.faults)?;
        Some(Begun {
            cpu_ns: clock::process_cpu_ns(self.pid)?,
            children_ticks: used.children_ticks,
            peak_bytes,
        })
    }

    /// When a run has ended.
    pub(crate) fn end(&mut self, begun: Begun) -> Option<RunUsage> {
        let own_ns = clock::process_cpu_ns(self.pid)?.saturating_sub(begun.cpu_ns);
        let used = self.used()?;
        let peak = self.peak(used.faults)?;
        let ticks = used.children_ticks.saturating_sub(begun.children_ticks);
        let children_us = ticks.saturating_mul(1_000_000) / clock::ticks_per_second();
        Some(RunUsage {
            cpu_us: (own_ns / 1_000).saturating_add(children_us),
            memory_bytes: used.resident_pages.saturating_mul(clock::page_bytes()),
            memory_peak_bytes: peak,
            memory_peak_growth_bytes: peak.saturating_sub(begun.peak_bytes),
        })
    }

    fn used(&self) -> Option<ProcessUse> {
        let mut text = [0; TEXT_BYTES_MAX];
        let count = pread(&self.stat, &mut text, 0).ok()?;
        ProcessUse::parse(&text[..count])
    }

    fn peak(&mut self, faults: u64) -> Option<u64> {
        if let Some(peak) = self.peak.filter(|peak| peak.faults == faults) {
            return Some(peak.bytes);
        }
        let mut text = [0; TEXT_BYTES_MAX];
        let count = pread(&self.status, &mut text, 0).ok()?;
        let bytes = peak_bytes(&text[..count])?;
        self.peak = Some(Peak { faults, bytes });
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_run_is_charged_for_its_work_its_children_and_its_memory() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let mut meter = Meter::open(pid).unwrap();
        let begun = meter.begin().unwrap();
        let block = vec![1_u8; 64 << 20];
        let burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        Command::new("sh").args(["-c", burn]).status().unwrap();
        let usage = meter.end(begun).unwrap();
        assert!(usage.cpu_us > 0, "{usage:?}");
        assert!(usage.memory_peak_bytes >= 64 << 20, "{usage:?}");
        assert!(usage.memory_peak_growth_bytes > 0, "{usage:?}");
        assert!(usage.memory_bytes <= usage.memory_peak_bytes, "{usage:?}");
        drop(block);
        // Children are counted in ticks of 10 ms, so this one is there only when it took that long.
        println!("{usage:?}");
    }

    #[test]
    fn of_a_process_that_has_ended_nothing_is_said() {
        let mut child = Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut meter = Meter::open(i32::try_from(child.id()).unwrap()).unwrap();
        let begun = meter.begin().unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(meter.end(begun), None);
        assert!(meter.begin().is_none());
    }
}
