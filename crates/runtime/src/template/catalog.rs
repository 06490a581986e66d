//! What has been built: finding, listing, removing, and holding a version while it is served.
//!
//! Owns: `template.json`, the `current` link, the `in-use` lock. Does not own how a root is made.

use super::runtimes::Runtime;
use super::{TemplateError, python, reading, slug_ok, writing};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Length of a digest in hex.
pub(super) const DIGEST_LEN: usize = 64;
/// Hex digits of the digest in a version id.
const VERSION_ID_DIGITS: usize = 26;
/// Size of a template.json.
const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;
/// Longest selector of [`find`]: a slug, `@`, a digest.
const SELECTOR_BYTES_MAX: usize = 128;
const MANIFEST: &str = "template.json";
const ROOT: &str = "rootfs";
pub(super) const CURRENT: &str = "current";
const IN_USE: &str = "in-use";

/// `template.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub slug: String,
    /// Name of the root: 64 hex digits.
    pub digest: String,
    /// Digest of the definition alone; two builds of it (see `refresh`) have different `digest`s.
    pub definition_digest: String,
    pub version: String,
    /// `tplv_` and the start of the digest.
    pub version_id: String,
    pub description: String,
    /// RFC 3339, UTC, milliseconds.
    pub built_at: crownest_api::Timestamp,
    pub build_ms: u64,
    /// Allocated on disk.
    pub disk_bytes: u64,
    pub files: u64,
    pub languages: Vec<String>,
    pub preload: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<PythonFacts>,
    /// Runtimes and their versions, by kernel. Empty in what was built before there were several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<Runtime>,
}

/// The interpreter inside a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonFacts {
    /// Path inside the root.
    pub executable: String,
    pub version: String,
    /// `name==version` of every installed distribution.
    pub packages: Vec<String>,
}

/// A template that is ready to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    pub slug: String,
    pub digest: String,
    pub version: String,
    pub version_id: String,
    pub rootfs: PathBuf,
    pub preload: Vec<String>,
    pub languages: Vec<String>,
    pub python: Option<PythonFacts>,
    pub runtimes: Vec<Runtime>,
    pub manifest: Manifest,
    /// Whether its slug alone means this version.
    pub current: bool,
    directory: PathBuf,
}

/// Keeps a version from being removed for as long as it lives.
#[derive(Debug)]
pub struct InUse {
    _lock: File,
}

impl Built {
    /// Holds this version. Works without privilege.
    ///
    /// # Errors
    /// [`TemplateError::Read`] when it was removed meanwhile.
    pub fn hold(&self) -> Result<InUse, TemplateError> {
        let path = self.directory.join(IN_USE);
        let lock = File::open(&path).map_err(reading(&path))?;
        lock.lock_shared().map_err(reading(&path))?;
        // A removal that was faster has taken the file away; a new build may have put another there.
        let held = lock.metadata().map_err(reading(&path))?;
        let there = fs::metadata(&path).map_err(reading(&path))?;
        if (held.dev(), held.ino()) != (there.dev(), there.ino()) {
            return Err(reading(&path)(io::ErrorKind::NotFound.into()));
        }
        Ok(InUse { _lock: lock })
    }

    fn open(directory: &Path, slug: &str, current: bool) -> Result<Self, TemplateError> {
        let path = directory.join(MANIFEST);
        let damaged = |reason: String| TemplateError::Damaged {
            path: directory.to_owned(),
            slug: slug.to_owned(),
            reason,
        };
        let length = fs::metadata(&path)
            .map_err(|error| damaged(error.to_string()))?
            .len();
        if length > MANIFEST_BYTES_MAX {
            return Err(damaged(format!("{MANIFEST} is {length} bytes long")));
        }
        let text = fs::read(&path).map_err(reading(&path))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let named = directory.file_name().and_then(|name| name.to_str());
        if manifest.slug != slug || named != Some(manifest.digest.as_str()) {
            return Err(damaged(format!("{MANIFEST} belongs to {}", manifest.slug)));
        }
        let rootfs = directory.join(ROOT);
        if !rootfs.is_dir() {
            return Err(damaged(format!("{ROOT} is missing")));
        }
        Ok(Self {
            slug: manifest.slug.clone(),
            digest: manifest.digest.clone(),
            version: manifest.version.clone(),
            version_id: manifest.version_id.clone(),
            rootfs,
            preload: manifest.preload.clone(),
            languages: manifest.languages.clone(),
            python: manifest.python.clone(),
            runtimes: runtimes_of(&manifest),
            manifest,
            current,
            directory: directory.to_owned(),
        })
    }
}

/// What a manifest says, also one that says it in the words of an older builder.
fn runtimes_of(manifest: &Manifest) -> Vec<Runtime> {
    match &manifest.python {
        Some(facts) if manifest.runtimes.is_empty() => vec![python::runtime(facts)],
        _ => manifest.runtimes.clone(),
    }
}

/// The public id of a version.
pub(super) fn version_id(digest: &str) -> String {
    format!("tplv_{}", digest.get(..VERSION_ID_DIGITS).unwrap_or(digest))
}

