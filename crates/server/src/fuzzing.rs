//! Opens private parsers to the fuzz targets of `fuzz/`: in no build but theirs, and no part of
//! the crate's interface.
//!
//! Each function runs a parser the way the server runs it, on bytes of a client or of a sandbox,
//! and panics when something does not hold that must hold whatever the bytes are.

use crate::archive::{self, ArchiveError, sample};
use crate::auth::{self, Actor, Principal};
use crate::code::ContextCreation;
use crate::commands::{CheckedCommand, LogQuery, Place, Wait};
use crate::host::{RunDone, RunEvent, RunOutcome};
use crate::introspection::{CheckedQuery, QueryAnswer};
use crate::output_budget::{Budget, Budgeted};
use crate::outputs::OutputPolicy;
use crate::plans::Plan;
use crate::run_answer::complete_frame;
use crate::run_result::{Keeping, RunCollector, RunPlace, Step};
use crate::runs::CheckedRun;
use crate::{
    ApiError, ApiResult, byte_range, checks, extract, file_transfers, idempotency, request, routes,
    signed_url, sse,
};
use axum::extract::Query;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use bytes::Bytes;
use crownest_api::code::{
    ArtifactPolicy, CreateContext, RichOutputs, RunCode, RunCodeResult, RunStreamEvent,
};
use crownest_api::command::RunCommand;
use crownest_api::file::{MakeDirectory, MoveFile, WriteFile};
use crownest_api::introspection::{CompleteCode, InspectCode};
use crownest_api::output_budget::OutputBudget;
use crownest_api::project::CreateProject;
use crownest_api::sandbox::{CreateSandbox, ExtendSandbox};
use crownest_api::scope::ScopeSet;
use crownest_api::{ErrorBody, limits, metadata};
use crownest_init::unpack::{Entry, EntryKind};
use serde::Serialize;
use serde_json::value::RawValue;
use std::time::Duration;

pub use crate::command_log::fuzzing::log_segment;
pub use crate::dialects::fuzzing::{glob, multipart, terminal_message};
pub use crate::egress::fuzzing::{policy, proxied};
pub use crate::host::fuzzing::{InitLink, event};
pub use crate::previews::fuzzing as preview;

/// Longest error body: what a client wrote comes back cut.
const ERROR_BYTES_MAX: usize = 4 * 1024;

/// One JSON body, parsed and checked as its route does it.
pub fn body(route: u8, raw: &[u8]) {
    let who = Principal {
        actor: Actor::ApiKey,
        plan: Plan::default(),
        key_id: "key_1".into(),
        org_id: "org_1".into(),
        user_id: "usr_1".into(),
        scopes: ScopeSet::default(),
        project_ids: None,
    };
    refused_well(match route % 9 {
        0 => extract::parse_json::<CreateSandbox>(raw).and_then(|request| {
            metadata::check(&request.metadata.unwrap_or_default())?;
            checks::environment(&request.env.unwrap_or_default())
        }),
        1 => extract::parse_json::<RunCode>(raw)
            .and_then(|request| CheckedRun::check(request, &who).map(drop)),
        2 => extract::parse_json::<RunCommand>(raw)
            .and_then(|request| CheckedCommand::check(request, Wait::End, &who).map(drop)),
        3 => extract::parse_json::<CreateContext>(raw)
            .and_then(|request| ContextCreation::check(&request).map(drop)),
        4 => extract::parse_json::<WriteFile>(raw).and_then(|request| path(&request.path)),
        5 => extract::parse_json::<MakeDirectory>(raw).and_then(|request| path(&request.path)),
        6 => extract::parse_json::<MoveFile>(raw)
            .and_then(|request| path(&request.from).and_then(|()| path(&request.to))),
        7 => extract::parse_json::<CreateProject>(raw)
            .and_then(|request| checks::name(&request.name)),
        _ => extract::parse_json::<ExtendSandbox>(raw).map(drop),
    });
}

/// A path that passes says nothing that init's reading of it contradicts.
fn path(text: &str) -> ApiResult<()> {
    let passed = checks::path("path", text)?;
    assert!(passed.starts_with('/') && !passed.contains('\0'));
    if let Ok(Some(cwd)) = checks::cwd(Some(text)) {
        let plain = crownest_init::path::without_dots(cwd.as_ref());
        assert!(crownest_init::path::inside(&plain), "{cwd:?}");
    }
    Ok(())
}

