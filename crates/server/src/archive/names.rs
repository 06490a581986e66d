//! Names in an archive: where an entry may be, what a link may lead to, what else has that place.
//!
//! Everything here is judged by text alone, and yet nothing escapes: parents of an entry are real
//! directories, never links, and a link's target goes up only at its beginning. So the first step
//! of following a link is what its text says, and every further link on the way was judged the
//! same.

use super::ArchiveError;
use std::collections::HashMap;

/// Where archives are unpacked.
const WORKSPACE: &str = "/workspace";
/// Longest path of an entry and longest target of a link; with the workspace before it and a NUL
/// after it the kernel takes it.
pub(super) const PATH_BYTES_MAX: usize = 4_000;
/// Longest single name.
const NAME_BYTES_MAX: usize = 255;
/// Directories above one another.
pub(super) const DEPTH_MAX: usize = 128;
/// All names of an archive together, directories that it implies included: they are kept while it
/// is read.
const NAMES_BYTES_MAX: usize = 32 << 20;
/// Longest part of a name in a message.
const SHOWN_CHARS_MAX: usize = 120;

/// A name for a message: bounded, on one line.
pub(super) fn shown(name: &str) -> String {
    let part: String = name.chars().take(SHOWN_CHARS_MAX).collect();
    let more = if part.len() < name.len() { "…" } else { "" };
    format!("{part:?}{more}")
}

/// The name of an entry as a path below the workspace, `.` and double slashes gone; empty for the
/// workspace itself.
pub(super) fn entry(name: &[u8]) -> Result<String, ArchiveError> {
    let refuse = |why: &str| {
        let name = String::from_utf8_lossy(name);
        Err(ArchiveError::invalid(format!(
            "entry {}: {why}",
            shown(&name)
        )))
    };
    let Ok(name) = std::str::from_utf8(name) else {
        return refuse("its name is not UTF-8");
    };
    if name.is_empty() {
        return refuse("it has no name");
    }
    if name.starts_with('/') {
        return refuse("its name is absolute");
    }
    if name.contains('\0') {
        return refuse("its name contains NUL");
    }
    if name.contains('\\') {
        return refuse("its name contains a backslash");
    }
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return refuse("its name leads outside with \"..\""),
            part if part.len() > NAME_BYTES_MAX => return refuse("its name is too long"),
            part => parts.push(part),
        }
    }
    if parts.len() > DEPTH_MAX {
        return refuse(&format!("it is more than {DEPTH_MAX} directories deep"));
    }
    let path = parts.join("/");
    if path.len() > PATH_BYTES_MAX {
        return refuse("its name is too long");
    }
    Ok(path)
}

/// The target of the symbolic link at `path`, which has to stay in the workspace.
pub(super) fn link_target(path: &str, target: &[u8]) -> Result<String, ArchiveError> {
    let refuse = |why: &str| {
        Err(ArchiveError::invalid(format!(
            "entry {}: its link target {why}",
            shown(path)
        )))
    };
    let Ok(target) = std::str::from_utf8(target) else {
        return refuse("is not UTF-8");
    };
    if target.is_empty() || target.len() > PATH_BYTES_MAX || target.contains(['\0', '\\']) {
        return refuse("is empty, too long or no path");
    }
    let (relative, mut ups_left) = match target.strip_prefix(WORKSPACE) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => (rest, 0),
        _ if target.starts_with('/') => return refuse("is outside of /workspace"),
        _ => (target, path.matches('/').count()),
    };
    let mut descended = false;
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." if descended => return refuse("has \"..\" after a name"),
            ".." if ups_left == 0 => return refuse("is outside of /workspace"),
            ".." => ups_left -= 1,
            _ => descended = true,
        }
    }
    Ok(target.to_owned())
}

/// What a place is taken by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    File,
    Directory,
    Symlink,
}

/// Everything that an archive has named so far.
#[derive(Debug, Default)]
pub(super) struct Tree {
    places: HashMap<Box<str>, Taken>,
    names_bytes: usize,
}

impl Tree {
    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Takes a place. A later file or link replaces an earlier one, as tar does it; a directory is
    /// replaced by nothing and replaces nothing.
    pub(super) fn take(&mut self, path: &str, what: Taken) -> Result<(), ArchiveError> {
        let refuse = |why: &str| {
            Err(ArchiveError::invalid(format!(
                "entry {}: {why}",
                shown(path)
            )))
        };
        for (at, _) in path.match_indices('/') {
            match self.places.get(&path[..at]) {
                Some(Taken::Directory) => {}
                Some(Taken::Symlink) => return refuse("it is below a symbolic link"),
                Some(Taken::File) => return refuse("it is below a file"),
                None => self.put(&path[..at], Taken::Directory)?,
            }
        }
        match (self.places.get_mut(path), what) {
            (None, _) => self.put(path, what),
            (Some(Taken::Directory), Taken::Directory) => Ok(()),
            (Some(Taken::Directory), _) => refuse("a directory has that name"),
            (Some(_), Taken::Directory) => refuse("a file has that name"),
            (Some(taken), _) => {
                *taken = what;
                Ok(())
            }
        }
    }

