//! The event loop: who is woken by what, and in which order things happen.
//!
//! One thread, no call that blocks. Each turn handles what the kernel reported, then what is due
//! by the clock, then moves output: from ended processes into their windows, from windows into
//! the connection, from the connection into its socket. Last it tells epoll what to watch, which
//! is where flow control happens: a full window is a pipe that nobody watches.

use crate::calls::{Answer, Handled, ReplyTo};
use crate::clock;
use crate::connection::{Connection, ConnectionError};
use crate::dial::Dial;
use crate::driver::Driver;
use crate::environment::{Environment, of_network};
use crate::execs::Exec;
use crate::files::Uploads;
use crate::log::log;
use crate::output::OutputPipe;
use crate::poller::{Poller, Ready, Source, Token};
use crate::sinks::Sinks;
use crate::sys::signals;
use crate::sys::spawn::Exit;
use crate::targets::Targets;
use crownest_init::link::{CallError, ContextState, EventKind, LINK_VERSION};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::{WaitOptions, wait};
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_gettime, timerfd_settime};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Where programs in the sandbox find the egress proxy.
pub(crate) const EGRESS_PORT: u16 = 3128;
/// One read, of anything.
const BUFFER_BYTES: usize = 64 * 1024;
/// Children reaped in one turn.
const REAPED_MAX: usize = 256;
/// Connections accepted in one turn; only the last one counts.
const ACCEPTED_MAX: usize = 16;
/// Farthest end of a sandbox, ten years: keeps the clock in range.
const DEADLINE_MS_MAX: u64 = 10 * 365 * 24 * 3600 * 1000;
const SIGTERM: u32 = 15;

/// What main.rs has set up.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) poller: Rc<Poller>,
    pub(crate) listener: OwnedFd,
    pub(crate) signals: OwnedFd,
    pub(crate) deadline: OwnedFd,
    pub(crate) egress: Option<OwnedFd>,
    pub(crate) null: OwnedFd,
    pub(crate) files_limit: (u64, u64),
}

/// Everything that init knows.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) poller: Rc<Poller>,
    listener: Source,
    signals: Source,
    deadline: Source,
    pub(crate) egress: Option<OwnedFd>,
    pub(crate) null: OwnedFd,
    /// Given up for a moment when descriptors run out, so that a connection can still be taken.
    reserve: Option<OwnedFd>,
    pub(crate) files_limit: (u64, u64),
    pub(crate) connection: Option<Connection>,
    connections: u64,
    pub(crate) targets: Targets,
    pub(crate) drivers: BTreeMap<u64, Driver>,
    pub(crate) dead_contexts: VecDeque<String>,
    /// When drivers that nobody has claimed are ended.
    pub(crate) spare_deadline: Option<Instant>,
    pub(crate) execs: BTreeMap<u64, Exec>,
    pub(crate) dials: BTreeMap<u64, Dial>,
    pub(crate) sinks: Sinks,
    pub(crate) uploads: Uploads,
    pub(crate) environment: Environment,
    last_key: u64,
    reap_again: bool,
    pub(crate) buffer: Box<[u8]>,
}

/// Why the sandbox ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Deadline,
    Terminated,
}

impl Host {
    /// Where programs find the egress proxy, if this sandbox has one.
    pub(crate) fn egress_port(&self) -> Option<u16> {
        self.egress.as_ref().map(|_| EGRESS_PORT)
    }

    pub(crate) fn new(parts: Parts) -> Result<Self, Errno> {
        let source = |fd, token| {
            let mut source = Source::new(&parts.poller, fd, token);
            source.want(EventFlags::IN)?;
            Ok::<_, Errno>(source)
        };
        let proxy = parts.egress.as_ref().map(|_| EGRESS_PORT);
        Ok(Self {
            listener: source(parts.listener, Token::Listener)?,
            signals: source(parts.signals, Token::Signals)?,
            deadline: source(parts.deadline, Token::Deadline)?,
            poller: parts.poller,
            egress: parts.egress,
            reserve: parts.null.try_clone().ok(),
            null: parts.null,
            files_limit: parts.files_limit,
            connection: None,
            connections: 0,
            targets: Targets::default(),
            drivers: BTreeMap::new(),
            dead_contexts: VecDeque::new(),
            spare_deadline: None,
            execs: BTreeMap::new(),
            dials: BTreeMap::new(),
            sinks: Sinks::default(),
            uploads: Uploads::default(),
            environment: of_network(proxy),
            last_key: 0,
            reap_again: false,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
        })
    }

