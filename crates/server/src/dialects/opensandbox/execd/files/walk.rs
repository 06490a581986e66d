//! Walks through directories of a sandbox: each is a call of its own, so that init has time for
//! others, and links are never followed.

use super::paths::{at, join};
use crate::dialects::opensandbox::error::{Failure, Refusal};
use crate::host::{FileEntry, FileErrorKind, FileKind, FileStat, HostError};
use crate::sandboxes::LiveSandbox;
use axum::http::StatusCode;
use std::time::{Duration, Instant};

/// Longest time of one walk.
const WALK_MAX: Duration = Duration::from_secs(60);
/// Says how many directories an answer lacks because the sandbox's user may not read them, or
/// because they are the kernel's.
pub(super) const LEFT_OUT: &str = "crownest-directories-left-out";

/// Where to walk, and how far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'a> {
    pub root: &'a str,
    /// 1: only what is directly in it.
    pub depth: usize,
    /// More entries are an error.
    pub entries_max: usize,
}

struct Level {
    /// Below the root, without a slash at either end.
    path: String,
    entries: std::vec::IntoIter<FileEntry>,
}

impl Walk<'_> {
    /// Shows every entry with its path below the root, a directory before what is in it, sorted by
    /// name. Returns how many directories could not be read.
    pub(super) async fn run(
        &self,
        live: &LiveSandbox,
        mut visit: impl FnMut(&str, &FileStat) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let began = Instant::now();
        let mut left = self.entries_max;
        let mut left_out = 0;
        let entries = live.host.list_directory(self.root).await;
        let entries = entries.map_err(at(self.root))?;
        let mut levels = vec![self.level(String::new(), entries, &mut left)?];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.entries.next() else {
                levels.pop();
                continue;
            };
            let path = if level.path.is_empty() {
                entry.name
            } else {
                join(&level.path, &entry.name)
            };
            visit(&path, &entry.stat)?;
            if entry.stat.kind != FileKind::Directory || levels.len() >= self.depth {
                continue;
            }
            if began.elapsed() > WALK_MAX {
                let message = format!("{}: longer than {WALK_MAX:?}", self.root);
                return Err(refusal("TOO_MANY_ENTRIES", message));
            }
            let full = join(self.root, &path);
            match live.host.list_directory(&full).await {
                Ok(entries) => levels.push(self.level(path, entries, &mut left)?),
                Err(error) if gone(&error) => {}
                Err(error) if unreadable(&error) => left_out += 1,
                Err(error) => return Err(at(&full)(error)),
            }
        }
        Ok(left_out)
    }

    /// What was listed counts, seen or not: it is held in memory.
    fn level(
        &self,
        path: String,
        entries: Vec<FileEntry>,
        left: &mut usize,
    ) -> Result<Level, Failure> {
        let Some(rest) = left.checked_sub(entries.len()) else {
            let message = format!("{}: more than {} entries", self.root, self.entries_max);
            return Err(refusal("TOO_MANY_ENTRIES", message));
        };
        *left = rest;
        let entries = entries.into_iter();
        Ok(Level { path, entries })
    }
}

/// It was removed or replaced between two looks.
fn gone(error: &HostError) -> bool {
    let replaced =
        matches!(error, HostError::File { kind, .. } if *kind == FileErrorKind::NotDirectory);
    replaced || error.is_not_found()
}

fn unreadable(error: &HostError) -> bool {
    match error {
        HostError::File { kind, .. } => *kind == FileErrorKind::PermissionDenied,
        // Of the kernel, or deeper than a path can say.
        HostError::Invalid(_) => true,
        _ => false,
    }
}

pub(super) fn refusal(code: &'static str, message: String) -> Failure {
    Refusal::new(StatusCode::BAD_REQUEST, code, message).into()
}