/// The query of a list.
pub fn query(text: &[u8]) {
    let Ok(uri) = Uri::try_from([b"/v1/sandboxes?", text].concat()) else {
        return;
    };
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(&uri) else {
        return;
    };
    refused_well(routes::list_query(pairs).and_then(|(page, filter)| {
        assert!(filter.metadata.len() <= limits::METADATA_KEYS_MAX);
        routes::page_request(&page).map(drop)
    }));
}

/// Headers that the server reads by itself.
pub fn header(name: u8, value: &[u8]) {
    let names = [
        "authorization",
        "x-api-key",
        "idempotency-key",
        "x-request-id",
    ];
    let name = names[usize::from(name) % names.len()];
    let Ok(value) = HeaderValue::from_bytes(value) else {
        return;
    };
    let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value)]);
    refused_well(auth::token(&headers).map(|token| {
        let agent = token.starts_with("cn_agent_");
        assert!(agent || token.starts_with("cn_live_") && token.len() <= 512);
        let allowed: &[u8] = if agent { b"_-." } else { b"_" };
        assert!(
            token
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || allowed.contains(&b))
        );
        if let Some(jwt) = token.strip_prefix("cn_agent_") {
            crate::agents::forged(jwt);
        }
    }));
    refused_well(idempotency::key(&headers).map(|key| {
        let length = key.map_or(1, |key| key.len());
        assert!((1..=limits::IDEMPOTENCY_KEY_BYTES_MAX).contains(&length));
    }));
    let id = request::request_id(&headers);
    assert!((1..=128).contains(&id.len()) && HeaderValue::from_str(&id).is_ok());
}

/// `Range` of a request for so many bytes: what it gives is there, or it gives nothing.
pub fn range(size: u64, value: &str) {
    match byte_range::parse(value, size) {
        byte_range::Wanted::Part(range) => {
            assert!(range.start < range.end && range.end <= size);
            let header = byte_range::content_range(&range, size);
            assert!(header.to_str().is_ok());
        }
        byte_range::Wanted::Whole | byte_range::Wanted::Nothing => {}
    }
}

/// The query of a signed URL.
pub fn signed_query(query: &str) {
    signed_url::fuzz_token(query);
}

/// A SHA-256 that a client announces.
pub fn checksum(value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else {
        return;
    };
    let name = HeaderName::from_static(file_transfers::SHA256_HEADER);
    let headers = HeaderMap::from_iter([(name, value)]);
    refused_well(file_transfers::announced_sha256(&headers).map(|digits| {
        assert!(digits.is_some_and(|digits| digits.len() == 64));
    }));
}

/// The name of a file in an answer, and in a URL.
pub fn file_name(name: &str) {
    let header = file_transfers::disposition(name);
    assert!(HeaderValue::from_str(&header).is_ok(), "{header:?}");
    assert!(header.starts_with("attachment; filename=\""));
    assert_eq!(header.matches('"').count(), 2, "{header:?}");
    let mut target = String::from("/x?path=");
    file_transfers::push_encoded(name, &mut target);
    let uri: Uri = target.parse().expect("a path and a query");
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&uri).expect("a query");
    assert_eq!(pairs, [("path".to_owned(), name.to_owned())]);
}

/// From where a client wants a log: the query of its request, and the header of a browser.
pub fn log_place(query: &[u8], header: &[u8]) {
    let Ok(uri) = Uri::try_from([b"/v1/commands/cmd_1/stream?", query].concat()) else {
        return;
    };
    let Ok(Query(query)) = Query::<LogQuery>::try_from_uri(&uri) else {
        return;
    };
    let headers = HeaderValue::from_bytes(header)
        .map(|value| HeaderMap::from_iter([(HeaderName::from_static("last-event-id"), value)]));
    refused_well(Place::check(&query, headers.as_ref().ok()).map(|place| {
        assert!((1..=limits::LOG_CHUNKS_MAX as usize).contains(&place.limit));
    }));
}

/// The answer of a driver to a question: whatever it is, what becomes of it is bounded and says so.
pub fn query_answer(question: u8, answer: &str) {
    let code = "x = math.sqr\u{fc}";
    let checked = match question % 3 {
        0 => CheckedQuery::complete(CompleteCode {
            code: code.to_owned(),
            cursor: None,
            timeout_ms: None,
        }),
        1 => CheckedQuery::inspect(InspectCode {
            code: code.to_owned(),
            cursor: None,
            detail: Some(1),
            timeout_ms: None,
        }),
        _ => CheckedQuery::variables(Some(7), None),
    };
    let Ok(json) = RawValue::from_string(answer.to_owned()) else {
        return;
    };
    let answer = QueryAnswer::of(&checked.expect("a sound question"), json);
    let completions = answer.completions();
    let length = code.chars().count() as u64;
    assert!(completions.start <= completions.end && completions.end <= length);
    assert!(completions.matches.len() <= limits::COMPLETIONS_MAX);
    let inspection = answer.inspection();
    for value in inspection.data.values() {
        let bytes = serde_json::to_vec(value).expect("JSON").len();
        // Every byte of text may be escaped.
        assert!(bytes <= 6 * limits::INSPECTION_BYTES_MAX + 2);
    }
    let variables = answer.variables();
    assert!(variables.variables.len() <= 7);
    for variable in &variables.variables {
        assert!(variable.preview.chars().count() <= 200 && variable.name.chars().count() <= 256);
    }
}

