//! Entries of an archive, as the server sends them to be made below `/workspace`.
//!
//! The server reads and judges the archive; what it sends is names and bytes. Init makes them with
//! the tenant's rights and lets no link on the way lead anywhere (`files/unpack.rs` of the binary).

use serde::{Deserialize, Serialize};

/// Entries of one call.
pub const ENTRIES_MAX: usize = 512;

/// One thing to make.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Entry {
    /// Relative to `/workspace`: names and slashes, no `.` and no `..`. Missing parents are made.
    pub path: String,
    #[serde(flatten)]
    pub kind: EntryKind,
}

/// What it is.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EntryKind {
    /// One that is there already gets the mode. Its owner always has all rights in it, or what
    /// belongs below could not be made.
    Directory { mode: u32 },
    /// The next `length` bytes of the call's body, at `offset`. At offset 0 the file is made anew
    /// in place of a file or link of that name; the piece with `last` makes it complete.
    File {
        offset: u64,
        length: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<Finish>,
    },
    /// In place of a file or link of that name. What it leads to is the server's to judge.
    Symlink { target: String },
    /// `target` as `path`: a regular file that is there.
    HardLink { target: String },
}

/// What a file gets when its last byte is there.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub struct Finish {
    /// Permission bits, at most `0o777`.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified_s: i64,
}
