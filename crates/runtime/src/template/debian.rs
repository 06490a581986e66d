//! Debian packages: where they come from and how they get into a root.
//!
//! The sources are the host's own, so that a build works wherever the host's apt does (mirrors,
//! proxies), but only those of Debian itself and of one release: a template does not depend on
//! what else the host has installed. Nothing of the host's configuration stays in the image.

use super::TemplateError;
use super::tables::{Debian, SUITE};
use super::tool::{As, Workbench, path_text};
use super::writing;
use std::process::{Command, Stdio};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What a finished image says, and what is used when the host has no sources for this release.
pub(super) const OFFICIAL: &str = "\
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-updates main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
";
/// Lines of `apt-get indextargets` that are looked at.
const TARGETS_MAX: usize = 10_000;
/// Nobody reads manuals in a sandbox. Licences are kept, as they ask to be.
const EXCLUDES: [&str; 5] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
];
/// Some packages (a JDK) link manual pages when they are installed and fail without these.
const MANUAL_DIRS: &str = r#"mkdir -p "$1"/usr/share/man/man1 "$1"/usr/share/man/man7"#;

/// Unpacks a minimal Debian with these packages into the root.
pub(super) fn bootstrap(bench: &mut Workbench<'_>, debian: &Debian) -> Result<(), TemplateError> {
    let sources = write_sources(bench)?;
    let rootfs = path_text(&bench.rootfs)?;
    let include = format!("--include={}", debian.packages.join(","));
    let mut command = vec![
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        "--skip=check/qemu",
        "--aptopt=APT::Install-Recommends \"false\"",
        "--aptopt=Acquire::Languages \"none\"",
        // The build is synced once, at its end; a power cut before that leaves no template.
        "--dpkgopt=force-unsafe-io",
    ];
    let excludes: Vec<String> = EXCLUDES
        .iter()
        .map(|rule| format!("--dpkgopt={rule}"))
        .collect();
    command.extend(excludes.iter().map(String::as_str));
    let hook = format!("--setup-hook={MANUAL_DIRS}");
    command.extend([
        hook.as_str(),
        include.as_str(),
        debian.suite.as_str(),
        &rootfs,
        &sources,
    ]);
    bench.host("debian packages", &command, &proxies())
}

/// Adds packages to a root that already is a Debian.
pub(super) fn add(bench: &mut Workbench<'_>, debian: &Debian) -> Result<(), TemplateError> {
    write_sources(bench)?;
    let script = r#"set -eu
apt() {
  apt-get -q -y -o Dir::Etc::sourcelist=/run/crownest-build/sources.list -o Dir::Etc::sourceparts=- \
    -o APT::Install-Recommends=false -o Dpkg::Options::=--force-unsafe-io \
    -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::https::CAInfo=/run/crownest-build/ca.crt "$@"
}
mkdir -p /usr/share/man/man1 /usr/share/man/man7 /var/log/apt
apt update
DEBIAN_FRONTEND=noninteractive apt install --no-install-recommends -- "$@"
"#;
    let mut command = vec!["sh", "-c", script, "add-packages"];
    command.extend(debian.packages.iter().map(String::as_str));
    bench.inside("more debian packages", As::Root, &command, &proxies())
}

/// What the host's apt goes through, for programs that ask the environment.
pub(super) fn proxies() -> Vec<(String, String)> {
    const NAMES: [&str; 8] = [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
    ];
    let mut found: Vec<(String, String)> = NAMES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    for (option, name) in [
        ("Acquire::http::Proxy", "http_proxy"),
        ("Acquire::https::Proxy", "https_proxy"),
    ] {
        if !found.iter().any(|(known, _)| known == name)
            && let Some(value) = apt_option(option)
        {
            found.push((name.to_owned(), value));
        }
    }
    found
}

fn apt_option(name: &str) -> Option<String> {
    let output = Command::new("apt-config")
        .args(["dump", "--format=%v%n", name])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let value = text.lines().next()?.trim();
    (!value.is_empty() && value != "DIRECT").then(|| value.to_owned())
}

/// Writes the sources for this build where both the host and the root find them.
fn write_sources(bench: &Workbench<'_>) -> Result<String, TemplateError> {
    if !std::path::Path::new(KEYRING).is_file() {
        return Err(TemplateError::MissingTool {
            tool: KEYRING.to_owned(),
            package: "debian-archive-keyring".to_owned(),
        });
    }
    let path = bench.inputs.join("sources.list");
    std::fs::write(&path, host_sources()).map_err(writing(&path))?;
    path_text(&path)
}

fn host_sources() -> String {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(RELEASE)|$(COMPONENT)|$(REPO_URI)|$(ORIGIN)",
        ])
        .arg("Created-By: Packages")
        .stdin(Stdio::null())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    select_sources(&text.unwrap_or_default())
}

/// Keeps Debian's own archives of this release; all three official ones if the release itself is
/// not among them.
fn select_sources(targets: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for target in targets.lines().take(TARGETS_MAX) {
        let fields: Vec<&str> = target.split('|').collect();
        let [release, "main", uri, origin] = fields[..] else {
            continue;
        };
        let release_ok = release == SUITE
            || release
                .strip_prefix(SUITE)
                .is_some_and(|rest| ["-updates", "-security", "/updates"].contains(&rest));
        // apt knows the origin once it has seen the archive; until then the path has to tell.
        let unseen = origin.is_empty() || origin.starts_with('$');
        let archive = uri.trim_end_matches('/').rsplit('/').next().unwrap_or("");
        let debian =
            origin == "Debian" || unseen && ["debian", "debian-security"].contains(&archive);
        let plain = uri
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'[' && b != b']');
        let line = format!("deb [signed-by={KEYRING}] {uri} {release} main\n");
        if release_ok && debian && plain && !lines.contains(&line) {
            lines.push(line);
        }
    }
    let release_itself = format!(" {SUITE} main\n");
    if lines.iter().any(|line| line.ends_with(&release_itself)) {
        lines.concat()
    } else {
        OFFICIAL.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_own_archives_of_the_release_are_used() {
        let targets = "\
bookworm|main|http://mirror.example/debian/|Debian
bookworm|contrib|http://mirror.example/debian/|Debian
bookworm-security|main|http://mirror.example/debian-security/|$(ORIGIN)
nodistro|main|https://deb.example.com/node_20.x/|. nodistro
bookworm|main|https://download.example.com/linux/other/|Other
bookworm|main|http://x/debian] evil [|Debian
trixie|main|http://mirror.example/debian/|Debian
bookworm|main|http://mirror.example/debian/|Debian
broken";
        let sources = select_sources(targets);
        let found: Vec<&str> = sources
            .lines()
            .filter_map(|line| line.split_once("] ").map(|(_, rest)| rest))
            .collect();
        assert_eq!(
            found,
            [
                "http://mirror.example/debian/ bookworm main",
                "http://mirror.example/debian-security/ bookworm-security main",
            ]
        );
    }

    #[test]
    fn a_host_of_another_release_falls_back_to_the_official_archives() {
        assert_eq!(
            select_sources("trixie|main|http://m.example/debian/|Debian\n"),
            OFFICIAL
        );
        assert_eq!(select_sources(""), OFFICIAL);
    }
}
