//! Sandboxes come, change and go, in this dialect's words: one file per noun.
//!
//! Pure parts: which template an image means ([`image`]), sizes ([`resources`]), labels
//! ([`labels`]). What only this dialect knows of a sandbox is in [`record`].

mod create;
mod diagnostics;
mod endpoints;
mod entrypoint;
mod image;
mod labels;
mod list;
mod metadata;
mod pause;
mod record;
mod renewal;
mod request;
mod resources;
mod sandboxes;
mod service;
mod snapshots;
mod unbuilt;

pub(super) use request::not_built;

use crate::app::App;
use axum::Router;

pub(super) fn router() -> Router<App> {
    Router::new()
        .merge(create::router())
        .merge(list::router())
        .merge(sandboxes::router())
        .merge(metadata::router())
        .merge(renewal::router())
        .merge(pause::router())
        .merge(snapshots::router())
        .merge(endpoints::router())
        .merge(diagnostics::router())
        .merge(service::router())
        .merge(unbuilt::router())
}
