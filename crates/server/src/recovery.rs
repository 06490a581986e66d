//! What a starting server finds: rows of its node and processes of the server before it.

use crate::app::App;
use crate::egress::SandboxRules;
use crate::error::ApiResult;
use crate::host::{self, KnownSandbox, Runtimes, SandboxKey, TemplateRef};
use crate::lifecycle::{End, INIT_GRACE_MS, verdict};
use crate::metering;
use crate::sandboxes::LiveSandbox;
use crownest_api::{IdKind, Timestamp};
use crownest_store as store;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What the row remembers for a restart; `runtime` in the store.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RuntimeNote {
    /// Digest of the template's root.
    pub(crate) template: String,
    /// What it has interpreters for: the template may be removed while its sandboxes live.
    #[serde(default)]
    pub(crate) languages: Vec<String>,
    /// The versions that it uses.
    #[serde(default)]
    pub(crate) runtimes: Runtimes,
    /// When it was ready, by the clock of [`metering::ticks_ms`].
    #[serde(default)]
    pub(crate) ready_ticks_ms: Option<i64>,
    /// What its disk takes.
    #[serde(default)]
    pub(crate) disk_bytes: Option<u64>,
    /// Egress rules of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) egress: Option<SandboxRules>,
    /// What a dialect remembers of the request that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dialect: Option<Value>,
}

impl App {
    /// What the disk of a sandbox takes.
    pub(crate) fn disk_bytes_of(&self, live: &LiveSandbox) -> u64 {
        let asked = note(&live.row()).and_then(|note| note.disk_bytes);
        asked.unwrap_or(self.config.limits_default.disk_bytes)
    }

    /// Makes rows and processes agree after a start.
    ///
    /// # Errors
    /// When the store or the spawner cannot be asked.
    pub async fn recover(&self) -> ApiResult<()> {
        if let Some(dir) = &self.config.audit_dir {
            self.audit.restore(dir).await?;
        }
        let rows = self
            .store
            .live_sandboxes_of_node(&self.config.node_id)
            .await?;
        let known: Vec<KnownSandbox> = rows.iter().filter_map(known).collect();
        let found = self.host.recover(&known).await?;
        let mut commands = self.unfinished_commands().await?;
        let mut runs = self.unfinished_code_runs().await?;
        let (mut kept, mut ended) = (0, 0);
        for row in rows {
            let alive = known_key(&row)
                .filter(|key| found.alive.contains(key))
                .and_then(|key| self.host.get(&key));
            match alive {
                Some(host) => {
                    let commands = commands.remove(&row.id).unwrap_or_default();
                    let runs = runs.remove(&row.id).unwrap_or_default();
                    self.readopt(row, host, commands, runs).await?;
                    kept += 1;
                }
                None => {
                    let expires_at = Timestamp::from_millis(row.expires_at / 1_000);
                    let now = Timestamp::now();
                    let (status, reason) = verdict(now, expires_at);
                    // It ended at some time while no server was there: at the latest now.
                    let charged = metering::charged_by_wall_clock_ms(&row, now);
                    let end = End::of(&row, status, reason, now, charged, None);
                    self.record_end(&end).await;
                    ended += 1;
                }
            }
        }
        self.end_lost_commands(commands).await;
        self.end_lost_code_runs(runs).await;
        self.recover_snapshots().await?;
        self.recover_previews().await?;
        self.restore_workspace_runs().await?;
        tracing::info!(
            kept,
            ended,
            unknown_killed = found.killed_unknown,
            "sandboxes reconciled"
        );
        Ok(())
    }

    /// Takes a sandbox of the server before into use; if its time is over, its task ends it.
    async fn readopt(
        &self,
        row: store::Sandbox,
        host: Arc<host::Sandbox>,
        commands: Vec<store::Command>,
        runs: Vec<store::CodeRun>,
    ) -> ApiResult<()> {
        let slot = self.sandboxes.slot(&row.org_id, None)?;
        let languages = match self.templates.by_digest(&host.template().digest) {
            Some(template) => template.languages,
            None => note(&row).map_or_else(Vec::new, |note| note.languages),
        };
        let live = Arc::new(LiveSandbox::new(row, host, languages, slot));
        self.restore_contexts(&live).await?;
        self.restore_commands(&live, commands).await;
        self.restore_code_runs(&live, runs).await;
        self.adopt(&live);
        if live.paused.load(Ordering::Relaxed) {
            self.pause_again(&live).await?;
        }
        Ok(())
    }
}

fn known_key(row: &store::Sandbox) -> Option<SandboxKey> {
    SandboxKey::new(IdKind::Sandbox.suffix(&row.id)?)
}

fn note(row: &store::Sandbox) -> Option<RuntimeNote> {
    serde_json::from_str(row.runtime.as_deref()?).ok()
}

/// What a dialect remembers of the request that made a sandbox.
pub(crate) fn dialect(row: &store::Sandbox) -> Option<Value> {
    note(row)?.dialect
}

/// The egress rules of its own that a sandbox has.
pub(crate) fn egress(row: &store::Sandbox) -> Option<SandboxRules> {
    note(row)?.egress
}

/// What the row of a sandbox remembers, with these egress rules.
pub(crate) fn with_egress(
    row: &store::Sandbox,
    rules: &SandboxRules,
) -> Result<String, serde_json::Error> {
    let mut note: RuntimeNote = serde_json::from_str(row.runtime.as_deref().unwrap_or("{}"))?;
    note.egress = Some(rules.clone());
    serde_json::to_string(&note)
}

/// When a sandbox was ready, by the clock of [`metering::ticks_ms`], if its row says so.
pub(crate) fn ready_ticks_ms(row: &store::Sandbox) -> Option<i64> {
    note(row)?.ready_ticks_ms
}

fn known(row: &store::Sandbox) -> Option<KnownSandbox> {
    let note = note(row)?;
    let template = TemplateRef {
        slug: row.template_slug.clone(),
        digest: note.template,
    };
    let expires_at = Timestamp::from_millis(row.expires_at / 1_000);
    let left = Timestamp::now().millis_until(expires_at);
    Some(KnownSandbox {
        key: known_key(row)?,
        template,
        runtimes: note.runtimes,
        egress: note.egress,
        time_left: Duration::from_millis(left + INIT_GRACE_MS),
    })
}
