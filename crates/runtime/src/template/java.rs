//! JDKs of the distribution, told of the sandbox's proxy and certificates, and the driver that is
//! compiled with them.

use super::TemplateError;
use super::bootstrap::of_host;
use super::debian::{self, proxies};
use super::root::CA_BUNDLE;
use super::runtimes::{Runtime, RuntimeVersion};
use super::tables::{Debian, Java, SUITE};
use super::tool::{As, Workbench};
use super::{reading, writing};
use crate::kernels;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Raised when this file makes something else out of the same definition.
pub(super) const BUILDER_VERSION: &str = "2";
/// Where programs in a sandbox find the egress proxy; init opens it there.
const PROXY_PORT: u16 = 3128;
/// The certificates of whoever runs the sandbox, as a JDK reads them.
const TRUST_STORE: &str = "/opt/crownest/certificates.jks";
/// Where Maven's settings for the whole machine are.
const MAVEN_SETTINGS: &str = "etc/maven/settings.xml";

/// Name of the launcher itself, beside the script that takes its place.
const LAUNCHER_REAL: &str = "java.real";

/// What a JVM takes for the machine's memory and processors it asks the kernel for, by calls that
/// know nothing of control groups, and no group is visible in a sandbox: it would plan a heap and
/// threads for the whole machine and be killed at the sandbox's limit. /proc/meminfo and
/// /proc/cpuinfo show the sandbox's. Options of the command come after these and win. `jdk` is absolute: links lead here from several places.
fn launcher(jdk: &str) -> String {
    format!(
        "#!/bin/sh\nread -r _ kib _ < /proc/meminfo\n\
         processors=$(grep -c ^processor /proc/cpuinfo)\n\
         exec {jdk}/bin/{LAUNCHER_REAL} \"-XX:MaxRAM=${{kib}}k\" \\\n  \
         \"-XX:ActiveProcessorCount=$processors\" \"$@\"\n"
    )
}

/// Arguments: directory of the JDK.
const CHECK: &str = r#"set -eu
cd /tmp
printf 'class Check { public static void main(String[] a) { System.out.println(Runtime.version()); } }\n' > Check.java
"$1/bin/javac" -d . Check.java
"$1/bin/java" -cp . Check > "java-version.txt"
"#;

/// Installs everything into the root and says what is in it.
pub(super) fn install(bench: &mut Workbench<'_>, java: &Java) -> Result<Runtime, TemplateError> {
    let packages = Debian {
        suite: SUITE.to_owned(),
        packages: java.packages.clone(),
    };
    debian::add(bench, &packages)?;
    let mut versions = Vec::new();
    for release in java.releases() {
        let home = format!("/opt/java/{release}");
        configure(&bench.rootfs, release)?;
        let step = format!("check of java {release}");
        let environment = [("HOME".to_owned(), "/tmp".to_owned())];
        let command = ["sh", "-c", CHECK, "check", &home];
        bench.inside(&step, As::SandboxUser, &command, &environment)?;
        let path = bench.scratch.join("java-version.txt");
        let text = fs::read_to_string(&path).map_err(reading(&path))?;
        versions.push(RuntimeVersion {
            version: number_of(&text, release),
            home,
        });
    }
    configure_maven(&bench.rootfs)?;
    build_driver(bench, java)?;
    let default = versions.last().expect("checked by Definition");
    let default = default.version.clone();
    Ok(Runtime::new(kernels::JAVA, versions, &default))
}

/// `17.0.21` of `17.0.21.1+2-Debian-1deb12u1`: what can be asked for.
fn number_of(text: &str, release: &str) -> String {
    let text = text.trim();
    let numbers: String = text
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    if numbers.split('.').next() == Some(release) {
        numbers
    } else {
        release.to_owned()
    }
}

/// A link under a name that does not change, the proxy, the certificates. A JDK takes none of them
/// from the environment, except by a variable that makes every start of it say so.
fn configure(rootfs: &Path, release: &str) -> Result<(), TemplateError> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let jdk = format!("usr/lib/jvm/java-{release}-openjdk-{architecture}");
    if !rootfs.join(&jdk).join("bin").is_dir() {
        return Err(TemplateError::Check(format!("/{jdk} is not there")));
    }
    limit_memory(rootfs, &jdk)?;
    fs::create_dir_all(rootfs.join("opt/java")).map_err(writing(rootfs))?;
    link(
        &format!("/{jdk}"),
        &rootfs.join(format!("opt/java/{release}")),
    )?;
    link(TRUST_STORE, &rootfs.join(&jdk).join("lib/security/cacerts"))?;
    let network = rootfs.join(format!("etc/java-{release}-openjdk/net.properties"));
    let mut text = fs::read_to_string(&network).map_err(reading(&network))?;
    let marker = "# The egress proxy of the sandbox.\n";
    if !text.contains(marker) {
        text.push_str(marker);
        for scheme in ["http", "https"] {
            let lines = [
                format!("{scheme}.proxyHost=127.0.0.1\n"),
                format!("{scheme}.proxyPort={PROXY_PORT}\n"),
            ];
            text.extend(lines);
        }
        fs::write(&network, text).map_err(writing(&network))?;
    }
    Ok(())
}

