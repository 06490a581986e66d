//! Previews: a port of a sandbox under a host name of its own.

use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How visitors of a preview prove who they are. An API key works in both modes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PreviewAuthMode {
    /// With an API key alone.
    #[default]
    Authenticated,
    /// Also with a token in the URL, which opens one browser session.
    Token,
}

impl PreviewAuthMode {
    /// The word on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authenticated => "authenticated",
            Self::Token => "token",
        }
    }

    /// The mode of that name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Authenticated, Self::Token]
            .into_iter()
            .find(|mode| mode.as_str() == word)
    }
}

/// A preview.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    #[schema(example = "prv_06f3m2c9r7x8k4e1t5w0q2z6ya")]
    pub id: String,
    /// First label of its host name.
    #[schema(example = "p-7h2k9x4m1c3v")]
    pub slug: String,
    pub org_id: String,
    pub project_id: String,
    pub sandbox_id: String,
    #[schema(minimum = 1, maximum = 65_535)]
    pub port: u16,
    pub auth_mode: PreviewAuthMode,
    #[schema(example = "http://p-7h2k9x4m1c3v.preview.localhost:8787")]
    pub url: String,
    pub created_at: Timestamp,
    /// When its sandbox ends, or when the preview ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// The command that was said to serve the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_command_id: Option<String>,
}

/// `POST /v1/sandboxes/{id}/previews`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatePreview {
    /// Port on the sandbox's loopback.
    #[schema(minimum = 1, maximum = 65_535)]
    pub port: u16,
    /// `authenticated` (default) or `token`.
    #[serde(default)]
    #[schema(value_type = Option<PreviewAuthMode>)]
    pub auth_mode: Option<String>,
    /// The command of this sandbox that serves the port: kept with the preview, nothing else.
    #[serde(default)]
    pub source_command_id: Option<String>,
}

/// Answer with one preview.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PreviewAnswer {
    pub preview: Preview,
}

/// Answer to a creation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PreviewCreated {
    pub preview: Preview,
    /// Token mode, when the preview is new: opens one browser session as
    /// `?crownest_preview_token=…`. It is not shown again.
    #[serde(
        default,
        rename = "previewToken",
        skip_serializing_if = "Option::is_none"
    )]
    pub preview_token: Option<String>,
}
