//! The envelope: whatever goes wrong, a client can parse it.

use crate::support::Server;
use crownest_api::limits;

#[tokio::test]
async fn unknown_routes_and_methods() {
    let server = Server::start().await;
    assert_eq!(
        server.owner("GET", "/nope", "").await.error(),
        (404, "not_found".into())
    );
    assert_eq!(
        server.owner("GET", "/v1/sandboxes/", "").await.error().0,
        404
    );
    let reply = server.owner("PATCH", "/v1/sandboxes", "").await;
    assert_eq!(reply.error(), (405, "method_not_allowed".into()));
    assert!(reply.headers.contains_key("allow"), "{:?}", reply.headers);
}

#[tokio::test]
async fn malformed_bodies_name_the_field() {
    let server = Server::start().await;
    for (body, field) in [
        (r#"{"ttlMs":"soon"}"#, "ttlMs"),
        (r#"{"ttlMs":0}"#, "ttlMs"),
        (r#"{"metadata":{"a":{}}}"#, "metadata.a"),
        (r#"{"network":"full"}"#, "network"),
        (r#"{"resources":{"pids":1}}"#, "resources.pids"),
        (r#"{"env":{"A=B":"x"}}"#, "env"),
    ] {
        let reply = server.owner("POST", "/v1/sandboxes", body).await;
        assert_eq!(reply.error(), (400, "invalid_request".into()), "{body}");
        assert_eq!(reply.json()["error"]["details"]["field"], field, "{body}");
        assert_eq!(reply.json()["error"]["retryable"], false);
    }
    for body in ["{", "[]", "\"x\"", "{} {}", "\u{0}"] {
        let reply = server.owner("POST", "/v1/sandboxes", body).await;
        assert_eq!(reply.error(), (400, "invalid_request".into()), "{body}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_parsed() {
    let server = Server::start().await;
    let body = format!(r#"{{"name":"{}"}}"#, "x".repeat(limits::BODY_BYTES_MAX));
    let reply = server.owner("POST", "/v1/projects", &body).await;
    assert_eq!(reply.error(), (413, "request_too_large".into()));
}

#[tokio::test]
async fn a_machine_without_a_spawner_says_so_and_may_be_asked_again() {
    let server = Server::start().await;
    let reply = server
        .owner("POST", "/v1/sandboxes", r#"{"unknownField":1}"#)
        .await;
    assert_eq!(reply.error(), (503, "unavailable".into()));
    assert_eq!(reply.json()["error"]["retryable"], true);
    assert_eq!(reply.headers["retry-after"], "1");
}

#[tokio::test]
async fn bad_pages() {
    let server = Server::start().await;
    for query in ["limit=0", "limit=501", "limit=x", "cursor=%21"] {
        let reply = server
            .owner("GET", &format!("/v1/sandboxes?{query}"), "")
            .await;
        assert_eq!(reply.error(), (400, "invalid_request".into()), "{query}");
    }
    assert_eq!(
        server
            .owner("GET", "/v1/sandboxes?limit=500&cursor=", "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn probes_metrics_and_the_description_need_no_key() {
    let server = Server::start().await;
    for path in ["/healthz", "/readyz", "/openapi.json", "/metrics"] {
        assert_eq!(server.call("", "GET", path, "").await.status, 200, "{path}");
    }
    let description = server.call("", "GET", "/openapi.json", "").await;
    assert_eq!(
        description.headers["content-type"],
        "application/vnd.oai.openapi+json; charset=utf-8"
    );
    let metrics = server.call("", "GET", "/metrics", "").await;
    let text = String::from_utf8(metrics.body).unwrap();
    let line = "crownest_http_requests_total{method=\"GET\",route=\"/healthz\",status=\"200\"} 1";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("crownest_pool_ready 0"), "{text}");
}
