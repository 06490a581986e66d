//! Moves closed segments of logs into the object store, one at a time, beside everything else.
//!
//! Owns: which segments are closed, the order of the steps, trying again. Does not own: the steps
//! and what is found on disk between two of them ([`Remote`]).
//!
//! A segment is closed when another one follows it; the last one of a command that has ended,
//! when nobody has written to it for an hour: until then clients ask for it most. An object store
//! that is away costs nothing but room on this disk: segments stay and are readable until it is
//! back.

use crate::app::App;
use crate::command_log::{Announced, LogFiles, Remote, Todo, shards, unsettled};
use crate::error::{ApiError, ApiResult};
use crate::objects::ObjectsError;
use crownest_api::IdKind;
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Between two tries when the object store is away.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How long the last segment of a log stays after it was last written to.
const LAST_QUIET: Duration = Duration::from_secs(3_600);
/// Steps that one segment can need: send, remove, and once more when it was dropped meanwhile.
const STEPS_MAX: usize = 6;

impl App {
    /// Starts the task that moves segments, if they are to be moved.
    pub(crate) fn keep_logs(&self) {
        let Some(remote) = self.remote_logs.clone() else {
            return;
        };
        let app = self.clone();
        self.tasks.spawn(async move {
            let moving = async {
                loop {
                    match remote.announced().await {
                        Announced::Segment(files, number) => {
                            app.move_segment(&remote, &files, number).await;
                        }
                        Announced::Everything => app.move_segments(&remote).await,
                    }
                }
            };
            tokio::select! {
                () = moving => {}
                () = app.stopping.cancelled() => {}
            }
        });
    }

    /// Looks at all logs for what was left undone.
    async fn move_segments(&self, remote: &Arc<Remote>) {
        let directory = self.config.logs_dir();
        let found = blocking(move || shards(&directory)).await;
        let shards = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "looking for closed log segments failed");
            Vec::new()
        });
        for shard in shards {
            if let Err(error) = self.move_shard(remote, &shard).await {
                tracing::warn!(?error, ?shard, "looking for closed log segments failed");
            }
        }
    }

    async fn move_shard(&self, remote: &Arc<Remote>, shard: &Path) -> ApiResult<()> {
        let shard = shard.to_owned();
        let logs = blocking(move || {
            let quiet_before = SystemTime::now().checked_sub(LAST_QUIET);
            unsettled(&shard, quiet_before.unwrap_or(SystemTime::UNIX_EPOCH))
        });
        let logs = logs.await.map_err(ApiError::internal)?;
        if logs.is_empty() {
            return Ok(());
        }
        // After the files: a command whose end is on record by now has written its last.
        let running = self.store.running_commands_of_node(&self.config.node_id);
        let running: HashSet<_> = running.await?.into_iter().map(|row| row.id).collect();
        for log in logs {
            let id = format!("{}_{}", IdKind::Command.prefix(), log.name);
            let files = self.log_files(&id);
            let numbers = match self.commands.get(&id) {
                Some(command) => {
                    let closed = command.log.closed();
                    // Of one that was dropped there may be a note.
                    let last = closed.last().copied().unwrap_or(0);
                    log.numbers
                        .into_iter()
                        .filter(|number| *number <= last)
                        .collect()
                }
                // No task has taken it up: the next server may.
                None if running.contains(&id) => Vec::new(),
                None => [log.numbers, Vec::from_iter(log.quiet_last)].concat(),
            };
            for number in numbers {
                self.move_segment(remote, &files, number).await;
            }
        }
        Ok(())
    }

    /// Does what is to be done with a closed segment, as soon as the object store is there.
    async fn move_segment(&self, remote: &Arc<Remote>, files: &LogFiles, number: u32) {
        let mut waits = false;
        loop {
            match self.settle_segment(remote, files, number).await {
                Ok(()) if waits => {
                    tracing::info!("the object store takes log segments again");
                    return;
                }
                Ok(()) => return,
                // The next look at everything tries again.
                Err(error @ (ObjectsError::Source(_) | ObjectsError::TooLarge { .. })) => {
                    tracing::warn!(%error, log = files.name(), number, "moving a log segment failed");
                    return;
                }
                Err(error) => {
                    if !waits {
                        tracing::warn!(%error, "log segments wait for the object store");
                    }
                    waits = true;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn settle_segment(
        &self,
        remote: &Arc<Remote>,
        files: &LogFiles,
        number: u32,
    ) -> Result<(), ObjectsError> {
        for _ in 0..STEPS_MAX {
            let looking = files.clone();
            let todo = blocking(move || Remote::look(&looking, number)).await;
            match todo.map_err(ObjectsError::Source)? {
                Todo::Nothing => return Ok(()),
                Todo::Delete => remote.delete(files, number).await?,
                Todo::Send => match remote.send(files, number).await {
                    Ok(()) => {
                        let id = format!("{}_{}", IdKind::Command.prefix(), files.name());
                        let (files, command) = (files.clone(), self.commands.get(&id));
                        let settling = blocking(move || {
                            let log = command.as_ref().map(|command| &*command.log);
                            Remote::settle(&files, number, log)
                        });
                        settling.await.map_err(ObjectsError::Source)?;
                    }
                    // It was dropped before it could be read.
                    Err(ObjectsError::Source(error)) if error.kind() == io::ErrorKind::NotFound => {
                    }
                    Err(error) => return Err(error),
                },
                Todo::Remove => {
                    let files = files.clone();
                    let removing = blocking(move || Remote::remove(&files, number));
                    removing.await.map_err(ObjectsError::Source)?;
                }
            }
        }
        let error = io::Error::other("a log segment does not come to rest");
        Err(ObjectsError::Source(error))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)?
}
