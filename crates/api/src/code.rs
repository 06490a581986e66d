//! Code contexts and code runs.

use crate::output_budget::{BudgetReport, OutputBudget};
use crate::timestamp::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Interpreter state in a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CodeContext {
    #[schema(example = "cctx_06f3m2c9r7x8k4e1t5w0q2z6ya")]
    pub id: String,
    pub sandbox_id: String,
    pub language: String,
    pub cwd: String,
    pub created_at: Timestamp,
    /// Made on demand for runs that name no context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_default: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    pub isolation: ContextIsolation,
}

/// `POST /v1/sandboxes/{id}/code/contexts`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateContext {
    /// `python`, `javascript`, `typescript` or what else the template has.
    #[schema(example = "python")]
    pub language: String,
    /// Working directory; default `/workspace`.
    pub cwd: Option<String>,
    /// How long the interpreter may take to start.
    #[schema(minimum = 1, maximum = 600_000)]
    pub timeout_ms: Option<u64>,
    /// How the context gets its interpreter; default `fork`.
    #[serde(default)]
    pub isolation: ContextIsolation,
}

/// How a context gets its interpreter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContextIsolation {
    /// Forked in milliseconds from a warm process of the template; interpreters of one template
    /// share their memory layout and hash seed until that process is renewed.
    #[default]
    Fork,
    /// A new process that shares nothing with another; takes as long as the language needs.
    Fresh,
}

impl ContextIsolation {
    /// As it is on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Fresh => "fresh",
        }
    }

    /// The reverse of [`Self::as_str`]; anything else is the default.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        if text == Self::Fresh.as_str() {
            Self::Fresh
        } else {
            Self::Fork
        }
    }
}

/// Answer with one context.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ContextAnswer {
    pub context: CodeContext,
}

/// What happens to outputs that may not be inline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactPolicy {
    #[default]
    InlineOnly,
    Promote,
}

/// How png, jpeg, svg and html outputs are delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RichOutputs {
    /// As artifacts when promoted, otherwise rejected with the reason.
    #[default]
    Contract,
    /// Extension: inline too, images as base64. Such HTML and SVG are active content that
    /// untrusted code wrote: show it in a sandboxed frame or not at all.
    Inline,
}

/// Extension: the format of whole tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableExport {
    Parquet,
    Csv,
}

impl TableExport {
    /// The word on the wire, and the extension of such a file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// `POST /v1/sandboxes/{id}/code/runs` and `/code/runs/stream`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunCode {
    /// Source, at most 256 KiB.
    #[schema(example = "1 + 1")]
    pub code: String,
    #[schema(example = "python")]
    pub language: String,
    /// Default: the sandbox's default context of that language, made on demand.
    pub context_id: Option<String>,
    /// Working directory of this run.
    pub cwd: Option<String>,
    /// Default 60,000, at most 600,000; of a detached run default 3,600,000.
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
    pub artifact_policy: Option<ArtifactPolicy>,
    /// Extension.
    pub rich_outputs: Option<RichOutputs>,
    /// Extension: how much of the output the result holds, and how it is tidied for a reader that
    /// pays for every byte.
    pub output_budget: Option<OutputBudget>,
    /// Extension: each table that is shown is an artifact too, whole, in that format. Needs the
    /// scope `artifact:create`.
    pub table_export: Option<TableExport>,
    /// Extension, with `outputBudget`: what the result does not hold is in an artifact, which needs
    /// the scope `artifact:create`.
    pub keep_full_output: Option<bool>,
    /// Extension, on streams and of detached runs: code that asks for a line waits for the answer
    /// of a client (`POST …/contexts/{contextId}/input`). Otherwise it gets the end of the input.
    pub allow_input: Option<bool>,
    /// Extension: answer as soon as the run is on record (202). It goes on whoever is connected,
    /// also over a restart of the server.
    pub detached: Option<bool>,
}

