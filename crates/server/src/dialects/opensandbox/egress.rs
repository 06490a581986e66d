//! The egress API, under port 18080 and at a sandbox's `networkpolicy`: the rules of its way out,
//! in this dialect's words.

use super::error::{Failure, Refusal};
use super::lifecycle::not_built;
use super::network::{self, NetworkPolicy, NetworkRule};
use crate::app::App;
use crate::auth::Caller;
use crate::egress::SandboxRules;
use crate::error::{ApiError, ApiResult};
use crate::extract::{JsonBody, PathArgs, read_body};
use crate::lifecycle::deed;
use axum::extract::{FromRequest, Request, State};
use axum::routing::{any, get};
use axum::{Json, Router};
use crownest_api::{ErrorCode, Scope};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Longest piece of a parser's message that goes back to a client.
const PARSER_MESSAGE_CHARS_MAX: usize = 200;

/// Who may make a sandbox with any policy may change that of one.
type Changer = Caller<{ Scope::SandboxCreate as u8 }>;

/// Routes below `/sandboxes/{sandboxId}/proxy/18080`.
pub(super) fn router() -> Router<App> {
    let policy = get(read).patch(patch).delete(remove).post(replace);
    Router::new()
        .route("/policy", policy)
        .route("/credential-vault", any(no_vault))
        .route("/credential-vault/{*rest}", any(no_vault))
}

/// The same, among the routes of the lifecycle API.
pub(super) fn policy_router() -> Router<App> {
    let policy = get(read).patch(patch).delete(remove).put(replace);
    Router::new().route("/sandboxes/{sandboxId}/networkpolicy", policy)
}

/// The policy that holds now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyStatus {
    status: &'static str,
    mode: &'static str,
    enforcement_mode: &'static str,
    policy: NetworkPolicy,
}

impl PolicyStatus {
    fn of(rules: &SandboxRules) -> Json<Self> {
        Json(Self {
            status: "ok",
            mode: network::mode(rules),
            // Every connection goes through a proxy, by the name that was asked for.
            enforcement_mode: "proxy",
            policy: NetworkPolicy::of(rules),
        })
    }
}

/// A list as a body.
struct ListBody<T>(Vec<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ListBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> ApiResult<Self> {
        let raw = read_body(request).await?;
        serde_json::from_slice(&raw).map(Self).map_err(|error| {
            let message = error.to_string();
            let message: String = message.chars().take(PARSER_MESSAGE_CHARS_MAX).collect();
            ApiError::new(
                ErrorCode::InvalidRequest,
                format!("invalid JSON body: {message}"),
            )
        })
    }
}

async fn read(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxRead as u8 }>,
    PathArgs(id): PathArgs<String>,
) -> ApiResult<Json<PolicyStatus>> {
    let live = app.kept_sandbox(&caller, &id).await?;
    Ok(PolicyStatus::of(&app.egress_rules(&live)))
}

async fn patch(
    State(app): State<App>,
    caller: Changer,
    PathArgs(id): PathArgs<String>,
    ListBody(rules): ListBody<NetworkRule>,
) -> ApiResult<Json<PolicyStatus>> {
    change(&app, &caller, &id, |known| network::merge(known, rules)).await
}

async fn remove(
    State(app): State<App>,
    caller: Changer,
    PathArgs(id): PathArgs<String>,
    ListBody(targets): ListBody<String>,
) -> ApiResult<Json<PolicyStatus>> {
    change(&app, &caller, &id, |known| network::remove(known, &targets)).await
}

async fn replace(
    State(app): State<App>,
    caller: Changer,
    PathArgs(id): PathArgs<String>,
    body: JsonBody<NetworkPolicy>,
) -> ApiResult<Json<PolicyStatus>> {
    change(&app, &caller, &id, |known| *known = body.value.rules()).await
}

async fn change(
    app: &App,
    caller: &Changer,
    id: &str,
    change: impl FnOnce(&mut SandboxRules) + Send,
) -> ApiResult<Json<PolicyStatus>> {
    let live = app.kept_sandbox(caller, id).await?;
    let rules = app.change_egress_rules(&live, change).await?;
    let deed = deed("sandbox.egress", &live, "ok");
    let details = json!({ "mode": network::mode(&rules), "rules": rules.rules.len() });
    app.audit.by_key(caller, &caller.request, deed, &details);
    Ok(PolicyStatus::of(&rules))
}

/// Credentials that are put into requests on their way out.
async fn no_vault(_caller: Caller<{ Scope::SandboxRead as u8 }>) -> Failure {
    let refusal: Refusal = not_built("the credential vault");
    refusal.into()
}
