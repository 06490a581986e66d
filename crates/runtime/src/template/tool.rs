//! Running other programs as steps of a build: isolated, bounded, logged, with progress.
//!
//! Every step runs in mount and pid namespaces of its own: whatever it mounts or leaves running
//! is gone with it, however it ends, so there is nothing to unmount and nothing to forget. It dies
//! with the builder: `setpriv --pdeathsig` for the program that makes the namespaces,
//! `--kill-child` for everything inside.

use super::{TemplateError, reading, writing};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A step that takes longer is killed.
const STEP_SECONDS_MAX: u64 = 1800;
/// Silence after which the first sign of life is printed.
const FIRST_PROGRESS_MS: u64 = 2000;
/// Time between further signs of life.
const PROGRESS_MS: u64 = 10_000;
/// How much of a log's end is shown.
const TAIL_BYTES_MAX: u64 = 4096;
const TAIL_LINES_MAX: usize = 15;
/// Width of the log line inside a progress line.
const PROGRESS_CHARS_MAX: usize = 70;

/// Mounts what programs expect below the new root, hands over the inputs and enters it.
/// Arguments: root, inputs (becomes /run/crownest-build, read-only), scratch (becomes /tmp),
/// `uid:gid`, command.
const ENTER_ROOT: &str = r#"set -eu
root=$1 inputs=$2 scratch=$3 owner=$4
shift 4
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o mode=0755,size=1m dev "$root/dev"
mkdir -m 1777 "$root/dev/shm"
mount -t tmpfs -o mode=1777,nosuid,nodev,size=512m shm "$root/dev/shm"
for node in null zero full random urandom; do
  : > "$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=0755,nosuid,nodev,size=64m run "$root/run"
mkdir "$root/run/crownest-build"
mount --bind "$inputs" "$root/run/crownest-build"
mount -o remount,bind,ro "$root/run/crownest-build"
mount --bind "$scratch" "$root/tmp"
if [ -d "$inputs/kernels" ]; then
  mount --bind "$inputs/kernels" "$root/opt/crownest"
  mount -o remount,bind,ro "$root/opt/crownest"
fi
for name in resolv.conf hosts; do
  if [ -e "/etc/$name" ]; then
    mount --bind "$(readlink -f "/etc/$name")" "$root/etc/$name"
    mount -o remount,bind,ro "$root/etc/$name"
  fi
done
exec chroot --userspec="$owner" "$root" "$@"
"#;

/// Directories and the report channel of one build.
pub(super) struct Workbench<'a> {
    /// Files that steps inside the root may read at /run/crownest-build.
    pub inputs: PathBuf,
    /// /tmp of steps inside the root.
    pub scratch: PathBuf,
    pub rootfs: PathBuf,
    pub logs: PathBuf,
    /// Prefix of every line of progress.
    pub slug: String,
    pub progress: &'a mut dyn FnMut(&str),
}

/// Who a step inside the root is.
#[derive(Clone, Copy)]
pub(super) enum As {
    Root,
    /// For what is built of our own sources: nothing is to be fetched.
    OfflineRoot,
    /// uid 1000, as in a sandbox; without a network.
    SandboxUser,
}

