//! `/v1/api-keys`. Keys cannot make keys, so there is no route for that.

use super::paging;
use crate::app::App;
use crate::audit::Deed;
use crate::auth::{Caller, micros};
use crate::error::{ApiError, ApiResult};
use crate::extract::{PathArgs, QueryArgs};
use axum::Json;
use axum::extract::State;
use crownest_api::api_key::{ApiKey, ApiKeyAnswer};
use crownest_api::page::{Page, PageQuery};
use crownest_api::{IdKind, Scope, Timestamp};
use crownest_store as store;
use serde_json::Value;

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
    let deed = Deed {
        action: "api_key.revoke",
        resource_kind: "api_key",
        resource_id: &id,
        project_id: None,
        outcome: "ok",
    };
    app.audit.by_key(
        &caller,
        &caller.request,
        deed,
        &Value::Object(serde_json::Map::new()),
    );
    Ok(Json(ApiKeyAnswer { api_key: wire(row) }))
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
