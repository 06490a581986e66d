//! The server reading what a run says, from the driver's JSON (tenant code) to the stream and the
//! answer that a client gets.
//!
//! Nothing is lost below the limits, nothing active is inline unless it was asked for, and the
//! stream is read back event for event by two kinds of clients.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crownest_api::code::{
    ArtifactPolicy, CodeOutput, OutputFormat, OutputValue, RichOutputs, RunCodeResult,
};
use crownest_api::limits;
use crownest_fuzz::{event_stream, event_stream_of_any_lines, records};
use crownest_server::fuzzing::{Heard, Said, run};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    let rich = if how % 2 == 0 {
        RichOutputs::Contract
    } else {
        RichOutputs::Inline
    };
    let artifacts = if how & 2 == 0 {
        ArtifactPolicy::InlineOnly
    } else {
        ArtifactPolicy::Promote
    };
    let said: Vec<_> = records(rest)
        .map(|record| match record.split_first() {
            Some((b'>', text)) => Said::Stdout(text),
            Some((b'!', text)) => Said::Stderr(text),
            _ => Said::Kernel(record),
        })
        .collect();
    let heard = run(&said, rich, artifacts);
    nothing_is_lost(&said, &heard.result);
    for output in &heard.result.outputs {
        is_allowed(output, rich);
    }
    is_read_back(&heard);
});

fn nothing_is_lost(said: &[Said<'_>], result: &RunCodeResult) {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    for said in said {
        match said {
            Said::Stdout(bytes) => stdout.push_str(&String::from_utf8_lossy(bytes)),
            Said::Stderr(bytes) => stderr.push_str(&String::from_utf8_lossy(bytes)),
            Said::Kernel(_) => {}
        }
    }
    assert_eq!(
        (result.stdout.concat(), result.stderr.concat()),
        (stdout, stderr)
    );
    assert_eq!(
        (result.stdout_truncated, result.stdout_omitted_bytes),
        (None, None)
    );
    let outputs = result.outputs.len();
    assert!(outputs <= limits::RUN_OUTPUTS_MAX);
    assert!(result.outputs_omitted.is_none() || outputs > 0);
}

fn is_allowed(output: &CodeOutput, rich: RichOutputs) {
    let CodeOutput::Inline { format, value, .. } = output else {
        return;
    };
    match (format, value) {
        (OutputFormat::Png | OutputFormat::Jpeg, OutputValue::Text(text)) => {
            assert!(rich == RichOutputs::Inline && STANDARD.decode(text).is_ok());
        }
        (OutputFormat::Svg | OutputFormat::Html, OutputValue::Text(_)) => {
            assert_eq!(rich, RichOutputs::Inline);
        }
        (_, OutputValue::Text(text)) => assert!(text.len() <= limits::INLINE_TEXT_BYTES_MAX),
        (
            OutputFormat::Json | OutputFormat::Data | OutputFormat::Chart,
            OutputValue::Json(json),
        ) => {
            assert!(json.get().len() <= limits::INLINE_JSON_BYTES_MAX);
        }
        (format, OutputValue::Json(_)) => panic!("{format:?} as JSON"),
    }
}

fn is_read_back(heard: &Heard) {
    let text = std::str::from_utf8(&heard.stream).expect("a stream is UTF-8");
    let events = event_stream(text);
    assert_eq!(events, event_stream_of_any_lines(text), "{text}");
    assert_eq!(events.len(), heard.events.len(), "{text}");
    for ((name, data), (sent_as, sent)) in events.iter().zip(&heard.events) {
        assert_eq!(name, sent_as);
        serde_json::from_str::<&RawValue>(data).expect("JSON");
        // Numbers that no float holds are passed on as text: then there is no value to compare.
        if let Ok(sent) = serde_json::from_str::<Value>(sent) {
            assert_eq!(
                serde_json::from_str::<Value>(data).ok(),
                Some(sent),
                "{text}"
            );
        }
    }
}
