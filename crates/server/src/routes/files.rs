//! `/v1/sandboxes/{id}/files`: files of the workspace, up to 256 KiB each way. Larger ones:
//! `file_transfers.rs`.
//!
//! Paths go to the sandbox's init as they are: it resolves them inside the sandbox and refuses
//! what leads outside the workspace. No path of the host is made from a client's words.

use crate::app::App;
use crate::auth::Caller;
use crate::checks;
use crate::error::{ApiError, ApiResult, file_too_large};
use crate::extract::{JsonBody, PathArgs, QueryArgs};
use crate::file_transfers::FILE_MODE;
use crate::host::{self, FileKind, Within, WriteSpec};
use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crownest_api::file::{
    FileAnswer, FileContent, FileDeleted, FileEncoding, FileEntry, FileStat, FileType, FilesAnswer,
    MakeDirectory, MoveFile, PathQuery, ReadQuery, WriteFile,
};
use crownest_api::{ErrorCode, Scope, Timestamp, limits};
use serde_json::json;

pub(super) type Reader = Caller<{ Scope::FileRead as u8 }>;
pub(super) type Writer = Caller<{ Scope::FileWrite as u8 }>;

/// Entries of a directory; default `/workspace`.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/files", operation_id = "listFiles", tag = "files",
    params(("sandboxId" = String, Path), PathQuery), responses((status = 200, body = FilesAnswer)),
    security(("bearer" = ["file:read"]), ("apiKey" = ["file:read"]))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Reader,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<PathQuery>,
) -> ApiResult<Json<FilesAnswer>> {
    let path = checks::path("path", query.path.as_deref().unwrap_or(checks::WORKSPACE))?;
    let live = app.live_sandbox(&caller, &id).await?;
    let entries = live.host.list(&path, Within::Workspace).await?;
    let data = entries
        .into_iter()
        .map(|entry| FileEntry {
            name: entry.name,
            stat: wire(entry.stat),
        })
        .collect();
    Ok(Json(FilesAnswer { data }))
}

/// What a path is.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/files/stat", operation_id = "statFile", tag = "files",
    params(("sandboxId" = String, Path), PathQuery), responses((status = 200, body = FileAnswer)),
    security(("bearer" = ["file:read"]), ("apiKey" = ["file:read"]))
)]
pub(super) async fn stat(
    State(app): State<App>,
    caller: Reader,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<PathQuery>,
) -> ApiResult<Json<FileAnswer>> {
    let path = required(query.path)?;
    let live = app.live_sandbox(&caller, &id).await?;
    let file = wire(live.host.stat(&path, Within::Workspace).await?);
    Ok(Json(FileAnswer { file }))
}

/// Content of a file of at most 256 KiB.
#[utoipa::path(
    get, path = "/v1/sandboxes/{sandboxId}/files/read", operation_id = "readFile", tag = "files",
    params(("sandboxId" = String, Path), ReadQuery), responses((status = 200, body = FileContent)),
    security(("bearer" = ["file:read"]), ("apiKey" = ["file:read"]))
)]
pub(super) async fn read(
    State(app): State<App>,
    caller: Reader,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<ReadQuery>,
) -> ApiResult<Json<FileContent>> {
    let path = required(query.path)?;
    let encoding = encoding(query.encoding.as_deref())?;
    let live = app.live_sandbox(&caller, &id).await?;
    // One byte more than is allowed: its presence says that the file is too large.
    let probe = limits::FILE_DIRECT_BYTES_MAX as u64 + 1;
    let (stat, bytes) = live.host.read(&path, Within::Workspace, 0, probe).await?;
    if bytes.len() > limits::FILE_DIRECT_BYTES_MAX {
        return Err(file_too_large());
    }
    let content = match encoding {
        FileEncoding::Base64 => STANDARD.encode(&bytes),
        FileEncoding::Utf8 => String::from_utf8(bytes.to_vec()).map_err(|_| {
            ApiError::new(
                ErrorCode::InvalidFileEncoding,
                "the file is not UTF-8 text; read it with encoding=base64",
            )
        })?,
    };
    app.note_file_deed(&caller, "file.read", &live, &json!({ "path": stat.path }));
    Ok(Json(FileContent {
        content,
        encoding,
        size_bytes: bytes.len() as u64,
        path: stat.path,
    }))
}

