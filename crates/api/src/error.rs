//! Errors on the wire: one table of codes with their HTTP status, and the envelope.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal;)*) => {
        /// What went wrong, as a word that programs can match on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status it is sent with.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }
        }
    };
}

error_codes! {
    /// A malformed request; `details.field` names the place when there is one.
    InvalidRequest = "invalid_request", 400;
    /// `ttlMs` over the limit.
    SandboxTtlExceeded = "sandbox_ttl_exceeded", 400;
    /// An environment name that starts with `CROWNEST`.
    ReservedEnvKey = "reserved_env_key", 400;
    MissingIdempotencyKey = "missing_idempotency_key", 400;
    InvalidMetadataKey = "invalid_metadata_key", 400;
    InvalidMetadataValue = "invalid_metadata_value", 400;
    MetadataTooLarge = "metadata_too_large", 400;
    MetadataTooManyKeys = "metadata_too_many_keys", 400;
    InvalidFileEncoding = "invalid_file_encoding", 400;
    PathOutsideWorkspace = "path_outside_workspace", 400;
    PathIsDirectory = "path_is_directory", 400;
    PathNotDirectory = "path_not_directory", 400;
    UnsupportedCodeLanguage = "unsupported_code_language", 400;
    UnsupportedPreviewAuthMode = "unsupported_preview_auth_mode", 400;
    UnsupportedRuntimeOption = "unsupported_runtime_option", 400;
    UploadChecksumMismatch = "upload_checksum_mismatch", 400;
    UploadSizeMismatch = "upload_size_mismatch", 400;
    InvalidClaimToken = "invalid_claim_token", 400;
    InvalidIdentityAssertion = "invalid_identity_assertion", 400;
    ExpiredToken = "expired_token", 400;
    AuthorizationPending = "authorization_pending", 400;
    SlowDown = "slow_down", 400;
    /// No credential.
    Unauthorized = "unauthorized", 401;
    /// A malformed, unknown or revoked key.
    InvalidApiKey = "invalid_api_key", 401;
    AgentTokenExpired = "agent_token_expired", 401;
    BillingNotConfigured = "billing_not_configured", 402;
    CreditExhausted = "credit_exhausted", 402;
    BillingSpendCapReached = "billing_spend_cap_reached", 402;
    /// The key lacks a scope, or may not touch the project.
    Forbidden = "forbidden", 403;
    OrgSuspended = "org_suspended", 403;
    FeatureNotEnabled = "feature_not_enabled", 403;
    AgentProviderUntrusted = "agent_provider_untrusted", 403;
    AgentRegistrationRevoked = "agent_registration_revoked", 403;
    ClaimEmailMismatch = "claim_email_mismatch", 403;
    /// No such route or resource, or one of another tenant.
    NotFound = "not_found", 404;
    FileNotFound = "file_not_found", 404;
    ParentDirectoryNotFound = "parent_directory_not_found", 404;
    UploadNotFound = "upload_not_found", 404;
    /// The route exists, with other methods.
    MethodNotAllowed = "method_not_allowed", 405;
    DirectoryNotEmpty = "directory_not_empty", 409;
    FileAlreadyExists = "file_already_exists", 409;
    /// Same `Idempotency-Key`, another request.
    IdempotencyKeyReused = "idempotency_key_reused", 409;
    /// The first request with this `Idempotency-Key` is still running.
    IdempotencyRequestInProgress = "idempotency_request_in_progress", 409;
    /// The server was restarted during the first request with this `Idempotency-Key`; whether it
    /// took effect is unknown.
    RequestInterrupted = "request_interrupted", 409;
    StreamGap = "stream_gap", 409;
    /// The sandbox is paused: it has to be resumed first.
    SandboxPaused = "sandbox_paused", 409;
    /// There is nothing to resume.
    SandboxNotPaused = "sandbox_not_paused", 409;
    /// No code of this context waits for a line.
    InputNotAwaited = "input_not_awaited", 409;
    /// The snapshot is being made, or its making failed.
    SnapshotNotReady = "snapshot_not_ready", 409;
    UploadConflict = "upload_conflict", 409;
    UploadIncomplete = "upload_incomplete", 409;
    UsageExportInProgress = "usage_export_in_progress", 409;
    BackupNotRestorable = "backup_not_restorable", 409;
    BackupProjectMismatch = "backup_project_mismatch", 409;
    BackupTemplateMismatch = "backup_template_mismatch", 409;
    AgentEventReplay = "agent_event_replay", 409;
    /// A known template that has not been built on this machine; the message says how.
    TemplateNotBuilt = "template_not_built", 409;
    UploadExpired = "upload_expired", 410;
    /// The sandbox is gone; its record can still be read.
    SandboxDestroyed = "sandbox_destroyed", 410;
    FileTooLarge = "file_too_large", 413;
    CodeSourceTooLarge = "code_source_too_large", 413;
    /// A body over the limit of the route.
    RequestTooLarge = "request_too_large", 413;
    /// None of the bytes that `Range` asks for are there; `details.sizeBytes` says how many are.
    RangeNotSatisfiable = "range_not_satisfiable", 416;
    QuotaExceeded = "quota_exceeded", 429;
    RateLimited = "rate_limited", 429;
    DownloadExportFailed = "download_export_failed", 500;
    InternalError = "internal_error", 500;
    PreviewUnavailable = "preview_unavailable", 502;
    /// This machine cannot give a sandbox now, or the server is stopping.
    Unavailable = "unavailable", 503;
    /// The file system of the sandbox is full.
    StorageFull = "storage_full", 507;
}

impl ErrorCode {
    /// Whether the same request may succeed later without any change.
    #[must_use]
    pub const fn retryable(self) -> bool {
        match self {
            Self::IdempotencyRequestInProgress | Self::SlowDown | Self::AuthorizationPending => {
                true
            }
            Self::StorageFull => false,
            _ => matches!(self.status(), 429 | 500..),
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ErrorEnvelope {
    pub error: ErrorBody,
}

/// What went wrong, for people and for programs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    pub code: ErrorCode,
    /// One English sentence; it may change.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub details: Option<serde_json::Value>,
    /// The same as the `x-request-id` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// How long to wait before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// The table is a promise to clients: a change here must be meant.
    #[test]
    fn the_table_is_a_promise() {
        let mut table = String::new();
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{code}\""), "serde and as_str agree");
            let retry = if code.retryable() { " retryable" } else { "" };
            writeln!(table, "{} {code}{retry}", code.status()).unwrap();
        }
        insta::assert_snapshot!(table);
    }
}
