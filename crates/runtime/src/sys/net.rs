//! The one thing done to a new network namespace: its loopback interface is switched on.

use std::io;
use std::os::fd::AsRawFd;

/// linux/if.h; the request holds its flags in a short.
const IFF_UP: libc::c_short = 1;

/// Brings `lo` up in the caller's network namespace.
///
/// # Errors
/// Those of socket(2) and SIOCSIFFLAGS.
pub fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data; all zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = IFF_UP;
    // SAFETY: the request is a valid, named ifreq, as SIOCSIFFLAGS expects.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
