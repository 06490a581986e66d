//! The tables of a `template.toml`: packages of each package manager, exactly pinned, and what an
//! entry may look like. Everything here ends up on the command line of a tool that runs as root.

use serde::{Deserialize, Serialize};

/// The Debian release that templates are made of.
pub(super) const SUITE: &str = "bookworm";
/// Longest package requirement or module name.
const ITEM_BYTES_MAX: usize = 128;
/// Entries in any list of a definition.
const ITEMS_MAX: usize = 1000;
/// Versions of one language in a template.
const VERSIONS_MAX: usize = 8;

/// Packages of the distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    pub suite: String,
    pub packages: Vec<String>,
}

/// Wheels for the distribution's interpreter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Python {
    /// `name==version`.
    pub packages: Vec<String>,
    /// `name==version` of everything that `packages` pull in.
    pub constraints: Vec<String>,
    #[serde(default)]
    pub drop_tests: bool,
    /// What a zygote imports before its first fork.
    pub preload: Vec<String>,
    /// What the build imports to prove that it can be.
    #[serde(default)]
    pub imports: Vec<String>,
}

/// Node.js, from npm packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// `1.2.3`, one of each major. The last one is the default.
    pub versions: Vec<String>,
    /// Version of the npm that each of them gets.
    pub npm: String,
    /// `name==version` of the wheel with the Node and npm that fetch all of this: Debian's are old.
    pub bootstrap: String,
    /// `name@version` of what the driver imports.
    pub driver: Vec<String>,
    /// `name@version` of programs for everybody, installed for the default version.
    #[serde(default)]
    pub packages: Vec<String>,
    /// `name@version` of everything that those pull in.
    #[serde(default)]
    pub constraints: Vec<String>,
}

/// A JDK and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Java {
    /// Debian packages: one or more `openjdk-N-jdk-headless`, build tools.
    pub packages: Vec<String>,
}

/// Go toolchains, from the module proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Go {
    /// `1.2.3`, one of each minor. The last one is the default.
    pub versions: Vec<String>,
    /// `name==version` of the wheel with the Go that fetches them.
    pub bootstrap: String,
}

impl Debian {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.suite != SUITE {
            return Err(format!(
                "suite {:?} is not supported, only {SUITE}",
                self.suite
            ));
        }
        check_list("debian.packages", &self.packages, debian_package_ok)
    }
}

impl Python {
    pub(super) fn check(&self) -> Result<(), String> {
        check_list("python.packages", &self.packages, pinned_ok)?;
        check_list("python.constraints", &self.constraints, pinned_ok)?;
        check_list("python.preload", &self.preload, module_ok)?;
        check_list("python.imports", &self.imports, module_ok)?;
        if !self.packages.iter().any(|item| item.starts_with("pip==")) {
            return Err("python.packages needs pip".to_owned());
        }
        Ok(())
    }
}

impl Node {
    pub(super) fn check(&self) -> Result<(), String> {
        check_versions("node.versions", &self.versions, major)?;
        check_list("node.npm", std::slice::from_ref(&self.npm), version_ok)?;
        check_list(
            "node.bootstrap",
            std::slice::from_ref(&self.bootstrap),
            pinned_ok,
        )?;
        check_list("node.driver", &self.driver, npm_ok)?;
        check_list("node.packages", &self.packages, npm_ok)?;
        check_list("node.constraints", &self.constraints, npm_ok)
    }
}

impl Java {
    pub(super) fn check(&self) -> Result<(), String> {
        check_list("java.packages", &self.packages, debian_package_ok)?;
        if self.releases().is_empty() {
            return Err("java.packages needs an openjdk-N-jdk-headless".to_owned());
        }
        Ok(())
    }

    /// The releases whose JDK is among the packages, in their order.
    pub(super) fn releases(&self) -> Vec<&str> {
        self.packages
            .iter()
            .filter_map(|package| {
                let release = package
                    .strip_prefix("openjdk-")?
                    .strip_suffix("-jdk-headless")?;
                release
                    .bytes()
                    .all(|b| b.is_ascii_digit())
                    .then_some(release)
            })
            .collect()
    }
}

impl Go {
    pub(super) fn check(&self) -> Result<(), String> {
        check_versions("go.versions", &self.versions, minor)?;
        check_list(
            "go.bootstrap",
            std::slice::from_ref(&self.bootstrap),
            pinned_ok,
        )
    }
}

/// `24` of `24.1.2`: what a Node version is installed and asked for by.
pub(super) fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or(version)
}

