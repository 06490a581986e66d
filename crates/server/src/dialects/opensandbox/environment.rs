//! What clients of this dialect expect to find in the environment of a sandbox's processes.
//!
//! A sandbox that is made here has it in its own environment. One that was made elsewhere does
//! not, so execd gives it to the commands that it starts there.

use std::collections::BTreeMap;

/// The sandbox's own id.
pub(super) const ID: &str = "OPENSANDBOX_ID";
/// A file of further variables; execd reads it before every command.
pub(super) const ENVS: &str = "EXECD_ENVS";
pub(super) const ENVS_FILE: &str = "/home/user/.opensandbox.env";
/// Clients wait for something that listens on this port of the sandbox's loopback: with the
/// original it is the notebook server behind the code contexts. Ours have no server between, so
/// what listens is the one thing that always does and needs no process: the egress proxy.
pub(super) const KERNELS_PORT: &str = "JUPYTER_PORT";
const EGRESS_PROXY_PORT: &str = "3128";

/// The variables that are the same in every sandbox.
pub(super) fn of_every_sandbox() -> BTreeMap<String, String> {
    [(ENVS, ENVS_FILE), (KERNELS_PORT, EGRESS_PROXY_PORT)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// All of them, for a sandbox that may have been made elsewhere.
pub(super) fn of_sandbox(id: &str) -> BTreeMap<String, String> {
    let mut env = of_every_sandbox();
    env.insert(ID.to_owned(), id.to_owned());
    env
}