fn limit_memory(rootfs: &Path, jdk: &str) -> Result<(), TemplateError> {
    let programs = rootfs.join(jdk).join("bin");
    let (script, real) = (programs.join("java"), programs.join(LAUNCHER_REAL));
    if real.exists() {
        return Ok(());
    }
    fs::rename(&script, &real).map_err(writing(&real))?;
    fs::write(&script, launcher(&format!("/{jdk}"))).map_err(writing(&script))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).map_err(writing(&script))
}

/// Maven asks neither the environment nor the JDK.
fn configure_maven(rootfs: &Path) -> Result<(), TemplateError> {
    let path = rootfs.join(MAVEN_SETTINGS);
    if !path.is_file() {
        return Ok(());
    }
    let proxy = |scheme: &str| {
        format!(
            "    <proxy><id>{scheme}</id><active>true</active><protocol>{scheme}</protocol>\
             <host>127.0.0.1</host><port>{PROXY_PORT}</port>\
             <nonProxyHosts>localhost|127.0.0.1</nonProxyHosts></proxy>\n"
        )
    };
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!-- The egress proxy of the sandbox. ~/.m2/settings.xml comes before this. -->\n\
         <settings xmlns=\"http://maven.apache.org/SETTINGS/1.0.0\">\n  <proxies>\n{}{}  </proxies>\n</settings>\n",
        proxy("http"),
        proxy("https"),
    );
    fs::write(&path, text).map_err(writing(&path))
}

/// Compiled and archived of our own sources, with libraries of Maven Central whose checksums are
/// among them.
fn build_driver(bench: &mut Workbench<'_>, java: &Java) -> Result<(), TemplateError> {
    if !kernels::has("java/build.sh") {
        return Ok(());
    }
    let mut environment = proxies();
    environment.extend(of_host(&["MAVEN_MIRROR_URL"]));
    environment.push(("HOME".to_owned(), "/root".to_owned()));
    if bench.inputs.join(CA_BUNDLE).is_file() {
        let bundle = format!("/run/crownest-build/{CA_BUNDLE}");
        environment.push(("SSL_CERT_FILE".to_owned(), bundle));
    }
    for release in java.releases() {
        let (home, built) = (
            format!("/opt/java/{release}"),
            format!("/opt/crownest-java/{release}"),
        );
        let command = ["sh", "/opt/crownest/java/build.sh", &home, &built];
        let step = format!("java driver {release}");
        bench.inside(&step, As::Root, &command, &environment)?;
    }
    Ok(())
}

/// A link that takes the place of what was there.
fn link(target: &str, path: &Path) -> Result<(), TemplateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(writing(path)(error));
        }
        _ => {}
    }
    std::os::unix::fs::symlink(target, path).map_err(writing(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_what_a_request_would_ask_for() {
        assert_eq!(number_of("17.0.21+2-Debian-1deb12u1\n", "17"), "17.0.21");
        assert_eq!(number_of("17+35", "17"), "17");
        assert_eq!(number_of("whatever", "17"), "17");
    }

    #[test]
    fn a_jdk_learns_of_proxy_and_certificates_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(configure(root, "17").is_err(), "there is none");
        for made in [
            "usr/lib/jvm/java-17-openjdk-amd64/bin",
            "usr/lib/jvm/java-17-openjdk-amd64/lib/security",
            "etc/java-17-openjdk",
        ] {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        let network = root.join("etc/java-17-openjdk/net.properties");
        fs::write(&network, "java.net.useSystemProxies=false\n").unwrap();
        let programs = root.join("usr/lib/jvm/java-17-openjdk-amd64/bin");
        fs::write(programs.join("java"), "the launcher").unwrap();
        configure(root, "17").unwrap();
        configure(root, "17").unwrap();
        let text = fs::read_to_string(&network).unwrap();
        assert_eq!(text.matches("https.proxyPort=3128").count(), 1);
        let store = root.join("usr/lib/jvm/java-17-openjdk-amd64/lib/security/cacerts");
        assert_eq!(fs::read_link(store).unwrap(), Path::new(TRUST_STORE));
        let read = |name: &str| fs::read_to_string(programs.join(name)).unwrap();
        assert_eq!(read(LAUNCHER_REAL), "the launcher");
        let script = "#!/bin/sh\nread -r _ kib _ < /proc/meminfo\n\
            processors=$(grep -c ^processor /proc/cpuinfo)\n\
            exec /usr/lib/jvm/java-17-openjdk-amd64/bin/java.real \"-XX:MaxRAM=${kib}k\" \\\n  \
            \"-XX:ActiveProcessorCount=$processors\" \"$@\"\n";
        assert_eq!(read("java"), script);
    }
}
