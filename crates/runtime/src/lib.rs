//! How sandboxes are made and unmade: the privileged *spawner* and its unprivileged client.
//!
//! Owns: the commands between the two ([`command`]), what a sandbox consists of as pure data
//! ([`plan`]), how that is applied ([`spawner`]), control groups ([`cgroup`]), the seccomp filter
//! ([`seccomp`]), templates ([`template`]), and where things are on disk ([`layout`]).
//! Does not own: rows, HTTP, what runs inside a sandbox (that is `crownest-init`).
//!
//! Privilege: everything below [`spawner`] runs as root in one single-threaded process that reads
//! nothing but fixed-size commands from one local socket. Everything else runs unprivileged.
//!
//! `unsafe` lives in [`sys`] alone.

pub mod cgroup;
pub mod client;
pub mod command;
pub mod doctor;
mod kernels;
pub mod layout;
pub mod plan;
pub mod seccomp;
pub mod snapshot;
pub mod spawner;
pub mod sys;
pub mod template;