    /// Serves until the sandbox has to end.
    pub(crate) fn serve(&mut self) -> Result<End, Errno> {
        let mut ready = Vec::new();
        loop {
            let poller = Rc::clone(&self.poller);
            poller.wait(self.next_timeout(), &mut ready)?;
            for event in &ready {
                if let Some(end) = self.dispatch(*event) {
                    return Ok(end);
                }
            }
            if self.reap_again {
                self.reap();
            }
            if clock::is_forgotten() {
                self.start_clock();
            }
            let now = clock::now();
            self.expire_drivers(now);
            self.expire_execs(now);
            self.expire_dials(now);
            self.wake_drivers(now);
            self.wake_execs(now);
            self.settle();
        }
    }

    fn dispatch(&mut self, event: Ready) -> Option<End> {
        match event.token {
            Token::Listener => self.accept(),
            Token::Signals => return self.read_signals(),
            Token::Deadline if clock::is_stopped() => {
                // Whoever starts the clock says first when the end is now.
                if let Err(error) = self.deadline.want(EventFlags::empty()) {
                    log!("unwatch the deadline: {error}");
                }
            }
            Token::Deadline => return Some(End::Deadline),
            Token::Link(number) => self.connection_ready(number, event.flags),
            Token::DriverControl(key) => self.driver_control(key, event.flags),
            Token::DriverStdout(key) => self.driver_output(key, 0),
            Token::DriverStderr(key) => self.driver_output(key, 1),
            Token::DriverPidfd(key) => self.driver_died(key, None),
            Token::DriverStatus(key) => self.driver_status(key),
            Token::ExecStdout(key) => self.exec_output(key, 0),
            Token::ExecStderr(key) => self.exec_output(key, 1),
            Token::ExecStatus(key) => self.exec_status(key),
            Token::ExecInput(key) => self.exec_input_ready(key),
            Token::Dial(key) => self.dial_ready(key),
            Token::Sink(key) => self.sinks.readable(key, &mut self.buffer),
        }
        None
    }

    /// Moves output as far as it goes now.
    fn settle(&mut self) {
        loop {
            self.drain_runs();
            self.drain_execs();
            if let Err(error) = self.pump() {
                self.drop_connection(&error);
            }
            // An acknowledgement among the requests may have made room for the output of what has
            // ended, and nothing else will happen there to announce it.
            if !self.can_drain() {
                break;
            }
        }
        for driver in self.drivers.values_mut() {
            let room = driver
                .active_run()
                .is_none_or(|run| self.targets.has_room(run));
            if let Err(error) = driver.listen(room) {
                log!("watch driver {}: {error}", driver.pid);
            }
        }
        for exec in self.execs.values_mut() {
            if let Err(error) = exec.listen(self.targets.has_room(exec.exec)) {
                log!("watch process {}: {error}", exec.pid);
            }
        }
        if let Some(Err(error)) = self.connection.as_mut().map(Connection::listen) {
            self.drop_connection(&ConnectionError::Send(error));
        }
    }

    /// Has something ended whose output is not all read, though there is room for it?
    fn can_drain(&self) -> bool {
        let runs = self.drivers.values().filter_map(|driver| {
            let run = driver.run.as_ref()?;
            run.end.is_some().then_some(run.run)
        });
        let execs = self.execs.values().filter(|exec| exec.has_exited());
        runs.chain(execs.map(|exec| exec.exec))
            .any(|target| self.targets.has_room(target))
    }

