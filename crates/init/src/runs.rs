//! Runs: one cell of code in a context, from `execute` to the last byte that it wrote.
//!
//! A run ends with the driver's `done`, or with the driver. Both times the pipes are read up to
//! what they held at that moment: everything that the run wrote is in there, and a daemon that
//! goes on writing cannot prolong it. A timeout interrupts, and kills after a grace.
//!
//! A query is a run of another kind: nothing that it prints or shows is anybody's, and of its
//! frames only the one answer counts.

use crate::calls::{Handled, done, refuse};
use crate::clock;
use crate::contexts::find_context;
use crate::driver::Driver;
use crate::environment;
use crate::host::Host;
use crate::meter::Begun;
use crate::output::Piece;
use crate::targets::Targets;
use crownest_init::cell::{INPUT_BYTES_MAX, RunOptions, RunUsage};
use crownest_init::kernel::{BadFrame, KernelDone, KernelEventHead, KernelOp};
use crownest_init::link::{
    CallErrorCode, EventKind, KILL_GRACE_MS, OUTPUT_CHUNK_BYTES_MAX, RunOutcome,
};
use std::time::{Duration, Instant};

/// Longest time a run may ask for; also keeps clock arithmetic in range.
const TIMEOUT_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// A run that an interrupt has not ended by then may be waiting for a child that ignores it, or
/// the signal came before the driver had taken the cell: its whole process group gets one too.
const INTERRUPT_GROUP_MS: u64 = 1_000;

/// The run that a driver is busy with.
#[derive(Debug)]
pub(crate) struct ActiveRun {
    pub(crate) run: u64,
    started: Instant,
    timeout_at: Instant,
    interrupt_group_at: Option<Instant>,
    kill_at: Option<Instant>,
    interrupted: bool,
    timed_out: bool,
    background_dropped: u64,
    /// It asks about the context and runs no cell.
    query: bool,
    /// Its one answer has come.
    answered: bool,
    /// Somebody answers when it asks for a line.
    input: bool,
    /// It waits for a line now.
    asked: bool,
    begun: Option<Begun>,
    /// Known how it ended; only its output is still being sent.
    pub(crate) end: Option<RunEnd>,
}

/// How a cell is to be run.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) cwd: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) options: RunOptions,
}

/// How a run ended, and what is left to read of it.
#[derive(Debug)]
pub(crate) struct RunEnd {
    outcome: RunOutcome,
    execution_count: u64,
    cpu_us: Option<u64>,
    usage: Option<RunUsage>,
    left: [usize; 2],
}

impl ActiveRun {
    fn new(run: u64, timeout_ms: u64, options: &RunOptions) -> Self {
        let started = clock::now();
        Self {
            run,
            started,
            timeout_at: started + Duration::from_millis(timeout_ms.min(TIMEOUT_MS_MAX)),
            interrupt_group_at: None,
            kill_at: None,
            interrupted: false,
            timed_out: false,
            background_dropped: 0,
            query: options.query.is_some(),
            answered: false,
            input: options.input,
            asked: false,
            begun: None,
            end: None,
        }
    }

    pub(crate) fn is_query(&self) -> bool {
        self.query
    }

    /// Is that an event that its driver may send now?
    fn takes(&mut self, event: &str) -> bool {
        match event {
            "answer" => self.query && !std::mem::replace(&mut self.answered, true),
            _ if self.query => false,
            "input" => self.input && !std::mem::replace(&mut self.asked, true),
            _ => matches!(event, "result" | "display" | "clear" | "error" | "notice"),
        }
    }

