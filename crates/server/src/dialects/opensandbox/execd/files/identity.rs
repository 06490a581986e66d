//! `/v1/filesystem/{uid}/{gid}/…`: files under an identity. Init acts on files as the sandbox's user
//! alone, so anybody else's is refused; a command can run as others and do the same.

use super::accounts::USER_ID;
use crate::app::App;
use crate::dialects::opensandbox::error::Refusal;
use axum::Router;
use axum::extract::{RawPathParams, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

pub(super) fn routes() -> Router<App> {
    super::routes().layer(from_fn(only_user))
}

async fn only_user(params: RawPathParams, request: Request, next: Next) -> Response {
    let is_user = |wanted: &str| {
        let mut values = params.iter().filter(|(name, _)| *name == wanted);
        values.all(|(_, value)| value.parse() == Ok(USER_ID))
    };
    if is_user("uid") && is_user("gid") {
        return next.run(request).await;
    }
    let message = format!("files are reached as uid {USER_ID} and gid {USER_ID} alone");
    Refusal::new(StatusCode::BAD_REQUEST, "NOT_SUPPORTED", message).into_response()
}
