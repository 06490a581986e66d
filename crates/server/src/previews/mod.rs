//! Previews: ports of sandboxes under host names of their own.
//!
//! Owns: making and ending previews, who may visit one, and the way of a visitor's request into
//! the sandbox and of the answer back. Does not own: the rows (the store), how a port is reached
//! (`host`), or when a sandbox ends (`lifecycle`).
//!
//! A request is taken for a preview by its host alone, before any route of the API is looked at
//! ([`by_host`]); what comes back is a stranger's page and never has the API's origin.

mod address;
mod forward;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
mod headers;
mod page;
mod port;
mod session;
mod visit;

pub(crate) use address::Site;
pub(crate) use gate::Gates;
pub(crate) use port::PortVisit;
pub(crate) use visit::by_host;

use crate::app::App;
use crate::audit::Deed;
use crate::auth::{Principal, micros, random, secret};
use crate::error::{ApiError, ApiResult};
use crate::request::RequestContext;
use crate::sandboxes::LiveSandbox;
use crownest_api::preview::{CreatePreview, Preview, PreviewAuthMode, PreviewCreated};
use crownest_api::{ErrorCode, IdKind, Timestamp, new_id};
use crownest_store as store;
use crownest_store::{PreviewInserted, PreviewLimits, SecretHash, SessionKey};
use serde_json::json;
use std::num::NonZeroU16;

/// Every preview token starts so.
const TOKEN_PREFIX: &str = "pvt_";

/// A creation that passed its checks.
#[derive(Debug)]
pub(crate) struct PreviewCreation {
    port: NonZeroU16,
    mode: PreviewAuthMode,
    source_command_id: Option<String>,
}

impl PreviewCreation {
    pub(crate) fn check(asked: CreatePreview) -> ApiResult<Self> {
        let port = NonZeroU16::new(asked.port)
            .ok_or_else(|| ApiError::field("port", "port must be between 1 and 65535"))?;
        let mode = match asked.auth_mode.as_deref() {
            None => PreviewAuthMode::default(),
            Some(word) => PreviewAuthMode::from_word(word).ok_or_else(|| {
                let message = "authMode must be \"authenticated\" or \"token\"";
                ApiError::new(ErrorCode::UnsupportedPreviewAuthMode, message)
                    .with_details(json!({ "field": "authMode" }))
            })?,
        };
        let source_command_id = asked.source_command_id;
        if let Some(id) = &source_command_id
            && !IdKind::Command.matches(id)
        {
            let message = "sourceCommandId is not the id of a command";
            return Err(ApiError::field("sourceCommandId", message));
        }
        Ok(Self {
            port,
            mode,
            source_command_id,
        })
    }
}

