//! The CrowNest server: HTTP routes, authentication, and the life of sandboxes on this node.
//!
//! Owns: everything between an HTTP request and (a) a row in the store, (b) a frame to the init of
//! a sandbox, (c) a command to the spawner. It alone joins rows to processes.
//! Does not own: privilege. This crate runs as an unprivileged user and holds no capability.

pub mod egress;
pub mod host;
