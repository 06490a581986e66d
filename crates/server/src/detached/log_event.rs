//! What the log of a run holds beside output: events in JSON, some for those who follow the run,
//! some only for the server that takes it up.

use crate::command_log::{Part, Record};
use crate::run_result::RunCollector;
use crownest_api::Timestamp;
use crownest_api::code::{CodeError, CodeOutput, InputRequest, Notice};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Longest event: the longest output, in which every byte is escaped, and some.
const EVENT_BYTES_MAX: usize = 56 * 1024 * 1024;

/// An event as it is written.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Written<'a> {
    Output {
        data: &'a CodeOutput,
    },
    Notice {
        data: &'a Notice,
    },
    InputRequest {
        data: &'a InputRequest,
    },
    /// The interpreter's error; what the run is reported with is known at its end.
    Raised {
        data: &'a CodeError,
    },
    /// A value of so many bytes follows, of which so many outputs did not fit.
    Shown {
        bytes: u64,
        omitted: u64,
    },
    Withdrawn {
        display_id: &'a str,
    },
    Cleared {
        wait: bool,
    },
    /// A driver's frame without meaning: here so that its number is on record.
    Nothing,
}

impl Written<'_> {
    pub(super) fn encode(&self) -> bytes::Bytes {
        // Types of ours, whose strings are UTF-8: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// The same, read by a server that takes the run up.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Read {
    Output { data: CodeOutput },
    Notice { data: Notice },
    InputRequest {},
    Raised { data: CodeError },
    Shown { bytes: u64, omitted: u64 },
    Withdrawn { display_id: String },
    Cleared { wait: bool },
    Nothing,
}

/// Tells a collector what was said before. False for what is no event.
pub(super) fn restore(event: &[u8], collector: &mut RunCollector) -> bool {
    let Ok(event) = serde_json::from_slice::<Read>(event) else {
        return false;
    };
    match event {
        Read::Output { data } => collector.restore_output(data),
        Read::Notice { data } => collector.restore_notice(data),
        Read::Raised { data } => collector.restore_error(data),
        Read::Shown { bytes, omitted } => collector.restore_shown(bytes, omitted),
        Read::Withdrawn { display_id } => collector.restore_withdrawn(&display_id),
        Read::Cleared { wait } => collector.restore_cleared(wait),
        Read::InputRequest {} | Read::Nothing => {}
    }
    true
}

/// An event for those who follow a run: as `CodeRunEvent` would be written, with what is inside
/// untouched.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Followed<'a> {
    #[serde(rename = "type")]
    pub(super) kind: Cow<'a, str>,
    seq: u64,
    data: &'a RawValue,
    created_at: Timestamp,
}

impl<'a> Followed<'a> {
    /// None for events that are the server's own.
    pub(super) fn of(event: &'a [u8], seq: u64, created_at: Timestamp) -> Option<Self> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
            #[serde(borrow, default)]
            data: Option<&'a RawValue>,
        }
        let head: Head<'a> = serde_json::from_slice(event).ok()?;
        let shown = matches!(&*head.kind, "output" | "notice" | "input_request");
        shown.then_some(())?;
        Some(Self {
            kind: head.kind,
            seq,
            data: head.data?,
            created_at,
        })
    }
}

/// Joins the records of an event. One that begins before the place where a reader begins is
/// skipped.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    bytes: Vec<u8>,
    begun: bool,
}

