//! Python wheels: installed, pinned, compiled, imported once to prove it.
//!
//! Only wheels are taken, so that no package runs code of its own while it is installed as root.
//! What does run package code (the imports, the font index) runs as the sandbox's user, without a
//! network. Proxies and certificates of the host are passed to pip and do not stay in the image.

use super::TemplateError;
use super::bootstrap::of_host;
use super::catalog::PythonFacts;
use super::debian::proxies;
use super::runtimes::{Runtime, RuntimeVersion};
use super::tables::Python;
use super::tool::{As, Workbench};
use super::{reading, writing};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Inside every root.
const EXECUTABLE: &str = "/usr/bin/python3";
/// Where its `bin` is.
const HOME: &str = "/usr";
/// Where Debian's interpreter looks for what the administrator installed.
const LIBRARIES: &str = "usr/local/lib/python3.11/dist-packages";
/// Where a zygote or a sandbox finds matplotlib's font index (a template's own copy).
const FONT_CACHE: &str = "opt/crownest-cache/matplotlib";
/// Where matplotlib itself looks for it in the sandbox's home.
const HOME_FONT_CACHE: &str = "home/user/.cache/matplotlib";
const FONT_INDEX_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Uid of the user in every root.
const USER: u32 = 1000;

/// The interpreter as a runtime among others.
pub(super) fn runtime(facts: &PythonFacts) -> Runtime {
    let version = RuntimeVersion {
        version: facts.version.clone(),
        home: HOME.to_owned(),
    };
    Runtime::new("python", vec![version], &facts.version)
}

/// The distribution carries pip as a wheel for its venvs; that one installs the current one.
const INSTALL: &str = r#"set -eu
cd /run/crownest-build
old=$(echo /usr/share/python-wheels/pip-*.whl)
pip() { python3 -m pip --no-cache-dir --no-input --disable-pip-version-check "$@"; }
PYTHONPATH=$old pip install --only-binary=:all: --no-compile --no-deps --root-user-action=ignore "$(cat pip.txt)"
pip install --only-binary=:all: --no-compile --progress-bar=off --root-user-action=ignore \
  --requirement packages.txt --constraint constraints.txt
pip check
pip freeze --all > /tmp/freeze.txt
python3 -c 'import platform; print(platform.python_version())' > /tmp/python-version.txt
"#;

/// Hash-based bytecode stays valid whatever a copy does to the times of files.
const COMPILE: &str =
    r#"exec python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$1""#;

/// One line per module, so that the log says which import was slow or failed.
const IMPORT: &str = r#"
import importlib, sys, time
for name in sys.argv[1:]:
    start = time.perf_counter()
    importlib.import_module(name)
    print(f"{name} {(time.perf_counter() - start) * 1000:.0f} ms", flush=True)
"#;

/// Installs everything into the root and returns what is in it.
pub(super) fn install(
    bench: &mut Workbench<'_>,
    python: &Python,
) -> Result<PythonFacts, TemplateError> {
    // PEP 668's marker: nothing but this image manages this interpreter.
    remove_if_there(&bench.rootfs.join("usr/lib/python3.11/EXTERNALLY-MANAGED"))?;
    let environment = write_inputs(bench, python)?;
    bench.inside(
        "python packages",
        As::Root,
        &["sh", "-c", INSTALL],
        &environment,
    )?;
    let facts = facts(bench, python)?;
    write_config(&bench.rootfs)?;
    if python.drop_tests {
        let libraries = bench.rootfs.join(LIBRARIES);
        bench.timed("removal of test suites", || drop_tests(&libraries))?;
    }
    let libraries = format!("/{LIBRARIES}");
    bench.inside(
        "python bytecode",
        As::Root,
        &["sh", "-c", COMPILE, "compile", &libraries],
        &[],
    )?;
    index_fonts(bench)?;
    let mut imports = vec![EXECUTABLE, "-B", "-c", IMPORT];
    imports.extend(
        python
            .preload
            .iter()
            .chain(&python.imports)
            .map(String::as_str),
    );
    bench.inside(
        "python imports",
        As::SandboxUser,
        &imports,
        &user_environment(),
    )?;
    Ok(facts)
}

