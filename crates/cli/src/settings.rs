//! From options to what the other crates are told: parsed, checked, resolved.

use crate::options::ServeOptions;
use anyhow::{Context, bail};
use crownest_runtime::command::Limits;
use crownest_server::egress::{Policy, PolicyConfig, Upstream};
use crownest_server::objects::{ObjectsConfig, S3Config};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::{fs, io};

const MIB: u64 = 1024 * 1024;
/// uid and gid of the server when there is no user of the configured name: in the range that
/// Debian leaves to nobody (65000 and up are "nobody" and friends, 60000-64999 is reserved for
/// system services).
const FALLBACK_ID: u32 = 64_787;
/// Longest list of sandbox variables.
const SANDBOX_ENV_MAX: usize = 256;
/// Longest label of a host name, and longest domain that leaves room for what comes before it.
const DNS_LABEL_BYTES_MAX: usize = 63;
const PREVIEW_DOMAIN_BYTES_MAX: usize = 200;

/// Starts logging to stderr.
pub(crate) fn start_log(filter: &str, json: bool) {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    if json {
        log.json().init();
    } else {
        log.with_target(false).init();
    }
}

/// Who the server runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
}

/// Finds the configured user: `uid:gid`, a name of /etc/passwd, or a fixed number when the
/// default name does not exist.
///
/// # Errors
/// When another name was given that does not exist, or the user is root.
pub(crate) fn user(name: &str) -> anyhow::Result<User> {
    let user = match name.split_once(':') {
        Some((uid, gid)) => User {
            uid: uid.parse().context("--user: uid")?,
            gid: gid.parse().context("--user: gid")?,
        },
        None => match passwd_entry(name)? {
            Some(user) => user,
            None if name == "crownest" => User {
                uid: FALLBACK_ID,
                gid: FALLBACK_ID,
            },
            None => bail!("--user: there is no user {name:?}"),
        },
    };
    if user.uid == 0 || user.gid == 0 {
        bail!("--user: the server must not run as root");
    }
    Ok(user)
}

/// passwd(5): name:password:uid:gid:…
fn passwd_entry(name: &str) -> anyhow::Result<Option<User>> {
    let text = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = fields.filter(|f| f.len() >= 4).find(|f| f[0] == name);
    let Some(entry) = entry else { return Ok(None) };
    Ok(Some(User {
        uid: entry[2].parse()?,
        gid: entry[3].parse()?,
    }))
}

impl ServeOptions {
    /// Limits of a sandbox that asks for none.
    pub(crate) fn limits(&self) -> anyhow::Result<Limits> {
        let limits = Limits {
            memory_bytes: self.memory_mib.saturating_mul(MIB),
            pids: self.pids,
            cpu_millis: self.cpu_millis,
            disk_bytes: self.disk_mib.saturating_mul(MIB),
            tmp_bytes: self.tmp_mib.saturating_mul(MIB),
            ..Limits::default()
        };
        if !limits.in_range() {
            bail!("a limit of sandboxes is out of range: {limits:?}");
        }
        Ok(limits)
    }

    /// The most that one sandbox may ask for.
    pub(crate) fn limits_max(&self) -> anyhow::Result<Limits> {
        let limits = self.limits()?;
        Ok(Limits {
            memory_bytes: limits
                .memory_bytes
                .max(self.memory_mib_max.saturating_mul(MIB)),
            cpu_millis: limits.cpu_millis.max(self.cpu_millis_max),
            pids: limits.pids.max(4096),
            disk_bytes: limits
                .disk_bytes
                .max(self.memory_mib_max.saturating_mul(MIB)),
            ..limits
        })
    }

