//! Building a template: one builder at a time per slug, in a directory of its own, published in
//! one step.
//!
//! Who runs it: root, from `crownest template build`. Never the server.
//!
//! An unchanged definition finds the existing build; a changed one builds beside it; nothing ever
//! changes a root that has been published. A build that was interrupted leaves a directory whose
//! lock is free, and the next build sweeps it.

use super::catalog::{self, Built, Manifest, PythonFacts};
use super::definition::{Definition, FROM_DEPTH_MAX};
use super::runtimes::{self, Runtime};
use super::tool::Workbench;
use super::{TemplateError, finish, go, java, node, python, reading, root, writing};
use crate::kernels;
use crownest_api::Timestamp;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Programs of the host that a build runs, and the packages they come in.
const TOOLS: [(&str, &str); 6] = [
    ("mmdebstrap", "mmdebstrap"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("chroot", "coreutils"),
    ("cp", "coreutils"),
];
/// The language that every root has.
const SHELL: &str = "bash";
const BUILD_PREFIX: &str = ".build-";
const REMOVED_PREFIX: &str = ".removed-";

/// How to build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Where an operator's own definitions are.
    pub definitions: Option<PathBuf>,
    /// Builds anew although the definition is unchanged: the distribution's packages have moved on.
    pub refresh: bool,
}

