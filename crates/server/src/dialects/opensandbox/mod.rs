//! OpenSandbox: its lifecycle API under `/opensandbox/v1`, and under each sandbox's
//! `/proxy/{port}/` what its clients look for at that port: execd at 44772, the egress API at
//! 18080, and at any other the sandbox's own service.
//!
//! Source of the wire format: the OpenSandbox specifications (execd, lifecycle, egress, 2026-06)
//! and what the released clients send.

mod access;
mod egress;
mod environment;
mod error;
mod execd;
mod lifecycle;
mod network;
mod proxy;

#[cfg(feature = "fuzzing")]
pub(crate) use execd::fuzzing;

use crate::app::App;
use axum::Router;
use axum::middleware::from_fn_with_state;

/// Where this dialect is.
pub(super) const PREFIX: &str = "/opensandbox";
/// Port under which clients look for execd.
const EXECD_PORT: u16 = 44_772;
/// Port under which clients look for the egress API.
const EGRESS_PORT: u16 = 18_080;

/// Everything under `/opensandbox`.
pub(super) fn router(app: &App) -> Router<App> {
    let execd = execd::router()
        .merge(proxy::execd_router())
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(from_fn_with_state(app.clone(), access::layer))
        .layer(from_fn_with_state(app.clone(), error::execd_words));
    let lifecycle = lifecycle::router()
        .nest("/sandboxes/{sandboxId}/proxy/18080", egress::router())
        .merge(egress::policy_router())
        .merge(proxy::router())
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(from_fn_with_state(app.clone(), access::layer))
        .layer(from_fn_with_state(app.clone(), error::lifecycle_words));
    let api = Router::new()
        .nest("/sandboxes/{sandboxId}/proxy/44772", execd)
        .merge(lifecycle);
    Router::new().nest("/v1", api.clone()).merge(api)
}
