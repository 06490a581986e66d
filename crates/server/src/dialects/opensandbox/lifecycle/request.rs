//! What a creation asks for, and what of it this server has. Pure.

use super::record::Platform;
use super::{image, labels, resources};
use crate::dialects::opensandbox::error::{Failure, Refusal};
use crate::dialects::opensandbox::network::{self, NetworkPolicy};
use crate::error::ApiError;
use axum::http::StatusCode;
use crownest_api::metadata::Metadata;
use crownest_api::sandbox::{CreateSandbox, Resources};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Shortest life that may be asked for.
const TIMEOUT_SECONDS_MIN: u64 = 60;
/// Arguments of an entrypoint, the program included.
const ENTRYPOINT_ARGS_MAX: usize = 256;
/// Extensions, and all their names and values together.
const EXTENSIONS_MAX: usize = 64;
const EXTENSIONS_BYTES_MAX: usize = 8 * 1024;

type Strings = BTreeMap<String, String>;

/// `POST /sandboxes`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CreateBody {
    pub image: Option<ImageSpec>,
    pub snapshot_id: Option<String>,
    template_id: Option<String>,
    pub entrypoint: Option<Vec<String>>,
    /// Seconds; none: as long as the plan allows.
    pub timeout: Option<u64>,
    resource_limits: Option<Strings>,
    resource_requests: Option<Strings>,
    env: Option<Strings>,
    metadata: Option<Metadata>,
    pub platform: Option<Platform>,
    #[serde(deserialize_with = "network::policy")]
    pub network_policy: Option<NetworkPolicy>,
    credential_proxy: Option<CredentialProxy>,
    // `secureAccess` asks for endpoints that need a token: all of ours do.
    lifecycle: Option<Value>,
    volumes: Option<Vec<Value>>,
    pub extensions: Option<Strings>,
}

/// Credentials for a registry are not looked at: nothing is pulled.
#[derive(Debug, Deserialize)]
pub(super) struct ImageSpec {
    pub uri: String,
}

#[derive(Debug, Deserialize)]
struct CredentialProxy {
    #[serde(default)]
    enabled: bool,
}

impl CreateBody {
    /// Refuses what this server does not have, rather than leave it out.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let extension = |name: &str| {
            let extensions = self.extensions.as_ref();
            extensions.is_some_and(|map| map.contains_key(name))
        };
        let given = |value: &Option<Value>| {
            value.as_ref().is_some_and(|value| match value {
                Value::Null => false,
                Value::Object(map) => !map.is_empty(),
                _ => true,
            })
        };
        let missing = [
            (self.template_id.is_some(), "templateId"),
            (extension("poolRef"), "extensions.poolRef"),
            (
                extension("access.renew.extend.seconds"),
                "extensions.access.renew.extend.seconds",
            ),
            (
                self.volumes.as_ref().is_some_and(|list| !list.is_empty()),
                "volumes",
            ),
            (given(&self.lifecycle), "lifecycle"),
            (
                self.credential_proxy.as_ref().is_some_and(|p| p.enabled),
                "credentialProxy",
            ),
        ];
        if let Some((_, what)) = missing.iter().find(|(asked, _)| *asked) {
            return Err(not_built(what).into());
        }
        self.check_source()?;
        self.check_platform()?;
        self.check_sizes()?;
        if let Some(labels) = &self.metadata {
            labels::check(labels)?;
        }
        Ok(())
    }

    fn check_source(&self) -> Result<(), Failure> {
        if self.image.is_some() == self.snapshot_id.is_some() {
            let message = "exactly one of image and snapshotId is required";
            return Err(ApiError::field("image", message).into());
        }
        if self.image.is_some() && self.entrypoint.as_ref().is_none_or(Vec::is_empty) {
            let message = "entrypoint is required with image";
            return Err(ApiError::field("entrypoint", message).into());
        }
        Ok(())
    }

    fn check_platform(&self) -> Result<(), Failure> {
        let here = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let asked = self.platform.as_ref();
        if asked.is_none_or(|asked| asked.os == "linux" && asked.arch == here) {
            return Ok(());
        }
        let message = format!("this server has the platform linux/{here} alone");
        let refusal = Refusal::new(
            StatusCode::BAD_REQUEST,
            "SANDBOX::PLATFORM_NOT_SUPPORTED",
            message,
        );
        Err(refusal.into())
    }

    fn check_sizes(&self) -> Result<(), Failure> {
        if self.timeout.is_some_and(|s| s < TIMEOUT_SECONDS_MIN) {
            let message = format!("timeout is at least {TIMEOUT_SECONDS_MIN} seconds");
            return Err(ApiError::field("timeout", message).into());
        }
        let args = self.entrypoint.as_deref().unwrap_or_default();
        if args.len() > ENTRYPOINT_ARGS_MAX || args.iter().any(|arg| arg.contains('\0')) {
            let message =
                format!("entrypoint has at most {ENTRYPOINT_ARGS_MAX} arguments without NUL");
            return Err(ApiError::field("entrypoint", message).into());
        }
        let extensions = self.extensions.iter().flatten();
        let bytes: usize = extensions.map(|(k, v)| k.len() + v.len()).sum();
        let count = self.extensions.as_ref().map_or(0, BTreeMap::len);
        if count > EXTENSIONS_MAX || bytes > EXTENSIONS_BYTES_MAX {
            let message = format!(
                "extensions has at most {EXTENSIONS_MAX} entries of {EXTENSIONS_BYTES_MAX} bytes \
                 together"
            );
            return Err(ApiError::field("extensions", message).into());
        }
        // A request is a promise to a scheduler; here is one machine and nothing to schedule.
        resources::limits(self.resource_requests.as_ref().unwrap_or(&Strings::new()))?;
        Ok(())
    }

    fn resources(&self) -> Result<Resources, ApiError> {
        match &self.resource_limits {
            Some(asked) => resources::limits(asked),
            None => Ok(Resources::default()),
        }
    }

    /// The same in the words of `/v1`, apart from its time.
    pub(super) fn creation(&self, added_env: Strings) -> Result<CreateSandbox, Failure> {
        let template = match &self.image {
            Some(image) => Some(image::template(&image.uri)?),
            None => None,
        };
        let mut env = self.env.clone().unwrap_or_default();
        env.extend(added_env);
        Ok(CreateSandbox {
            template,
            metadata: self.metadata.clone(),
            env: Some(env),
            resources: Some(self.resources()?),
            ..CreateSandbox::default()
        })
    }
}

/// Something that the original has and this server does not.
pub(in crate::dialects::opensandbox) fn not_built(what: &str) -> Refusal {
    let message = format!("{what} is not supported by this server");
    Refusal::new(
        StatusCode::NOT_IMPLEMENTED,
        "SANDBOX::API_NOT_SUPPORTED",
        message,
    )
}
