//! Questions about a context: asked in its turn, answered by hostile code, shaped for clients.
//!
//! Owns: what a question may be, and how an answer becomes one of bounded types. An answer is JSON
//! that tenant code may have written: it is read item by item up to the limits, and what does not
//! fit is counted, not kept. Does not own: how a question travels ([`crate::host`]).

use crate::app::App;
use crate::checks;
use crate::error::{ApiError, ApiResult};
use crate::host::{BundleValue, HostError, Query, QuerySpec, RunOutcome, bundle_entries};
use crate::outputs;
use crate::runs::check_source;
use crate::sandboxes::LiveSandbox;
use crownest_api::code::OutputValue;
use crownest_api::introspection::{
    CompleteAnswer, CompleteCode, Completion, InspectAnswer, InspectCode, NameKind, QueryOutcome,
    Variable, VariablesAnswer,
};
use crownest_api::limits;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Longest text that may stand in a place; longer ones are left out.
const COMPLETION_BYTES_MAX: usize = 1024;
/// Longest name of a variable or type, and longest preview of a value.
const NAME_CHARS_MAX: usize = 256;
const PREVIEW_CHARS_MAX: usize = 200;
/// Dimensions of a shape.
const DIMENSIONS_MAX: usize = 32;

/// A question whose request has been checked.
#[derive(Debug)]
pub(crate) struct CheckedQuery {
    query: Query,
    code: String,
    timeout: Duration,
}

impl CheckedQuery {
    pub(crate) fn complete(request: CompleteCode) -> ApiResult<Self> {
        check_source(&request.code)?;
        Ok(Self {
            query: Query::Complete {
                cursor: cursor(request.cursor, &request.code)?,
            },
            code: request.code,
            timeout: timeout(request.timeout_ms)?,
        })
    }

    pub(crate) fn inspect(request: InspectCode) -> ApiResult<Self> {
        check_source(&request.code)?;
        let detail = request.detail.unwrap_or(0);
        if detail > 1 {
            return Err(ApiError::field("detail", "detail must be 0 or 1"));
        }
        Ok(Self {
            query: Query::Inspect {
                cursor: cursor(request.cursor, &request.code)?,
                detail,
            },
            code: request.code,
            timeout: timeout(request.timeout_ms)?,
        })
    }

    pub(crate) fn variables(limit: Option<u32>, timeout_ms: Option<u64>) -> ApiResult<Self> {
        let limit = limit.unwrap_or(limits::VARIABLES_DEFAULT);
        if !(1..=limits::VARIABLES_MAX).contains(&limit) {
            let message = format!("limit must be between 1 and {}", limits::VARIABLES_MAX);
            return Err(ApiError::field("limit", message));
        }
        Ok(Self {
            query: Query::Variables { limit },
            code: String::new(),
            timeout: timeout(timeout_ms)?,
        })
    }

    /// The word for it in audit events.
    pub(crate) fn name(&self) -> &'static str {
        match self.query {
            Query::Complete { .. } => "complete",
            Query::Inspect { .. } => "inspect",
            Query::Variables { .. } => "variables",
        }
    }
}

fn timeout(asked: Option<u64>) -> ApiResult<Duration> {
    let (default, max) = (
        limits::QUERY_TIMEOUT_DEFAULT_MS,
        limits::QUERY_TIMEOUT_MAX_MS,
    );
    checks::timeout(asked, default, max)
}

fn cursor(asked: Option<u64>, code: &str) -> ApiResult<u64> {
    let length = code_points(code);
    match asked {
        Some(cursor) if cursor > length => {
            let message = format!("cursor is behind the code, which has {length} code points");
            Err(ApiError::field("cursor", message))
        }
        asked => Ok(asked.unwrap_or(length)),
    }
}

fn code_points(code: &str) -> u64 {
    code.chars().count() as u64
}

/// What came of a question, not yet looked at.
#[derive(Debug)]
pub(crate) struct QueryAnswer {
    outcome: QueryOutcome,
    json: Option<Box<RawValue>>,
    query: Query,
    code_points: u64,
}