impl App {
    /// A preview names only commands of its own sandbox, running or ended.
    async fn check_source_command(
        &self,
        who: &Principal,
        live: &LiveSandbox,
        id: &str,
    ) -> ApiResult<()> {
        let found = match self.find_command(who, id).await {
            Ok(found) => found.row().sandbox_id == live.id,
            Err(error) if error.code == ErrorCode::NotFound => false,
            Err(error) => return Err(error),
        };
        if found {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::NotFound,
            "sourceCommandId names no command of this sandbox",
        )
        .with_details(json!({ "field": "sourceCommandId" })))
    }

    /// Makes a preview of a port, or returns the one that the port has.
    pub(crate) async fn create_preview(
        &self,
        who: &Principal,
        request: &RequestContext,
        live: &LiveSandbox,
        creation: PreviewCreation,
        site: &Site,
    ) -> ApiResult<PreviewCreated> {
        if let Some(id) = &creation.source_command_id {
            self.check_source_command(who, live, id).await?;
        }
        let token = match creation.mode {
            PreviewAuthMode::Token => Some(secret(TOKEN_PREFIX).map_err(ApiError::internal)?),
            PreviewAuthMode::Authenticated => None,
        };
        let row = store::Preview {
            id: new_id(IdKind::Preview),
            slug: address::new_slug().map_err(ApiError::internal)?,
            org_id: live.org_id.clone(),
            project_id: live.project_id.clone(),
            sandbox_id: live.id.clone(),
            port: creation.port.get().into(),
            auth_mode: creation.mode.as_str().to_owned(),
            token_hash: token.as_deref().map(SecretHash::of),
            session_key: SessionKey(random().map_err(ApiError::internal)?),
            source_command_id: creation.source_command_id,
            created_by: who.key_id.to_string(),
            created_at: micros(Timestamp::now()),
            revoked_at: None,
            ended_at: None,
        };
        let plan = who.plan.limits(&self.config);
        let (per_sandbox, per_org) = (plan.previews_per_sandbox_max, plan.previews_per_org_max);
        let limits = PreviewLimits {
            per_sandbox: i64::try_from(per_sandbox).unwrap_or(i64::MAX),
            per_org: i64::try_from(per_org).unwrap_or(i64::MAX),
        };
        let inserted = self.store.insert_preview(&row, limits).await;
        let (row, preview_token) = match inserted.map_err(|error| match error {
            // It was there a moment ago.
            store::StoreError::NotFound { .. } => ApiError::destroyed(),
            error => error.into(),
        })? {
            PreviewInserted::New => {
                let details = json!({ "port": row.port, "authMode": row.auth_mode,
                    "sandboxId": row.sandbox_id });
                let deed = deed("preview.create", &row, "ok");
                self.audit.by_key(who, request, deed, &details);
                (row, token)
            }
            PreviewInserted::Existing(existing) => (*existing, None),
            PreviewInserted::SandboxFull => {
                return Err(full("sandbox", per_sandbox));
            }
            PreviewInserted::OrgFull => {
                return Err(full("organization", per_org));
            }
        };
        Ok(PreviewCreated {
            preview: self.preview_wire(&row, site),
            preview_token,
        })
    }

    /// One preview that the caller may see.
    pub(crate) async fn find_preview(
        &self,
        who: &Principal,
        id: &str,
    ) -> ApiResult<store::Preview> {
        if !IdKind::Preview.matches(id) {
            return Err(ApiError::not_found("preview"));
        }
        let row = self.store.preview(&who.org_id, id).await?;
        if who.may_touch(&row.project_id) {
            Ok(row)
        } else {
            Err(ApiError::not_found("preview"))
        }
    }

    /// Ends a preview: nobody visits it from here on, and whoever does is cut off.
    pub(crate) async fn revoke_preview(
        &self,
        who: &Principal,
        request: &RequestContext,
        id: &str,
    ) -> ApiResult<store::Preview> {
        let before = self.find_preview(who, id).await?;
        let now = micros(Timestamp::now());
        let row = self.store.revoke_preview(&who.org_id, id, now).await?;
        self.previews.close(&row.slug);
        if before.ended_at.is_none() {
            let deed = deed("preview.revoke", &row, "ok");
            let details = json!({ "sandboxId": row.sandbox_id });
            self.audit.by_key(who, request, deed, &details);
        }
        Ok(row)
    }

    /// Ends the previews of a sandbox that has ended. A store that cannot take it gets it later.
    pub(crate) async fn end_previews(&self, sandbox_id: &str, at: Timestamp) {
        if let Err(error) = self.try_end_previews(sandbox_id, at).await {
            tracing::warn!(%error, sandbox = sandbox_id, "ending previews failed");
            let sandbox_id = sandbox_id.to_owned();
            self.persist("the end of previews", move |app| {
                let sandbox_id = sandbox_id.clone();
                async move { app.try_end_previews(&sandbox_id, at).await }
            });
        }
    }

    async fn try_end_previews(
        &self,
        sandbox_id: &str,
        at: Timestamp,
    ) -> Result<(), store::StoreError> {
        let ended = self.store.end_previews_of_sandbox(sandbox_id, micros(at));
        for row in ended.await? {
            self.previews.close(&row.slug);
            let details = json!({ "sandboxId": row.sandbox_id });
            let deed = deed("preview.end", &row, "ok");
            self.audit.by_system(&row.org_id, deed, &details);
        }
        Ok(())
    }

    /// Ends what a server left over that was killed between a sandbox's end and its previews'.
    pub(crate) async fn recover_previews(&self) -> ApiResult<()> {
        let node = &self.config.node_id;
        for sandbox_id in self.store.ended_sandboxes_with_previews(node).await? {
            self.try_end_previews(&sandbox_id, Timestamp::now()).await?;
        }
        Ok(())
    }

    /// As clients see it.
    pub(crate) fn preview_wire(&self, row: &store::Preview, site: &Site) -> Preview {
        let time = |micros: i64| Timestamp::from_millis(micros / 1_000);
        let live = || self.sandboxes.get(&row.sandbox_id);
        let expires_at = match row.ended_at {
            Some(ended_at) => Some(time(ended_at)),
            None => live().map(|live| *live.expiry.borrow()),
        };
        Preview {
            id: row.id.clone(),
            slug: row.slug.clone(),
            org_id: row.org_id.clone(),
            project_id: row.project_id.clone(),
            sandbox_id: row.sandbox_id.clone(),
            port: u16::try_from(row.port).unwrap_or(0),
            auth_mode: PreviewAuthMode::from_word(&row.auth_mode).unwrap_or_default(),
            url: site.url(&row.slug),
            created_at: time(row.created_at),
            expires_at,
            revoked_at: row.revoked_at.map(time),
            source_command_id: row.source_command_id.clone(),
        }
    }
}

fn full(whose: &str, limit: u64) -> ApiError {
    let message = format!("the {whose} has {limit} active previews, which is its limit");
    ApiError::new(ErrorCode::QuotaExceeded, message).with_details(json!({ "limit": limit }))
}

/// What an audit event says of a preview.
fn deed<'a>(action: &'static str, row: &'a store::Preview, outcome: &'static str) -> Deed<'a> {
    Deed {
        action,
        resource_kind: "preview",
        resource_id: &row.id,
        project_id: Some(&row.project_id),
        outcome,
    }
}
