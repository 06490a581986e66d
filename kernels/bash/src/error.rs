//! Why the driver cannot go on. What goes wrong in a cell is never one of these.

use rustix::io::Errno;
use std::fmt;
use std::io;

/// One variant per step that failed.
#[derive(Debug)]
pub(crate) enum KernelError {
    /// `CROWNEST_KERNEL_FD` is missing or names nothing that is open.
    Control(String),
    /// A call that prepares the process.
    Prepare(&'static str, Errno),
    /// No directory for the cell's file.
    Place(io::Error),
    /// bash could not be started.
    Spawn(io::Error),
    /// bash ends again and again before it takes a command.
    ShellKeepsDying,
    /// The control socket.
    Channel(io::Error),
    /// A frame that is no frame.
    BadFrame,
    /// Waiting for events.
    Wait(Errno),
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control(why) => write!(f, "control socket: {why}"),
            Self::Prepare(step, error) => write!(f, "{step}: {error}"),
            Self::Place(error) => write!(f, "no directory for cells: {error}"),
            Self::Spawn(error) => write!(f, "bash cannot be started: {error}"),
            Self::ShellKeepsDying => f.write_str("bash ends before it takes a command"),
            Self::Channel(error) => write!(f, "control socket: {error}"),
            Self::BadFrame => f.write_str("a frame that breaks the protocol"),
            Self::Wait(error) => write!(f, "poll: {error}"),
        }
    }
}

impl std::error::Error for KernelError {}