impl Assembler {
    /// The whole event, when this was the last record of it.
    pub(super) fn push(&mut self, record: &Record, part: Part) -> Option<Vec<u8>> {
        if part.begins {
            self.bytes.clear();
            self.begun = true;
        }
        if !self.begun || self.bytes.len() + record.data.len() > EVENT_BYTES_MAX {
            self.bytes = Vec::new();
            self.begun = false;
            return None;
        }
        self.bytes.extend_from_slice(&record.data);
        part.ends.then(|| {
            self.begun = false;
            std::mem::take(&mut self.bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Death, RunDone, RunEvent, RunOutcome};
    use crate::outputs::OutputPolicy;
    use crate::run_result::{Keeping, RunPlace};
    use bytes::Bytes;
    use crownest_api::code::{ArtifactPolicy, RichOutputs};
    use std::time::Duration;

    fn collector() -> RunCollector {
        let policy = OutputPolicy {
            artifacts: ArtifactPolicy::InlineOnly,
            rich: RichOutputs::Inline,
            may_promote: false,
            tables: None,
        };
        RunCollector::new(policy, &Keeping::default())
    }

    fn result(collector: RunCollector) -> serde_json::Value {
        let done = RunDone {
            outcome: RunOutcome::ContextDied {
                death: Death::default(),
                cause: "test".into(),
            },
            execution_count: 1,
            duration: Duration::from_secs(1),
            cpu: None,
            usage: None,
            background_dropped: 0,
        };
        let place = RunPlace {
            sandbox_id: "sbx_1".into(),
            context_id: "cctx_1".into(),
            language: "python".into(),
            context_reset: false,
            code_bytes: 1,
        };
        serde_json::to_value(collector.finish(&done, place).0).unwrap()
    }

    fn event(json: &serde_json::Value) -> RunEvent {
        crate::host::parse_event(json.to_string().as_bytes()).unwrap()
    }

    /// What is written of a run's events brings another collector to the same result.
    #[test]
    fn a_run_that_is_taken_up_has_the_result_of_one_that_was_not() {
        let show = |text: &str| serde_json::json!({"ev": "display", "run": 1, "data": {"text/plain": text, "application/json": {"a": [1, text]}}});
        let mut update = show("updated");
        update["display_id"] = "d".into();
        let mut first = update.clone();
        update["update"] = true.into();
        first["data"]["text/plain"] = "first".into();
        let mut large = show("large");
        large["data"]["text/html"] = "\u{1}".repeat(1_000).into();
        let events = [
            show("gone"),
            serde_json::json!({"ev": "clear", "run": 1, "wait": true}),
            first,
            large,
            update,
            serde_json::json!({"ev": "notice", "run": 1, "code": "c", "message": "m"}),
            serde_json::json!({"ev": "error", "run": 1, "name": "E", "message": "m", "traceback": ["t"]}),
        ];
        let (mut told, mut restored) = (collector(), collector());
        for json in &events {
            let entries = super::super::drive::told(&mut told, event(json));
            for entry in entries {
                assert!(restore(&entry, &mut restored), "{entry:?}");
            }
        }
        let (told, restored) = (result(told), result(restored));
        assert_eq!(told, restored);
        assert!(told["outputs"].as_array().unwrap().len() >= 5, "{told}");
    }

    #[test]
    fn followers_get_the_event_as_it_is_and_only_what_is_theirs() {
        let notice = Notice {
            code: "c".into(),
            message: "a\u{2028}".into(),
        };
        let written = Written::Notice { data: &notice }.encode();
        let at = Timestamp::from_millis(1_500);
        let short = serde_json::to_value(Followed::of(&written, 7, at).unwrap()).unwrap();
        let long = crownest_api::detached_run::CodeRunEvent::Notice {
            seq: 7,
            data: notice,
            created_at: at,
        };
        assert_eq!(short, serde_json::to_value(long).unwrap());
        for own in [
            Written::Nothing,
            Written::Cleared { wait: true },
            Written::Shown {
                bytes: 1,
                omitted: 0,
            },
        ] {
            assert!(Followed::of(&own.encode(), 7, at).is_none(), "{own:?}");
        }
    }

    #[test]
    fn events_are_joined_and_what_began_before_is_skipped() {
        let record = |data: &'static str| Record {
            seq: 1,
            stream: crate::command_log::LogStream::Stdout,
            event: None,
            whole: false,
            handled: 0,
            at: 0,
            data: Bytes::from_static(data.as_bytes()),
        };
        let part = |begins, ends| Part { begins, ends };
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(&record("x"), part(false, false)), None);
        assert_eq!(assembler.push(&record("x"), part(false, true)), None);
        assert_eq!(assembler.push(&record("a"), part(true, false)), None);
        assert_eq!(
            assembler.push(&record("b"), part(false, true)),
            Some(b"ab".to_vec())
        );
        assert_eq!(
            assembler.push(&record("c"), part(true, true)),
            Some(b"c".to_vec())
        );
    }
}
