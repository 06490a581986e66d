//! Snapshots: the files of a sandbox, kept for sandboxes to come.

use super::list::{Listed, Paging};
use crate::app::App;
use crate::auth::Caller;
use crate::dialects::opensandbox::error::{Failure, Refusal};
use crate::error::{ApiError, ApiResult};
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use crownest_api::{ErrorCode, Scope, Timestamp};
use crownest_store as store;
use serde::{Deserialize, Serialize};

/// States in one filter.
const STATES_MAX: usize = 16;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/sandboxes/{sandboxId}/snapshots", post(create))
        .route("/snapshots", get(list))
        .route("/snapshots/{snapshotId}", get(read).delete(delete))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CreateBody {
    name: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Snapshot {
    id: String,
    sandbox_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    status: Status,
    created_at: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    last_transition_at: Timestamp,
}

/// States in the store's words and in ours.
const STATES: [(&str, &str); 4] = [
    ("creating", "Creating"),
    ("ready", "Ready"),
    ("failed", "Failed"),
    ("deleting", "Deleting"),
];

fn wire(row: store::Snapshot) -> Snapshot {
    let time = |micros: i64| Timestamp::from_millis(micros / 1_000);
    let state = STATES.iter().find(|(stored, _)| *stored == row.state);
    Snapshot {
        id: row.id,
        sandbox_id: row.sandbox_id,
        name: row.name,
        status: Status {
            state: state.map_or("Failed", |(_, ours)| *ours),
            reason: row.failure.is_some().then_some("snapshot_capture_failed"),
            message: row.failure,
            last_transition_at: time(row.changed_at),
        },
        created_at: time(row.created_at),
    }
}

/// Begins to keep the files of a sandbox; clients ask until the snapshot is ready.
async fn create(
    State(app): State<App>,
    caller: Caller<{ Scope::ArtifactCreate as u8 }>,
    PathArgs(id): PathArgs<String>,
    OriginalUri(uri): OriginalUri,
    body: JsonBody<CreateBody>,
) -> ApiResult<Response> {
    let live = app.kept_sandbox(&caller, &id).await?;
    let row = app
        .create_snapshot(&caller, &caller.request, &live, body.value.name)
        .await?;
    let before = uri.path().split("/sandboxes/").next().unwrap_or_default();
    let location = format!("{before}/snapshots/{}", row.id);
    let mut response = (StatusCode::ACCEPTED, Json(wire(row))).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn list(
    State(app): State<App>,
    caller: Caller<{ Scope::ArtifactRead as u8 }>,
    QueryArgs(query): QueryArgs<Vec<(String, String)>>,
) -> ApiResult<Json<Listed<Snapshot>>> {
    let (filter, paging) = parse(query)?;
    let (page, size) = paging.numbers()?;
    let (rows, total) = app.list_snapshots(&caller, filter, page, size).await?;
    let total = usize::try_from(total).unwrap_or(0);
    Ok(Json(
        paging.found(rows.into_iter().map(wire).collect(), total),
    ))
}

fn parse(query: Vec<(String, String)>) -> ApiResult<(store::SnapshotFilter, Paging)> {
    let (mut filter, mut paging) = (store::SnapshotFilter::default(), Paging::default());
    let mut states = Vec::new();
    for (name, value) in query {
        match name.as_str() {
            "sandboxId" => filter.sandbox_id = Some(value),
            "name" => filter.name = Some(value),
            "state" => states.push(value),
            _ => {
                paging.take(&name, &value)?;
            }
        }
    }
    if states.len() > STATES_MAX {
        return Err(ApiError::field("state", "too many states"));
    }
    if !states.is_empty() {
        // A state that there is not finds nothing.
        let known = STATES
            .iter()
            .filter(|(_, ours)| states.iter().any(|s| s == ours));
        filter.states = Some(known.map(|(stored, _)| (*stored).to_owned()).collect());
    }
    let texts = [&filter.sandbox_id, &filter.name];
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(ApiError::field("name", "a filter contains NUL"));
    }
    Ok((filter, paging))
}

/// A snapshot that is not there is no sandbox that is not there.
pub(super) fn failure(error: ApiError) -> Failure {
    match error.code {
        ErrorCode::NotFound => {
            Refusal::new(StatusCode::NOT_FOUND, "SNAPSHOT::NOT_FOUND", error.message).into()
        }
        _ => error.into(),
    }
}

async fn read(
    State(app): State<App>,
    caller: Caller<{ Scope::ArtifactRead as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> Result<Json<Snapshot>, Failure> {
    let row = app.get_snapshot(&caller, &id).await.map_err(failure)?;
    Ok(Json(wire(row)))
}

async fn delete(
    State(app): State<App>,
    caller: Caller<{ Scope::ArtifactDelete as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> Result<StatusCode, Failure> {
    let deleted = app.delete_snapshot(&caller, &caller.request, &id).await;
    deleted.map_err(failure)?;
    Ok(StatusCode::NO_CONTENT)
}
