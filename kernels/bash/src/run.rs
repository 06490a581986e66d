//! A run: one cell, from `execute` to `done`.
//!
//! It ends with the shell's mark, or with the shell. Where a shell does not take the cell at all,
//! since tenant code has broken it, it is replaced by one with the state that was kept last, and the
//! cell, of which nothing ran, is given to that one.

use crate::descendants::now_ticks;
use crate::error::KernelError;
use crate::failures::{
    complaints, describe_syntax_error, exit_code, interrupted, refuse, signal_name,
};
use crate::input::Input;
use crate::interrupts::Interrupt;
use crate::kernel::{Active, Kernel, NOTICE_LOST};
use crate::lines::{self, CellLines, PrivateFds};
use crate::place::Place;
use crate::protocol::{self, Execute, Failure, Status};
use crate::report::Mark;
use crate::shell::{Exit, program};
use crate::snapshot::End;
use rustix::process::Signal;
use std::io;
use std::process::{Command, Stdio};

/// Exit status of a command that SIGINT ended.
const STATUS_INTERRUPTED: i32 = 128 + 2;
/// How long bash may parse a cell again to say what is wrong with it.
const CHECK_SECONDS: &str = "2";

/// The cell that is run.
#[derive(Debug)]
pub(crate) struct Run {
    execute: Execute,
    /// Marks of this cell carry it.
    pub(crate) sequence: u64,
    pub(crate) began_ticks: u64,
    pub(crate) interrupt: Interrupt,
    /// A shell has refused it before.
    is_second_try: bool,
    /// Valid as a file of its own and not inside of a group.
    is_apart: bool,
    /// Its `read` may ask for input.
    asks: bool,
    pub(crate) input: Option<Input>,
}

impl Run {
    pub(crate) fn number(&self) -> u64 {
        self.execute.run
    }

    /// Nothing of it has run when its shell ended: what the one before left has ended that.
    pub(crate) fn may_be_tried_again(&mut self) -> bool {
        let is_first = !std::mem::replace(&mut self.is_second_try, true);
        is_first && !self.interrupt.begun && !self.interrupt.is_asked
    }
}

impl Kernel {
    /// `execute`
    pub(crate) fn execute(&mut self, execute: Execute) -> Result<(), KernelError> {
        self.count += 1;
        if let Some(failure) = refuse(&execute) {
            return self.end_run(execute.run, Status::Error, Some(&failure));
        }
        self.ensure_shell()?;
        let asks = execute.input && !self.has_own_read();
        self.active = Some(Active::Run(Run {
            execute,
            sequence: 0,
            began_ticks: 0,
            interrupt: Interrupt::default(),
            is_second_try: false,
            is_apart: false,
            asks,
            input: None,
        }));
        self.run_again()
    }

    /// Whether tenant code has a function of the name that asks for input.
    fn has_own_read(&self) -> bool {
        let last = self.state.last();
        last.is_some_and(|state| state.function(lines::READ_FUNCTION).is_some())
    }

    /// Gives the active run, if there is one, to the shell.
    pub(crate) fn run_again(&mut self) -> Result<(), KernelError> {
        if !self.is_running() {
            return Ok(());
        }
        self.ensure_place()?;
        let sequence = self.next_sequence();
        let (fds, last_status) = (self.descriptors.numbers(), self.last_status);
        let (Some(Active::Run(run)), Some(shell)) = (&mut self.active, &mut self.shell) else {
            return Ok(());
        };
        run.sequence = sequence;
        run.began_ticks = now_ticks();
        run.interrupt.begin_again();
        if run.asks {
            run.input = Some(Input::open(&self.place).map_err(KernelError::Place)?);
        }
        let written = write_cell(&mut self.place, run, last_status, &fds);
        if let Err(error) = written {
            let failure = Failure::plain("NoSpace", format!("the cell cannot be written: {error}"));
            let run = run.execute.run;
            self.active = None;
            return self.end_run(run, Status::Error, Some(&failure));
        }
        self.descriptors.take_started();
        shell.write(
            lines::cell(&CellLines {
                sequence,
                file: &self.place.cell_path(),
                cwd: run.execute.cwd.as_deref(),
                fds,
                token: &shell.token,
                read_function: run.input.as_ref().map(|input| input.function.as_str()),
            })
            .as_bytes(),
        );
        Ok(())
    }