    /// When [`expire`] has to look at it next.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        let timeout_at = (!self.timed_out).then_some(self.timeout_at);
        [timeout_at, self.interrupt_group_at, self.kill_at]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Host {
    /// `Run`: hands the cell to the driver, with what the context printed since the last one; or
    /// the question.
    pub(crate) fn run(
        &mut self,
        context: &str,
        run: u64,
        timeout_ms: u64,
        cell: Cell,
        code: Vec<u8>,
    ) -> Handled {
        if let Some(language) = &cell.language {
            environment::check_name("language", language)?;
        }
        let Ok(code) = String::from_utf8(code) else {
            return refuse(CallErrorCode::Invalid, "the code is not UTF-8");
        };
        let Some(key) = find_context(&self.drivers, context) else {
            return self.refuse_missing(context);
        };
        self.targets.check_new(run)?;
        let Some(driver) = self.drivers.get_mut(&key) else {
            return refuse(CallErrorCode::Internal, "context without a driver");
        };
        if driver.is_gone() {
            return refuse(CallErrorCode::ContextDead, "the context has died");
        }
        if driver.run.is_some() || driver.waiting.is_some() {
            return refuse(CallErrorCode::ContextBusy, "the context is busy");
        }
        let mut active = ActiveRun::new(run, timeout_ms, &cell.options);
        if !active.query {
            active.begun = driver.begin_metering();
        }
        let keep = cell.options.keep;
        driver.control.send(&operation(run, code, cell))?;
        self.targets.insert(run, Some(context.to_owned()), true);
        if keep {
            self.targets.keep(run);
        }
        if !active.query {
            active.background_dropped = std::mem::take(&mut driver.background_dropped);
            for (background, pipe) in driver.background.iter_mut().zip(&driver.pipes) {
                let bytes = background.take();
                debug_assert!(bytes.len() <= OUTPUT_CHUNK_BYTES_MAX);
                push_output(&mut self.targets, run, pipe.stream, bytes);
            }
        }
        driver.run = Some(active);
        done()
    }

    /// `Input`: the line that a run waits for.
    pub(crate) fn input(&mut self, run: u64, eof: bool, line: Vec<u8>) -> Handled {
        if line.len() > INPUT_BYTES_MAX {
            return refuse(CallErrorCode::Invalid, "the line is too long");
        }
        let Ok(line) = String::from_utf8(line) else {
            return refuse(CallErrorCode::Invalid, "the line is not UTF-8");
        };
        let driver = self
            .drivers
            .values_mut()
            .find(|driver| driver.active_run() == Some(run));
        let waiting = driver.and_then(|driver| {
            let asked = driver.run.as_mut().map(|active| &mut active.asked)?;
            std::mem::take(asked).then_some(driver)
        });
        let Some(driver) = waiting else {
            return refuse(CallErrorCode::InputNotAwaited, "no line is awaited");
        };
        let value = (!eof).then_some(line);
        driver.control.send(&KernelOp::InputReply { run, value })?;
        done()
    }

    /// `Interrupt`: SIGINT to the driver, if that run is the one it is busy with.
    pub(crate) fn interrupt(&mut self, run: u64) -> Handled {
        if let Some(driver) = self
            .drivers
            .values_mut()
            .find(|d| d.active_run() == Some(run))
        {
            driver.interrupt();
            if let Some(active) = &mut driver.run {
                active.interrupted = true;
                active.interrupt_group_at =
                    Some(clock::now() + Duration::from_millis(INTERRUPT_GROUP_MS));
            }
        }
        done()
    }

    /// One of a driver's pipes can be read.
    pub(crate) fn driver_output(&mut self, key: u64, index: usize) {
        let Some(driver) = self.drivers.get_mut(&key) else {
            return;
        };
        if driver.run_has_ended() {
            // `done` came in the same turn: what is in the pipe belongs to that run, and
            // `drain_runs` counts on finding it there.
            return;
        }
        let other = 1 - index;
        if driver.pipes[other].is_busy() {
            // What it holds was most likely printed before this.
            driver.pipes[other].rouse();
            read_output(driver, other, &mut self.targets, &mut self.buffer);
        }
        read_output(driver, index, &mut self.targets, &mut self.buffer);
    }

    /// Reads the drivers' pipes whose rest is over.
    pub(crate) fn wake_drivers(&mut self, now: Instant) {
        for driver in self.drivers.values_mut() {
            for index in 0..driver.pipes.len() {
                if driver.pipes[index].is_due(now) && !driver.run_has_ended() {
                    read_output(driver, index, &mut self.targets, &mut self.buffer);
                }
            }
        }
    }

    /// Goes on reading runs that have ended, as far as their windows allow.
    pub(crate) fn drain_runs(&mut self) {
        let mut over = Vec::new();
        for (key, driver) in &mut self.drivers {
            if drain(driver, &mut self.targets, &mut self.buffer) {
                over.push(*key);
            }
        }
        for key in over {
            let Some(driver) = self.drivers.get_mut(&key) else {
                continue;
            };
            let told = finish(driver, &mut self.targets);
            if driver.dead.is_some() {
                self.remove_driver(key, told);
            }
        }
    }
}

/// What the driver is told.
fn operation(run: u64, code: String, cell: Cell) -> KernelOp {
    match cell.options.query {
        Some(query) => KernelOp::Query { run, query, code },
        None => KernelOp::Execute {
            run,
            code,
            cwd: cell.cwd,
            language: cell.language,
            input: cell.options.input,
            table_export: cell.options.table_export,
        },
    }
}

/// One read of one pipe, to wherever its output belongs now.
fn read_output(driver: &mut Driver, index: usize, targets: &mut Targets, buffer: &mut [u8]) {
    let Piece::Bytes(bytes) = driver.pipes[index].read_paced(buffer, clock::now()) else {
        return;
    };
    match driver.active_run() {
        Some(_) if driver.is_asked() => driver.drop_output(bytes.len()),
        Some(run) => push_output(targets, run, driver.pipes[index].stream, bytes),
        // Between runs somebody still has to read, or a thread that prints would stop the whole
        // interpreter.
        None => driver.keep_background(index, &bytes),
    }
}

/// What a driver's frame meant for others than its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Ready,
    Nothing,
}

