//! Events of a run and the result that they add up to.

use super::*;
use crate::host::{BundleEntry, BundleValue};
use crownest_api::code::{ArtifactPolicy, RichOutputs};
use std::time::Duration;

fn collector() -> RunCollector {
    let policy = OutputPolicy {
        artifacts: ArtifactPolicy::InlineOnly,
        rich: RichOutputs::Contract,
        may_promote: false,
        tables: None,
    };
    RunCollector::new(policy, &Keeping::default())
}

fn bundle(text: &str) -> Bundle {
    let value = BundleValue::Text(text.into());
    let entries = vec![BundleEntry {
        mime: "text/plain".into(),
        value,
    }];
    Bundle {
        entries,
        ..Bundle::default()
    }
}

fn display(text: &str, id: Option<&str>, update: bool) -> RunEvent {
    RunEvent::Display {
        bundle: bundle(text),
        display_id: id.map(str::to_owned),
        update,
    }
}

fn finish(collector: RunCollector, outcome: HostOutcome) -> RunCodeResult {
    let done = RunDone {
        outcome,
        execution_count: 1,
        duration: Duration::from_millis(7),
        cpu: None,
        usage: None,
        background_dropped: 0,
    };
    let place = RunPlace {
        sandbox_id: "sbx_1".into(),
        context_id: "cctx_1".into(),
        language: "python".into(),
        context_reset: false,
        code_bytes: 5,
    };
    collector.finish(&done, place).0
}

fn texts(result: &RunCodeResult) -> Vec<String> {
    result
        .outputs
        .iter()
        .map(|o| {
            serde_json::to_value(o).unwrap()["value"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[test]
fn output_beyond_the_bound_is_counted_not_kept() {
    let mut collected = Collected::default();
    let piece = "x".repeat(3 * 1024 * 1024);
    for _ in 0..12 {
        collected.push(&piece);
    }
    let (chunks, omitted, _share) = collected.chunks();
    let kept: usize = chunks.iter().map(String::len).sum();
    assert_eq!(kept, limits::RUN_OUTPUT_BYTES_MAX);
    assert_eq!(omitted, Some((12 * piece.len() - kept) as u64));
}

#[test]
fn small_pieces_become_few_large_ones() {
    let mut collected = Collected::default();
    for _ in 0..100_000 {
        collected.push("0123456789\n");
    }
    let (chunks, omitted, _share) = collected.chunks();
    assert_eq!((chunks.len(), omitted), (2, None));
}

#[test]
fn updates_replace_and_clears_empty() {
    let mut run = collector();
    run.add(display("a", Some("d"), false));
    run.add(display("b", None, false));
    run.add(display("c", Some("d"), true));
    assert_eq!(texts(&finish(run, HostOutcome::Completed)), ["c", "b"]);

    let mut run = collector();
    run.add(display("a", None, false));
    run.add(RunEvent::Clear { wait: true });
    run.add(RunEvent::Result(bundle("b")));
    assert_eq!(texts(&finish(run, HostOutcome::Completed)), ["b"]);
}

#[test]
fn a_run_that_did_not_complete_says_so() {
    let mut run = collector();
    run.add(RunEvent::Stdout(Bytes::from_static(b"half\xff")));
    let result = finish(
        run,
        HostOutcome::TimedOut {
            context_alive: false,
        },
    );
    assert_eq!(result.stdout, ["half\u{fffd}"]);
    assert_eq!(result.usage.unwrap().stdout_bytes, 5, "as it was printed");
    assert_eq!(result.outcome, RunOutcome::TimedOut);
    assert_eq!(result.error.unwrap().name.unwrap(), "TimeoutError");
}

#[test]
fn outputs_are_bounded_in_number() {
    let mut run = collector();
    for _ in 0..limits::RUN_OUTPUTS_MAX + 5 {
        run.add(display("x", None, false));
    }
    let result = finish(run, HostOutcome::Completed);
    assert_eq!(result.outputs.len(), limits::RUN_OUTPUTS_MAX);
    assert_eq!(result.outputs_omitted, Some(5));
}