    /// The directory that the shell reads from is there.
    fn ensure_place(&mut self) -> Result<(), KernelError> {
        if !self.place.is_intact() {
            self.place.renew(false).map_err(KernelError::Place)?;
            self.set_trap_on_exit();
        }
        Ok(())
    }

    // -- the end

    /// The shell says that a cell is over.
    pub(crate) fn cell_is_over(&mut self, mark: &Mark, text: &str) -> Result<(), KernelError> {
        let Mark::Cell {
            sequence,
            copy,
            status,
            entered,
            failing,
            crippled,
        } = *mark
        else {
            return Ok(());
        };
        let looks_lost = crippled && !self.is_crippled;
        let Some(Active::Run(run)) = self.active.take_if(|active| match active {
            Active::Run(run) if run.sequence == sequence => {
                !(looks_lost && run.interrupt.takes_for_lost(copy))
            }
            _ => false,
        }) else {
            return Ok(());
        };
        let crippled = crippled || self.is_crippled;
        let has_run = entered == Some(sequence);
        let is_interrupted = status == STATUS_INTERRUPTED || run.interrupt.has_lost_line;
        if run.interrupt.is_asked && (is_interrupted || !has_run) {
            return self.end_in_shell(&run, Status::Interrupted, Some(&interrupted()), crippled);
        }
        if !has_run {
            return self.was_refused(run, text, crippled);
        }
        self.last_status = status;
        if status == 0 {
            return self.end_in_shell(&run, Status::Ok, None, crippled);
        }
        let line = failing
            .filter(|failing| failing.status == status && !run.is_apart)
            .map(|failing| failing.line);
        let failure = exit_code(status, line, &run.execute.code);
        self.end_in_shell(&run, Status::Error, Some(&failure), crippled)
    }

