//! What commands and detached runs print, kept in segment files: written as it comes, read by number.
//!
//! Owns: the files, their format, how much of a log is kept, and who is told that there is more.
//! Does not own: processes, records of commands, HTTP.
//!
//! A log has one writer, the task that drives its command, and any number of readers, which read
//! the same files by what the writer has published ([`Log`]). Nothing is held in memory but where
//! the segments begin. The oldest segments go when a log grows above its limit; how many bytes
//! went with them is known ([`LogIndex::omitted_bytes`]).
//!
//! With an object store that is not a directory of this machine, closed segments are moved there
//! ([`remote`]), and readers fetch them from there.

mod files;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod reader;
mod remote;
mod segment;
mod writer;

pub(crate) use files::{Log, LogFiles, LogIndex, purge, shards, unsettled};
pub(crate) use reader::{LogError, Position, READ_BYTES_MAX, read};
pub(crate) use remote::{Announced, Remote, Todo};
pub(crate) use segment::{LogStream, Part, Record};
pub(crate) use writer::{Entry, LogLimits, LogWriter};

#[cfg(test)]
mod remote_tests;
