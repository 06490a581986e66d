//! Processes started by `Exec`, from fork to the last byte of output.
//!
//! A process is over when it has exited, not when its pipes close: a server that it left in the
//! background may hold them for hours. That server goes on running; what it prints from then on
//! is read and thrown away by [`crate::sinks`], so that it is never killed by a closed pipe.

use crate::calls::{Answer, Handled, ReplyTo, done, refuse};
use crate::clock;
use crate::devpts::open_terminal;
use crate::environment::{self, Environment, Prepared};
use crate::host::Host;
use crate::input::Input;
use crate::output::{OutputPipe, Piece};
use crate::poller::{Source, Token};
use crate::processes;
use crate::runs::push_output;
use crate::sys::signals;
use crate::sys::spawn::{self, Exit, Step};
use crate::targets::Targets;
use crownest_init::identity::Identity;
use crownest_init::link::{
    CallErrorCode, EXECS_MAX, EventKind, ExecOutcome, KILL_GRACE_MS, Reply, Stream,
};
use crownest_init::terminal::Stdin;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Longest limit an exec may ask for; also keeps clock arithmetic in range.
const TIMEOUT_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;

/// What `Exec` asks for.
#[derive(Debug)]
pub(crate) struct ExecRequest {
    pub(crate) exec: u64,
    pub(crate) argv: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) env: Environment,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) identity: Identity,
    pub(crate) stdin: Stdin,
}

/// The two sides of everything that a process is connected to.
#[derive(Debug)]
struct Channels {
    input: Option<Input>,
    pipes: Vec<OutputPipe>,
    /// stdin, stdout and stderr of the process; none: `/dev/null`.
    program: [Option<OwnedFd>; 3],
    /// See [`Exec::terminal`].
    terminal: Option<OwnedFd>,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) exec: u64,
    /// Our child, not reaped while this exists and `exit` is None: the number cannot be reused.
    pub(crate) pid: i32,
    reply: ReplyTo,
    /// Until its program runs.
    status: Option<Source>,
    /// None when it reads nothing, or nothing any more.
    pub(crate) input: Option<Input>,
    /// stdout and stderr, or its terminal.
    pipes: Vec<OutputPipe>,
    /// The program's side of its terminal, until it has exited: where nobody has that side open,
    /// the terminal is over for the user's side, and the program may open it again by its name.
    terminal: Option<OwnedFd>,
    started: Instant,
    timeout_at: Option<Instant>,
    kill_at: Option<Instant>,
    timed_out: bool,
    last_signal: i32,
    exit: Option<Exit>,
    /// Bytes still to be read of each pipe, once it has exited.
    left: [usize; 2],
}

impl Exec {
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        if self.exit.is_some() {
            return None;
        }
        let pipes = self.pipes.iter().filter_map(OutputPipe::due_at);
        let limits = self.timeout_at.into_iter().chain(self.kill_at);
        limits.chain(pipes).min()
    }

    /// Known how it ended; only its output is still being sent.
    pub(crate) fn has_exited(&self) -> bool {
        self.exit.is_some()
    }

    /// Tells the event loop what to watch. `room`: its window is open.
    pub(crate) fn listen(&mut self, room: bool) -> Result<(), Errno> {
        let readable = room && self.status.is_none() && self.exit.is_none();
        for pipe in &mut self.pipes {
            pipe.listen(readable)?;
        }
        Ok(())
    }

    /// As a key of its terminal would. Without a terminal the group is its own.
    fn signal_foreground(&mut self, signal: i32) {
        match self.input.as_ref().and_then(Input::foreground) {
            Some(group) => drop(signals::send(group, true, signal)),
            None => self.signal(signal),
        }
    }

    fn signal(&mut self, signal: i32) {
        self.last_signal = signal;
        if signal == SIGKILL {
            processes::kill_session(self.pid);
        }
        let group = signals::send(self.pid, true, signal);
        let left_group = processes::read(self.pid).is_some_and(|now| now.group != self.pid);
        if group.is_err() || left_group {
            let _ = signals::send(self.pid, false, signal);
        }
        // A stopped process handles nothing before it goes on.
        if signal == SIGTERM {
            let _ = signals::send(self.pid, true, SIGCONT);
        }
    }

    fn outcome(&self, exit: Exit) -> ExecOutcome {
        match exit {
            Exit::Signal(signal) if self.timed_out => ExecOutcome::TimedOut { signal },
            Exit::Code(_) if self.timed_out => ExecOutcome::TimedOut {
                signal: self.last_signal,
            },
            Exit::Signal(signal) => ExecOutcome::Signaled { signal },
            Exit::Code(code) => ExecOutcome::Exited { code },
        }
    }
}

