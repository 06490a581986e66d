//! `/v1/commands/{id}/logs` and `/v1/commands/{id}/stream`: what commands print.

use crate::app::App;
use crate::auth::Caller;
use crate::commands::{LogQuery, Place};
use crate::error::ApiResult;
use crate::extract::{PathArgs, QueryArgs};
use crate::file_transfers::disposition;
use crate::signed_url::{LIFE_DEFAULT_MS, Purpose, Signed, Signing};
use crate::sse;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::Response;
use crownest_api::Scope;
use crownest_api::command::{CommandEvent, LogDownloadUrl, LogPage};

type LogReader = Caller<{ Scope::CommandRead as u8 }>;

/// A command's log by pages, in the order in which it was printed.
///
/// Without `afterSeq` it begins with the first piece that is kept. What comes after a number that
/// is not kept any more is refused (409 `stream_gap`).
#[utoipa::path(
    get, path = "/v1/commands/{commandId}/logs", operation_id = "getCommandLogs", tag = "commands",
    params(
        ("commandId" = String, Path),
        ("afterSeq" = Option<u64>, Query, description = "Only pieces after this number"),
        ("limit" = Option<u32>, Query, description = "Pieces on a page, 1 to 500; 100 when absent", minimum = 1, maximum = 500)
    ),
    responses((status = 200, body = LogPage)),
    security(("bearer" = ["command:read"]), ("apiKey" = ["command:read"]))
)]
pub(super) async fn page(
    State(app): State<App>,
    caller: LogReader,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<LogQuery>,
) -> ApiResult<Json<LogPage>> {
    let place = Place::check(&query, None)?;
    Ok(Json(app.log_page(&caller, &id, place).await?))
}

/// A command's log as server-sent events: what there is, then what comes.
///
/// Events are `log` (their `id` is `seq`), `heartbeat` and, always last, `terminal` with the final
/// command or `error`. To go on after a break, send `afterSeq` or `Last-Event-ID`; of two, the
/// later one counts. `limit` is accepted and changes nothing.
#[utoipa::path(
    get, path = "/v1/commands/{commandId}/stream", operation_id = "streamCommand", tag = "commands",
    params(
        ("commandId" = String, Path),
        ("afterSeq" = Option<u64>, Query, description = "Only pieces after this number"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500),
        ("Last-Event-ID" = Option<u64>, Header, description = "As `afterSeq`; what browsers send")
    ),
    responses((status = 200, content_type = "text/event-stream", body = CommandEvent)),
    security(("bearer" = ["command:read"]), ("apiKey" = ["command:read"]))
)]
pub(super) async fn stream(
    State(app): State<App>,
    caller: LogReader,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<LogQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let place = Place::check(&query, Some(&headers))?;
    Ok(sse::response(app.follow_log(&caller, &id, place).await?))
}

/// A URL to download a command's log from.
///
/// It carries its own permission, for fifteen minutes; an API key works as well.
#[utoipa::path(
    post, path = "/v1/commands/{commandId}/logs/download-url", operation_id = "createCommandLogsDownloadUrl", tag = "commands",
    params(("commandId" = String, Path)), responses((status = 200, body = LogDownloadUrl)),
    security(("bearer" = ["command:read"]), ("apiKey" = ["command:read"]))
)]
pub(super) async fn download_url(
    State(app): State<App>,
    caller: LogReader,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<LogDownloadUrl>> {
    let row = app.find_command(&caller, &id).await?.row();
    let signing = Signing {
        purpose: Purpose::CommandLogs,
        method: &Method::GET,
        target: &format!("/v1/commands/{id}/logs/download"),
        resource: &id,
        project_id: &row.project_id,
        life_ms: LIFE_DEFAULT_MS,
    };
    let signed = app.signed_url(&caller, &caller.request, signing).await?;
    app.note_logs_deed(&caller, &caller.request, "command_log.download_url", &row);
    Ok(Json(LogDownloadUrl {
        url: signed.url,
        method: "GET".to_owned(),
        expires_at: signed.expires_at,
    }))
}

/// A command's log as a file: the bytes of both streams as they were printed, in their order, as
/// far as it has come.
#[utoipa::path(
    get, path = "/v1/commands/{commandId}/logs/download", operation_id = "downloadCommandLogs", tag = "commands",
    params(
        ("commandId" = String, Path),
        ("signature" = Option<String>, Query, description = "Instead of an API key, from `download-url`"),
    ),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>)),
    security(("bearer" = ["command:read"]), ("apiKey" = ["command:read"]))
)]
pub(super) async fn download(
    State(app): State<App>,
    signed: Signed<{ Scope::CommandRead as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Response> {
    let caller = signed.caller(Purpose::CommandLogs, &id).await?;
    let found = app.find_command(&caller, &id).await?;
    let bytes = app.download_log(&found).await?;
    let row = found.row();
    app.note_logs_deed(&caller, &caller.request, "command_log.download", &row);
    let mut response = Response::new(Body::from_stream(bytes));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let name = disposition(&format!("{}.log", row.id));
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}
