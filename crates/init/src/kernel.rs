//! Framing and messages between init and a kernel driver: `u32 length (big endian) | JSON`.
//!
//! The text of the protocol is `kernels/PROTOCOL.md`. A driver runs tenant code in its own
//! process, so every frame from it may be forged: lengths are capped, unknown events dropped,
//! and an event counts only when it names the run that init itself started.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest frame in either direction. A rich result above it is rejected by the driver itself.
pub const KERNEL_FRAME_BYTES_MAX: usize = 12 * 1024 * 1024;

/// What init tells a driver.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum KernelOp {
    /// Once, before the first execute: working directory and environment of the context.
    Start {
        cwd: String,
        env: BTreeMap<String, String>,
    },
    /// Run one cell. `run` is unique for the life of the sandbox.
    Execute {
        run: u64,
        code: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cwd: Option<String>,
    },
    /// Announces the SIGINT that follows, so that a driver which has not read `Execute` yet does
    /// not take the signal for a late one.
    Interrupt { run: u64 },
}

/// The part of a driver's event that init itself reads; the rest goes to the server untouched.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct KernelEventHead {
    /// `ready`, `result`, `display`, `clear`, `error`, `done`.
    pub ev: String,
    /// The run it belongs to; absent on `ready`.
    #[serde(default)]
    pub run: Option<u64>,
}

/// What init reads of a `done`.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct KernelDone {
    /// `ok`, `error`, `interrupted`.
    pub status: String,
    /// Execution count of the context.
    #[serde(default)]
    pub count: u64,
    /// Processor time of the cell as the driver counted it; never trusted.
    #[serde(default)]
    pub cpu_us: Option<u64>,
}
