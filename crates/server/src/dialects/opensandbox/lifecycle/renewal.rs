//! `POST /sandboxes/{sandboxId}/renew-expiration`

use crate::app::App;
use crate::auth::{Caller, Principal};
use crate::dialects::opensandbox::error::{Failure, Refusal};
use crate::extract::{JsonBody, PathArgs};
use crate::lifecycle::deed;
use crate::sandboxes::LiveSandbox;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use crownest_api::{Scope, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Between the reckoning of a life's rest and its check.
const LIFE_MARGIN_MS: u64 = 1_000;

pub(super) fn router() -> Router<App> {
    Router::new().route("/sandboxes/{sandboxId}/renew-expiration", post(renew))
}

/// The new end of a sandbox, in both directions.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expiration {
    expires_at: Timestamp,
}

/// Gives a live sandbox a new end.
async fn renew(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxExtend as u8 }>,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<Expiration>,
) -> Result<Json<Expiration>, Failure> {
    let live = app.kept_sandbox(&caller, &id).await?;
    let ttl_ms = Timestamp::now().millis_until(body.value.expires_at);
    if ttl_ms == 0 {
        let message = "expiresAt must be in the future";
        let (status, code) = (StatusCode::BAD_REQUEST, "SANDBOX::INVALID_EXPIRATION");
        return Err(Refusal::new(status, code, message).into());
    }
    let ttl_ms = within_life(&app, &caller, &live, ttl_ms);
    let sandbox = app.extend_sandbox(&caller, &live, ttl_ms).await?;
    let deed = deed("sandbox.extend", &live, "ok");
    let details = json!({ "ttlMs": ttl_ms });
    app.audit.by_key(&caller, &caller.request, deed, &details);
    Ok(Json(Expiration {
        expires_at: sandbox.expires_at,
    }))
}

/// Who asks for a whole life after a part of it gets what is left, and reads in the answer until
/// when: pools of the clients renew so. More than a life is refused by what comes next.
fn within_life(app: &App, who: &Principal, live: &LiveSandbox, ttl_ms: u64) -> u64 {
    let life_ms = who.plan.limits(&app.config).session_ttl_max_ms;
    let born = Timestamp::from_millis(live.row().created_at / 1_000);
    let age_ms = born.millis_until(Timestamp::now());
    if ttl_ms > life_ms {
        return ttl_ms;
    }
    // The age is taken again when it is checked.
    ttl_ms.min(life_ms.saturating_sub(age_ms + LIFE_MARGIN_MS))
}
