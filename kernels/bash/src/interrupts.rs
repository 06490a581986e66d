//! Interrupts of a run: SIGINT to everything that the cell runs, and only while it runs; where that
//! does not end it, the end of the shell.
//!
//! The shell goes on where it was when a program has handled the signal itself, and where the cell
//! has a trap for it.

use crate::descendants::{has_started, is_starting, now_ticks, signal_strays};
use crate::error::KernelError;
use crate::kernel::{Active, Kernel};
use crate::lines;
use crate::protocol::Status;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long an interrupt waits for programs that are just being started, and how often it looks.
const INTERRUPT_DELAY_MAX: Duration = Duration::from_millis(100);
const INTERRUPT_LOOK: Duration = Duration::from_millis(10);
/// A cell that is not over by then has programs that the interrupt has not reached.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(25);
/// How often it is sent again while the shell starts one program after the other, each of which
/// may swallow it. A trap of the cell may see these.
const INTERRUPTS_MORE_MAX: u32 = 20;
/// A shell that still runs the cell by then is killed; init would kill the whole context half a
/// second later where a timeout is the reason.
const INTERRUPT_KILL: Duration = Duration::from_millis(1_500);
/// Where the interrupt of a run stands.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    /// Bash has begun the cell.
    pub(crate) begun: bool,
    pub(crate) is_asked: bool,
    /// It came before bash had begun the cell.
    pub(crate) waits_for_begin: bool,
    /// When one that waits for programs is sent at the latest.
    send_until: Option<Instant>,
    has_met_strays: bool,
    /// When the last one was sent, as start times of processes are counted.
    sent_ticks: u64,
    /// The shell was seen to start programs after it.
    meets_starts: bool,
    sent_again: u32,
    /// The lines that say that the cell is over, beyond the first.
    copies: u32,
    /// One of them was lost to an interrupt.
    pub(crate) has_lost_line: bool,
    look_at: Option<Instant>,
    kill_at: Option<Instant>,
    pub(crate) has_killed: bool,
}

impl Interrupt {
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.look_at, self.kill_at].into_iter().flatten().min()
    }

    /// Whether a mark that the shell has printed without its builtins says nothing about them: an
    /// interrupt that bash acts on while it runs the line before has thrown that line away. Another
    /// copy follows then, and if not, the shell is killed.
    pub(crate) fn takes_for_lost(&mut self, copy: u32) -> bool {
        let is_lost = self.is_asked && copy < self.copies;
        self.has_lost_line |= is_lost;
        is_lost
    }

    /// The cell is given to another shell.
    pub(crate) fn begin_again(&mut self) {
        self.begun = false;
        self.copies = 0;
        self.waits_for_begin = self.is_asked;
    }
}

impl Kernel {
    /// `interrupt`: at once if the cell has begun, else as soon as it has.
    pub(crate) fn interrupt(&mut self, number: u64) -> Result<(), KernelError> {
        let now = Instant::now();
        match &mut self.active {
            Some(Active::Run(run)) if run.number() == number => {
                run.interrupt.is_asked = true;
                run.interrupt.kill_at.get_or_insert(now + INTERRUPT_KILL);
                run.interrupt.send_until = Some(now + INTERRUPT_DELAY_MAX);
                run.interrupt.begun |= self.descriptors.take_started();
                run.interrupt.waits_for_begin = !run.interrupt.begun;
                if run.interrupt.begun {
                    self.send_interrupt(now);
                }
                Ok(())
            }
            Some(Active::Query(asked)) if asked.query.run == number => {
                self.end_query(Status::Interrupted, None)
            }
            _ => Ok(()),
        }
    }

    /// The start of a cell for which an interrupt waits.
    pub(crate) fn cell_has_begun(&mut self) {
        if self.descriptors.take_started()
            && let Some(Active::Run(run)) = &mut self.active
        {
            run.interrupt.begun = true;
            if std::mem::take(&mut run.interrupt.waits_for_begin) {
                self.send_interrupt(Instant::now());
            }
        }
    }

    /// SIGINT, as soon as it hits all programs that run.
    fn send_interrupt(&mut self, now: Instant) {
        let (Some(Active::Run(run)), Some(shell)) = (&mut self.active, &mut self.shell) else {
            return;
        };
        let may_wait = run.interrupt.send_until.is_some_and(|until| now < until);
        if may_wait && is_starting(shell.pid()) {
            run.interrupt.look_at = Some(now + INTERRUPT_LOOK);
            return;
        }
        run.interrupt.send_until = None;
        run.interrupt.look_at = Some(now + INTERRUPT_AGAIN);
        run.interrupt.sent_ticks = now_ticks();
        shell.signal_group(Signal::INT);
        // It may have been about to read the line that says that the cell is over.
        run.interrupt.copies += 1;
        let again = lines::cell_over(run.sequence, run.interrupt.copies, &shell.token);
        let again = format!("\n{again}");
        shell.write(again.as_bytes());
    }

    /// The cell is not over in spite of an interrupt.
    fn look_again(&mut self, now: Instant) {
        let (Some(Active::Run(run)), Some(shell)) = (&mut self.active, &self.shell) else {
            return;
        };
        run.interrupt.look_at = None;
        if run.interrupt.send_until.is_some() {
            self.send_interrupt(now);
            return;
        }
        if !std::mem::replace(&mut run.interrupt.has_met_strays, true) {
            signal_strays(shell.pid(), run.began_ticks, Signal::INT);
        }
        run.interrupt.look_at = Some(now + INTERRUPT_AGAIN);
        // A program that was started while the signal was on its way may have missed it; one that
        // is started now stands for a loop of them.
        run.interrupt.meets_starts |=
            is_starting(shell.pid()) || has_started(shell.pid(), run.interrupt.sent_ticks);
        if run.interrupt.meets_starts && run.interrupt.sent_again < INTERRUPTS_MORE_MAX {
            run.interrupt.sent_again += 1;
            self.send_interrupt(now);
        }
    }

    /// Deadlines of the active run.
    pub(crate) fn expire_run(&mut self, now: Instant) {
        let (Some(Active::Run(run)), Some(shell)) = (&mut self.active, &self.shell) else {
            return;
        };
        if run.interrupt.kill_at.is_some_and(|at| at <= now) {
            run.interrupt.kill_at = None;
            run.interrupt.look_at = None;
            run.interrupt.has_killed = true;
            signal_strays(shell.pid(), run.began_ticks, Signal::KILL);
            shell.signal_group(Signal::KILL);
        } else if run.interrupt.look_at.is_some_and(|at| at <= now) {
            self.look_again(now);
        }
    }
}
