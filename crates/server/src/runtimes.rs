//! Which versions a sandbox uses: chosen by its environment, from what its template has.
//!
//! `NODE_VERSION=20` means Node 20 for contexts and for commands. Does not own what a template has.

use crate::error::{ApiError, ApiResult};
use crate::host::{KERNELS, Kernel, Runtimes};
use crate::templates::Template;
use crownest_api::ErrorCode;
use crownest_init::link::PATH_DEFAULT;
use crownest_runtime::template::{Runtime, RuntimeVersion};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Longest version of a request that is repeated in an answer.
const VERSION_CHARS_MAX: usize = 40;
/// Where Java's tools look for their JDK.
const JAVA_HOME: &str = "JAVA_HOME";

/// How many threads and compilers Go works with; it would take the machine's processors.
const GO_PROCESSORS: &str = "GOMAXPROCS";
/// Tells Node that its own HTTP client is to use the proxy. init sets it; before 24 each start of
/// Node would answer with a warning.
const NODE_PROXY: &str = "NODE_USE_ENV_PROXY";
const NODE_PROXY_MAJOR_MIN: u32 = 24;

type Environment = BTreeMap<String, String>;

/// The versions of a new sandbox. What the request says has to be there; the configuration speaks
/// for all templates, and means those that have what it says.
pub(crate) fn choose(
    template: &Template,
    configured: &Environment,
    asked: &Environment,
) -> ApiResult<Runtimes> {
    let mut chosen = defaults(template);
    for kernel in &KERNELS {
        let Some(variable) = kernel.version_variable else {
            continue;
        };
        let runtime = runtime_of(template, kernel);
        let found = match (asked.get(variable), configured.get(variable)) {
            (Some(version), _) => Some(
                runtime
                    .and_then(|runtime| runtime.find(version))
                    .ok_or_else(|| absent(template, kernel, variable, version))?,
            ),
            (None, Some(version)) => runtime.and_then(|runtime| runtime.find(version)),
            (None, None) => None,
        };
        if let Some(version) = found {
            chosen.insert(kernel.name.to_owned(), version.clone());
        }
    }
    Ok(chosen)
}

/// The versions of a sandbox that asks for none.
pub fn defaults(template: &Template) -> Runtimes {
    template
        .runtimes
        .iter()
        .filter_map(|runtime| {
            let version = runtime.default_version()?.clone();
            Some((runtime.kernel.clone(), version))
        })
        .collect()
}

/// What a sandbox has less of than the machine: the kernel tells programs of the machine's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) cpu_millis: u32,
    pub(crate) machine_processors: u32,
}

impl Share {
    /// Of this machine.
    pub(crate) fn here(cpu_millis: u32) -> Self {
        static PROCESSORS: LazyLock<u32> = LazyLock::new(|| {
            let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            u32::try_from(processors).unwrap_or(u32::MAX)
        });
        Self {
            cpu_millis,
            machine_processors: *PROCESSORS,
        }
    }

    /// Processors that it can keep busy, when those are not all that there are.
    fn processors(self) -> Option<u32> {
        let processors = self.cpu_millis.div_ceil(1000).max(1);
        (processors < self.machine_processors).then_some(processors)
    }
}

/// The environment of a sandbox: what is configured, where the versions are that are not the
/// template's own choice, and over both what was asked for.
pub(crate) fn environment(
    template: &Template,
    chosen: &Runtimes,
    share: Share,
    configured: &Environment,
    asked: &Environment,
) -> Environment {
    let mut env = configured.clone();
    let is_default = |kernel: &str, version: &RuntimeVersion| {
        defaults(template)
            .get(kernel)
            .is_some_and(|default| default == version)
    };
    let programs: Vec<String> = chosen
        .iter()
        .filter(|(kernel, version)| !is_default(kernel, version))
        .map(|(_, version)| format!("{}/bin", version.home))
        .collect();
    if !programs.is_empty() {
        let rest = env.get("PATH").map_or(PATH_DEFAULT, String::as_str);
        let path = format!("{}:{rest}", programs.join(":"));
        env.insert("PATH".to_owned(), path);
    }
    if let Some(java) = chosen.get("java") {
        env.entry(JAVA_HOME.to_owned())
            .or_insert_with(|| java.home.clone());
    }
    if let (true, Some(processors)) = (chosen.contains_key("go"), share.processors()) {
        env.entry(GO_PROCESSORS.to_owned())
            .or_insert_with(|| processors.to_string());
    }
    let major = |version: &RuntimeVersion| version.version.split('.').next()?.parse::<u32>().ok();
    if let Some(node) = chosen.get("node")
        && major(node).is_some_and(|major| major < NODE_PROXY_MAJOR_MIN)
    {
        env.entry(NODE_PROXY.to_owned())
            .or_insert_with(|| "0".to_owned());
    }
    env.extend(asked.clone());
    env
}

fn runtime_of<'a>(template: &'a Template, kernel: &Kernel) -> Option<&'a Runtime> {
    template
        .runtimes
        .iter()
        .find(|runtime| runtime.kernel == kernel.name)
}

