//! Paths as clients write them, and failures that name theirs.

use crate::auth::Caller;
use crate::checks;
use crate::dialects::opensandbox::error::{Failure, Refusal};
use crate::error::ApiError;
use crate::host::{FileErrorKind, HostError};
use crate::sandboxes::LiveSandbox;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

/// Paths in one request.
const PATHS_MAX: usize = 1_000;
/// Longest query string.
const QUERY_BYTES_MAX: usize = 256 * 1024;
/// Longest piece of a path in an error message.
const SHOWN_CHARS_MAX: usize = 200;

/// The values of a query string in their order; a name may come again and again.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            let message = format!("the query is longer than {QUERY_BYTES_MAX} bytes");
            return Err(ApiError::field("query", message));
        }
        serde_urlencoded::from_str(query)
            .map(Self)
            .map_err(|_| ApiError::field("query", "the query is not urlencoded"))
    }
}

impl Query {
    /// The first value of that name. An empty one counts as none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(found, _)| found == name);
        values
            .next()
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Every `path`; at least one.
    pub(super) fn paths(&self) -> Result<Vec<String>, Failure> {
        let named = self.0.iter().filter(|(name, _)| name == "path");
        let paths: Vec<String> = named.map(|(_, path)| path.clone()).collect();
        if paths.is_empty() {
            return Err(missing("path"));
        }
        Ok(paths)
    }

    /// The one `path`.
    pub(super) fn path(&self) -> Result<String, Failure> {
        let path = self.get("path").ok_or_else(|| missing("path"))?;
        Ok(path.to_owned())
    }

    /// A whole number, if it is there.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = value.parse().map_err(|_| {
            let message = format!("{name} is not a whole number in range");
            Failure::from(ApiError::field(name, message))
        })?;
        Ok(Some(number))
    }
}

fn missing(name: &str) -> Failure {
    let message = format!("the query has no {name}");
    Refusal::new(StatusCode::BAD_REQUEST, "MISSING_QUERY", message).into()
}

/// Makes paths absolute: `~` and `$NAME` are replaced, what is relative is in the workspace.
pub(super) async fn resolve(
    live: &LiveSandbox,
    paths: Vec<String>,
) -> Result<Vec<String>, Failure> {
    if paths.len() > PATHS_MAX {
        let message = format!("at most {PATHS_MAX} paths in one request");
        return Err(ApiError::field("path", message).into());
    }
    for path in &paths {
        checks::path("path", path)?;
    }
    let has_names = |path: &String| path.starts_with('~') || path.contains('$');
    let paths = if paths.iter().any(has_names) {
        live.host.expand(paths).await.map_err(ApiError::from)?
    } else {
        paths
    };
    paths.into_iter().map(absolute).collect()
}

/// The same for one.
pub(super) async fn resolve_one(live: &LiveSandbox, path: String) -> Result<String, Failure> {
    let paths = resolve(live, vec![path]).await?;
    let path = paths.into_iter().next();
    path.ok_or_else(|| ApiError::internal("a path was lost").into())
}

fn absolute(path: String) -> Result<String, Failure> {
    let mut path = if path.starts_with('/') {
        path
    } else {
        format!("{}/{path}", checks::WORKSPACE)
    };
    // A directory is a directory with and without it; names in answers are made from these.
    while path.len() > 1 && path.ends_with('/') {
        path.pop();
    }
    Ok(checks::path("path", &path)?)
}

/// A name below a directory.
pub(super) fn join(directory: &str, name: &str) -> String {
    let separator = if directory.ends_with('/') { "" } else { "/" };
    format!("{directory}{separator}{name}")
}

/// What a failed file operation is called here. It names the path.
pub(super) fn at(path: &str) -> impl FnOnce(HostError) -> Failure {
    move |error| {
        let shown: String = path.chars().take(SHOWN_CHARS_MAX).collect();
        let refuse = |status, code, what: &dyn std::fmt::Display| -> Failure {
            Refusal::new(status, code, format!("{shown}: {what}")).into()
        };
        match &error {
            HostError::File { kind, message } => match kind {
                FileErrorKind::NotFound | FileErrorKind::ParentNotFound => {
                    refuse(StatusCode::NOT_FOUND, "FILE_NOT_FOUND", kind)
                }
                FileErrorKind::NotDirectory
                | FileErrorKind::IsDirectory
                | FileErrorKind::NotRegular => {
                    refuse(StatusCode::BAD_REQUEST, "INVALID_FILE", kind)
                }
                FileErrorKind::PermissionDenied => {
                    refuse(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message)
                }
                FileErrorKind::NotEmpty | FileErrorKind::Exists => {
                    refuse(StatusCode::CONFLICT, "INVALID_FILE", kind)
                }
                _ => ApiError::from(error.clone()).into(),
            },
            HostError::Invalid(message) => refuse(StatusCode::BAD_REQUEST, "INVALID_FILE", message),
            HostError::TooMany(message) => {
                refuse(StatusCode::BAD_REQUEST, "TOO_MANY_ENTRIES", message)
            }
            _ => ApiError::from(error.clone()).into(),
        }
    }
}

/// Puts what was done to paths on record.
pub(super) fn note<const SCOPE: u8>(
    app: &crate::app::App,
    caller: &Caller<SCOPE>,
    action: &'static str,
    live: &LiveSandbox,
    paths: &[String],
) {
    let details = serde_json::json!({ "paths": paths.len(), "path": paths.first() });
    app.note_file_deed(caller, action, live, &details);
}