impl App {
    /// Asks about a context. When the returned future is dropped, what answers is interrupted.
    ///
    /// # Errors
    /// `not_found`; `rate_limited` when its turn does not come in time; not when the answer fails.
    pub(crate) async fn ask_context(
        &self,
        live: &Arc<LiveSandbox>,
        id: &str,
        checked: CheckedQuery,
    ) -> ApiResult<QueryAnswer> {
        let context = live.context(id)?;
        let mut answer = QueryAnswer {
            outcome: QueryOutcome::ContextDied,
            json: None,
            query: checked.query.clone(),
            code_points: code_points(&checked.code),
        };
        let spec = QuerySpec {
            context: context.id.clone(),
            query: checked.query,
            code: checked.code,
            timeout: checked.timeout,
        };
        let asked = match live.host.ask(spec).await {
            // Nothing is defined where nothing runs, and a question must not start anything.
            Err(HostError::ContextDead { .. } | HostError::ContextUnknown) => return Ok(answer),
            other => other?,
        };
        let _active = context.activate(asked.id());
        let _work = live.work();
        let done = asked.answer().await.ok_or(HostError::ShuttingDown)?;
        answer.json = done.answer;
        answer.outcome = match done.outcome {
            RunOutcome::Completed if answer.json.is_some() => QueryOutcome::Answered,
            RunOutcome::Completed => QueryOutcome::NoAnswer,
            RunOutcome::Interrupted => QueryOutcome::Interrupted,
            RunOutcome::TimedOut {
                context_alive: true,
            } => QueryOutcome::TimedOut,
            RunOutcome::OutOfMemory => QueryOutcome::OutOfMemory,
            RunOutcome::TimedOut {
                context_alive: false,
            }
            | RunOutcome::ContextDied { .. }
            | RunOutcome::NeverBegan { .. } => QueryOutcome::ContextDied,
        };
        Ok(answer)
    }
}