/// Finds or makes the template with this slug and makes it the current one.
///
/// # Errors
/// [`TemplateError`], named after the step that failed.
pub fn build(
    slug: &str,
    templates: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<Built, TemplateError> {
    build_at_depth(slug, templates, options, progress, 0)
}

fn build_at_depth(
    slug: &str,
    templates: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(&str),
    depth: usize,
) -> Result<Built, TemplateError> {
    let definition = Definition::load(slug, options.definitions.as_deref())?;
    if depth >= FROM_DEPTH_MAX {
        return Err(TemplateError::Definition {
            slug: slug.to_owned(),
            reason: format!("`from` is followed more than {FROM_DEPTH_MAX} times"),
        });
    }
    let base = match &definition.from {
        Some(from) => Some(build_at_depth(
            from,
            templates,
            options,
            progress,
            depth + 1,
        )?),
        None => None,
    };
    let wanted = definition.digest(base.as_ref().map(|base| base.digest.as_str()));
    if !rustix::process::geteuid().is_root() {
        // Nothing can be made, but it may be there already.
        return current_build(slug, &wanted, templates)?.ok_or(TemplateError::NotRoot);
    }
    prepare_directory(templates)?;
    sweep(templates)?;
    let _lock = lock_slug(slug, templates, progress)?;
    if !options.refresh
        && let Some(built) = existing(slug, &wanted, templates, progress)?
    {
        return Ok(built);
    }
    // The base is held so that nobody removes it while it is copied.
    let _base_held = base.as_ref().map(Built::hold).transpose()?;
    make(
        &definition,
        &wanted,
        base.as_ref(),
        templates,
        options.refresh,
        progress,
    )
}

/// The current version when it was made from this very definition.
fn current_build(
    slug: &str,
    wanted: &str,
    templates: &Path,
) -> Result<Option<Built>, TemplateError> {
    let versions = catalog::versions(slug, templates)?;
    Ok(versions
        .into_iter()
        .find(|built| built.current && is_made_from(built, wanted)))
}

fn is_made_from(built: &Built, wanted: &str) -> bool {
    built.manifest.definition_digest == wanted
}

/// An earlier build of this definition, made current again if it was not.
fn existing(
    slug: &str,
    wanted: &str,
    templates: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Option<Built>, TemplateError> {
    if let Some(built) = current_build(slug, wanted, templates)? {
        progress(&format!("{slug}: {} is already built", built.version));
        return Ok(Some(built));
    }
    let versions = catalog::versions(slug, templates)?;
    let Some(built) = versions
        .into_iter()
        .find(|built| is_made_from(built, wanted))
    else {
        return Ok(None);
    };
    catalog::make_current(&templates.join(slug), &built.digest)?;
    progress(&format!(
        "{slug}: {} was already built and is current again",
        built.version
    ));
    catalog::find(slug, templates).map(Some)
}

fn make(
    definition: &Definition,
    wanted: &str,
    base: Option<&Built>,
    templates: &Path,
    refresh: bool,
    progress: &mut dyn FnMut(&str),
) -> Result<Built, TemplateError> {
    let slug = definition.slug.as_str();
    find_tools()?;
    check_space(definition, templates)?;
    let started = Instant::now();
    let built_at = Timestamp::now();
    progress(&format!("{slug}: building {}", definition.version));
    let place = BuildDir::create(templates)?;
    let mut bench = Workbench {
        inputs: place.path.join("inputs"),
        scratch: place.path.join("scratch"),
        rootfs: place.path.join("out/rootfs"),
        logs: place.logs.clone(),
        slug: slug.to_owned(),
        progress: &mut *progress,
    };
    root::start(
        &mut bench,
        definition,
        base.map(|base| base.rootfs.as_path()),
    )?;
    let (python, own) = install(&mut bench, definition)?;
    let python = python.or_else(|| base.and_then(|base| base.python.clone()));
    let inherited = base
        .map(|base| base.runtimes.as_slice())
        .unwrap_or_default();
    let rootfs = bench.rootfs.clone();
    let size = bench.timed("cleaning and checking", || finish::finish(&rootfs))?;
    let digest = if refresh {
        refreshed(wanted, built_at)
    } else {
        wanted.to_owned()
    };
    let preload = definition
        .python
        .as_ref()
        .map(|python| python.preload.clone());
    let manifest = Manifest {
        slug: slug.to_owned(),
        version_id: catalog::version_id(&digest),
        digest,
        definition_digest: wanted.to_owned(),
        version: definition.version.clone(),
        description: definition.description.clone(),
        built_at,
        build_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        disk_bytes: size.disk_bytes,
        files: size.files,
        languages: languages(definition),
        preload: preload
            .or_else(|| base.map(|base| base.preload.clone()))
            .unwrap_or_default(),
        python,
        runtimes: runtimes::inherit(inherited, own),
    };
    let built = bench.timed("writing to disk", || {
        catalog::publish(&place.path.join("out"), &manifest, templates)
    })?;
    place.remove()?;
    progress(&format!(
        "{slug}: {} is ready ({} MB, {} files, {:.1} s)",
        built.version,
        size.disk_bytes / 1_000_000,
        size.files,
        started.elapsed().as_secs_f64()
    ));
    Ok(built)
}

/// What each package manager brings, in an order in which later ones may need earlier ones.
fn install(
    bench: &mut Workbench<'_>,
    definition: &Definition,
) -> Result<(Option<PythonFacts>, Vec<Runtime>), TemplateError> {
    let kernels_dir = bench.inputs.join("kernels");
    kernels::write_below(&kernels_dir).map_err(writing(&kernels_dir))?;
    let mut own = Vec::new();
    let mut facts = None;
    if let Some(python) = &definition.python {
        let installed = python::install(bench, python)?;
        own.push(python::runtime(&installed));
        facts = Some(installed);
    }
    if let Some(node) = &definition.node {
        own.push(node::install(bench, node)?);
    }
    if let Some(java) = &definition.java {
        own.push(java::install(bench, java)?);
    }
    if let Some(go) = &definition.go {
        own.push(go::install(bench, go)?);
    }
    Ok((facts, own))
}

/// A shell is in every root, whether or not its definition says so.
fn languages(definition: &Definition) -> Vec<String> {
    let mut languages = definition.languages.clone();
    if !languages.iter().any(|language| language == SHELL) {
        languages.push(SHELL.to_owned());
    }
    languages
}

/// Name of one more build of a definition that has one.
fn refreshed(wanted: &str, built_at: Timestamp) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("crownest template refresh v1");
    hasher.update(wanted.as_bytes());
    hasher.update(&built_at.as_millis().to_le_bytes());
    hasher.finalize().to_hex().to_string()
}

fn find_tools() -> Result<(), TemplateError> {
    for (tool, package) in TOOLS {
        let directories = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"];
        if !directories
            .iter()
            .any(|directory| Path::new(directory).join(tool).is_file())
        {
            return Err(TemplateError::MissingTool {
                tool: tool.to_owned(),
                package: package.to_owned(),
            });
        }
    }
    Ok(())
}

fn check_space(definition: &Definition, templates: &Path) -> Result<(), TemplateError> {
    let space = rustix::fs::statvfs(templates).map_err(|errno| reading(templates)(errno.into()))?;
    let free_mb = space.f_bavail.saturating_mul(space.f_frsize) / 1_000_000;
    if free_mb < definition.disk_mb {
        return Err(TemplateError::DiskSpace {
            path: templates.to_owned(),
            slug: definition.slug.clone(),
            free_mb,
            need_mb: definition.disk_mb,
        });
    }
    Ok(())
}

fn prepare_directory(templates: &Path) -> Result<(), TemplateError> {
    fs::create_dir_all(templates).map_err(writing(templates))?;
    // The server reads templates without privilege.
    fs::set_permissions(templates, fs::Permissions::from_mode(0o755)).map_err(writing(templates))
}

/// One builder per slug; a second one waits, says so, and then finds what the first one made.
fn lock_slug(
    slug: &str,
    templates: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<File, TemplateError> {
    let path = templates.join(format!(".lock-{slug}"));
    let file = lock_file(&path)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::Error(source)) => return Err(writing(&path)(source)),
        Err(TryLockError::WouldBlock) => {}
    }
    progress(&format!(
        "{slug}: waiting for another build of it to finish"
    ));
    file.lock().map_err(writing(&path))?;
    Ok(file)
}

