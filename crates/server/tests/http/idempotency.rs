//! `Idempotency-Key` against the real store.

use crate::support::{Reply, Server, request};
use axum::body::Body;
use crownest_api::Scope;

async fn create(server: &Server, secret: &str, key: &str, body: &str) -> Reply {
    let request = request(secret, "POST", "/v1/projects").header("idempotency-key", key);
    server
        .send(request.body(Body::from(body.to_owned())).unwrap())
        .await
}

#[tokio::test]
async fn the_same_request_is_carried_out_once() {
    let server = Server::start().await;
    let secret = &server.owner.secret;
    let first = create(&server, secret, "k1", r#"{"name":"a"}"#).await;
    assert_eq!(first.status, 201);
    let second = create(&server, secret, "k1", r#"{"name":"a"}"#).await;
    assert_eq!((second.status, &second.body), (first.status, &first.body));
    assert_eq!(second.headers["idempotent-replayed"], "true");
    assert_ne!(
        second.headers["x-request-id"],
        first.headers["x-request-id"]
    );
    let listed = server.owner("GET", "/v1/projects", "").await.json();
    assert_eq!(
        listed["data"].as_array().unwrap().len(),
        2,
        "the default one and one more"
    );
}

#[tokio::test]
async fn another_request_with_the_key_is_refused_and_another_credential_has_its_own_keys() {
    let server = Server::start().await;
    create(&server, &server.owner.secret, "k1", r#"{"name":"a"}"#).await;
    let other = create(&server, &server.owner.secret, "k1", r#"{"name":"b"}"#).await;
    assert_eq!(other.error(), (409, "idempotency_key_reused".into()));
    let credential = server.key(Scope::ALL, None).await;
    assert_eq!(
        create(&server, &credential, "k1", r#"{"name":"b"}"#)
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn of_many_at_once_one_is_carried_out() {
    let server = Server::start().await;
    let secret = &server.owner.secret;
    let tries = (0..16).map(|_| create(&server, secret, "k1", r#"{"name":"a"}"#));
    let replies = futures_util::future::join_all(tries).await;
    let made = replies.iter().filter(|reply| reply.status == 201).count();
    assert!(made >= 1);
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        assert_eq!(
            reply.error(),
            (409, "idempotency_request_in_progress".into())
        );
        assert_eq!(reply.json()["error"]["retryable"], true);
        assert_eq!(reply.json()["error"]["retryAfterMs"], 250);
    }
    let listed = server.owner("GET", "/v1/projects", "").await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_failure_that_may_pass_frees_the_key_and_a_final_refusal_is_kept() {
    let server = Server::start().await;
    let secret = &server.owner.secret;
    let sandbox = async |body: &'static str| {
        let request = request(secret, "POST", "/v1/sandboxes").header("idempotency-key", "k1");
        server.send(request.body(Body::from(body)).unwrap()).await
    };
    // The spawner is away: the same key may try again, and is no replay.
    for _ in 0..2 {
        let reply = sandbox("{}").await;
        assert_eq!(reply.error(), (503, "unavailable".into()));
    }
    let unknown = r#"{"projectId":"prj_unknown"}"#;
    let first = sandbox(unknown).await;
    assert_eq!(first.error(), (404, "not_found".into()));
    assert_eq!(sandbox(unknown).await.error(), (404, "not_found".into()));
    assert_eq!(
        sandbox("{}").await.error(),
        (409, "idempotency_key_reused".into())
    );
}

#[tokio::test]
async fn keys_have_a_length() {
    let server = Server::start().await;
    let secret = &server.owner.secret;
    for bad in [String::new(), "x".repeat(256)] {
        let reply = create(&server, secret, &bad, r#"{"name":"a"}"#).await;
        assert_eq!(reply.error(), (400, "invalid_request".into()));
    }
    assert_eq!(
        create(&server, secret, &"x".repeat(255), r#"{"name":"a"}"#)
            .await
            .status,
        201
    );
}
