//! Paths as a client wrote them: what text alone can say before anything is opened.
//!
//! Who runs it: init. Where a path really leads is judged after it was opened (`files/resolve.rs`).

use crate::link::{CallError, CallErrorCode, Within};
use std::path::{Component, Path, PathBuf};

/// Longest path that the kernel takes, its final NUL counted.
pub const PATH_BYTES_MAX: usize = 4096;
/// Components of a path.
pub const DEPTH_MAX: usize = 256;
/// What `Within::Workspace` means.
const WORKSPACE: &str = "/workspace";

/// Makes a request's path absolute and refuses what cannot be one.
///
/// # Errors
/// `invalid`, or `path_outside_workspace` where the text alone says so.
pub fn absolute(path: &str, within: Within) -> Result<PathBuf, CallError> {
    if path.is_empty() || path.contains('\0') {
        return refuse(CallErrorCode::Invalid, "path: empty or with NUL");
    }
    let absolute = Path::new(WORKSPACE).join(path);
    if absolute.as_os_str().len() >= PATH_BYTES_MAX || absolute.components().count() > DEPTH_MAX {
        return refuse(CallErrorCode::Invalid, "path: too long");
    }
    // Links may lead back in or further out; this only gives the plain cases their plain answer,
    // whether or not anything is there.
    if within == Within::Workspace && !inside(&without_dots(&absolute)) {
        return refuse(CallErrorCode::PathOutsideWorkspace, "outside of /workspace");
    }
    Ok(absolute)
}

/// `/workspace` or below; both sides must be free of dots and links.
#[must_use]
pub fn inside(path: &Path) -> bool {
    path.starts_with(WORKSPACE)
}

/// The path as text alone would have it, "x/.." gone.
#[must_use]
pub fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

fn refuse<T>(code: CallErrorCode, message: &str) -> Result<T, CallError> {
    Err(CallError {
        code,
        message: message.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(path: &str) -> Result<String, CallErrorCode> {
        absolute(path, Within::Workspace)
            .map(|path| path.to_string_lossy().into_owned())
            .map_err(|error| error.code)
    }

    #[test]
    fn text_alone_decides_the_plain_cases() {
        assert_eq!(outcome("a/b"), Ok("/workspace/a/b".to_owned()));
        assert_eq!(outcome("/workspace"), Ok("/workspace".to_owned()));
        assert_eq!(outcome("a/../b"), Ok("/workspace/a/../b".to_owned()));
        for path in [
            "/etc/passwd",
            "../x",
            "/workspace/../etc",
            "a/../../x",
            "/workspacex",
            "/",
        ] {
            assert_eq!(
                outcome(path),
                Err(CallErrorCode::PathOutsideWorkspace),
                "{path}"
            );
        }
        for path in ["", "a\0b", &"a/".repeat(300), &"x".repeat(5000)] {
            assert_eq!(outcome(path), Err(CallErrorCode::Invalid), "{path:.10}");
        }
        assert!(absolute("/etc/passwd", Within::Root).is_ok());
    }
}
