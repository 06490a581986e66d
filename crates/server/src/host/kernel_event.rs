//! Events of a language driver, from hostile JSON to bounded types.
//!
//! A driver runs tenant code in its own process, so its JSON may be anything. It is parsed once,
//! in the task that consumes the run, straight into types whose size is bounded by the frame:
//! JSON values inside a bundle stay text, because a tree of them can be thirty times as large.

use super::types::RunEvent;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Longest event; the kernel protocol's own limit for a frame.
const EVENT_BYTES_MAX: usize = 12 * 1024 * 1024;
/// MIME types in one bundle.
const BUNDLE_ENTRIES_MAX: usize = 64;
/// Longest MIME type, exception name, display id.
const NAME_CHARS_MAX: usize = 256;
/// Longest message of an exception; of a longer one it is said how much is left out.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Lines of a traceback; instead of the rest it is said how many there were.
const TRACEBACK_LINES_MAX: usize = 1_000;
/// Longest line of a traceback; of a longer one it is said how much is left out.
const TRACEBACK_LINE_BYTES_MAX: usize = 8 * 1024;
/// Longest code and message of a notice, longest prompt; of longer ones it is said how much is left
/// out.
const NOTICE_CODE_BYTES_MAX: usize = 64;
const NOTICE_MESSAGE_BYTES_MAX: usize = 4 * 1024;
const PROMPT_BYTES_MAX: usize = 4 * 1024;
/// Largest metadata that is read.
const METADATA_BYTES_MAX: usize = 64 * 1024;

/// A rich result: the same value in one or several representations.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    pub entries: Vec<BundleEntry>,
    /// Representations that the driver left out because they were too large.
    pub omitted: Vec<Omitted>,
    /// The file that the driver says the whole value is in.
    pub export: Option<Export>,
    /// The driver's metadata as JSON text, at most [`METADATA_BYTES_MAX`].
    pub metadata: Option<Box<RawValue>>,
    pub execution_count: Option<u64>,
}

impl Bundle {
    /// Bytes of all representations as they came.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = self.entries.iter().map(|entry| match &entry.value {
            BundleValue::Text(text) => text.len() as u64,
            BundleValue::Json(json) => json.get().len() as u64,
        });
        bytes.sum()
    }

    /// The representation of that MIME type.
    #[must_use]
    pub fn get(&self, mime: &str) -> Option<&BundleValue> {
        self.entries
            .iter()
            .find(|e| e.mime == mime)
            .map(|e| &e.value)
    }
}

/// One representation.
#[derive(Debug, Clone)]
pub struct BundleEntry {
    /// `type/subtype`, printable ASCII.
    pub mime: String,
    pub value: BundleValue,
}

/// The content of one representation.
#[derive(Debug, Clone)]
pub enum BundleValue {
    /// Text, or base64 for binary types. Not checked to be valid base64.
    Text(String),
    /// Well-formed JSON, for types that end in `json`.
    Json(Box<RawValue>),
}

/// A representation that was too large.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Omitted {
    pub mime: String,
    pub bytes: u64,
}

/// A file of the sandbox: what a driver says, nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Export {
    pub path: String,
    pub format: String,
}

/// Parses one event. `None`: malformed or unknown, to be dropped and counted.
pub(crate) fn parse(json: &[u8]) -> Option<RunEvent> {
    if json.len() > EVENT_BYTES_MAX {
        return None;
    }
    let event: RawEvent<'_> = serde_json::from_slice(json).ok()?;
    match &*event.ev {
        "result" => Some(RunEvent::Result(event.bundle()?)),
        "display" => Some(RunEvent::Display {
            display_id: match &event.display_id {
                Some(id) => Some(name(id)?),
                None => None,
            },
            update: event.update.unwrap_or(false),
            bundle: event.bundle()?,
        }),
        "clear" => Some(RunEvent::Clear {
            wait: event.wait.unwrap_or(false),
        }),
        "error" => Some(RunEvent::Error {
            name: event
                .name
                .as_deref()
                .map(|n| cut_chars(n, NAME_CHARS_MAX))?,
            message: event
                .message
                .as_deref()
                .map_or_else(String::new, |m| cut_bytes(m, MESSAGE_BYTES_MAX)),
            traceback: event.traceback.map(|t| t.0).unwrap_or_default(),
            line: event
                .line
                .and_then(|l| u32::try_from(l).ok())
                .filter(|l| *l > 0),
        }),
        "notice" => Some(RunEvent::Notice {
            code: event
                .code
                .as_deref()
                .filter(|code| is_word(code))
                .map(str::to_owned)?,
            message: text(event.message.as_deref(), NOTICE_MESSAGE_BYTES_MAX),
        }),
        "input" => Some(RunEvent::Input {
            prompt: text(event.prompt.as_deref(), PROMPT_BYTES_MAX),
            password: event.password.unwrap_or(false),
        }),
        "answer" => Some(RunEvent::Answer(event.answer?.to_owned())),
        _ => None,
    }
}

fn text(text: Option<&str>, bytes_max: usize) -> String {
    text.map_or_else(String::new, |text| cut_bytes(text, bytes_max))
}

