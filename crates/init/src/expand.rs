//! `~` and `$NAME` in paths, as a shell of the sandbox would read them.
//!
//! Who runs it: init, which alone knows the sandbox's environment. Text in, text out: nothing is
//! opened here.

use crate::link::{CallError, CallErrorCode, EXPAND_PATHS_MAX};
use crate::path::PATH_BYTES_MAX;
use std::collections::BTreeMap;

/// Expands every path.
///
/// # Errors
/// `too_many` paths; `invalid` where the result is longer than a path can be.
pub fn all(paths: &[String], env: &BTreeMap<String, String>) -> Result<Vec<String>, CallError> {
    if paths.len() > EXPAND_PATHS_MAX {
        return refuse(CallErrorCode::TooMany, "paths to expand");
    }
    paths.iter().map(|path| expand(path, env)).collect()
}

/// One path. What is put in is not looked at again; a name that is not set is nothing.
fn expand(path: &str, env: &BTreeMap<String, String>) -> Result<String, CallError> {
    let mut out = String::new();
    let mut rest = path;
    if let Some(after) = path.strip_prefix('~')
        && (after.is_empty() || after.starts_with('/'))
    {
        out.push_str(env.get("HOME").map_or("/", String::as_str));
        rest = after;
    }
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        match variable(after) {
            Some((name, behind)) => {
                out.push_str(env.get(name).map_or("", String::as_str));
                rest = behind;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
        if out.len() > PATH_BYTES_MAX {
            break;
        }
    }
    out.push_str(rest);
    if out.len() >= PATH_BYTES_MAX {
        return refuse(CallErrorCode::Invalid, "path: too long");
    }
    Ok(out)
}

/// The name after a `$`, and what comes behind it.
fn variable(text: &str) -> Option<(&str, &str)> {
    let (inner, close) = match text.strip_prefix('{') {
        Some(inner) => (inner, "}"),
        None => (text, ""),
    };
    let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let (name, behind) = inner.split_at(inner.find(|c| !is_name(c)).unwrap_or(inner.len()));
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some((name, behind.strip_prefix(close)?))
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

    #[test]
    fn homes_and_names() {
        let pairs = [("HOME", "/home/user"), ("A", "$HOME"), ("B_2", "b")];
        let env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let env = BTreeMap::from(env);
        for (path, expected) in [
            ("~", "/home/user"),
            ("~/x", "/home/user/x"),
            ("~other/x", "~other/x"),
            ("x/~", "x/~"),
            ("$HOME/x", "/home/user/x"),
            ("${HOME}x", "/home/userx"),
            ("$HOMEx/y", "/y"),
            ("/a$A", "/a$HOME"),
            ("/$B_2-$B_2", "/b-b"),
            ("/$", "/$"),
            ("/$1", "/$1"),
            ("/${B_2", "/${B_2"),
            ("/${}", "/${}"),
            ("/é$é", "/é$é"),
        ] {
            assert_eq!(expand(path, &env).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_grows_is_refused() {
        let env = BTreeMap::from([("A".to_owned(), "x".repeat(4_000))]);
        assert!(expand("/$A", &env).is_ok());
        assert!(expand("/$A$A", &env).is_err());
        assert!(expand(&"$A".repeat(2_000), &env).is_err());
        assert!(all(&vec![String::new(); EXPAND_PATHS_MAX + 1], &env).is_err());
    }
}