/// Output within a budget: the same however it was cut, within its bound, with every byte kept or
/// counted.
pub fn budget(asked: OutputBudget, pieces: &[&str]) {
    let Ok(budget) = Budget::check(asked) else {
        return;
    };
    let fit = |pieces: &[&str]| {
        let mut budgeted = Budgeted::new(&budget);
        for piece in pieces {
            budgeted.push(piece);
        }
        budgeted.finish()
    };
    let text = pieces.concat();
    let (cut, whole) = (fit(pieces), fit(&[&text]));
    assert_eq!((&cut.text, cut.counts), (&whole.text, whole.counts));
    assert!(whole.text.len() as u64 <= asked.max_bytes);
    let counts = whole.counts;
    assert_eq!(counts.total_bytes, text.len() as u64);
    let lost = counts.omitted_bytes + counts.stripped_bytes + counts.collapsed_bytes;
    assert!(whole.text.len() as u64 + lost >= counts.total_bytes);
    assert!(lost > 0 || whole.text == text);
}

/// A refusal is the client's fault, small, and the same again when it is replayed from the store.
fn refused_well(result: ApiResult<()>) {
    let Err(error) = result else { return };
    assert!(error.status().is_client_error(), "{error:?}");
    let body = serde_json::to_vec(&error.body(Some("req_1"))).expect("JSON");
    assert!(body.len() <= ERROR_BYTES_MAX, "{} bytes", body.len());
    let again: ErrorBody = serde_json::from_slice(&body).expect("what was written is read");
    let ApiError {
        code,
        message,
        details,
        ..
    } = error;
    assert_eq!(
        (again.code, again.message, again.details),
        (code, message, details)
    );
}

