//! Outputs on their way to becoming artifacts.
//!
//! Owns: what is still to be made, what came of it, and which files of the sandbox nobody is going
//! to take any more. Does not own: which outputs those are ([`crate::outputs`]), how an artifact is
//! stored ([`crate::artifacts`]) or what may be taken of a file ([`crate::table_exports`]).

use super::RunCollector;
use crate::app::App;
use crate::artifacts::Naming;
use crate::auth::Principal;
use crate::error::{ApiError, ApiResult};
use crate::host::Export;
use crate::outputs::{self, Payload};
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use crate::table_exports::ExportedFile;
use crownest_api::code::{CodeOutput, RejectedReason};
use crownest_api::{ErrorCode, limits};
use crownest_store as store;
use std::sync::Arc;

/// An output on its way to becoming an artifact.
#[derive(Debug)]
pub(crate) struct Promotion {
    /// What stands for its id in the output.
    mark: String,
    naming: Naming,
    payload: Payload,
}

impl Promotion {
    /// Why there is no artifact.
    fn refusal(&self, error: &ApiError) -> RejectedReason {
        match (error.code, &self.payload) {
            (ErrorCode::FileTooLarge, _) => RejectedReason::OutputTooLarge,
            // Not where, or not what, the driver has said.
            (
                ErrorCode::FileNotFound
                | ErrorCode::InvalidRequest
                | ErrorCode::ParentDirectoryNotFound
                | ErrorCode::PathIsDirectory
                | ErrorCode::PathNotDirectory
                | ErrorCode::PathOutsideWorkspace
                | ErrorCode::UploadConflict,
                Payload::File(_),
            ) => RejectedReason::UnsupportedFormat,
            _ => {
                tracing::error!(%error, cause = error.cause, "an output could not be promoted");
                RejectedReason::RequiresArtifactPromotion
            }
        }
    }
}

/// Those of a run. Empty, and never looked at, in most runs.
#[derive(Debug, Default)]
pub(super) struct Promotions {
    waiting: Vec<Promotion>,
    begun: u64,
    exports: usize,
    unwanted: Vec<ExportedFile>,
}

impl Promotions {
    /// Leaves out a file that is one too many, whatever the driver says.
    pub(super) fn admit_export(&mut self, export: Option<Export>) -> Option<Export> {
        let export = export?;
        self.exports += 1;
        (self.exports <= limits::RUN_EXPORTS_MAX).then_some(export)
    }

    pub(super) fn begin(&mut self, output: &mut CodeOutput, payload: Payload) {
        let name = outputs::name_of(output);
        let CodeOutput::Artifact {
            artifact_id,
            content_type,
            ..
        } = output
        else {
            return;
        };
        self.begun += 1;
        // No id looks like this.
        let mark = format!("#{}", self.begun);
        artifact_id.clone_from(&mark);
        self.waiting.push(Promotion {
            mark,
            naming: Naming {
                name,
                content_type: content_type.clone(),
                source_path: None,
            },
            payload,
        });
    }

    /// An output that has no id yet is gone. How many bytes were held for it.
    pub(super) fn withdraw(&mut self, mark: &str) -> usize {
        let Some(at) = self.waiting.iter().position(|p| p.mark == mark) else {
            return 0;
        };
        let payload = self.waiting.remove(at).payload;
        let held = payload.held_bytes();
        self.drop_payload(payload);
        held
    }

    pub(super) fn drop_all(&mut self) {
        for promotion in std::mem::take(&mut self.waiting) {
            self.drop_payload(promotion.payload);
        }
    }

    pub(super) fn drop_payload(&mut self, payload: Payload) {
        if let Payload::File(file) = payload {
            self.unwanted.push(file);
        }
    }
}

impl RunCollector {
    /// Whether there is something for [`App::promote_outputs`].
    pub(crate) fn has_promotions(&self) -> bool {
        !self.promotions.waiting.is_empty()
    }

    /// Files of the sandbox that were written for outputs which are not shown any more.
    pub(crate) fn unwanted_files(&mut self) -> Vec<ExportedFile> {
        std::mem::take(&mut self.promotions.unwanted)
    }

    /// What became of one of them: the artifact, or why there is none.
    fn settle(&mut self, promotion: &Promotion, outcome: Result<store::Artifact, RejectedReason>) {
        let held = promotion.payload.held_bytes();
        self.outputs_bytes = self.outputs_bytes.saturating_sub(held);
        self.outputs_share.give_back(held);
        for output in &mut self.outputs {
            let CodeOutput::Artifact {
                artifact_id,
                format,
                size_bytes,
                origin,
                ..
            } = output
            else {
                continue;
            };
            if *artifact_id != promotion.mark {
                continue;
            }
            match outcome {
                Ok(row) => {
                    *artifact_id = row.id;
                    *size_bytes = u64::try_from(row.size_bytes).unwrap_or(0);
                }
                Err(reason) => {
                    *output = CodeOutput::Rejected {
                        format: *format,
                        reason,
                        origin: origin.clone(),
                    };
                }
            }
            return;
        }
    }
}

impl App {
    /// Makes artifacts of the outputs that wait for it. What fails is an output that was rejected,
    /// never a run that failed. `by`: who is told to have made them, where that is known. `origin`:
    /// what displayed them, where a server after this one may see it again.
    pub(crate) async fn promote_outputs(
        &self,
        by: Option<(&Principal, &RequestContext)>,
        origin: Option<&str>,
        live: &Arc<LiveSandbox>,
        collector: &mut RunCollector,
    ) {
        let waiting = std::mem::take(&mut collector.promotions.waiting);
        for (number, promotion) in waiting.into_iter().enumerate() {
            let origin = origin.map(|origin| format!("{origin}/{number}"));
            let made = self.promote_output(live, origin.as_deref(), &promotion);
            let outcome = match made.await {
                Ok(row) => {
                    if let Some((who, request)) = by {
                        self.note_artifact_made(who, request, &row);
                    }
                    Ok(row)
                }
                Err(error) => Err(promotion.refusal(&error)),
            };
            collector.settle(&promotion, outcome);
        }
    }

    async fn promote_output(
        &self,
        live: &Arc<LiveSandbox>,
        origin: Option<&str>,
        promotion: &Promotion,
    ) -> ApiResult<store::Artifact> {
        let naming = promotion.naming.clone();
        match (&promotion.payload, origin) {
            (Payload::Bytes(bytes), None) => self.promote_bytes(live, naming, bytes.clone()).await,
            (Payload::Bytes(bytes), Some(origin)) => {
                self.promote_bytes_once(origin, live, naming, bytes.clone())
                    .await
            }
            (Payload::File(file), origin) => self.promote_export(origin, live, naming, file).await,
        }
    }
}
