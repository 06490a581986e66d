//! Checks of values that several routes take.

use crate::error::{ApiError, ApiResult};
use crownest_api::{ErrorCode, limits};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// The working directory of what names none.
pub(crate) const WORKSPACE: &str = "/workspace";

/// Environment of a sandbox or command.
pub(crate) fn environment(env: &BTreeMap<String, String>) -> ApiResult<()> {
    let refuse = |message: String| Err(ApiError::field("env", message));
    if env.len() > limits::ENV_KEYS_MAX {
        return refuse(format!("env has more than {} names", limits::ENV_KEYS_MAX));
    }
    let mut bytes = 0;
    for (name, value) in env {
        let name_ok =
            (1..=limits::ENV_KEY_BYTES_MAX).contains(&name.len()) && !name.contains(['=', '\0']);
        if !name_ok {
            return refuse("an env name must have 1 to 256 bytes without '=' and NUL".to_owned());
        }
        if name.starts_with(limits::ENV_RESERVED_PREFIX) {
            let message = format!("env name {name:?} is reserved: it starts with CROWNEST");
            return Err(ApiError::new(ErrorCode::ReservedEnvKey, message)
                .with_details(json!({ "field": "env", "key": name })));
        }
        if value.contains('\0') {
            return refuse(format!("the value of env name {name:?} contains NUL"));
        }
        bytes += name.len() + value.len();
    }
    if bytes > limits::ENV_BYTES_MAX {
        return refuse(format!("env has more than {} bytes", limits::ENV_BYTES_MAX));
    }
    Ok(())
}

/// A timeout in milliseconds between 1 and `max`.
pub(crate) fn timeout(asked: Option<u64>, default: u64, max: u64) -> ApiResult<Duration> {
    let millis = asked.unwrap_or(default);
    if !(1..=max).contains(&millis) {
        return Err(ApiError::field(
            "timeoutMs",
            format!("timeoutMs must be between 1 and {max}"),
        ));
    }
    Ok(Duration::from_millis(millis))
}

/// A path as a client wrote it: where it leads is decided inside the sandbox.
pub(crate) fn path(field: &str, path: &str) -> ApiResult<String> {
    let fits = (1..=limits::PATH_BYTES_MAX).contains(&path.len()) && !path.contains('\0');
    if !fits {
        return Err(ApiError::field(
            field,
            format!(
                "{field} must have 1 to {} bytes without NUL",
                limits::PATH_BYTES_MAX
            ),
        ));
    }
    Ok(if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{WORKSPACE}/{path}")
    })
}

/// A working directory, by its words: inside the workspace and without `..`. Links are the
/// sandbox's own affair, since a process may leave its directory at any time.
pub(crate) fn cwd(asked: Option<&str>) -> ApiResult<Option<String>> {
    let Some(asked) = asked else { return Ok(None) };
    let path = path("cwd", asked)?;
    let inside = path.strip_prefix(WORKSPACE).is_some_and(|rest| {
        (rest.is_empty() || rest.starts_with('/')) && !rest.split('/').any(|part| part == "..")
    });
    if !inside {
        let message = "cwd must be inside /workspace";
        return Err(ApiError::new(ErrorCode::PathOutsideWorkspace, message)
            .with_details(json!({ "field": "cwd" })));
    }
    Ok(Some(path))
}

/// The name of a project.
pub(crate) fn name(name: &str) -> ApiResult<()> {
    let chars = name.chars().take(limits::NAME_CHARS_MAX + 1).count();
    if name.trim().is_empty()
        || chars > limits::NAME_CHARS_MAX
        || name.chars().any(char::is_control)
    {
        let max = limits::NAME_CHARS_MAX;
        return Err(ApiError::field(
            "name",
            format!("name must have 1 to {max} printable characters"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments() {
        let env = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert!(environment(&env("PATH", "/bin")).is_ok());
        assert_eq!(
            environment(&env("CROWNEST_X", "")).unwrap_err().code,
            ErrorCode::ReservedEnvKey
        );
        for (name, value) in [("", "a"), ("A=B", "a"), ("A\0", "a"), ("A", "\0")] {
            assert_eq!(
                environment(&env(name, value)).unwrap_err().code,
                ErrorCode::InvalidRequest
            );
        }
        let big = "x".repeat(limits::ENV_BYTES_MAX);
        assert!(environment(&env("A", &big)).is_err());
    }

    #[test]
    fn working_directories_stay_inside() {
        for good in ["/workspace", "/workspace/a", "a/b", "."] {
            assert!(cwd(Some(good)).is_ok(), "{good}");
        }
        for bad in [
            "/",
            "/etc",
            "/workspaces",
            "/workspace/../etc",
            "../x",
            "a/..",
        ] {
            assert_eq!(
                cwd(Some(bad)).unwrap_err().code,
                ErrorCode::PathOutsideWorkspace,
                "{bad}"
            );
        }
        assert_eq!(cwd(Some("")).unwrap_err().code, ErrorCode::InvalidRequest);
        assert_eq!(cwd(None).unwrap(), None);
    }

    #[test]
    fn timeouts_have_bounds() {
        assert_eq!(timeout(None, 5, 10).unwrap(), Duration::from_millis(5));
        assert!(timeout(Some(0), 5, 10).is_err());
        assert!(timeout(Some(11), 5, 10).is_err());
    }
}