impl Host {
    /// `Exec`: the answer comes when the program runs, or cannot.
    pub(crate) fn exec(&mut self, to: ReplyTo, request: &ExecRequest) -> Handled {
        self.targets.check_new(request.exec)?;
        if self.execs.len() >= EXECS_MAX {
            return refuse(CallErrorCode::TooMany, "too many processes");
        }
        if self.execs.values().any(|exec| exec.exec == request.exec) {
            return refuse(
                CallErrorCode::Invalid,
                "this number was given to another process",
            );
        }
        environment::check(&request.env)?;
        if !request.identity.is_allowed() {
            return refuse(CallErrorCode::Invalid, "no program may run as that");
        }
        let env = match request.stdin {
            Stdin::Terminal(size) if !size.is_possible() => {
                return refuse(CallErrorCode::Invalid, "no terminal is that large or small");
            }
            Stdin::Terminal(_) => environment::for_terminal(&self.environment, &request.env),
            _ => environment::for_started(&self.environment, &request.env),
        };
        let mut program = Prepared::new(&request.argv, &request.cwd, &env)?;
        program.identity = request.identity;
        match self.start_exec(to, request, &program) {
            Ok(()) => Ok(None),
            Err(error) => refuse(CallErrorCode::SpawnFailed, format!("start: {error}")),
        }
    }

    fn start_exec(
        &mut self,
        reply: ReplyTo,
        request: &ExecRequest,
        program: &Prepared,
    ) -> Result<(), Errno> {
        let key = self.new_key();
        let channels = self.channels(key, request.stdin)?;
        let started = clock::now();
        let timeout = request
            .timeout_ms
            .map(|ms| Duration::from_millis(ms.min(TIMEOUT_MS_MAX)));
        let fds = channels.program.each_ref().map(Option::as_ref);
        let fds = fds.map(|fd| fd.unwrap_or(&self.null).as_fd());
        let is_terminal = matches!(request.stdin, Stdin::Terminal(_));
        let child = self.start_program(program, fds, None, is_terminal)?;
        let mut exec = Exec {
            exec: request.exec,
            pid: child.pid,
            reply,
            status: None,
            input: channels.input,
            pipes: channels.pipes,
            terminal: channels.terminal,
            started,
            timeout_at: timeout.map(|timeout| started + timeout),
            kill_at: None,
            timed_out: false,
            last_signal: SIGTERM,
            exit: None,
            left: [0; 2],
        };
        let mut status = Source::new(&self.poller, child.status, Token::ExecStatus(key));
        if let Err(error) = status.want(EventFlags::IN) {
            exec.signal(SIGKILL);
            return Err(error);
        }
        exec.status = Some(status);
        self.execs.insert(key, exec);
        Ok(())
    }

