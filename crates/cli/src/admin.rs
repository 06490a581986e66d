//! `crownest admin`: organizations, projects and keys, made on the machine itself. An API key can
//! never make another one; whoever may open the database may.
//!
//! Who runs it: root, as the server's user from before the database is opened, so that files it
//! creates belong to the server.

use crate::admin_agents::{self, AgentCommand, AgentKeyCommand, ClaimCommand};
use crate::confine;
use crate::settings;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use crownest_api::{IdKind, Scope, Timestamp, new_id};
use crownest_server::{NewKey, Plan, create_key};
use crownest_store::{Limit, Organization, PageRequest, Project, Store, StoreOptions, User};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// Data directory of the server.
    #[arg(
        long,
        global = true,
        env = "CROWNEST_DATA_DIR",
        default_value = "/var/lib/crownest/data"
    )]
    data_dir: PathBuf,
    /// Database, when it is not the one in the data directory.
    #[arg(long, global = true, env = "CROWNEST_DATABASE_URL")]
    database_url: Option<String>,
    /// User that the server runs as.
    #[arg(long, global = true, env = "CROWNEST_USER", default_value = "crownest")]
    user: String,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Organizations: tenants that see nothing of each other.
    #[command(subcommand)]
    Org(OrgCommand),
    /// Projects of an organization.
    #[command(subcommand)]
    Project(ProjectCommand),
    /// API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Agents that ask to be let in.
    #[command(subcommand)]
    AgentClaim(ClaimCommand),
    /// Agents that were let in.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Keys that tokens of agents are signed with.
    #[command(subcommand)]
    AgentKey(AgentKeyCommand),
}

#[derive(Debug, Subcommand)]
enum OrgCommand {
    /// Makes an organization with its first user and project.
    Create { name: String },
    /// Lists organizations.
    Ls,
    /// Gives an organization a plan: self-hosted, free, builder, scale or enterprise; without one,
    /// the server's default.
    Plan { org: String, plan: Option<Plan> },
}

#[derive(Debug, Subcommand)]
enum ProjectCommand {
    /// Makes a project.
    Create {
        #[arg(long)]
        org: String,
        name: String,
    },
    /// Lists the projects of an organization.
    Ls {
        #[arg(long)]
        org: String,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Makes a key and prints its secret, once.
    Create {
        #[arg(long)]
        org: String,
        /// Restrict to these projects; default: all of the organization.
        #[arg(long, value_delimiter = ',')]
        project: Vec<String>,
        /// Scopes such as sandbox:create; default: all.
        #[arg(long, value_delimiter = ',')]
        scope: Vec<String>,
        name: String,
    },
    /// Lists the keys of an organization.
    Ls {
        #[arg(long)]
        org: String,
    },
}

/// Runs one command.
///
/// # Errors
/// When the database cannot be opened or the command makes no sense.
pub(crate) fn run(args: AdminArgs) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        let user = settings::user(&args.user)?;
        confine::drop_privileges(user.uid, user.gid).context("becoming the server's user")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let url = args
            .database_url
            .unwrap_or_else(|| args.data_dir.join("crownest.db").display().to_string());
        let store = Store::open(&url, &StoreOptions::default())
            .await
            .context("opening the database")?;
        let outcome = match args.noun {
            Noun::Org(command) => organizations(&store, command).await,
            Noun::Project(command) => projects(&store, command).await,
            Noun::Key(command) => keys(&store, command).await,
            Noun::AgentClaim(command) => admin_agents::claims(&store, command).await,
            Noun::Agent(command) => admin_agents::agents(&store, command).await,
            Noun::AgentKey(command) => admin_agents::keys(&store, command).await,
        };
        store.close().await;
        outcome
    })
}

