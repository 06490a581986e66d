//! Templates: the read-only root filesystems that sandboxes start from.
//!
//! Owns: what a template is made of ([`Definition`]), making it ([`build`]), and finding, listing
//! and removing what was made ([`find`], [`list`], [`remove`]). On disk:
//!
//! ```text
//! <templates>/<slug>/<digest>/rootfs          never changed once it is there
//! <templates>/<slug>/<digest>/template.json   what it is
//! <templates>/<slug>/<digest>/in-use          shared lock of every process that serves it
//! <templates>/<slug>/current -> <digest>      switched in one step
//! ```
//!
//! Does not own: mounting a root into a sandbox, zygotes, OCI images.
//!
//! Privilege: [`build`] and [`remove`] run as root from the command line, never in the server.
//! [`find`] and [`list`] only read, and need nothing.

mod bootstrap;
mod build;
mod catalog;
mod debian;
mod definition;
mod finish;
mod go;
mod java;
mod node;
mod python;
mod root;
mod runtimes;
mod tables;
mod tool;

pub use build::{BuildOptions, build};
pub use catalog::{Built, InUse, Manifest, PythonFacts, find, list, remove};
pub use definition::{BUILDER_VERSION, Definition, slug_ok};
pub use runtimes::{Runtime, RuntimeVersion};

use std::io;
use std::path::PathBuf;

/// Where templates are unless the configuration says otherwise.
pub const TEMPLATES_DIR: &str = "/var/lib/crownest/templates";
/// Where an operator's own `<slug>/template.toml` are.
pub const DEFINITIONS_DIR: &str = "/etc/crownest/templates";

/// Why a template could not be found, built or removed. Variants are named after the step.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("no template is called {0:?}; see `crownest template ls`")]
    UnknownSlug(String),
    #[error("template {slug}: {reason}")]
    Definition { slug: String, reason: String },
    #[error("template {0} is not built; run: crownest template build {0}")]
    NotBuilt(String),
    #[error("no build of a template matches {0:?}; see `crownest template ls`")]
    NoSuchVersion(String),
    #[error("{path} is damaged ({reason}); remove it and run: crownest template build {slug}")]
    Damaged {
        path: PathBuf,
        slug: String,
        reason: String,
    },
    #[error("{slug}@{version} is in use by a running server; stop it or let it move on first")]
    InUse { slug: String, version: String },
    #[error("building a template needs root (it unpacks files of many owners and mounts)")]
    NotRoot,
    #[error("{tool} is not installed; run: apt-get install {package}")]
    MissingTool { tool: String, package: String },
    #[error("{path} has {free_mb} MB free, building {slug} asks for {need_mb} MB")]
    DiskSpace {
        path: PathBuf,
        slug: String,
        free_mb: u64,
        need_mb: u64,
    },
    #[error("{step} failed ({status}). Last lines:\n{tail}\nWhole log: {log}")]
    Step {
        step: String,
        status: String,
        tail: String,
        log: PathBuf,
    },
    #[error("starting {tool}: {source}")]
    Start { tool: String, source: io::Error },
    #[error("the finished root is not fit for sandboxes: {0}")]
    Check(String),
    #[error("reading {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("writing {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

/// Shorthand for mapping an I/O error on a path that was read.
fn reading(path: &std::path::Path) -> impl FnOnce(io::Error) -> TemplateError + use<> {
    let path = path.to_owned();
    move |source| TemplateError::Read { path, source }
}

/// Shorthand for mapping an I/O error on a path that was written.
fn writing(path: &std::path::Path) -> impl FnOnce(io::Error) -> TemplateError + use<> {
    let path = path.to_owned();
    move |source| TemplateError::Write { path, source }
}
