//! `/v1/sandboxes/{id}/files`: files of any size, by URLs that carry their own permission or with
//! an API key.

use super::files::{Reader, Writer, required, wire};
use crate::app::App;
use crate::byte_range;
use crate::checks;
use crate::error::ApiResult;
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::file_transfers::{self, Download, Receiving, announced_sha256, push_encoded};
use crate::host::Within;
use crate::signed_url::{LIFE_DEFAULT_MS, Purpose, Signed, Signing};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use crownest_api::file::{
    DownloadUrl, FileAnswer, MakeDownloadUrl, MakeUploadUrl, PathQuery, UploadQuery, UploadUrl,
};
use crownest_api::{ErrorEnvelope, Scope};
use serde_json::json;
use std::collections::BTreeMap;

const OCTET_STREAM: &str = "application/octet-stream";

/// A URL to download a file of any size from.
///
/// It carries its own permission, for fifteen minutes; an API key works as well.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/files/download-url",
    operation_id = "createFileDownloadUrl", tag = "files",
    params(("sandboxId" = String, Path)), request_body = MakeDownloadUrl,
    responses((status = 200, body = DownloadUrl)),
    security(("bearer" = ["file:read"]), ("apiKey" = ["file:read"]))
)]
pub(super) async fn download_url(
    State(app): State<App>,
    caller: Reader,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<MakeDownloadUrl>,
) -> ApiResult<Json<DownloadUrl>> {
    let path = checks::path("path", &body.value.path)?;
    let live = app.live_sandbox(&caller, &id).await?;
    // Opened once: a URL that can only fail is not given out.
    drop(live.host.open(&path, Within::Workspace).await?);
    let mut target = format!("/v1/sandboxes/{id}/files/download?path=");
    push_encoded(&path, &mut target);
    let signing = Signing {
        purpose: Purpose::FileDownload,
        method: &Method::GET,
        target: &target,
        resource: &download_resource(&id, &path),
        project_id: &live.project_id,
        life_ms: LIFE_DEFAULT_MS,
    };
    let signed = app.signed_url(&caller, &caller.request, signing).await?;
    app.note_file_deed(
        &caller,
        "file.download_url",
        &live,
        &json!({ "path": path }),
    );
    Ok(Json(DownloadUrl {
        auth_mode: "api_key".to_owned(),
        method: "GET".to_owned(),
        url: signed.url,
        expires_at: signed.expires_at,
    }))
}

/// The bytes of a file of any size, or of one range of them.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/files/download", operation_id = "downloadFile", tag = "files",
    params(
        ("sandboxId" = String, Path), PathQuery,
        ("signature" = Option<String>, Query, description = "Instead of an API key, from `download-url`"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-Range" = Option<String>, Header, description = "The range only if this is still the `ETag`"),
    ),
    responses(
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, description = "That range", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 416, description = "None of that range is there", body = ErrorEnvelope),
    ),
    security(("bearer" = ["file:read"]), ("apiKey" = ["file:read"]))
)]
pub(super) async fn download(
    State(app): State<App>,
    signed: Signed<{ Scope::FileRead as u8 }>,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<PathQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let path = required(query.path)?;
    let resource = download_resource(&id, &path);
    let caller = signed.caller(Purpose::FileDownload, &resource).await?;
    let live = app.live_sandbox(&caller, &id).await?;
    let file = app.open_file(&live, &path, Within::Workspace).await?;
    let download = Download {
        size: file.stat.size,
        etag: file.etag(),
        name: file.name(),
        content_type: OCTET_STREAM,
    };
    let Some(range) = file_transfers::part(&headers, &download) else {
        return Ok(byte_range::refusal(download.size));
    };
    app.note_file_deed(
        &caller,
        "file.download",
        &live,
        &json!({ "path": file.stat.path }),
    );
    let bytes = file.bytes(range.clone());
    Ok(file_transfers::answer(&download, &range, bytes))
}

