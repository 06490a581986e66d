//! The kernel calls that need `unsafe`: fork and exec, file system identity, signal masks, clocks
//! of other processes, and one ioctl. Nothing else in this crate may use `unsafe`; everything here
//! is small enough to be read in one sitting and hands out safe functions only.

#![allow(
    unsafe_code,
    reason = "the one place of this crate for it; see each SAFETY comment"
)]

pub(crate) mod clock;
pub(crate) mod fds;
pub(crate) mod identity;
pub(crate) mod pidfd;
pub(crate) mod signals;
pub(crate) mod spawn;
