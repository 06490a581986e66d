//! Rows to test with: valid, and different in what a test does not care about.

use crownest_store::{
    ApiKey, AuditEvent, CodeRun, CodeRunStatus, Command, CommandStatus, Context, Founding,
    Organization, Owner, Preview, Project, Sandbox, SandboxStatus, SecretHash, SessionKey, Store,
    User, WorkspaceRun, WorkspaceRunStatus,
};
use std::collections::BTreeMap;

/// An organization `org_NAME` with user `usr_NAME` and default project `prj_NAME`.
pub(crate) fn founding(name: &str) -> Founding {
    let org_id = format!("org_{name}");
    Founding {
        organization: Organization {
            id: org_id.clone(),
            name: name.to_owned(),
            created_at: 10,
            plan: None,
        },
        user: User {
            id: format!("usr_{name}"),
            org_id: org_id.clone(),
            name: "Ada".to_owned(),
            email: Some("ada@example.org".to_owned()),
            role: "owner".to_owned(),
            created_at: 10,
        },
        project: Project {
            id: format!("prj_{name}"),
            org_id,
            name: "Default".to_owned(),
            is_default: true,
            created_at: 10,
        },
    }
}

/// Adds the organization of [`founding`] and returns its id.
pub(crate) async fn found(store: &Store, name: &str) -> String {
    let founding = founding(name);
    store
        .insert_organization(&founding.organization, &founding.project)
        .await
        .unwrap();
    store.insert_user(&founding.user).await.unwrap();
    founding.organization.id
}

/// A live sandbox of the organization `org_NAME`.
pub(crate) fn sandbox(name: &str, id: &str, created_at: i64) -> Sandbox {
    Sandbox {
        id: format!("sbx_{id}"),
        org_id: format!("org_{name}"),
        project_id: format!("prj_{name}"),
        node_id: "node_1".to_owned(),
        status: SandboxStatus::Ready,
        template_slug: "python-node".to_owned(),
        template_id: "tpl_python_node".to_owned(),
        template_version: "1.0.0".to_owned(),
        template_version_id: "tplv_1".to_owned(),
        ttl_ms: 60_000,
        created_at,
        ready_at: Some(created_at + 1),
        expires_at: created_at + 60_000_000,
        destroyed_at: None,
        destroyed_reason: None,
        metadata: BTreeMap::new(),
        runtime: Some("{\"slot\":1}".to_owned()),
        network_mode: "egress".to_owned(),
        created_by: "key_1".to_owned(),
    }
}

pub(crate) fn context(name: &str, sandbox: &str, id: &str) -> Context {
    Context {
        id: format!("cctx_{id}"),
        sandbox_id: format!("sbx_{sandbox}"),
        org_id: format!("org_{name}"),
        language: "python".to_owned(),
        cwd: "/workspace".to_owned(),
        is_default: false,
        isolation: "fork".to_owned(),
        created_at: 30,
    }
}

/// An active preview of a sandbox, in token mode; its token is `pvt_ID`.
pub(crate) fn preview(name: &str, sandbox: &str, id: &str, port: i64) -> Preview {
    Preview {
        id: format!("prv_{id}"),
        slug: format!("p-{id}"),
        org_id: format!("org_{name}"),
        project_id: format!("prj_{name}"),
        sandbox_id: format!("sbx_{sandbox}"),
        port,
        auth_mode: "token".to_owned(),
        token_hash: Some(SecretHash::of(&format!("pvt_{id}"))),
        session_key: SessionKey([7; 32]),
        source_command_id: None,
        created_by: "key_1".to_owned(),
        created_at: 30,
        revoked_at: None,
        ended_at: None,
    }
}

/// A running command of the organization `org_NAME`.
pub(crate) fn command(name: &str, sandbox: &str, id: &str) -> Command {
    Command {
        id: format!("cmd_{id}"),
        org_id: format!("org_{name}"),
        project_id: format!("prj_{name}"),
        sandbox_id: format!("sbx_{sandbox}"),
        exec: 7,
        command: "make test".to_owned(),
        cwd: "/workspace".to_owned(),
        env_names: vec!["TOKEN".to_owned()],
        background: true,
        status: CommandStatus::Running,
        created_at: 40,
        finished_at: None,
        duration_ms: None,
        exit_code: None,
        termination_signal: None,
        killed_reason: None,
        cancel_mode: None,
        canceled_at: None,
        stdout_bytes: 0,
        stderr_bytes: 0,
        log_omitted_bytes: 0,
        collect: None,
        collect_status: "not_requested".to_owned(),
        collect_errors: None,
        created_by: "key_1".to_owned(),
        terminal: None,
    }
}

pub(crate) fn code_run(name: &str, sandbox: &str, id: &str) -> CodeRun {
    CodeRun {
        id: format!("crun_{id}"),
        org_id: format!("org_{name}"),
        project_id: format!("prj_{name}"),
        sandbox_id: format!("sbx_{sandbox}"),
        context_id: "cctx_1".to_owned(),
        language: "python".to_owned(),
        run: 7,
        status: CodeRunStatus::Queued,
        code: Some("\"x\\u0000\"".to_owned()),
        options: "{}".to_owned(),
        created_at: 40,
        begun_at: None,
        finished_at: None,
        canceled_at: None,
        log_omitted_bytes: 0,
        result: None,
        failure: None,
        created_by: "key_1".to_owned(),
    }
}

pub(crate) fn api_key(name: &str, id: &str) -> ApiKey {
    ApiKey {
        id: format!("key_{id}"),
        org_id: format!("org_{name}"),
        name: "ci".to_owned(),
        prefix: "cn_live_abcd".to_owned(),
        last4: "wxyz".to_owned(),
        hash: SecretHash::of(&format!("cn_live_{id}")),
        scopes: vec!["sandbox:create".to_owned(), "code:run".to_owned()],
        project_ids: None,
        created_by_user_id: format!("usr_{name}"),
        created_at: 20,
        revoked_at: None,
        last_used_at: None,
    }
}

pub(crate) fn audit_event(name: &str, id: &str, at: i64) -> AuditEvent {
    AuditEvent {
        id: format!("aud_{id}"),
        org_id: format!("org_{name}"),
        project_id: None,
        at,
        actor_kind: "api_key".to_owned(),
        actor_id: "key_1".to_owned(),
        action: "sandbox.create".to_owned(),
        resource_kind: "sandbox".to_owned(),
        resource_id: "sbx_1".to_owned(),
        outcome: "ok".to_owned(),
        request_id: Some("req_1".to_owned()),
        details: "{}".to_owned(),
    }
}

pub(crate) fn owner(node: &str, boot: &str) -> Owner {
    Owner {
        node_id: node.to_owned(),
        boot_id: boot.to_owned(),
    }
}

/// A run that waits for its archive.
pub(crate) fn workspace_run(name: &str, id: &str, created_at: i64) -> WorkspaceRun {
    WorkspaceRun {
        id: format!("wsr_{id}"),
        org_id: format!("org_{name}"),
        project_id: format!("prj_{name}"),
        node_id: "node_1".to_owned(),
        status: WorkspaceRunStatus::AwaitingArchive,
        version: 1,
        created_at,
        finished_at: None,
        spec: "{\"command\":\"true\"}".to_owned(),
        state: "{}".to_owned(),
        created_by: "key_1".to_owned(),
    }
}
