//! Which runtimes a root has, in which versions, and which version a request means.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// One runtime of a root: an interpreter, or a compiler with its tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// Name of the kernel that uses it: `python`, `node`, `java`, `go`.
    pub kernel: String,
    /// Oldest first.
    pub versions: Vec<RuntimeVersion>,
    /// The version that is used when nobody asks for one.
    pub default: String,
}

/// One version of a runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeVersion {
    /// `24.21.0`
    pub version: String,
    /// Directory inside the root that has its `bin`.
    pub home: String,
}

impl Runtime {
    pub(super) fn new(kernel: &str, mut versions: Vec<RuntimeVersion>, default: &str) -> Self {
        versions.sort_by(|a, b| compare(&a.version, &b.version));
        Self {
            kernel: kernel.to_owned(),
            versions,
            default: default.to_owned(),
        }
    }

    /// The version that is meant by all of its numbers or by the first of them (`24`, `24.21`,
    /// `24.21.0`): of several the newest.
    #[must_use]
    pub fn find(&self, asked: &str) -> Option<&RuntimeVersion> {
        self.versions.iter().rev().find(|one| {
            one.version
                .strip_prefix(asked)
                .is_some_and(|rest| !asked.is_empty() && (rest.is_empty() || rest.starts_with('.')))
        })
    }

    /// The version that is used when nobody asks for one.
    #[must_use]
    pub fn default_version(&self) -> Option<&RuntimeVersion> {
        self.versions.iter().find(|one| one.version == self.default)
    }
}

/// What a root has that was made from another: its own runtimes, and what it leaves as it was.
pub(super) fn inherit(base: &[Runtime], own: Vec<Runtime>) -> Vec<Runtime> {
    let kept = base
        .iter()
        .filter(|runtime| !own.iter().any(|new| new.kernel == runtime.kernel));
    let mut all: Vec<Runtime> = kept.cloned().collect();
    all.extend(own);
    all.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    all
}

/// By numbers: 9 comes before 10.
fn compare(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect()
    };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(kernel: &str, versions: &[&str]) -> Runtime {
        let version = |version: &&str| RuntimeVersion {
            version: (*version).to_owned(),
            home: format!("/opt/{version}"),
        };
        let default = versions.last().unwrap();
        Runtime::new(kernel, versions.iter().map(version).collect(), default)
    }

    #[test]
    fn a_version_is_meant_by_its_first_numbers() {
        let go = runtime("go", &["1.10.1", "1.9.7", "1.24.13"]);
        let found = |asked| go.find(asked).map(|one| one.version.as_str());
        assert_eq!(found("1.24"), Some("1.24.13"));
        assert_eq!(found("1.24.13"), Some("1.24.13"));
        assert_eq!(found("1"), Some("1.24.13"), "the newest of several");
        assert_eq!(found("1.9"), Some("1.9.7"));
        for none in ["1.2", "2", "", "1.24.1", "1.24.13.0", ".", "v1.24", "1."] {
            assert_eq!(found(none), None, "{none:?}");
        }
        assert_eq!(go.default_version().unwrap().version, "1.24.13");
    }

    #[test]
    fn what_a_root_has_of_its_own_takes_the_place_of_its_bases() {
        let base = [runtime("python", &["3.11.2"]), runtime("node", &["24.1.0"])];
        let own = runtime("node", &["20.1.0", "24.1.0"]);
        let all = inherit(&base, vec![own.clone()]);
        assert_eq!(all, [own, base[0].clone()]);
    }
}
