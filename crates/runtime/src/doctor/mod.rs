//! What this machine can and cannot do, found out by trying it, and what follows.
//!
//! Owns: the checks, their consequences and remedies. Does not own: printing, deciding to start.
//! Everything that is tried is undone; what is tried in a child goes away with the child.
//!
//! Who runs it: root, in a process with one thread (`crownest doctor`), so that the system calls
//! are the ones a spawner makes. Without root the trials are reported as not made.

mod child;
mod machine;
mod trial;

use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Sandboxes on one machine that limits are judged by.
pub const SANDBOXES_WANTED: u64 = 2000;

/// What to examine.
#[derive(Debug, Clone)]
pub struct Options {
    pub templates_dir: PathBuf,
    /// Where the server would listen.
    pub listen: SocketAddr,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Sandboxes run; something is worse than it could be.
    Warn,
    /// Sandboxes cannot run.
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    pub found: String,
    /// What follows from it; always there unless the status is `Ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequence: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            found: found.into(),
            consequence: None,
            remedy: None,
        }
    }

    fn bad(
        status: Status,
        name: &'static str,
        found: impl Into<String>,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (consequence, remedy) = (Some(consequence.into()), Some(remedy.into()));
        Self {
            name,
            status,
            found: found.into(),
            consequence,
            remedy,
        }
    }

    fn warn(
        name: &'static str,
        found: impl Into<String>,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::bad(Status::Warn, name, found, consequence, remedy)
    }

    fn fail(
        name: &'static str,
        found: impl Into<String>,
        consequence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::bad(Status::Fail, name, found, consequence, remedy)
    }
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether sandboxes can run on this machine as it is.
    pub can_run: bool,
    pub checks: Vec<Check>,
}

/// Examines this machine. Takes well below a second.
#[must_use]
pub fn examine(options: &Options) -> Report {
    let root = rustix::process::geteuid().is_root();
    let mut checks = vec![
        machine::kernel(),
        machine::privilege(root),
        machine::capabilities(),
    ];
    if root {
        checks.extend(trial::all(&options.templates_dir));
    } else {
        let consequence = "namespaces, mounts, control groups and the filter were not tried";
        let remedy = "run: sudo crownest doctor";
        checks.push(Check::warn(
            "trials",
            "not made without root",
            consequence,
            remedy,
        ));
    }
    checks.push(machine::landlock());
    checks.push(machine::kvm());
    checks.push(machine::memory());
    checks.extend(machine::limits());
    checks.push(machine::disk(&options.templates_dir));
    checks.extend(machine::templates(&options.templates_dir));
    checks.push(machine::builder());
    checks.push(machine::port(options.listen));
    Report {
        can_run: checks.iter().all(|check| check.status != Status::Fail),
        checks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_fine_says_what_follows_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            templates_dir: dir.path().to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let report = examine(&options);
        for check in &report.checks {
            assert!(!check.found.is_empty(), "{check:?}");
            let explained = check.consequence.is_some() && check.remedy.is_some();
            assert!(check.status == Status::Ok || explained, "{check:?}");
        }
        // Nothing is built there.
        let templates = report
            .checks
            .iter()
            .find(|check| check.name == "templates")
            .unwrap();
        assert_eq!(templates.status, Status::Fail);
        assert!(!report.can_run);
    }
}
