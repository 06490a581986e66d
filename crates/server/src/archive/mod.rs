//! Archives of clients (`.tar.gz`): hostile bytes in, files of a sandbox out.
//!
//! Owns: what an archive may contain and how large it may be ([`Limits`]), and getting it into a
//! sandbox without ever holding more than a piece of it. Does not own where its bytes come from,
//! nor what a run does with the files.
//!
//! An archive is judged here by its text alone; what is left is sent to init, which makes files
//! inside the sandbox and follows nothing (`init/src/files/unpack.rs`). No path of the host is
//! made from a name in an archive.
//!
//! What passes is what `git archive` and `tar czf` write: files, directories, symbolic links that
//! stay inside, hard links to files before them; ustar, pax and GNU names; several gzip members.
//! Permission bits are kept up to 0777, times of files too, owners are the sandbox's user.

mod gzip;
mod header;
mod names;
mod reader;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod unpack;

pub(crate) use unpack::{Pieces, check, unpack};

use bytes::Bytes;
use crownest_init::unpack::Entry;
use std::io;

#[cfg(feature = "fuzzing")]
pub(crate) use reader::read;

/// How large an archive may be inside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Entries, and directories that they imply.
    pub entries_max: u64,
    /// Bytes of all files together.
    pub unpacked_bytes_max: u64,
    /// Bytes after decompression, headers and padding included.
    pub archive_bytes_max: u64,
    /// Decompressed bytes for each compressed one, where it is much at all.
    pub ratio_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries_max: 100_000,
            unpacked_bytes_max: 2 << 30,
            // A header, an extended one and padding for each entry.
            archive_bytes_max: (2 << 30) + 100_000 * 2_048,
            ratio_max: 200,
        }
    }
}

/// What was in an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub entries: u64,
    pub bytes: u64,
}

/// Entries for one call of init.
#[derive(Debug)]
pub(crate) struct Batch {
    pub entries: Vec<Entry>,
    /// The bytes of their files, one after the other.
    pub body: Bytes,
}

/// Why an archive was not unpacked. Texts name the entry and are bounded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// Not an archive, or one with something in it that is not allowed.
    #[error("{0}")]
    Invalid(String),
    /// Over a limit, or larger than the sandbox's disk.
    #[error("{0}")]
    TooLarge(String),
    /// Its bytes could not be read.
    #[error("reading the archive: {0}")]
    Source(io::Error),
    /// The sandbox refused an entry.
    #[error("{0}")]
    Refused(crate::host::HostError),
    /// Nobody wants it any more.
    #[error("unpacking was canceled")]
    Canceled,
}

impl ArchiveError {
    fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }

    fn too_large(why: impl Into<String>) -> Self {
        Self::TooLarge(why.into())
    }
}
