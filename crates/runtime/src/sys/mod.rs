//! The only place of this crate with `unsafe`: system calls that rustix does not wrap.
//!
//! Owns: thin, safe functions around single calls. Does not own: their order (that is
//! [`crate::spawner`], where order is the security argument).

#![allow(unsafe_code)]

mod clone;
mod exec;
mod mount_attr;
mod net;
mod probe;
mod seccomp;

pub use clone::{
    CloneFlags, Cloned, clone3, clone3_owned_by, default_children, ignore_children, unshare_cgroup,
    unshare_mounts,
};
pub use exec::{close_from, close_others, duplicate_onto, execute_fd, exit_now};
pub use mount_attr::{AttrFlags, set_mount_attr};
pub use net::loopback_up;
pub use probe::landlock_abi;
pub use seccomp::{Instruction, install_filter};