/// Extension: what a run used. Processor time and memory are what the kernel counted for the
/// interpreter, absent when it has died; they include threads that earlier runs have left behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunUsage {
    /// Processor time of the interpreter with its threads, to the microsecond, and of the child
    /// processes that it has waited for, to ten milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<f64>,
    /// Memory of the interpreter that is resident at the end of the run, with what it shares with
    /// others; without its child processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The most that was resident at any time since the interpreter was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// By how much this run has raised that; 0 when it stayed below an earlier peak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_growth_bytes: Option<u64>,
    /// Everything that was printed, kept in the result or not.
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
    /// Rich outputs as they came, artifacts included.
    pub output_bytes: u64,
    /// The source.
    pub code_bytes: u64,
}

/// Extension: something about a run that is not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Notice {
    /// A word that programs can match on.
    #[schema(example = "state_not_kept")]
    pub code: String,
    pub message: String,
}

/// Extension: code waits for a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InputRequest {
    pub prompt: String,
    /// Whether what is typed should not be shown.
    pub password: bool,
}

/// Answer with one run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunAnswer {
    pub run: RunCodeResult,
}

/// How a run ended. An exception in the code is a completed run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    Completed,
    /// By request; the state of the context is kept.
    Interrupted,
    /// At its timeout.
    TimedOut,
    /// The interpreter was killed for want of memory; its state is lost.
    OutOfMemory,
    /// The interpreter ended under the run; its state is lost.
    ContextDied,
}

impl RunOutcome {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Interrupted => "interrupted",
            Self::TimedOut => "timed_out",
            Self::OutOfMemory => "out_of_memory",
            Self::ContextDied => "context_died",
        }
    }
}

/// What a run brought.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunCodeResult {
    pub sandbox_id: String,
    pub context_id: String,
    pub language: String,
    pub execution_count: u64,
    /// Pieces of standard output, to be joined without a separator.
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
    pub outputs: Vec<CodeOutput>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_truncated: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_truncated: Option<bool>,
    /// Extension: bytes left out of `stdout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_omitted_bytes: Option<u64>,
    /// Extension: bytes left out of `stderr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_omitted_bytes: Option<u64>,
    /// Extension: outputs left out because there were too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs_omitted: Option<u64>,
    /// Extension: bytes that background threads and children printed between runs, and that
    /// belong to no run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background_dropped_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CodeError>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Extension: how the run ended.
    pub outcome: RunOutcome,
    /// Extension: true when this run had a fresh interpreter because the one before was lost:
    /// variables of earlier runs are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_reset: Option<bool>,
    /// Extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<RunUsage>,
    /// Extension: absent when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
    /// Extension, with `outputBudget`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_budget: Option<BudgetReport>,
}

/// An exception in the code, or the reason why the run did not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodeError {
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<Vec<String>>,
    /// Extension: line of the cell, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

/// Format of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputFormat {
    Chart,
    Data,
    Html,
    Jpeg,
    Json,
    Latex,
    Markdown,
    Png,
    Svg,
    Text,
}

/// Why an output is not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RejectedReason {
    ArtifactScopeRequired,
    OutputTooLarge,
    RequiresArtifactPromotion,
    UnsafeActiveContent,
    UnsupportedFormat,
}

/// One rich output: one representation of one displayed value.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CodeOutput {
    Inline {
        /// chart, data, json, latex, markdown or text; with `richOutputs: "inline"` also png,
        /// jpeg, svg and html.
        format: OutputFormat,
        /// Text, or JSON for json, data and chart; base64 for png and jpeg.
        #[schema(value_type = Value)]
        value: OutputValue,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        truncated: Option<bool>,
        #[serde(flatten)]
        origin: OutputOrigin,
    },
    Artifact {
        format: OutputFormat,
        #[serde(rename = "artifactId")]
        artifact_id: String,
        #[serde(rename = "contentType")]
        content_type: String,
        #[serde(rename = "sizeBytes")]
        size_bytes: u64,
        #[serde(flatten)]
        origin: OutputOrigin,
    },
    Rejected {
        format: OutputFormat,
        reason: RejectedReason,
        #[serde(flatten)]
        origin: OutputOrigin,
    },
}

