//! The CrowNest server: HTTP routes, authentication, and the life of sandboxes on this node.
//!
//! Owns: everything between an HTTP request and (a) a row in the store, (b) a frame to the init of
//! a sandbox, (c) a command to the spawner. It alone joins rows to processes.
//! Does not own: privilege. This crate runs as an unprivileged user and holds no capability.
//!
//! From the outside in: [`request`] wraps every request; [`routes`] are the nouns of the URL;
//! `auth` says who asks; `idempotency` answers a second time; the services behind them are
//! `creation`, `lifecycle` and `recovery` (sandboxes come and go), `code` and `runs` (contexts and what runs in them),
//! `detached` runs, `commands` and the logs of both (`command_log`); [`host`] is the machine. Start it with [`bootstrap()`], [`App::new`] and [`run`].

#![forbid(unsafe_code)]

pub mod egress;
pub mod host;
pub mod objects;

mod agents;
mod app;
mod archive;
mod artifacts;
mod audit;
mod auth;
mod bootstrap;
mod budget;
mod byte_range;
mod checks;
mod code;
mod command_log;
mod commands;
mod config;
mod creation;
mod detached;
mod dialects;
mod discovery;
mod disk;
mod error;
mod extract;
mod file_stream;
mod file_transfers;
mod full_output;
mod host_metrics;
mod idempotency;
mod introspection;
mod lifecycle;
mod metering;
mod metrics;
mod node;
mod output_budget;
mod outputs;
mod pausing;
mod persist;
mod plans;
mod previews;
mod rate_limit;
mod recovery;
mod request;
mod routes;
mod run_answer;
mod run_result;
mod runs;
mod runtimes;
mod sandbox_egress;
mod sandboxes;
mod serve;
mod signed_url;
mod snapshots;
mod sse;
mod table_exports;
mod templates;
mod terminals;
mod unread;
mod workspace_runs;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use agents::{new_signing_key, usual_scopes};
pub use app::App;
pub use bootstrap::{FreshCredentials, NewKey, bootstrap, create_key};
pub use config::Config;
pub use error::{ApiError, ApiResult};
pub use plans::{Plan, UnknownPlan};
pub use routes::router;
pub use runtimes::defaults as runtimes_of;
pub use serve::{ServeError, run};
pub use templates::{Inventory, Template, TemplateSource};