    /// The shell has not run any of a cell.
    fn was_refused(&mut self, mut run: Run, text: &str, crippled: bool) -> Result<(), KernelError> {
        if let Some(failure) = refuse(&run.execute) {
            return self.end_in_shell(&run, Status::Error, Some(&failure), crippled);
        }
        let has_aliases = !self.state.harmful_aliases().is_empty();
        match self.parse_again(&run, text) {
            // The aliases have been taken away meanwhile.
            _ if has_aliases && !crippled && !run.is_second_try => run.is_second_try = true,
            Parsed::Invalid(failure) if !has_aliases => {
                return self.end_in_shell(&run, Status::Error, Some(&failure), crippled);
            }
            Parsed::Apart if !crippled => run.is_apart = true,
            _ if !run.is_second_try => {
                run.is_second_try = true;
                self.shell_is_crippled()?;
            }
            _ => {
                let message = "the shell does not take the cell".to_owned();
                let failure = Failure::plain("ShellBroken", message);
                return self.end_in_shell(&run, Status::Error, Some(&failure), true);
            }
        }
        self.active = Some(Active::Run(run));
        self.run_again()
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.active, Some(Active::Run(_)))
    }

    /// The end of a run whose shell goes on.
    fn end_in_shell(
        &mut self,
        run: &Run,
        status: Status,
        failure: Option<&Failure>,
        crippled: bool,
    ) -> Result<(), KernelError> {
        if status == Status::Interrupted {
            self.last_status = STATUS_INTERRUPTED;
        }
        if crippled {
            self.notice = Some(NOTICE_LOST);
            self.end_run(run.execute.run, status, failure)?;
            return self.repair_shell();
        }
        self.end_run(run.execute.run, status, failure)?;
        let mut after = String::from("\n");
        if run.execute.cwd.is_some() {
            after.push_str(&lines::go_back());
        }
        if run.input.is_some() {
            after.push_str(&lines::forget_read());
        }
        if after.len() > 1 {
            self.write(after.as_bytes());
        }
        self.keep_state();
        Ok(())
    }

    /// The end of a run whose shell has ended.
    pub(crate) fn end_by_exit(
        &mut self,
        run: Run,
        exit: Exit,
        end: Option<End>,
    ) -> Result<(), KernelError> {
        let number = run.execute.run;
        let (status, failure) = match exit {
            _ if run.interrupt.has_killed => (Status::Interrupted, Some(interrupted())),
            Exit::Signal(signal) if run.interrupt.is_asked && signal == Signal::INT.as_raw() => {
                (Status::Interrupted, Some(interrupted()))
            }
            Exit::Code(0) => (Status::Ok, None),
            Exit::Code(code) => {
                let line = end.and_then(|end| {
                    end.line.or_else(|| {
                        let failing = end.failing.filter(|failing| failing.status == code);
                        failing.map(|failing| failing.line)
                    })
                });
                let failure = exit_code(code, line, &run.execute.code);
                (Status::Error, Some(failure))
            }
            Exit::Signal(signal) => {
                let message = format!("the shell was killed by {}", signal_name(signal));
                (Status::Error, Some(Failure::plain("ShellKilled", message)))
            }
        };
        self.last_status = match exit {
            _ if status == Status::Interrupted => STATUS_INTERRUPTED,
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        };
        drop(run);
        self.end_run(number, status, failure.as_ref())
    }

    /// Everything that the end of a run says.
    fn end_run(
        &mut self,
        run: u64,
        status: Status,
        failure: Option<&Failure>,
    ) -> Result<(), KernelError> {
        if let Some(notice) = self.notice.take() {
            self.channel
                .send(&protocol::notice(run, "state_not_kept", notice))?;
        }
        if let Some(failure) = failure {
            self.channel.send(&protocol::error(run, failure))?;
        }
        self.channel.send(&protocol::done(run, status, self.count))
    }

    /// What bash says about a cell that it could not parse. Parsed again, without what the driver
    /// has put around the code: an unfinished here-document, for one, is no error then.
    fn parse_again(&mut self, run: &Run, text: &str) -> Parsed {
        let path = self.place.cell_path();
        let seen = complaints(text, &path);
        if seen.is_empty() {
            return Parsed::Silent;
        }
        let mut plain = Vec::new();
        let mut is_valid = false;
        if self.place.write_cell(&run.execute.code).is_ok() {
            // Something that ends it when parsing takes too long, since this waits.
            let checked = Command::new("timeout")
                .args([
                    "-k",
                    CHECK_SECONDS,
                    CHECK_SECONDS,
                    program(),
                    "-O",
                    "extglob",
                    "-n",
                ])
                .arg(&path)
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .output();
            if let Ok(checked) = checked {
                is_valid = checked.status.success();
                plain = complaints(&String::from_utf8_lossy(&checked.stderr), &path);
            }
        }
        if is_valid && !run.is_apart {
            return Parsed::Apart;
        }
        let said = if plain.is_empty() { seen } else { plain };
        Parsed::Invalid(describe_syntax_error(&said, &run.execute.code))
    }

    // -- input

    /// The function `read` of a cell with input has been called.
    pub(crate) fn cell_asks(&mut self) -> Result<(), KernelError> {
        let Some(Active::Run(run)) = &mut self.active else {
            return Ok(());
        };
        let Some(input) = &mut run.input else {
            return Ok(());
        };
        let Some(question) = input.take_question() else {
            return Ok(());
        };
        if question.elsewhere || input.asking {
            return Ok(());
        }
        input.asking = true;
        let event = protocol::input(run.execute.run, &question.prompt, question.password);
        self.channel.send(&event)
    }

    /// `input_reply`
    pub(crate) fn take_input(&mut self, number: u64, value: Option<&str>) {
        if let Some(Active::Run(run)) = &mut self.active
            && run.execute.run == number
            && let Some(input) = &mut run.input
            && input.asking
        {
            // Without the pipe the cell waits until it is interrupted.
            let _ = input.reply(value, &self.place);
        }
    }

    pub(crate) fn flush_answers(&mut self) {
        if let Some(Active::Run(run)) = &mut self.active
            && let Some(input) = &mut run.input
        {
            input.flush();
        }
    }
}

/// What parsing a cell for the second time has shown.
#[derive(Debug)]
enum Parsed {
    /// Nothing was wrong with it: something else kept it from running.
    Silent,
    Invalid(Failure),
    /// Valid, but not inside of a group.
    Apart,
}

/// Writes the file of the run's cell; elsewhere, if its file system is full.
fn write_cell(place: &mut Place, run: &Run, last_status: i32, fds: &PrivateFds) -> io::Result<()> {
    let stdin = run.input.as_ref().map(|input| input.stdin_path.as_str());
    let attempt = |place: &Place| {
        let apart;
        let code = if run.is_apart {
            apart = place.write_script(&run.execute.code)?;
            &apart
        } else {
            &run.execute.code
        };
        place.write_cell(&lines::cell_file(
            code,
            run.sequence,
            last_status,
            fds,
            stdin,
        ))
    };
    attempt(place).or_else(|_| {
        place.renew(true)?;
        attempt(place)
    })
}
