//! `/v1/api-keys`. Keys cannot make keys: people do, at a dashboard or with `crownest admin`.

use super::paging;
use crate::app::App;
use crate::audit::Deed;
use crate::auth::{ANY_SCOPE, Actor, Caller, micros};
use crate::bootstrap::{NewKey, create_key};
use crate::checks;
use crate::error::{ApiError, ApiResult};
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use crownest_api::api_key::{ApiKey, ApiKeyAnswer, CreateApiKey, NewApiKeyAnswer};
use crownest_api::page::{Page, PageQuery};
use crownest_api::{ErrorCode, IdKind, Scope, Timestamp};
use crownest_store as store;
use serde_json::json;

/// Projects that one key may be restricted to.
const KEY_PROJECTS_MAX: usize = 100;

/// Keys of the organization, revoked ones too, newest first.
#[utoipa::path(
    get, path = "/v1/api-keys", operation_id = "listApiKeys", tag = "api-keys",
    params(PageQuery), responses((status = 200, body = Page<ApiKey>)),
    security(("bearer" = ["api_key:read"]), ("apiKey" = ["api_key:read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller<{ Scope::ApiKeyRead as u8 }>,
    QueryArgs(query): QueryArgs<PageQuery>,
) -> ApiResult<Json<Page<ApiKey>>> {
    let page = paging::request(&query)?;
    let rows = app.store.api_keys(&caller.org_id, &page).await?;
    Ok(Json(paging::answer(rows, wire)))
}

/// One key.
#[utoipa::path(
    get, path = "/v1/api-keys/{apiKeyId}", operation_id = "getApiKey", tag = "api-keys",
    params(("apiKeyId" = String, Path)), responses((status = 200, body = ApiKeyAnswer)),
    security(("bearer" = ["api_key:read"]), ("apiKey" = ["api_key:read"]))
)]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller<{ Scope::ApiKeyRead as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<ApiKeyAnswer>> {
    check_id(&id)?;
    let row = app.store.api_key(&caller.org_id, &id).await?;
    Ok(Json(ApiKeyAnswer { api_key: wire(row) }))
}

/// Revokes a key, at once. Revoking again changes nothing.
#[utoipa::path(
    delete, path = "/v1/api-keys/{apiKeyId}", operation_id = "revokeApiKey", tag = "api-keys",
    params(("apiKeyId" = String, Path)), responses((status = 200, body = ApiKeyAnswer)),
    security(("bearer" = ["api_key:revoke"]), ("apiKey" = ["api_key:revoke"]))
)]
pub(super) async fn revoke(
    State(app): State<App>,
    caller: Caller<{ Scope::ApiKeyRevoke as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<ApiKeyAnswer>> {
    check_id(&id)?;
    let row = app
        .store
        .revoke_api_key(&caller.org_id, &id, micros(Timestamp::now()))
        .await?;
    app.keys.revoke(&id);
    let deed = deed("api_key.revoke", &id);
    app.audit.by_key(&caller, &caller.request, deed, &json!({}));
    Ok(Json(ApiKeyAnswer { api_key: wire(row) }))
}

/// The route of dashboards, which is no part of the public description.
pub(super) fn dashboard_router() -> Router<App> {
    Router::new().route("/v1/api-keys", post(create))
}

/// Makes a key, for a person.
async fn create(
    State(app): State<App>,
    caller: Caller<ANY_SCOPE>,
    body: JsonBody<CreateApiKey>,
) -> ApiResult<(StatusCode, Json<NewApiKeyAnswer>)> {
    if caller.actor != Actor::Human {
        let message = "a key cannot make keys; use a dashboard or `crownest admin key create`";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let request = body.value;
    let name = request.name.as_deref().unwrap_or("API key");
    checks::name(name)?;
    if request.scopes.is_empty() {
        return Err(ApiError::field("scopes", "scopes must name at least one"));
    }
    let projects = request.project_ids.as_deref();
    if projects.is_some_and(|ids| ids.is_empty() || ids.len() > KEY_PROJECTS_MAX) {
        let message = format!("projectIds must name 1 to {KEY_PROJECTS_MAX} projects");
        return Err(ApiError::field("projectIds", message));
    }
    for id in projects.into_iter().flatten() {
        app.store.project(&caller.org_id, id).await?;
    }
    let new = NewKey {
        org_id: &caller.org_id,
        user_id: &caller.user_id,
        name,
        scopes: &request.scopes,
        project_ids: projects,
    };
    let (row, secret) = create_key(&app.store, new).await?;
    app.audit.by_key(
        &caller,
        &caller.request,
        deed("api_key.create", &row.id),
        &json!({ "scopes": row.scopes }),
    );
    let answer = NewApiKeyAnswer {
        api_key: wire(row),
        secret,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

fn deed<'a>(action: &'static str, id: &'a str) -> Deed<'a> {
    Deed {
        action,
        resource_kind: "api_key",
        resource_id: id,
        project_id: None,
        outcome: "ok",
    }
}

fn check_id(id: &str) -> ApiResult<()> {
    if IdKind::ApiKey.matches(id) {
        Ok(())
    } else {
        Err(ApiError::not_found("API key"))
    }
}

fn wire(row: store::ApiKey) -> ApiKey {
    let time = |micros: i64| Timestamp::from_millis(micros / 1_000);
    ApiKey {
        id: row.id,
        org_id: row.org_id,
        name: row.name,
        prefix: row.prefix,
        last4: row.last4,
        scopes: row
            .scopes
            .iter()
            .filter_map(|scope| scope.parse().ok())
            .collect(),
        project_ids: row.project_ids,
        created_by_user_id: row.created_by_user_id,
        created_at: time(row.created_at),
        revoked_at: row.revoked_at.map(time),
        last_used_at: row.last_used_at.map(time),
    }
}
