//! Other services' APIs, spoken by this server: what their official clients send is translated onto
//! the services behind `/v1`, and what those answer into what the clients expect.
//!
//! Owns: wire formats of the dialects. Does not own: anything that happens; a sandbox that one
//! dialect makes is the same sandbox in every other.

mod opensandbox;

#[cfg(feature = "fuzzing")]
pub(crate) use opensandbox::fuzzing;

use crate::app::App;
use axum::Router;

/// Every dialect under its prefix.
pub(crate) fn router(app: &App) -> Router<App> {
    Router::new().nest(opensandbox::PREFIX, opensandbox::router(app))
}
