//! A command whose output goes to one client as it comes.
//!
//! Nothing is held for it but what is on the way. It is a command as every other: it has a record,
//! a log, and the task that drives it.

use super::drive::{Finished, Pieces, Waited};
use super::{Collector, EndOnDrop, deed};
use crate::app::App;
use crate::auth::Principal;
use crate::commands::CheckedCommand;
use crate::error::{ApiError, ApiResult};
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use crownest_api::ErrorCode;
use crownest_store as store;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Batches of output that wait for a slow client; then the command waits.
const BATCHES_WAITING_MAX: usize = 2;

/// A command that runs. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Followed {
    app: App,
    who: Arc<Principal>,
    request: RequestContext,
    sandbox_id: String,
    started: Instant,
    output: mpsc::Receiver<Pieces>,
    finished: oneshot::Receiver<Finished>,
    process: EndOnDrop,
}

impl App {
    /// Starts a command for a client that follows it.
    pub(crate) async fn follow_command(
        &self,
        who: &Arc<Principal>,
        request: &RequestContext,
        live: &Arc<LiveSandbox>,
        checked: CheckedCommand,
    ) -> ApiResult<Followed> {
        let started = Instant::now();
        let (sender, finished) = oneshot::channel();
        let (follower, output) = mpsc::channel(BATCHES_WAITING_MAX);
        let by = Collector {
            who: Arc::clone(who),
            request: request.clone(),
        };
        let waited = Waited::new(sender, by).following(follower);
        let command = self.start_command(who, live, checked, Some(waited)).await?;
        Ok(Followed {
            app: self.clone(),
            who: Arc::clone(who),
            request: request.clone(),
            sandbox_id: live.id.clone(),
            started,
            output,
            finished,
            process: EndOnDrop {
                command: Some(command),
                tasks: self.tasks.clone(),
            },
        })
    }
}

impl Followed {
    /// What it has printed next; None once it has ended.
    pub(crate) async fn next(&mut self) -> Option<Pieces> {
        self.output.recv().await
    }

    /// Its record, when [`Followed::next`] has said that it has ended.
    pub(crate) async fn end(mut self) -> ApiResult<store::Command> {
        let Ok(finished) = self.finished.await else {
            return Err(ApiError::new(
                ErrorCode::Unavailable,
                "the server is stopping",
            ));
        };
        self.process.command = None;
        self.app
            .metrics
            .command_seconds
            .observe(self.started.elapsed().as_secs_f64());
        let deed = deed("command.run", &finished.row, finished.outcome);
        let details = json!({
            "sandboxId": self.sandbox_id,
            "exitCode": finished.row.exit_code,
        });
        self.app
            .audit
            .by_key(&self.who, &self.request, deed, &details);
        Ok(finished.row)
    }
}
