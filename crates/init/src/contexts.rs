//! Contexts: which driver serves which, from adoption or start to death.

use crate::calls::{Answer, Handled, ReplyTo, done, refuse};
use crate::driver::{Background, Control, Dead, Driver, Role, Waiting};
use crate::environment::{self, Environment};
use crate::host::Host;
use crate::log::log;
use crate::output::{OutputPipe, set_nonblocking};
use crate::poller::{Source, Token};
use crate::processes;
use crate::runs::{self, Meaning};
use crate::sys::pidfd;
use crate::sys::spawn::{self, Exit, Program};
use crownest_init::kernel::KernelOp;
use crownest_init::link::{CONTEXTS_MAX, CallErrorCode, DRIVER_READY_MS_MAX, EventKind, Stream};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Names of dead contexts that are remembered, to say "dead" instead of "unknown".
const DEAD_CONTEXTS_MAX: usize = CONTEXTS_MAX;
/// A driver that closed its control socket is useless. If that was its exit, its death comes
/// within this time and with its real cause.
const HANG_UP_GRACE_MS: u64 = 200;

/// The ends of a driver's channels that are ours.
struct Channels {
    control: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// The driver of a context, dead or alive.
pub(crate) fn find_context(drivers: &BTreeMap<u64, Driver>, context: &str) -> Option<u64> {
    drivers
        .iter()
        .find(|(_, driver)| driver.context() == Some(context))
        .map(|(key, _)| *key)
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
        let made = self.make_driver(key, pid, language, Role::Spare, channels, waiting);
        let adopted = made.and_then(|mut driver| {
            let mut source = Source::new(&self.poller, pidfd, Token::DriverPidfd(key));
            source.want(EventFlags::IN)?;
            driver.pidfd = Some(source);
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

    /// `ContextOpen`: a spare becomes the driver of a context.
    pub(crate) fn context_open(
        &mut self,
        context: &str,
        language: &str,
        cwd: String,
        env: &Environment,
    ) -> Handled {
        self.check_new_context(context)?;
        environment::check(env)?;
        environment::directory(&cwd)?;
        let env = environment::for_running(&self.environment, env);
        let Some(driver) = self.drivers.values_mut().find(|d| d.is_spare(language)) else {
            return refuse(CallErrorCode::NoSpare, "no spare driver of that language");
        };
        driver.control.send(&KernelOp::Start { cwd, env })?;
        driver.role = Role::Context(context.to_owned());
        self.dead_contexts.retain(|dead| dead != context);
        done()
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
        let mut process_env = env.clone();
        process_env.insert("CROWNEST_KERNEL_FD".to_owned(), "3".to_owned());
        let arguments = environment::arguments(argv)?;
        let directory = environment::directory(&cwd)?;
        let paths = environment::candidates(&argv[0], &env)?;
        let strings = environment::strings(&process_env)?;
        let key = self.new_key();
        let started = (|| {
            let (control, theirs) = socketpair(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            let (stdout, stdout_write) = pipe_with(PipeFlags::CLOEXEC)?;
            let (stderr, stderr_write) = pipe_with(PipeFlags::CLOEXEC)?;
            let program = Program {
                paths: &paths,
                argv: &arguments,
                env: &strings,
                cwd: &directory,
                stdin: self.null.as_fd(),
                stdout: stdout_write.as_fd(),
                stderr: stderr_write.as_fd(),
                control: Some(theirs.as_fd()),
                files_limit: self.files_limit,
            };
            let child = spawn::start(&program)?;
            Ok::<_, Errno>((
                child,
                Channels {
                    control,
                    stdout,
                    stderr,
                },
            ))
        })();
        let (child, channels) = match started {
            Ok(started) => started,
            Err(error) => {
                return refuse(
                    CallErrorCode::SpawnFailed,
                    format!("start the driver: {error}"),
                );
            }
        };
        let waiting = waiting(to, Some(KernelOp::Start { cwd, env }));
        let role = Role::Context(context.to_owned());
        let made = self.make_driver(key, child.pid, language, role, channels, waiting);
        let watched = made.and_then(|mut driver| {
            let mut status = Source::new(&self.poller, child.status, Token::DriverStatus(key));
            status.want(EventFlags::IN)?;
            driver.status = Some(status);
            Ok(driver)
        });
        match watched {
            Ok(driver) => {
                self.dead_contexts.retain(|dead| dead != context);
                self.drivers.insert(key, driver);
                Ok(None)
            }
            Err(error) => {
                processes::kill_session(child.pid);
                let _ = crate::sys::signals::send(child.pid, false, 9);
                refuse(
                    CallErrorCode::SpawnFailed,
                    format!("watch the driver: {error}"),
                )
            }
        }
    }

    fn make_driver(
        &self,
        key: u64,
        pid: i32,
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
            pid,
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
            reason: None,
            hung_up_until: None,
            dead: None,
            frames_dropped: 0,
        })
    }

    /// `ContextClose`: the name is free at once; a run that is active ends as `died`.
    pub(crate) fn context_close(&mut self, context: &str) -> Handled {
        self.dead_contexts.retain(|dead| dead != context);
        let Some(key) = find_context(&self.drivers, context) else {
            return done();
        };
        let mut abandoned = None;
        if let Some(driver) = self.drivers.get_mut(&key) {
            driver.kill("closed");
            driver.role = Role::Closed;
            abandoned = driver.waiting.take();
        }
        if let Some(waiting) = abandoned {
            let closed = refuse(CallErrorCode::SpawnFailed, "the context was closed");
            self.answer(waiting.reply, closed);
        }
        done()
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

    /// The control socket can be read or written.
    pub(crate) fn driver_control(&mut self, key: u64, flags: EventFlags) {
        let Some(driver) = self.drivers.get_mut(&key) else {
            return;
        };
        if flags.contains(EventFlags::OUT) {
            driver.control.flush();
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            driver.control.read(&mut self.buffer);
            self.driver_frames(key);
        }
    }

    /// Handles the frames that were read; a broken one ends the driver.
    fn driver_frames(&mut self, key: u64) {
        let Some(driver) = self.drivers.get_mut(&key) else {
            return;
        };
        let mut ready = false;
        let outcome = driver.control.frames().and_then(|frames| {
            for bytes in frames {
                ready |= runs::frame(driver, &mut self.targets, bytes)? == Meaning::Ready;
            }
            Ok(())
        });
        if outcome.is_err() && driver.reason.is_none() && driver.dead.is_none() {
            log!("driver {} broke the protocol and is killed", driver.pid);
            driver.kill("bad_frame");
        } else if driver.control.is_closed() && driver.hung_up_until.is_none() {
            let grace = Duration::from_millis(HANG_UP_GRACE_MS);
            driver.hung_up_until = Some(Instant::now() + grace);
        }
        if ready {
            self.driver_ready(key);
        }
    }

    fn driver_ready(&mut self, key: u64) {
        let Some(driver) = self.drivers.get_mut(&key) else {
            return;
        };
        let Some(waiting) = driver.waiting.take() else {
            return;
        };
        let sent = match &waiting.start {
            Some(start) => driver.control.send(start),
            None => Ok(()),
        };
        self.answer(waiting.reply, sent.map(|()| Answer::default()));
    }

    /// The driver is gone. `exit` is known when it was our child.
    pub(crate) fn driver_died(&mut self, key: u64, exit: Option<Exit>) {
        let Some(driver) = self.drivers.get_mut(&key) else {
            return;
        };
        if driver.dead.is_some() {
            return;
        }
        if driver.status.is_some() {
            // Its exec is not known yet, and its word on that is already in the pipe.
            self.driver_status(key);
        }
        let Some(driver) = self.drivers.get_mut(&key) else {
            return;
        };
        let exit = exit.or_else(|| {
            driver
                .pidfd
                .as_ref()
                .and_then(|fd| pidfd::exit_of(fd.as_fd()))
        });
        processes::kill_session(driver.pid);
        // What it said before it died still counts; a child that holds the socket cannot make
        // this longer than what is there now.
        let mut left = driver.control.waiting();
        while left > 0 && driver.control.read(&mut self.buffer) {
            left = left.saturating_sub(self.buffer.len() as u64);
        }
        driver.dead = Some(Dead { exit });
        driver.pidfd = None;
        self.driver_frames(key);
        let Some(driver) = self.drivers.get_mut(&key) else {
            return;
        };
        runs::end_by_death(driver);
        if let Some(waiting) = driver.waiting.take() {
            let message = format!("the driver ended before it was ready: {}", describe(driver));
            driver.role = Role::Closed;
            self.answer(waiting.reply, refuse(CallErrorCode::SpawnFailed, message));
        }
        // With a run, the end of its output comes first: see `drain_runs`.
        if self
            .drivers
            .get(&key)
            .is_some_and(|driver| driver.run.is_none())
        {
            self.remove_driver(key, false);
        }
    }

    /// Forgets a dead driver. `told`: its run's end has said it.
    pub(crate) fn remove_driver(&mut self, key: u64, told: bool) {
        let Some(driver) = self.drivers.remove(&key) else {
            return;
        };
        let death = driver.death();
        if driver.frames_dropped > 0 {
            log!(
                "driver {}: {} frames were dropped",
                driver.pid,
                driver.frames_dropped
            );
        }
        match driver.role {
            Role::Context(context) => {
                self.dead_contexts.retain(|dead| *dead != context);
                self.dead_contexts.push_back(context.clone());
                if self.dead_contexts.len() > DEAD_CONTEXTS_MAX {
                    self.dead_contexts.pop_front();
                }
                if let (false, Some(connection)) = (told, &mut self.connection) {
                    connection.event(EventKind::ContextDied { context, death }, None);
                }
            }
            Role::Spare => log!("spare driver {} died: {death:?}", driver.pid),
            Role::Closed => {}
        }
        for pipe in driver.pipes {
            self.sinks.keep(pipe);
        }
    }

    /// Not ready in time, or hung up and still alive.
    pub(crate) fn expire_drivers(&mut self, now: Instant) {
        let mut late = Vec::new();
        for driver in self
            .drivers
            .values_mut()
            .filter(|driver| driver.dead.is_none())
        {
            runs::expire(driver, now);
            if driver
                .waiting
                .as_ref()
                .is_some_and(|waiting| waiting.until <= now)
            {
                driver.kill("not_ready");
                driver.role = Role::Closed;
                late.extend(driver.waiting.take());
            }
            if driver.hung_up_until.is_some_and(|until| until <= now) {
                driver.hung_up_until = None;
                driver.kill("control_closed");
            }
        }
        for waiting in late {
            let message = format!("the driver was not ready within {DRIVER_READY_MS_MAX} ms");
            self.answer(waiting.reply, refuse(CallErrorCode::SpawnFailed, message));
        }
    }

    fn check_new_context(&self, context: &str) -> Result<(), crownest_init::link::CallError> {
        environment::check_name("context", context)?;
        if find_context(&self.drivers, context).is_some() {
            return refuse(
                CallErrorCode::ContextExists,
                "a context of that name is there",
            );
        }
        Ok(())
    }

    fn check_driver_room(&self) -> Result<(), crownest_init::link::CallError> {
        if self.drivers.len() >= CONTEXTS_MAX {
            return refuse(CallErrorCode::TooMany, "too many contexts");
        }
        Ok(())
    }

    /// A context that has no driver: was it ever there?
    pub(crate) fn refuse_missing(&self, context: &str) -> Handled {
        if self.dead_contexts.iter().any(|dead| dead == context) {
            return refuse(CallErrorCode::ContextDead, "the context has died");
        }
        refuse(CallErrorCode::ContextUnknown, "no such context")
    }
}

fn waiting(reply: ReplyTo, start: Option<KernelOp>) -> Waiting {
    let until = Instant::now() + Duration::from_millis(DRIVER_READY_MS_MAX);
    Waiting {
        reply,
        until,
        start,
    }
}

fn describe(driver: &Driver) -> String {
    match driver.dead.and_then(|dead| dead.exit) {
        Some(Exit::Code(code)) => format!("exit code {code}"),
        Some(Exit::Signal(signal)) => format!("signal {signal}"),
        None => "cause unknown".to_owned(),
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