impl Workbench<'_> {
    /// Prints one line.
    pub(super) fn say(&mut self, text: &str) {
        (self.progress)(&format!("{}: {text}", self.slug));
    }

    /// Does something in this process and says how long it took when that was noticeable.
    pub(super) fn timed<T>(
        &mut self,
        step: &str,
        work: impl FnOnce() -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        let started = Instant::now();
        let result = work()?;
        self.say_done(step, started);
        Ok(result)
    }

    fn say_done(&mut self, step: &str, started: Instant) {
        if started.elapsed() >= Duration::from_millis(FIRST_PROGRESS_MS) {
            self.say(&format!(
                "{step}: done in {:.1} s",
                started.elapsed().as_secs_f64()
            ));
        }
    }

    /// Runs a program of the host. `environment` is all the environment it gets.
    ///
    /// Who runs it: root, in its own mount and pid namespaces.
    pub(super) fn host(
        &mut self,
        step: &str,
        command: &[&str],
        environment: &[(String, String)],
    ) -> Result<(), TemplateError> {
        self.run(step, &[], command, environment)
    }

    /// Runs a program inside the new root.
    pub(super) fn inside(
        &mut self,
        step: &str,
        who: As,
        command: &[&str],
        environment: &[(String, String)],
    ) -> Result<(), TemplateError> {
        let (root, inputs, scratch) = (
            path_text(&self.rootfs)?,
            path_text(&self.inputs)?,
            path_text(&self.scratch)?,
        );
        let (owner, network): (_, &[&str]) = match who {
            As::Root => ("0:0", &[]),
            As::OfflineRoot => ("0:0", &["--net"]),
            As::SandboxUser => ("1000:1000", &["--net"]),
        };
        let mut entering = vec![
            "sh",
            "-c",
            ENTER_ROOT,
            "enter-root",
            &root,
            &inputs,
            &scratch,
            owner,
        ];
        entering.extend_from_slice(command);
        self.run(step, network, &entering, environment)
    }

    fn run(
        &mut self,
        step: &str,
        namespaces: &[&str],
        command: &[&str],
        environment: &[(String, String)],
    ) -> Result<(), TemplateError> {
        let log_path = self.logs.join(format!("{}.log", step.replace(' ', "-")));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(writing(&log_path))?;
        let start = |source| TemplateError::Start {
            tool: step.to_owned(),
            source,
        };
        let errors = log.try_clone().map_err(start)?;
        let started = Instant::now();
        let mut child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "unshare",
                "--mount",
                "--pid",
                "--fork",
            ])
            .args(["--kill-child=KILL", "--mount-proc"])
            .args(namespaces)
            .arg("--")
            .args(command)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LC_ALL", "C.UTF-8")
            .env("LANG", "C.UTF-8")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(start)?;
        let status = self
            .wait(step, &mut child, &log_path, started)
            .map_err(start)?;
        if status.is_some_and(|status| status.success()) {
            self.say_done(step, started);
            return Ok(());
        }
        let status = status.map_or_else(
            || format!("killed after {STEP_SECONDS_MAX} s"),
            |status| status.to_string(),
        );
        Err(TemplateError::Step {
            step: format!("{}: {step}", self.slug),
            status,
            tail: last_lines(&log_path, TAIL_LINES_MAX)?,
            log: log_path,
        })
    }

    /// Waits on the child's pidfd and says from time to time how far it is. `None` when the time
    /// was up and it was killed.
    fn wait(
        &mut self,
        step: &str,
        child: &mut Child,
        log: &Path,
        started: Instant,
    ) -> std::io::Result<Option<ExitStatus>> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let pid = rustix::process::Pid::from_child(child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        let deadline = started + Duration::from_secs(STEP_SECONDS_MAX);
        let mut next = started + Duration::from_millis(FIRST_PROGRESS_MS);
        loop {
            let now = Instant::now();
            if now >= deadline {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            let pause = next.min(deadline).saturating_duration_since(now);
            let timeout = Timespec::try_from(pause).map_err(std::io::Error::other)?;
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => {
                    let line = last_lines(log, 1).unwrap_or_default();
                    let line: String = line.chars().take(PROGRESS_CHARS_MAX).collect();
                    let seconds = started.elapsed().as_secs();
                    self.say(&format!("{step}: {seconds} s, {line}"));
                    next = Instant::now() + Duration::from_millis(PROGRESS_MS);
                }
                Ok(_) => return child.wait().map(Some),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// The end of a log as printable text: a tool's output is not trusted with the terminal.
fn last_lines(log: &Path, lines_max: usize) -> Result<String, TemplateError> {
    let mut file = File::open(log).map_err(reading(log))?;
    let length = file.metadata().map_err(reading(log))?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)))
        .map_err(reading(log))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(reading(log))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text
        .split(['\n', '\r'])
        .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>())
        .filter(|line| !line.trim().is_empty())
        .collect();
    Ok(lines[lines.len().saturating_sub(lines_max)..].join("\n"))
}

/// Paths on a command line; the templates directory is the operator's, so any other is refused.
pub(super) fn path_text(path: &Path) -> Result<String, TemplateError> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| TemplateError::Read {
            path: path.to_owned(),
            source: std::io::Error::other("path is not UTF-8"),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_short_and_cannot_drive_a_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        let mut text = "noise\n".repeat(10_000);
        text.push_str("\u{1b}[2Jfirst\n\nsecond \u{7}\r");
        std::fs::write(&log, text).unwrap();
        assert_eq!(last_lines(&log, 2).unwrap(), "[2Jfirst\nsecond ");
        assert_eq!(last_lines(&log, 1000).unwrap().len().div_ceil(4096), 1);
    }
}
