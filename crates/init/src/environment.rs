//! Environment variables, arguments and names that come from outside: checked, merged, and made
//! into what exec takes.

use crate::calls::refuse;
use crownest_init::identity::Identity;
use crownest_init::link::{CallError, CallErrorCode, PATH_DEFAULT};
use crownest_init::path::PATH_BYTES_MAX;
use std::collections::BTreeMap;
use std::ffi::CString;

/// Total of all names and values that one process may be given.
const ENVIRONMENT_BYTES_MAX: usize = 256 * 1024;
/// Total of all arguments.
const ARGUMENTS_BYTES_MAX: usize = 1024 * 1024;
/// Longest context id or language.
const NAME_BYTES_MAX: usize = 128;

/// What every process is told about its user; configuration may override it.
pub(crate) const IDENTITY: [(&str, &str); 4] = [
    ("HOME", "/home/user"),
    ("LOGNAME", "user"),
    ("PATH", PATH_DEFAULT),
    ("USER", "user"),
];
/// What a process that init starts itself gets beside that.
const STARTED: [(&str, &str); 2] = [("LANG", "C.UTF-8"), ("SHELL", "/bin/bash")];

/// What a process with a terminal gets beside that: what terminals in browsers understand.
const TERMINAL: [(&str, &str); 1] = [("TERM", "xterm-256color")];

/// Where TLS libraries look for the certificates of the sandbox: each has a variable of its own
/// and most ignore those of the others.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const CERTIFICATE_VARIABLES: [&str; 6] = [
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
];
/// Both spellings are in use; curl reads only the lower-case one for plain HTTP.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "http_proxy", "https_proxy"];
/// Node's own HTTP client asks the ones above only when told to.
const NODE_PROXY: (&str, &str) = ("NODE_USE_ENV_PROXY", "1");
/// The kernel in the label of its drivers (`node:24.21.0`).
const NODE: &str = "node";
const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

pub(crate) type Environment = BTreeMap<String, String>;

/// Refuses what no process could be given.
pub(crate) fn check(env: &Environment) -> Result<(), CallError> {
    let mut total = 0_usize;
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return refuse(
                CallErrorCode::Invalid,
                "environment: a name or value is not possible",
            );
        }
        total += name.len() + value.len() + 2;
    }
    if total > ENVIRONMENT_BYTES_MAX {
        return refuse(CallErrorCode::Invalid, "environment: too large");
    }
    Ok(())
}

/// What every process of a sandbox is told about the network; `proxy` is where it listens.
pub(crate) fn of_network(proxy: Option<u16>) -> Environment {
    let Some(port) = proxy else {
        return Environment::new();
    };
    let url = format!("http://127.0.0.1:{port}");
    let proxies = PROXY_VARIABLES.iter().map(|name| (*name, url.as_str()));
    let exceptions = NO_PROXY_VARIABLES.iter().map(|name| (*name, NO_PROXY));
    let certificates = CERTIFICATE_VARIABLES
        .iter()
        .map(|name| (*name, CERTIFICATES));
    let pairs: Vec<_> = proxies
        .chain(exceptions)
        .chain(certificates)
        .chain([NODE_PROXY])
        .collect();
    from_pairs(&pairs)
}

/// The environment for a driver that runs already: who it is, the sandbox's, then its own.
pub(crate) fn for_running(sandbox: &Environment, own: &Environment) -> Environment {
    let mut merged = from_pairs(&IDENTITY);
    merged.extend(sandbox.clone());
    merged.extend(own.clone());
    merged
}

/// The environment for a process that init starts.
pub(crate) fn for_started(sandbox: &Environment, own: &Environment) -> Environment {
    let mut merged = from_pairs(&STARTED);
    merged.extend(for_running(sandbox, own));
    merged
}

/// The environment for a process that init starts in a terminal.
pub(crate) fn for_terminal(sandbox: &Environment, own: &Environment) -> Environment {
    let mut merged = from_pairs(&TERMINAL);
    merged.extend(for_started(sandbox, own));
    merged
}

fn from_pairs(pairs: &[(&str, &str)]) -> Environment {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The environment of a driver's process, which is given its control socket as descriptor 3.
///
/// That of Node gets it without what makes Node load its whole network stack before its first line,
/// which is a third of its start: the driver does that when a cell needs it, and learns of the
/// variable from `start`, so that the programs of its cells have it.
pub(crate) fn for_driver(label: &str, started: &Environment) -> Environment {
    let mut env = started.clone();
    if label.split(':').next() == Some(NODE) {
        env.remove(NODE_PROXY.0);
    }
    env.insert("CROWNEST_KERNEL_FD".to_owned(), "3".to_owned());
    env
}

/// A program with everything that exec takes, checked.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) paths: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: CString,
    pub(crate) identity: Identity,
}

