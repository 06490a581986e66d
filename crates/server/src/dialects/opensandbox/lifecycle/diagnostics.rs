//! `GET /sandboxes/{sandboxId}/diagnostics/{logs,events}`: text for people.

use super::record::Note;
use crate::app::App;
use crate::auth::{Caller, Principal};
use crate::commands::Place;
use crate::error::{ApiError, ApiResult};
use crate::extract::{PathArgs, QueryArgs};
use crate::sandboxes::{self, Found};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use crownest_api::{ErrorCode, Scope, limits};
use crownest_store as store;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Text in one answer; a longer log is cut, which the answer says.
const CONTENT_BYTES_MAX: usize = 256 * 1024;
/// What can be asked about.
const SCOPES: [&str; 6] = [
    "container",
    "lifecycle",
    "runtime",
    "network",
    "process",
    "all",
];

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/sandboxes/{sandboxId}/diagnostics/logs", get(logs))
        .route("/sandboxes/{sandboxId}/diagnostics/events", get(events))
}

#[derive(Debug, Deserialize)]
struct Query {
    scope: Option<String>,
}

impl Query {
    fn scope(self) -> ApiResult<String> {
        let scope = self.scope.filter(|scope| SCOPES.contains(&scope.as_str()));
        scope.ok_or_else(|| {
            let known = SCOPES.join(", ");
            ApiError::field("scope", format!("scope is required and one of {known}"))
        })
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Diagnosis {
    sandbox_id: String,
    kind: &'static str,
    scope: String,
    delivery: &'static str,
    content_type: &'static str,
    content: String,
    content_length: usize,
    truncated: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl Diagnosis {
    fn of(id: String, kind: &'static str, scope: String, text: Text) -> Json<Self> {
        let warnings = if text.content.is_empty() {
            vec![format!("there is nothing of scope {scope}")]
        } else {
            Vec::new()
        };
        Json(Self {
            sandbox_id: id,
            kind,
            scope,
            delivery: "inline",
            content_type: "text/plain; charset=utf-8",
            content_length: text.content.len(),
            content: text.content,
            truncated: text.truncated,
            warnings,
        })
    }
}

#[derive(Debug, Default)]
struct Text {
    content: String,
    truncated: bool,
}

/// What the entrypoint printed.
async fn logs(
    State(app): State<App>,
    caller: Caller<{ Scope::CommandRead as u8 }>,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<Query>,
) -> ApiResult<Json<Diagnosis>> {
    let scope = query.scope()?;
    let row = row(&app, &caller, &id).await?;
    let command = Note::of(&row).and_then(|note| note.command_id);
    let text = match command {
        Some(command) if ["container", "all"].contains(&scope.as_str()) => {
            printed(&app, &caller, &command).await?
        }
        _ => Text::default(),
    };
    Ok(Diagnosis::of(id, "logs", scope, text))
}

async fn printed(app: &App, who: &Principal, command: &str) -> ApiResult<Text> {
    let mut text = Text::default();
    let mut place = Place {
        after: None,
        limit: limits::LOG_CHUNKS_MAX as usize,
    };
    loop {
        let page = match app.log_page(who, command, place).await {
            Ok(page) => page,
            // It was never begun, or its log is gone.
            Err(error) if error.code == ErrorCode::NotFound => return Ok(text),
            Err(error) => return Err(error),
        };
        for chunk in &page.data {
            text.content.push_str(&chunk.data);
        }
        if text.content.len() > CONTENT_BYTES_MAX {
            let end = text.content.floor_char_boundary(CONTENT_BYTES_MAX);
            text.content.truncate(end);
            text.truncated = true;
            return Ok(text);
        }
        match page.next_seq {
            Some(last) if page.has_more => place.after = Some(last),
            _ => return Ok(text),
        }
    }
}

/// What has happened to the sandbox, one line each.
async fn events(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxRead as u8 }>,
    PathArgs(id): PathArgs<String>,
    QueryArgs(query): QueryArgs<Query>,
) -> ApiResult<Json<Diagnosis>> {
    let scope = query.scope()?;
    let row = row(&app, &caller, &id).await?;
    let wants = |name: &str| scope == name || scope == "all";
    let mut text = Text::default();
    if wants("lifecycle") || wants("runtime") {
        text.content.push_str(&life(&row));
    }
    if wants("network") {
        let counts = app.sandboxes.get(&id);
        let counts = counts.and_then(|live| live.host.egress_counters());
        if let Some(counts) = counts {
            let _ = writeln!(
                text.content,
                "network: {} connections, {} refused, {} failed, {} bytes up, {} bytes down",
                counts.connections,
                counts.refused,
                counts.failed,
                counts.bytes_up,
                counts.bytes_down,
            );
        }
    }
    Ok(Diagnosis::of(id, "events", scope, text))
}

async fn row(app: &App, who: &Principal, id: &str) -> ApiResult<store::Sandbox> {
    Ok(match app.find_sandbox(who, id).await? {
        Found::Live(live) => live.row().clone(),
        Found::Ended(row) => *row,
    })
}

fn life(row: &store::Sandbox) -> String {
    let sandbox = sandboxes::wire(row);
    let mut lines = String::new();
    if let Some(at) = sandbox.created_at {
        let (slug, version) = (&sandbox.template_slug, &sandbox.template_version);
        let _ = writeln!(lines, "{at} lifecycle asked for, template {slug} {version}");
    }
    if let Some(micros) = row.ready_at {
        let at = crownest_api::Timestamp::from_millis(micros / 1_000);
        let _ = writeln!(lines, "{at} lifecycle ready");
    }
    match sandbox.destroyed_at {
        Some(at) => {
            let (status, reason) = (sandbox.status.as_str(), sandbox.destroyed_reason);
            let reason = reason.map_or("unknown", |reason| reason.as_str());
            let _ = writeln!(lines, "{at} lifecycle {status}, {reason}");
        }
        None => {
            let _ = writeln!(
                lines,
                "{} lifecycle its time will be over",
                sandbox.expires_at
            );
        }
    }
    lines
}