impl QueryAnswer {
    /// What a driver may answer to a question.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn of(checked: &CheckedQuery, json: Box<RawValue>) -> Self {
        Self {
            outcome: QueryOutcome::Answered,
            json: Some(json),
            query: checked.query.clone(),
            code_points: code_points(&checked.code),
        }
    }

    /// The answer as that type; one of another shape is none.
    fn read<'a, T: Deserialize<'a>>(&'a self) -> (QueryOutcome, Option<T>) {
        if self.outcome != QueryOutcome::Answered {
            return (self.outcome, None);
        }
        let read = self
            .json
            .as_ref()
            .and_then(|json| serde_json::from_str(json.get()).ok());
        match read {
            Some(read) => (QueryOutcome::Answered, Some(read)),
            None => (QueryOutcome::NoAnswer, None),
        }
    }

    pub(crate) fn completions(&self) -> CompleteAnswer {
        #[derive(Deserialize)]
        struct Raw {
            matches: AtMost<RawCompletion, { limits::COMPLETIONS_MAX }>,
            #[serde(default)]
            omitted: u64,
            start: u64,
            end: u64,
        }
        #[derive(Deserialize)]
        struct RawCompletion {
            text: String,
            #[serde(default)]
            kind: Option<Known<NameKind>>,
        }
        let cursor = match self.query {
            Query::Complete { cursor } | Query::Inspect { cursor, .. } => cursor,
            Query::Variables { .. } => 0,
        };
        let (outcome, read) = self.read::<Raw>();
        let Some(raw) = read else {
            return CompleteAnswer {
                outcome,
                matches: Vec::new(),
                omitted: None,
                start: cursor,
                end: cursor,
            };
        };
        let counted = raw.matches.items.len() as u64;
        let matches: Vec<Completion> = raw
            .matches
            .items
            .into_iter()
            .filter(|found| (1..=COMPLETION_BYTES_MAX).contains(&found.text.len()))
            .map(|found| Completion {
                text: found.text,
                kind: found.kind.and_then(|kind| kind.0),
            })
            .collect();
        let left_out = counted - matches.len() as u64;
        let end = raw.end.min(self.code_points);
        CompleteAnswer {
            outcome,
            omitted: more(&[raw.omitted, raw.matches.more, left_out]),
            matches,
            start: raw.start.min(end),
            end,
        }
    }

    pub(crate) fn inspection(&self) -> InspectAnswer {
        #[derive(Deserialize)]
        struct Raw<'a> {
            found: bool,
            /// None where nothing was found, or nothing is known about it.
            #[serde(borrow, default)]
            data: Option<&'a RawValue>,
        }
        let (outcome, read) = self.read::<Raw<'_>>();
        let mut answer = InspectAnswer {
            outcome,
            found: false,
            data: BTreeMap::new(),
            truncated: None,
        };
        let Some(raw) = read.filter(|raw| raw.found) else {
            return answer;
        };
        answer.found = true;
        for entry in raw.data.map(bundle_entries).unwrap_or_default() {
            // What may run scripts where it is shown is no documentation.
            if !outputs::is_inert_text(&entry.mime) {
                continue;
            }
            let value = match entry.value {
                BundleValue::Text(text) => {
                    let end = text.floor_char_boundary(limits::INSPECTION_BYTES_MAX);
                    if end < text.len() {
                        answer.truncated = Some(true);
                    }
                    OutputValue::Text(text[..end].to_owned())
                }
                BundleValue::Json(json) if outputs::is_too_deep(&json) => continue,
                BundleValue::Json(json) if json.get().len() > limits::INSPECTION_BYTES_MAX => {
                    answer.truncated = Some(true);
                    continue;
                }
                BundleValue::Json(json) => OutputValue::Json(json),
            };
            answer.data.insert(entry.mime, value);
        }
        answer
    }

    pub(crate) fn variables(&self) -> VariablesAnswer {
        #[derive(Deserialize)]
        struct Raw {
            variables: AtMost<RawVariable, { limits::VARIABLES_MAX as usize }>,
            #[serde(default)]
            omitted: u64,
        }
        #[derive(Deserialize)]
        struct RawVariable {
            name: String,
            #[serde(rename = "type")]
            type_name: String,
            #[serde(default)]
            kind: Option<Known<NameKind>>,
            #[serde(default)]
            shape: Option<Known<AtMost<u64, DIMENSIONS_MAX>>>,
            #[serde(default)]
            size: Option<Known<u64>>,
            #[serde(default)]
            preview: String,
        }
        let (outcome, read) = self.read::<Raw>();
        let Some(raw) = read else {
            return VariablesAnswer {
                outcome,
                variables: Vec::new(),
                omitted: None,
            };
        };
        let wanted = match self.query {
            Query::Variables { limit } => limit as usize,
            Query::Complete { .. } | Query::Inspect { .. } => 0,
        };
        let mut items = raw.variables.items;
        let left_out = items.len().saturating_sub(wanted) as u64;
        items.truncate(wanted);
        let variables = items.into_iter().map(|raw| Variable {
            name: cut(&raw.name, NAME_CHARS_MAX),
            type_name: cut(&raw.type_name, NAME_CHARS_MAX),
            kind: raw
                .kind
                .and_then(|kind| kind.0)
                .unwrap_or(NameKind::Variable),
            // Of more dimensions than that, a part would be another shape.
            shape: raw
                .shape
                .and_then(|shape| shape.0)
                .filter(|shape| shape.more == 0)
                .map(|shape| shape.items),
            size: raw.size.and_then(|size| size.0),
            preview: cut(&raw.preview, PREVIEW_CHARS_MAX),
        });
        VariablesAnswer {
            outcome,
            variables: variables.collect(),
            omitted: more(&[raw.omitted, raw.variables.more, left_out]),
        }
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

fn more(counts: &[u64]) -> Option<u64> {
    let sum = counts
        .iter()
        .fold(0_u64, |sum, count| sum.saturating_add(*count));
    (sum > 0).then_some(sum)
}

/// A value of that type, or whatever else was written there.
#[derive(Debug)]
struct Known<T>(Option<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Known<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(raw.get()).ok()))
    }
}

/// The first items of a list that are of that type; the others are counted.
#[derive(Debug)]
struct AtMost<T, const MAX: usize> {
    items: Vec<T>,
    more: u64,
}

impl<'de, T: DeserializeOwned, const MAX: usize> Deserialize<'de> for AtMost<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: DeserializeOwned, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = AtMost<T, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let (mut items, mut more) = (Vec::new(), 0);
                while items.len() < MAX {
                    match seq.next_element::<Known<T>>()? {
                        Some(Known(Some(item))) => items.push(item),
                        Some(Known(None)) => more += 1,
                        None => return Ok(AtMost { items, more }),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    more += 1;
                }
                Ok(AtMost { items, more })
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

#[cfg(test)]
mod tests;
