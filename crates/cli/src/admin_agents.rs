//! `crownest admin agent-claim|agent|agent-key`: a person decides which agents may act for whom.
//!
//! Who runs it: the same as [`crate::admin`]: the server's user, on the machine itself. What an
//! agent said of itself was checked for control characters when it was stored.

use anyhow::{Context, bail};
use clap::Subcommand;
use crownest_api::{IdKind, Scope, Timestamp, new_id};
use crownest_server::{new_signing_key, usual_scopes};
use crownest_store::{AgentGrant, AgentRegistration, AuditEvent, Limit, PageRequest, Store};

/// Rows of one list.
const ROWS_MAX: i64 = 500;

#[derive(Debug, Subcommand)]
pub(crate) enum ClaimCommand {
    /// Lists claims that wait for a decision.
    Ls,
    /// Lets the agent in whose person has that code.
    Confirm {
        /// Organization; it may be left out when there is only one.
        #[arg(long)]
        org: Option<String>,
        /// Restrict to these projects; default: all of the organization.
        #[arg(long, value_delimiter = ',')]
        project: Vec<String>,
        /// Scopes; default: what the agent asks for, or everything about sandboxes.
        #[arg(long, value_delimiter = ',')]
        scope: Vec<String>,
        /// The six digits.
        code: String,
    },
    /// Turns it away.
    Deny {
        /// The six digits.
        code: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Lists the agents of an organization.
    Ls {
        /// Organization; it may be left out when there is only one.
        #[arg(long)]
        org: Option<String>,
    },
    /// Revokes an agent with all its tokens, at once.
    Revoke {
        /// `areg_…`
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentKeyCommand {
    /// Signs with a new key from now on; tokens of the ones before stay valid until they expire.
    Rotate,
}

pub(crate) async fn claims(store: &Store, command: ClaimCommand) -> anyhow::Result<()> {
    match command {
        ClaimCommand::Ls => {
            for claim in store.pending_agent_claims(now_micros(), ROWS_MAX).await? {
                let id = &claim.registration_id;
                let registration = store.agent_registration(id).await?;
                let registration = registration.context("a claim without its registration")?;
                println!(
                    "{}  {}  {}  {}  until {}\n    asks for {}",
                    claim.user_code,
                    claim.email,
                    claim.registration_id,
                    registration.platform.as_deref().unwrap_or("-"),
                    Timestamp::from_millis(claim.expires_at / 1_000),
                    asked_for(&registration).join(", ")
                );
            }
            Ok(())
        }
        ClaimCommand::Confirm {
            org,
            project,
            scope,
            code,
        } => confirm(store, org, &project, &scope, &code).await,
        ClaimCommand::Deny { code } => {
            let decided = store.decide_agent_claim(&code, None, now_micros()).await?;
            let claim = decided.context("no claim with that code waits for a decision")?;
            println!("denied {}", claim.registration_id);
            Ok(())
        }
    }
}

async fn confirm(
    store: &Store,
    org: Option<String>,
    projects: &[String],
    scopes: &[String],
    code: &str,
) -> anyhow::Result<()> {
    let org = organization(store, org).await?;
    for id in projects {
        store
            .project(&org, id)
            .await
            .with_context(|| format!("project {id}"))?;
    }
    let waiting = store.pending_agent_claims(now_micros(), ROWS_MAX).await?;
    let claim = waiting.iter().find(|claim| claim.user_code == code);
    let claim = claim.context("no claim with that code waits for a decision")?;
    let registration = store.agent_registration(&claim.registration_id).await?;
    let registration = registration.context("a claim without its registration")?;
    let mut granted = if scopes.is_empty() {
        asked_for(&registration)
    } else {
        for name in scopes {
            if name.parse::<Scope>().is_err() {
                bail!("there is no scope {name:?}");
            }
        }
        scopes.to_vec()
    };
    let bootstrap = Scope::AgentBootstrap.as_str().to_owned();
    if !granted.contains(&bootstrap) {
        granted.push(bootstrap);
    }
    let users = store.users(&org, &PageRequest::default()).await?;
    let owner = users.rows.last().context("the organization has no user")?;
    let grant = AgentGrant {
        org_id: &org,
        user_id: &owner.id,
        project_ids: (!projects.is_empty()).then_some(projects),
        scopes: &granted,
    };
    let decided = store.decide_agent_claim(code, Some(grant), now_micros());
    let claim = decided.await?.context("somebody else has decided it")?;
    let id = &claim.registration_id;
    let details = serde_json::json!({ "email": claim.email, "scopes": granted });
    note(
        store,
        &org,
        &owner.id,
        "agent_claim.confirm",
        id,
        &details.to_string(),
    )
    .await?;
    println!("confirmed {id} in {org}\nscopes {}", granted.join(", "));
    Ok(())
}

fn asked_for(registration: &AgentRegistration) -> Vec<String> {
    match registration.requested_scopes.as_slice() {
        [] => usual_scopes()
            .iter()
            .map(|scope| scope.as_str().to_owned())
            .collect(),
        asked => asked.to_vec(),
    }
}

pub(crate) async fn agents(store: &Store, command: AgentCommand) -> anyhow::Result<()> {
    match command {
        AgentCommand::Ls { org } => {
            let org = organization(store, org).await?;
            for agent in store.agent_registrations(&org, ROWS_MAX).await? {
                println!(
                    "{}  {}  {}  {}",
                    agent.id,
                    agent.status,
                    agent.platform.as_deref().unwrap_or("-"),
                    agent.scopes.join(",")
                );
            }
        }
        AgentCommand::Revoke { id } => {
            let found = store.agent_registration(&id).await?;
            let registration = found.with_context(|| format!("there is no agent {id}"))?;
            let revoked = store.revoke_agent_registration(&id, now_micros()).await?;
            if let (true, Some(org)) = (revoked, &registration.org_id) {
                let by = registration.user_id.as_deref().unwrap_or_default();
                note(store, org, by, "agent.revoke", &id, "{}").await?;
            }
            println!(
                "{} {id}",
                if revoked {
                    "revoked"
                } else {
                    "was revoked before:"
                }
            );
        }
    }
    Ok(())
}

pub(crate) async fn keys(store: &Store, command: AgentKeyCommand) -> anyhow::Result<()> {
    let AgentKeyCommand::Rotate = command;
    let key = new_signing_key().map_err(|error| anyhow::anyhow!("{error}"))?;
    // Newer than now is no key, so this one is always taken.
    if !store.insert_signing_key(&key, i64::MAX).await? {
        bail!("the key was not taken");
    }
    println!("key {}", key.id);
    Ok(())
}

async fn organization(store: &Store, named: Option<String>) -> anyhow::Result<String> {
    if let Some(org) = named {
        store
            .organization(&org)
            .await
            .with_context(|| format!("organization {org}"))?;
        return Ok(org);
    }
    let page = PageRequest {
        after: None,
        limit: Limit::new(2).expect("within the limit of a page"),
    };
    match store.organizations(&page).await?.rows.as_slice() {
        [only] => Ok(only.id.clone()),
        _ => bail!("there are several organizations: say --org"),
    }
}

/// What a person did, in the audit log of the organization.
async fn note(
    store: &Store,
    org_id: &str,
    user_id: &str,
    action: &str,
    registration: &str,
    details: &str,
) -> anyhow::Result<()> {
    let event = AuditEvent {
        id: new_id(IdKind::AuditEvent),
        org_id: org_id.to_owned(),
        project_id: None,
        at: now_micros(),
        actor_kind: "human".to_owned(),
        actor_id: user_id.to_owned(),
        action: action.to_owned(),
        resource_kind: "agent_registration".to_owned(),
        resource_id: registration.to_owned(),
        outcome: "ok".to_owned(),
        request_id: None,
        details: details.to_owned(),
    };
    Ok(store.insert_audit_events(&[event]).await?)
}

fn now_micros() -> i64 {
    Timestamp::now().as_millis() * 1000
}
