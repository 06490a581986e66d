//! Questions about a code context that run no cell: what may stand here, what is this, what is
//! defined; and the line that running code waits for. All of it is an extension of the contract.

use crate::code::{CodeContext, OutputValue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// `POST …/code/contexts/{contextId}/complete`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompleteCode {
    /// Source in the making, at most 256 KiB.
    #[schema(example = "import math\nmath.sq")]
    pub code: String,
    /// Place in the code, in Unicode code points; default: its end.
    pub cursor: Option<u64>,
    /// How long the answer may take; default 5,000.
    #[schema(minimum = 1, maximum = 30_000)]
    pub timeout_ms: Option<u64>,
}

/// `POST …/code/contexts/{contextId}/inspect`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectCode {
    /// Source, at most 256 KiB.
    #[schema(example = "len")]
    pub code: String,
    /// Place in the code, in Unicode code points; default: its end.
    pub cursor: Option<u64>,
    /// 0 (default): signature and documentation; 1: the source as well.
    #[schema(minimum = 0, maximum = 1)]
    pub detail: Option<u8>,
    /// How long the answer may take; default 5,000.
    #[schema(minimum = 1, maximum = 30_000)]
    pub timeout_ms: Option<u64>,
}

/// How a question ended. Only `answered` has an answer; with any other word the rest is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryOutcome {
    Answered,
    /// The context's language does not know this question, or code of the context failed over it.
    NoAnswer,
    /// By request.
    Interrupted,
    /// It was interrupted at its timeout; the state of the context is kept.
    TimedOut,
    /// The interpreter was killed for want of memory; its state is lost.
    OutOfMemory,
    /// The interpreter ended under it, or at its timeout did not let itself be interrupted, or was
    /// lost before: the state is lost. The next run gets a fresh interpreter.
    ContextDied,
}

/// Kind of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NameKind {
    Variable,
    Function,
    Class,
    Module,
    Keyword,
    Property,
    File,
}

/// Text that may stand in a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Completion {
    #[schema(example = "sqrt")]
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<NameKind>,
}

/// Answer with what may stand at a place.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompleteAnswer {
    pub outcome: QueryOutcome,
    /// At most 200.
    pub matches: Vec<Completion>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<u64>,
    /// What of the code a match replaces, in Unicode code points.
    pub start: u64,
    pub end: u64,
}

/// Answer with what stands at a place.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectAnswer {
    pub outcome: QueryOutcome,
    pub found: bool,
    /// Signature and documentation by MIME type: text, markdown, LaTeX or JSON. Untrusted code may
    /// have written it.
    #[schema(value_type = BTreeMap<String, Value>)]
    pub data: BTreeMap<String, OutputValue>,
    /// Whether something of it was left out because it was too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
}

/// One name that is defined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Variable {
    pub name: String,
    #[serde(rename = "type")]
    #[schema(example = "DataFrame")]
    pub type_name: String,
    pub kind: NameKind,
    /// Rows and columns of a table, dimensions of an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u64>>,
    /// Number of elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The beginning of its value as text, at most 200 characters.
    pub preview: String,
}

/// Answer with what is defined, in the order of definition.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VariablesAnswer {
    pub outcome: QueryOutcome,
    pub variables: Vec<Variable>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<u64>,
}

/// Answer of a restart.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartAnswer {
    pub context: CodeContext,
    /// Always true: everything that was defined in the context is gone.
    pub state_lost: bool,
    /// Whether a run was active; it has ended with `context_died`.
    pub interrupted: bool,
}

/// `POST …/code/contexts/{contextId}/input`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct InputLine {
    /// The line, without its end, at most 64 KiB; null or absent is the end of the input.
    #[schema(example = "yes")]
    pub value: Option<String>,
}

/// Answer to a line.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InputAnswer {
    /// Always true: a line that nobody waits for is refused (409 `input_not_awaited`).
    pub delivered: bool,
}