fn user_environment() -> Vec<(String, String)> {
    [
        // Not the image's: what runs here must leave nothing behind.
        ("HOME", "/tmp"),
        ("MPLBACKEND", "agg"),
        ("OPENBLAS_NUM_THREADS", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Requirements, certificates and pip's configuration, for /run/crownest-build; and the
/// environment that points to them.
fn write_inputs(
    bench: &Workbench<'_>,
    python: &Python,
) -> Result<Vec<(String, String)>, TemplateError> {
    let put = |name: &str, text: &str| {
        let path = bench.inputs.join(name);
        fs::write(&path, text).map_err(writing(&path))
    };
    let pip = python
        .packages
        .iter()
        .find(|item| item.starts_with("pip=="));
    put("pip.txt", pip.expect("checked by Definition"))?;
    put("packages.txt", &python.packages.join("\n"))?;
    put(
        "constraints.txt",
        &[python.packages.join("\n"), python.constraints.join("\n")].join("\n"),
    )?;
    pip_environment(bench)
}

/// What pip needs to reach the registries of the host, its configuration among the inputs.
pub(super) fn pip_environment(
    bench: &Workbench<'_>,
) -> Result<Vec<(String, String)>, TemplateError> {
    let mut environment = proxies();
    environment.extend(of_host(&[
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_TRUSTED_HOST",
        "PIP_DEFAULT_TIMEOUT",
    ]));
    let mut set = |name: &str, value: &str| environment.push((name.to_owned(), value.to_owned()));
    set("HOME", "/root");
    if bench.inputs.join(super::root::CA_BUNDLE).is_file() {
        set(
            "PIP_CERT",
            &format!("/run/crownest-build/{}", super::root::CA_BUNDLE),
        );
    }
    match host_pip_config() {
        Some(text) => {
            let path = bench.inputs.join("pip.conf");
            fs::write(&path, text).map_err(writing(&path))?;
            set("PIP_CONFIG_FILE", "/run/crownest-build/pip.conf");
        }
        None => set("PIP_CONFIG_FILE", "/dev/null"),
    }
    Ok(environment)
}

/// A mirror is often configured for the whole host in this file.
fn host_pip_config() -> Option<String> {
    let own = std::env::var_os("PIP_CONFIG_FILE").map(PathBuf::from);
    let candidates = own.into_iter().chain([PathBuf::from("/etc/pip.conf")]);
    candidates
        .filter(|path| path.is_file())
        .find_map(|path| fs::read_to_string(path).ok())
}

/// Reads back what was installed; refuses what the definition does not pin.
fn facts(bench: &Workbench<'_>, python: &Python) -> Result<PythonFacts, TemplateError> {
    let read = |name: &str| {
        let path = bench.scratch.join(name);
        fs::read_to_string(&path).map_err(reading(&path))
    };
    let packages: Vec<String> = read("freeze.txt")?.lines().map(str::to_owned).collect();
    let pinned: BTreeSet<String> = python
        .packages
        .iter()
        .chain(&python.constraints)
        .map(|item| normal(item))
        .collect();
    let floating: Vec<&str> = packages
        .iter()
        .filter(|item| !pinned.contains(&normal(item)))
        .map(String::as_str)
        .collect();
    if !floating.is_empty() {
        return Err(TemplateError::Definition {
            slug: bench.slug.clone(),
            reason: format!("python.constraints does not pin {}", floating.join(", ")),
        });
    }
    let version = read("python-version.txt")?.trim().to_owned();
    Ok(PythonFacts {
        executable: EXECUTABLE.to_owned(),
        version,
        packages,
    })
}

/// PEP 503: the same project can be spelled in several ways.
fn normal(requirement: &str) -> String {
    let (name, version) = requirement.split_once("==").unwrap_or((requirement, ""));
    let mut text = String::with_capacity(requirement.len());
    for letter in name.chars() {
        match letter {
            '-' | '_' | '.' if text.ends_with('-') => {}
            '-' | '_' | '.' => text.push('-'),
            other => text.push(other.to_ascii_lowercase()),
        }
    }
    text.push_str("==");
    text.push_str(version);
    text
}

fn write_config(rootfs: &Path) -> Result<(), TemplateError> {
    let config = rootfs.join("etc/pip.conf");
    fs::write(
        &config,
        "[global]\ndisable-pip-version-check = true\nno-warn-script-location = true\n",
    )
    .map_err(writing(&config))?;
    let link = rootfs.join("usr/local/bin/python");
    remove_if_there(&link)?;
    std::os::unix::fs::symlink(EXECUTABLE, &link).map_err(writing(&link))
}

/// Removes the `tests` directories below the installed packages.
fn drop_tests(directory: &Path) -> Result<(), TemplateError> {
    for entry in fs::read_dir(directory).map_err(reading(directory))? {
        let entry = entry.map_err(reading(directory))?;
        let path = entry.path();
        if !entry.file_type().map_err(reading(&path))?.is_dir() {
            continue;
        }
        if entry.file_name() == "tests" {
            fs::remove_dir_all(&path).map_err(writing(&path))?;
        } else {
            drop_tests(&path)?;
        }
    }
    Ok(())
}

/// matplotlib searches all fonts on its first import and writes an index; every sandbox would do
/// it again. The index goes where the zygote is told to look and where matplotlib itself does.
fn index_fonts(bench: &mut Workbench<'_>) -> Result<(), TemplateError> {
    if !bench.rootfs.join(LIBRARIES).join("matplotlib").is_dir() {
        return Ok(());
    }
    let mut environment = user_environment();
    environment.push(("MPLCONFIGDIR".to_owned(), "/tmp/matplotlib".to_owned()));
    bench.inside(
        "font index",
        As::SandboxUser,
        &[EXECUTABLE, "-B", "-c", "import matplotlib.font_manager"],
        &environment,
    )?;
    let made = bench.scratch.join("matplotlib");
    for (place, owner) in [(FONT_CACHE, 0), (HOME_FONT_CACHE, USER)] {
        let target = bench.rootfs.join(place);
        fs::create_dir_all(&target).map_err(writing(&target))?;
        copy_indexes(&made, &target, owner)?;
    }
    for owned in ["home/user/.cache", HOME_FONT_CACHE] {
        let path = bench.rootfs.join(owned);
        std::os::unix::fs::chown(&path, Some(USER), Some(USER)).map_err(writing(&path))?;
    }
    Ok(())
}

fn copy_indexes(from: &Path, to: &Path, owner: u32) -> Result<(), TemplateError> {
    use std::os::unix::fs::PermissionsExt;
    let mut copied = 0_u32;
    for entry in fs::read_dir(from).map_err(reading(from))? {
        let path = entry.map_err(reading(from))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        // Made by package code: only a plain, small file with the expected name is taken.
        let facts = fs::symlink_metadata(&path).map_err(reading(&path))?;
        let expected = name.starts_with("fontlist-")
            && Path::new(name)
                .extension()
                .is_some_and(|suffix| suffix == "json");
        if !expected || !facts.is_file() || facts.len() > FONT_INDEX_BYTES_MAX {
            continue;
        }
        let target = to.join(name);
        fs::copy(&path, &target).map_err(writing(&target))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o644))
            .map_err(writing(&target))?;
        std::os::unix::fs::chown(&target, Some(owner), Some(owner)).map_err(writing(&target))?;
        copied += 1;
    }
    if copied == 0 {
        return Err(TemplateError::Check(
            "matplotlib wrote no font index".to_owned(),
        ));
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), TemplateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(writing(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_project_are_the_same() {
        assert_eq!(normal("Et_Xmlfile==2.0.0"), normal("et-xmlfile==2.0.0"));
        assert_eq!(normal("a-._b==1"), normal("A.b==1"));
        assert_ne!(normal("a==1"), normal("a==2"));
    }

    #[test]
    fn only_directories_called_tests_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "pandas/tests/io",
            "pandas/core/tests",
            "pandas/testing",
            "contests",
        ] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(dir.path().join("pandas/core/tests.py"), "").unwrap();
        drop_tests(dir.path()).unwrap();
        assert!(!dir.path().join("pandas/tests").exists());
        assert!(!dir.path().join("pandas/core/tests").exists());
        for kept in ["pandas/testing", "contests", "pandas/core/tests.py"] {
            assert!(dir.path().join(kept).exists(), "{kept}");
        }
    }

    #[test]
    fn package_code_cannot_smuggle_a_link_into_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", from.join("fontlist-v1.json")).unwrap();
        assert!(copy_indexes(&from, &to, 0).is_err());
        assert!(!to.join("fontlist-v1.json").exists());
    }
}
