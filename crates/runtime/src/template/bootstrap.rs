//! Programs that fetch other programs: Debian's pip is everywhere, so the first Node and the first
//! Go come as wheels. They lie in the scratch of a build and are gone with it.

use super::TemplateError;
use super::python::pip_environment;
use super::tool::{As, Workbench};
use super::writing;
use std::fs;

/// Into `/tmp/bootstrap`.
const INSTALL: &str = r#"set -eu
old=$(echo /usr/share/python-wheels/pip-*.whl)
PYTHONPATH=$old exec python3 -m pip --no-cache-dir --no-input --disable-pip-version-check install \
  --quiet --only-binary=:all: --no-compile --no-deps --root-user-action=ignore \
  --target /tmp/bootstrap "$(cat /run/crownest-build/bootstrap.txt)"
"#;

/// Unpacks one wheel, which brings no code that runs while it is installed.
pub(super) fn unpack(bench: &mut Workbench<'_>, wheel: &str) -> Result<(), TemplateError> {
    let path = bench.inputs.join("bootstrap.txt");
    fs::write(&path, wheel).map_err(writing(&path))?;
    let environment = pip_environment(bench)?;
    let step = format!("bootstrap from {}", wheel.replace("==", " "));
    bench.inside(&step, As::Root, &["sh", "-c", INSTALL], &environment)
}

/// Variables of the host with these names, for a package manager that has to use its registries.
pub(super) fn of_host(names: &[&str]) -> Vec<(String, String)> {
    names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}
