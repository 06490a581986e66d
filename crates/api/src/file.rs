//! Files of a sandbox's workspace.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
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
