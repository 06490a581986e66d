//! `/files` and `/directories`: one file per noun.
//!
//! Paths are absolute and lead anywhere in the sandbox; init does what is asked with the rights of
//! the tenant's user, who is the only identity here.

mod accounts;
mod directories;
mod download;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod glob;
mod identity;
mod info;
mod lines;
mod moves;
mod multipart;
mod paths;
mod permissions;
mod removal;
mod replace;
mod search;
mod upload;
mod walk;

use crate::app::App;
use crate::auth::Caller;
use axum::Router;
use axum::routing::{delete, get, post};
use crownest_api::Scope;
use serde::Deserialize;

/// The sandbox that a path names; with an identity in it, it names more.
#[derive(Debug, Deserialize)]
struct InSandbox {
    #[serde(rename = "sandboxId")]
    id: String,
}

type Reader = Caller<{ Scope::FileRead as u8 }>;
type Writer = Caller<{ Scope::FileWrite as u8 }>;

pub(super) fn router() -> Router<App> {
    Router::new()
        .merge(routes())
        .nest("/v1/filesystem/{uid}/{gid}", identity::routes())
}

/// Routes that act as the sandbox's user.
fn routes() -> Router<App> {
    Router::new()
        .route("/files", delete(removal::files))
        .route("/files/info", get(info::info))
        .route("/files/mv", post(moves::rename))
        .route("/files/permissions", post(permissions::change))
        .route("/files/search", get(search::search))
        .route("/files/replace", post(replace::replace))
        .route("/files/upload", post(upload::upload))
        .route("/files/download", get(download::download))
        .route(
            "/directories",
            post(directories::make).delete(removal::directories),
        )
        .route("/directories/list", get(directories::list))
}
