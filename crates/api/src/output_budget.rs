//! Extension: how much of a run's output its result holds, and what was left out.

use crate::code::RejectedReason;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Extension: bounds of the output in a result. They hold for stdout and for stderr, each by
/// itself; the events of a stream stay complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputBudget {
    /// Bytes of text, the line that stands for what was left out included.
    #[schema(minimum = 256, maximum = 33_554_432)]
    pub max_bytes: u64,
    /// Bytes that are kept of the beginning when not everything fits; default: half.
    pub head: Option<u64>,
    /// Bytes that are kept of the end; default: what `head` leaves.
    pub tail: Option<u64>,
    /// Leave out escape sequences of terminals: colours, cursor movements, titles, links.
    pub strip_ansi: Option<bool>,
    /// Replace lines that follow their like by one that says how many, and keep of a line that was
    /// written over (a progress bar) its last state.
    pub collapse_repeats: Option<bool>,
}

/// Extension: what an output budget left of one stream. `totalBytes` and the text of repeat
/// marks are what is kept, left out, stripped and collapsed together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetedStream {
    /// Everything that was printed.
    pub total_bytes: u64,
    pub total_lines: u64,
    /// Left out between beginning and end, after stripping and collapsing.
    pub omitted_bytes: u64,
    pub omitted_lines: u64,
    /// Escape sequences.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stripped_bytes: u64,
    /// Repeated lines and what was written over.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub collapsed_bytes: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub collapsed_lines: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Extension: what an output budget left of both streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetReport {
    pub stdout: BudgetedStream,
    pub stderr: BudgetedStream,
    /// With `keepFullOutput`, when the result does not hold everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_output: Option<FullOutput>,
}

/// Extension: where the whole output is: both streams in the order in which they were printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FullOutput {
    /// Read it by pages with `Range`.
    Artifact {
        #[serde(rename = "artifactId")]
        artifact_id: String,
        #[serde(rename = "contentType")]
        content_type: String,
        #[serde(rename = "sizeBytes")]
        size_bytes: u64,
    },
    /// It was not kept.
    Rejected { reason: RejectedReason },
}
