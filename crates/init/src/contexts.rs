//! Contexts: which driver serves which, what its driver says, and its death.
//!
//! How a driver comes is in `arrivals.rs`, what a run is in `runs.rs`.

use crate::calls::{Answer, Handled, done, refuse};
use crate::clock;
use crate::driver::{Dead, Driver, Role};
use crate::environment::{self, Environment};
use crate::host::Host;
use crate::log::log;
use crate::processes;
use crate::runs::{self, Meaning};
use crate::sys::pidfd;
use crate::sys::spawn::Exit;
use crownest_init::kernel::KernelOp;
use crownest_init::link::{CONTEXTS_MAX, CallError, CallErrorCode, DRIVER_READY_MS_MAX, EventKind};
use rustix::event::epoll::EventFlags;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Names of dead contexts that are remembered, to say "dead" instead of "unknown".
const DEAD_CONTEXTS_MAX: usize = CONTEXTS_MAX;
/// A driver that closed its control socket is useless. If that was its exit, its death comes
/// within this time and with its real cause; freeing gigabytes after an out-of-memory kill takes
/// a while.
const HANG_UP_GRACE_MS: u64 = 2_000;
/// Longest time that may be set for unclaimed drivers; keeps clock arithmetic in range.
const SPARE_MS_MAX: u64 = 24 * 3600 * 1000;

/// The driver of a context, dead or alive.
pub(crate) fn find_context(drivers: &BTreeMap<u64, Driver>, context: &str) -> Option<u64> {
    drivers
        .iter()
        .find(|(_, driver)| driver.context() == Some(context))
        .map(|(key, _)| *key)
}

impl Host {
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
        if driver.reason.is_some() {
            // It is being killed: what it still says, a forged end of its run among it, is void.
            driver.control.discard();
            return;
        }
        let mut ready = false;
        let outcome = driver.control.frames().and_then(|frames| {
            for bytes in frames {
                ready |= runs::frame(driver, &mut self.targets, bytes, &mut self.buffer)?
                    == Meaning::Ready;
            }
            Ok(())
        });
        if outcome.is_err() && driver.reason.is_none() && driver.dead.is_none() {
            log!("driver {} broke the protocol and is killed", driver.pid);
            driver.kill("bad_frame");
        } else if driver.control.is_closed() && driver.hung_up_until.is_none() {
            let grace = Duration::from_millis(HANG_UP_GRACE_MS);
            driver.hung_up_until = Some(clock::now() + grace);
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

    /// `SpareDeadline`: what is spare by then is wanted by nobody and only takes memory.
    pub(crate) fn set_spare_deadline(&mut self, after_ms: u64) -> Handled {
        let after = Duration::from_millis(after_ms.min(SPARE_MS_MAX));
        self.spare_deadline = Some(clock::now() + after);
        done()
    }

    fn expire_spares(&mut self, now: Instant) {
        if self.spare_deadline.is_none_or(|at| at > now) {
            return;
        }
        self.spare_deadline = None;
        for driver in self.drivers.values_mut() {
            // One that is on its way is about to be claimed: nobody starts one for later any more.
            if driver.is_spare(&driver.language) {
                driver.kill("unclaimed");
            }
        }
    }

    /// Not ready in time, or hung up and still alive.
    pub(crate) fn expire_drivers(&mut self, now: Instant) {
        self.expire_spares(now);
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

    pub(crate) fn check_new_context(&self, context: &str) -> Result<(), CallError> {
        environment::check_name("context", context)?;
        if find_context(&self.drivers, context).is_some() {
            return refuse(
                CallErrorCode::ContextExists,
                "a context of that name is there",
            );
        }
        Ok(())
    }

    pub(crate) fn check_driver_room(&self) -> Result<(), CallError> {
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

fn describe(driver: &Driver) -> String {
    match driver.dead.and_then(|dead| dead.exit) {
        Some(Exit::Code(code)) => format!("exit code {code}"),
        Some(Exit::Signal(signal)) => format!("signal {signal}"),
        None => "cause unknown".to_owned(),
    }
}
