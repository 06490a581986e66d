//! `crownest doctor`: what this machine can and cannot do, and what follows.

use anyhow::Context;
use crownest_runtime::doctor::{Check, Options, Report, SANDBOXES_WANTED, Status, examine};
use crownest_runtime::template::TEMPLATES_DIR;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Columns of the name of a check.
const NAME_WIDTH: usize = 22;

/// Try what sandboxes need and say what follows. Exit code 0: sandboxes can run here.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// One JSON object instead of lines for people.
    #[arg(long)]
    json: bool,
    /// Where built templates are.
    #[arg(long, env = "CROWNEST_TEMPLATES_DIR", default_value = TEMPLATES_DIR)]
    templates_dir: PathBuf,
    /// Where the server is going to listen.
    #[arg(long, env = "CROWNEST_LISTEN", default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
}

/// Runs the command. Must be called while the process has one thread: it forks the way the
/// spawner does.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let options = Options {
        templates_dir: args.templates_dir.clone(),
        listen: args.listen,
    };
    let report = examine(&options);
    let mut out = std::io::stdout().lock();
    let text = if args.json {
        let mut json = serde_json::to_string_pretty(&report)?;
        json.push('\n');
        json
    } else {
        render(&report, out.is_terminal())
    };
    out.write_all(text.as_bytes())
        .context("writing to standard output")?;
    Ok(if report.can_run {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn render(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    for check in &report.checks {
        render_check(&mut text, check, colour);
    }
    let count = |status| {
        report
            .checks
            .iter()
            .filter(|check: &&Check| check.status == status)
            .count()
    };
    let (warnings, failures) = (count(Status::Warn), count(Status::Fail));
    let verdict = if report.can_run {
        "Sandboxes can run here"
    } else {
        "Sandboxes cannot run here"
    };
    writeln!(
        text,
        "\n{verdict}: {} checks, {warnings} warnings, {failures} failures. Limits are judged for \
         {SANDBOXES_WANTED} sandboxes.",
        report.checks.len()
    )
    .expect("writing to a String");
    text
}

fn render_check(text: &mut String, check: &Check, colour: bool) {
    let (word, code) = match check.status {
        Status::Ok => ("ok  ", "32"),
        Status::Warn => ("warn", "33"),
        Status::Fail => ("FAIL", "31"),
    };
    let word = if colour {
        format!("\x1b[{code}m{word}\x1b[0m")
    } else {
        word.to_owned()
    };
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("writing to a String");
        text.push('\n');
    };
    line(format_args!(
        "{word}  {:<NAME_WIDTH$}  {}",
        check.name, check.found
    ));
    let indent = NAME_WIDTH + 8;
    if let Some(consequence) = &check.consequence {
        line(format_args!("{:indent$}so:  {consequence}", ""));
    }
    if let Some(remedy) = &check.remedy {
        line(format_args!("{:indent$}fix: {remedy}", ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_follows_and_what_to_do() {
        let failed = Check {
            name: "overlay",
            status: Status::Fail,
            found: "No such device".to_owned(),
            consequence: Some("a sandbox's root is an overlay".to_owned()),
            remedy: Some("modprobe overlay".to_owned()),
        };
        let fine = Check {
            name: "root",
            status: Status::Ok,
            found: "yes".to_owned(),
            consequence: None,
            remedy: None,
        };
        let report = Report {
            can_run: false,
            checks: vec![fine, failed],
        };
        let text = render(&report, false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("ok    root") && lines[0].ends_with("yes"),
            "{text}"
        );
        assert!(lines[1].starts_with("FAIL  overlay"), "{text}");
        assert!(
            lines[2].trim().starts_with("so:") && lines[3].trim().starts_with("fix:"),
            "{text}"
        );
        assert!(
            text.contains("cannot run here: 2 checks, 0 warnings, 1 failures"),
            "{text}"
        );
        assert!(!text.contains('\x1b'));
        assert!(render(&report, true).contains("\x1b[31mFAIL"));
    }
}
