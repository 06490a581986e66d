//! The routes against a real store, without sandboxes: who may do what, and how it is refused.
//!
//! What needs a live sandbox is tested end to end elsewhere. The spawner here is one that is not
//! there, as after a crash.

#![expect(clippy::unwrap_used, reason = "a panic is the report of a test")]

mod auth;
mod errors;
mod idempotency;
mod sandboxes;
mod scopes;
mod support;
