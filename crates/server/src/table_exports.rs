//! Whole tables that a driver has written to files, on their way to becoming artifacts.
//!
//! A driver writes them where tenant code may write (kernels/PROTOCOL.md, "Tables") and names them:
//! name, size and content are a tenant's. What is taken is a regular file in one directory, read
//! through init as any other file of the sandbox, up to a limit; where it leads elsewhere it is not
//! taken. Afterwards it is removed.

use crate::app::App;
use crate::artifacts::Naming;
use crate::error::{ApiError, ApiResult};
use crate::host::{Export, Within};
use crate::objects::ObjectsError;
use crate::sandboxes::LiveSandbox;
use crownest_api::ErrorCode;
use crownest_api::code::TableExport;
use crownest_api::limits::TABLE_EXPORT_BYTES_MAX;
use crownest_store as store;
use std::sync::Arc;

/// The only place that they are taken from.
const DIRECTORY: &str = "/workspace/.crownest/exports/";
/// Longest name of a file in it.
const NAME_BYTES_MAX: usize = 128;
pub(crate) const PARQUET: &str = "application/vnd.apache.parquet";
const CSV: &str = "text/csv";

/// The MIME type of the representation.
pub(crate) fn mime_of(format: TableExport) -> &'static str {
    match format {
        TableExport::Parquet => PARQUET,
        TableExport::Csv => CSV,
    }
}

/// A file that is in [`DIRECTORY`] by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExportedFile {
    path: String,
}

impl ExportedFile {
    /// None for what is somewhere else, or something else than was asked for.
    pub(crate) fn checked(export: Export, wanted: TableExport) -> Option<Self> {
        let name = export.path.strip_prefix(DIRECTORY)?;
        let (stem, extension) = name.rsplit_once('.')?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let good = export.format == wanted.as_str()
            && extension == wanted.as_str()
            && !stem.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && name.bytes().all(plain);
        good.then_some(Self { path: export.path })
    }
}

impl App {
    /// Makes an artifact of such a file and removes it. With an `origin` there is one of it only,
    /// whoever of two servers has made it.
    ///
    /// # Errors
    /// Those of the file, also when a link leads out of the directory; `file_too_large`.
    pub(crate) async fn promote_export(
        &self,
        origin: Option<&str>,
        live: &Arc<LiveSandbox>,
        naming: Naming,
        file: &ExportedFile,
    ) -> ApiResult<store::Artifact> {
        let made = self.export_made(origin, live, naming, file).await;
        self.remove_exports(live, std::slice::from_ref(file)).await;
        made
    }

    async fn export_made(
        &self,
        origin: Option<&str>,
        live: &Arc<LiveSandbox>,
        mut naming: Naming,
        file: &ExportedFile,
    ) -> ApiResult<store::Artifact> {
        if let Some(origin) = origin
            && let Some(known) = self.artifact_of(origin, live).await?
        {
            return Ok(known);
        }
        let opened = self.open_file(live, &file.path, Within::Workspace).await?;
        if opened.stat.path != file.path {
            let message = "a link leads out of the directory of exports";
            return Err(ApiError::new(ErrorCode::PathOutsideWorkspace, message));
        }
        let size = opened.stat.size;
        if size > TABLE_EXPORT_BYTES_MAX {
            return Err(ObjectsError::TooLarge {
                limit: TABLE_EXPORT_BYTES_MAX,
            }
            .into());
        }
        naming.source_path = Some(file.path.clone());
        let (app, live) = (self.clone(), Arc::clone(live));
        let origin = origin.map(str::to_owned);
        self.finish_anyway(async move {
            let source = || opened.bytes(0..size);
            match origin {
                Some(origin) => {
                    app.store_artifact_once(&origin, &live, naming, source, size)
                        .await
                }
                None => app.promote_stream(&live, naming, source(), size).await,
            }
        })
        .await
    }

    /// Takes files away that nobody needs any more. One that is gone, or that the tenant has made
    /// something else of, is left alone.
    pub(crate) async fn remove_exports(&self, live: &LiveSandbox, files: &[ExportedFile]) {
        for file in files {
            if let Err(error) = live.host.remove(&file.path, Within::Workspace).await {
                tracing::debug!(%error, sandbox = %live.id, "an exported table stays where it is");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(path: &str, format: &str, wanted: TableExport) -> bool {
        let (path, format) = (path.to_owned(), format.to_owned());
        ExportedFile::checked(Export { path, format }, wanted).is_some()
    }

    #[test]
    fn only_files_of_the_directory_are_taken() {
        use TableExport::{Csv, Parquet};
        assert!(taken("/workspace/.crownest/exports/1-1.csv", "csv", Csv));
        assert!(taken(
            "/workspace/.crownest/exports/9-16.parquet",
            "parquet",
            Parquet
        ));
        for (path, format) in [
            ("/workspace/.crownest/exports/1-1.csv", "parquet"),
            ("/workspace/.crownest/exports/1-1.parquet", "csv"),
            ("/workspace/.crownest/exports/1-1", "csv"),
            ("/workspace/.crownest/exports/.csv", "csv"),
            ("/workspace/.crownest/exports/../secret.csv", "csv"),
            ("/workspace/.crownest/exports/a/b.csv", "csv"),
            ("/workspace/.crownest/exports//b.csv", "csv"),
            ("/workspace/.crownest/exports/a\0.csv", "csv"),
            ("/workspace/.crownest/exports/a b.csv", "csv"),
            ("/workspace/other.csv", "csv"),
            ("/etc/passwd.csv", "csv"),
            ("1-1.csv", "csv"),
            ("", ""),
        ] {
            assert!(!taken(path, format, Csv), "{path}");
        }
        let long = format!("{DIRECTORY}{}.csv", "x".repeat(NAME_BYTES_MAX));
        assert!(!taken(&long, "csv", Csv));
    }
}