impl Prepared {
    pub(crate) fn new(argv: &[String], cwd: &str, env: &Environment) -> Result<Self, CallError> {
        let argv_strings = arguments(argv)?;
        let env_strings: Result<_, _> = env
            .iter()
            .map(|(name, value)| c_string(&format!("{name}={value}")))
            .collect();
        Ok(Self {
            paths: candidates(&argv[0], env)?,
            argv: argv_strings,
            env: env_strings?,
            cwd: directory(cwd)?,
            identity: Identity::default(),
        })
    }
}

/// Argument strings for exec.
fn arguments(argv: &[String]) -> Result<Vec<CString>, CallError> {
    let total: usize = argv.iter().map(|argument| argument.len() + 1).sum();
    if argv.first().is_none_or(String::is_empty) || total > ARGUMENTS_BYTES_MAX {
        return refuse(CallErrorCode::Invalid, "argv: empty or too large");
    }
    argv.iter().map(|argument| c_string(argument)).collect()
}

/// Where a program is looked for: as given when it names a directory, else along PATH.
fn candidates(program: &str, env: &Environment) -> Result<Vec<CString>, CallError> {
    if program.contains('/') {
        return Ok(vec![c_string(program)?]);
    }
    let path = env.get("PATH").map_or(PATH_DEFAULT, String::as_str);
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| c_string(&format!("{directory}/{program}")))
        .collect()
}

/// A working directory: absolute, and short enough for the kernel.
pub(crate) fn directory(cwd: &str) -> Result<CString, CallError> {
    if !cwd.starts_with('/') || cwd.len() >= PATH_BYTES_MAX {
        return refuse(CallErrorCode::Invalid, "cwd: not an absolute path");
    }
    c_string(cwd)
}

/// An identifier of ours: context ids, languages.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), CallError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(known) {
        return refuse(CallErrorCode::Invalid, format!("{what}: not a name"));
    }
    Ok(())
}

fn c_string(text: &str) -> Result<CString, CallError> {
    CString::new(text).or_else(|_| refuse(CallErrorCode::Invalid, "a string contains NUL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Environment {
        from_pairs(pairs)
    }

    #[test]
    fn own_values_win_over_the_sandbox_and_both_over_ours() {
        let sandbox = env(&[("A", "sandbox"), ("B", "sandbox"), ("HOME", "/h")]);
        let merged = for_started(&sandbox, &env(&[("B", "own")]));
        assert_eq!(merged["A"], "sandbox");
        assert_eq!(merged["B"], "own");
        assert_eq!(merged["HOME"], "/h");
        assert_eq!(merged["USER"], "user");
        let running = for_running(&sandbox, &Environment::new());
        assert_eq!(running["PATH"], PATH_DEFAULT);
        assert!(
            !running.contains_key("LANG"),
            "a running driver has its own"
        );
    }

    #[test]
    fn programs_are_told_of_a_proxy_only_where_there_is_one() {
        assert!(of_network(None).is_empty());
        let env = of_network(Some(3128));
        assert_eq!(env["HTTPS_PROXY"], "http://127.0.0.1:3128");
        assert_eq!(env["http_proxy"], env["HTTPS_PROXY"]);
        assert_eq!(env["no_proxy"], NO_PROXY);
        assert_eq!(env["REQUESTS_CA_BUNDLE"], CERTIFICATES);
    }

    #[test]
    fn the_driver_of_node_starts_without_loading_what_uses_it() {
        let sandbox = of_network(Some(3128));
        let started = for_started(&sandbox, &Environment::new());
        assert_eq!(started["NODE_USE_ENV_PROXY"], "1", "any other program");
        let java = for_driver("java:17", &started);
        assert_eq!(java["NODE_USE_ENV_PROXY"], "1", "its programs have its own");
        let env = for_driver("node:24.21.0", &started);
        assert!(!env.contains_key("NODE_USE_ENV_PROXY"));
        assert_eq!(env["HTTPS_PROXY"], sandbox["HTTPS_PROXY"]);
        assert_eq!(env["CROWNEST_KERNEL_FD"], "3");
    }

    #[test]
    fn impossible_values_are_refused() {
        for pairs in [[("", "x")], [("a=b", "x")], [("a\0", "x")], [("a", "x\0")]] {
            assert!(check(&env(&pairs)).is_err(), "{pairs:?}");
        }
        assert!(check(&env(&[("a", &"x".repeat(ENVIRONMENT_BYTES_MAX))])).is_err());
        assert!(arguments(&[]).is_err());
        assert!(arguments(&["a\0b".to_owned()]).is_err());
        assert!(directory("workspace").is_err());
        assert!(check_name("context", "../x").is_err());
        assert!(check_name("context", "ctx_01-a.b:c").is_ok());
    }

    #[test]
    fn programs_are_looked_for_in_absolute_directories_only() {
        let path = env(&[("PATH", "/a:.::b:/c")]);
        let found = candidates("x", &path).unwrap();
        assert_eq!(found, [c"/a/x".to_owned(), c"/c/x".to_owned()]);
        assert_eq!(candidates("./x", &path).unwrap(), [c"./x".to_owned()]);
    }
}
