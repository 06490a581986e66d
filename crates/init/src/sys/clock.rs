//! The processor time of another process, and the units in which the kernel counts.

/// How the kernel encodes the clock of a process that counts what the scheduler does: the
/// complement of its pid, then "of a process" and "scheduler" in the lowest three bits.
const CLOCK_OF_PROCESS: i32 = 0b010;

/// Nanoseconds of processor time of a process with all its threads, those that have ended too.
/// None when there is no such process (any more).
pub(crate) fn process_cpu_ns(pid: i32) -> Option<u64> {
    let clock = (!pid << 3) | CLOCK_OF_PROCESS;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec, which outlives the call; any other number than that
    // of a process is refused.
    let status = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if status != 0 {
        return None;
    }
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanos = u64::try_from(time.tv_nsec).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Clock ticks per second, in which `/proc/<pid>/stat` counts time.
pub(crate) fn ticks_per_second() -> u64 {
    // SAFETY: reads a constant of the system; there is no argument to be wrong.
    positive(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }, 100)
}

/// Bytes of a page, in which `/proc/<pid>/stat` counts memory.
pub(crate) fn page_bytes() -> u64 {
    // SAFETY: as above.
    positive(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }, 4096)
}

fn positive(value: libc::c_long, otherwise: u64) -> u64 {
    u64::try_from(value)
        .ok()
        .filter(|value| *value > 0)
        .unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_process_goes_forward_and_that_of_nobody_is_not_there() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let before = process_cpu_ns(pid).unwrap();
        let mut sum = 0_u64;
        for n in 0..1_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(n));
        }
        assert!(process_cpu_ns(pid).unwrap() > before, "{sum}");
        assert_eq!(process_cpu_ns(i32::MAX - 7), None);
    }
}
