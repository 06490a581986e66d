//! Every option of `crownest serve`. Each is a flag, an environment variable `CROWNEST_…` and a
//! key of `crownest.toml`; docs/configuration.md is generated from here.

use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::PathBuf;

/// Options of the server.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub(crate) struct ServeOptions {
    /// Configuration file; the default one may be missing.
    #[arg(
        long,
        env = "CROWNEST_CONFIG",
        default_value = "/etc/crownest/crownest.toml"
    )]
    pub config: PathBuf,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "CROWNEST_LISTEN", default_value = "127.0.0.1:8787")]
    pub listen: String,
    /// Directory of the database, artifacts and credentials.
    #[arg(
        long,
        env = "CROWNEST_DATA_DIR",
        default_value = "/var/lib/crownest/data"
    )]
    pub data_dir: PathBuf,
    /// Where built templates are.
    #[arg(long, env = "CROWNEST_TEMPLATES_DIR", default_value = crownest_runtime::template::TEMPLATES_DIR)]
    pub templates_dir: PathBuf,
    /// Database: a path for SQLite or postgres://…; default: crownest.db in the data directory.
    #[arg(long, env = "CROWNEST_DATABASE_URL")]
    pub database_url: Option<String>,
    /// Directory of artifacts and archives; default: objects in the data directory.
    #[arg(long, env = "CROWNEST_OBJECTS_DIR")]
    pub objects_dir: Option<PathBuf>,
    /// Keep them, and closed segments of command logs, in this bucket of an S3-compatible server instead.
    #[arg(long, env = "CROWNEST_S3_BUCKET", conflicts_with = "objects_dir")]
    pub s3_bucket: Option<String>,
    /// Where that server is: https://… or, for one on a network that you trust, http://…; absent:
    /// Amazon's own for the region.
    #[arg(long, env = "CROWNEST_S3_ENDPOINT")]
    pub s3_endpoint: Option<String>,
    /// Its region.
    #[arg(long, env = "CROWNEST_S3_REGION", default_value = "us-east-1")]
    pub s3_region: String,
    /// Access key for it.
    #[arg(long, env = "CROWNEST_S3_ACCESS_KEY_ID")]
    pub s3_access_key_id: Option<String>,
    /// Secret of that access key. A flag can be seen by every user of the machine: use the
    /// variable or the file.
    #[arg(long, env = "CROWNEST_S3_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub s3_secret_access_key: Option<Secret>,
    /// The bucket is named in the path of a URL, as most self-hosted servers want it, instead of in
    /// the host name.
    #[arg(long, env = "CROWNEST_S3_PATH_STYLE", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub s3_path_style: bool,
    /// SQLite: sync to disk at every commit (1.7 ms instead of 9 µs). Without it a crash of the
    /// machine may lose the last commits; a crash of the server never does.
    #[arg(long, env = "CROWNEST_DATABASE_SYNC", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub database_sync: bool,
    /// User that the server runs as: a name, or uid:gid.
    #[arg(long, env = "CROWNEST_USER", default_value = "crownest")]
    pub user: String,
    /// Origin under which clients reach the server, when it is not the Host they send.
    #[arg(long, env = "CROWNEST_PUBLIC_ORIGIN")]
    pub public_origin: Option<String>,
    /// Domain of previews, which are at `<slug>.preview.<domain>`. Its own, not one of other sites:
    /// pages there are strangers'. `localhost` works without DNS.
    #[arg(long, env = "CROWNEST_PREVIEW_DOMAIN", default_value = "localhost")]
    pub preview_domain: String,
    /// Seconds that a program behind a preview may be silent before its answer.
    #[arg(long, env = "CROWNEST_PREVIEW_ANSWER_SECONDS", default_value_t = 120)]
    pub preview_answer_seconds: u32,
    /// Template of sandboxes that name none; absent: python-node where it is built, else python.
    #[arg(long, env = "CROWNEST_DEFAULT_TEMPLATE")]
    pub default_template: Option<String>,
    /// Sandboxes of the default template that are kept ready; 0: none.
    #[arg(long, env = "CROWNEST_POOL", default_value_t = 4)]
    pub pool: usize,
    /// Sandboxes of other templates that are kept ready, and the languages whose interpreter is
    /// started beforehand: node=2, code-interpreter=1:python+javascript+java. Without languages,
    /// those of the template that are worth it: Python, JavaScript, bash and Java.
    #[arg(long, env = "CROWNEST_POOL_TEMPLATES", value_delimiter = ',')]
    pub pool_templates: Vec<String>,
    /// Sandboxes that the pool makes per second at most.
    #[arg(long, env = "CROWNEST_POOL_REFILL_PER_SECOND", default_value_t = 50)]
    pub pool_refill_per_second: u32,
    /// The pool stops filling when less memory than this is available, in MiB.
    #[arg(long, env = "CROWNEST_POOL_MEMORY_MIB_MIN", default_value_t = 1024)]
    pub pool_memory_mib_min: u64,
    /// Sandboxes on this machine.
    #[arg(long, env = "CROWNEST_SANDBOXES_MAX", default_value_t = 4000)]
    pub sandboxes_max: usize,
    /// Plan of organizations that have none of their own: self-hosted (the limits of this page),
    /// free, builder, scale or enterprise (those of the hosted service).
    #[arg(long, env = "CROWNEST_PLAN", default_value = "self-hosted")]
    pub plan: String,
    /// Requests that a key may make in a minute; absent: as its plan says, self-hosted without
    /// limit.
    #[arg(long, env = "CROWNEST_REQUESTS_PER_MINUTE_MAX")]
    pub requests_per_minute_max: Option<u32>,
    /// Days that an artifact is kept.
    #[arg(long, env = "CROWNEST_ARTIFACT_RETENTION_DAYS", default_value_t = 30)]
    pub artifact_retention_days: u32,
    /// Previews of one organization at once.
    #[arg(long, env = "CROWNEST_PREVIEWS_PER_ORG_MAX", default_value_t = 10)]
    pub previews_per_org_max: u64,
    /// Previews of one sandbox at once.
    #[arg(long, env = "CROWNEST_PREVIEWS_PER_SANDBOX_MAX", default_value_t = 3)]
    pub previews_per_sandbox_max: u64,
    /// For a dashboard on this machine: believe the headers x-crownest-org-id, x-crownest-user-id
    /// and x-crownest-role of requests without a key that come to /v1/api-keys. Whoever can reach
    /// the server can then make keys.
    #[arg(long, env = "CROWNEST_LOCAL_DASHBOARD", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub local_dashboard: bool,
    /// Live sandboxes of one organization; absent: as many as the machine takes.
    #[arg(long, env = "CROWNEST_SANDBOXES_PER_ORG_MAX")]
    pub sandboxes_per_org_max: Option<u64>,
    /// Memory of a sandbox, files included, in MiB.
    #[arg(long, env = "CROWNEST_MEMORY_MIB", default_value_t = 2048)]
    pub memory_mib: u64,
    /// Processor time of a sandbox, in thousandths of a processor.
    #[arg(long, env = "CROWNEST_CPU_MILLIS", default_value_t = 2000)]
    pub cpu_millis: u32,
    /// Processes and threads of a sandbox.
    #[arg(long, env = "CROWNEST_PIDS", default_value_t = 256)]
    pub pids: u32,
    /// Files that a sandbox may write outside /tmp, in MiB.
    #[arg(long, env = "CROWNEST_DISK_MIB", default_value_t = 1024)]
    pub disk_mib: u64,
    /// Files in /tmp, in MiB.
    #[arg(long, env = "CROWNEST_TMP_MIB", default_value_t = 512)]
    pub tmp_mib: u64,
    /// Most memory that a request may ask for, in MiB.
    #[arg(long, env = "CROWNEST_MEMORY_MIB_MAX", default_value_t = 16384)]
    pub memory_mib_max: u64,
    /// Most processor time that a request may ask for.
    #[arg(long, env = "CROWNEST_CPU_MILLIS_MAX", default_value_t = 16000)]
    pub cpu_millis_max: u32,
    /// What sandboxes may reach although it is private: host names, *.domains, addresses, CIDRs.
    #[arg(long, env = "CROWNEST_EGRESS_ALLOW", value_delimiter = ',')]
    pub egress_allow: Vec<String>,
    /// What sandboxes may never reach, in the same forms; stronger than the list above.
    #[arg(long, env = "CROWNEST_EGRESS_DENY", value_delimiter = ',')]
    pub egress_deny: Vec<String>,
    /// Refuse everything that egress-allow does not name.
    #[arg(long, env = "CROWNEST_EGRESS_ONLY_ALLOWED", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub egress_only_allowed: bool,
    /// A proxy (host:port) that all traffic of sandboxes goes through.
    #[arg(long, env = "CROWNEST_EGRESS_UPSTREAM")]
    pub egress_upstream: Option<String>,
    /// CA certificates that sandboxes trust: a PEM file, or "template" for those of the template.
    #[arg(
        long,
        env = "CROWNEST_CA_CERTIFICATES",
        default_value = "/etc/ssl/certs/ca-certificates.crt"
    )]
    pub ca_certificates: String,
    /// Environment of every sandbox: NAME=VALUE.
    #[arg(long, env = "CROWNEST_SANDBOX_ENV", value_delimiter = ',')]
    pub sandbox_env: Vec<String>,
    /// Log of one command that is kept, in MiB; above it the oldest part goes.
    #[arg(long, env = "CROWNEST_COMMAND_LOG_MIB_MAX", default_value_t = 256)]
    pub command_log_mib_max: u64,
    /// How long the log of a command is kept after it was last written to, in days; 0: for ever.
    #[arg(long, env = "CROWNEST_COMMAND_LOG_DAYS", default_value_t = 30)]
    pub command_log_days: u64,
    /// Largest archive of a workspace run, in MiB.
    #[arg(
        long,
        env = "CROWNEST_WORKSPACE_ARCHIVE_MIB_MAX",
        default_value_t = 512
    )]
    pub workspace_archive_mib_max: u64,
    /// A zygote is replaced after that many forks …
    #[arg(long, env = "CROWNEST_ZYGOTE_FORKS_MAX", default_value_t = 10_000)]
    pub zygote_forks_max: u32,
    /// … or after that many seconds, since its children share its memory layout.
    #[arg(long, env = "CROWNEST_ZYGOTE_AGE_SECONDS_MAX", default_value_t = 3600)]
    pub zygote_age_seconds_max: u64,
    /// Do not write credentials.json at the first start.
    #[arg(long, env = "CROWNEST_NO_CREDENTIALS_FILE", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub no_credentials_file: bool,
    /// Serve /metrics.
    #[arg(long, env = "CROWNEST_METRICS", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub metrics: bool,
    /// What is logged: error, warn, info, debug, trace, or a filter as of the tracing crate.
    #[arg(long, env = "CROWNEST_LOG", default_value = "info")]
    pub log: String,
    /// Log lines as JSON.
    #[arg(long, env = "CROWNEST_LOG_JSON", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub log_json: bool,
}

