//! The driver of the shell: holds one `bash -i` for a code context and runs cells in it.
//!
//! Owns: the bash process, what of it survives its end, the answers about it. Does not own: the
//! pipes that the shell prints to (init reads them), limits, isolation.
//!
//! Who runs what: init starts this program as the tenant's user, inside the sandbox, with no
//! privilege; it starts bash as the same user. Tenant code can stop, trace or kill both. Whatever
//! it does to them costs its own context and nothing else, since init believes no driver.
//!
//! The contract is `kernels/PROTOCOL.md`, how it is kept `kernels/bash/README.md`.

mod channel;
mod complete;
mod descendants;
mod error;
mod failures;
mod input;
mod inspect;
mod interrupts;
mod kernel;
mod lines;
mod place;
mod protocol;
mod queries;
mod questions;
mod quoting;
mod report;
mod run;
mod shell;
mod snapshot;
mod state;
mod words;

use crate::channel::Channel;
use crate::error::KernelError;
use crate::kernel::Kernel;
use crownest_init::startup;
use std::process::ExitCode;

/// Names the control socket's descriptor.
const CONTROL_VARIABLE: &str = "CROWNEST_KERNEL_FD";
/// A defect of the driver or of its surroundings, not of a cell.
const EXIT_BROKEN: u8 = 70;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bash driver: {error}");
            ExitCode::from(EXIT_BROKEN)
        }
    }
}

fn serve() -> Result<(), KernelError> {
    let control = take_control()?;
    // Init signals this process; it acts on the frame that comes before the signal.
    startup::swallow_interrupts().map_err(|e| KernelError::Prepare("handle SIGINT", e))?;
    Kernel::start(Channel::new(control))?.serve()
}

fn take_control() -> Result<std::os::fd::OwnedFd, KernelError> {
    let number = std::env::var(CONTROL_VARIABLE)
        .map_err(|_| KernelError::Control(format!("{CONTROL_VARIABLE} is not set")))?;
    let number: i32 = number
        .parse()
        .ok()
        .filter(|number| *number > 2)
        .ok_or_else(|| KernelError::Control(format!("{CONTROL_VARIABLE} is {number:?}")))?;
    startup::take_inherited(number)
        .map_err(|error| KernelError::Control(format!("descriptor {number}: {error}")))
}
