//! Questions to the shell: its state after each cell, and what queries need. The answer is in a
//! file when the shell says so.

use crate::error::KernelError;
use crate::kernel::{Kernel, NOTICE_LOST};
use crate::lines;
use crate::quoting::single;
use crate::snapshot::Snapshot;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A larger state is written down when the context is idle, not after each cell.
const STATE_QUICK_BYTES: usize = 256 * 1024;
/// How much of its time an idle context may spend on that, and the longest pause.
const STATE_PAUSE_FACTOR: u32 = 10;
const STATE_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Answers that are waited for.
const QUESTIONS_MAX: usize = 8;

/// What the shell was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The state before any cell.
    Baseline,
    State,
    Help,
}

#[derive(Debug)]
struct Question {
    sequence: u64,
    purpose: Purpose,
    asked: Instant,
}

/// What is known of the questions.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    open: VecDeque<Question>,
    /// The state that is known is that of now.
    pub(crate) is_state_fresh: bool,
    state_bytes: usize,
    state_took: Duration,
    pub(crate) state_at: Option<Instant>,
}

impl Questions {
    /// The shell that was asked is gone.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
        self.state_at = None;
    }

    /// Whether the state is on its way.
    pub(crate) fn is_state_asked(&self) -> bool {
        self.open
            .iter()
            .any(|question| question.purpose != Purpose::Help)
    }
}

impl Kernel {
    /// Asks for what the script of the state prints.
    pub(crate) fn ask(&mut self, purpose: Purpose) {
        let command = format!("\\builtin . {}", single(&self.place.keep_path()));
        self.ask_with(purpose, &command);
    }

    pub(crate) fn ask_with(&mut self, purpose: Purpose, command: &str) {
        if self.questions.open.len() >= QUESTIONS_MAX {
            return;
        }
        let sequence = self.next_sequence();
        let file = self.answer_path(sequence);
        let text = format!("\n{}", lines::question(sequence, command, &file));
        self.write(text.as_bytes());
        self.questions.open.push_back(Question {
            sequence,
            purpose,
            asked: Instant::now(),
        });
    }

    /// Nobody can be there before the shell: the name has the token of the shell.
    fn answer_path(&self, sequence: u64) -> String {
        let token = self.shell.as_ref().map_or("", |shell| &shell.token);
        self.place.path(&format!("answer.{sequence}.{token}"))
    }

    pub(crate) fn ask_for_state(&mut self) {
        self.questions.state_at = None;
        self.ask(Purpose::State);
    }

    /// After a cell: at once if that is quick, else when the context has been idle for a while.
    pub(crate) fn keep_state(&mut self) {
        self.questions.is_state_fresh = false;
        if self.questions.state_bytes <= STATE_QUICK_BYTES {
            self.ask_for_state();
        } else {
            let pause = (self.questions.state_took * STATE_PAUSE_FACTOR).min(STATE_PAUSE_MAX);
            self.questions.state_at = Some(Instant::now() + pause);
        }
    }

    pub(crate) fn take_answer(&mut self, sequence: u64) -> Result<(), KernelError> {
        // One before it that has not been answered never will be.
        while self
            .questions
            .open
            .pop_front_if(|question| question.sequence < sequence)
            .is_some()
        {}
        let Some(question) = self
            .questions
            .open
            .pop_front_if(|question| question.sequence == sequence)
        else {
            return Ok(());
        };
        let answer = self.place.take(&self.answer_path(sequence));
        let answer = answer.unwrap_or_default();
        match question.purpose {
            Purpose::Help => self.take_help(&answer),
            Purpose::Baseline | Purpose::State => {
                self.questions.state_bytes = answer.len();
                self.questions.state_took = question.asked.elapsed();
                match Snapshot::parse(&answer) {
                    Some(snapshot) if question.purpose == Purpose::Baseline => {
                        self.state.begin(snapshot);
                        self.questions.is_state_fresh = true;
                    }
                    Some(snapshot) => {
                        let (exit, error) = (snapshot.has_trap_on_exit, snapshot.has_trap_on_error);
                        self.state.adopt(snapshot);
                        self.set_missing_traps(exit, error);
                        for name in self.state.harmful_aliases() {
                            self.write(format!("\\builtin unalias {}\n", single(name)).as_bytes());
                        }
                        self.questions.is_state_fresh = true;
                    }
                    // Too long, or no room for it: the last one that was kept stays.
                    None if Snapshot::was_begun(&answer) => {
                        self.questions.state_bytes = usize::MAX;
                        self.questions.state_took = STATE_PAUSE_MAX;
                    }
                    // A cell that it has been given since is not given to another one.
                    None if self.is_running() => self.is_crippled = true,
                    None => return self.shell_is_crippled(),
                }
                self.go_on_with_query()
            }
        }
    }

    /// Tenant code may set these traps; where it has none, they are the driver's.
    fn set_missing_traps(&mut self, has_trap_on_exit: bool, has_trap_on_error: bool) {
        if !has_trap_on_error {
            self.write(lines::trap_on_error().as_bytes());
        }
        if !has_trap_on_exit {
            self.set_trap_on_exit();
        }
    }

    /// In a directory that has been made anew.
    pub(crate) fn set_trap_on_exit(&mut self) {
        let last = self.state.last();
        let is_taken = |state: &Snapshot| state.traps.iter().any(|trap| trap.signal == "EXIT");
        if !last.is_some_and(is_taken) {
            let (keep, leaving) = (self.place.keep_path(), self.place.leaving_path());
            self.write(lines::trap_on_exit(&keep, &leaving).as_bytes());
        }
    }

    /// It cannot print its state, or does not take cells: its builtins are gone, or the directory.
    pub(crate) fn shell_is_crippled(&mut self) -> Result<(), KernelError> {
        self.notice = Some(NOTICE_LOST);
        self.repair_shell()
    }

    /// A new shell, with the state that was kept last.
    pub(crate) fn repair_shell(&mut self) -> Result<(), KernelError> {
        self.replace_shell()?;
        self.questions.is_state_fresh = true;
        self.go_on_with_query()
    }
}
