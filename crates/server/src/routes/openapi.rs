//! The description of the API, made from the routes themselves.
//!
//! What every operation has in common (error answers, the request id, the two ways to send a key)
//! is added here once instead of at every route.

use crate::app::App;
use axum::Router;
use axum::http::header;
use axum::routing::get;
use bytes::Bytes;
use crownest_api::limits;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

const CONTENT_TYPE: &str = "application/vnd.oai.openapi+json; charset=utf-8";

/// Error answers of every guarded operation.
const ERRORS: [(&str, &str); 11] = [
    ("400", "A malformed or invalid request"),
    ("401", "No valid API key"),
    ("402", "The credit of the organization's plan is used up"),
    (
        "403",
        "The key lacks the scope, or may not touch the project",
    ),
    ("404", "No such resource for this key"),
    ("409", "A conflict, for instance over an Idempotency-Key"),
    ("410", "It existed, and is gone: a destroyed sandbox"),
    ("413", "Larger than is taken"),
    ("429", "A quota or rate limit"),
    ("500", "A fault of the server"),
    ("503", "The server cannot do it now"),
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "CrowNest",
        version = "1",
        description = "Isolated Linux sandboxes for code that a model wrote: create one, run code \
            and commands in it, move files, read what came of it.\n\nOptional fields are omitted, \
            never null. Unknown request fields are tolerated. Fields described as *Extension* are \
            CrowNest's own additions to the public contract.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "sandboxes", description = "Isolated environments with a `/workspace` and a time to live"),
        (name = "code", description = "Interpreter contexts that keep state, and runs in them"),
        (name = "commands", description = "Shell processes with an exit code"),
        (name = "files", description = "Files in `/workspace`: small ones in JSON, others by URLs"),
        (name = "artifacts", description = "Files that are kept after their sandbox has ended"),
        (name = "snapshots", description = "Extension: files of sandboxes, kept for sandboxes to come"),
        (name = "previews", description = "Ports of a sandbox under host names of their own"),
        (name = "projects", description = "What sandboxes and keys belong to"),
        (name = "api-keys", description = "Keys, without their secrets"),
        (name = "usage", description = "What was used"),
        (name = "audit-events", description = "Who did what"),
        (name = "agents", description = "Agents that register by themselves, and their tokens"),
        (name = "discovery", description = "Documents for programs that know nothing but this address"),
        (name = "health", description = "Probes")
    ),
    components(schemas(crownest_api::ErrorEnvelope, crownest_api::Scope))
)]
struct Description;

/// The description without routes.
pub(super) fn base() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// Serves the finished description.
pub(super) fn router(description: &utoipa::openapi::OpenApi) -> Router<App> {
    let document = finish(description);
    let bytes = Bytes::from(document.to_string());
    let serve = move || async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], bytes) };
    Router::new().route("/openapi.json", get(serve))
}

fn finish(description: &utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(description).unwrap_or_default();
    document["components"]["securitySchemes"] = json!({
        "bearer": { "type": "http", "scheme": "bearer", "description": "`cn_live_…`" },
        "apiKey": { "type": "apiKey", "in": "header", "name": "x-api-key" },
    });
    drop_nulls(&mut document);
    let paths = document["paths"].as_object_mut();
    let operations = paths
        .into_iter()
        .flatten()
        .filter_map(|(_, path)| path.as_object_mut());
    for operation in operations.flat_map(Map::values_mut) {
        if is_guarded(operation) {
            add_errors(operation);
        }
        bound_parameters(operation);
        add_descriptions(operation);
    }
    document
}

fn is_guarded(operation: &Value) -> bool {
    operation["security"]
        .as_array()
        .is_some_and(|ways| ways.iter().any(|way| way.get("bearer").is_some()))
}

fn add_errors(operation: &mut Value) {
    let Some(responses) = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    for (status, description) in ERRORS {
        responses.entry(status).or_insert_with(|| {
            json!({
                "description": description,
                "headers": { "x-request-id": { "schema": { "type": "string" } } },
                "content": { "application/json": {
                    "schema": { "$ref": "#/components/schemas/ErrorEnvelope" }
                } },
            })
        });
    }
}

/// Bounds of parameters that many operations have.
fn bound_parameters(operation: &mut Value) {
    let parameters = operation
        .get_mut("parameters")
        .and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let bounds = match parameter["name"].as_str() {
            Some("Idempotency-Key") => json!({
                "type": "string", "minLength": 1, "maxLength": limits::IDEMPOTENCY_KEY_BYTES_MAX,
                "pattern": "^[\\t -~]+$",
            }),
            Some("cursor") => json!({
                "type": "string", "maxLength": limits::CURSOR_BYTES_MAX,
                "pattern": "^[A-Za-z0-9_-]*$",
            }),
            _ => continue,
        };
        parameter["schema"] = bounds;
    }
}

/// Every answer must have a description; those that say nothing special say what their status says.
fn add_descriptions(operation: &mut Value) {
    let responses = operation["responses"].as_object_mut();
    for (status, response) in responses.into_iter().flatten() {
        let text = match status.as_str() {
            "200" => "Done",
            "201" => "Made",
            "202" => "Accepted",
            status => ERRORS
                .iter()
                .find(|(error, _)| *error == status)
                .map_or("An error", |(_, text)| text),
        };
        if response.get("description").is_none() {
            response["description"] = json!(text);
        }
    }
}

/// An absent value is left out, never null: the description must not say otherwise.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| name != "default" || !value.is_null());
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = &types[..] {
                    map["type"] = only.clone();
                }
            }
            if let Some(Value::Array(options)) = map.get_mut("oneOf") {
                options.retain(|option| option != &json!({ "type": "null" }));
                if let [Value::Object(only)] = &options[..] {
                    let only = only.clone();
                    map.remove("oneOf");
                    map.extend(only);
                }
            }
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OAUTH: [&str; 10] = [
        "Bootstrap",
        "Claim",
        "ClaimAnswer",
        "ClaimRequest",
        "IdentityAnswer",
        "IdentityRequest",
        "OAuthError",
        "RevokeRequest",
        "TokenAnswer",
        "TokenRequest",
    ];

    #[test]
    fn nothing_is_said_to_be_null_and_every_reference_leads_somewhere() {
        let (_, description) = super::super::described().split_for_parts();
        let document = finish(&description);
        let text = document.to_string();
        assert!(
            !text.contains(":null") && !text.contains("\"null\""),
            "{text}"
        );
        // Names as they are on the wire: the generator does not know every attribute of serde.
        // Agents speak OAuth, whose names are in snake case.
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let ours = schemas
            .iter()
            .filter(|(name, _)| !OAUTH.contains(&name.as_str()));
        for (schema, description) in ours {
            let properties = description["properties"].as_object();
            for name in properties.into_iter().flat_map(Map::keys) {
                assert!(
                    !name.contains('_') || name.starts_with('_'),
                    "{schema}.{name}"
                );
            }
        }
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                assert!(operation["operationId"].is_string(), "{method} {path}");
                for (status, response) in operation["responses"].as_object().unwrap() {
                    assert!(
                        response["description"].is_string(),
                        "{method} {path} {status}"
                    );
                }
            }
        }
        for reference in text.split("\"$ref\":\"#/").skip(1) {
            let pointer = format!("/{}", reference.split('"').next().unwrap());
            assert!(document.pointer(&pointer).is_some(), "{pointer}");
        }
    }
}
