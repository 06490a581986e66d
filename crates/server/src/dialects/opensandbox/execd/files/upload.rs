//! `/files/upload`: files of any size in one multipart body, in pairs of a part `metadata` (JSON)
//! and a part `file`.
//!
//! Each file appears whole or not at all, as soon as it has come: those before one that fails stay.

use super::accounts::only_user;
use super::multipart::{Multipart, MultipartError, Step};
use super::paths::{at, note, resolve_one};
use super::permissions::Permission;
use super::{InSandbox, Writer};
use crate::app::App;
use crate::dialects::opensandbox::error::{Failure, Refusal};
use crate::error::ApiError;
use crate::extract::PathArgs;
use crate::file_transfers::{UPLOAD_IDLE_MAX, incomplete, too_large};
use crate::host::{Upload, UploadSpec, Within};
use crate::sandboxes::LiveSandbox;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::Deserialize;
use std::sync::Arc;

/// Longest metadata of one file.
const METADATA_BYTES_MAX: usize = 64 * 1024;
/// Files in one request.
const FILES_MAX: usize = 10_000;
/// Mode of a new file whose metadata names none.
const MODE_DEFAULT: u32 = 0o755;

#[derive(Debug, Deserialize)]
struct Metadata {
    path: String,
    #[serde(flatten)]
    permission: Permission,
}

pub(super) async fn upload(
    State(app): State<App>,
    caller: Writer,
    PathArgs(InSandbox { id }): PathArgs<InSandbox>,
    request: Request,
) -> Result<(), Failure> {
    let parser = Multipart::new(request.headers()).map_err(broken)?;
    let live = app.live_sandbox(&caller, &id).await?;
    let bytes_max = app.disk_bytes_of(&live);
    let _work = live.work();
    let mut parts = Parts {
        body: request.into_body(),
        parser,
        came: 0,
    };
    let mut written = Vec::new();
    while let Some(name) = parts.next().await? {
        if written.len() >= FILES_MAX {
            let message = format!("at most {FILES_MAX} files in one request");
            return Err(refuse("INVALID_REQUEST_BODY", message));
        }
        expect(&name, "metadata")?;
        let metadata = parts.metadata().await?;
        match parts.next().await? {
            Some(name) => expect(&name, "file")?,
            None => {
                let message = format!("the file of {:?} is missing", metadata.path);
                return Err(refuse("INVALID_FILE", message));
            }
        }
        let path = resolve_one(&live, metadata.path).await?;
        let size = parts
            .file(&live, &path, &metadata.permission, bytes_max)
            .await?;
        app.note_file_written(&live, size);
        written.push(path);
    }
    if written.is_empty() {
        return Err(refuse("INVALID_FILE", "the body has no files".to_owned()));
    }
    note(&app, &caller, "file.upload", &live, &written);
    Ok(())
}

/// A multipart body that is being read.
struct Parts {
    body: Body,
    parser: Multipart,
    came: u64,
}

impl Parts {
    async fn step(&mut self) -> Result<Step, Failure> {
        loop {
            match self.parser.next().map_err(broken)? {
                Step::More => {}
                step => return Ok(step),
            }
            let frame = tokio::time::timeout(UPLOAD_IDLE_MAX, self.body.frame()).await;
            match frame {
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.came += bytes.len() as u64;
                        self.parser.push(&bytes);
                    }
                }
                Ok(None) => {
                    self.parser.finish().map_err(broken)?;
                    return Ok(Step::End);
                }
                Ok(Some(Err(error))) => {
                    return Err(incomplete(self.came, &error.to_string()).into());
                }
                Err(_) => return Err(incomplete(self.came, "nothing came for too long").into()),
            }
        }
    }

    /// The name of the next part; None behind the last.
    async fn next(&mut self) -> Result<Option<String>, Failure> {
        match self.step().await? {
            Step::Part { name } => Ok(Some(name)),
            Step::End => Ok(None),
            step => Err(ApiError::internal(format_args!("multipart: {step:?}")).into()),
        }
    }

    /// The next bytes of this part; None at its end.
    async fn content(&mut self) -> Result<Option<Bytes>, Failure> {
        match self.step().await? {
            Step::Content(bytes) => Ok(Some(bytes)),
            _ => Ok(None),
        }
    }

    async fn metadata(&mut self) -> Result<Metadata, Failure> {
        let mut json = Vec::new();
        while let Some(bytes) = self.content().await? {
            json.extend_from_slice(&bytes);
            if json.len() > METADATA_BYTES_MAX {
                let message = format!("metadata has more than {METADATA_BYTES_MAX} bytes");
                return Err(refuse("INVALID_FILE_METADATA", message));
            }
        }
        serde_json::from_slice(&json)
            .map_err(|error| refuse("INVALID_FILE_METADATA", format!("metadata: {error}")))
    }

    /// Writes this part to a file; how many bytes it has.
    async fn file(
        &mut self,
        live: &Arc<LiveSandbox>,
        path: &str,
        permission: &Permission,
        bytes_max: u64,
    ) -> Result<u64, Failure> {
        let mode = permission.mode()?;
        only_user(permission.owner(live).await?)?;
        let spec = UploadSpec {
            path: path.to_owned(),
            within: Within::Root,
            overwrite: true,
            parents: true,
            mode: mode.unwrap_or(MODE_DEFAULT),
            mode_always: mode.is_some(),
        };
        let mut upload: Upload = live.host.upload(spec).await.map_err(at(path))?;
        let mut size = 0;
        while let Some(bytes) = self.content().await? {
            size += bytes.len() as u64;
            if size > bytes_max {
                return Err(too_large(bytes_max).into());
            }
            upload.push(bytes).await.map_err(at(path))?;
        }
        upload.commit().await.map_err(at(path))?;
        Ok(size)
    }
}

fn expect(name: &str, wanted: &str) -> Result<(), Failure> {
    if name == wanted {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    let message = format!("a part {wanted:?} is expected here, not {shown:?}");
    Err(refuse("INVALID_FILE", message))
}

fn broken(error: MultipartError) -> Failure {
    refuse("INVALID_FILE_CONTENT", error.to_string())
}

fn refuse(code: &'static str, message: String) -> Failure {
    Refusal::new(StatusCode::BAD_REQUEST, code, message).into()
}
