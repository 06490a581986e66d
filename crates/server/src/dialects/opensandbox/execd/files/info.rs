//! `/files/info`, and what every answer says about a file.

use super::accounts::Accounts;
use super::paths::{Query, at, resolve};
use super::{InSandbox, Reader};
use crate::app::App;
use crate::dialects::opensandbox::error::Failure;
use crate::extract::PathArgs;
use crate::host::{FileKind, FileStat, Within};
use axum::Json;
use axum::extract::State;
use crownest_api::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// A file as this dialect describes it.
#[derive(Debug, Serialize)]
pub(super) struct FileInfo {
    path: String,
    #[serde(rename = "type")]
    kind: &'static str,
    size: u64,
    modified_at: Timestamp,
    created_at: Timestamp,
    owner: String,
    group: String,
    mode: u32,
}

impl FileInfo {
    pub(super) fn new(path: String, stat: &FileStat, accounts: &Accounts) -> Self {
        Self {
            path,
            kind: match stat.kind {
                FileKind::File => "file",
                FileKind::Directory => "directory",
                FileKind::Symlink => "symlink",
                FileKind::Other => "other",
            },
            size: stat.size,
            modified_at: Timestamp::from_millis(stat.modified_ms),
            created_at: Timestamp::from_millis(stat.created_ms),
            owner: accounts.user(stat.uid),
            group: accounts.group(stat.gid),
            mode: decimal(stat.mode),
        }
    }
}

/// A mode whose decimal digits are its octal ones: 0o644 is 644.
fn decimal(mode: u32) -> u32 {
    let octal = format!("{:o}", mode & 0o7777);
    octal.parse().unwrap_or(0)
}

/// The reverse of [`decimal`]; None for what no mode is written as.
pub(super) fn octal(decimal: u32) -> Option<u32> {
    let mode = u32::from_str_radix(&decimal.to_string(), 8).ok()?;
    (mode <= 0o7777).then_some(mode)
}

pub(super) async fn info(
    State(app): State<App>,
    caller: Reader,
    PathArgs(InSandbox { id }): PathArgs<InSandbox>,
    query: Query,
) -> Result<Json<BTreeMap<String, FileInfo>>, Failure> {
    let asked = query.paths()?;
    let live = app.live_sandbox(&caller, &id).await?;
    let paths = resolve(&live, asked.clone()).await?;
    let accounts = Accounts::of(&live.host).await;
    let mut answer = BTreeMap::new();
    for (asked, path) in asked.into_iter().zip(paths) {
        let stat = live.host.stat(&path, Within::Root).await;
        let stat = stat.map_err(at(&path))?;
        answer.insert(asked, FileInfo::new(path, &stat, &accounts));
    }
    Ok(Json(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (mode, digits) in [
            (0o644, 644),
            (0o7, 7),
            (0o1777, 1777),
            (0o7777, 7777),
            (0, 0),
        ] {
            assert_eq!(decimal(mode), digits);
            assert_eq!(octal(digits), Some(mode));
        }
        for wrong in [8, 648, 10_000, 77_777, u32::MAX] {
            assert_eq!(octal(wrong), None, "{wrong}");
        }
    }
}
