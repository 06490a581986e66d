//! `GET /sandboxes/{sandboxId}/diagnostics/{logs,events}`: text for people.

use super::record::Note;
use crate::app::App;
use crate::auth::{Caller, Principal};
use crate::error::{ApiError, ApiResult};
use crate::extract::{PathArgs, QueryArgs};
use crate::sandboxes::{self, Found};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use crownest_api::{ErrorCode, Scope};
use crownest_store as store;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::pin::pin;

/// Text in one answer; of a longer log its end, and the answer says how much is missing.
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
        let mut warnings = Vec::new();
        if text.content.is_empty() {
            warnings.push(format!("there is nothing of scope {scope}"));
        }
        if text.omitted_bytes > 0 {
            let count = text.omitted_bytes;
            warnings.push(format!("{count} bytes before this were left out"));
        }
        Json(Self {
            sandbox_id: id,
            kind,
            scope,
            delivery: "inline",
            content_type: "text/plain; charset=utf-8",
            content_length: text.content.len(),
            content: text.content,
            truncated: text.omitted_bytes > 0,
            warnings,
        })
    }
}

#[derive(Debug, Default)]
struct Text {
    content: String,
    /// Left out before it.
    omitted_bytes: u64,
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
    let found = match app.find_command(who, command).await {
        Ok(found) => found,
        // It was never begun.
        Err(error) if error.code == ErrorCode::NotFound => return Ok(Text::default()),
        Err(error) => return Err(error),
    };
    let (_, index) = app.log_of(&found).await?;
    let mut tail = Tail {
        bytes: Vec::new(),
        omitted_bytes: index.dropped_bytes().unwrap_or(0),
    };
    let mut pieces = pin!(app.download_log(&found).await?);
    while let Some(piece) = pieces.next().await {
        tail.push(&piece?);
    }
    Ok(tail.text())
}

/// The end of a text that comes in pieces.
#[derive(Debug, Default)]
struct Tail {
    /// At most twice what is wanted, so that few bytes are moved.
    bytes: Vec<u8>,
    omitted_bytes: u64,
}

impl Tail {
    fn push(&mut self, piece: &[u8]) {
        // One piece is not longer than what is wanted.
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() > 2 * CONTENT_BYTES_MAX {
            self.cut(self.bytes.len() - CONTENT_BYTES_MAX);
        }
    }

    fn cut(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.omitted_bytes += count as u64;
    }

    fn text(mut self) -> Text {
        if let Some(more) = self.bytes.len().checked_sub(CONTENT_BYTES_MAX + 1) {
            self.cut(more + 1);
            // Not in the middle of a character.
            let continues = |byte: &&u8| **byte & 0xc0 == 0x80;
            let rest = self.bytes.iter().take(3).take_while(continues).count();
            self.cut(rest);
        }
        Text {
            content: String::from_utf8_lossy(&self.bytes).into_owned(),
            omitted_bytes: self.omitted_bytes,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_text_the_end_is_there_and_the_rest_is_counted() {
        let mut tail = Tail::default();
        tail.push(b"short");
        let text = tail.text();
        assert_eq!((text.content.as_str(), text.omitted_bytes), ("short", 0));

        // Two bytes each, and one more, so that a cut by bytes is inside of a character.
        let mut long = "\u{e9}".repeat(3 * CONTENT_BYTES_MAX);
        long.push('.');
        let mut tail = Tail::default();
        for piece in long.as_bytes().chunks(100_001) {
            tail.push(piece);
        }
        let text = tail.text();
        assert!(long.ends_with(&text.content) && !text.content.contains('\u{fffd}'));
        assert!(CONTENT_BYTES_MAX - text.content.len() < 4);
        let omitted = usize::try_from(text.omitted_bytes).unwrap();
        assert_eq!(omitted + text.content.len(), long.len());
    }
}
