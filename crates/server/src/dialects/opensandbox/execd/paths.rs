//! Working directories: any of the sandbox, which must be there.

use super::super::error::{Failure, Refusal};
use crate::checks::WORKSPACE;
use crate::host::{FileKind, HostError, Within};
use crate::sandboxes::LiveSandbox;
use axum::http::StatusCode;
use crownest_api::limits;

/// Where `~` leads.
const HOME: &str = "/home/user";

fn refusal(message: String) -> Failure {
    Refusal::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST_BODY", message).into()
}

/// The directory that a request means: the workspace when it names none.
pub(super) fn directory(asked: Option<&str>) -> Result<String, Failure> {
    let Some(asked) = asked else {
        return Ok(WORKSPACE.to_owned());
    };
    if asked.len() > limits::PATH_BYTES_MAX || asked.contains('\0') {
        let max = limits::PATH_BYTES_MAX;
        return Err(refusal(format!(
            "cwd must have at most {max} bytes without NUL"
        )));
    }
    Ok(match asked.strip_prefix('~') {
        Some("") => HOME.to_owned(),
        Some(rest) if rest.starts_with('/') => format!("{HOME}{rest}"),
        _ if asked.starts_with('/') => asked.to_owned(),
        _ => format!("{WORKSPACE}/{asked}"),
    })
}

/// Refuses a directory that a client has named and that is not there.
pub(super) async fn check_directory(
    live: &LiveSandbox,
    asked: Option<&str>,
    cwd: &str,
) -> Result<(), Failure> {
    if asked.is_none() {
        return Ok(());
    }
    match live.host.stat(cwd, Within::Root).await {
        Ok(stat) if stat.kind == FileKind::Directory => Ok(()),
        Ok(_) | Err(HostError::File { .. }) => Err(refusal(format!(
            "cwd {cwd:?} is not a directory of the sandbox"
        ))),
        Err(error) => Err(crate::error::ApiError::from(error).into()),
    }
}
