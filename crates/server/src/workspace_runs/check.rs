//! A run that is asked for: the request checked, its project, template and sandbox found.

use super::record::{Spec, TemplateNote};
use crate::app::App;
use crate::auth::Principal;
use crate::checks;
use crate::error::{ApiError, ApiResult};
use crate::request::RequestContext;
use crownest_api::workspace_run::{ArtifactRequest, CreateWorkspaceRun};
use crownest_api::{limits, metadata};

/// Files that one run may keep.
const ARTIFACTS_MAX: usize = 32;
/// Longest name of an artifact.
const NAME_CHARS_MAX: usize = 255;
/// Of the command.
const TIMEOUT_DEFAULT_MS: u64 = 600_000;
/// With unpacking and collecting it fits into the longest life of a sandbox.
pub(super) const TIMEOUT_MAX_MS: u64 = 3_000_000;

impl App {
    /// Everything that can be said before there is an archive.
    pub(super) async fn check_workspace_run(
        &self,
        who: &Principal,
        request: &RequestContext,
        asked: CreateWorkspaceRun,
    ) -> ApiResult<(String, Spec)> {
        command(&asked.command)?;
        let artifacts = asked.artifacts.unwrap_or_default();
        check_artifacts(&artifacts)?;
        let map = asked.metadata.unwrap_or_default();
        metadata::check(&map)?;
        if let Some(map) = &asked.source_metadata {
            metadata::check(map)?;
        }
        let timeout = checks::timeout(asked.timeout_ms, TIMEOUT_DEFAULT_MS, TIMEOUT_MAX_MS)?;
        let (project_id, template) = if let Some(id) = &asked.sandbox_id {
            if asked.template.is_some() || asked.template_version_id.is_some() {
                let message = "a sandbox that is there has its template: name one of the two";
                return Err(ApiError::field("template", message));
            }
            let live = self.live_sandbox(who, id).await?;
            if asked
                .project_id
                .is_some_and(|asked| asked != live.project_id)
            {
                let message = "the sandbox belongs to another project";
                return Err(ApiError::field("projectId", message));
            }
            let row = live.row();
            let template = TemplateNote {
                id: row.template_id.clone(),
                slug: row.template_slug.clone(),
                version: row.template_version.clone(),
                version_id: row.template_version_id.clone(),
            };
            (live.project_id.clone(), template)
        } else {
            let project_id = self.project_of(who, asked.project_id.as_deref()).await?;
            let default = &self.config.default_template;
            let slug = asked.template.as_deref().unwrap_or(default);
            let version_id = asked.template_version_id.as_deref();
            let template = self.templates.resolve(slug, version_id).await?;
            let template = TemplateNote {
                id: template.id(),
                slug: template.slug,
                version: template.version,
                version_id: template.version_id,
            };
            (project_id, template)
        };
        let spec = Spec {
            command: asked.command,
            artifacts,
            keep_sandbox: asked.keep_sandbox.unwrap_or(false),
            metadata: map,
            source_metadata: asked.source_metadata,
            sandbox_id: asked.sandbox_id,
            template,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(TIMEOUT_MAX_MS),
            request_id: request.id.to_string(),
        };
        Ok((project_id, spec))
    }
}

fn command(command: &str) -> ApiResult<()> {
    let max = limits::COMMAND_BYTES_MAX;
    let fits =
        (1..=max).contains(&command.len()) && !command.trim().is_empty() && !command.contains('\0');
    if fits {
        return Ok(());
    }
    let message = format!("command must be a non-empty string of at most {max} bytes without NUL");
    Err(ApiError::field("command", message))
}

fn check_artifacts(artifacts: &[ArtifactRequest]) -> ApiResult<()> {
    if artifacts.len() > ARTIFACTS_MAX {
        let message = format!("at most {ARTIFACTS_MAX} artifacts can be kept");
        return Err(ApiError::field("artifacts", message));
    }
    for (at, artifact) in artifacts.iter().enumerate() {
        checks::path(&format!("artifacts[{at}].path"), &artifact.path)?;
        let named = artifact.name.as_ref().is_none_or(|name| {
            let chars = name.chars().take(NAME_CHARS_MAX + 1).count();
            !name.trim().is_empty()
                && chars <= NAME_CHARS_MAX
                && !name.chars().any(char::is_control)
        });
        if !named {
            let message = format!("name must have 1 to {NAME_CHARS_MAX} printable characters");
            return Err(ApiError::field(&format!("artifacts[{at}].name"), message));
        }
    }
    Ok(())
}