/// Extension: a URL to upload a file of any size to.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/files/upload-url",
    operation_id = "createFileUploadUrl", tag = "files",
    params(("sandboxId" = String, Path)), request_body = MakeUploadUrl,
    responses((status = 200, body = UploadUrl)),
    security(("bearer" = ["file:write"]), ("apiKey" = ["file:write"]))
)]
pub(super) async fn upload_url(
    State(app): State<App>,
    caller: Writer,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<MakeUploadUrl>,
) -> ApiResult<Json<UploadUrl>> {
    let path = checks::path("path", &body.value.path)?;
    let overwrite = body.value.overwrite.unwrap_or(true);
    let parents = body.value.create_parents.unwrap_or(false);
    let live = app.live_sandbox(&caller, &id).await?;
    let mut target = format!(
        "/v1/sandboxes/{id}/files/upload?overwrite={overwrite}&createParents={parents}&path="
    );
    push_encoded(&path, &mut target);
    let signing = Signing {
        purpose: Purpose::FileUpload,
        method: &Method::PUT,
        target: &target,
        resource: &upload_resource(&id, overwrite, parents, &path),
        project_id: &live.project_id,
        life_ms: LIFE_DEFAULT_MS,
    };
    let signed = app.signed_url(&caller, &caller.request, signing).await?;
    app.note_file_deed(&caller, "file.upload_url", &live, &json!({ "path": path }));
    let headers = [("content-type".to_owned(), OCTET_STREAM.to_owned())];
    Ok(Json(UploadUrl {
        method: "PUT".to_owned(),
        url: signed.url,
        headers: BTreeMap::from(headers),
        expires_at: signed.expires_at,
        max_size_bytes: app.disk_bytes_of(&live),
    }))
}

/// Extension: writes a file of any size, which appears whole or not at all.
///
/// The body is the file: of known length or chunked. `x-crownest-sha256` is compared with what
/// came before the file gets its name.
#[utoipa::path(
    put, path = "/v1/sandboxes/{sandboxId}/files/upload", operation_id = "uploadFile", tag = "files",
    params(
        ("sandboxId" = String, Path), UploadQuery,
        ("signature" = Option<String>, Query, description = "Instead of an API key, from `upload-url`"),
        ("x-crownest-sha256" = Option<String>, Header, description = "64 hexadecimal digits"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = FileAnswer)),
    security(("bearer" = ["file:write"]), ("apiKey" = ["file:write"]))
)]
pub(super) async fn upload(
    State(app): State<App>,
    signed: Signed<{ Scope::FileWrite as u8 }>,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<FileAnswer>> {
    let path = required(query.path)?;
    let overwrite = query.overwrite.unwrap_or(true);
    let parents = query.create_parents.unwrap_or(false);
    let resource = upload_resource(&id, overwrite, parents, &path);
    let caller = signed.caller(Purpose::FileUpload, &resource).await?;
    let sha256 = announced_sha256(&headers)?;
    let live = app.live_sandbox(&caller, &id).await?;
    let bytes_max = app.disk_bytes_of(&live);
    let length = headers.get(header::CONTENT_LENGTH);
    let announced: Option<u64> = length.and_then(|v| v.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length| length > bytes_max) {
        return Err(file_transfers::too_large(bytes_max));
    }
    let receiving = Receiving {
        path,
        overwrite,
        parents,
        sha256,
        bytes_max,
    };
    let _work = live.work();
    let (stat, written) = file_transfers::receive(&live, body, receiving).await?;
    app.note_file_written(&live, written);
    let details = json!({ "path": stat.path, "sizeBytes": written });
    app.note_file_deed(&caller, "file.upload", &live, &details);
    Ok(Json(FileAnswer { file: wire(stat) }))
}

fn download_resource(id: &str, path: &str) -> String {
    format!("{id} {path}")
}

fn upload_resource(id: &str, overwrite: bool, parents: bool, path: &str) -> String {
    format!("{id} {overwrite} {parents} {path}")
}
