//! The second half of a root: cleaning, removing privilege, checking, measuring.

use super::TemplateError;
use super::{reading, writing};
use rustix::fs::lremovexattr;
use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Directories that a build fills and nobody needs afterwards.
const EMPTIED: [&str; 7] = [
    "dev",
    "root/.cache",
    "run",
    "tmp",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
];
/// Written by the builder's tools about this machine.
const REMOVED: [&str; 4] = [
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "var/cache/debconf/templates.dat-old",
    "var/lib/dpkg/status-old",
];
/// dpkg rules that stay, so that packages added to a template made from this one stay as small.
const KEPT_RULES: &str = "etc/dpkg/dpkg.cfg.d/crownest";
/// Set-user-id, set-group-id.
const PRIVILEGE_BITS: u32 = 0o6000;
/// Directory levels of a root.
const DEPTH_MAX: usize = 128;

/// What a root takes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub disk_bytes: u64,
    pub files: u64,
}

/// Leaves nothing of the build and no privilege in the root, then proves it.
pub(super) fn finish(rootfs: &Path) -> Result<Size, TemplateError> {
    for name in EMPTIED {
        empty(&rootfs.join(name))?;
    }
    for (name, mode) in [("dev/pts", 0o755), ("dev/shm", 0o1777)] {
        let path = rootfs.join(name);
        fs::create_dir_all(&path).map_err(writing(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(writing(&path))?;
    }
    keep_rules(rootfs)?;
    for name in REMOVED {
        let path = rootfs.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(writing(&path)(error));
            }
            _ => {}
        }
    }
    let mut size = Size::default();
    strip(rootfs, &mut size, &mut BTreeSet::new(), 0)?;
    check(rootfs)?;
    Ok(size)
}

/// mmdebstrap leaves its dpkg options in the image; of those only the path rules are meant to stay.
fn keep_rules(rootfs: &Path) -> Result<(), TemplateError> {
    let made = rootfs.join("etc/dpkg/dpkg.cfg.d/99mmdebstrap");
    let Ok(text) = fs::read_to_string(&made) else {
        return Ok(());
    };
    let rules: String = text
        .lines()
        .filter(|line| line.starts_with("path-"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let kept = rootfs.join(KEPT_RULES);
    fs::write(&kept, rules).map_err(writing(&kept))
}

fn empty(directory: &Path) -> Result<(), TemplateError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(reading(directory)(source)),
    };
    for entry in entries {
        let path = entry.map_err(reading(directory))?.path();
        let is_dir = fs::symlink_metadata(&path)
            .map_err(reading(&path))?
            .is_dir();
        let removed = if is_dir {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(writing(&path))?;
    }
    Ok(())
}

/// Takes set-id bits and file capabilities away, refuses devices and sockets, adds up sizes.
fn strip(
    path: &Path,
    size: &mut Size,
    linked: &mut BTreeSet<u64>,
    depth: usize,
) -> Result<(), TemplateError> {
    if depth > DEPTH_MAX {
        return Err(TemplateError::Check(format!(
            "{} is nested too deeply",
            path.display()
        )));
    }
    let facts = fs::symlink_metadata(path).map_err(reading(path))?;
    if facts.nlink() < 2 || facts.is_dir() || linked.insert(facts.ino()) {
        size.disk_bytes += facts.blocks() * 512;
        size.files += 1;
    }
    let kind = facts.file_type();
    if kind.is_block_device() || kind.is_char_device() || kind.is_socket() || kind.is_fifo() {
        return Err(TemplateError::Check(format!(
            "{} is a device or socket",
            path.display()
        )));
    }
    if kind.is_symlink() {
        return Ok(());
    }
    strip_privilege(path, &facts)?;
    if kind.is_dir() {
        for entry in fs::read_dir(path).map_err(reading(path))? {
            strip(
                &entry.map_err(reading(path))?.path(),
                size,
                linked,
                depth + 1,
            )?;
        }
    }
    Ok(())
}

fn strip_privilege(path: &Path, facts: &Metadata) -> Result<(), TemplateError> {
    let mode = facts.permissions().mode();
    if mode & PRIVILEGE_BITS != 0 {
        let plain = fs::Permissions::from_mode(mode & !PRIVILEGE_BITS & 0o7777);
        fs::set_permissions(path, plain).map_err(writing(path))?;
    }
    if facts.is_file() {
        match lremovexattr(path, "security.capability") {
            Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => {}
            Err(errno) => return Err(writing(path)(errno.into())),
        }
    }
    Ok(())
}

/// What every sandbox relies on.
fn check(rootfs: &Path) -> Result<(), TemplateError> {
    let wrong = |what: String| Err(TemplateError::Check(what));
    let empty_dirs = [
        "proc",
        "sys",
        "run",
        "tmp",
        "dev/pts",
        "dev/shm",
        "opt/crownest",
    ];
    for name in empty_dirs {
        let path = rootfs.join(name);
        let mut entries = fs::read_dir(&path).map_err(reading(&path))?;
        if entries.next().is_some() {
            return wrong(format!("/{name} is not empty"));
        }
    }
    for name in ["workspace", "home/user"] {
        let facts = fs::symlink_metadata(rootfs.join(name)).map_err(reading(rootfs))?;
        if !facts.is_dir() || (facts.uid(), facts.gid()) != (1000, 1000) {
            return wrong(format!("/{name} is not a directory of uid 1000"));
        }
    }
    // Targets of bind mounts, or read by everything: a link could lead anywhere.
    for name in [
        "etc/ssl/certs/ca-certificates.crt",
        "etc/hosts",
        "etc/resolv.conf",
        "etc/passwd",
    ] {
        let facts = fs::symlink_metadata(rootfs.join(name)).map_err(reading(rootfs))?;
        if !facts.is_file() || facts.permissions().mode() & 0o444 != 0o444 {
            return wrong(format!("/{name} is not a file that everybody can read"));
        }
    }
    let device = fs::symlink_metadata(rootfs).map_err(reading(rootfs))?.dev();
    for name in [
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "etc/resolv.conf",
        "etc/hosts",
    ] {
        let facts = fs::symlink_metadata(rootfs.join(name)).map_err(reading(rootfs))?;
        if facts.dev() != device {
            return wrong(format!("something is mounted on /{name}"));
        }
    }
    Ok(())
}
