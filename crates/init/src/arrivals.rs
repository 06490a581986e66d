//! How a driver comes: adopted from a zygote, or started as a new process.
//!
//! Both end in a [`Driver`] that somebody waits for until it has said `ready`.

use crate::calls::{Handled, ReplyTo, refuse};
use crate::clock;
use crate::driver::{Background, Control, Driver, Role, Waiting};
use crate::environment::{self, Environment, Prepared};
use crate::host::Host;
use crate::output::{OutputPipe, set_nonblocking};
use crate::poller::{Source, Token};
use crate::sys::spawn::{self, Program, Started};
use crownest_init::kernel::KernelOp;
use crownest_init::link::{CallError, CallErrorCode, DRIVER_READY_MS_MAX, Stream};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Where a driver starts that does not know its context yet.
const SPARE_DIRECTORY: &str = "/workspace";

/// The ends of a driver's channels that are ours.
struct Channels {
    control: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Host {
    /// `ContextAdopt`: four descriptors of a driver that a zygote forked into this sandbox.
    pub(crate) fn context_adopt(
        &mut self,
        to: ReplyTo,
        language: String,
        fds: Vec<OwnedFd>,
    ) -> Handled {
        environment::check_name("language", &language)?;
        self.check_driver_room()?;
        let Ok([control, stdout, stderr, pidfd]) = <[OwnedFd; 4]>::try_from(fds) else {
            return refuse(CallErrorCode::Invalid, "a driver has four descriptors");
        };
        // Own pid namespace only: the number is used for groups and sessions.
        let Some(pid) = pid_behind(&pidfd) else {
            return refuse(
                CallErrorCode::Invalid,
                "the pidfd is not of a process in this sandbox",
            );
        };
        let key = self.new_key();
        let channels = Channels {
            control,
            stdout,
            stderr,
        };
        let waiting = waiting(to, None);
        let made = self.make_driver(key, language, Role::Spare, channels, waiting);
        let adopted = made.and_then(|mut driver| {
            let mut source = Source::new(&self.poller, pidfd, Token::DriverPidfd(key));
            source.want(EventFlags::IN)?;
            driver.pidfd = Some(source);
            driver.pid = pid;
            Ok(driver)
        });
        match adopted {
            Ok(driver) => {
                self.drivers.insert(key, driver);
                Ok(None)
            }
            Err(error) => refuse(
                CallErrorCode::SpawnFailed,
                format!("adopt the driver: {error}"),
            ),
        }
    }

    /// `ContextSpawn`: a driver as a new process.
    pub(crate) fn context_spawn(
        &mut self,
        to: ReplyTo,
        context: &str,
        language: String,
        argv: &[String],
        cwd: String,
        env: &Environment,
    ) -> Handled {
        self.check_new_context(context)?;
        environment::check_name("language", &language)?;
        self.check_driver_room()?;
        environment::check(env)?;
        let env = environment::for_started(&self.environment, env);
        let process_env = environment::for_driver(&language, &env);
        let program = Prepared::new(argv, &cwd, &process_env)?;
        let waiting = waiting(to, Some(KernelOp::Start { cwd, env }));
        let role = Role::Context(context.to_owned());
        self.start_driver(&program, role, language, waiting)?;
        self.dead_contexts.retain(|dead| dead != context);
        Ok(None)
    }

    /// `SpareSpawn`: a driver as a new process, for a context to come.
    pub(crate) fn spare_spawn(
        &mut self,
        to: ReplyTo,
        language: String,
        argv: &[String],
    ) -> Handled {
        environment::check_name("language", &language)?;
        self.check_driver_room()?;
        let env = environment::for_started(&self.environment, &Environment::new());
        let env = environment::for_driver(&language, &env);
        let program = Prepared::new(argv, SPARE_DIRECTORY, &env)?;
        self.start_driver(&program, Role::Spare, language, waiting(to, None))?;
        Ok(None)
    }

    fn start_driver(
        &mut self,
        program: &Prepared,
        role: Role,
        language: String,
        waiting: Waiting,
    ) -> Result<(), CallError> {
        self.try_start_driver(program, role, language, waiting)
            .or_else(|error| {
                refuse(
                    CallErrorCode::SpawnFailed,
                    format!("start the driver: {error}"),
                )
            })
    }

    fn try_start_driver(
        &mut self,
        program: &Prepared,
        role: Role,
        language: String,
        waiting: Waiting,
    ) -> Result<(), Errno> {
        let key = self.new_key();
        let (control, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let (stdout, stdout_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let channels = Channels {
            control,
            stdout,
            stderr,
        };
        // Everything that can fail without a child comes before the child.
        let mut driver = self.make_driver(key, language, role, channels, waiting)?;
        let outputs = [stdout_write.as_fd(), stderr_write.as_fd()];
        let [stdout, stderr] = outputs;
        let fds = [self.null.as_fd(), stdout, stderr];
        let child = self.start_program(program, fds, Some(theirs.as_fd()), false)?;
        driver.pid = child.pid;
        let mut status = Source::new(&self.poller, child.status, Token::DriverStatus(key));
        if let Err(error) = status.want(EventFlags::IN) {
            driver.kill("not_watched");
            return Err(error);
        }
        driver.status = Some(status);
        self.drivers.insert(key, driver);
        Ok(())
    }

    /// Forks a tenant process, with our /dev/null as its input.
    pub(crate) fn start_program(
        &self,
        program: &Prepared,
        [stdin, stdout, stderr]: [BorrowedFd<'_>; 3],
        control: Option<BorrowedFd<'_>>,
        terminal: bool,
    ) -> Result<Started, Errno> {
        spawn::start(&Program {
            paths: &program.paths,
            argv: &program.argv,
            env: &program.env,
            cwd: &program.cwd,
            stdin,
            stdout,
            stderr,
            control,
            identity: program.identity,
            terminal,
            files_limit: self.files_limit,
        })
    }

    fn make_driver(
        &self,
        key: u64,
        language: String,
        role: Role,
        channels: Channels,
        waiting: Waiting,
    ) -> Result<Driver, Errno> {
        set_nonblocking(&channels.control)?;
        let pipe = |fd, token, stream| OutputPipe::new(&self.poller, fd, token, stream);
        Ok(Driver {
            language,
            role,
            pid: 0,
            pidfd: None,
            status: None,
            control: Control::new(Source::new(
                &self.poller,
                channels.control,
                Token::DriverControl(key),
            )),
            pipes: [
                pipe(channels.stdout, Token::DriverStdout(key), Stream::Stdout)?,
                pipe(channels.stderr, Token::DriverStderr(key), Stream::Stderr)?,
            ],
            background: [Background::default(), Background::default()],
            background_dropped: 0,
            waiting: Some(waiting),
            run: None,
            meter: None,
            reason: None,
            hung_up_until: None,
            dead: None,
            frames_dropped: 0,
        })
    }

    /// A child's exec has succeeded or failed.
    pub(crate) fn driver_status(&mut self, key: u64) {
        let Some(driver) = self.drivers.get_mut(&key) else {
            return;
        };
        let Some(status) = driver.status.take() else {
            return;
        };
        let mut bytes = [0; spawn::FAILURE_BYTES];
        let count = rustix::io::read(&status, &mut bytes).unwrap_or(0);
        let Some((step, error)) = spawn::failure(&bytes[..count]) else {
            return;
        };
        let reply = driver.waiting.take().map(|waiting| waiting.reply);
        self.drivers.remove(&key);
        if let Some(reply) = reply {
            let message = crate::execs::spawn_message(step, error);
            self.answer(reply, refuse(CallErrorCode::SpawnFailed, message));
        }
    }
}

fn waiting(reply: ReplyTo, start: Option<KernelOp>) -> Waiting {
    let until = clock::now() + Duration::from_millis(DRIVER_READY_MS_MAX);
    Waiting {
        reply,
        until,
        start,
    }
}

/// The number, in this pid namespace, of the process behind a pidfd. None for a process of
/// another namespace, a dead one, init itself, and for what is not a pidfd.
fn pid_behind(pidfd: &OwnedFd) -> Option<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))?
        .trim()
        .parse()
        .ok()?;
    (pid > 1).then_some(pid)
}