/// What an inline output holds. JSON stays text until somebody needs it: a tree of values can be
/// thirty times as large.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum OutputValue {
    Text(String),
    Json(Box<RawValue>),
}

impl<'de> Deserialize<'de> for OutputValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not straight into RawValue: a tagged enum has buffered its content by now.
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self::Text(text)),
            other => serde_json::value::to_raw_value(&other)
                .map(Self::Json)
                .map_err(serde::de::Error::custom),
        }
    }
}

/// Extension: where an output comes from, so that representations of one value can be told from
/// several values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputOrigin {
    /// Number of the displayed value in its run, from 0; outputs with the same number are
    /// representations of one value.
    pub value_index: u32,
    /// MIME type as the code produced it.
    pub mime_type: String,
    /// True for the value of the last expression, absent for what was displayed on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_result: Option<bool>,
    /// Name of a display that later outputs may replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_id: Option<String>,
}

/// One event of a streamed run; the last one is always `complete`.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum RunStreamEvent<'a> {
    #[schema(value_type = String)]
    Stdout(&'a str),
    #[schema(value_type = String)]
    Stderr(&'a str),
    Output(&'a CodeOutput),
    /// Extension.
    Notice(&'a Notice),
    /// Extension, with `allowInput`: answer it with `POST …/contexts/{contextId}/input`.
    InputRequest(&'a InputRequest),
    Error(&'a CodeError),
    Complete(&'a RunCodeResult),
}

/// Answer of an interrupt.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InterruptAnswer {
    /// Whether a run was active.
    pub interrupted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A result is read and written several times on its way, and again when it is replayed.
    #[test]
    fn numbers_keep_their_last_digit() {
        for text in [
            "1.1139999999999999",
            "0.30000000000000004",
            "1.114",
            "5e-324",
        ] {
            let read: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn outputs_have_the_shape_of_the_contract() {
        let output = CodeOutput::Rejected {
            format: OutputFormat::Png,
            reason: RejectedReason::RequiresArtifactPromotion,
            origin: OutputOrigin {
                value_index: 0,
                mime_type: "image/png".into(),
                is_result: Some(true),
                display_id: None,
            },
        };
        let json = serde_json::to_value(&output).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "kind": "rejected", "format": "png", "reason": "requires_artifact_promotion",
                "valueIndex": 0, "mimeType": "image/png", "isResult": true,
            })
        );
        let event = serde_json::to_string(&RunStreamEvent::Stdout("hi\n")).unwrap();
        assert_eq!(event, r#"{"type":"stdout","data":"hi\n"}"#);
    }

    #[test]
    fn json_values_are_written_as_they_came_and_can_be_read_back() {
        let output = CodeOutput::Inline {
            format: OutputFormat::Json,
            value: OutputValue::Json(RawValue::from_string(r#"{"b":1.0}"#.to_owned()).unwrap()),
            truncated: None,
            origin: OutputOrigin {
                value_index: 1,
                mime_type: "application/json".into(),
                is_result: None,
                display_id: None,
            },
        };
        let json = serde_json::to_string(&output).unwrap();
        assert!(
            json.starts_with(r#"{"kind":"inline","format":"json","value":{"b":1.0},"#),
            "{json}"
        );
        let back: CodeOutput = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
    }

    #[test]
    fn absent_and_null_request_fields_mean_the_same_and_unknown_ones_are_tolerated() {
        let body = r#"{"code":"1","language":"python","contextId":null,"later":[1]}"#;
        let run: RunCode = serde_json::from_str(body).unwrap();
        assert_eq!((run.context_id, run.timeout_ms), (None, None));
    }
}