/// Writes a whole file of at most 256 KiB.
#[utoipa::path(
    put, path = "/v1/sandboxes/{sandboxId}/files", operation_id = "writeFile", tag = "files",
    params(("sandboxId" = String, Path)), request_body = WriteFile,
    responses((status = 200, body = FileAnswer)),
    security(("bearer" = ["file:write"]), ("apiKey" = ["file:write"]))
)]
pub(super) async fn write(
    State(app): State<App>,
    caller: Writer,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<WriteFile>,
) -> ApiResult<Json<FileAnswer>> {
    let request = body.value;
    let path = checks::path("path", &request.path)?;
    let content = match encoding(request.encoding.as_deref())? {
        FileEncoding::Utf8 => Bytes::from(request.content),
        FileEncoding::Base64 => {
            STANDARD
                .decode(&request.content)
                .map(Bytes::from)
                .map_err(|_| {
                    ApiError::new(ErrorCode::InvalidFileEncoding, "content is not base64")
                        .with_details(json!({ "field": "content" }))
                })?
        }
    };
    if content.len() > limits::FILE_DIRECT_BYTES_MAX {
        return Err(file_too_large());
    }
    let live = app.live_sandbox(&caller, &id).await?;
    let spec = WriteSpec {
        path,
        within: Within::Workspace,
        overwrite: request.overwrite.unwrap_or(true),
        parents: request.create_parents.unwrap_or(false),
        mode: FILE_MODE,
        content,
    };
    let size = spec.content.len();
    let file = wire(live.host.write(spec).await?);
    app.note_file_written(&live, size as u64);
    app.note_file_deed(&caller, "file.write", &live, &json!({ "path": file.path }));
    Ok(Json(FileAnswer { file }))
}

/// Removes a file or an empty directory.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{sandboxId}/files", operation_id = "deleteFile", tag = "files",
    params(("sandboxId" = String, Path), PathQuery), responses((status = 200, body = FileDeleted)),
    security(("bearer" = ["file:write"]), ("apiKey" = ["file:write"]))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Writer,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<PathQuery>,
) -> ApiResult<Json<FileDeleted>> {
    let path = required(query.path)?;
    let live = app.live_sandbox(&caller, &id).await?;
    live.host.remove(&path, Within::Workspace).await?;
    app.note_file_deed(&caller, "file.delete", &live, &json!({ "path": path }));
    Ok(Json(FileDeleted { deleted: true }))
}

/// Makes a directory.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/files/mkdir", operation_id = "makeDirectory", tag = "files",
    params(("sandboxId" = String, Path)), request_body = MakeDirectory,
    responses((status = 200, body = FileAnswer)),
    security(("bearer" = ["file:write"]), ("apiKey" = ["file:write"]))
)]
pub(super) async fn mkdir(
    State(app): State<App>,
    caller: Writer,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<MakeDirectory>,
) -> ApiResult<Json<FileAnswer>> {
    let path = checks::path("path", &body.value.path)?;
    let parents = body.value.parents.unwrap_or(false);
    let live = app.live_sandbox(&caller, &id).await?;
    let file = wire(live.host.mkdir(&path, Within::Workspace, parents).await?);
    app.note_file_deed(&caller, "file.mkdir", &live, &json!({ "path": file.path }));
    Ok(Json(FileAnswer { file }))
}

/// Moves a file or directory.
#[utoipa::path(
    post, path = "/v1/sandboxes/{sandboxId}/files/move", operation_id = "moveFile", tag = "files",
    params(("sandboxId" = String, Path)), request_body = MoveFile,
    responses((status = 200, body = FileAnswer)),
    security(("bearer" = ["file:write"]), ("apiKey" = ["file:write"]))
)]
pub(super) async fn rename(
    State(app): State<App>,
    caller: Writer,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<MoveFile>,
) -> ApiResult<Json<FileAnswer>> {
    let from = checks::path("from", &body.value.from)?;
    let to = checks::path("to", &body.value.to)?;
    let overwrite = body.value.overwrite.unwrap_or(false);
    let live = app.live_sandbox(&caller, &id).await?;
    let file = wire(
        live.host
            .rename(&from, &to, Within::Workspace, overwrite)
            .await?,
    );
    app.note_file_deed(
        &caller,
        "file.move",
        &live,
        &json!({ "from": from, "to": to }),
    );
    Ok(Json(FileAnswer { file }))
}

pub(super) fn required(path: Option<String>) -> ApiResult<String> {
    let path = path.ok_or_else(|| ApiError::field("path", "path is required"))?;
    checks::path("path", &path)
}

fn encoding(asked: Option<&str>) -> ApiResult<FileEncoding> {
    match asked {
        None | Some("utf8" | "utf-8") => Ok(FileEncoding::Utf8),
        Some("base64") => Ok(FileEncoding::Base64),
        Some(_) => Err(ApiError::new(
            ErrorCode::InvalidFileEncoding,
            "encoding must be utf8 or base64",
        )
        .with_details(json!({ "field": "encoding" }))),
    }
}

pub(super) fn wire(stat: host::FileStat) -> FileStat {
    FileStat {
        path: stat.path,
        size_bytes: stat.size,
        // The contract knows two kinds; what is no directory is something to read or remove.
        kind: if stat.kind == FileKind::Directory {
            FileType::Directory
        } else {
            FileType::File
        },
        modified_at: Some(Timestamp::from_millis(stat.modified_ms)),
    }
}
