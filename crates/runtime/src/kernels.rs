//! The drivers that this program carries: every file of `kernels/`, as the build script found it.
//!
//! Owns: which files there are and which of them are programs. Does not own what a driver does,
//! nor where a sandbox sees it (`/opt/crownest`, by [`crate::spawner`]).

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Path below `/opt/crownest` and content.
pub(crate) const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Kernels that a template builds something for.
pub(crate) const JAVA: &str = "java";
pub(crate) const GO: &str = "go";

/// Programs among the files; everything else is read.
const PROGRAMS: [&str; 1] = ["bash/driver"];

/// Mode of a file in a sandbox: nobody writes to it.
pub(crate) fn mode_of(name: &str) -> u32 {
    if PROGRAMS.contains(&name) {
        0o555
    } else {
        0o444
    }
}

/// Whether a file belongs to that kernel.
pub(crate) fn is_of(name: &str, kernel: &str) -> bool {
    name.strip_prefix(kernel)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Whether there is a file of that name.
pub(crate) fn has(name: &str) -> bool {
    FILES.iter().any(|(file, _)| *file == name)
}

/// Writes all of them below a directory that exists.
pub(crate) fn write_below(directory: &Path) -> io::Result<()> {
    for (name, bytes) in FILES {
        let path = directory.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, Permissions::from_mode(mode_of(name)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_there_with_its_driver() {
        assert!(has("python/driver.py") && has("python/zygote.py"));
        for (name, bytes) in FILES {
            assert!(!name.starts_with('/') && !name.contains(".."), "{name}");
            assert!(!bytes.is_empty() || name.ends_with(".py"), "{name}");
        }
    }

    #[test]
    fn a_kernel_is_its_directory_and_not_its_name() {
        assert!(is_of("go/main.go", GO));
        assert!(!is_of("gopher/main.go", GO) && !is_of("go", GO));
    }
}
