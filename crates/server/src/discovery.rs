//! The documents by which programs find their way: made from the origin that they asked, and
//! checked against the routes by a test. Pure.

use crownest_api::Scope;
use crownest_api::agent::{GRANT_CLAIM, GRANT_JWT_BEARER};
use serde_json::{Value, json};

const NAME: &str = "CrowNest";
/// The one event that providers could send, were one trusted.
const REVOCATION_EVENT: &str = "https://schemas.workos.com/events/agent/revoked";

fn scopes() -> Vec<&'static str> {
    Scope::ALL.iter().map(|scope| scope.as_str()).collect()
}

/// `/.well-known/oauth-protected-resource`
pub(crate) fn protected_resource(origin: &str) -> Value {
    json!({
        "resource": origin,
        "resource_name": NAME,
        "authorization_servers": [origin],
        "bearer_methods_supported": ["header"],
        "scopes_supported": scopes(),
    })
}

/// `/.well-known/oauth-authorization-server`
pub(crate) fn authorization_server(origin: &str) -> Value {
    let at = |path: &str| format!("{origin}{path}");
    json!({
        "issuer": origin,
        "resource": origin,
        "resource_name": NAME,
        "authorization_servers": [origin],
        "authorization_endpoint": at("/auth.md"),
        "token_endpoint": at("/oauth2/token"),
        "revocation_endpoint": at("/oauth2/revoke"),
        "jwks_uri": at("/.well-known/jwks.json"),
        "response_types_supported": ["none"],
        "bearer_methods_supported": ["header"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "scopes_supported": scopes(),
        "grant_types_supported": [GRANT_JWT_BEARER, GRANT_CLAIM],
        "agent_auth": {
            "auth_md_uri": at("/auth.md"),
            "skill": at("/auth.md"),
            "service_documentation": at("/llms.txt"),
            "identity_endpoint": at("/agent/identity"),
            "register_uri": at("/agent/identity"),
            "claim_endpoint": at("/agent/identity/claim"),
            "claim_uri": at("/agent/identity/claim"),
            "token_uri": at("/oauth2/token"),
            "revocation_uri": at("/oauth2/revoke"),
            "events_endpoint": at("/agent/event/notify"),
            "events_supported": [REVOCATION_EVENT],
            "credential_types_supported": ["access_token"],
            "identity_types_supported": ["anonymous", "service_auth", "identity_assertion"],
            "registration_types_supported": ["anonymous", "service_auth", "identity_assertion"],
            "workos_posture": "existing_account_only",
            "anonymous": {
                "pre_claim_scopes": [Scope::AgentBootstrap.as_str()],
                "claim_required": true,
            },
            "service_auth": { "login_hint_required": true, "claim_required": true },
            "identity_assertion": { "trusted_providers": [] },
        },
    })
}

/// `/.well-known/api-catalog`
pub(crate) fn api_catalog(origin: &str) -> Value {
    let link =
        |path: &str, kind: &str| json!([{ "href": format!("{origin}{path}"), "type": kind }]);
    let description = "application/vnd.oai.openapi+json";
    json!({ "linkset": [{
        "anchor": origin,
        "api-catalog": link("/.well-known/api-catalog", "application/linkset+json"),
        "authorization": link("/auth.md", "text/markdown"),
        "describedby": link("/llms.txt", "text/markdown"),
        "service-desc": link("/openapi.json", description),
        "service-doc": link("/llms.txt", "text/markdown"),
    }] })
}

/// `/auth.md`
pub(crate) fn auth_md(origin: &str) -> String {
    format!(
        "# Getting in: {NAME} at {origin}\n\n\
         Every request carries `Authorization: Bearer <token>`: an API key (`cn_live_…`, made by \
         the operator of this server) or an access token of an agent (`cn_agent_…`, below).\n\n\
         ## If you are an agent without a key\n\n\
         1. Register: `POST {origin}/agent/identity` with `{{\"type\": \"anonymous\", \
         \"agent_platform\": \"what runs you\", \"requested_scopes\": [\"sandbox:create\", …]}}`. \
         Keep `claim_token` and `identity_assertion`: both are secrets. If you know whom to ask, \
         send `\"type\": \"service_auth\"` with `\"login_hint\": \"person@example.org\"` and skip \
         step 2.\n\
         2. Begin a claim: `POST {origin}/agent/identity/claim` with `{{\"claim_token\": \"…\", \
         \"email\": \"person@example.org\"}}`. The answer has a `user_code` of six digits. Tell it \
         to your person. Nothing is sent to the address.\n\
         3. Wait: `POST {origin}/oauth2/token` with the form fields `grant_type={GRANT_CLAIM}` and \
         `claim_token`, no sooner than every `interval` seconds. `authorization_pending` and \
         `slow_down` mean: ask again. `authorization_denied` and `expired_token` mean: begin a \
         new claim.\n\
         4. Work: the answer has an `access_token` for an hour and an `identity_assertion` for a \
         month. For the next access token send `grant_type={GRANT_JWT_BEARER}` and `assertion` \
         to the same address. A claim token works once.\n\
         5. When you are done: `POST {origin}/oauth2/revoke` with the form field `token`. An \
         access token goes alone; an identity assertion goes with everything you have.\n\n\
         Before a claim is confirmed, `identity_assertion` trades for a token that may call \
         `GET {origin}/agent/bootstrap` and nothing else. Assertions of other identity providers \
         are refused with `agent_provider_untrusted`: this server trusts none.\n\n\
         ## If you are the person\n\n\
         Somebody's agent gave you six digits. Give them to the operator of this server, who \
         looks at what is asked for and decides, on the machine itself:\n\n\
         ```\n\
         crownest admin agent-claim ls\n\
         crownest admin agent-claim confirm 123456      # --org, --project, --scope narrow it\n\
         crownest admin agent-claim deny 123456\n\
         crownest admin agent ls                        # and later: agent revoke areg_…\n\
         ```\n\n\
         ## Checking tokens yourself\n\n\
         Access tokens are `cn_agent_` and a JSON Web Token, signed with Ed25519; the public keys \
         are at {origin}/.well-known/jwks.json. A token that is revoked still verifies: ask this \
         server.\n\n\
         Scopes: {}.\n",
        scopes().join(", ")
    )
}

/// `/llms.txt`
pub(crate) fn llms_txt(origin: &str) -> String {
    format!(
        "# {NAME}\n\n\
         > Isolated Linux sandboxes for code that a model wrote, at {origin}: create one, run \
         code and commands in it, move files, look at its ports, read what came of it.\n\n\
         - Create: `POST {origin}/v1/sandboxes` with `{{}}`. It can be used when this answers.\n\
         - Run code: `POST {origin}/v1/sandboxes/{{id}}/code/runs` with `{{\"language\": \
         \"python\", \"code\": \"1 + 1\"}}`; state is kept between runs.\n\
         - Run a command: `POST {origin}/v1/sandboxes/{{id}}/commands/run` with \
         `{{\"command\": \"ls\"}}`.\n\
         - Files: `PUT` and `GET {origin}/v1/sandboxes/{{id}}/files…` below `/workspace`.\n\
         - Show a port: `POST {origin}/v1/sandboxes/{{id}}/previews` with `{{\"port\": 8000}}`.\n\
         - End: `DELETE {origin}/v1/sandboxes/{{id}}`.\n\n\
         Errors are `{{\"error\": {{\"code\", \"message\", \"details\", \"requestId\", \
         \"retryable\"}}}}`.\n\n\
         ## Docs\n\n\
         - [How to get in]({origin}/auth.md): API keys, and how an agent gets a token by itself\n\
         - [OpenAPI]({origin}/openapi.json): every route, field and error code\n\
         - [API catalog]({origin}/.well-known/api-catalog): the same links for programs\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_has_the_origin_that_was_asked() {
        let origin = "https://nest.example";
        for text in [
            auth_md(origin),
            llms_txt(origin),
            api_catalog(origin).to_string(),
            protected_resource(origin).to_string(),
            authorization_server(origin).to_string(),
        ] {
            assert!(
                text.contains(origin) && !text.contains("{origin}"),
                "{text}"
            );
        }
    }
}
