//! `/files/permissions`.

use super::accounts::{Accounts, USER_ID, only_user};
use super::info::octal;
use super::paths::{at, note, resolve};
use super::{InSandbox, Writer};
use crate::app::App;
use crate::dialects::opensandbox::error::{Failure, Refusal};
use crate::extract::{JsonBody, PathArgs};
use crate::host::{FileChange, Within};
use crate::sandboxes::LiveSandbox;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Mode and owner as clients write them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Permission {
    /// Decimal digits that are octal ones.
    mode: Option<u32>,
    owner: Option<String>,
    group: Option<String>,
}

impl Permission {
    pub(super) fn mode(&self) -> Result<Option<u32>, Failure> {
        let Some(digits) = self.mode else {
            return Ok(None);
        };
        let mode = octal(digits).ok_or_else(|| {
            let message = format!("mode {digits} is not an octal mode such as 644");
            Refusal::new(StatusCode::BAD_REQUEST, "INVALID_FILE_METADATA", message)
        })?;
        Ok(Some(mode))
    }

    /// Who the file is to belong to. Looked up only where something is asked for.
    pub(super) async fn owner(
        &self,
        live: &LiveSandbox,
    ) -> Result<(Option<u32>, Option<u32>), Failure> {
        let is_named = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
        if !is_named(&self.owner) && !is_named(&self.group) {
            return Ok((None, None));
        }
        let accounts = Accounts::of(&live.host).await;
        accounts.ids(self.owner.as_deref(), self.group.as_deref())
    }
}

pub(super) async fn change(
    State(app): State<App>,
    caller: Writer,
    PathArgs(InSandbox { id }): PathArgs<InSandbox>,
    body: JsonBody<BTreeMap<String, Permission>>,
) -> Result<(), Failure> {
    let live = app.live_sandbox(&caller, &id).await?;
    let (asked, permissions): (Vec<_>, Vec<_>) = body.value.into_iter().unzip();
    let paths = resolve(&live, asked).await?;
    for (path, permission) in paths.iter().zip(&permissions) {
        apply(&live, path, permission).await?;
    }
    note(&app, &caller, "file.permissions", &live, &paths);
    Ok(())
}

/// Changes a file that is there.
pub(super) async fn apply(
    live: &LiveSandbox,
    path: &str,
    permission: &Permission,
) -> Result<(), Failure> {
    let mode = permission.mode()?;
    let (uid, gid) = permission.owner(live).await?;
    if [uid, gid].into_iter().flatten().any(|id| id != USER_ID) {
        // Unless it is what the file has, which changes nothing.
        let stat = live.host.stat(path, Within::Root).await;
        let stat = stat.map_err(at(path))?;
        let other = |wanted: Option<u32>, has: u32| wanted.filter(|id| *id != has);
        only_user((other(uid, stat.uid), other(gid, stat.gid)))?;
    }
    let change = FileChange { mode, uid, gid };
    live.host.change(path, change).await.map_err(at(path))?;
    Ok(())
}