/// A value that is never printed. The supervisor hands it to the server it starts.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// docs/configuration.md, from the options themselves.
pub(crate) fn reference(command: &clap::Command) -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         `crownest serve` takes each option as a flag, as an environment variable or as a key of\n\
         `crownest.toml`; a flag is stronger than the environment, the environment stronger than\n\
         the file. Lists are comma-separated in flags and variables, arrays in the file.\n\n\
         This page is generated: `crownest configuration-reference > docs/configuration.md`.\n\n\
         | flag | variable | key | default | meaning |\n|---|---|---|---|---|\n",
    );
    for arg in command
        .get_arguments()
        .filter(|a| a.get_long().is_some_and(|l| l != "help"))
    {
        let flag = arg.get_long().unwrap_or_default();
        let key = if flag == "config" {
            String::new()
        } else {
            format!("`{}`", flag.replace('-', "_"))
        };
        let variable = arg
            .get_env()
            .map(|e| e.to_string_lossy().into_owned())
            .unwrap_or_default();
        let default: Vec<_> = arg
            .get_default_values()
            .iter()
            .map(|v| v.to_string_lossy())
            .collect();
        let default = if default.is_empty() {
            String::new()
        } else {
            format!("`{}`", default.join(","))
        };
        let help = arg
            .get_long_help()
            .or_else(|| arg.get_help())
            .map(ToString::to_string)
            .unwrap_or_default();
        let help = help.replace('\n', " ").replace('|', "\\|");
        writeln!(
            text,
            "| `--{flag}` | `{variable}` | {key} | {default} | {help} |"
        )
        .expect("writing to a String");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args;

    /// `UPDATE_DOCS=1 cargo test -p crownest-cli` writes the page anew.
    #[test]
    fn the_reference_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let want = reference(&ServeOptions::augment_args(clap::Command::new("serve")));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &want).unwrap();
        }
        let have = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            have, want,
            "run: crownest configuration-reference > docs/configuration.md"
        );
    }
}