    /// What a process is connected to.
    fn channels(&self, key: u64, stdin: Stdin) -> Result<Channels, Errno> {
        let poller = &self.poller;
        let (stdout_token, input_token) = (Token::ExecStdout(key), Token::ExecInput(key));
        if let Stdin::Terminal(size) = stdin {
            let terminal = open_terminal(size)?;
            let typing = terminal.user.try_clone().map_err(|_| Errno::MFILE)?;
            let program = terminal.program;
            let copy = || program.try_clone().map_err(|_| Errno::MFILE);
            return Ok(Channels {
                input: Some(Input::new(poller, typing, input_token, true)?),
                pipes: vec![OutputPipe::of_terminal(
                    poller,
                    terminal.user,
                    stdout_token,
                )?],
                program: [Some(copy()?), Some(copy()?), Some(copy()?)],
                terminal: Some(program),
            });
        }
        let (input, stdin) = match stdin {
            Stdin::Null | Stdin::Terminal(_) => (None, None),
            Stdin::Pipe => {
                let (stdin, write) = pipe_with(PipeFlags::CLOEXEC)?;
                let input = Input::new(poller, write, input_token, false)?;
                (Some(input), Some(stdin))
            }
        };
        let (stdout, stdout_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let pipe = |fd, token, stream| OutputPipe::new(poller, fd, token, stream);
        Ok(Channels {
            input,
            pipes: vec![
                pipe(stdout, stdout_token, Stream::Stdout)?,
                pipe(stderr, Token::ExecStderr(key), Stream::Stderr)?,
            ],
            program: [stdin, Some(stdout_write), Some(stderr_write)],
            terminal: None,
        })
    }

    /// The program runs, or could not be started.
    pub(crate) fn exec_status(&mut self, key: u64) {
        let Some(exec) = self.execs.get_mut(&key) else {
            return;
        };
        let Some(status) = exec.status.take() else {
            return;
        };
        let mut bytes = [0; spawn::FAILURE_BYTES];
        let count = rustix::io::read(&status, &mut bytes).unwrap_or(0);
        let (id, pid, reply) = (exec.exec, exec.pid, exec.reply);
        if let Some((step, error)) = spawn::failure(&bytes[..count]) {
            self.end_input(key);
            self.execs.remove(&key);
            self.answer(
                reply,
                refuse(CallErrorCode::SpawnFailed, spawn_message(step, error)),
            );
            return;
        }
        self.targets.insert(id, None, self.is_current(reply));
        self.answer(
            reply,
            Ok(Answer::from(Reply {
                pid: Some(pid),
                ..Reply::default()
            })),
        );
    }

    /// `Signal`
    pub(crate) fn exec_signal(
        &mut self,
        id: u64,
        signal: i32,
        escalate: bool,
        foreground: bool,
    ) -> Handled {
        if !(1..=signals::SIGNAL_MAX).contains(&signal) {
            return refuse(CallErrorCode::Invalid, "no such signal");
        }
        let Some(exec) = self.execs.values_mut().find(|exec| exec.exec == id) else {
            if self.targets.contains(id) {
                return done();
            }
            return refuse(CallErrorCode::UnknownTarget, "no such process");
        };
        if exec.exit.is_none() {
            if foreground {
                exec.signal_foreground(signal);
            } else {
                exec.signal(signal);
            }
            if escalate && exec.kill_at.is_none() {
                exec.kill_at = Some(clock::now() + Duration::from_millis(KILL_GRACE_MS));
            }
        }
        done()
    }

    /// One of the pipes can be read.
    pub(crate) fn exec_output(&mut self, key: u64, index: usize) {
        let Some(exec) = self.execs.get_mut(&key) else {
            return;
        };
        if exec.exit.is_some() {
            // It was reaped in the same turn, and `drain_execs` counts on finding its output.
            return;
        }
        let other = 1 - index;
        if exec.pipes.get(other).is_some_and(OutputPipe::is_busy) {
            // What it holds was most likely printed before this.
            exec.pipes[other].rouse();
            read_output(exec, other, &mut self.targets, &mut self.buffer);
        }
        read_output(exec, index, &mut self.targets, &mut self.buffer);
    }

    /// Reads the pipes whose rest is over.
    pub(crate) fn wake_execs(&mut self, now: Instant) {
        for exec in self.execs.values_mut().filter(|exec| exec.exit.is_none()) {
            for index in 0..exec.pipes.len() {
                if exec.pipes[index].is_due(now) {
                    read_output(exec, index, &mut self.targets, &mut self.buffer);
                }
            }
        }
    }

    /// The process was reaped. What it wrote is in the pipes now.
    pub(crate) fn exec_exited(&mut self, key: u64, exit: Exit) {
        if self
            .execs
            .get(&key)
            .is_some_and(|exec| exec.status.is_some())
        {
            self.exec_status(key);
        }
        let Some(exec) = self.execs.get_mut(&key) else {
            return;
        };
        exec.exit = Some(exit);
        exec.terminal = None;
        for (left, pipe) in exec.left.iter_mut().zip(&exec.pipes) {
            *left = pipe.waiting();
        }
        self.end_input(key);
    }

    /// Goes on reading processes that have ended, as far as their windows allow.
    pub(crate) fn drain_execs(&mut self) {
        let mut over = Vec::new();
        for (key, exec) in &mut self.execs {
            if exec.exit.is_some() && drain(exec, &mut self.targets, &mut self.buffer) {
                over.push(*key);
            }
        }
        for key in over {
            let Some(exec) = self.execs.remove(&key) else {
                continue;
            };
            finish(&exec, &mut self.targets);
            for pipe in exec.pipes {
                self.sinks.keep(pipe);
            }
        }
    }

    /// Sends what is due: SIGTERM at a timeout, SIGKILL after the grace.
    pub(crate) fn expire_execs(&mut self, now: Instant) {
        for exec in self.execs.values_mut().filter(|exec| exec.exit.is_none()) {
            if exec.timeout_at.is_some_and(|at| at <= now) {
                exec.timeout_at = None;
                exec.timed_out = true;
                exec.signal(SIGTERM);
                exec.kill_at = Some(now + Duration::from_millis(KILL_GRACE_MS));
            }
            if exec.kill_at.is_some_and(|at| at <= now) {
                exec.kill_at = None;
                exec.signal(SIGKILL);
            }
        }
    }
}

/// One read of one pipe.
fn read_output(exec: &mut Exec, index: usize, targets: &mut Targets, buffer: &mut [u8]) {
    let pipe = &mut exec.pipes[index];
    if let Piece::Bytes(bytes) = pipe.read_paced(buffer, clock::now()) {
        push_output(targets, exec.exec, pipe.stream, bytes);
    }
}

/// Reads what an exited process left in the pipes. True when that is all.
fn drain(exec: &mut Exec, targets: &mut Targets, buffer: &mut [u8]) -> bool {
    for (pipe, left) in exec.pipes.iter_mut().zip(&mut exec.left) {
        while *left > 0 {
            if !targets.has_room(exec.exec) {
                return false;
            }
            match pipe.read(buffer, *left) {
                (Piece::Bytes(bytes), count) => {
                    *left -= count;
                    push_output(targets, exec.exec, pipe.stream, bytes);
                }
                (Piece::Empty | Piece::End, _) => *left = 0,
            }
        }
        push_output(targets, exec.exec, pipe.stream, pipe.take_cut());
    }
    true
}

fn finish(exec: &Exec, targets: &mut Targets) {
    let Some(exit) = exec.exit else { return };
    let duration_us = u64::try_from(clock::since(exec.started).as_micros()).unwrap_or(u64::MAX);
    let outcome = exec.outcome(exit);
    let target = exec.exec;
    targets.push(target, Vec::new(), |seq| EventKind::ExecDone {
        target,
        seq,
        outcome,
        duration_us,
    });
    targets.finish(target);
}

/// Why a program could not be started, for the person who asked for it.
pub(crate) fn spawn_message(step: Step, error: Errno) -> String {
    let what = match step {
        Step::WorkingDirectory => "working directory",
        Step::Exec => "program",
        Step::Session | Step::Descriptors | Step::Identity => "sandbox set-up",
    };
    format!("{what}: {error}")
}
