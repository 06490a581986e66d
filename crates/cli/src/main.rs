//! The `crownest` program.
//!
//! Owns: arguments, configuration, which process runs as whom. Does not own: anything a process
//! does once it runs; that is in the other crates.
//!
//! `crownest serve` is three processes: a supervisor (root, waits for its children and does
//! nothing else), the spawner (root, makes sandboxes) and the server (unprivileged, confined,
//! speaks HTTP). The last two are this program again, with hidden subcommands.

#![forbid(unsafe_code)]

mod admin;
mod admin_agents;
mod confine;
mod credentials;
mod doctor;
mod options;
mod options_file;
mod pools;
mod prepare;
mod server;
mod settings;
mod spawner;
mod supervisor;
mod template;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use options::ServeOptions;
use std::process::ExitCode;

/// Self-hosted code interpreter and sandbox service.
#[derive(Debug, Parser)]
#[command(name = "crownest", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (needs root to start; serves as an unprivileged user).
    Serve(Box<ServeOptions>),
    /// Build, list and remove what sandboxes start from.
    Template(template::TemplateArgs),
    /// Say what this machine can and cannot do, and what follows.
    Doctor(doctor::DoctorArgs),
    /// Organizations, projects and keys, on the machine itself.
    Admin(admin::AdminArgs),
    /// Print the reference of all options (docs/configuration.md).
    #[command(hide = true)]
    ConfigurationReference,
    /// The privileged process; started by `serve`.
    #[command(hide = true)]
    Spawner(spawner::SpawnerArgs),
    /// The unprivileged process; started by `serve`.
    #[command(hide = true)]
    Server,
}

fn main() -> ExitCode {
    let command = match options_file::apply(Cli::command()) {
        Ok(command) => command,
        Err(error) => return failure(&error, ExitCode::from(supervisor::EXIT_CONFIGURATION)),
    };
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    let outcome = match cli.command {
        Command::Serve(options) => return supervisor::run(*options),
        Command::Spawner(args) => spawner::run(&args),
        Command::Server => return server::run(),
        Command::Template(args) => template::run(&args),
        Command::Doctor(args) => match doctor::run(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Admin(args) => admin::run(args),
        Command::ConfigurationReference => {
            print!(
                "{}",
                options::reference(&ServeOptions::augment_args(clap::Command::new("serve")))
            );
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error, ExitCode::FAILURE),
    }
}

/// Says what went wrong, outermost step first.
fn failure(error: &anyhow::Error, code: ExitCode) -> ExitCode {
    eprintln!("crownest: {error:#}");
    code
}