fn lock_file(path: &Path) -> Result<File, TemplateError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(writing(path))
}

/// The directory of one build. Its lock is held while the builder lives.
struct BuildDir {
    path: PathBuf,
    /// Outlives a failed build, so that the whole log can be read.
    logs: PathBuf,
    _lock: File,
}

impl BuildDir {
    fn create(templates: &Path) -> Result<Self, TemplateError> {
        // Sweeping and creating exclude each other: a new directory has no lock for a moment.
        let _excluded = lock_sweep(templates)?;
        let mut random = [0_u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| writing(templates)(errno.into()))?;
        let nonce = u64::from_le_bytes(random);
        let path = templates.join(format!("{BUILD_PREFIX}{}-{nonce:016x}", std::process::id()));
        let logs = path.join("logs");
        for (directory, mode) in [
            (path.clone(), 0o700),
            (logs.clone(), 0o700),
            (path.join("inputs"), 0o755),
            (path.join("scratch"), 0o1777),
            (path.join("out"), 0o755),
            (path.join("out/rootfs"), 0o755),
        ] {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&directory)
                .map_err(writing(&directory))?;
            // Whatever the umask is.
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode))
                .map_err(writing(&directory))?;
        }
        let lock_path = path.join("lock");
        let lock = lock_file(&lock_path)?;
        lock.lock().map_err(writing(&lock_path))?;
        Ok(Self {
            path,
            logs,
            _lock: lock,
        })
    }

    fn remove(self) -> Result<(), TemplateError> {
        fs::remove_dir_all(&self.path).map_err(writing(&self.path))
    }
}

fn lock_sweep(templates: &Path) -> Result<File, TemplateError> {
    let path = templates.join(".lock-sweep");
    let lock = lock_file(&path)?;
    lock.lock().map_err(writing(&path))?;
    Ok(lock)
}

/// Removes what interrupted builds and removals left.
fn sweep(templates: &Path) -> Result<(), TemplateError> {
    let _excluded = lock_sweep(templates)?;
    for entry in fs::read_dir(templates).map_err(reading(templates))? {
        let entry = entry.map_err(reading(templates))?;
        let name = entry.file_name();
        let path = entry.path();
        let left_over = match name.to_str() {
            Some(name) if name.starts_with(REMOVED_PREFIX) => is_free(&path.join("in-use"))?,
            Some(name) if name.starts_with(BUILD_PREFIX) => is_free(&path.join("lock"))?,
            _ => false,
        };
        if left_over {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(writing(&path)(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether nobody holds this lock; a missing file is nobody's.
fn is_free(path: &Path) -> Result<bool, TemplateError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(source) => return Err(reading(path)(source)),
    };
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(reading(path)(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_over_directories_are_swept_and_living_builds_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let living = BuildDir::create(dir.path()).unwrap();
        let dead = dir.path().join(".build-1-dead");
        fs::create_dir_all(dead.join("out/rootfs/etc")).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        let removed = dir.path().join(".removed-base-x");
        fs::create_dir_all(&removed).unwrap();
        let other = dir.path().join("python");
        fs::create_dir_all(&other).unwrap();
        let second = BuildDir::create(dir.path()).unwrap();
        sweep(dir.path()).unwrap();
        assert!(living.path.is_dir() && second.path.is_dir() && other.is_dir());
        assert!(!dead.exists() && !removed.exists());
        living.remove().unwrap();
    }

    #[test]
    fn a_second_builder_waits_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock_slug("base", dir.path(), &mut |line| panic!("{line}")).unwrap();
        let (said, hears) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(move || {
                lock_slug("base", dir.path(), &mut |line| {
                    said.send(line.to_owned()).unwrap();
                })
            });
            // The second one has found the lock taken before the first one lets go.
            assert!(hears.recv().unwrap().contains("waiting"));
            drop(first);
            second.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_definition_that_asks_for_more_space_than_there_is_says_how_much() {
        let dir = tempfile::tempdir().unwrap();
        let mut definition = Definition::load("base", None).unwrap();
        definition.disk_mb = u64::MAX;
        let error = check_space(&definition, dir.path()).unwrap_err();
        assert!(matches!(error, TemplateError::DiskSpace { .. }), "{error}");
    }

    #[test]
    fn a_refreshed_build_has_a_name_of_its_own() {
        let wanted = "a".repeat(catalog::DIGEST_LEN);
        let one = refreshed(&wanted, Timestamp::from_millis(1));
        let two = refreshed(&wanted, Timestamp::from_millis(2));
        assert_eq!(one.len(), catalog::DIGEST_LEN);
        assert!(one != two && one != wanted);
    }
}
