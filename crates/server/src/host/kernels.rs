//! The kernels there are: which languages each runs, how its driver is started, which version.
//!
//! Owns the words that clients use for a language and what they mean. Does not own which languages
//! a template has, nor what a driver does with a cell.

use crownest_runtime::template::RuntimeVersion;
use std::collections::BTreeMap;

/// The versions that a sandbox uses, by the name of the kernel.
pub type Runtimes = BTreeMap<String, RuntimeVersion>;

const MIB: u64 = 1024 * 1024;

/// One kernel: a driver and the languages that it runs.
#[derive(Debug)]
pub struct Kernel {
    pub name: &'static str,
    /// As they are answered. A context of one of them runs cells of all.
    pub languages: &'static [&'static str],
    /// Other words for them.
    aliases: &'static [(&'static str, &'static str)],
    /// Environment variable with which a sandbox chooses its version.
    pub version_variable: Option<&'static str>,
    /// What a template that does not say has it under.
    usual_home: Option<&'static str>,
    /// Whether the spawner can fork its driver from a zygote.
    pub forkable: bool,
    /// Whether a pool starts one before anybody asks: worth it for what takes long to start.
    pub prestarted: bool,
    /// What an idle driver takes, at most.
    pub idle_bytes: u64,
    /// Starts of the names of variables that its runtime reads when it starts and never again. A
    /// driver that was started without them is not what a sandbox that sets them asked for.
    start_variables: &'static [&'static str],
    argv: fn(home: &str) -> Vec<String>,
    /// Follows the arguments of one that nobody waits for: it makes ready for its first cell
    /// before it says that it is.
    spare_argument: Option<&'static str>,
}

/// Read by the loader and the C library, so by every program.
const LOADER: [&str; 4] = ["LD_", "MALLOC_", "GLIBC_", "GCONV_"];

/// Every kernel.
pub static KERNELS: [Kernel; 5] = [
    Kernel {
        name: "bash",
        languages: &["bash"],
        aliases: &[("sh", "bash"), ("shell", "bash")],
        version_variable: None,
        usual_home: Some("/usr"),
        forkable: false,
        prestarted: true,
        idle_bytes: 8 * MIB,
        start_variables: &["BASH", "SHELLOPTS", "POSIXLY_CORRECT", "LC_", "LANG", "TZ"],
        argv: |_| words(&["/opt/crownest/bash/driver"]),
        spare_argument: None,
    },
    Kernel {
        name: "go",
        languages: &["go"],
        aliases: &[("golang", "go")],
        version_variable: Some("GO_VERSION"),
        usual_home: None,
        forkable: false,
        // Ten milliseconds: what takes time is the compiler, for each cell anew.
        prestarted: false,
        idle_bytes: 16 * MIB,
        start_variables: &["GO", "CGO_", "LC_", "LANG", "TZ"],
        argv: |home| words(&["/opt/crownest-go/driver", home]),
        spare_argument: None,
    },
    Kernel {
        name: "java",
        languages: &["java"],
        aliases: &[],
        version_variable: Some("JAVA_VERSION"),
        usual_home: None,
        forkable: false,
        prestarted: true,
        idle_bytes: 160 * MIB,
        start_variables: &["JAVA_", "JDK_", "_JAVA_", "CLASSPATH", "LC_", "LANG", "TZ"],
        // By the release, which is the last word of its home.
        argv: |home| {
            let release = home.rsplit('/').next().unwrap_or(home);
            let built = format!("/opt/crownest-java/{release}");
            words(&[
                "/bin/sh",
                "/opt/crownest/java/driver.sh",
                release,
                home,
                &built,
                "/proc/meminfo",
            ])
        },
        spare_argument: Some("spare"),
    },
    Kernel {
        name: "node",
        languages: &["javascript", "typescript"],
        aliases: &[
            ("js", "javascript"),
            ("node", "javascript"),
            ("nodejs", "javascript"),
            ("ts", "typescript"),
        ],
        version_variable: Some("NODE_VERSION"),
        usual_home: None,
        forkable: false,
        prestarted: true,
        idle_bytes: 80 * MIB,
        start_variables: &["NODE_", "UV_", "SSL_CERT_", "OPENSSL_", "LC_", "LANG", "TZ"],
        // An interrupt may end a callback between two of Node's own checks, which would abort it.
        argv: |home| {
            let node = format!("{home}/bin/node");
            words(&[
                &node,
                "--no-force-async-hooks-checks",
                "/opt/crownest/node/driver.cjs",
            ])
        },
        spare_argument: None,
    },
    Kernel {
        name: "python",
        languages: &["python"],
        aliases: &[("py", "python"), ("python3", "python")],
        version_variable: Some("PYTHON_VERSION"),
        usual_home: Some("/usr"),
        forkable: true,
        prestarted: true,
        idle_bytes: 8 * MIB,
        // A fork is never asked: its zygote has started long ago, with an environment of its own.
        start_variables: &[],
        argv: |home| {
            words(&[
                &format!("{home}/bin/python3"),
                "-B",
                "/opt/crownest/python/driver.py",
            ])
        },
        spare_argument: None,
    },
];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Kernel {}

