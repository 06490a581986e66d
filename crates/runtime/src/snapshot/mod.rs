//! Snapshots of file systems: what a sandbox has written over its template, in one file.
//!
//! Owns: the form of that file ([`record`]), reading a writable layer into one ([`save`]), making a
//! layer from one ([`restore`]). Does not own: when, by which process, and where the file is
//! ([`crate::spawner`]); whose it is (the server).
//!
//! One file instead of a tree of copies: on the disk of the host there is nothing then that a
//! tenant has named, linked or given a mode, and there is either the whole of it or nothing.
//!
//! What is kept: files with their holes, directories, links of both kinds, pipes and sockets, owner
//! and group within the sandbox, mode, time of change, `user.*` attributes, and what the overlay
//! notes (removed names, replaced directories). What is not: POSIX access lists, file capabilities
//! (no program of a sandbox gains anything by one), times of access.
//!
//! Trust: the layer is a tenant's. Every name is one component and is opened beneath its directory
//! without following links; nothing is executed, and no device is opened. The file is our own, but
//! is checked like a stranger's: it may have been cut off by a crash of the machine.

mod record;
mod restore;
mod save;

use crate::command::{Refusal, Step};
use std::io;

pub use restore::restore;
pub use save::save;

/// Directories inside each other.
pub const DEPTH_MAX: usize = 256;
/// What the files of a snapshot may take.
pub const SNAPSHOT_BYTES_MAX: u64 = 8 << 30;
/// Files, directories and everything else with a name in one snapshot.
pub const SNAPSHOT_ENTRIES_MAX: u64 = 1_000_000;
/// Room that stays free on the disk.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// How much is written before the disk is looked at again.
const ROOM_EVERY_BYTES: u64 = 16 << 20;

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotSize {
    /// What its files take in a sandbox.
    pub bytes: u64,
    /// Everything that has a name.
    pub entries: u64,
}

/// Bounds of one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotLimits {
    pub bytes: u64,
    pub entries: u64,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self {
            bytes: SNAPSHOT_BYTES_MAX,
            entries: SNAPSHOT_ENTRIES_MAX,
        }
    }
}

type Outcome<T> = Result<T, Refusal>;

/// Names the step that failed.
fn at<E: Into<io::Error>>(step: Step) -> impl Fn(E) -> Refusal {
    move |error| {
        let error = error.into();
        let errno = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => libc::EBADMSG,
            _ => error.raw_os_error().unwrap_or(0),
        };
        Refusal { step, errno }
    }
}

fn refused(step: Step) -> Refusal {
    Refusal { step, errno: 0 }
}

#[cfg(test)]
mod tests;
