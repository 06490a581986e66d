//! Commands that an earlier server of this node has begun: driven on, or ended in the records.

use super::drive::{Driving, end_row};
use super::live::LiveCommand;
use super::record::{Ended, count_log};
use super::start::end_unknown;
use crate::app::App;
use crate::command_log::LogWriter;
use crate::error::{ApiError, ApiResult};
use crate::host::{self, Exec, ExecTarget, HostError};
use crate::sandboxes::LiveSandbox;
use crownest_store as store;
use std::collections::HashMap;
use std::sync::Arc;

/// The commands of this node whose end is not on record, by sandbox.
pub(crate) type Unfinished = HashMap<String, Vec<store::Command>>;

impl App {
    /// What a starting server has to look for.
    pub(crate) async fn unfinished_commands(&self) -> ApiResult<Unfinished> {
        let mut by_sandbox = Unfinished::new();
        for row in self
            .store
            .running_commands_of_node(&self.config.node_id)
            .await?
        {
            by_sandbox
                .entry(row.sandbox_id.clone())
                .or_default()
                .push(row);
        }
        Ok(by_sandbox)
    }

    /// Takes up the commands of a sandbox that lives on, and ends processes that have no row.
    pub(crate) async fn restore_commands(
        &self,
        live: &Arc<LiveSandbox>,
        rows: Vec<store::Command>,
    ) {
        for row in rows {
            let id = row.id.clone();
            if let Err(error) = self.restore_command(live, row).await {
                tracing::error!(%error, command = %id, "a command could not be taken up");
            }
        }
        for unknown in live.host.recovered_execs() {
            // Nobody knows how much of it was handled, and nobody needs it.
            let exec = match live.host.attach_exec(unknown.id, 0).await {
                Err(HostError::Invalid(_)) => attach_at_end(&live.host, unknown).await,
                other => other,
            };
            match exec {
                Ok(exec) => drop(self.tasks.spawn(end_unknown(exec))),
                Err(error) => tracing::warn!(%error, "a process without a record"),
            }
        }
    }

    async fn restore_command(&self, live: &Arc<LiveSandbox>, row: store::Command) -> ApiResult<()> {
        let exec = u64::try_from(row.exec).unwrap_or(0);
        let writer = self.reopen_log(&row.id).await?;
        let log = Arc::clone(writer.log());
        let command = LiveCommand::new(row, exec, Arc::clone(&live.host), log);
        self.commands.insert(&command);
        match attach(&command, writer.handled()).await {
            Ok(exec) => {
                let driving = Driving {
                    app: self.clone(),
                    sandbox: Arc::clone(live),
                    command,
                    exec,
                    writer: Some(writer),
                    waited: None,
                    work: live.work(),
                };
                self.tasks.spawn(driving.drive());
            }
            Err(HostError::TargetUnknown) => {
                // Its row was written and its process was not started.
                self.end_command(&command, &Ended::never_begun()).await;
            }
            Err(error) => {
                self.end_command(&command, &Ended::with_sandbox()).await;
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Ends the commands of sandboxes that are gone.
    pub(crate) async fn end_lost_commands(&self, unfinished: Unfinished) {
        for mut row in unfinished.into_values().flatten() {
            match self.reopen_log(&row.id).await {
                Ok(writer) => count_log(&mut row, &writer.log().index()),
                Err(error) => tracing::warn!(%error, command = %row.id, "reading a log"),
            }
            end_row(&mut row, &Ended::with_sandbox(), None);
            if let Err(error) = self.store.finish_command(&row).await {
                tracing::error!(%error, command = %row.id, "writing the end of a command failed");
            }
        }
    }

    async fn end_command(&self, command: &Arc<LiveCommand>, ended: &Ended) {
        let row = {
            let mut row = command.row();
            end_row(&mut row, ended, None);
            count_log(&mut row, &command.log.index());
            row.clone()
        };
        self.record_command_end(command, row).await;
    }

    async fn reopen_log(&self, id: &str) -> ApiResult<LogWriter> {
        let (files, limits) = (self.log_files(id), self.config.log_limits());
        tokio::task::spawn_blocking(move || LogWriter::reopen(files, limits))
            .await
            .map_err(ApiError::internal)?
            .map_err(|error| ApiError::internal(format_args!("taking up a log: {error}")))
    }
}

/// Attaches behind what is in the log. When that is behind what init was told, as after a disk
/// that did not take everything, it goes on with what there is.
async fn attach(command: &LiveCommand, handled: u64) -> Result<Exec, HostError> {
    let host = &command.host;
    let refused = match host.attach_exec(command.exec, handled).await {
        Err(error @ HostError::Invalid(_)) => error,
        other => return other,
    };
    let mut found = host.recovered_execs();
    found.retain(|found| found.id == command.exec);
    let Some(found) = found.pop() else {
        return Err(refused);
    };
    tracing::error!(command = %command.id, "output of a command was lost between two servers");
    attach_at_end(host, found).await
}

/// Attaches behind everything that a process has said, but before its end.
async fn attach_at_end(host: &Arc<host::Sandbox>, found: ExecTarget) -> Result<Exec, HostError> {
    let seq = found.seq.saturating_sub(u64::from(found.done));
    host.attach_exec(found.id, seq).await
}
