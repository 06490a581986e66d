//! The frames spoken between the server and `crownest-init`, pid 1 of a sandbox.
//!
//! Owns: the link protocol (its framing in [`frame`], its messages in [`link`], what a
//! run is given and what it cost in [`cell`], where a process reads from in [`terminal`]) and the framing
//! of kernel drivers ([`kernel`]). Both ends use these types, so they cannot drift. Beside them
//! what else init reads of bytes that are not its own, as pure functions: [`characters`] of
//! output, a [`path`] and what to [`expand`] in it, a line about a [`process`], the [`identity`] of one. [`unpack`] has the entries of archives,
//! [`startup`] what every program of ours does first.
//! Does not own: sockets, processes, files. Those are in the binary (`main.rs`) on one side and
//! in `crownest-server` on the other.
//!
//! Trust: everything that arrives *from* a sandbox is hostile, whoever seems to have written it.

pub mod cell;
pub mod characters;
pub mod expand;
pub mod frame;
pub mod identity;
pub mod kernel;
pub mod link;
pub mod path;
pub mod process;
#[path = "sys/startup.rs"]
pub mod startup;
pub mod terminal;
pub mod unpack;
