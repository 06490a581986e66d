//! `/v1/audit-events`: an addition to the contract, with a scope of its own.

use super::paging;
use crate::app::App;
use crate::auth::{Caller, Principal, micros};
use crate::error::{ApiError, ApiResult};
use crate::extract::QueryArgs;
use axum::Json;
use axum::extract::State;
use crownest_api::audit_event::{AuditActor, AuditEvent, AuditQuery, AuditResource};
use crownest_api::page::{Page, PageQuery};
use crownest_api::{Scope, Timestamp};
use crownest_store as store;
use serde_json::value::RawValue;

/// Longest value of a filter: no id and no action is longer.
const FILTER_BYTES_MAX: usize = 128;

/// *Extension.* Who did what, newest first. Events outlive the sandboxes and keys they name.
#[utoipa::path(
    get, path = "/v1/audit-events", operation_id = "listAuditEvents", tag = "audit-events",
    params(AuditQuery), responses((status = 200, body = Page<AuditEvent>)),
    security(("bearer" = ["audit:read"]), ("apiKey" = ["audit:read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller<{ Scope::AuditRead as u8 }>,
    QueryArgs(query): QueryArgs<AuditQuery>,
) -> ApiResult<Json<Page<AuditEvent>>> {
    check(&query)?;
    let page = paging::request(&PageQuery {
        cursor: query.cursor.clone(),
        limit: query.limit,
    })?;
    let filter = store::AuditFilter {
        project_id: project(&caller, query.project_id.as_deref())?,
        actor_id: query.actor_id.as_deref(),
        action: query.action.as_deref(),
        resource_kind: query.resource_kind.as_deref(),
        resource_id: query.resource_id.as_deref(),
        from: query.from.map(micros),
        to: query.to.map(micros),
    };
    let rows = app
        .store
        .audit_events(&caller.org_id, &filter, &page)
        .await?;
    Ok(Json(paging::answer(rows, wire)))
}

fn check(query: &AuditQuery) -> ApiResult<()> {
    let filters = [
        ("projectId", &query.project_id),
        ("actorId", &query.actor_id),
        ("action", &query.action),
        ("resourceKind", &query.resource_kind),
        ("resourceId", &query.resource_id),
    ];
    for (name, value) in filters {
        let fits = value
            .as_ref()
            .is_none_or(|value| value.len() <= FILTER_BYTES_MAX && !value.contains('\0'));
        if !fits {
            return Err(ApiError::field(
                name,
                format!("{name} must have at most {FILTER_BYTES_MAX} bytes without NUL"),
            ));
        }
    }
    Ok(())
}

/// The project whose events a caller gets: a key that is restricted to some reads those of one.
fn project<'a>(who: &'a Principal, asked: Option<&'a str>) -> ApiResult<Option<&'a str>> {
    match (asked, who.project_ids.as_deref()) {
        (Some(id), _) if !who.may_touch(id) => Err(ApiError::not_found("project")),
        (None, Some([only])) => Ok(Some(only)),
        (None, Some(_)) => Err(ApiError::field(
            "projectId",
            "projectId is required: this key is restricted to several projects",
        )),
        (asked, _) => Ok(asked),
    }
}

fn wire(row: store::AuditEvent) -> AuditEvent {
    let details = RawValue::from_string(row.details);
    AuditEvent {
        id: row.id,
        org_id: row.org_id,
        project_id: row.project_id,
        created_at: Timestamp::from_millis(row.at / 1_000),
        actor: AuditActor {
            kind: row.actor_kind,
            id: row.actor_id,
        },
        action: row.action,
        resource: AuditResource {
            kind: row.resource_kind,
            id: row.resource_id,
        },
        outcome: row.outcome,
        request_id: row.request_id,
        details: details.unwrap_or_default(),
    }
}
