//! The first half of a root: unpacking or copying it, and the files every root has whatever is
//! installed in it.

use super::TemplateError;
use super::definition::Definition;
use super::tool::{Workbench, path_text};
use super::{debian, reading, writing};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Name of the host's certificates among the inputs of a build.
pub(super) const CA_BUNDLE: &str = "ca.crt";
/// The user that code runs as, in every root.
const USER: u32 = 1000;
/// The user that `crownest-init` runs as: not the one whose code it guards.
const INIT_USER: u32 = 998;

/// What the runtime mounts on, and where people work: path, mode, owner.
const DIRECTORIES: [(&str, u32, u32); 14] = [
    ("dev", 0o755, 0),
    ("dev/pts", 0o755, 0),
    ("dev/shm", 0o1777, 0),
    ("opt", 0o755, 0),
    ("opt/crownest", 0o755, 0),
    ("opt/crownest-cache", 0o755, 0),
    ("proc", 0o555, 0),
    ("run", 0o755, 0),
    ("sys", 0o555, 0),
    ("tmp", 0o1777, 0),
    ("home", 0o755, 0),
    ("home/user", 0o755, USER),
    ("workspace", 0o755, USER),
    ("root", 0o700, 0),
];

/// Fills the empty root: from the finished root of another template, or from Debian packages.
pub(super) fn start(
    bench: &mut Workbench<'_>,
    definition: &Definition,
    base: Option<&Path>,
) -> Result<(), TemplateError> {
    write_certificates(&bench.inputs)?;
    if let Some(base) = base {
        let (from, to) = (path_text(base)?, path_text(&bench.rootfs)?);
        // Never hard links: a template is removed without a thought for those made from it.
        bench.host(
            "copy of the base",
            &["cp", "-a", "--reflink=auto", "-T", "--", &from, &to],
            &[],
        )?;
        layout(&bench.rootfs)?;
        match &definition.debian {
            Some(debian) if !debian.packages.is_empty() => debian::add(bench, debian)?,
            _ => {}
        }
    } else if let Some(debian) = &definition.debian {
        debian::bootstrap(bench, debian)?;
    }
    layout(&bench.rootfs)
}

/// The certificates that the host trusts: behind an intercepting proxy only those will do.
fn write_certificates(inputs: &Path) -> Result<(), TemplateError> {
    const NAMES: [&str; 4] = [
        "PIP_CERT",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "CURL_CA_BUNDLE",
    ];
    let named = NAMES
        .iter()
        .filter_map(|name| std::env::var_os(name).map(PathBuf::from));
    let usual = [PathBuf::from("/etc/ssl/certs/ca-certificates.crt")];
    if let Some(bundle) = named.chain(usual).find(|path| path.is_file()) {
        let target = inputs.join(CA_BUNDLE);
        fs::copy(&bundle, &target).map_err(writing(&target))?;
    }
    Ok(())
}

/// Directories, accounts and name files. Doing it twice changes nothing.
fn layout(rootfs: &Path) -> Result<(), TemplateError> {
    for (name, mode, owner) in DIRECTORIES {
        let path = rootfs.join(name);
        fs::create_dir_all(&path).map_err(writing(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(writing(&path))?;
        chown(&path, Some(owner), Some(owner)).map_err(writing(&path))?;
    }
    add_line(
        rootfs,
        "etc/passwd",
        &format!("user:x:{USER}:{USER}::/home/user:/bin/bash"),
    )?;
    add_line(rootfs, "etc/group", &format!("user:x:{USER}:"))?;
    let init = format!("crownest-init:x:{INIT_USER}:{INIT_USER}::/nonexistent:/usr/sbin/nologin");
    add_line(rootfs, "etc/passwd", &init)?;
    add_line(
        rootfs,
        "etc/group",
        &format!("crownest-init:x:{INIT_USER}:"),
    )?;
    for name in [".bashrc", ".profile"] {
        let (from, to) = (
            rootfs.join("etc/skel").join(name),
            rootfs.join("home/user").join(name),
        );
        if from.is_file() && !to.exists() {
            fs::copy(&from, &to).map_err(writing(&to))?;
            chown(&to, Some(USER), Some(USER)).map_err(writing(&to))?;
        }
    }
    let files = [
        ("etc/hostname", "sandbox\n"),
        (
            "etc/hosts",
            "127.0.0.1\tlocalhost sandbox\n::1\tlocalhost\n",
        ),
        (
            "etc/resolv.conf",
            "# Names are resolved by the egress proxy; see HTTP_PROXY.\n",
        ),
        ("etc/machine-id", ""),
        ("etc/default/locale", "LANG=C.UTF-8\n"),
        ("etc/apt/sources.list", debian::OFFICIAL),
    ];
    for (name, text) in files {
        let path = rootfs.join(name);
        // A link would lead out of the root.
        if fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_symlink()) {
            fs::remove_file(&path).map_err(writing(&path))?;
        }
        fs::write(&path, text).map_err(writing(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(writing(&path))?;
    }
    Ok(())
}

/// Adds an account line unless that name or that number is taken by the same line already.
fn add_line(rootfs: &Path, name: &str, line: &str) -> Result<(), TemplateError> {
    let path = rootfs.join(name);
    let mut text = fs::read_to_string(&path).map_err(reading(&path))?;
    if text.lines().any(|known| known == line) {
        return Ok(());
    }
    let mut wanted = line.split(':');
    let (user, number) = (wanted.next(), wanted.nth(1));
    let taken = text.lines().any(|known| {
        let mut fields = known.split(':');
        let (known_user, known_number) = (fields.next(), fields.nth(1));
        known_user == user || known_number == number
    });
    if taken {
        return Err(TemplateError::Check(format!(
            "/{name} has an account in the way of {line}"
        )));
    }
    text.push_str(line);
    text.push('\n');
    fs::write(&path, text).map_err(writing(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_added_once_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let path = dir.path().join("etc/passwd");
        fs::write(&path, "root:x:0:0:root:/root:/bin/bash\n").unwrap();
        let line = "user:x:1000:1000::/home/user:/bin/bash";
        add_line(dir.path(), "etc/passwd", line).unwrap();
        add_line(dir.path(), "etc/passwd", line).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        for bad in ["other:x:1000:1000::/:/bin/sh", "root:x:7:7::/:/bin/sh"] {
            assert!(add_line(dir.path(), "etc/passwd", bad).is_err(), "{bad}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
