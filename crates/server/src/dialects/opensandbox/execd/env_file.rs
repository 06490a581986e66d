//! The file in which clients keep environment for later commands and sessions, one `KEY=value` each.
//! A program of the sandbox writes it, so it is read as hostile text.

use super::super::environment::{self, ENVS_FILE};
use super::super::error::Failure;
use super::paths;
use crate::checks;
use crate::error::ApiError;
use crate::host::{FileErrorKind, HostError, Within};
use crate::sandboxes::LiveSandbox;
use crownest_api::limits;
use std::collections::BTreeMap;

/// What is read of it.
const FILE_BYTES_MAX: u64 = 4 * limits::ENV_BYTES_MAX as u64;

/// The environment of a command: what the file says, then what the request says. Of what is in the
/// file, what no program could be started with is left out.
pub(super) async fn environment(
    live: &LiveSandbox,
    asked: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Failure> {
    checks::environment(&asked)?;
    let mut env = environment::of_sandbox(&live.id);
    match live
        .host
        .read(ENVS_FILE, Within::Root, 0, FILE_BYTES_MAX)
        .await
    {
        Ok((_, bytes)) => env.extend(parse(&String::from_utf8_lossy(&bytes))),
        Err(HostError::File { kind, .. }) => {
            if !matches!(
                kind,
                FileErrorKind::NotFound | FileErrorKind::ParentNotFound
            ) {
                tracing::debug!(%kind, "a file of environment cannot be read");
            }
        }
        Err(error) => return Err(ApiError::from(error).into()),
    }
    env.extend(asked);
    // Too much of it refuses every command: the caller learns why.
    checks::environment(&env)?;
    Ok(env)
}

/// Where and with what environment a program starts that a request describes.
pub(super) async fn surroundings(
    live: &LiveSandbox,
    cwd: Option<String>,
    env: BTreeMap<String, String>,
) -> Result<(String, BTreeMap<String, String>), Failure> {
    let asked = cwd.filter(|cwd| !cwd.is_empty());
    let (cwd, env) = tokio::join!(
        paths::directory(live, asked.as_deref()),
        environment(live, env),
    );
    Ok((cwd?, env?))
}

/// `'…'` stands for itself and may go over lines, `"…"` has escapes, the rest of a line otherwise.
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line_end = rest.find('\n').unwrap_or(rest.len());
        let line = &rest[..line_end];
        let Some((name, _)) = line.split_once('=') else {
            rest = rest[line_end..].strip_prefix('\n').unwrap_or_default();
            continue;
        };
        let value_at = name.len() + 1;
        let (value, used) = value(&rest[value_at..]);
        rest = &rest[value_at + used..];
        let line_end = rest.find('\n').unwrap_or(rest.len());
        rest = rest[line_end..].strip_prefix('\n').unwrap_or_default();
        let name = name.trim();
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        let alone = BTreeMap::from([(name.to_owned(), value)]);
        if is_name(name) && checks::environment(&alone).is_ok() {
            env.extend(alone);
        }
    }
    env
}

fn is_name(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(word) && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// A value at the start of a text, and how many bytes of the text it takes.
fn value(text: &str) -> (String, usize) {
    if let Some(quoted) = text.strip_prefix('\'')
        && let Some(end) = quoted.find('\'')
    {
        return (quoted[..end].to_owned(), end + 2);
    }
    if let Some(quoted) = text.strip_prefix('"')
        && let Some((value, used)) = unescape(quoted)
    {
        return (value, used + 1);
    }
    let end = text.find('\n').unwrap_or(text.len());
    (text[..end].trim().to_owned(), end)
}

/// Up to the closing quote; None: there is none.
fn unescape(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, at + 1)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                other @ ('\\' | '"' | '$' | '`') => value.push(other),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).into_iter().collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn values_are_read_as_the_clients_write_them() {
        let text = "A='a $HOME \"q\" \\n'\nB=\"it's\\n\\t\\\\ \\\"x\\\"\"\nC= plain \n";
        let expected = [
            pair("A", "a $HOME \"q\" \\n"),
            pair("B", "it's\n\t\\ \"x\""),
            pair("C", "plain"),
        ];
        assert_eq!(pairs(text), expected);
        assert_eq!(
            pairs("A='two\nlines'\nB=2"),
            [pair("A", "two\nlines"), pair("B", "2")]
        );
        assert_eq!(pairs("A=1\nA='2'\n"), [pair("A", "2")]);
        assert_eq!(pairs("# x=1\n\nnothing\nexport A=1\r\n"), [pair("A", "1")]);
    }

    #[test]
    fn what_is_broken_is_left_out() {
        assert_eq!(pairs("A='open\nB=2"), [pair("A", "'open"), pair("B", "2")]);
        assert_eq!(
            pairs("1A=1\nB C=2\n=3\nCROWNEST_X=1\nD=\0\nE=5"),
            [pair("E", "5")]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_read(text in ".{0,200}") {
            parse(&text);
        }
    }
}
