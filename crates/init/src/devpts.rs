//! A new terminal of the sandbox's own devpts.
//!
//! Opened with the file system identity of the tenant's user, who then owns it, and without ever
//! looking at the name of its other side: that one is asked of the descriptor.

use crate::input::set_size;
use crate::sys::identity::AsUser;
use crownest_init::terminal::TerminalSize;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use std::os::fd::OwnedFd;

const MULTIPLEXER: &str = "/dev/ptmx";

/// Both sides of a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Where a person would sit.
    pub(crate) user: OwnedFd,
    /// Where programs are.
    pub(crate) program: OwnedFd,
}

/// Opens one; the sandbox has a limit of them.
pub(crate) fn open_terminal(size: TerminalSize) -> Result<Terminal, Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let user = {
        let _user = AsUser::enter().ok_or(Errno::PERM)?;
        open(MULTIPLEXER, flags, Mode::empty())?
    };
    // Also the proof that it is one.
    unlockpt(&user)?;
    set_size(&user, size)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let program = ioctl_tiocgptpeer(&user, flags)?;
    Ok(Terminal { user, program })
}
