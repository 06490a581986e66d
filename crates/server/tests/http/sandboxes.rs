//! Sandboxes that are refused, ended, or of other tenants.

use crate::support::Server;
use crownest_api::limits;
use crownest_store::{Sandbox, SandboxStatus};
use std::collections::BTreeMap;

/// A row as an ended sandbox leaves it.
async fn tombstone(server: &Server, id: &str, org_id: &str, project_id: &str, created_at: i64) {
    let row = Sandbox {
        id: id.into(),
        org_id: org_id.into(),
        project_id: project_id.into(),
        node_id: "node_test".into(),
        status: SandboxStatus::Destroyed,
        template_slug: "python".into(),
        template_id: "tpl_python".into(),
        template_version: "1.0.0".into(),
        template_version_id: "tplv_test".into(),
        ttl_ms: 1_000,
        created_at,
        ready_at: Some(created_at),
        expires_at: created_at + 1_000_000,
        destroyed_at: Some(created_at + 500_000),
        destroyed_reason: Some("user_killed".into()),
        metadata: BTreeMap::from([("agent.id".into(), id.into())]),
        runtime: None,
        network_mode: "proxy".into(),
        created_by: server.owner.key_id.clone(),
    };
    server.store.insert_sandbox(&row).await.unwrap();
}

