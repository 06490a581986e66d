//! `crownest.toml`: its keys become the defaults of the options, so that flag and environment
//! stay stronger and nothing is parsed in two ways.

use anyhow::{Context, bail};
use clap::{Arg, Command};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const DEFAULT_PATH: &str = "/etc/crownest/crownest.toml";

/// Reads the file that this command line or environment names and puts its values in.
///
/// # Errors
/// When a named file cannot be read, or a key or value is not one of an option.
pub(crate) fn apply(command: Command) -> anyhow::Result<Command> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_none_or(|a| a != "serve") {
        return Ok(command);
    }
    let (path, named) = match named_path(&arguments) {
        Some(path) => (path, true),
        None => (PathBuf::from(DEFAULT_PATH), false),
    };
    if !named && !path.exists() {
        return Ok(command);
    }
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    apply_text(command, &text, &path)
}

fn named_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|a| a.strip_prefix("--config=")) {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os("CROWNEST_CONFIG").map(PathBuf::from)
}

fn apply_text(command: Command, text: &str, path: &Path) -> anyhow::Result<Command> {
    let table: toml::Table = text
        .parse()
        .with_context(|| format!("reading {}", path.display()))?;
    let mut values = Vec::new();
    for (key, value) in table {
        let flag = key.replace('_', "-");
        let serve = command
            .find_subcommand("serve")
            .context("the subcommand is defined in main")?;
        let known = |arg: &Arg| arg.get_long() == Some(flag.as_str()) && flag != "config";
        let Some(arg) = serve.get_arguments().find(|arg| known(arg)) else {
            bail!("{}: there is no option {key:?}", path.display());
        };
        let texts = texts(&value).with_context(|| format!("{}: {key}", path.display()))?;
        values.push((arg.get_id().clone(), texts));
    }
    Ok(command.mut_subcommand("serve", |serve| {
        values.into_iter().fold(serve, |serve, (id, texts)| {
            serve.mut_arg(id, |arg| arg.default_values(texts))
        })
    }))
}

/// A value as the flag would have it.
fn texts(value: &toml::Value) -> anyhow::Result<Vec<clap::builder::OsStr>> {
    let one = |value: &toml::Value| match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(yes) => Ok(yes.to_string()),
        other => bail!("a {} is not possible here", other.type_str()),
    };
    let texts = match value {
        toml::Value::Array(values) => values.iter().map(one).collect::<anyhow::Result<Vec<_>>>()?,
        value => vec![one(value)?],
    };
    Ok(texts.into_iter().map(clap::builder::OsStr::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cli;
    use clap::{CommandFactory, FromArgMatches};

    fn serve(toml: &str, arguments: &[&str]) -> anyhow::Result<crate::ServeOptions> {
        let command = apply_text(Cli::command(), toml, Path::new("x.toml"))?;
        let arguments = ["crownest", "serve"].iter().chain(arguments);
        let cli = Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)?;
        match cli.command {
            crate::Command::Serve(options) => Ok(*options),
            other => bail!("{other:?}"),
        }
    }

    #[test]
    fn the_file_is_weaker_than_flags() {
        let toml = "pool = 9\negress_allow = ['a.example', '10.0.0.0/8']\nmetrics = false";
        let options = serve(toml, &[]).unwrap();
        assert_eq!((options.pool, options.metrics), (9, false));
        assert_eq!(options.egress_allow, ["a.example", "10.0.0.0/8"]);
        assert_eq!(serve(toml, &["--pool", "2"]).unwrap().pool, 2);
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused() {
        assert!(
            serve("poool = 9", &[])
                .unwrap_err()
                .to_string()
                .contains("poool")
        );
        assert!(serve("pool = 'many'", &[]).is_err());
        assert!(serve("pool = 1.5", &[]).is_err());
        assert!(serve("config = '/x'", &[]).is_err());
    }
}
