//! Credentials: accepted in two headers, refused with the right code, revoked at once.

use crate::support::{Server, request};
use axum::body::Body;
use axum::http::Request;
use crownest_api::Scope;
use crownest_server::bootstrap;

#[tokio::test]
async fn both_headers_carry_a_key() {
    let server = Server::start().await;
    let key = &server.owner.secret;
    assert_eq!(server.owner("GET", "/v1/projects", "").await.status, 200);
    let request = Request::get("/v1/projects").header("x-api-key", key);
    assert_eq!(
        server
            .send(request.body(Body::empty()).unwrap())
            .await
            .status,
        200
    );
    let lower = Request::get("/v1/projects").header("authorization", format!("bearer {key}"));
    assert_eq!(
        server.send(lower.body(Body::empty()).unwrap()).await.status,
        200
    );
}

#[tokio::test]
async fn no_key_and_a_wrong_key_are_told_apart_and_challenged() {
    let server = Server::start().await;
    let none = Request::get("/v1/projects").header("host", "crow.example:8080");
    let reply = server.send(none.body(Body::empty()).unwrap()).await;
    assert_eq!(reply.error(), (401, "unauthorized".into()));
    assert_eq!(
        reply.headers["www-authenticate"],
        "Bearer resource_metadata=\"http://crow.example:8080/.well-known/oauth-protected-resource\""
    );
    let unknown = format!("cn_live_{}", "a".repeat(52));
    for bad in [
        "",
        "x",
        "cn_live_",
        "cn_live_\u{e9}",
        "sk-123",
        unknown.as_str(),
    ] {
        let reply = server.call(bad, "GET", "/v1/projects", "").await;
        assert_eq!(reply.error(), (401, "invalid_api_key".into()), "{bad:?}");
        assert!(reply.headers.contains_key("www-authenticate"));
    }
    let basic = Request::get("/v1/projects").header("authorization", "Basic YTpi");
    let reply = server.send(basic.body(Body::empty()).unwrap()).await;
    assert_eq!(reply.error(), (401, "invalid_api_key".into()));
}

#[tokio::test]
async fn a_revoked_key_stops_working_at_once() {
    let server = Server::start().await;
    let secret = server.key(&[Scope::UsageRead], None).await;
    assert_eq!(
        server.call(&secret, "GET", "/v1/usage", "").await.status,
        200
    );
    let listed = server.owner("GET", "/v1/api-keys", "").await.json();
    let id = listed["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed["data"][0]["last4"], secret[secret.len() - 4..]);
    assert!(
        !listed.to_string().contains(&secret),
        "a list shows no secret"
    );

    let revoked = server
        .owner("DELETE", &format!("/v1/api-keys/{id}"), "")
        .await;
    assert_eq!(revoked.status, 200);
    let at = revoked.json()["apiKey"]["revokedAt"].clone();
    assert!(at.is_string());
    let reply = server.call(&secret, "GET", "/v1/usage", "").await;
    assert_eq!(reply.error(), (401, "invalid_api_key".into()));
    let again = server
        .owner("DELETE", &format!("/v1/api-keys/{id}"), "")
        .await;
    assert_eq!(again.json()["apiKey"]["revokedAt"], at);
}

#[tokio::test]
async fn a_key_restricted_to_a_project_sees_no_other() {
    let server = Server::start().await;
    let made = server
        .owner("POST", "/v1/projects", r#"{"name":"mine"}"#)
        .await;
    assert_eq!(made.status, 201);
    let mine = made.json()["project"]["id"].as_str().unwrap().to_owned();
    let key = server
        .key(Scope::ALL, Some(std::slice::from_ref(&mine)))
        .await;
    let seen = server.call(&key, "GET", "/v1/projects", "").await.json();
    assert_eq!(seen["data"].as_array().unwrap().len(), 1);
    assert_eq!(seen["data"][0]["id"], mine.as_str());
    assert_eq!(seen["hasMore"], false);
    assert!(seen.get("nextCursor").is_none());

    let body = format!(r#"{{"projectId":"{}"}}"#, server.owner.project_id);
    let reply = server.call(&key, "POST", "/v1/sandboxes", &body).await;
    assert_eq!(reply.error(), (403, "forbidden".into()));
}

#[tokio::test]
async fn the_first_start_makes_one_key_and_the_second_none() {
    let server = Server::start().await;
    assert_eq!(bootstrap(&server.store).await.unwrap(), None);
    let debug = format!("{:?}", server.owner);
    assert!(!debug.contains(&server.owner.secret), "{debug}");
}

#[tokio::test]
async fn request_ids_are_kept_when_harmless() {
    let server = Server::start().await;
    let key = server.owner.secret.clone();
    let send = async |id: &str| {
        let request = request(&key, "GET", "/v1/projects").header("x-request-id", id);
        server
            .send(request.body(Body::empty()).unwrap())
            .await
            .headers["x-request-id"]
            .clone()
    };
    assert_eq!(send("trace-1.a_B").await, "trace-1.a_B");
    assert!(send("a b").await.to_str().unwrap().starts_with("req_"));
}