/// `1.24` of `1.24.3`: the same for Go.
pub(super) fn minor(version: &str) -> &str {
    version.rsplit_once('.').map_or(version, |(minor, _)| minor)
}

/// At least one version, each exact, no two of which share a directory.
fn check_versions(
    name: &str,
    versions: &[String],
    directory: fn(&str) -> &str,
) -> Result<(), String> {
    check_list(name, versions, version_ok)?;
    if versions.is_empty() || versions.len() > VERSIONS_MAX {
        return Err(format!("{name} needs 1 to {VERSIONS_MAX} entries"));
    }
    for (i, version) in versions.iter().enumerate() {
        let place = directory(version);
        if versions[i + 1..]
            .iter()
            .any(|other| directory(other) == place)
        {
            return Err(format!("{name} has {place} twice"));
        }
    }
    Ok(())
}

pub(super) fn check_list(name: &str, items: &[String], ok: fn(&str) -> bool) -> Result<(), String> {
    if items.len() > ITEMS_MAX {
        return Err(format!("{name} has more than {ITEMS_MAX} entries"));
    }
    match items
        .iter()
        .find(|item| item.len() > ITEM_BYTES_MAX || !ok(item))
    {
        Some(item) => Err(format!("{name} has an entry that cannot be used: {item:?}")),
        None => Ok(()),
    }
}

/// Debian policy 5.6.1; the first letter keeps options out of the command line.
fn debian_package_ok(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+.-".contains(&b))
}

fn pinned_ok(requirement: &str) -> bool {
    requirement
        .split_once("==")
        .is_some_and(|(name, version)| part_ok(name, b"-_.") && part_ok(version, b".+!-_"))
}

/// `name@1.2.3` or `@scope/name@1.2.3`.
fn npm_ok(requirement: &str) -> bool {
    let Some((name, version)) = requirement.rsplit_once('@') else {
        return false;
    };
    let name_ok = match name.strip_prefix('@').map(|name| name.split_once('/')) {
        None => part_ok(name, b"-_."),
        Some(Some((scope, name))) => part_ok(scope, b"-_.") && part_ok(name, b"-_."),
        Some(None) => false,
    };
    name_ok && version_ok(version)
}

/// `1.2.3`, nothing that a registry could resolve to something else.
fn version_ok(version: &str) -> bool {
    let (numbers, suffix) = version
        .split_once('-')
        .map_or((version, None), |(numbers, suffix)| (numbers, Some(suffix)));
    let number_ok = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    numbers.split('.').count() == 3
        && numbers.split('.').all(number_ok)
        && suffix.is_none_or(|suffix| part_ok(suffix, b".-"))
}

fn part_ok(part: &str, more: &[u8]) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphanumeric())
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
}

fn module_ok(name: &str) -> bool {
    let word_ok = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    name.split('.').all(word_ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npm_requirements_are_exact() {
        for good in ["acorn@8.19.0", "@oxc-project/types@0.158.0", "x@1.0.0-rc.1"] {
            assert!(npm_ok(good), "{good}");
        }
        for bad in [
            "acorn",
            "acorn@",
            "acorn@^8.0.0",
            "acorn@latest",
            "acorn@8",
            "--registry@1.0.0",
            "@scope@1.0.0",
            "a/b@1.0.0",
            "git+https://x@1.0.0",
            "acorn@8.0.0 --x",
            "../x@1.0.0",
        ] {
            assert!(!npm_ok(bad), "{bad}");
        }
    }

    #[test]
    fn two_versions_never_share_a_directory() {
        let versions = |list: &[&str]| list.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        assert!(check_versions("v", &versions(&["20.1.0", "24.1.0"]), major).is_ok());
        assert!(check_versions("v", &versions(&["1.24.1", "1.26.0"]), minor).is_ok());
        for (list, place) in [
            (&["24.1.0", "24.2.0"][..], major as fn(&str) -> &str),
            (&["1.24.1", "1.24.2"], minor),
            (&[], major),
            (&["24"], major),
            (&["v24.1.0"], major),
        ] {
            assert!(
                check_versions("v", &versions(list), place).is_err(),
                "{list:?}"
            );
        }
    }

    #[test]
    fn java_releases_are_read_from_the_packages() {
        let java = |list: &[&str]| Java {
            packages: list.iter().map(|p| (*p).to_owned()).collect(),
        };
        assert_eq!(
            java(&["maven", "openjdk-17-jdk-headless"]).releases(),
            ["17"]
        );
        assert!(java(&["openjdk-x-jdk-headless"]).check().is_err());
    }
}