fn digest_ok(text: &str) -> bool {
    text.len() == DIGEST_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Finds by slug (its current version), `slug@version`, version id or digest.
///
/// # Errors
/// [`TemplateError::NotBuilt`] names the command that builds it.
pub fn find(selector: &str, templates: &Path) -> Result<Built, TemplateError> {
    let no_such = || TemplateError::NoSuchVersion(selector.chars().take(80).collect());
    if selector.len() > SELECTOR_BYTES_MAX {
        return Err(no_such());
    }
    if let Some((slug, version)) = selector.split_once('@') {
        let mut matching = versions(slug, templates)?;
        matching.retain(|built| built.version == version || built.digest == version);
        return newest(matching).ok_or_else(no_such);
    }
    if selector.starts_with("tplv_") || digest_ok(selector) {
        let mut all = list(templates)?;
        all.retain(|built| built.version_id == selector || built.digest == selector);
        return newest(all).ok_or_else(no_such);
    }
    if !slug_ok(selector) {
        return Err(TemplateError::UnknownSlug(
            selector.chars().take(80).collect(),
        ));
    }
    match current_digest(&templates.join(selector))? {
        Some(digest) => Built::open(&templates.join(selector).join(digest), selector, true),
        None => Err(TemplateError::NotBuilt(selector.to_owned())),
    }
}

/// The current version if it is among them, else the one built last.
fn newest(builds: Vec<Built>) -> Option<Built> {
    builds
        .into_iter()
        .max_by_key(|built| (built.current, built.manifest.built_at))
}

/// Every version of every slug, by slug, newest first. Damaged ones are errors, not gaps: a
/// template that silently disappears is found out by a user.
///
/// # Errors
/// [`TemplateError::Read`], [`TemplateError::Damaged`]
pub fn list(templates: &Path) -> Result<Vec<Built>, TemplateError> {
    let mut builds = Vec::new();
    for slug in names(templates)?.into_iter().filter(|name| slug_ok(name)) {
        builds.extend(versions(&slug, templates)?);
    }
    Ok(builds)
}

/// Every version of one slug, newest first.
pub(super) fn versions(slug: &str, templates: &Path) -> Result<Vec<Built>, TemplateError> {
    if !slug_ok(slug) {
        return Err(TemplateError::UnknownSlug(slug.chars().take(80).collect()));
    }
    let directory = templates.join(slug);
    let current = current_digest(&directory)?;
    let mut builds = Vec::new();
    for digest in names(&directory)?
        .into_iter()
        .filter(|name| digest_ok(name))
    {
        let is_current = current.as_ref() == Some(&digest);
        builds.push(Built::open(&directory.join(&digest), slug, is_current)?);
    }
    builds.sort_by_key(|built| std::cmp::Reverse(built.manifest.built_at));
    Ok(builds)
}

/// Sorted names in a directory; none when it does not exist.
fn names(directory: &Path) -> Result<Vec<String>, TemplateError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(reading(directory)(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(reading(directory))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn current_digest(directory: &Path) -> Result<Option<String>, TemplateError> {
    let link = directory.join(CURRENT);
    match fs::read_link(&link) {
        Ok(target) => Ok(target
            .to_str()
            .filter(|name| digest_ok(name))
            .map(str::to_owned)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(reading(&link)(source)),
    }
}

/// Makes a finished build directory part of the catalogue: everything is on disk first, then it
/// appears under its name in one step, then the slug means it in one step.
///
/// Who runs it: root, holding the lock of that slug.
pub(super) fn publish(
    build_dir: &Path,
    manifest: &Manifest,
    templates: &Path,
) -> Result<Built, TemplateError> {
    let json = serde_json::to_vec_pretty(manifest).expect("strings and numbers serialise");
    write_public(&build_dir.join(MANIFEST), &json)?;
    write_public(&build_dir.join(IN_USE), b"")?;
    let directory = File::open(build_dir).map_err(reading(build_dir))?;
    rustix::fs::syncfs(&directory).map_err(|errno| writing(build_dir)(errno.into()))?;
    let slug_dir = templates.join(&manifest.slug);
    fs::create_dir_all(&slug_dir).map_err(writing(&slug_dir))?;
    let target = slug_dir.join(&manifest.digest);
    fs::rename(build_dir, &target).map_err(writing(&target))?;
    make_current(&slug_dir, &manifest.digest)?;
    Built::open(&target, &manifest.slug, true)
}

/// Points `current` at a digest in one step.
pub(super) fn make_current(slug_dir: &Path, digest: &str) -> Result<(), TemplateError> {
    let fresh = slug_dir.join(format!(".current-{}", std::process::id()));
    let link = slug_dir.join(CURRENT);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(writing(&fresh)(error));
        }
        _ => {}
    }
    std::os::unix::fs::symlink(digest, &fresh).map_err(writing(&fresh))?;
    fs::rename(&fresh, &link).map_err(writing(&link))?;
    let directory = File::open(slug_dir).map_err(reading(slug_dir))?;
    directory.sync_all().map_err(writing(slug_dir))
}

fn write_public(path: &Path, bytes: &[u8]) -> Result<(), TemplateError> {
    use std::os::unix::fs::PermissionsExt;
    let mut file = File::create(path).map_err(writing(path))?;
    file.write_all(bytes).map_err(writing(path))?;
    file.set_permissions(fs::Permissions::from_mode(0o644))
        .map_err(writing(path))
}

/// Removes one version (`slug` alone means the current one). Refused while a server holds it.
///
/// # Errors
/// [`TemplateError::InUse`]
pub fn remove(selector: &str, templates: &Path) -> Result<Built, TemplateError> {
    let built = find(selector, templates)?;
    let path = built.directory.join(IN_USE);
    let lock = File::open(&path).map_err(reading(&path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(TemplateError::InUse {
                slug: built.slug,
                version: built.version,
            });
        }
        Err(TryLockError::Error(source)) => return Err(reading(&path)(source)),
    }
    if built.current {
        let link = templates.join(&built.slug).join(CURRENT);
        fs::remove_file(&link).map_err(writing(&link))?;
    }
    // Out of sight in one step, so that an interrupted removal is never half a template; what is
    // left under this name is swept by the next build.
    let doomed = templates.join(format!(".removed-{}-{}", built.slug, built.digest));
    fs::rename(&built.directory, &doomed).map_err(writing(&doomed))?;
    match fs::remove_dir_all(&doomed) {
        // A build has swept it meanwhile.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(writing(&doomed)(error)),
        _ => Ok(built),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(slug: &str, digit: char, version: &str, built_ms: i64) -> Manifest {
        let digest: String = std::iter::repeat_n(digit, DIGEST_LEN).collect();
        Manifest {
            slug: slug.to_owned(),
            version_id: version_id(&digest),
            definition_digest: digest.clone(),
            digest,
            version: version.to_owned(),
            description: String::new(),
            built_at: crownest_api::Timestamp::from_millis(built_ms),
            build_ms: 1,
            disk_bytes: 1,
            files: 1,
            languages: vec!["python".to_owned()],
            preload: vec!["numpy".to_owned()],
            python: None,
            runtimes: Vec::new(),
        }
    }

    fn published(templates: &Path, manifest: &Manifest) -> Built {
        let build_dir = templates.join(format!(".build-1-{}", manifest.digest));
        fs::create_dir_all(build_dir.join(ROOT)).unwrap();
        publish(&build_dir, manifest, templates).unwrap()
    }

    #[test]
    fn a_missing_template_names_the_command_that_builds_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = find("python", dir.path()).unwrap_err().to_string();
        assert!(error.contains("crownest template build python"), "{error}");
        for hostile in ["../python", "", "a/b", "python@../x", &"a".repeat(1000)] {
            assert!(find(hostile, dir.path()).is_err(), "{hostile}");
        }
    }

    #[test]
    fn the_newest_published_version_is_current_and_the_older_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let old = published(dir.path(), &manifest("python", 'a', "1.0.0", 1000));
        let new = published(dir.path(), &manifest("python", 'b', "1.1.0", 2000));
        assert_eq!(find("python", dir.path()).unwrap().digest, new.digest);
        for selector in ["python@1.0.0", &old.version_id, &old.digest] {
            let found = find(selector, dir.path()).unwrap();
            assert_eq!(
                (found.digest.as_str(), found.current),
                (old.digest.as_str(), false)
            );
        }
        let all: Vec<String> = list(dir.path())
            .unwrap()
            .into_iter()
            .map(|built| built.version)
            .collect();
        assert_eq!(all, ["1.1.0", "1.0.0"]);
    }

    #[test]
    fn a_version_in_use_is_not_removed_and_goes_when_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let built = published(dir.path(), &manifest("base", 'c', "1", 1));
        let held = built.hold().unwrap();
        assert!(matches!(
            remove("base", dir.path()),
            Err(TemplateError::InUse { .. })
        ));
        assert!(built.rootfs.is_dir());
        drop(held);
        remove("base", dir.path()).unwrap();
        assert!(!built.rootfs.exists());
        assert!(built.hold().is_err());
        assert!(matches!(
            find("base", dir.path()),
            Err(TemplateError::NotBuilt(_))
        ));
        assert!(list(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_manifest_that_was_tampered_with_is_damage_not_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let built = published(dir.path(), &manifest("base", 'd', "1", 1));
        let path = built.directory.join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap();
        for broken in [
            text.replace("\"base\"", "\"other\""),
            "{".to_owned(),
            String::new(),
        ] {
            fs::write(&path, broken).unwrap();
            let error = find("base", dir.path()).unwrap_err();
            assert!(matches!(error, TemplateError::Damaged { .. }), "{error}");
        }
        fs::write(&path, text).unwrap();
        fs::remove_dir_all(&built.rootfs).unwrap();
        assert!(matches!(
            find("base", dir.path()),
            Err(TemplateError::Damaged { .. })
        ));
    }
}