fn is_word(code: &str) -> bool {
    (1..=NOTICE_CODE_BYTES_MAX).contains(&code.len())
        && code
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Fields of every event; which ones count depends on `ev`.
#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow)]
    ev: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<RawBundle<'a>>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(default)]
    count: Option<u64>,
    #[serde(borrow, default)]
    display_id: Option<Cow<'a, str>>,
    #[serde(default)]
    update: Option<bool>,
    #[serde(default)]
    wait: Option<bool>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
    #[serde(default)]
    traceback: Option<Traceback>,
    #[serde(default)]
    line: Option<i64>,
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    prompt: Option<Cow<'a, str>>,
    #[serde(default)]
    password: Option<bool>,
    #[serde(borrow, default)]
    answer: Option<&'a RawValue>,
}

impl RawEvent<'_> {
    fn bundle(&self) -> Option<Bundle> {
        let entries = entries(self.data.as_ref()?);
        let metadata = self
            .metadata
            .filter(|m| m.get().len() <= METADATA_BYTES_MAX);
        let ours = metadata.map(Ours::of).unwrap_or_default();
        Some(Bundle {
            entries,
            omitted: ours.omitted(),
            export: ours.export(),
            metadata: metadata.map(ToOwned::to_owned),
            execution_count: self.count,
        })
    }
}

/// The representations in a JSON object of MIME types, as those of an event.
#[must_use]
pub fn bundle_entries(data: &RawValue) -> Vec<BundleEntry> {
    serde_json::from_str::<RawBundle<'_>>(data.get())
        .map(|bundle| entries(&bundle))
        .unwrap_or_default()
}

fn entries(bundle: &RawBundle<'_>) -> Vec<BundleEntry> {
    let mut entries = Vec::new();
    for (mime, raw) in &bundle.0 {
        if entries.len() == BUNDLE_ENTRIES_MAX {
            break;
        }
        // One bad representation does not take the good ones with it.
        if let (true, Some(value)) = (is_mime(mime), bundle_value(mime, raw)) {
            entries.push(BundleEntry {
                mime: mime.clone().into_owned(),
                value,
            });
        }
    }
    entries
}

fn bundle_value(mime: &str, raw: &RawValue) -> Option<BundleValue> {
    if mime.ends_with("json") {
        return Some(BundleValue::Json(raw.to_owned()));
    }
    serde_json::from_str::<String>(raw.get())
        .ok()
        .map(BundleValue::Text)
}

/// `metadata.crownest`, as far as it is well-formed.
#[derive(Default, Deserialize)]
struct Ours<'a> {
    #[serde(borrow, default)]
    omitted: Option<&'a RawValue>,
    #[serde(borrow, default)]
    export: Option<&'a RawValue>,
}

impl<'a> Ours<'a> {
    fn of(metadata: &'a RawValue) -> Self {
        #[derive(Deserialize)]
        struct Metadata<'a> {
            #[serde(borrow)]
            crownest: Ours<'a>,
        }
        serde_json::from_str::<Metadata<'_>>(metadata.get())
            .map(|metadata| metadata.crownest)
            .unwrap_or_default()
    }

    fn omitted(&self) -> Vec<Omitted> {
        let list = self.omitted.map(|raw| serde_json::from_str(raw.get()));
        let mut list: Vec<Omitted> = list.and_then(Result::ok).unwrap_or_default();
        list.retain(|o| is_mime(&o.mime));
        list.truncate(BUNDLE_ENTRIES_MAX);
        list
    }

    fn export(&self) -> Option<Export> {
        serde_json::from_str(self.export?.get()).ok()
    }
}

/// `type/subtype` with optional parameters, printable ASCII, no spaces beyond single ones.
fn is_mime(mime: &str) -> bool {
    mime.len() <= NAME_CHARS_MAX
        && mime
            .split_once('/')
            .is_some_and(|(kind, sub)| !kind.is_empty() && !sub.is_empty())
        && mime.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

fn name(text: &str) -> Option<String> {
    (text.chars().count() <= NAME_CHARS_MAX).then(|| text.to_owned())
}

fn cut_chars(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

/// The start of a text, and what is missing of it.
fn cut_bytes(text: &str, bytes_max: usize) -> String {
    let (kept, rest) = text.split_at(text.floor_char_boundary(bytes_max));
    if rest.is_empty() {
        return kept.to_owned();
    }
    format!("{kept}… [{} bytes left out]", rest.len())
}

/// MIME type → value, kept as text; at most one past the limit is stored, the rest is skipped.
struct RawBundle<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for RawBundle<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawBundle<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a MIME bundle")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some(Text(mime)) = map.next_key::<Text<'de>>()? {
                    if entries.len() == BUNDLE_ENTRIES_MAX {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((mime, map.next_value()?));
                    }
                }
                Ok(RawBundle(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Lines of a traceback, cut in number and length while they are read.
struct Traceback(Vec<String>);

impl<'de> Deserialize<'de> for Traceback {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lines;
        impl<'de> Visitor<'de> for Lines {
            type Value = Traceback;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of lines")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut lines = Vec::new();
                while lines.len() < TRACEBACK_LINES_MAX {
                    let Some(Text(line)) = seq.next_element::<Text<'de>>()? else {
                        break;
                    };
                    lines.push(cut_bytes(&line, TRACEBACK_LINE_BYTES_MAX));
                }
                let mut left_out = 0u64;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    left_out += 1;
                }
                if left_out > 0 {
                    lines.push(format!("… [{left_out} lines left out]"));
                }
                Ok(Traceback(lines))
            }
        }
        deserializer.deserialize_seq(Lines)
    }
}

#[cfg(test)]
mod tests;