    /// What sandboxes may reach.
    pub(crate) fn egress(&self, own: Vec<SocketAddr>) -> anyhow::Result<Policy> {
        let upstream = self.egress_upstream.as_deref().map(|text| {
            let (host, port) = text.rsplit_once(':').context("host:port")?;
            Ok::<_, anyhow::Error>(Upstream {
                host: host.to_owned(),
                port: port.parse()?,
            })
        });
        Policy::new(PolicyConfig {
            allow: self.egress_allow.clone(),
            deny: self.egress_deny.clone(),
            only_allowed: self.egress_only_allowed,
            own,
            upstream: upstream.transpose().context("--egress-upstream")?,
            ..PolicyConfig::default()
        })
        .context("egress rules")
    }

    /// Environment of every sandbox.
    pub(crate) fn environment(&self) -> anyhow::Result<BTreeMap<String, String>> {
        if self.sandbox_env.len() > SANDBOX_ENV_MAX {
            bail!("--sandbox-env: more than {SANDBOX_ENV_MAX} variables");
        }
        let pair = |entry: &String| {
            let (name, value) = entry.split_once('=').context("NAME=VALUE")?;
            if name.is_empty() || name.starts_with("CROWNEST") {
                bail!("{name:?} is not possible");
            }
            Ok((name.to_owned(), value.to_owned()))
        };
        self.sandbox_env
            .iter()
            .map(pair)
            .collect::<anyhow::Result<_>>()
            .context("--sandbox-env")
    }

    /// The file with CA certificates for sandboxes. The default one may be missing.
    pub(crate) fn certificates(&self) -> anyhow::Result<Option<PathBuf>> {
        if self.ca_certificates == "template" {
            return Ok(None);
        }
        let path = PathBuf::from(&self.ca_certificates);
        if path.is_file() {
            return Ok(Some(path));
        }
        if self.ca_certificates == "/etc/ssl/certs/ca-certificates.crt" {
            return Ok(None);
        }
        bail!("--ca-certificates: {} is not a file", path.display())
    }

    /// Where artifacts and logs are kept.
    ///
    /// # Errors
    /// When a part of the configuration of S3 is missing.
    pub(crate) fn objects(&self) -> anyhow::Result<ObjectsConfig> {
        let Some(bucket) = &self.s3_bucket else {
            let stray = self.s3_endpoint.is_some() || self.s3_access_key_id.is_some();
            if stray || self.s3_secret_access_key.is_some() {
                bail!("--s3-bucket: options of S3 are set, but no bucket");
            }
            let default = || self.data_dir.join("objects");
            let directory = self.objects_dir.clone().unwrap_or_else(default);
            return Ok(ObjectsConfig::Directory(directory));
        };
        let endpoint = self.s3_endpoint.clone();
        let web = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        if endpoint.as_ref().is_some_and(|url| !web(url)) {
            bail!("--s3-endpoint: https://… or http://…");
        }
        let id = self.s3_access_key_id.clone();
        let secret = self.s3_secret_access_key.as_ref();
        Ok(ObjectsConfig::S3(S3Config {
            bucket: bucket.clone(),
            endpoint,
            region: self.s3_region.clone(),
            access_key_id: id.context("--s3-access-key-id: missing")?,
            secret_access_key: secret
                .context("--s3-secret-access-key: missing")?
                .expose()
                .to_owned(),
            path_style: self.s3_path_style,
        }))
    }

    /// The domain of previews, as hosts are compared.
    pub(crate) fn preview_domain(&self) -> anyhow::Result<String> {
        let domain = self.preview_domain.to_ascii_lowercase();
        let label = |label: &str| {
            let clean = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            (1..=DNS_LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(clean)
        };
        if domain.len() > PREVIEW_DOMAIN_BYTES_MAX || !domain.split('.').all(label) {
            bail!("--preview-domain: {domain:?} is not a domain");
        }
        Ok(domain)
    }

    /// Where the database is.
    pub(crate) fn database(&self) -> String {
        let default = || self.data_dir.join("crownest.db").display().to_string();
        self.database_url.clone().unwrap_or_else(default)
    }
}
