//! What the first start leaves for the owner: the key on the terminal, once, and a file that only
//! the server's user and root can read.

use crate::options::ServeOptions;
use anyhow::Context;
use crownest_api::{IdKind, new_id};
use crownest_server::FreshCredentials;
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Shows the first key and, unless that was turned off, writes `credentials.json`.
///
/// # Errors
/// Those of the file system.
pub(crate) fn announce(
    fresh: &FreshCredentials,
    options: &ServeOptions,
    address: SocketAddr,
) -> anyhow::Result<()> {
    println!("API key (shown once): {}", fresh.secret);
    if options.no_credentials_file {
        return Ok(());
    }
    let origin = options
        .public_origin
        .clone()
        .unwrap_or_else(|| format!("http://{address}"));
    let content = json!({
        "apiUrl": origin,
        "apiKey": fresh.secret,
        "orgId": fresh.org_id,
        "userId": fresh.user_id,
        "projectId": fresh.project_id,
    });
    let path = options.data_dir.join("credentials.json");
    write_private(&path, format!("{content:#}\n").as_bytes())
        .with_context(|| format!("writing {}", path.display()))?;
    println!("kept for your own tools in {}", path.display());
    Ok(())
}

/// The id of this machine, made once.
///
/// # Errors
/// Those of the file system.
pub(crate) fn node_id(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("node-id");
    if let Ok(id) = fs::read_to_string(&path) {
        return Ok(id.trim().to_owned());
    }
    let id = new_id(IdKind::Node);
    write_private(&path, id.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    Ok(id)
}

/// Refuses to make a database where there was one: it would know none of the sandboxes that may
/// still run, and they would be ended.
pub(crate) fn check_database(options: &ServeOptions) -> anyhow::Result<()> {
    let (database, node) = (options.database(), options.data_dir.join("node-id"));
    if options.database_url.is_none() && node.exists() && !Path::new(&database).exists() {
        anyhow::bail!(
            "the database {database} is missing although this data directory was used; put it \
             back, or remove {} to begin with an empty one, which ends all sandboxes",
            node.display()
        );
    }
    Ok(())
}

/// Writes a file whole or not at all, readable by its owner alone.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