#[tokio::test]
async fn requests_that_can_never_work_are_refused_with_their_own_codes() {
    let server = Server::start_with(|config| config.sandboxes_per_org_max = Some(0)).await;
    let many = (0..17)
        .map(|n| format!(r#""{n}":"x""#))
        .collect::<Vec<_>>()
        .join(",");
    for (body, expected) in [
        (
            format!(r#"{{"ttlMs":{}}}"#, limits::SANDBOX_TTL_MAX_MS + 1),
            (400, "sandbox_ttl_exceeded"),
        ),
        (
            r#"{"env":{"CROWNEST_TOKEN":"x"}}"#.into(),
            (400, "reserved_env_key"),
        ),
        (
            r#"{"metadata":{"":"x"}}"#.into(),
            (400, "invalid_metadata_key"),
        ),
        (
            format!(r#"{{"metadata":{{"a":"{}"}}}}"#, "x".repeat(513)),
            (400, "invalid_metadata_value"),
        ),
        (
            format!(r#"{{"metadata":{{{many}}}}}"#),
            (400, "metadata_too_many_keys"),
        ),
        (
            r#"{"restoreFrom":"bkp_1"}"#.into(),
            (403, "feature_not_enabled"),
        ),
        (
            r#"{"template":"python-node"}"#.into(),
            (400, "invalid_request"),
        ),
        (r#"{"template":"base"}"#.into(), (409, "template_not_built")),
        (r#"{"projectId":"prj_other"}"#.into(), (404, "not_found")),
        ("{}".into(), (429, "quota_exceeded")),
    ] {
        let reply = server.owner("POST", "/v1/sandboxes", &body).await;
        assert_eq!(reply.error(), (expected.0, expected.1.to_owned()), "{body}");
    }
    let unknown = server
        .owner("POST", "/v1/sandboxes", r#"{"template":"node"}"#)
        .await
        .json();
    assert_eq!(unknown["error"]["details"]["templates"][0], "python");
    let unbuilt = server
        .owner("POST", "/v1/sandboxes", r#"{"template":"base"}"#)
        .await
        .json();
    assert_eq!(
        unbuilt["error"]["details"]["command"],
        "crownest template build base"
    );
    let full = server.owner("POST", "/v1/sandboxes", "").await.json();
    assert_eq!(full["error"]["details"]["limit"], 0);
}

#[tokio::test]
async fn an_ended_sandbox_can_be_read_and_not_used() {
    let server = Server::start().await;
    let (org, project) = (server.owner.org_id.clone(), server.owner.project_id.clone());
    tombstone(&server, "sbx_old", &org, &project, 1_780_000_000_000_000).await;
    let sandbox = server
        .owner("GET", "/v1/sandboxes/sbx_old", "")
        .await
        .json();
    let sandbox = &sandbox["sandbox"];
    assert_eq!(sandbox["status"], "destroyed");
    assert_eq!(sandbox["destroyedReason"], "user_killed");
    assert_eq!(sandbox["createdAt"], "2026-05-28T20:26:40.000Z");
    assert_eq!(sandbox["destroyedAt"], "2026-05-28T20:26:40.500Z");
    let again = server.owner("DELETE", "/v1/sandboxes/sbx_old", "").await;
    assert_eq!(
        (again.status.as_u16(), &again.json()["sandbox"]),
        (200, sandbox)
    );

    let code = r#"{"code":"1","language":"python"}"#;
    for (method, path, body) in [
        ("POST", "code/runs", code),
        ("POST", "code/runs/stream", code),
        ("POST", "code/contexts", r#"{"language":"python"}"#),
        ("GET", "code/contexts", ""),
        ("GET", "code/contexts/cctx_1", ""),
        ("DELETE", "code/contexts/cctx_1", ""),
        ("POST", "code/contexts/cctx_1/interrupt", ""),
        ("POST", "commands", r#"{"command":"true"}"#),
        ("POST", "commands/run", r#"{"command":"true"}"#),
        ("POST", "commands/start", r#"{"command":"true"}"#),
        ("POST", "extend", r#"{"ttlMs":1000}"#),
        ("POST", "ttl", r#"{"ttlMs":1000}"#),
        ("GET", "files", ""),
        ("GET", "files/stat?path=a", ""),
        ("GET", "files/read?path=a", ""),
        ("PUT", "files", r#"{"path":"a","content":""}"#),
        ("DELETE", "files?path=a", ""),
        ("POST", "files/mkdir", r#"{"path":"a"}"#),
        ("POST", "files/move", r#"{"from":"a","to":"b"}"#),
    ] {
        let reply = server
            .owner(method, &format!("/v1/sandboxes/sbx_old/{path}"), body)
            .await;
        assert_eq!(
            reply.error(),
            (410, "sandbox_destroyed".into()),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn sandboxes_of_others_do_not_exist() {
    let server = Server::start().await;
    let organization = crownest_store::Organization {
        id: "org_other".into(),
        name: "other".into(),
        created_at: 1,
        plan: None,
    };
    let project = crownest_store::Project {
        id: "prj_other".into(),
        org_id: "org_other".into(),
        name: "other".into(),
        is_default: true,
        created_at: 1,
    };
    server
        .store
        .insert_organization(&organization, &project)
        .await
        .unwrap();
    tombstone(&server, "sbx_theirs", "org_other", "prj_other", 1).await;
    for path in ["sbx_theirs", "sbx_none", "cmd_1", "sbx_%2e%2e"] {
        for method in ["GET", "DELETE"] {
            let reply = server
                .owner(method, &format!("/v1/sandboxes/{path}"), "")
                .await;
            assert_eq!(reply.error(), (404, "not_found".into()), "{method} {path}");
            assert_eq!(reply.json()["error"]["message"], "no such sandbox");
        }
        let run = r#"{"code":"1","language":"python"}"#;
        let reply = server
            .owner("POST", &format!("/v1/sandboxes/{path}/code/runs"), run)
            .await;
        assert_eq!(reply.error(), (404, "not_found".into()));
    }
}

#[tokio::test]
async fn lists_are_live_only_unless_history_is_asked_for_and_filters_are_exact() {
    let server = Server::start().await;
    let (org, project) = (server.owner.org_id.clone(), server.owner.project_id.clone());
    for n in 0..3 {
        tombstone(&server, &format!("sbx_{n}"), &org, &project, 1_000_000 + n).await;
    }
    let live = server.owner("GET", "/v1/sandboxes", "").await.json();
    assert_eq!(live["data"].as_array().unwrap().len(), 0);
    let first = server
        .owner("GET", "/v1/sandboxes?include=historical&limit=2", "")
        .await
        .json();
    assert_eq!(first["data"][0]["id"], "sbx_2");
    assert_eq!(first["hasMore"], true);
    let cursor = first["nextCursor"].as_str().unwrap();
    let rest = format!("/v1/sandboxes?include=historical&limit=2&cursor={cursor}");
    let rest = server.owner("GET", &rest, "").await.json();
    assert_eq!(rest["data"][0]["id"], "sbx_0");
    assert_eq!(rest["hasMore"], false);
    let one = "/v1/sandboxes?include=historical&metadata.agent.id=sbx_1";
    let one = server.owner("GET", one, "").await.json();
    assert_eq!(one["data"].as_array().unwrap().len(), 1);
    assert_eq!(one["data"][0]["id"], "sbx_1");
}

#[tokio::test]
async fn runs_and_files_are_checked_before_anything_is_looked_up() {
    let server = Server::start().await;
    let big = "x".repeat(limits::CODE_SOURCE_BYTES_MAX + 1);
    let data = "x".repeat(limits::FILE_DIRECT_BYTES_MAX + 1);
    for (method, path, body, expected) in [
        (
            "POST",
            "code/runs",
            format!(r#"{{"code":"{big}","language":"python"}}"#),
            (413, "code_source_too_large"),
        ),
        (
            "POST",
            "code/runs",
            r#"{"code":"1","language":"C++"}"#.into(),
            (400, "unsupported_code_language"),
        ),
        (
            "POST",
            "code/runs",
            r#"{"code":"1"}"#.into(),
            (400, "invalid_request"),
        ),
        (
            "POST",
            "code/runs",
            r#"{"code":"1","language":"python","timeoutMs":600001}"#.into(),
            (400, "invalid_request"),
        ),
        (
            "POST",
            "code/runs/stream",
            r#"{"code":"1","language":"python","cwd":"/etc"}"#.into(),
            (400, "path_outside_workspace"),
        ),
        (
            "POST",
            "code/contexts",
            r#"{"language":"python","timeoutMs":0}"#.into(),
            (400, "invalid_request"),
        ),
        (
            "POST",
            "commands/run",
            r#"{"command":" "}"#.into(),
            (400, "invalid_request"),
        ),
        (
            "POST",
            "commands",
            r#"{"command":"a","background":true,"collect":[]}"#.into(),
            (400, "unsupported_runtime_option"),
        ),
        (
            "POST",
            "commands/run",
            r#"{"command":"a","collect":[{"path":""}]}"#.into(),
            (400, "invalid_request"),
        ),
        (
            "POST",
            "commands/run",
            r#"{"command":"a","env":{"CROWNEST":"x"}}"#.into(),
            (400, "reserved_env_key"),
        ),
        (
            "PUT",
            "files",
            format!(r#"{{"path":"a","content":"{data}"}}"#),
            (413, "file_too_large"),
        ),
        (
            "PUT",
            "files",
            r#"{"path":"a","content":"!","encoding":"base64"}"#.into(),
            (400, "invalid_file_encoding"),
        ),
        (
            "PUT",
            "files",
            r#"{"path":"a","content":"","encoding":"latin1"}"#.into(),
            (400, "invalid_file_encoding"),
        ),
        (
            "PUT",
            "files",
            r#"{"path":"","content":""}"#.into(),
            (400, "invalid_request"),
        ),
        ("GET", "files/read", String::new(), (400, "invalid_request")),
        (
            "POST",
            "extend",
            r#"{"ttlMs":null}"#.into(),
            (400, "invalid_request"),
        ),
    ] {
        let reply = server
            .owner(method, &format!("/v1/sandboxes/sbx_none/{path}"), &body)
            .await;
        assert_eq!(
            reply.error(),
            (expected.0, expected.1.to_owned()),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn usage_is_of_this_month_and_honest_about_prices() {
    let server = Server::start_with(|config| config.sandboxes_per_org_max = Some(3)).await;
    let usage = server.owner("GET", "/v1/usage", "").await.json();
    assert_eq!(usage["computeUnitSeconds"]["used"], 0.0);
    assert_eq!(usage["currencyPerCredit"], 0.0);
    assert_eq!(usage["quotas"]["concurrent_sandboxes"]["limit"], 3);
    assert_eq!(usage["quotas"]["concurrent_sandboxes"]["remaining"], 3);
    assert!(
        usage["period"]["start"]
            .as_str()
            .unwrap()
            .ends_with("-01T00:00:00.000Z")
    );
}