    /// The path of a file that a hard link may name.
    pub(super) fn linked(&self, path: &str, target: &[u8]) -> Result<String, ArchiveError> {
        let target = entry(target).map_err(|error| {
            ArchiveError::invalid(format!("entry {}: linked to {error}", shown(path)))
        })?;
        if target == path || self.places.get(target.as_str()) != Some(&Taken::File) {
            return Err(ArchiveError::invalid(format!(
                "entry {}: it is linked to {}, which is no file of the archive before it",
                shown(path),
                shown(&target)
            )));
        }
        Ok(target)
    }

    fn put(&mut self, path: &str, what: Taken) -> Result<(), ArchiveError> {
        self.names_bytes += path.len();
        if self.names_bytes > NAMES_BYTES_MAX {
            return Err(ArchiveError::too_large(format!(
                "its names have more than {NAMES_BYTES_MAX} bytes together"
            )));
        }
        self.places.insert(path.into(), what);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Path, PathBuf};

    #[test]
    fn names() {
        for (name, path) in [
            ("a", "a"),
            ("./a//b/./c/", "a/b/c"),
            ("./", ""),
            (".", ""),
            ("...", "..."),
            ("a\nb/é", "a\nb/é"),
        ] {
            assert_eq!(entry(name.as_bytes()).unwrap(), path);
        }
        let (deep, long) = ("d/".repeat(DEPTH_MAX + 1), "n".repeat(256));
        let far = format!("{}/", "n".repeat(250)).repeat(17);
        for bad in [
            "", "/", "/etc/x", "..", "a/../b", "a\\b", "a\0b", &deep, &long, &far,
        ] {
            let Err(error) = entry(bad.as_bytes()) else {
                panic!("{bad:?}")
            };
            assert!(error.to_string().len() < 700, "{error}");
        }
        assert!(entry(b"\xff").is_err());
    }

    #[test]
    fn link_targets_stay_inside() {
        let ok = |path: &str, target: &str| link_target(path, target.as_bytes()).is_ok();
        assert!(ok("a/b/link", "../../x") && ok("link", "x/y") && ok("link", "./x"));
        assert!(ok("link", "/workspace") && ok("link", "/workspace/a"));
        assert!(ok("a/link", ".."));
        for (path, target) in [
            ("link", ".."),
            ("a/link", "../../x"),
            ("a/b/link", "x/../.."),
            ("link", "/etc/passwd"),
            ("link", "/workspaces"),
            ("link", "/workspace/../etc"),
            ("link", ""),
            ("link", "a\0"),
        ] {
            assert!(!ok(path, target), "{path} -> {target}");
        }
    }

    #[test]
    fn places_are_taken_as_tar_takes_them() {
        let mut tree = Tree::default();
        let mut take = |path: &str, what| tree.take(path, what).is_ok();
        assert!(
            take("a/b", Taken::File) && take("a/b", Taken::Symlink) && take("a/b", Taken::File)
        );
        assert!(take("a", Taken::Directory) && take("a", Taken::Directory));
        assert!(!take("a", Taken::File) && !take("a/b", Taken::Directory));
        assert!(!take("a/b/c", Taken::File));
        assert!(take("l", Taken::Symlink) && !take("l/x", Taken::File));
        assert_eq!(tree.linked("h", b"./a/b").unwrap(), "a/b");
        for (path, target) in [("h", "l"), ("h", "a"), ("h", "none"), ("a/b", "a/b")] {
            assert!(tree.linked(path, target.as_bytes()).is_err());
        }
    }

    fn component() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "a",
            "b",
            "c",
            "..",
            ".",
            "",
            "workspace",
            "/workspace",
        ])
    }

    proptest! {
        /// Whatever links an archive makes, following them on a real file system never leaves.
        #[test]
        fn no_chain_of_links_escapes(
            made in prop::collection::vec(
                (
                    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4),
                    prop::collection::vec(component(), 1..6),
                    any::<bool>(),
                ),
                1..12,
            )
        ) {
            let outside = tempfile::tempdir().unwrap();
            let root = outside.path().join("workspace");
            std::fs::create_dir(&root).unwrap();
            let mut tree = Tree::default();
            let mut links: Vec<PathBuf> = Vec::new();
            for (path, target, link) in made {
                let path = path.join("/");
                if link {
                    let Ok(target) = link_target(&path, target.join("/").as_bytes()) else { continue };
                    if tree.take(&path, Taken::Symlink).is_err() { continue }
                    let at = root.join(&path);
                    std::fs::create_dir_all(at.parent().unwrap()).unwrap();
                    let _ = std::fs::remove_file(&at);
                    // What is absolute in the sandbox is below the root here.
                    let target = target.strip_prefix("/workspace").map_or_else(
                        || PathBuf::from(&target),
                        |rest| Path::new(&root).join(rest.trim_start_matches('/')),
                    );
                    std::os::unix::fs::symlink(target, &at).unwrap();
                    links.push(at);
                } else if tree.take(&path, Taken::Directory).is_ok() {
                    std::fs::create_dir_all(root.join(&path)).unwrap();
                }
            }
            let real = root.canonicalize().unwrap();
            for link in links {
                // A link to nothing and a circle lead nowhere.
                if let Ok(end) = link.canonicalize() {
                    prop_assert!(end.starts_with(&real), "{link:?} leads to {end:?}");
                }
            }
        }
    }
}
