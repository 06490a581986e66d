//! `/v1/sandboxes/{id}/previews` and `/v1/previews`.

use super::paging;
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::previews::{PreviewCreation, Site};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use crownest_api::Scope;
use crownest_api::page::{Page, PageQuery};
use crownest_api::preview::{CreatePreview, Preview, PreviewAnswer, PreviewCreated};

/// Makes a preview of a port.
///
/// A port has one active preview: asking again returns it, without its token. At most 3 are active
/// for a sandbox and 10 for an organization. Nothing needs to listen on the port yet.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/previews", operation_id = "createPreview", tag = "previews",
    params(("sandboxId" = String, Path)),
    request_body = CreatePreview, responses((status = 201, body = PreviewCreated)),
    security(("bearer" = ["preview:create"]), ("apiKey" = ["preview:create"]))
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller<{ Scope::PreviewCreate as u8 }>,
    PathArgs(id): PathArgs<String>,
    headers: HeaderMap,
    body: JsonBody<CreatePreview>,
) -> ApiResult<(StatusCode, Json<PreviewCreated>)> {
    let creation = PreviewCreation::check(body.value)?;
    let live = app.live_sandbox(&caller, &id).await?;
    let site = Site::of(&app.config, &headers);
    let created = app
        .create_preview(&caller, &caller.request, &live, creation, &site)
        .await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Previews of a sandbox, those that are over too, newest first.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/previews", operation_id = "listPreviews", tag = "previews",
    params(("sandboxId" = String, Path), PageQuery),
    responses((status = 200, body = Page<Preview>)),
    security(("bearer" = ["preview:read"]), ("apiKey" = ["preview:read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller<{ Scope::PreviewRead as u8 }>,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<PageQuery>,
    headers: HeaderMap,
) -> ApiResult<Json<Page<Preview>>> {
    let page = paging::request(&query)?;
    app.find_sandbox(&caller, &id).await?;
    let rows = app.store.previews(&caller.org_id, &id, &page).await?;
    let site = Site::of(&app.config, &headers);
    Ok(Json(paging::answer(rows, |row| {
        app.preview_wire(&row, &site)
    })))
}

/// One preview, active or over.
#[utoipa::path(
    get, path = "/v1/previews/{previewId}", operation_id = "getPreview", tag = "previews",
    params(("previewId" = String, Path)), responses((status = 200, body = PreviewAnswer)),
    security(("bearer" = ["preview:read"]), ("apiKey" = ["preview:read"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller<{ Scope::PreviewRead as u8 }>,
    PathArgs(id): PathArgs<String>,
    headers: HeaderMap,
) -> ApiResult<Json<PreviewAnswer>> {
    let row = app.find_preview(&caller, &id).await?;
    let preview = app.preview_wire(&row, &Site::of(&app.config, &headers));
    Ok(Json(PreviewAnswer { preview }))
}

/// Ends a preview at once, its open connections and browser sessions too. Revoking again changes
/// nothing.
#[utoipa::path(
    delete, path = "/v1/previews/{previewId}", operation_id = "revokePreview", tag = "previews",
    params(("previewId" = String, Path)), responses((status = 200, body = PreviewAnswer)),
    security(("bearer" = ["preview:revoke"]), ("apiKey" = ["preview:revoke"]))
)]
pub(super) async fn revoke(
    State(app): State<App>,
    caller: Caller<{ Scope::PreviewRevoke as u8 }>,
    PathArgs(id): PathArgs<String>,
    headers: HeaderMap,
) -> ApiResult<Json<PreviewAnswer>> {
    let row = app.revoke_preview(&caller, &caller.request, &id).await?;
    let preview = app.preview_wire(&row, &Site::of(&app.config, &headers));
    Ok(Json(PreviewAnswer { preview }))
}
