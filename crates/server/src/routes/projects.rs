//! `/v1/projects`

use super::paging;
use crate::app::App;
use crate::audit::Deed;
use crate::auth::{ANY_SCOPE, Caller, micros};
use crate::checks;
use crate::error::ApiResult;
use crate::extract::{JsonBody, QueryArgs};
use crate::idempotency::{AfterRestart, Answer, IdempotencyKey};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use crownest_api::page::{Page, PageQuery};
use crownest_api::project::{CreateProject, Project, ProjectAnswer};
use crownest_api::{IdKind, Scope, Timestamp, new_id};
use crownest_store as store;
use serde_json::json;
use std::sync::Arc;

/// Projects that the key may touch, newest first.
#[utoipa::path(
    get, path = "/v1/projects", operation_id = "listProjects", tag = "projects",
    params(PageQuery), responses((status = 200, body = Page<Project>)),
    security(("bearer" = []), ("apiKey" = []))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller<ANY_SCOPE>,
    QueryArgs(query): QueryArgs<PageQuery>,
) -> ApiResult<Json<Page<Project>>> {
    let page = paging::request(&query)?;
    let rows = app
        .store
        .projects(&caller.org_id, caller.project_ids.as_deref(), &page)
        .await?;
    Ok(Json(paging::answer(rows, wire)))
}

/// Makes a project.
#[utoipa::path(
    post, path = "/v1/projects", operation_id = "createProject", tag = "projects",
    params(("Idempotency-Key" = Option<String>, Header)),
    request_body = CreateProject, responses((status = 201, body = ProjectAnswer)),
    security(("bearer" = ["project:create"]), ("apiKey" = ["project:create"]))
)]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller<{ Scope::ProjectCreate as u8 }>,
    key: IdempotencyKey,
    body: JsonBody<CreateProject>,
) -> ApiResult<Response> {
    checks::name(&body.value.name)?;
    let row = store::Project {
        id: new_id(IdKind::Project),
        org_id: caller.org_id.clone(),
        name: body.value.name,
        is_default: false,
        created_at: micros(Timestamp::now()),
    };
    let work = {
        let app = app.clone();
        let (who, request) = (Arc::clone(&caller.principal), caller.request.clone());
        async move {
            app.store.insert_project(&row).await?;
            let deed = Deed {
                action: "project.create",
                resource_kind: "project",
                resource_id: &row.id,
                project_id: Some(&row.id),
                outcome: "ok",
            };
            app.audit
                .by_key(&who, &request, deed, &json!({ "name": row.name }));
            Answer::json(StatusCode::CREATED, &ProjectAnswer { project: wire(row) })
        }
    };
    app.idempotent(&key, &caller, &body.raw, AfterRestart::Repeat, work)
        .await
}

fn wire(row: store::Project) -> Project {
    Project {
        id: row.id,
        org_id: row.org_id,
        name: row.name,
        created_at: Timestamp::from_millis(row.created_at / 1_000),
    }
}
