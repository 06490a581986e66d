//! Which templates can be used, by slug or version id.
//!
//! Does not own building them, nor how they lie on disk: a [`TemplateSource`] knows that.

use crate::error::{ApiError, ApiResult};
use crate::host::TemplateRef;
use crownest_api::ErrorCode;
use crownest_runtime::template::Runtime;
use serde_json::json;
use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

/// After a look at the disk the next one waits this long: unknown slugs must not cause I/O.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);
/// Longest slug of a request that is repeated in an answer.
const SLUG_CHARS_MAX: usize = 80;

/// A template version that has been built on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub slug: String,
    /// 64 hex digits.
    pub digest: String,
    pub version: String,
    /// `tplv_…`
    pub version_id: String,
    /// Languages of code contexts.
    pub languages: Vec<String>,
    /// Runtimes and their versions.
    pub runtimes: Vec<Runtime>,
    /// Whether the slug alone means this version.
    pub current: bool,
}

impl Template {
    /// The public id of the template, whatever its version.
    #[must_use]
    pub fn id(&self) -> String {
        format!("tpl_{}", self.slug.replace('-', "_"))
    }

    #[must_use]
    pub fn reference(&self) -> TemplateRef {
        TemplateRef {
            slug: self.slug.clone(),
            digest: self.digest.clone(),
        }
    }
}

/// What there is: versions that are built, and slugs that could be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    pub built: Vec<Template>,
    /// Slugs with a definition, built or not.
    pub known: Vec<String>,
}

/// Lists the inventory. Called at start and when something is not found; may block.
#[derive(Clone)]
pub struct TemplateSource(Arc<dyn Fn() -> Inventory + Send + Sync>);

impl TemplateSource {
    pub fn new(list: impl Fn() -> Inventory + Send + Sync + 'static) -> Self {
        Self(Arc::new(list))
    }
}

impl fmt::Debug for TemplateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TemplateSource(..)")
    }
}

/// The inventory in memory.
#[derive(Debug)]
pub struct Templates {
    source: TemplateSource,
    /// The inventory and when it was read.
    current: RwLock<(Arc<Inventory>, Instant)>,
}

impl Templates {
    /// Reads the inventory for the first time. Blocks.
    #[must_use]
    pub fn load(source: TemplateSource) -> Self {
        let inventory = Arc::new((source.0)());
        Self {
            source,
            current: RwLock::new((inventory, Instant::now())),
        }
    }

    /// The version that a request means. `version_id` wins over `slug`.
    ///
    /// # Errors
    /// Unknown, or known and not built: the message says which command builds it.
    pub async fn resolve(&self, slug: &str, version_id: Option<&str>) -> ApiResult<Template> {
        let (inventory, read_at) = self.snapshot();
        if let Ok(template) = inventory.find(slug, version_id) {
            return Ok(template);
        }
        if read_at.elapsed() < REFRESH_PAUSE {
            return inventory.find(slug, version_id);
        }
        self.refresh().await?.find(slug, version_id)
    }

    /// The template with that digest, for sandboxes that were made before a restart.
    #[must_use]
    pub fn by_digest(&self, digest: &str) -> Option<Template> {
        self.snapshot()
            .0
            .built
            .iter()
            .find(|t| t.digest == digest)
            .cloned()
    }

    fn snapshot(&self) -> (Arc<Inventory>, Instant) {
        let current = self.current.read().expect("no panic while it is held");
        (Arc::clone(&current.0), current.1)
    }

    async fn refresh(&self) -> ApiResult<Arc<Inventory>> {
        let source = self.source.clone();
        let inventory = tokio::task::spawn_blocking(move || Arc::new((source.0)()))
            .await
            .map_err(|error| ApiError::internal(format_args!("list templates: {error}")))?;
        *self.current.write().expect("no panic while it is held") =
            (Arc::clone(&inventory), Instant::now());
        Ok(inventory)
    }
}

impl Inventory {
    fn find(&self, slug: &str, version_id: Option<&str>) -> ApiResult<Template> {
        let found = match version_id {
            Some(id) => self.built.iter().find(|t| t.version_id == id),
            None => self.built.iter().find(|t| t.slug == slug && t.current),
        };
        if let Some(template) = found {
            return Ok(template.clone());
        }
        let built: Vec<&str> = self
            .built
            .iter()
            .filter(|t| t.current)
            .map(|t| t.slug.as_str())
            .collect();
        if version_id.is_some() {
            let details = json!({ "field": "templateVersionId", "templates": built });
            return Err(
                ApiError::new(ErrorCode::InvalidRequest, "no such template version")
                    .with_details(details),
            );
        }
        let shown: String = slug.chars().take(SLUG_CHARS_MAX).collect();
        if self.known.iter().any(|known| known == slug) {
            let command = format!("crownest template build {shown}");
            let message =
                format!("template {shown:?} is not built on this machine; run: {command}");
            let details = json!({ "template": shown, "command": command, "templates": built });
            return Err(ApiError::new(ErrorCode::TemplateNotBuilt, message).with_details(details));
        }
        let there_is = if built.is_empty() {
            "none".to_owned()
        } else {
            built.join(", ")
        };
        let message = format!("no template {shown:?}; available: {there_is}");
        let details = json!({ "field": "template", "templates": built });
        Err(ApiError::new(ErrorCode::InvalidRequest, message).with_details(details))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        let python = Template {
            slug: "python".into(),
            digest: "0".repeat(64),
            version: "1.0.0".into(),
            version_id: "tplv_1".into(),
            languages: vec!["python".into()],
            runtimes: Vec::new(),
            current: true,
        };
        let old = Template {
            version_id: "tplv_0".into(),
            current: false,
            ..python.clone()
        };
        Inventory {
            built: vec![old, python],
            known: vec!["base".into(), "python".into()],
        }
    }

    #[tokio::test]
    async fn slugs_mean_the_current_version_and_ids_any() {
        let templates = Templates::load(TemplateSource::new(inventory));
        assert_eq!(
            templates.resolve("python", None).await.unwrap().version_id,
            "tplv_1"
        );
        assert_eq!(
            templates
                .resolve("", Some("tplv_0"))
                .await
                .unwrap()
                .version_id,
            "tplv_0"
        );
    }

    #[tokio::test]
    async fn what_is_missing_is_said_with_the_way_out() {
        let templates = Templates::load(TemplateSource::new(inventory));
        let unbuilt = templates.resolve("base", None).await.unwrap_err();
        assert_eq!(unbuilt.code, ErrorCode::TemplateNotBuilt);
        assert!(
            unbuilt.message.contains("crownest template build base"),
            "{unbuilt}"
        );
        let unknown = templates.resolve("node", None).await.unwrap_err();
        assert_eq!(unknown.code, ErrorCode::InvalidRequest);
        assert_eq!(unknown.details.unwrap()["templates"], json!(["python"]));
    }
}