    /// Requests that waited for room, then events, then the socket, until nothing moves.
    fn pump(&mut self) -> Result<(), ConnectionError> {
        loop {
            self.take_calls()?;
            let Some(connection) = &mut self.connection else {
                return Ok(());
            };
            // Without room, requests and events wait: they have to be looked at again as soon
            // as there is some, since no further event may announce them.
            let mut again = !connection.has_room();
            while connection.has_room() {
                let Some(event) = self.targets.next_unsent() else {
                    break;
                };
                connection.stored(&event.kind, &event.body);
                again = true;
            }
            connection.flush()?;
            if !again || !connection.has_room() {
                return Ok(());
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTED_MAX {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&self.listener, flags) {
                Ok(fd) => self.greet(fd),
                Err(Errno::AGAIN) => break,
                Err(Errno::MFILE | Errno::NFILE) if self.reserve.take().is_some() => {
                    self.sinks.drop_oldest();
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    log!("accept: {error}");
                    break;
                }
            }
        }
        if self.reserve.is_none() {
            self.reserve = self.null.try_clone().ok();
        }
    }

    /// The newest connection is the only one that counts.
    fn greet(&mut self, fd: OwnedFd) {
        self.connections += 1;
        self.targets.detach_all();
        self.uploads.abort_all();
        let mut connection = Connection::new(&self.poller, fd, self.connections);
        let egress = self
            .egress
            .as_ref()
            .and_then(|listener| listener.try_clone().ok());
        connection.event(self.hello(), egress);
        self.connection = Some(connection);
    }

    fn hello(&self) -> EventKind {
        let ready = |driver: &&Driver| driver.waiting.is_none() && driver.dead.is_none();
        EventKind::Hello {
            version: LINK_VERSION,
            contexts: self
                .drivers
                .values()
                .filter(ready)
                .filter_map(|driver| {
                    let context = driver.context()?.to_owned();
                    Some(ContextState {
                        context,
                        language: driver.language.clone(),
                    })
                })
                .collect(),
            spares: self
                .drivers
                .values()
                .filter(|driver| driver.is_spare(&driver.language))
                .map(|driver| driver.language.clone())
                .collect(),
            targets: self.targets.states(),
            deadline_ms: self.deadline_left_ms(),
            clock_stopped: clock::is_stopped(),
        }
    }

    fn connection_ready(&mut self, number: u64, flags: EventFlags) {
        let Some(connection) = self.connection.as_mut().filter(|c| c.number == number) else {
            return;
        };
        if flags.contains(EventFlags::OUT) {
            connection.unblock();
        }
        let readable = EventFlags::IN | EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(readable)
            && let Err(error) = connection.receive(&mut self.buffer)
        {
            self.drop_connection(&error);
        }
    }

    /// Answers the requests that have come, as long as there is room for answers.
    fn take_calls(&mut self) -> Result<(), ConnectionError> {
        while let Some(connection) = &mut self.connection {
            let Some(incoming) = connection.next_call()? else {
                break;
            };
            let to = ReplyTo {
                connection: connection.number,
                id: incoming.call.id,
            };
            self.handle(to, incoming);
        }
        Ok(())
    }

    fn drop_connection(&mut self, error: &ConnectionError) {
        if !matches!(error, ConnectionError::Closed) {
            log!("connection dropped: {error}");
        }
        self.connection = None;
        self.targets.detach_all();
        self.uploads.abort_all();
    }

    /// Is the connection that asked still there?
    pub(crate) fn is_current(&self, to: ReplyTo) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.number == to.connection)
    }

    /// Sends an answer, unless whoever asked is gone.
    pub(crate) fn answer(&mut self, to: ReplyTo, result: Result<Answer, CallError>) {
        if self.is_current(to)
            && let Some(connection) = &mut self.connection
        {
            connection.reply(to.id, result);
        }
    }

    pub(crate) fn answer_handled(&mut self, to: ReplyTo, handled: Handled) {
        match handled {
            Ok(Some(answer)) => self.answer(to, Ok(answer)),
            Ok(None) => {}
            Err(error) => self.answer(to, Err(error)),
        }
    }

    fn read_signals(&mut self) -> Option<End> {
        let mut records = [0; signals::RECORD_BYTES * 8];
        let count = rustix::io::read(&self.signals, &mut records).unwrap_or(0);
        for record in records[..count].chunks_exact(signals::RECORD_BYTES) {
            if record.first_chunk().copied().map(u32::from_ne_bytes) == Some(SIGTERM) {
                return Some(End::Terminated);
            }
        }
        self.reap();
        None
    }

    /// Reaps everything: children of ours, and orphans, which become ours as pid 1.
    fn reap(&mut self) {
        self.reap_again = false;
        for _ in 0..REAPED_MAX {
            let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) else {
                return;
            };
            let pid = pid.as_raw_nonzero().get();
            let exit = Exit::from_wait_status(status.as_raw());
            if let Some(key) = self
                .execs
                .iter()
                .find(|(_, e)| e.pid == pid)
                .map(|(key, _)| *key)
            {
                self.exec_exited(key, exit);
                continue;
            }
            let child = |driver: &Driver| driver.pidfd.is_none() && driver.dead.is_none();
            let found = self.drivers.iter().find(|(_, d)| d.pid == pid && child(d));
            if let Some(key) = found.map(|(key, _)| *key) {
                self.driver_died(key, Some(exit));
            }
        }
        self.reap_again = true;
    }

    fn next_timeout(&self) -> Option<Duration> {
        if self.reap_again {
            return Some(Duration::ZERO);
        }
        let drivers = self.drivers.values().filter(|driver| driver.dead.is_none());
        let drivers = drivers.flat_map(|driver| {
            let ready = driver.waiting.as_ref().map(|waiting| waiting.until);
            let run = driver
                .run
                .as_ref()
                .and_then(crate::runs::ActiveRun::next_expiry);
            let [stdout, stderr] = driver.pipes.each_ref().map(OutputPipe::due_at);
            [ready, run, driver.hung_up_until, stdout, stderr]
        });
        let execs = self.execs.values().map(Exec::next_expiry);
        let dials = self.dials.values().map(|dial| Some(dial.until));
        let spares = std::iter::once(self.spare_deadline);
        let next = drivers.chain(execs).chain(dials).chain(spares);
        let next = next.flatten().min();
        let next = next.map(|next| next.saturating_duration_since(clock::now()));
        if clock::is_stopped() {
            // Nothing becomes due; what was due when it stopped must not be asked for in a circle.
            return Some(clock::STOPPED_TICK);
        }
        next
    }

    /// `ClockStart`, or nobody is left who would say it.
    pub(crate) fn start_clock(&mut self) {
        clock::start();
        if let Err(error) = self.deadline.want(EventFlags::IN) {
            log!("watch the deadline: {error}");
        }
    }

    pub(crate) fn new_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    /// `Deadline`: counted on a clock that goes on while the machine sleeps.
    pub(crate) fn set_deadline(&self, after_ms: u64) -> Result<(), Errno> {
        let ms = i64::try_from(after_ms.min(DEADLINE_MS_MAX)).map_err(|_| Errno::RANGE)?;
        // A value of zero would disarm the timer.
        let it_value = Timespec {
            tv_sec: ms / 1000,
            tv_nsec: (ms % 1000) * 1_000_000 + 1,
        };
        let it_interval = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Itimerspec {
            it_interval,
            it_value,
        };
        timerfd_settime(&self.deadline, TimerfdTimerFlags::empty(), &value)?;
        Ok(())
    }

    fn deadline_left_ms(&self) -> Option<u64> {
        let left = timerfd_gettime(&self.deadline).ok()?.it_value;
        let ms = left.tv_sec.checked_mul(1000)? + left.tv_nsec / 1_000_000;
        (left.tv_sec != 0 || left.tv_nsec != 0).then(|| u64::try_from(ms).unwrap_or(0))
    }
}
