//! `crownest template`: build, list and remove what sandboxes start from.

use anyhow::Context;
use crownest_runtime::template::{self, BuildOptions, Built, Definition, TemplateError};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// Build, list and remove the root filesystems that sandboxes start from.
#[derive(Debug, clap::Args)]
pub(crate) struct TemplateArgs {
    /// Where built templates are.
    #[arg(long, global = true, env = "CROWNEST_TEMPLATES_DIR", default_value = template::TEMPLATES_DIR)]
    templates_dir: PathBuf,
    /// Where your own <slug>/template.toml are; they come before the built-in ones.
    #[arg(long, global = true, env = "CROWNEST_DEFINITIONS_DIR", default_value = template::DEFINITIONS_DIR)]
    definitions_dir: PathBuf,
    #[command(subcommand)]
    command: TemplateCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TemplateCommand {
    /// Build templates that are missing or whose definition has changed (needs root).
    Build(BuildArgs),
    /// List what can be built and what has been.
    Ls {
        /// One JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Remove a built version; refused while a server uses it.
    Rm {
        /// SLUG (its current version), SLUG@VERSION, a version id or a digest.
        #[arg(required = true)]
        selectors: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct BuildArgs {
    /// Slugs, for example: base python
    #[arg(required_unless_present = "all")]
    slugs: Vec<String>,
    /// Every template there is a definition of.
    #[arg(long, conflicts_with = "slugs")]
    all: bool,
    /// Build again although the definition is unchanged, to take in the distribution's updates.
    #[arg(long)]
    refresh: bool,
}

/// One line of `ls`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    slug: String,
    version: String,
    version_id: Option<String>,
    digest: Option<String>,
    built_at: Option<String>,
    disk_bytes: Option<u64>,
    languages: Vec<String>,
    /// `current`, `older` or `not built`.
    state: &'static str,
    /// Whether the definition has changed since.
    outdated: bool,
    rootfs: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Those of the step that failed, with what to do about it.
pub(crate) fn run(args: &TemplateArgs) -> anyhow::Result<()> {
    match &args.command {
        TemplateCommand::Build(build) => run_build(args, build),
        TemplateCommand::Ls { json } => run_list(args, *json),
        TemplateCommand::Rm { selectors } => {
            for selector in selectors {
                let built = template::remove(selector, &args.templates_dir)?;
                say(&format!(
                    "removed {}@{} ({})",
                    built.slug, built.version, built.version_id
                ))?;
            }
            Ok(())
        }
    }
}

fn run_build(args: &TemplateArgs, build: &BuildArgs) -> anyhow::Result<()> {
    let slugs = if build.all {
        Definition::slugs(Some(&args.definitions_dir))
    } else {
        build.slugs.clone()
    };
    let options = BuildOptions {
        definitions: Some(args.definitions_dir.clone()),
        refresh: build.refresh,
    };
    for slug in &slugs {
        // Progress may go to a closed pipe; the build goes on.
        let mut progress = |line: &str| drop(say(line));
        template::build(slug, &args.templates_dir, &options, &mut progress)
            .with_context(|| format!("building template {slug}"))?;
    }
    Ok(())
}

fn run_list(args: &TemplateArgs, json: bool) -> anyhow::Result<()> {
    let rows = rows(args)?;
    if json {
        return say(&serde_json::to_string_pretty(&rows)?);
    }
    say(&format!(
        "{:<18} {:<12} {:<32} {:>8}  STATE",
        "SLUG", "VERSION", "VERSION ID", "MB"
    ))?;
    for row in rows {
        let megabytes = row
            .disk_bytes
            .map_or_else(String::new, |b| (b / 1_000_000).to_string());
        let id = row.version_id.as_deref().unwrap_or("-");
        let hint = match (row.state, row.outdated) {
            ("not built", _) => format!("; run: crownest template build {}", row.slug),
            ("current", true) => {
                format!(
                    "; its definition has changed, run: crownest template build {}",
                    row.slug
                )
            }
            _ => String::new(),
        };
        say(&format!(
            "{:<18} {:<12} {id:<32} {megabytes:>8}  {}{hint}",
            row.slug, row.version, row.state
        ))?;
    }
    Ok(())
}

/// Everything built, and every definition that is not.
fn rows(args: &TemplateArgs) -> Result<Vec<Row>, TemplateError> {
    let built = template::list(&args.templates_dir)?;
    let definitions = Some(args.definitions_dir.as_path());
    let mut rows = Vec::new();
    for slug in Definition::slugs(definitions) {
        if !built
            .iter()
            .any(|built| built.slug == slug && built.current)
        {
            let definition = Definition::load(&slug, definitions)?;
            rows.push(Row {
                slug,
                version: definition.version,
                version_id: None,
                digest: None,
                built_at: None,
                disk_bytes: None,
                languages: definition.languages,
                state: "not built",
                outdated: false,
                rootfs: None,
            });
        }
    }
    for one in &built {
        let outdated = one.current && is_outdated(one, &built, definitions);
        rows.push(Row {
            slug: one.slug.clone(),
            version: one.version.clone(),
            version_id: Some(one.version_id.clone()),
            digest: Some(one.digest.clone()),
            built_at: Some(one.manifest.built_at.to_string()),
            disk_bytes: Some(one.manifest.disk_bytes),
            languages: one.languages.clone(),
            state: if one.current { "current" } else { "older" },
            outdated,
            rootfs: Some(one.rootfs.clone()),
        });
    }
    rows.sort_by(|a, b| (&a.slug, a.state).cmp(&(&b.slug, b.state)));
    Ok(rows)
}

/// Whether `build` would make something new. A template without a definition is nobody's to judge.
fn is_outdated(one: &Built, built: &[Built], definitions: Option<&std::path::Path>) -> bool {
    let Ok(definition) = Definition::load(&one.slug, definitions) else {
        return false;
    };
    let base = definition.from.as_ref().map(|from| {
        let base = built
            .iter()
            .find(|built| built.current && built.slug == *from);
        base.map_or(String::new(), |base| base.digest.clone())
    });
    definition.digest(base.as_deref()) != one.manifest.definition_digest
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("writing to standard output")
}
