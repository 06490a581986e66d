//! One bash process: how it is started, what is written to it and read from it, how it ends.
//!
//! Its stdin is a pipe that only this driver writes to, its stdout /dev/null, its stderr a pipe to
//! this driver (`report.rs`). The pipes of the context are descriptors with high numbers that a cell
//! is given as its own, so that nothing a cell does to them lasts.

use crate::error::KernelError;
use crate::lines::PrivateFds;
use crate::place::hexadecimal;
use crate::report::{Mark, Report};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

/// Where Debian and others have it.
const PROGRAMS: [&str; 2] = ["/bin/bash", "/usr/bin/bash"];
/// Lowest number of a private descriptor: above what programs use by hand, below a limit of 64
/// open files plus what bash saves.
const PRIVATE_FD_MIN: i32 = 60;
/// What one read of the report takes.
const REPORT_READ_BYTES: usize = 16 * 1024;
/// Reads of the report in one turn: code that floods it must not keep the driver.
const REPORT_READS_MAX: usize = 64;
/// Lines that wait for the shell to read them: a state that is given back, and a cell's.
const BACKLOG_BYTES_MAX: usize = 64 * 1024 * 1024;
const TOKEN_BYTES: usize = 8;

/// How a shell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

/// The descriptors that every shell of this driver is given.
#[derive(Debug)]
pub(crate) struct Descriptors {
    stdout: OwnedFd,
    stderr: OwnedFd,
    null: OwnedFd,
    started: OwnedFd,
    /// Has a byte for every cell that has begun.
    started_read: OwnedFd,
}

impl Descriptors {
    pub(crate) fn open() -> Result<Self, Errno> {
        let high = |fd: BorrowedFd<'_>| fcntl_dupfd_cloexec(fd, PRIVATE_FD_MIN);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, Mode::empty())?;
        let (started_read, started) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self {
            stdout: high(io::stdout().as_fd())?,
            stderr: high(io::stderr().as_fd())?,
            null: high(null.as_fd())?,
            started: high(started.as_fd())?,
            started_read,
        })
    }

    pub(crate) fn numbers(&self) -> PrivateFds {
        PrivateFds {
            stdout: self.stdout.as_raw_fd(),
            stderr: self.stderr.as_raw_fd(),
            null: self.null.as_raw_fd(),
            started: self.started.as_raw_fd(),
        }
    }

    /// Readable once a cell has begun.
    pub(crate) fn started(&self) -> BorrowedFd<'_> {
        self.started_read.as_fd()
    }

    /// Takes what is in the pipe of begun cells: whether there was anything.
    pub(crate) fn take_started(&self) -> bool {
        let mut bytes = [0_u8; 64];
        let mut any = false;
        while matches!(rustix::io::read(&self.started_read, &mut bytes), Ok(1..)) {
            any = true;
        }
        any
    }

    /// Whether the next program that is started gets them.
    fn inherit(&self, inherit: bool) -> Result<(), Errno> {
        let flags = if inherit {
            FdFlags::empty()
        } else {
            FdFlags::CLOEXEC
        };
        for fd in [&self.stdout, &self.stderr, &self.null, &self.started] {
            fcntl_setfd(fd, flags)?;
        }
        Ok(())
    }
}

/// One running bash.
#[derive(Debug)]
pub(crate) struct Shell {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    commands: OwnedFd,
    backlog: Vec<u8>,
    report_read: OwnedFd,
    report: Report,
    /// Name of a variable that nobody else knows.
    pub(crate) token: String,
}

impl Shell {
    pub(crate) fn start(
        environment: &BTreeMap<String, String>,
        descriptors: &Descriptors,
    ) -> Result<Self, KernelError> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| KernelError::Prepare("pipe", e));
        let (commands_read, commands) = pipe()?;
        let (report_read, report_write) = pipe()?;
        let mut random = [0_u8; TOKEN_BYTES];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| KernelError::Prepare("getrandom", e))?;
        let token = format!("__crownest_{}", hexadecimal(&random));
        for fd in [&commands, &report_read] {
            rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK)
                .map_err(|e| KernelError::Prepare("nonblocking pipe", e))?;
        }
        let mut command = Command::new(program());
        command
            .arg0("bash")
            .args(["--noprofile", "--norc", "--noediting", "-i"])
            .env_clear()
            .envs(environment)
            .stdin(commands_read)
            .stdout(Stdio::null())
            .stderr(report_write)
            // A group of its own: what a cell starts without job control is in it too, and gets
            // the signals of an interrupt.
            .process_group(0);
        let inherit = |yes| {
            descriptors
                .inherit(yes)
                .map_err(|e| KernelError::Prepare("private descriptors", e))
        };
        inherit(true)?;
        let spawned = command.spawn();
        inherit(false)?;
        let child = spawned.map_err(KernelError::Spawn)?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|e| KernelError::Prepare("pidfd_open", e))?;
        Ok(Self {
            child,
            pid,
            pidfd,
            commands,
            backlog: Vec::new(),
            report_read,
            report: Report::new(&token),
            token,
        })
    }

    /// The number of bash, of its process group too.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable when bash has ended, whoever still holds its pipes.
    pub(crate) fn death(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(crate) fn report(&self) -> BorrowedFd<'_> {
        self.report_read.as_fd()
    }

    /// To be watched for room while there is something to write.
    pub(crate) fn waiting_commands(&self) -> Option<BorrowedFd<'_>> {
        (!self.backlog.is_empty()).then(|| self.commands.as_fd())
    }

    /// Lines for bash, as fast as it reads them. One that has stopped reading is soon found out by
    /// whoever waits for its marks.
    pub(crate) fn write(&mut self, lines: &[u8]) {
        if self.backlog.len() + lines.len() <= BACKLOG_BYTES_MAX {
            self.backlog.extend_from_slice(lines);
        }
        self.flush();
    }

    pub(crate) fn flush(&mut self) {
        let mut written = 0;
        while written < self.backlog.len() {
            match rustix::io::write(&self.commands, &self.backlog[written..]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Its end is seen by its pidfd.
                Err(_) => written = self.backlog.len(),
            }
        }
        self.backlog.drain(..written);
    }

    /// Reads what bash says.
    pub(crate) fn read_report(&mut self) {
        let mut buffer = [0_u8; REPORT_READ_BYTES];
        for _ in 0..REPORT_READS_MAX {
            match rustix::io::read(&self.report_read, &mut buffer) {
                Ok(0) => break,
                Ok(count) => self.report.push(&buffer[..count]),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
    }

    pub(crate) fn next_mark(&mut self) -> Option<(Mark, String)> {
        self.report.next_mark()
    }

    /// To bash and to everything in its process group.
    pub(crate) fn signal_group(&self, signal: Signal) {
        // It may have ended a moment ago; nobody else has its number before it is waited for.
        let _ = kill_process_group(self.pid, signal);
    }

    /// How it ended; its pidfd has said that it did.
    pub(crate) fn wait(&mut self) -> Exit {
        match self.child.wait() {
            Ok(status) => status.signal().map_or_else(
                || Exit::Code(status.code().unwrap_or_default()),
                Exit::Signal,
            ),
            Err(_) => Exit::Code(0),
        }
    }
}

impl Drop for Shell {
    /// Ends bash alone and waits until it is gone; its jobs are not the driver's to end.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bash as it is installed here.
pub(crate) fn program() -> &'static str {
    PROGRAMS
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .unwrap_or(PROGRAMS[0])
}
