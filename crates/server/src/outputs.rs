//! From what a kernel displays to the outputs of the contract.
//!
//! A bundle is one value in several representations; each representation becomes one output:
//! inline when it is small and inert, to be made an artifact when the caller wants that, rejected
//! with the reason otherwise. Everything in a bundle was written by tenant code.

use crate::host::{Bundle, BundleValue, Export};
use crate::table_exports::{self, ExportedFile};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crownest_api::code::{
    ArtifactPolicy, CodeOutput, OutputFormat, OutputOrigin, OutputValue, RejectedReason,
    RichOutputs, TableExport,
};
use crownest_api::limits;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Deepest JSON that is passed on: parsers of clients recurse.
const JSON_DEPTH_MAX: usize = 100;

/// What the caller of a run asked for and may do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct OutputPolicy {
    pub artifacts: ArtifactPolicy,
    pub rich: RichOutputs,
    /// Whether the key has `artifact:create`.
    pub may_promote: bool,
    /// Tables are exported whole.
    pub tables: Option<TableExport>,
}

impl OutputPolicy {
    fn promotes(self) -> bool {
        self.artifacts == ArtifactPolicy::Promote && self.may_promote
    }

    /// What a driver is told of it.
    pub(crate) fn exports(self) -> Option<String> {
        self.tables.map(|format| format.as_str().to_owned())
    }

    fn lacks_scope(self) -> bool {
        self.artifacts == ArtifactPolicy::Promote && !self.may_promote
    }
}

/// An output, and what is to become an artifact for it.
#[derive(Debug)]
pub(crate) struct Shaped {
    pub output: CodeOutput,
    /// With it, the output is an artifact that has no id yet.
    pub payload: Option<Payload>,
}

/// What an artifact is made of.
#[derive(Debug)]
pub(crate) enum Payload {
    Bytes(Bytes),
    File(ExportedFile),
}

impl Payload {
    /// Bytes of it that this server holds.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(_) => 0,
        }
    }
}

impl From<CodeOutput> for Shaped {
    fn from(output: CodeOutput) -> Self {
        Self {
            output,
            payload: None,
        }
    }
}

/// Where in the run a bundle was displayed.
#[derive(Debug, Clone, Default)]
pub(crate) struct BundlePlace {
    pub value_index: u32,
    pub is_result: bool,
    pub display_id: Option<String>,
}

/// The outputs of one bundle, text first, in an order that does not depend on the driver's.
pub(crate) fn shape(bundle: Bundle, place: &BundlePlace, policy: OutputPolicy) -> Vec<Shaped> {
    let mut outputs: Vec<Shaped> = bundle
        .entries
        .into_iter()
        .map(|entry| {
            let origin = place.origin(entry.mime);
            shape_entry(entry.value, origin, policy)
        })
        .collect();
    for omitted in bundle.omitted {
        let origin = place.origin(omitted.mime);
        let format = format_of(&origin.mime_type).0;
        outputs.push(rejected(format, RejectedReason::OutputTooLarge, origin));
    }
    if let (Some(export), Some(wanted)) = (bundle.export, policy.tables) {
        outputs.push(exported(export, wanted, place));
    }
    outputs.sort_by_key(|shaped| rank(&shaped.output));
    outputs
}

/// The whole of a table, as the file that its driver says it has written.
fn exported(export: Export, wanted: TableExport, place: &BundlePlace) -> Shaped {
    let origin = place.origin(table_exports::mime_of(wanted).to_owned());
    match ExportedFile::checked(export, wanted) {
        Some(file) => artifact(OutputFormat::Data, 0, Payload::File(file), origin),
        None => rejected(
            OutputFormat::Data,
            RejectedReason::UnsupportedFormat,
            origin,
        ),
    }
}

impl BundlePlace {
    fn origin(&self, mime_type: String) -> OutputOrigin {
        OutputOrigin {
            value_index: self.value_index,
            mime_type,
            is_result: self.is_result.then_some(true),
            display_id: self.display_id.clone(),
        }
    }
}

/// How a MIME type is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Text,
    Json,
    /// Binary, inert when shown as an image.
    Image,
    /// May run scripts where it is shown.
    Active,
    Unsupported,
}

