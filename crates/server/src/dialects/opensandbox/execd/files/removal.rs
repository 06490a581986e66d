//! `DELETE /files` and `DELETE /directories`. What is not there is gone already.

use super::paths::{Query, at, note, resolve};
use super::{InSandbox, Writer};
use crate::app::App;
use crate::dialects::opensandbox::error::{Failure, Refusal};
use crate::extract::PathArgs;
use crate::host::FileKind;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;

/// Files, links themselves, and nothing that is a directory.
pub(super) async fn files(
    State(app): State<App>,
    caller: Writer,
    PathArgs(InSandbox { id }): PathArgs<InSandbox>,
    query: Query,
) -> Result<(), Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    let paths = resolve(&live, query.paths()?).await?;
    for path in &paths {
        let removed = match live.host.stat_link(path).await {
            Ok(stat) if stat.kind == FileKind::Directory => {
                let message = format!("{path}: is a directory");
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "INVALID_FILE", message).into());
            }
            Ok(_) => live.host.remove(path, crate::host::Within::Root).await,
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if !error.is_not_found() => return Err(at(path)(error)),
            _ => {}
        }
    }
    note(&app, &caller, "file.delete", &live, &paths);
    Ok(())
}

/// Directories with everything in them. Goes on when the client has gone.
pub(super) async fn directories(
    State(app): State<App>,
    caller: Writer,
    PathArgs(InSandbox { id }): PathArgs<InSandbox>,
    query: Query,
) -> Result<(), Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    let paths = resolve(&live, query.paths()?).await?;
    let (work, all) = (Arc::clone(&live), paths.clone());
    let remove = async move {
        for path in &all {
            match work.host.remove_tree(path).await {
                Err(error) if !error.is_not_found() => return Err(at(path)(error)),
                _ => {}
            }
        }
        Ok(())
    };
    app.finish_anyway(remove).await?;
    note(&app, &caller, "file.delete_tree", &live, &paths);
    Ok(())
}