fn absent(template: &Template, kernel: &Kernel, variable: &str, version: &str) -> ApiError {
    let there: Vec<&str> = runtime_of(template, kernel)
        .map(|runtime| {
            runtime
                .versions
                .iter()
                .map(|v| v.version.as_str())
                .collect()
        })
        .unwrap_or_default();
    let shown: String = version.chars().take(VERSION_CHARS_MAX).collect();
    let slug = &template.slug;
    let message = if there.is_empty() {
        format!(
            "{variable}={shown:?}: template {slug} has no {}",
            kernel.name
        )
    } else {
        let there = there.join(", ");
        format!(
            "{variable}={shown:?}: template {slug} has {} {there}",
            kernel.name
        )
    };
    ApiError::new(ErrorCode::UnsupportedRuntimeOption, message)
        .with_details(json!({ "field": "env", "key": variable, "versions": there }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        let version = |version: &str, home: &str| RuntimeVersion {
            version: version.into(),
            home: home.into(),
        };
        let runtime = |kernel: &str, versions: Vec<RuntimeVersion>| Runtime {
            kernel: kernel.into(),
            default: versions.last().unwrap().version.clone(),
            versions,
        };
        let node = vec![
            version("20.20.2", "/opt/node/20"),
            version("24.21.0", "/opt/node/24"),
        ];
        Template {
            slug: "code-interpreter".into(),
            digest: "0".repeat(64),
            version: "1.0.0".into(),
            version_id: "tplv_1".into(),
            languages: vec!["python".into(), "javascript".into(), "java".into()],
            runtimes: vec![
                runtime("node", node),
                runtime("java", vec![version("17.0.21", "/opt/java/17")]),
                runtime("python", vec![version("3.11.2", "/usr")]),
            ],
            current: true,
        }
    }

    const ALL_OF_IT: Share = Share {
        cpu_millis: 2_000,
        machine_processors: 2,
    };

    fn env(pairs: &[(&str, &str)]) -> Environment {
        let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn nobody_has_to_choose() {
        let template = template();
        let chosen = choose(&template, &env(&[]), &env(&[("A", "b")])).unwrap();
        assert_eq!(chosen["node"].version, "24.21.0");
        assert_eq!(chosen["python"].home, "/usr");
        let told = environment(
            &template,
            &chosen,
            ALL_OF_IT,
            &env(&[("A", "x")]),
            &env(&[("A", "b")]),
        );
        assert_eq!(told, env(&[("A", "b"), ("JAVA_HOME", "/opt/java/17")]));
    }

    #[test]
    fn what_is_chosen_is_found_first() {
        let template = template();
        for asked in ["20", "20.20", "20.20.2"] {
            let asked = env(&[("NODE_VERSION", asked), ("PYTHON_VERSION", "3.11")]);
            let chosen = choose(&template, &env(&[("NODE_VERSION", "24")]), &asked).unwrap();
            assert_eq!(chosen["node"].version, "20.20.2");
            let told = environment(&template, &chosen, ALL_OF_IT, &env(&[]), &asked);
            assert_eq!(told["PATH"], format!("/opt/node/20/bin:{PATH_DEFAULT}"));
            assert_eq!(told[NODE_PROXY], "0", "it would warn");
            let told = environment(
                &template,
                &chosen,
                ALL_OF_IT,
                &env(&[("PATH", "/bin")]),
                &asked,
            );
            assert_eq!(told["PATH"], "/opt/node/20/bin:/bin");
            let told = environment(
                &template,
                &chosen,
                ALL_OF_IT,
                &env(&[]),
                &env(&[("PATH", "/x")]),
            );
            assert_eq!(told["PATH"], "/x", "who sets it knows what he wants");
        }
        let configured = env(&[("NODE_VERSION", "20")]);
        let chosen = choose(&template, &configured, &env(&[])).unwrap();
        assert_eq!(chosen["node"].version, "20.20.2");
    }

    #[test]
    fn go_is_told_of_its_share_where_that_is_less_than_the_machine() {
        let mut template = template();
        let go = RuntimeVersion {
            version: "1.27.4".into(),
            home: "/opt/go/1.27".into(),
        };
        template.runtimes.push(Runtime {
            kernel: "go".into(),
            default: go.version.clone(),
            versions: vec![go],
        });
        let chosen = defaults(&template);
        let told = |cpu_millis, machine_processors, asked: &[(&str, &str)]| {
            let share = Share {
                cpu_millis,
                machine_processors,
            };
            let told = environment(&template, &chosen, share, &env(&[]), &env(asked));
            told.get(GO_PROCESSORS).cloned()
        };
        assert_eq!(told(1_500, 64, &[]).as_deref(), Some("2"));
        assert_eq!(told(2_000, 2, &[]), None);
        assert_eq!(told(1, 64, &[(GO_PROCESSORS, "9")]).as_deref(), Some("9"));
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        let template = template();
        for (name, version) in [
            ("NODE_VERSION", "18"),
            ("NODE_VERSION", "2"),
            ("NODE_VERSION", ""),
            ("JAVA_VERSION", "21"),
        ] {
            let asked = env(&[(name, version)]);
            let error = choose(&template, &env(&[]), &asked).unwrap_err();
            assert_eq!(error.code, ErrorCode::UnsupportedRuntimeOption);
            assert_eq!(error.details.unwrap()["key"], name);
        }
        let asked = env(&[("NODE_VERSION", "18")]);
        let error = choose(&template, &env(&[]), &asked).unwrap_err();
        assert_eq!(
            error.details.unwrap()["versions"],
            json!(["20.20.2", "24.21.0"])
        );
        let asked = env(&[("GO_VERSION", "1.24")]);
        let error = choose(&template, &env(&[]), &asked).unwrap_err();
        assert!(error.message.contains("has no go"), "{error}");
        // An operator's choice is for the templates that have it.
        assert!(choose(&template, &asked, &env(&[])).is_ok());
    }
}