impl Kernel {
    /// The kernel of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KERNELS.iter().find(|kernel| kernel.name == name)
    }

    /// The kernel that runs a language; `language` as it is answered.
    #[must_use]
    pub fn of(language: &str) -> Option<&'static Self> {
        KERNELS
            .iter()
            .find(|kernel| kernel.languages.contains(&language))
    }

    /// Whether cells have to say in which of its languages they are.
    #[must_use]
    pub fn is_of_several(&self) -> bool {
        self.languages.len() > 1
    }

    /// Whether a driver of it that was started before this environment was known will do.
    #[must_use]
    pub fn can_start_before(&self, env: &BTreeMap<String, String>) -> bool {
        let is_read = |name: &str| {
            let starts = |prefix: &&str| name.starts_with(*prefix);
            self.start_variables.iter().any(starts) || LOADER.iter().any(starts)
        };
        self.forkable
            || !env
                .keys()
                .any(|name| is_read(name) && !self.is_selector(name))
    }

    /// How one is started before anybody has asked for it.
    pub(super) fn start_spare(&self, runtimes: &Runtimes) -> Option<Driver> {
        let mut driver = self.start(runtimes)?;
        driver.argv.extend(self.spare_argument.map(str::to_owned));
        Some(driver)
    }

    /// The variable that chooses the version means nothing to the runtime itself.
    fn is_selector(&self, name: &str) -> bool {
        self.version_variable == Some(name) || name == "JAVA_HOME"
    }

    /// How its driver is started in a sandbox with these runtimes; none when it has none of it.
    pub(super) fn start(&self, runtimes: &Runtimes) -> Option<Driver> {
        let chosen = runtimes.get(self.name);
        let home = chosen.map(|version| version.home.as_str());
        let argv = (self.argv)(home.or(self.usual_home)?);
        let label = match chosen {
            Some(version) => format!("{}:{}", self.name, version.version),
            None => self.name.to_owned(),
        };
        Some(Driver { label, argv })
    }
}

/// A driver that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Driver {
    /// Kernel and version: what a spare must have to be taken.
    pub(super) label: String,
    pub(super) argv: Vec<String>,
}

/// The language that a word means, as it is answered; none for a word that means none.
#[must_use]
pub fn language(word: &str) -> Option<&'static str> {
    KERNELS.iter().find_map(|kernel| {
        let itself = kernel.languages.iter().find(|language| **language == word);
        let alias = kernel.aliases.iter().find(|(alias, _)| *alias == word);
        itself
            .copied()
            .or_else(|| alias.map(|(_, language)| *language))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn version(version: &str, home: &str) -> RuntimeVersion {
        RuntimeVersion {
            version: version.into(),
            home: home.into(),
        }
    }

    #[test]
    fn every_word_means_one_language_of_one_kernel() {
        let mut words = BTreeSet::new();
        for kernel in &KERNELS {
            for language in kernel.languages {
                assert!(words.insert(*language), "{language}");
                assert_eq!(Kernel::of(language), Some(kernel));
            }
            for (alias, meant) in kernel.aliases {
                assert!(words.insert(*alias), "{alias}");
                assert!(kernel.languages.contains(meant), "{alias}");
                assert_eq!(language(alias), Some(*meant));
            }
            assert_eq!(Kernel::named(kernel.name), Some(kernel));
        }
        assert_eq!(language("python"), Some("python"));
        for none in ["", "Python", "ruby", "c++", "typescript "] {
            assert_eq!(language(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_driver_is_started_from_the_version_that_was_chosen() {
        let node = Kernel::of("typescript").unwrap();
        let runtimes = Runtimes::from([("node".to_owned(), version("20.1.0", "/opt/node/20"))]);
        let driver = node.start(&runtimes).unwrap();
        assert_eq!(driver.label, "node:20.1.0");
        assert_eq!(driver.argv[0], "/opt/node/20/bin/node");
        assert_eq!(node.start(&Runtimes::new()), None, "there is no Node");
        let python = Kernel::of("python").unwrap();
        let driver = python.start(&Runtimes::new()).unwrap();
        assert_eq!(driver.argv[0], "/usr/bin/python3");
        assert_eq!(python.start_spare(&Runtimes::new()), Some(driver));
    }

    #[test]
    fn one_that_waits_is_told_so_and_has_the_same_label() {
        let java = Kernel::of("java").unwrap();
        let runtimes = Runtimes::from([("java".to_owned(), version("17.0.1", "/opt/java/17"))]);
        let driver = java.start(&runtimes).unwrap();
        let spare = java.start_spare(&runtimes).unwrap();
        assert_eq!(spare.label, driver.label);
        assert_eq!(spare.argv.split_last().unwrap().1, driver.argv);
        assert_eq!(spare.argv.last().unwrap(), "spare");
    }

    #[test]
    fn what_a_runtime_reads_once_rules_out_one_that_runs_already() {
        let node = Kernel::named("node").unwrap();
        let env = |names: &[&str]| -> BTreeMap<String, String> {
            names
                .iter()
                .map(|n| ((*n).to_owned(), String::new()))
                .collect()
        };
        assert!(node.can_start_before(&env(&["API_KEY", "PATH", "NODE_VERSION"])));
        assert!(!node.can_start_before(&env(&["NODE_OPTIONS"])));
        assert!(!node.can_start_before(&env(&["LD_PRELOAD"])));
        let java = Kernel::named("java").unwrap();
        assert!(java.can_start_before(&env(&["NODE_OPTIONS", "JAVA_HOME"])));
        assert!(!java.can_start_before(&env(&["JAVA_TOOL_OPTIONS"])));
        let python = Kernel::named("python").unwrap();
        assert!(python.can_start_before(&env(&["PYTHONPATH"])));
    }
}