/// One frame from a driver: checked, then passed on untouched, or dropped and counted.
pub(crate) fn frame(
    driver: &mut Driver,
    targets: &mut Targets,
    frame: Vec<u8>,
    buffer: &mut [u8],
) -> Result<Meaning, BadFrame> {
    let head = KernelEventHead::parse(&frame)?;
    if head.ev == "ready" && head.run.is_none() && driver.waiting.is_some() {
        return Ok(Meaning::Ready);
    }
    let active = driver.run.as_mut().filter(|run| run.end.is_none());
    let Some(active) = active.filter(|active| Some(active.run) == head.run) else {
        driver.frames_dropped += 1;
        return Ok(Meaning::Nothing);
    };
    let run = active.run;
    if head.ev == "done" {
        let done = KernelDone::parse(&frame)?;
        end_by_done(driver, &done);
    } else if active.takes(&head.ev) {
        if !active.query {
            read_resting(driver, run, targets, buffer);
        }
        targets.push(run, frame, |seq| EventKind::Kernel { target: run, seq });
    } else {
        driver.frames_dropped += 1;
    }
    Ok(Meaning::Nothing)
}

/// What a busy pipe holds was printed before the event that is told next. At most a pipe full.
fn read_resting(driver: &mut Driver, run: u64, targets: &mut Targets, buffer: &mut [u8]) {
    for pipe in driver.pipes.iter_mut().filter(|pipe| pipe.is_busy()) {
        pipe.rouse();
        let mut left = pipe.waiting();
        while left > 0 {
            let (Piece::Bytes(bytes), count) = pipe.read(buffer, left) else {
                break;
            };
            left -= count;
            push_output(targets, run, pipe.stream, bytes);
        }
    }
}

fn end_by_done(driver: &mut Driver, done: &KernelDone) {
    let left = driver.pipes.each_ref().map(|pipe| pipe.waiting());
    let Some(active) = &mut driver.run else {
        return;
    };
    let outcome = if active.timed_out {
        RunOutcome::TimedOut {
            context_alive: true,
        }
    } else if active.interrupted && done.status == "interrupted" {
        RunOutcome::Interrupted
    } else {
        RunOutcome::Completed
    };
    let begun = active.begun.take();
    let usage = begun.and_then(|begun| driver.meter.as_mut()?.end(begun));
    active.end = Some(RunEnd {
        outcome,
        execution_count: done.count,
        cpu_us: done.cpu_us,
        usage,
        left,
    });
}

