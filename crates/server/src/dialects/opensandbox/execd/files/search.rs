//! `/files/search`: files below a directory whose names match a pattern.

use super::accounts::Accounts;
use super::glob::Glob;
use super::info::FileInfo;
use super::paths::{Query, at, join, resolve_one};
use super::walk::{LEFT_OUT, Walk, refusal};
use super::{InSandbox, Reader};
use crate::app::App;
use crate::dialects::opensandbox::error::Failure;
use crate::extract::PathArgs;
use crate::host::{FileKind, Within};
use axum::Json;
use axum::extract::State;

/// Files in one answer.
const RESULTS_MAX: usize = 10_000;
/// Entries that are looked at.
const ENTRIES_MAX: usize = 500_000;
/// Everything.
const PATTERN_DEFAULT: &str = "**";

pub(super) async fn search(
    State(app): State<App>,
    caller: Reader,
    PathArgs(InSandbox { id }): PathArgs<InSandbox>,
    query: Query,
) -> Result<([(&'static str, String); 1], Json<Vec<FileInfo>>), Failure> {
    let pattern = query.get("pattern").unwrap_or(PATTERN_DEFAULT);
    let glob =
        Glob::new(pattern).map_err(|error| refusal("INVALID_REQUEST_BODY", error.to_string()))?;
    let live = app.live_sandbox(&caller, &id).await?;
    let root = resolve_one(&live, query.path()?).await?;
    // A link to a directory can be searched; what is found has names below the link.
    let stat = live.host.stat(&root, Within::Root).await;
    let stat = stat.map_err(at(&root))?;
    let accounts = Accounts::of(&live.host).await;
    let mut found = Vec::new();
    if stat.kind != FileKind::Directory {
        let name = root.rsplit('/').next().unwrap_or_default();
        if glob.matches(name) {
            found.push(FileInfo::new(root.clone(), &stat, &accounts));
        }
        return Ok(([(LEFT_OUT, "0".to_owned())], Json(found)));
    }
    let walk = Walk {
        root: &stat.path,
        depth: usize::MAX,
        entries_max: ENTRIES_MAX,
    };
    let visited = walk.run(&live, |path, stat| {
        if stat.kind == FileKind::Directory || !glob.matches(path) {
            return Ok(());
        }
        if found.len() >= RESULTS_MAX {
            let message = format!("{root}: more than {RESULTS_MAX} files match");
            return Err(refusal("TOO_MANY_ENTRIES", message));
        }
        found.push(FileInfo::new(join(&root, path), stat, &accounts));
        Ok(())
    });
    let left_out = visited.await?;
    Ok(([(LEFT_OUT, left_out.to_string())], Json(found)))
}