async fn organizations(store: &Store, command: OrgCommand) -> anyhow::Result<()> {
    match command {
        OrgCommand::Create { name } => {
            let created_at = now_micros();
            let org_id = new_id(IdKind::Organization);
            let organization = Organization {
                id: org_id.clone(),
                name,
                created_at,
                plan: None,
            };
            let project = new_project(&org_id, "Default project".to_owned(), true);
            store.insert_organization(&organization, &project).await?;
            let user = User {
                id: new_id(IdKind::User),
                org_id: org_id.clone(),
                name: "Owner".to_owned(),
                email: None,
                role: "owner".to_owned(),
                created_at,
            };
            store.insert_user(&user).await?;
            println!(
                "organization {org_id}\nuser {}\nproject {}",
                user.id, project.id
            );
        }
        OrgCommand::Ls => {
            for org in store.organizations(&largest_page()).await?.rows {
                let plan = org.plan.as_deref().unwrap_or("-");
                println!("{}  {plan}  {}", org.id, org.name);
            }
        }
        OrgCommand::Plan { org, plan } => {
            let name = plan.map(Plan::as_str);
            store
                .set_plan(&org, name)
                .await
                .with_context(|| format!("organization {org}"))?;
            println!("organization {org}\nplan {}", name.unwrap_or("default"));
        }
    }
    Ok(())
}

async fn projects(store: &Store, command: ProjectCommand) -> anyhow::Result<()> {
    match command {
        ProjectCommand::Create { org, name } => {
            store
                .organization(&org)
                .await
                .with_context(|| format!("organization {org}"))?;
            let project = new_project(&org, name, false);
            store.insert_project(&project).await?;
            println!("project {}", project.id);
        }
        ProjectCommand::Ls { org } => {
            for project in store.projects(&org, None, &largest_page()).await?.rows {
                println!("{}  {}", project.id, project.name);
            }
        }
    }
    Ok(())
}

async fn keys(store: &Store, command: KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Create {
            org,
            project,
            scope,
            name,
        } => {
            store
                .organization(&org)
                .await
                .with_context(|| format!("organization {org}"))?;
            for id in &project {
                store
                    .project(&org, id)
                    .await
                    .with_context(|| format!("project {id}"))?;
            }
            let scopes = if scope.is_empty() {
                Scope::ALL.to_vec()
            } else {
                parse_scopes(&scope)?
            };
            let users = store.users(&org, &PageRequest::default()).await?;
            let owner = users.rows.last().context("the organization has no user")?;
            let new = NewKey {
                org_id: &org,
                user_id: &owner.id,
                name: &name,
                scopes: &scopes,
                project_ids: (!project.is_empty()).then_some(project.as_slice()),
            };
            let (key, secret) = create_key(store, new)
                .await
                .map_err(|e| anyhow::anyhow!("{e}"))?;
            println!("key {}\nsecret (shown once) {secret}", key.id);
        }
        KeyCommand::Ls { org } => {
            for key in store.api_keys(&org, &largest_page()).await?.rows {
                let state = if key.revoked_at.is_some() {
                    "revoked"
                } else {
                    "active"
                };
                println!(
                    "{}  {}…{}  {state}  {}",
                    key.id, key.prefix, key.last4, key.name
                );
            }
        }
    }
    Ok(())
}

fn now_micros() -> i64 {
    Timestamp::now().as_millis() * 1000
}

fn largest_page() -> PageRequest {
    PageRequest {
        after: None,
        limit: Limit::new(500).expect("within the limit of a page"),
    }
}

fn parse_scopes(names: &[String]) -> anyhow::Result<Vec<Scope>> {
    let one = |name: &String| match Scope::ALL.iter().find(|s| s.as_str() == name) {
        Some(scope) => Ok(*scope),
        None => bail!("there is no scope {name:?}"),
    };
    names.iter().map(one).collect()
}

fn new_project(org_id: &str, name: String, is_default: bool) -> Project {
    let created_at = now_micros();
    Project {
        id: new_id(IdKind::Project),
        org_id: org_id.to_owned(),
        name,
        is_default,
        created_at,
    }
}
