//! The whole output of a run as an artifact, beside a result that does not hold all of it.
//!
//! Owns: holding what was printed as long as the result may still have it all, then sending it to
//! the object store while the code runs. A store that is slow holds the code up, as a client that
//! reads slowly does. Does not own: what a result holds ([`crate::output_budget`]).

use crate::app::App;
use crate::artifacts::Naming;
use crate::auth::Principal;
use crate::budget::Share;
use crate::error::{ApiError, ApiResult};
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use bytes::Bytes;
use crownest_api::ErrorCode;
use crownest_api::code::RejectedReason;
use crownest_api::output_budget::FullOutput;
use crownest_store as store;
use futures_util::stream;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Largest output that is kept whole.
pub(crate) const FULL_OUTPUT_BYTES_MAX: u64 = 1 << 30;
/// Output that is held before it is sent anywhere.
const HELD_BYTES_MAX: usize = 1024 * 1024;
/// Pieces on their way to the store.
const PIECES_WAITING_MAX: usize = 8;
const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// How such an artifact is called.
pub(crate) fn naming() -> Naming {
    Naming {
        name: "output.txt".to_owned(),
        content_type: CONTENT_TYPE.to_owned(),
        source_path: None,
    }
}

/// What a result says of an artifact that was made, or was not.
pub(crate) fn described(made: ApiResult<store::Artifact>) -> FullOutput {
    match made {
        Ok(row) => FullOutput::Artifact {
            artifact_id: row.id,
            content_type: CONTENT_TYPE.to_owned(),
            size_bytes: u64::try_from(row.size_bytes).unwrap_or(0),
        },
        Err(error) => {
            let too_large = error.code == ErrorCode::FileTooLarge;
            if !too_large {
                tracing::error!(%error, cause = error.cause, "an output could not be kept");
            }
            FullOutput::Rejected {
                reason: if too_large {
                    RejectedReason::OutputTooLarge
                } else {
                    RejectedReason::RequiresArtifactPromotion
                },
            }
        }
    }
}

/// The output of one run on its way.
#[derive(Debug)]
pub(crate) struct Spool {
    held: Vec<u8>,
    share: Share,
    upload: Option<Upload>,
}

#[derive(Debug)]
struct Upload {
    pieces: mpsc::Sender<Piece>,
    made: JoinHandle<ApiResult<store::Artifact>>,
}

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    End,
}

impl Spool {
    pub(crate) fn new() -> Self {
        Self {
            held: Vec::new(),
            share: Share::default(),
            upload: None,
        }
    }

    /// Takes what was printed next. `lost`: the result will not have everything.
    pub(crate) async fn push(
        &mut self,
        app: &App,
        live: &Arc<LiveSandbox>,
        text: &str,
        lost: bool,
    ) {
        let held = self.upload.is_none()
            && self.held.len() + text.len() <= HELD_BYTES_MAX
            && self.share.take(text.len());
        if held {
            self.held.extend_from_slice(text.as_bytes());
        }
        if held && !lost {
            return;
        }
        if self.upload.is_none() {
            self.begin(app, live).await;
        }
        if !held {
            self.send(Piece::Bytes(Bytes::copy_from_slice(text.as_bytes())))
                .await;
        }
    }

    /// What became of it; none when the result is `whole`, or there was nothing to be kept.
    pub(crate) async fn finish(
        mut self,
        app: &App,
        live: &Arc<LiveSandbox>,
        by: (&Principal, &RequestContext),
        whole: bool,
    ) -> Option<FullOutput> {
        if self.upload.is_none() {
            if whole {
                return None;
            }
            self.begin(app, live).await;
        }
        self.send(Piece::End).await;
        let upload = self.upload.take()?;
        let made = upload.made.await.unwrap_or_else(|error| {
            Err(ApiError::internal(format_args!(
                "keeping an output: {error}"
            )))
        });
        if let Ok(row) = &made {
            app.note_artifact_made(by.0, by.1, row);
        }
        Some(described(made))
    }

    async fn begin(&mut self, app: &App, live: &Arc<LiveSandbox>) {
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
        // What is not ended was broken off, and nothing is stored then.
        let source = stream::unfold(Some(waiting), |waiting| async move {
            let mut waiting: mpsc::Receiver<Piece> = waiting?;
            match waiting.recv().await {
                Some(Piece::Bytes(bytes)) => Some((Ok(bytes), Some(waiting))),
                Some(Piece::End) => None,
                None => {
                    let error = io::Error::new(io::ErrorKind::Interrupted, "the run broke off");
                    Some((Err(error), None))
                }
            }
        });
        let (app, live) = (app.clone(), Arc::clone(live));
        let made = app.clone().tasks.spawn(async move {
            let naming = naming();
            app.promote_stream(&live, naming, source, FULL_OUTPUT_BYTES_MAX)
                .await
        });
        self.upload = Some(Upload { pieces, made });
        let held = std::mem::take(&mut self.held);
        self.share.give_back(held.len());
        if !held.is_empty() {
            self.send(Piece::Bytes(held.into())).await;
        }
    }

    async fn send(&self, piece: Piece) {
        if let Some(upload) = &self.upload {
            // A store that has given up says why at the end.
            let _ = upload.pieces.send(piece).await;
        }
    }
}
