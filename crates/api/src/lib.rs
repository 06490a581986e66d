//! The wire types of the CrowNest API: what clients send, what they get, and the rules that both
//! sides can check without a server.
//!
//! Owns: request and answer bodies, identifiers, scopes, error codes with their HTTP status, and
//! the limits that a client can run into. Everything is camelCase; an absent value is left out,
//! never `null`; unknown fields are tolerated.
//! Does not own: rows of the store, processes, I/O of any kind.

#![forbid(unsafe_code)]

pub mod agent;
pub mod api_key;
pub mod artifact;
pub mod audit_event;
pub mod code;
pub mod command;
pub mod detached_run;
pub mod error;
pub mod file;
pub mod id;
pub mod introspection;
pub mod limits;
pub mod metadata;
pub mod output_budget;
pub mod page;
pub mod preview;
pub mod project;
pub mod sandbox;
pub mod scope;
pub mod snapshot;
pub mod timestamp;
pub mod usage;
pub mod workspace_run;

pub use error::{ErrorBody, ErrorCode, ErrorEnvelope};
pub use id::{IdKind, derived_id, new_id};
pub use scope::Scope;
pub use timestamp::Timestamp;
