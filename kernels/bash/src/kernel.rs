//! The context: waits for init, for the shell and for deadlines, and hands each to whom it belongs.
//!
//! One thread, one poll. What a run is stands in `run.rs`, what a query is in `queries.rs`.

use crate::channel::Channel;
use crate::error::KernelError;
use crate::lines;
use crate::place::Place;
use crate::protocol::{self, Op, Status};
use crate::queries::Asked;
use crate::questions::{Purpose, Questions};
use crate::report::Mark;
use crate::run::Run;
use crate::shell::{Descriptors, Shell};
use crate::snapshot::Snapshot;
use crate::state::State;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// Shells in a row that end before they take a command: then the state is given up, then the
/// context.
const RESTARTS_WITH_STATE_MAX: u32 = 2;
const RESTARTS_MAX: u32 = 6;

/// What init waits for.
#[derive(Debug)]
pub(crate) enum Active {
    Run(Run),
    Query(Asked),
}

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) channel: Channel,
    pub(crate) place: Place,
    is_place_used: bool,
    pub(crate) descriptors: Descriptors,
    environment: BTreeMap<String, String>,
    directory: Option<String>,
    pub(crate) shell: Option<Shell>,
    boot_sequence: u64,
    is_booted: bool,
    is_ready: bool,
    restarts: u32,
    /// The shell is to be replaced when its run is over.
    pub(crate) is_crippled: bool,
    pub(crate) state: State,
    pub(crate) active: Option<Active>,
    pub(crate) count: u64,
    sequence: u64,
    pub(crate) last_status: i32,
    pub(crate) questions: Questions,
    /// Something that the next run has to be told.
    pub(crate) notice: Option<&'static str>,
}

/// What poll has found.
#[derive(Debug, Default)]
struct Found {
    control: bool,
    report: bool,
    commands: bool,
    death: bool,
    started: bool,
    question: bool,
    answers: bool,
}

