//! What the numbers were measured on: without it they say nothing.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Load averages of one, five and fifteen minutes.
pub(crate) fn load() -> [f64; 3] {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut words = text.split_whitespace();
    std::array::from_fn(|_| {
        words
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(f64::NAN)
    })
}

/// A field of /proc/meminfo in MiB.
pub(crate) fn meminfo_mib(field: &str) -> Result<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line
        .and_then(|rest| rest.trim_start_matches(':').trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<f64>().ok())
        .with_context(|| format!("{field} of /proc/meminfo"))?;
    Ok(kib / 1024.0)
}

pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Facts that do not change during a run.
pub(crate) fn facts(binary: Option<&Path>) -> Value {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']));
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpus": cpus(),
        "cpu": model,
        "memoryMiB": meminfo_mib("MemTotal").map(f64::round).ok(),
        "transparentHugePages": read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "commit": commit(),
        "binary": binary.and_then(describe),
        "binaryVersion": binary.and_then(|path| said(Command::new(path).arg("--version"))),
        "date": jiff::Timestamp::now().to_string(),
    })
}

/// A binary, so that two can be told apart: name, size and the time it was made.
fn describe(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok()?;
    let made = jiff::Timestamp::try_from(metadata.modified().ok()?).ok()?;
    Some(format!(
        "{} ({} bytes, made {})",
        path.file_name()?.display(),
        metadata.len(),
        made.strftime("%Y-%m-%dT%H:%M:%SZ")
    ))
}

/// The commit of the working directory; "+" when it has changes.
fn commit() -> Option<String> {
    let head = said(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]))?;
    let changes = said(Command::new("git").args(["status", "--porcelain", "--untracked-files=no"]));
    let dirty = changes.is_some_and(|text| !text.is_empty());
    Some(format!("{head}{}", if dirty { "+" } else { "" }))
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