/// The driver is dead: so is its run, unless that had ended before.
pub(crate) fn end_by_death(driver: &mut Driver) {
    let left = driver.pipes.each_ref().map(|pipe| pipe.waiting());
    let death = driver.death();
    let Some(active) = driver.run.as_mut().filter(|run| run.end.is_none()) else {
        return;
    };
    let outcome = if active.timed_out {
        RunOutcome::TimedOut {
            context_alive: false,
        }
    } else {
        RunOutcome::Died(death)
    };
    active.end = Some(RunEnd {
        outcome,
        execution_count: 0,
        cpu_us: None,
        usage: None,
        left,
    });
}

/// Reads what an ended run left in the pipes. True when that is all.
fn drain(driver: &mut Driver, targets: &mut Targets, buffer: &mut [u8]) -> bool {
    let Some(active) = &mut driver.run else {
        return false;
    };
    let Some(end) = &mut active.end else {
        return false;
    };
    for (pipe, left) in driver.pipes.iter_mut().zip(&mut end.left) {
        while *left > 0 {
            if !targets.has_room(active.run) {
                return false;
            }
            match pipe.read(buffer, *left) {
                (Piece::Bytes(bytes), count) => {
                    *left -= count;
                    if active.query {
                        driver.background_dropped += bytes.len() as u64;
                    } else {
                        push_output(targets, active.run, pipe.stream, bytes);
                    }
                }
                // Somebody else read it, which only tenant code itself can arrange.
                (Piece::Empty | Piece::End, _) => *left = 0,
            }
        }
    }
    true
}

/// The last event of a run. True when it told of the driver's death.
fn finish(driver: &mut Driver, targets: &mut Targets) -> bool {
    let Some(active) = driver.run.take() else {
        return false;
    };
    let Some(end) = active.end else { return false };
    let target = active.run;
    for pipe in &mut driver.pipes {
        pipe.rouse();
        let cut = pipe.take_cut();
        if active.query {
            driver.background_dropped += cut.len() as u64;
        } else {
            push_output(targets, target, pipe.stream, cut);
        }
    }
    let told = matches!(
        end.outcome,
        RunOutcome::Died(_)
            | RunOutcome::TimedOut {
                context_alive: false
            }
    );
    let duration_us = u64::try_from(clock::since(active.started).as_micros()).unwrap_or(u64::MAX);
    targets.push(target, Vec::new(), |seq| EventKind::RunDone {
        target,
        seq,
        outcome: end.outcome,
        execution_count: end.execution_count,
        duration_us,
        background_dropped: active.background_dropped,
        cpu_us: end.cpu_us,
        usage: end.usage,
    });
    targets.finish(target);
    told
}

pub(crate) fn push_output(
    targets: &mut Targets,
    target: u64,
    stream: crownest_init::link::Stream,
    bytes: Vec<u8>,
) {
    if !bytes.is_empty() {
        targets.push(target, bytes, |seq| EventKind::Output {
            target,
            seq,
            stream,
        });
    }
}

/// Timeout, second interrupt, kill: whatever is due.
pub(crate) fn expire(driver: &mut Driver, now: Instant) {
    let Some(active) = driver.run.as_mut().filter(|run| run.end.is_none()) else {
        return;
    };
    let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
    let timeout = !active.timed_out && active.timeout_at <= now;
    if timeout {
        active.timed_out = true;
        active.interrupt_group_at = Some(now + Duration::from_millis(INTERRUPT_GROUP_MS));
        active.kill_at = Some(now + Duration::from_millis(KILL_GRACE_MS));
    }
    let group = due(active.interrupt_group_at);
    if group {
        active.interrupt_group_at = None;
    }
    let kill = due(active.kill_at);
    if kill {
        active.kill_at = None;
    }
    if timeout {
        driver.interrupt();
    }
    if group {
        driver.interrupt_group();
    }
    if kill {
        driver.kill("timeout");
    }
}