impl Kernel {
    pub(crate) fn start(channel: Channel) -> Result<Self, KernelError> {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name != crate::CONTROL_VARIABLE)
            .collect();
        let named = |name: &str| environment.get(name).map(String::as_str);
        let place =
            Place::make(named("HOME"), named("XDG_RUNTIME_DIR")).map_err(KernelError::Place)?;
        let descriptors =
            Descriptors::open().map_err(|e| KernelError::Prepare("private descriptors", e))?;
        Ok(Self {
            channel,
            place,
            is_place_used: false,
            descriptors,
            environment,
            directory: None,
            shell: None,
            boot_sequence: 0,
            is_booted: false,
            is_ready: false,
            restarts: 0,
            is_crippled: false,
            state: State::default(),
            active: None,
            count: 0,
            sequence: 0,
            last_status: 0,
            questions: Questions::default(),
            notice: None,
        })
    }

    /// Until init closes the socket.
    pub(crate) fn serve(mut self) -> Result<(), KernelError> {
        self.ensure_shell()?;
        loop {
            let found = self.wait()?;
            if found.commands
                && let Some(shell) = &mut self.shell
            {
                shell.flush();
            }
            if found.report {
                self.read_report()?;
            }
            if found.death {
                self.shell_died()?;
            }
            if found.started {
                self.cell_has_begun();
            }
            if found.question {
                self.cell_asks()?;
            }
            if found.answers {
                self.flush_answers();
            }
            if found.control {
                let Some(ops) = self.channel.receive()? else {
                    return Ok(());
                };
                for op in ops {
                    self.handle(op)?;
                }
            }
            self.expire()?;
        }
    }

    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    // -- waiting

    fn wait(&self) -> Result<Found, KernelError> {
        type Mark = fn(&mut Found) -> &mut bool;
        let mut watched: Vec<(BorrowedFd<'_>, PollFlags, Mark)> =
            vec![(self.channel.fd(), PollFlags::IN, |f| &mut f.control)];
        if let Some(shell) = &self.shell {
            watched.push((shell.report(), PollFlags::IN, |f| &mut f.report));
            watched.push((shell.death(), PollFlags::IN, |f| &mut f.death));
            if let Some(fd) = shell.waiting_commands() {
                watched.push((fd, PollFlags::OUT, |f| &mut f.commands));
            }
        }
        if let Some(Active::Run(run)) = &self.active {
            if run.interrupt.waits_for_begin {
                watched.push((self.descriptors.started(), PollFlags::IN, |f| {
                    &mut f.started
                }));
            }
            if let Some(input) = &run.input {
                use std::os::fd::AsFd;
                watched.push((input.questions().as_fd(), PollFlags::IN, |f| {
                    &mut f.question
                }));
                if let Some(answers) = input.waiting_answers() {
                    watched.push((answers.as_fd(), PollFlags::OUT, |f| &mut f.answers));
                }
            }
        }
        let mut fds: Vec<PollFd<'_>> = watched
            .iter()
            .map(|(fd, flags, _)| PollFd::new(fd, *flags))
            .collect();
        let timeout = self.next_deadline().map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        loop {
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) => break,
                // Deadlines are looked at again by the caller.
                Err(Errno::INTR) if timeout.is_some() => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(KernelError::Wait(error)),
            }
        }
        let mut found = Found::default();
        for ((_, _, mark), fd) in watched.iter().zip(&fds) {
            *mark(&mut found) = !fd.revents().is_empty();
        }
        Ok(found)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let of_active = match &self.active {
            Some(Active::Run(run)) => run.interrupt.next_deadline(),
            Some(Active::Query(asked)) => Some(asked.until),
            None => None,
        };
        let snapshot_at = self.questions.state_at.filter(|_| self.active.is_none());
        [of_active, snapshot_at].into_iter().flatten().min()
    }

    fn expire(&mut self) -> Result<(), KernelError> {
        let now = Instant::now();
        if self.active.is_none() && self.questions.state_at.is_some_and(|at| at <= now) {
            self.ask_for_state();
        }
        match &self.active {
            Some(Active::Run(_)) => {
                self.expire_run(now);
                Ok(())
            }
            Some(Active::Query(asked)) if asked.until <= now => {
                // Something keeps the shell from answering: it goes on from what is known.
                self.end_query(Status::Error, None)?;
                self.replace_shell()?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    // -- init

    fn handle(&mut self, op: Op) -> Result<(), KernelError> {
        match op {
            Op::Start { cwd, env } => self.begin_context(cwd, &env),
            Op::Execute(execute) => self.execute(execute),
            Op::Query(query) => self.query(query),
            Op::InputReply { run, value } => {
                self.take_input(run, value.as_deref());
                Ok(())
            }
            Op::Interrupt { run } => self.interrupt(run),
            Op::Unknown => Ok(()),
        }
    }

    fn begin_context(
        &mut self,
        directory: String,
        env: &BTreeMap<String, String>,
    ) -> Result<(), KernelError> {
        if let Err(error) = std::fs::read_dir(&directory) {
            eprintln!("the context does not start in {directory}: {error}");
        }
        self.directory = Some(directory);
        let all_names = env.keys().all(|name| lines::is_name(name));
        self.environment.extend(env.clone());
        self.state.forget();
        if all_names {
            self.ensure_shell()?;
            self.begin_in_shell(env);
        } else {
            // Only a new process can be given such an environment.
            self.replace_shell()?;
        }
        Ok(())
    }

    fn begin_in_shell(&mut self, env: &BTreeMap<String, String>) {
        if let (Some(shell), Some(directory)) = (&mut self.shell, &self.directory) {
            shell.write(lines::start(directory, env.iter()).as_bytes());
        }
        self.ask(Purpose::Baseline);
    }

    // -- the shell

    /// There is a shell afterwards, with the state of the one before.
    pub(crate) fn ensure_shell(&mut self) -> Result<(), KernelError> {
        if self.shell.is_some() {
            return Ok(());
        }
        if std::mem::replace(&mut self.is_place_used, true) {
            // Whatever the last one has left there stands in nobody's way.
            self.place.renew(false).map_err(KernelError::Place)?;
        }
        if self.restarts >= RESTARTS_MAX {
            return Err(KernelError::ShellKeepsDying);
        }
        if self.restarts == RESTARTS_WITH_STATE_MAX {
            self.state.forget();
            self.notice = Some(NOTICE_GIVEN_UP);
        }
        self.restarts += 1;
        let mut shell = Shell::start(&self.environment, &self.descriptors)?;
        let (keep, leaving) = (self.place.keep_path(), self.place.leaving_path());
        shell.write(lines::boot(&keep, &leaving).as_bytes());
        self.is_booted = false;
        self.is_crippled = false;
        self.shell = Some(shell);
        self.questions.forget();
        if self.state.has_begun() {
            let restoring = self.state.restoring(self.directory.as_deref());
            self.write(&restoring);
        } else if self.directory.is_some() {
            self.begin_in_shell(&BTreeMap::new());
        }
        self.boot_sequence = self.next_sequence();
        self.write(lines::booted(self.boot_sequence).as_bytes());
        Ok(())
    }

    pub(crate) fn write(&mut self, lines: &[u8]) {
        if let Some(shell) = &mut self.shell {
            shell.write(lines);
        }
    }

    /// Ends a shell that does not do what it should; the next one has the state that was written
    /// down last.
    pub(crate) fn replace_shell(&mut self) -> Result<(), KernelError> {
        if let Some(shell) = self.shell.take() {
            drop(shell);
            let _ = self.take_leaving();
        }
        self.ensure_shell()
    }

    /// The state that a shell wrote down as it ended, if it did.
    fn take_leaving(&mut self) -> Option<Snapshot> {
        let text = self.place.take(&self.place.leaving_path()).ok()?;
        Snapshot::parse(&text)
    }

    fn shell_died(&mut self) -> Result<(), KernelError> {
        // What it said before may be the end of its run.
        self.read_report()?;
        let Some(mut shell) = self.shell.take() else {
            return Ok(());
        };
        let exit = shell.wait();
        drop(shell);
        self.questions.forget();
        let leaving = self.take_leaving();
        if !self.is_booted {
            // Given back a state with which it cannot live, or bash cannot run here at all.
            self.ensure_shell()?;
            return self.run_again();
        }
        let end = leaving.as_ref().map(|snapshot| snapshot.end.clone());
        self.notice = match &leaving {
            None => Some(NOTICE_LOST),
            Some(snapshot) if snapshot.has_jobs => Some(NOTICE_JOBS),
            Some(_) => self.notice,
        };
        if let Some(snapshot) = leaving {
            self.state.adopt(snapshot);
        }
        self.questions.is_state_fresh = true;
        match self.active.take() {
            Some(Active::Run(mut run)) => {
                run.interrupt.begun |= self.descriptors.take_started();
                if run.may_be_tried_again() {
                    self.active = Some(Active::Run(run));
                    self.ensure_shell()?;
                    return self.run_again();
                }
                self.end_by_exit(run, exit, end)?;
            }
            Some(Active::Query(asked)) => {
                self.active = Some(Active::Query(asked));
                self.end_query(Status::Error, None)?;
            }
            // The next run starts it again: code that kills every shell must not keep this busy.
            None => return Ok(()),
        }
        self.ensure_shell()
    }

    pub(crate) fn read_report(&mut self) -> Result<(), KernelError> {
        if let Some(shell) = &mut self.shell {
            shell.read_report();
        }
        while let Some((mark, text)) = self.shell.as_mut().and_then(Shell::next_mark) {
            match mark {
                Mark::Booted { sequence, version } => self.booted(sequence, &version)?,
                Mark::Cell { .. } => self.cell_is_over(&mark, &text)?,
                Mark::Answer { sequence } => self.take_answer(sequence)?,
            }
        }
        Ok(())
    }

    fn booted(&mut self, sequence: u64, version: &str) -> Result<(), KernelError> {
        if sequence != self.boot_sequence {
            return Ok(());
        }
        self.is_booted = true;
        self.restarts = 0;
        if !self.is_ready {
            self.is_ready = true;
            let plain = version.split('(').next().unwrap_or(version);
            self.channel.send(&protocol::ready(plain))?;
        }
        Ok(())
    }
}

/// Texts of the notice `state_not_kept`.
pub(crate) const NOTICE_LOST: &str = "the shell had to be replaced: what the last cell changed is lost, \
                           variables, functions and directory are those from before it";
const NOTICE_JOBS: &str = "the shell ended and was replaced: background jobs go on, but `jobs` and \
                           `wait` no longer know them";
const NOTICE_GIVEN_UP: &str = "the shell could not live with its state: everything is lost";
