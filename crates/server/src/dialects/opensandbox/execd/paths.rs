//! Working directories: any of the sandbox, which must be there.

use super::super::error::{Failure, Refusal};
use crate::checks::WORKSPACE;
use crate::error::ApiError;
use crate::host::{FileKind, HostError, Within};
use crate::sandboxes::LiveSandbox;
use axum::http::StatusCode;
use crownest_api::limits;

fn refusal(message: String) -> Failure {
    Refusal::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST_BODY", message).into()
}

/// The directory that a request means: the workspace when it names none. `~` and `$NAME` are
/// replaced, as in paths of files.
pub(super) async fn directory(live: &LiveSandbox, asked: Option<&str>) -> Result<String, Failure> {
    let Some(asked) = asked else {
        return Ok(WORKSPACE.to_owned());
    };
    if asked.len() > limits::PATH_BYTES_MAX || asked.contains('\0') {
        let max = limits::PATH_BYTES_MAX;
        return Err(refusal(format!(
            "cwd must have at most {max} bytes without NUL"
        )));
    }
    let cwd = absolute(expanded(live, asked).await?);
    match live.host.stat(&cwd, Within::Root).await {
        Ok(stat) if stat.kind == FileKind::Directory => Ok(cwd),
        Ok(_) | Err(HostError::File { .. }) => Err(refusal(format!(
            "cwd {cwd:?} is not a directory of the sandbox"
        ))),
        Err(error) => Err(ApiError::from(error).into()),
    }
}

async fn expanded(live: &LiveSandbox, asked: &str) -> Result<String, Failure> {
    if !asked.starts_with('~') && !asked.contains('$') {
        return Ok(asked.to_owned());
    }
    let paths = live.host.expand(vec![asked.to_owned()]).await;
    let path = paths.map_err(ApiError::from)?.pop();
    path.ok_or_else(|| ApiError::internal("a path was lost").into())
}

fn absolute(path: String) -> String {
    if path.starts_with('/') {
        path
    } else {
        format!("{WORKSPACE}/{path}")
    }
}
