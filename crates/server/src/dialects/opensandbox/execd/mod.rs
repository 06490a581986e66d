//! What runs in a sandbox, in this dialect's words: one file per noun. Clients take it for a daemon
//! of the sandbox at port 44772; it is this server.

mod code;
mod command_log;
mod commands;
mod contexts;
mod env_file;
mod events;
mod files;
mod lines;
mod metrics;
mod paths;
mod ping;
mod sessions;
mod stream;
mod terminal_frames;
mod terminal_socket;
mod terminals;
mod unavailable;

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    pub use super::files::fuzzing::{glob, multipart};
    pub use super::terminal_frames::fuzz_message as terminal_message;
}

use super::error::Refusal;
use crate::app::App;
use axum::Router;
use axum::http::StatusCode;

/// Routes below `/sandboxes/{sandboxId}/proxy/44772`.
pub(super) fn router() -> Router<App> {
    Router::new()
        .merge(ping::router())
        .merge(files::router())
        .merge(code::router())
        .merge(contexts::router())
        .merge(commands::router())
        .merge(command_log::router())
        .merge(sessions::router())
        .merge(metrics::router())
        .merge(terminals::router())
        .merge(unavailable::router())
}

/// The value of a parameter that must be there.
fn required(name: &str, value: Option<String>) -> Result<String, Refusal> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| {
        let message = format!("missing parameter '{name}'");
        Refusal::new(StatusCode::BAD_REQUEST, "MISSING_QUERY", message)
    })
}