fn format_of(mime: &str) -> (OutputFormat, Class) {
    let essence = mime.split(';').next().unwrap_or_default().trim_end();
    match essence {
        "text/plain" => (OutputFormat::Text, Class::Text),
        "text/markdown" => (OutputFormat::Markdown, Class::Text),
        "text/latex" => (OutputFormat::Latex, Class::Text),
        "text/csv" => (OutputFormat::Data, Class::Text),
        "application/json" => (OutputFormat::Json, Class::Json),
        "image/png" => (OutputFormat::Png, Class::Image),
        "image/jpeg" => (OutputFormat::Jpeg, Class::Image),
        "image/svg+xml" => (OutputFormat::Svg, Class::Active),
        "text/html" => (OutputFormat::Html, Class::Active),
        _ if is_chart(essence) => (OutputFormat::Chart, Class::Json),
        "application/vnd.dataresource+json"
        | "application/vnd.crownest.data+json"
        | "application/vnd.crownest.table+json" => (OutputFormat::Data, Class::Json),
        _ => (OutputFormat::Data, Class::Unsupported),
    }
}

/// Whether a representation of that type is text or JSON, which nobody executes.
pub(crate) fn is_inert_text(mime: &str) -> bool {
    matches!(format_of(mime).1, Class::Text | Class::Json)
}

/// Whether parsers of clients may fail over it.
pub(crate) fn is_too_deep(json: &RawValue) -> bool {
    depth(json.get()) > JSON_DEPTH_MAX
}

fn is_chart(essence: &str) -> bool {
    essence
        .strip_prefix("application/vnd.")
        .is_some_and(|name| {
            name.ends_with("json")
                && ["plotly.", "vega.", "vegalite.", "crownest.chart"]
                    .iter()
                    .any(|library| name.starts_with(library))
        })
}

fn shape_entry(value: BundleValue, origin: OutputOrigin, policy: OutputPolicy) -> Shaped {
    let (format, class) = format_of(&origin.mime_type);
    match (class, value) {
        (Class::Text, BundleValue::Text(text))
            if format == OutputFormat::Data
                && text.len() > limits::INLINE_TEXT_BYTES_MAX
                && policy.promotes() =>
        {
            promoted(format, text.into(), origin)
        }
        (Class::Text, BundleValue::Text(text)) => inline_text(format, text, origin),
        (Class::Json, BundleValue::Json(json)) => {
            if json.get().len() > limits::INLINE_JSON_BYTES_MAX {
                if policy.promotes() {
                    let text: Box<str> = json.into();
                    return promoted(format, String::from(text).into(), origin);
                }
                let reason = if policy.lacks_scope() {
                    RejectedReason::ArtifactScopeRequired
                } else {
                    RejectedReason::OutputTooLarge
                };
                rejected(format, reason, origin)
            } else if is_too_deep(&json) {
                rejected(format, RejectedReason::UnsupportedFormat, origin)
            } else {
                inline(format, OutputValue::Json(json), None, origin)
            }
        }
        (Class::Image, BundleValue::Text(text)) => rich(format, text, true, origin, policy),
        (Class::Active, BundleValue::Text(text)) => rich(format, text, false, origin, policy),
        _ => rejected(format, RejectedReason::UnsupportedFormat, origin),
    }
}

fn inline_text(format: OutputFormat, mut text: String, origin: OutputOrigin) -> Shaped {
    let truncated = text.len() > limits::INLINE_TEXT_BYTES_MAX;
    if truncated {
        text.truncate(text.floor_char_boundary(limits::INLINE_TEXT_BYTES_MAX));
    }
    inline(
        format,
        OutputValue::Text(text),
        truncated.then_some(true),
        origin,
    )
}

/// A png, jpeg, svg or html output.
fn rich(
    format: OutputFormat,
    text: String,
    image: bool,
    origin: OutputOrigin,
    policy: OutputPolicy,
) -> Shaped {
    let fits = text.len() <= limits::INLINE_RICH_BYTES_MAX;
    if policy.rich == RichOutputs::Inline && fits {
        let text = if image {
            canonical_base64(text).map(|(text, _)| text)
        } else {
            Some(text)
        };
        return match text {
            Some(text) => inline(format, OutputValue::Text(text), None, origin),
            None => rejected(format, RejectedReason::UnsupportedFormat, origin),
        };
    }
    if policy.promotes() {
        let bytes = if image {
            canonical_base64(text).map(|(_, bytes)| bytes)
        } else {
            Some(text.into_bytes())
        };
        return match bytes {
            Some(bytes) => promoted(format, bytes.into(), origin),
            None => rejected(format, RejectedReason::UnsupportedFormat, origin),
        };
    }
    let reason = match policy.rich {
        _ if policy.lacks_scope() => RejectedReason::ArtifactScopeRequired,
        RichOutputs::Inline => RejectedReason::OutputTooLarge,
        RichOutputs::Contract if image => RejectedReason::RequiresArtifactPromotion,
        RichOutputs::Contract => RejectedReason::UnsafeActiveContent,
    };
    rejected(format, reason, origin)
}