/// An archive as it was uploaded: what is refused is refused in bounded words, what passes stays in
/// the workspace and has the bytes that it says.
pub fn archive(file: &[u8]) {
    let limits = archive::Limits {
        entries_max: 200,
        unpacked_bytes_max: 4 << 20,
        archive_bytes_max: 5 << 20,
        ratio_max: 200,
    };
    let (mut entries, mut bytes) = (0, 0);
    let outcome = archive::read(file, limits, &mut |batch| {
        entries += batch.entries.iter().filter(|entry| begins(entry)).count();
        let lengths: usize = batch.entries.iter().map(unpacks_well).sum();
        assert_eq!(lengths, batch.body.len());
        bytes += lengths as u64;
        Ok(())
    });
    match outcome {
        // "./" is an entry of which nothing is made.
        Ok(summary) => assert!(summary.bytes == bytes && summary.entries >= entries as u64),
        Err(ArchiveError::Invalid(why) | ArchiveError::TooLarge(why)) => {
            assert!(
                why.len() <= ERROR_BYTES_MAX && !why.contains(char::is_control),
                "{why:?}"
            );
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// Flag, name, link target and content of an entry.
pub type ArchiveEntry<'a> = (u8, &'a [u8], &'a [u8], &'a [u8]);

/// A tar archive of these entries, compressed.
#[must_use]
pub fn archive_of(entries: &[ArchiveEntry<'_>]) -> Vec<u8> {
    let entries = entries
        .iter()
        .flat_map(|(flag, name, link, content)| sample::entry(*flag, name, link, content));
    sample::gzip(&sample::ended(entries.collect()))
}

/// These bytes inside a gzip file.
#[must_use]
pub fn gzipped(bytes: &[u8]) -> Vec<u8> {
    sample::gzip(bytes)
}

fn begins(entry: &Entry) -> bool {
    !matches!(entry.kind, EntryKind::File { offset: 1.., .. })
}

/// Checks what init would be told to make; returns how many bytes of the body it takes.
fn unpacks_well(entry: &Entry) -> usize {
    let inside = |path: &str| {
        let plain =
            !path.starts_with('/') && path.split('/').all(|n| !matches!(n, "" | "." | ".."));
        assert!(
            plain && path.len() < 4_090 && !path.contains('\0'),
            "{path:?}"
        );
    };
    inside(&entry.path);
    match &entry.kind {
        EntryKind::Directory { mode } => assert!(*mode <= 0o777),
        EntryKind::File { length, last, .. } => {
            assert!(last.is_none_or(|last| last.mode <= 0o777 && last.modified_s >= 0));
            return usize::try_from(*length).expect("a piece fits");
        }
        EntryKind::HardLink { target } => inside(target),
        EntryKind::Symlink { target } => {
            let place = std::path::Path::new("/workspace").join(&entry.path);
            let end = place.parent().expect("it has one").join(target);
            let mut depth = 0;
            // Never above /workspace, not even on the way.
            for part in end.components().skip(2) {
                depth += match part {
                    std::path::Component::ParentDir => -1,
                    _ => 1,
                };
                assert!(depth >= 0, "{entry:?}");
            }
            assert!(end.starts_with("/workspace"), "{entry:?}");
        }
    }
    0
}

/// One thing that a run says.
#[derive(Debug)]
pub enum Said<'a> {
    Stdout(&'a [u8]),
    Stderr(&'a [u8]),
    /// An event of the driver that init has let through.
    Kernel(&'a [u8]),
}

/// What a client gets of a run.
#[derive(Debug)]
pub struct Heard {
    pub result: RunCodeResult,
    /// The stream, and what its events are by the ordinary serializer.
    pub stream: Vec<u8>,
    pub events: Vec<(&'static str, String)>,
}

/// A run from init's events to the bytes of both routes.
#[must_use]
pub fn run(said: &[Said<'_>], rich: RichOutputs, artifacts: ArtifactPolicy) -> Heard {
    let policy = OutputPolicy {
        artifacts,
        rich,
        may_promote: false,
        tables: None,
    };
    let mut collector = RunCollector::new(policy, &Keeping::default());
    let mut heard = Stream::default();
    for said in said {
        let event = match said {
            Said::Stdout(bytes) => RunEvent::Stdout(Bytes::copy_from_slice(bytes)),
            Said::Stderr(bytes) => RunEvent::Stderr(Bytes::copy_from_slice(bytes)),
            Said::Kernel(json) => match event(json) {
                Some(event) => event,
                None => continue,
            },
        };
        match collector.add(event) {
            Step::Stdout(text) => heard.push("stdout", &RunStreamEvent::Stdout(&text)),
            Step::Stderr(text) => heard.push("stderr", &RunStreamEvent::Stderr(&text)),
            Step::Outputs(range) => {
                for output in collector.outputs(range) {
                    heard.push("output", &RunStreamEvent::Output(output));
                }
            }
            Step::Notice(notice) => heard.push("notice", &RunStreamEvent::Notice(&notice)),
            Step::Input(asked) => {
                heard.push("input_request", &RunStreamEvent::InputRequest(&asked))
            }
            Step::Done(_) | Step::Nothing => {}
        }
    }
    let done = RunDone {
        outcome: RunOutcome::Completed,
        execution_count: 1,
        duration: Duration::ZERO,
        cpu: None,
        usage: None,
        background_dropped: 0,
    };
    let place = RunPlace {
        sandbox_id: "sbx_1".into(),
        context_id: "cctx_1".into(),
        language: "python".into(),
        context_reset: false,
        code_bytes: 0,
    };
    let (result, _share) = collector.finish(&done, place);
    if let Some(error) = &result.error {
        heard.push("error", &RunStreamEvent::Error(error));
    }
    heard.stream.extend(complete_frame(&result).expect("JSON"));
    let complete = serde_json::to_string(&RunStreamEvent::Complete(&result)).expect("JSON");
    heard.events.push(("complete", complete));
    Heard {
        stream: heard.stream,
        events: heard.events,
        result,
    }
}

#[derive(Default)]
struct Stream {
    stream: Vec<u8>,
    events: Vec<(&'static str, String)>,
}

impl Stream {
    fn push(&mut self, name: &'static str, event: &RunStreamEvent<'_>) {
        self.stream.extend(sse_event(name, event));
        self.events
            .push((name, serde_json::to_string(event).expect("JSON")));
    }
}

/// One event of a stream.
#[must_use]
pub fn sse_event<T: Serialize>(name: &str, data: &T) -> Vec<u8> {
    let mut out = Vec::new();
    sse::push_event(name, data, &mut out).expect("what is sent can be written");
    out
}
