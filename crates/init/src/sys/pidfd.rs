//! How a process that is not our child ended.

use super::spawn::Exit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// First published layout of the kernel's `struct pidfd_info`, 64 bytes.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ids: [u32; 8],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)` of linux/pidfd.h, for the 64-byte layout.
const PIDFD_GET_INFO: u32 = 0xC040_FF0B;
/// The pidfd becomes readable a moment before the kernel has filed the exit code.
const ATTEMPTS_MAX: u32 = 64;

/// The exit of the process behind `pidfd`, which must be readable. None on kernels before 6.15
/// and when its parent has not reaped it.
pub(crate) fn exit_of(pidfd: BorrowedFd<'_>) -> Option<Exit> {
    for _ in 0..ATTEMPTS_MAX {
        let mut info = PidfdInfo {
            mask: PIDFD_INFO_EXIT,
            ..PidfdInfo::default()
        };
        // SAFETY: the request number carries the size of exactly this struct, which outlives
        // the call; any other kind of fd answers ENOTTY. The two libcs differ in the number's type.
        let status = unsafe {
            libc::ioctl(
                pidfd.as_raw_fd(),
                PIDFD_GET_INFO as libc::Ioctl,
                &raw mut info,
            )
        };
        if status == 0 && info.mask & PIDFD_INFO_EXIT != 0 {
            return Some(Exit::from_wait_status(info.exit_code));
        }
        if status != 0 && super::signals::last_errno() != rustix::io::Errno::SRCH {
            return None;
        }
        rustix::thread::sched_yield();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_one_in_the_request_number() {
        assert_eq!(size_of::<PidfdInfo>(), 64);
        assert_eq!((PIDFD_GET_INFO >> 16) & 0x3fff, 64);
    }
}