/// An output that becomes an artifact.
fn promoted(format: OutputFormat, bytes: Bytes, origin: OutputOrigin) -> Shaped {
    artifact(format, bytes.len() as u64, Payload::Bytes(bytes), origin)
}

fn artifact(
    format: OutputFormat,
    size_bytes: u64,
    payload: Payload,
    origin: OutputOrigin,
) -> Shaped {
    let content_type = match (format, &*origin.mime_type) {
        (OutputFormat::Png, _) => "image/png",
        (OutputFormat::Jpeg, _) => "image/jpeg",
        (OutputFormat::Svg, _) => "image/svg+xml",
        (OutputFormat::Html, _) => "text/html; charset=utf-8",
        (OutputFormat::Data, "text/csv") => "text/csv; charset=utf-8",
        (OutputFormat::Data, table_exports::PARQUET) => table_exports::PARQUET,
        _ => "application/json",
    };
    let output = CodeOutput::Artifact {
        format,
        artifact_id: String::new(),
        content_type: content_type.to_owned(),
        size_bytes,
        origin,
    };
    Shaped {
        output,
        payload: Some(payload),
    }
}

/// The name of an artifact that was displayed.
pub(crate) fn name_of(output: &CodeOutput) -> String {
    let (CodeOutput::Inline { format, origin, .. }
    | CodeOutput::Artifact { format, origin, .. }
    | CodeOutput::Rejected { format, origin, .. }) = output;
    let extension = match (format, &*origin.mime_type) {
        (OutputFormat::Png, _) => "png",
        (OutputFormat::Jpeg, _) => "jpg",
        (OutputFormat::Svg, _) => "svg",
        (OutputFormat::Html, _) => "html",
        (OutputFormat::Data, "text/csv") => "csv",
        (OutputFormat::Data, table_exports::PARQUET) => "parquet",
        _ => "json",
    };
    format!("output-{}.{extension}", origin.value_index + 1)
}

/// The same bytes in base64 without line breaks, and the bytes; `None` when it was no base64.
fn canonical_base64(mut text: String) -> Option<(String, Vec<u8>)> {
    text.retain(|c| !c.is_ascii_whitespace());
    STANDARD.decode(&text).ok().map(|bytes| (text, bytes))
}

fn inline(
    format: OutputFormat,
    value: OutputValue,
    truncated: Option<bool>,
    origin: OutputOrigin,
) -> Shaped {
    CodeOutput::Inline {
        format,
        value,
        truncated,
        origin,
    }
    .into()
}

fn rejected(format: OutputFormat, reason: RejectedReason, origin: OutputOrigin) -> Shaped {
    CodeOutput::Rejected {
        format,
        reason,
        origin,
    }
    .into()
}

/// Text first: consumers that show one output show the first.
fn rank(output: &CodeOutput) -> u8 {
    let (CodeOutput::Inline { format, .. }
    | CodeOutput::Artifact { format, .. }
    | CodeOutput::Rejected { format, .. }) = output;
    match format {
        OutputFormat::Text => 0,
        OutputFormat::Markdown => 1,
        OutputFormat::Latex => 2,
        OutputFormat::Json => 3,
        OutputFormat::Data => 4,
        OutputFormat::Chart => 5,
        OutputFormat::Png => 6,
        OutputFormat::Jpeg => 7,
        OutputFormat::Svg => 8,
        OutputFormat::Html => 9,
    }
}

/// Deepest nesting of well-formed JSON.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Bytes that an output takes in an answer, roughly: what the bound on a run's outputs counts.
pub(crate) fn weight(output: &CodeOutput) -> usize {
    const FIXED: usize = 200;
    FIXED
        + match output {
            CodeOutput::Inline {
                value: OutputValue::Text(text),
                ..
            } => text.len(),
            CodeOutput::Inline {
                value: OutputValue::Json(json),
                ..
            } => json.get().len(),
            CodeOutput::Artifact { .. } | CodeOutput::Rejected { .. } => 0,
        }
}

#[cfg(test)]
mod tests;
