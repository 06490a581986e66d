//! `POST /directories` and `/directories/list`.

use super::accounts::{Accounts, only_user};
use super::info::FileInfo;
use super::paths::{Query, at, join, note, resolve, resolve_one};
use super::permissions::{Permission, apply};
use super::walk::{LEFT_OUT, Walk};
use super::{InSandbox, Reader, Writer};
use crate::app::App;
use crate::dialects::opensandbox::error::{Failure, Refusal};
use crate::extract::{JsonBody, PathArgs};
use crate::host::{FileKind, Within};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::collections::BTreeMap;

/// Entries in one listing, whatever its depth.
const ENTRIES_MAX: usize = 10_000;

/// Makes directories and those above them. One that is there gets the mode all the same.
pub(super) async fn make(
    State(app): State<App>,
    caller: Writer,
    PathArgs(InSandbox { id }): PathArgs<InSandbox>,
    body: JsonBody<BTreeMap<String, Permission>>,
) -> Result<(), Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    let (asked, permissions): (Vec<_>, Vec<_>) = body.value.into_iter().unzip();
    let paths = resolve(&live, asked).await?;
    for permission in &permissions {
        permission.mode()?;
        only_user(permission.owner(&live).await?)?;
    }
    for (path, permission) in paths.iter().zip(&permissions) {
        let made = live.host.mkdir(path, Within::Root, true).await;
        made.map_err(at(path))?;
        apply(&live, path, permission).await?;
    }
    note(&app, &caller, "file.mkdir", &live, &paths);
    Ok(())
}

pub(super) async fn list(
    State(app): State<App>,
    caller: Reader,
    PathArgs(InSandbox { id }): PathArgs<InSandbox>,
    query: Query,
) -> Result<([(&'static str, String); 1], Json<Vec<FileInfo>>), Failure> {
    let depth = query.number::<usize>("depth")?.unwrap_or(1);
    let live = app.live_sandbox(&caller, &id).await?;
    let root = resolve_one(&live, query.path()?).await?;
    let stat = live.host.stat_link(&root).await.map_err(at(&root))?;
    if stat.kind != FileKind::Directory {
        let message = format!("{root}: is not a directory");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "INVALID_FILE", message).into());
    }
    let mut found = Vec::new();
    let mut left_out = 0;
    if depth > 0 {
        let accounts = Accounts::of(&live.host).await;
        let walk = Walk {
            root: &root,
            depth,
            entries_max: ENTRIES_MAX,
        };
        let visited = walk.run(&live, |path, stat| {
            found.push(FileInfo::new(join(&root, path), stat, &accounts));
            Ok(())
        });
        left_out = visited.await?;
    }
    Ok(([(LEFT_OUT, left_out.to_string())], Json(found)))
}
