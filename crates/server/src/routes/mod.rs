//! The routes, one file per noun of the URL.
//!
//! A route and its description are registered in one call, so they cannot drift. A handler reads,
//! checks, calls one service and answers; wire formats end here.

mod agents;
mod api_keys;
mod artifacts;
mod audit_events;
mod code;
mod code_runs;
mod command_logs;
mod commands;
mod discovery;
mod file_transfers;
mod files;
mod health;
mod introspection;
mod oauth;
mod openapi;
mod paging;
mod previews;
mod projects;
mod sandboxes;
mod snapshots;
mod usage;
mod workspace_archives;
mod workspace_runs;

#[cfg(feature = "fuzzing")]
pub(crate) use paging::request as page_request;
#[cfg(feature = "fuzzing")]
pub(crate) use sandboxes::list_query;

use crate::app::App;
use crate::dialects;
use crate::previews::by_host;
use crate::request;
use axum::Router;
use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The whole HTTP side of the server.
pub fn router(app: App) -> Router {
    let (router, description) = described().split_for_parts();
    let router = router
        .merge(openapi::router(&description))
        .merge(api_keys::dashboard_router());
    let router = if app.config.metrics {
        router.merge(health::metrics_router())
    } else {
        router
    };
    let api = router
        .merge(dialects::router(&app))
        .fallback(request::no_route)
        .method_not_allowed_fallback(request::no_method)
        .layer(from_fn_with_state(app.clone(), request::layer))
        .with_state(app.clone());
    // Around the API and not in it: a preview has any path, those of the API included.
    Router::new()
        .fallback_service(api)
        .layer(from_fn_with_state(app, by_host))
}

fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(api_keys::list))
        .routes(routes!(api_keys::get, api_keys::revoke))
        .routes(routes!(usage::get))
        .routes(routes!(audit_events::list))
        .routes(routes!(sandboxes::list, sandboxes::create))
        .routes(routes!(sandboxes::get, sandboxes::delete))
        .routes(routes!(sandboxes::extend))
        .routes(routes!(sandboxes::ttl))
        .routes(routes!(sandboxes::pause))
        .routes(routes!(sandboxes::resume))
        .routes(routes!(snapshots::create))
        .routes(routes!(snapshots::list))
        .routes(routes!(snapshots::get, snapshots::delete))
        .routes(routes!(code::list_contexts, code::create_context))
        .routes(routes!(code::get_context, code::delete_context))
        .routes(routes!(code::interrupt))
        .routes(routes!(introspection::complete))
        .routes(routes!(introspection::inspect))
        .routes(routes!(introspection::variables))
        .routes(routes!(introspection::restart))
        .routes(routes!(introspection::input))
        .routes(routes!(code_runs::list, code::run))
        .routes(routes!(code_runs::get))
        .routes(routes!(code_runs::events))
        .routes(routes!(code_runs::cancel))
        .routes(routes!(code::stream))
        .routes(routes!(commands::list, commands::create))
        .routes(routes!(commands::run))
        .routes(routes!(commands::start))
        .routes(routes!(commands::get))
        .routes(routes!(commands::cancel))
        .routes(routes!(command_logs::page))
        .routes(routes!(command_logs::stream))
        .routes(routes!(command_logs::download_url))
        .routes(routes!(command_logs::download))
        .routes(routes!(files::list, files::write, files::remove))
        .routes(routes!(files::stat))
        .routes(routes!(files::read))
        .routes(routes!(files::mkdir))
        .routes(routes!(files::rename))
        .routes(routes!(file_transfers::download_url))
        .routes(routes!(file_transfers::download))
        .routes(routes!(file_transfers::upload_url))
        .routes(routes!(file_transfers::upload))
        .routes(routes!(artifacts::list, artifacts::create))
        .routes(routes!(artifacts::get, artifacts::delete))
        .routes(routes!(artifacts::download_url))
        .routes(routes!(artifacts::download))
        .routes(routes!(discovery::auth_md))
        .routes(routes!(discovery::llms_txt))
        .routes(routes!(discovery::api_catalog))
        .routes(routes!(discovery::protected_resource))
        .routes(routes!(discovery::authorization_server))
        .routes(routes!(discovery::jwks))
        .routes(routes!(agents::identity))
        .routes(routes!(agents::claim))
        .routes(routes!(agents::bootstrap))
        .routes(routes!(agents::notify))
        .routes(routes!(oauth::token))
        .routes(routes!(oauth::revoke))
        .routes(routes!(previews::list, previews::create))
        .routes(routes!(previews::get, previews::revoke))
        .routes(routes!(workspace_runs::list, workspace_runs::create))
        .routes(routes!(workspace_runs::get))
        .routes(routes!(workspace_runs::start))
        .routes(routes!(workspace_runs::cancel))
        .routes(routes!(workspace_runs::events))
        .routes(routes!(workspace_runs::evidence))
        .routes(routes!(workspace_archives::upload))
        .routes(routes!(workspace_archives::transfer))
        .routes(routes!(workspace_archives::send))
        .routes(routes!(workspace_archives::finalize))
}
