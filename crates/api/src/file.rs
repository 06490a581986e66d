//! Files of a sandbox's workspace.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileType {
    File,
    Directory,
}

/// A file or directory.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileStat {
    /// Absolute.
    #[schema(example = "/workspace/report.html")]
    pub path: String,
    pub size_bytes: u64,
    #[serde(rename = "type")]
    pub kind: FileType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<Timestamp>,
}

/// One entry of a directory.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileEntry {
    pub name: String,
    #[serde(flatten)]
    pub stat: FileStat,
}

/// How bytes are written in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileEncoding {
    #[default]
    Utf8,
    Base64,
}

/// `PUT /v1/sandboxes/{id}/files`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WriteFile {
    /// Absolute under `/workspace`, or relative to it.
    pub path: String,
    /// At most 256 KiB, decoded.
    pub content: String,
    /// `utf8` (default) or `base64`.
    pub encoding: Option<String>,
    /// Default true.
    pub overwrite: Option<bool>,
    /// Default false.
    pub create_parents: Option<bool>,
}

/// `POST …/files/mkdir`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct MakeDirectory {
    pub path: String,
    /// Default false.
    pub parents: Option<bool>,
}

/// `POST …/files/move`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct MoveFile {
    pub from: String,
    pub to: String,
    /// Default false.
    pub overwrite: Option<bool>,
}

/// A path in the query.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PathQuery {
    /// Absolute under `/workspace`, or relative to it.
    pub path: Option<String>,
}

/// A path and an encoding in the query.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReadQuery {
    /// Absolute under `/workspace`, or relative to it.
    pub path: Option<String>,
    /// `utf8` (default) or `base64`.
    pub encoding: Option<String>,
}

/// `POST …/files/download-url`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct MakeDownloadUrl {
    /// Absolute under `/workspace`, or relative to it. A regular file.
    pub path: String,
}

/// A URL to download from. It carries its own permission until it expires; with an API key it
/// works as well, and then without end.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownloadUrl {
    /// Always `api_key`.
    #[schema(example = "api_key")]
    pub auth_mode: String,
    /// Always `GET`.
    #[schema(example = "GET")]
    pub method: String,
    pub url: String,
    pub expires_at: Timestamp,
}

/// `POST …/files/upload-url`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MakeUploadUrl {
    /// Absolute under `/workspace`, or relative to it.
    pub path: String,
    /// Default true.
    pub overwrite: Option<bool>,
    /// Default false.
    pub create_parents: Option<bool>,
}

/// A URL to upload to: `PUT` with the bytes as body, of known length or chunked, and with these
/// headers. It carries its own permission until it expires.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadUrl {
    /// Always `PUT`.
    #[schema(example = "PUT")]
    pub method: String,
    pub url: String,
    pub headers: BTreeMap<String, String>,
    pub expires_at: Timestamp,
    /// What the disk of the sandbox takes when it is empty.
    pub max_size_bytes: u64,
}

/// Where an upload goes.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub struct UploadQuery {
    /// Absolute under `/workspace`, or relative to it.
    pub path: Option<String>,
    /// Default true.
    pub overwrite: Option<bool>,
    /// Default false.
    pub create_parents: Option<bool>,
}

/// Answer with one file.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FileAnswer {
    pub file: FileStat,
}

/// Answer with a directory's entries.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FilesAnswer {
    pub data: Vec<FileEntry>,
}

/// Answer with a file's content.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileContent {
    pub content: String,
    pub encoding: FileEncoding,
    pub size_bytes: u64,
    pub path: String,
}

/// Answer of a deletion.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FileDeleted {
    /// Always true.
    pub deleted: bool,
}
