//! Every route asks for the scope that its description names.

use crate::support::Server;
use crownest_api::Scope;
use serde_json::Value;

struct Operation {
    method: String,
    path: String,
    /// The first one is asked for by the route itself, the others may come later.
    scopes: Vec<Scope>,
}

/// The guarded operations as `/openapi.json` tells them.
async fn operations(server: &Server) -> Vec<Operation> {
    let description = server.call("", "GET", "/openapi.json", "").await.json();
    let mut found = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let bearer = |way: &Value| way.get("bearer").cloned();
            let ways = operation["security"].as_array().unwrap();
            let Some(scopes) = ways.iter().find_map(bearer) else {
                continue;
            };
            let scope = |scope: &Value| scope.as_str().unwrap().parse().unwrap();
            let scopes = scopes.as_array().unwrap().iter().map(scope).collect();
            // Ids of nothing: whatever has a name in braces.
            let place = |part: &str| if part.starts_with('{') { "x_0" } else { part }.to_owned();
            let path = path.split('/').map(place).collect::<Vec<_>>().join("/");
            assert!(!path.contains('{'), "{path}");
            found.push(Operation {
                method: method.to_uppercase(),
                path,
                scopes,
            });
        }
    }
    found
}

#[tokio::test]
async fn every_route_refuses_a_key_without_its_scope_and_no_key() {
    let server = Server::start().await;
    let operations = operations(&server).await;
    assert!(operations.len() >= 25, "{} operations", operations.len());
    let mut unguarded = 0;
    for operation in &operations {
        let Operation {
            method,
            path,
            scopes,
        } = operation;
        let reply = server.call("nothing", method, path, "").await;
        assert_eq!(
            reply.error(),
            (401, "invalid_api_key".into()),
            "{method} {path}"
        );
        let Some(scope) = scopes.first() else {
            unguarded += 1;
            continue;
        };
        let others: Vec<Scope> = Scope::ALL.iter().copied().filter(|s| s != scope).collect();
        let without = server.key(&others, None).await;
        // A body that is no JSON: the scope is asked for before the body is looked at.
        let reply = server.call(&without, method, path, "{").await;
        assert_eq!(reply.error(), (403, "forbidden".into()), "{method} {path}");
        assert_eq!(reply.json()["error"]["details"]["scope"], scope.as_str());

        let only = server.key(scopes, None).await;
        let reply = server.call(&only, method, path, "").await;
        assert_ne!(reply.status, 403, "{method} {path} with {scope}");
        assert_ne!(reply.status, 401, "{method} {path} with {scope}");
    }
    assert_eq!(unguarded, 1, "only the list of projects asks for no scope");
}

#[tokio::test]
async fn refusals_are_audited() {
    let server = Server::start().await;
    let key = server.key(&[Scope::UsageRead], None).await;
    server.call(&key, "DELETE", "/v1/sandboxes/sbx_0", "").await;
    let filter = crownest_store::AuditFilter {
        action: Some("request.refuse"),
        ..Default::default()
    };
    let page = crownest_store::PageRequest::default();
    let found = loop {
        let found = server
            .store
            .audit_events(&server.owner.org_id, &filter, &page)
            .await
            .unwrap();
        if !found.rows.is_empty() {
            break found;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(found.rows[0].resource_id, "/v1/sandboxes/{sandboxId}");
    assert_eq!(found.rows[0].details, r#"{"scope":"sandbox:kill"}"#);
}
