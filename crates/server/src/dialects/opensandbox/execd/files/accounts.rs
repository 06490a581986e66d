//! Names of users and groups of a sandbox, as its own files have them.

use crate::dialects::opensandbox::error::{Failure, Refusal};
use crate::host::{Sandbox, Within};
use axum::http::StatusCode;
use std::collections::HashMap;

/// User and group of tenant code, and of every file that is made for it.
pub(super) const USER_ID: u32 = 1000;
/// So much of each file is looked at.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Names that are remembered of each.
const NAMES_MAX: usize = 4_096;

/// Users and groups. Tenant code may have written anything there: these are words to show.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Accounts {
    /// What cannot be read has no names.
    pub(super) async fn of(sandbox: &Sandbox) -> Self {
        let (users, groups) = tokio::join!(
            names_in(sandbox, "/etc/passwd"),
            names_in(sandbox, "/etc/group")
        );
        Self { users, groups }
    }

    pub(super) fn user(&self, uid: u32) -> String {
        name(&self.users, uid)
    }

    pub(super) fn group(&self, gid: u32) -> String {
        name(&self.groups, gid)
    }

    /// Ids for the names of an owner and a group, which may be numbers.
    pub(super) fn ids(
        &self,
        owner: Option<&str>,
        group: Option<&str>,
    ) -> Result<(Option<u32>, Option<u32>), Failure> {
        Ok((
            id("user", &self.users, owner)?,
            id("group", &self.groups, group)?,
        ))
    }
}

async fn names_in(sandbox: &Sandbox, path: &str) -> HashMap<u32, String> {
    let content = sandbox.read(path, Within::Root, 0, FILE_BYTES_MAX).await;
    content.map_or_else(|_| HashMap::new(), |(_, bytes)| parse(&bytes))
}

/// Lines of `name:password:id:…`. The first name of an id counts, as it does for the C library.
fn parse(bytes: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in String::from_utf8_lossy(bytes).lines().take(NAMES_MAX) {
        let mut fields = line.split(':');
        let (Some(name), Some(id)) = (fields.next(), fields.nth(1)) else {
            continue;
        };
        if let (false, Ok(id)) = (name.is_empty(), id.parse::<u32>()) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}

fn name(names: &HashMap<u32, String>, id: u32) -> String {
    names.get(&id).cloned().unwrap_or_else(|| id.to_string())
}

fn id(
    what: &str,
    names: &HashMap<u32, String>,
    wanted: Option<&str>,
) -> Result<Option<u32>, Failure> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else {
        return Ok(None);
    };
    let found = names.iter().find(|(_, name)| *name == wanted);
    let number = found.map(|(id, _)| *id).or_else(|| wanted.parse().ok());
    if number.is_some() {
        return Ok(number);
    }
    let message = format!("the sandbox has no {what} of that name");
    Err(Refusal::new(StatusCode::BAD_REQUEST, "INVALID_FILE_METADATA", message).into())
}

/// Refuses an owner that files of a sandbox cannot have: only a privileged process gives files
/// away, and a sandbox has none.
pub(super) fn only_user((uid, gid): (Option<u32>, Option<u32>)) -> Result<(), Failure> {
    if [uid, gid].into_iter().flatten().all(|id| id == USER_ID) {
        return Ok(());
    }
    let message = format!(
        "files of a sandbox belong to its user and group, {USER_ID}; they cannot be given away"
    );
    Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "NOT_SUPPORTED", message).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids() {
        let passwd = b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:\n\nbad\n:x:5:\n\
            alias:x:1000:\nhuge:x:99999999999:\n\xff\xfe:x:7:\n";
        let users = parse(passwd);
        let accounts = Accounts {
            users,
            groups: parse(b"staff:x:50:user\n"),
        };
        assert_eq!(accounts.user(0), "root");
        assert_eq!(accounts.user(1000), "user");
        assert_eq!(accounts.user(5), "5");
        assert_eq!(accounts.group(50), "staff");
        let ids = accounts.ids(Some("user"), Some("staff")).unwrap();
        assert_eq!(ids, (Some(1000), Some(50)));
        assert_eq!(accounts.ids(Some("77"), None).unwrap(), (Some(77), None));
        assert_eq!(accounts.ids(Some(""), None).unwrap(), (None, None));
        assert!(accounts.ids(Some("nobody"), None).is_err());
        assert!(only_user((Some(1000), None)).is_ok());
        assert!(only_user((Some(1000), Some(0))).is_err());
    }
}
