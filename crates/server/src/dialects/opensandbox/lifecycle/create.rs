//! `POST /sandboxes`

use super::entrypoint;
use super::record::{self, Note};
use super::request::CreateBody;
use super::snapshots;
use crate::app::App;
use crate::auth::{Caller, Principal};
use crate::creation::{Creation, check_ttl};
use crate::dialects::opensandbox::environment;
use crate::dialects::opensandbox::error::Failure;
use crate::error::{ApiError, ApiResult};
use crate::extract::JsonBody;
use crate::idempotency::{AfterRestart, Answer, IdempotencyKey};
use crate::request::RequestContext;
use axum::Router;
use axum::body::Body;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::post;
use crownest_api::sandbox::{DestroyedReason, SandboxStatus};
use crownest_api::{ErrorCode, IdKind, Scope, new_id};
use http_body_util::BodyExt;
use serde::Deserialize;
use std::sync::Arc;

/// A creation, and the command that its entrypoint is.
struct Making {
    creation: Creation,
    entrypoint: Option<crate::commands::CheckedCommand>,
}

pub(super) fn router() -> Router<App> {
    Router::new().route("/sandboxes", post(create))
}

/// Makes a sandbox. It can be used when this answers, whatever the status says.
async fn create(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxCreate as u8 }>,
    key: IdempotencyKey,
    OriginalUri(uri): OriginalUri,
    body: JsonBody<CreateBody>,
) -> Result<Response, Failure> {
    let making = check(&app, &caller, body.value).await?;
    let (worker, who) = (app.clone(), Arc::clone(&caller.principal));
    let request = caller.request.clone();
    let work = async move {
        let app = worker.clone();
        let work = async move { make(&app, &who, &request, making).await };
        let sandbox = worker.finish_anyway(work).await?;
        Answer::json(StatusCode::ACCEPTED, &sandbox)
    };
    let response = app
        .idempotent(&key, &caller, &body.raw, AfterRestart::Repeat, work)
        .await?;
    Ok(with_location(response, &uri).await?)
}

async fn check(app: &App, who: &Principal, body: CreateBody) -> Result<Making, Failure> {
    body.check()?;
    let asked = body.creation(environment::of_every_sandbox())?;
    let mut creation = app.check_creation(who, asked)?;
    creation.ttl_ms = ttl_ms(app, who, body.timeout)?;
    if let Some(id) = &body.snapshot_id {
        who.require(Scope::ArtifactRead)?;
        let from = app.creation_from_snapshot(who, creation, id).await;
        creation = from.map_err(snapshots::failure)?;
    }
    if let Some(policy) = body.network_policy {
        let rules = policy.rules();
        rules.check().map_err(ApiError::from)?;
        creation.egress = Some(rules);
    }
    creation.id_variable = Some(environment::ID);

    // With a snapshot it may be left out.
    let waits = || entrypoint::DEFAULT.map(str::to_owned).to_vec();
    let argv = body.entrypoint.unwrap_or_else(waits);
    let mut command_id = None;
    let entrypoint = if entrypoint::only_waits(&argv) {
        None
    } else {
        who.require(Scope::CommandRun)?;
        let id = new_id(IdKind::Command);
        command_id = Some(id.clone());
        Some(entrypoint::command(&argv, who)?.with_id(id))
    };
    let note = Note {
        image: body.image.map(|image| image.uri),
        snapshot_id: body.snapshot_id,
        entrypoint: argv,
        command_id,
        platform: body.platform,
        extensions: body.extensions.unwrap_or_default(),
    };
    creation.dialect = Some(serde_json::to_value(&note).map_err(ApiError::internal)?);
    Ok(Making {
        creation,
        entrypoint,
    })
}

/// How long it lives. In this dialect the time at creation may be as long as one that an extension
/// sets; without one it is the longest there is, since nothing here lives for ever.
fn ttl_ms(app: &App, who: &Principal, timeout: Option<u64>) -> ApiResult<u64> {
    let plan = who.plan.limits(&app.config);
    let max = plan.extend_ttl_max_ms.min(plan.session_ttl_max_ms);
    let Some(seconds) = timeout else {
        return Ok(max);
    };
    let ttl_ms = seconds.saturating_mul(1_000);
    check_ttl(ttl_ms, max).map_err(|error| match error.code {
        ErrorCode::SandboxTtlExceeded => {
            let message = format!("timeout is at most {} seconds", max / 1_000);
            ApiError::new(error.code, message)
        }
        _ => error,
    })?;
    Ok(ttl_ms)
}

async fn make(
    app: &App,
    who: &Arc<Principal>,
    request: &RequestContext,
    making: Making,
) -> ApiResult<record::Sandbox> {
    let made = app.create_sandbox(who, request, making.creation).await?;
    let live = app.live_sandbox(who, &made.id).await?;
    if let Some(command) = making.entrypoint
        && let Err(error) = app.start_background(who, request, &live, command).await
    {
        // What was asked for is not there, and nobody would know its id.
        let reason = DestroyedReason::PlatformCleanup;
        app.end(&live, SandboxStatus::Failed, reason).await;
        return Err(error);
    }
    let row = live.row().clone();
    Ok(record::Sandbox {
        image: None,
        snapshot_id: None,
        ..record::wire(app, &row)
    })
}

/// Names the new sandbox, also when the answer is a stored one.
async fn with_location(response: Response, uri: &Uri) -> ApiResult<Response> {
    #[derive(Deserialize)]
    struct Made {
        id: String,
    }
    let (mut head, body) = response.into_parts();
    let body = body.collect().await.map_err(ApiError::internal)?.to_bytes();
    if let Ok(made) = serde_json::from_slice::<Made>(&body) {
        let location = format!("{}/{}", uri.path().trim_end_matches('/'), made.id);
        if let Ok(location) = HeaderValue::from_str(&location) {
            head.headers.insert(header::LOCATION, location);
        }
    }
    Ok(Response::from_parts(head, Body::from(body)))
}
