//! Go toolchains from the module proxy, side by side, and the driver that is built with them.
//!
//! A toolchain is the module `golang.org/toolchain`; its checksum is verified by the Go that fetches
//! it. The archive of a module has neither programs nor nested modules, so both are put right here,
//! as the `go` command itself does it.

use super::TemplateError;
use super::bootstrap::{self, of_host};
use super::debian::proxies;
use super::root::CA_BUNDLE;
use super::runtimes::{Runtime, RuntimeVersion};
use super::tables::{Go, minor};
use super::tool::{As, Workbench};
use super::writing;
use crate::kernels;
use std::fs;
use std::path::Path;

/// Raised when this file makes something else out of the same definition.
pub(super) const BUILDER_VERSION: &str = "2";
/// Uid of the user in every root.
const USER: u32 = 1000;

/// Variables: ARCHITECTURE. Arguments: versions.
const INSTALL: &str = r#"set -eu
go=/tmp/bootstrap/go/bin/go
chmod -R u+w,a+rX /tmp/bootstrap/go
chmod 0755 "$go"
export GOROOT=/tmp/bootstrap/go GOPATH=/tmp/gopath GOCACHE=/tmp/gocache GOTOOLCHAIN=local GOFLAGS=-modcacherw
for version in "$@"; do
  home=/opt/go/${version%.*}
  if [ -e "$home/VERSION" ] && [ "$(head -n 1 "$home/VERSION")" = "go$version" ]; then
    echo "$home has $version already"
    continue
  fi
  name=toolchain@v0.0.1-go$version.linux-$ARCHITECTURE
  "$go" mod download "golang.org/$name"
  rm -rf "$home"
  mkdir -p /opt/go
  mv "/tmp/gopath/pkg/mod/golang.org/$name" "$home"
  find "$home" -name _go.mod -execdir mv _go.mod go.mod ';'
  # What nobody builds with: tests and what they read.
  find "$home/src" "$home/test" -name '*_test.go' -delete 2>/dev/null || true
  find "$home/src" -depth -type d -name testdata -exec rm -rf {} +
  chmod -R u=rwX,go=rX "$home"
  chmod 0755 "$home"/bin/* "$home"/pkg/tool/*/*
  # Another toolchain would be fetched for every module that names a newer one; programs go where
  # the user's PATH finds them.
  sed -i '/^GOTOOLCHAIN=/d' "$home/go.env"
  printf 'GOTOOLCHAIN=local\nGOBIN=/home/user/.local/bin\n' >> "$home/go.env"
done
"#;

/// Links of the default version. Arguments: its directory.
const LINK: &str = r#"set -eu
for name in go gofmt; do
  ln -sfn "$1/bin/$name" "/usr/local/bin/$name"
done
"#;

/// What most programs import, compiled once for everybody: without it the first program of a
/// sandbox takes seconds. The cache is the user's, who adds to it. The entries are dated far ahead:
/// the go command removes old ones, and would mark each that it uses, which copies it into the
/// sandbox's memory.
/// Arguments: the toolchain's directory.
const COMPILE: &str = r#"set -eu
export HOME=/tmp GOCACHE=/home/user/.cache/go-build GOFLAGS=-mod=mod
cd /tmp
"$1/bin/go" build archive/tar archive/zip bufio cmp compress/gzip container/heap container/list \
  context crypto/... database/sql embed encoding/... errors flag fmt hash/... html/template io/fs \
  iter log/slog maps math/big math/cmplx math/rand/v2 net/http/httptest os/exec os/signal os/user \
  path/filepath regexp runtime/debug slices strings sync/atomic testing text/tabwriter \
  text/template time unicode/utf16
printf 'package main\n\nfunc main() { println("built") }\n' > check.go
"$1/bin/go" run check.go
find "$GOCACHE" -type f -exec touch -d 2099-01-01 {} +
"#;

/// Installs everything into the root and says what is in it.
pub(super) fn install(bench: &mut Workbench<'_>, go: &Go) -> Result<Runtime, TemplateError> {
    bootstrap::unpack(bench, &go.bootstrap)?;
    let environment = environment(bench);
    let mut command = vec!["sh", "-c", INSTALL, "install-go"];
    command.extend(go.versions.iter().map(String::as_str));
    bench.inside("go versions", As::Root, &command, &environment)?;
    let default = go.versions.last().expect("checked by Definition");
    let link = ["sh", "-c", LINK, "link", &home(default)];
    bench.inside("go links", As::Root, &link, &[])?;
    own_cache(&bench.rootfs)?;
    for version in &go.versions {
        let step = format!("go {} library", minor(version));
        let command = ["sh", "-c", COMPILE, "compile", &home(version)];
        bench.inside(&step, As::SandboxUser, &command, &[])?;
    }
    build_driver(bench, go)?;
    let versions = go.versions.iter().map(|version| RuntimeVersion {
        version: version.clone(),
        home: home(version),
    });
    Ok(Runtime::new(kernels::GO, versions.collect(), default))
}

/// Where the go command of the sandbox's user caches: his own directory, though root makes it.
fn own_cache(rootfs: &Path) -> Result<(), TemplateError> {
    for name in ["home/user/.cache", "home/user/.cache/go-build"] {
        let path = rootfs.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(writing(&path)(error));
            }
            _ => std::os::unix::fs::chown(&path, Some(USER), Some(USER)).map_err(writing(&path))?,
        }
    }
    Ok(())
}

fn home(version: &str) -> String {
    format!("/opt/go/{}", minor(version))
}

/// The driver and what it compiles cells with, made of our own sources without a network.
fn build_driver(bench: &mut Workbench<'_>, go: &Go) -> Result<(), TemplateError> {
    if !kernels::has("go/build.sh") {
        return Ok(());
    }
    let mut command = vec!["sh", "/opt/crownest/go/build.sh"];
    command.extend(go.versions.iter().map(|version| minor(version)));
    let environment = [("HOME".to_owned(), "/root".to_owned())];
    bench.inside("go driver", As::OfflineRoot, &command, &environment)
}

/// What the go command needs to reach the module proxy of the host.
fn environment(bench: &Workbench<'_>) -> Vec<(String, String)> {
    let mut environment = proxies();
    environment.extend(of_host(&[
        "GOPROXY",
        "GOSUMDB",
        "GONOSUMDB",
        "GOPRIVATE",
        "GONOPROXY",
        "GOINSECURE",
    ]));
    let mut set = |name: &str, value: &str| environment.push((name.to_owned(), value.to_owned()));
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    set("ARCHITECTURE", architecture);
    set("HOME", "/root");
    if bench.inputs.join(CA_BUNDLE).is_file() {
        set("SSL_CERT_FILE", &format!("/run/crownest-build/{CA_BUNDLE}"));
    }
    environment
}
