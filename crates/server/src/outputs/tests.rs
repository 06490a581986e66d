//! Bundles and what becomes of them.

use super::*;
use crate::host::{BundleEntry, Omitted};
use serde_json::value::RawValue;

const CONTRACT: OutputPolicy = OutputPolicy {
    artifacts: ArtifactPolicy::InlineOnly,
    rich: RichOutputs::Contract,
    may_promote: true,
};

fn text(mime: &str, value: &str) -> BundleEntry {
    BundleEntry {
        mime: mime.into(),
        value: BundleValue::Text(value.into()),
    }
}

fn json(mime: &str, value: &str) -> BundleEntry {
    let raw = RawValue::from_string(value.into()).unwrap();
    BundleEntry {
        mime: mime.into(),
        value: BundleValue::Json(raw),
    }
}

fn shaped(entries: Vec<BundleEntry>, policy: OutputPolicy) -> Vec<String> {
    let bundle = Bundle {
        entries,
        ..Bundle::default()
    };
    shape(bundle, &BundlePlace::default(), policy)
        .iter()
        .map(|shaped| {
            let json = serde_json::to_value(&shaped.output).unwrap();
            let what = ["value", "reason", "sizeBytes"];
            let what = what.iter().find_map(|name| json.get(name)).unwrap();
            format!(
                "{} {}: {what}",
                json["kind"].as_str().unwrap(),
                json["format"].as_str().unwrap()
            )
        })
        .collect()
}

#[test]
fn a_figure_by_the_contract_and_inline() {
    let figure = || vec![text("image/png", "aGk=\n"), text("text/plain", "<Figure>")];
    assert_eq!(
        shaped(figure(), CONTRACT),
        [
            "inline text: \"<Figure>\"",
            "rejected png: \"requires_artifact_promotion\""
        ]
    );
    let inline = OutputPolicy {
        rich: RichOutputs::Inline,
        ..CONTRACT
    };
    assert_eq!(shaped(figure(), inline)[1], "inline png: \"aGk=\"");
    let promote = OutputPolicy {
        artifacts: ArtifactPolicy::Promote,
        may_promote: false,
        ..CONTRACT
    };
    assert_eq!(
        shaped(figure(), promote)[1],
        "rejected png: \"artifact_scope_required\""
    );
    let forged = vec![text("image/png", "<script>")];
    assert_eq!(
        shaped(forged, inline),
        ["rejected png: \"unsupported_format\""]
    );
}

#[test]
fn what_is_promoted_and_what_stays_inline() {
    let promote = OutputPolicy {
        artifacts: ArtifactPolicy::Promote,
        ..CONTRACT
    };
    let wide = format!("[{}1]", "1,".repeat(limits::INLINE_JSON_BYTES_MAX / 2));
    let entries = || {
        vec![
            text("text/plain", "<Figure>"),
            json("application/json", "[1]"),
            json("application/vnd.plotly.v1+json", &wide),
            text("image/png", "aGk=\n"),
            text("text/html", "<b>"),
        ]
    };
    assert_eq!(
        shaped(entries(), promote),
        [
            "inline text: \"<Figure>\"".to_owned(),
            "inline json: [1]".to_owned(),
            format!("artifact chart: {}", wide.len()),
            "artifact png: 2".to_owned(),
            "artifact html: 3".to_owned(),
        ]
    );
    let forged = vec![text("image/png", "<script>")];
    assert_eq!(
        shaped(forged, promote),
        ["rejected png: \"unsupported_format\""]
    );
    let no_scope = OutputPolicy {
        may_promote: false,
        ..promote
    };
    assert_eq!(
        shaped(entries(), no_scope)[2],
        "rejected chart: \"artifact_scope_required\""
    );
}

#[test]
fn active_content_is_not_inline_unless_asked_for() {
    let page = || vec![text("text/html", "<b>"), text("image/svg+xml", "<svg/>")];
    assert_eq!(
        shaped(page(), CONTRACT),
        [
            "rejected svg: \"unsafe_active_content\"",
            "rejected html: \"unsafe_active_content\""
        ]
    );
    let inline = OutputPolicy {
        rich: RichOutputs::Inline,
        ..CONTRACT
    };
    assert_eq!(shaped(page(), inline)[1], "inline html: \"<b>\"");
}

#[test]
fn json_charts_data_and_the_unknown() {
    let entries = vec![
        json("application/vnd.plotly.v1+json", "{}"),
        json("application/json", "[1]"),
        json("application/vnd.dataresource+json", "{}"),
        json("application/vnd.crownest.table+json", "{\"rows\":[]}"),
        json("application/vnd.crownest.chart+json", "{\"charts\":[]}"),
        text("application/pdf", "x"),
    ];
    assert_eq!(
        shaped(entries, CONTRACT),
        [
            "inline json: [1]",
            "inline data: {}",
            "inline data: {\"rows\":[]}",
            "rejected data: \"unsupported_format\"",
            "inline chart: {}",
            "inline chart: {\"charts\":[]}"
        ]
    );
}

#[test]
fn size_and_depth_are_bounded() {
    let long = "é".repeat(limits::INLINE_TEXT_BYTES_MAX);
    let outputs = shape(
        Bundle {
            entries: vec![text("text/plain", &long)],
            ..Bundle::default()
        },
        &BundlePlace::default(),
        CONTRACT,
    );
    let CodeOutput::Inline {
        value: OutputValue::Text(cut),
        truncated,
        ..
    } = &outputs[0].output
    else {
        panic!("{outputs:?}")
    };
    assert_eq!(
        (cut.len(), *truncated),
        (limits::INLINE_TEXT_BYTES_MAX, Some(true))
    );

    let deep = format!(
        "{}{}",
        "[".repeat(JSON_DEPTH_MAX + 1),
        "]".repeat(JSON_DEPTH_MAX + 1)
    );
    let got = shaped(vec![json("application/json", &deep)], CONTRACT);
    assert_eq!(got, ["rejected json: \"unsupported_format\""]);
    assert_eq!(depth(r#"{"a]\"[[":[{}]}"#), 3);

    let wide = format!("[{}1]", "1,".repeat(limits::INLINE_JSON_BYTES_MAX / 2));
    let got = shaped(vec![json("application/json", &wide)], CONTRACT);
    assert_eq!(got, ["rejected json: \"output_too_large\""]);
}

#[test]
fn what_the_driver_left_out_is_said() {
    let omitted = vec![Omitted {
        mime: "text/html".into(),
        bytes: 9,
    }];
    let bundle = Bundle {
        omitted,
        ..Bundle::default()
    };
    let outputs = shape(bundle, &BundlePlace::default(), CONTRACT);
    assert!(matches!(
        &outputs[0].output,
        CodeOutput::Rejected {
            reason: RejectedReason::OutputTooLarge,
            ..
        }
    ));
    assert_eq!(outputs.len(), 1);
}
