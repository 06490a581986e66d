//! Bundles and what becomes of them.

use super::*;
use crate::host::{BundleEntry, Omitted};
use serde_json::value::RawValue;

const CONTRACT: OutputPolicy = OutputPolicy {
    artifacts: ArtifactPolicy::InlineOnly,
    rich: RichOutputs::Contract,
    may_promote: true,
    tables: None,
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

/// Every kind of representation under every policy: what a client gets is the contract's, and what
/// could run is never inline unless it was asked for.
#[test]
fn every_kind_has_its_place() {
    struct Kind {
        mime: &'static str,
        format: &'static str,
        /// A small one by the contract, and when rich ones are inline.
        small: [&'static str; 2],
        /// One that is too large to be inline, without promotion, with it, with it and no scope.
        large: [&'static str; 3],
    }
    let kind = |mime, format, small, large| Kind {
        mime,
        format,
        small,
        large,
    };
    let cut = ["inline…"; 3];
    let too_large = ["output_too_large", "artifact", "artifact_scope_required"];
    let image = [
        "requires_artifact_promotion",
        "artifact",
        "artifact_scope_required",
    ];
    let active = [
        "unsafe_active_content",
        "artifact",
        "artifact_scope_required",
    ];
    let unsupported = ["unsupported_format"; 3];
    let kinds = [
        kind("text/plain", "text", ["inline"; 2], cut),
        kind("text/markdown", "markdown", ["inline"; 2], cut),
        kind("text/latex", "latex", ["inline"; 2], cut),
        kind(
            "text/csv",
            "data",
            ["inline"; 2],
            ["inline…", "artifact", "inline…"],
        ),
        kind("application/json", "json", ["inline"; 2], too_large),
        kind(
            "application/vnd.dataresource+json",
            "data",
            ["inline"; 2],
            too_large,
        ),
        kind(
            "application/vnd.crownest.data+json",
            "data",
            ["inline"; 2],
            too_large,
        ),
        kind(
            "application/vnd.crownest.table+json",
            "data",
            ["inline"; 2],
            too_large,
        ),
        kind(
            "application/vnd.crownest.chart+json",
            "chart",
            ["inline"; 2],
            too_large,
        ),
        kind(
            "application/vnd.plotly.v1+json",
            "chart",
            ["inline"; 2],
            too_large,
        ),
        kind(
            "application/vnd.vegalite.v5+json",
            "chart",
            ["inline"; 2],
            too_large,
        ),
        kind("image/png", "png", [image[0], "inline"], image),
        kind("image/jpeg", "jpeg", [image[0], "inline"], image),
        kind("image/svg+xml", "svg", [active[0], "inline"], active),
        kind("text/html", "html", [active[0], "inline"], active),
        kind(
            "text/html; charset=utf-8",
            "html",
            [active[0], "inline"],
            active,
        ),
        kind("text/javascript", "data", [unsupported[0]; 2], unsupported),
        kind(
            "application/javascript",
            "data",
            [unsupported[0]; 2],
            unsupported,
        ),
        kind("application/pdf", "data", [unsupported[0]; 2], unsupported),
        kind("image/gif", "data", [unsupported[0]; 2], unsupported),
        kind(
            "application/vnd.jupyter.widget-view+json",
            "data",
            [unsupported[0]; 2],
            unsupported,
        ),
    ];
    let inline = OutputPolicy {
        rich: RichOutputs::Inline,
        ..CONTRACT
    };
    let promote = OutputPolicy {
        artifacts: ArtifactPolicy::Promote,
        ..CONTRACT
    };
    let no_scope = OutputPolicy {
        may_promote: false,
        ..promote
    };
    for kind in &kinds {
        let entry = |bytes: usize| {
            if kind.mime.ends_with("json") {
                json(kind.mime, &format!("[{}1]", "1,".repeat(bytes / 2)))
            } else {
                text(kind.mime, &"YWJj".repeat(bytes / 4 + 1))
            }
        };
        let larger = limits::INLINE_TEXT_BYTES_MAX
            .max(limits::INLINE_JSON_BYTES_MAX)
            .max(limits::INLINE_RICH_BYTES_MAX);
        let got = |bytes: usize, policy| one(entry(bytes), policy);
        let is = |what: &str| (kind.format.to_owned(), what.to_owned());
        assert_eq!(got(4, CONTRACT), is(kind.small[0]), "{}", kind.mime);
        assert_eq!(got(4, inline), is(kind.small[1]), "{}", kind.mime);
        assert_eq!(got(larger, CONTRACT), is(kind.large[0]), "{}", kind.mime);
        assert_eq!(got(larger, promote), is(kind.large[1]), "{}", kind.mime);
        assert_eq!(got(larger, no_scope), is(kind.large[2]), "{}", kind.mime);
        let too_large = got(larger, inline);
        if kind.small[0] != kind.small[1] {
            assert_eq!(too_large, is("output_too_large"), "{}", kind.mime);
        }
    }
}

/// Format and fate of the only output of that representation.
fn one(entry: BundleEntry, policy: OutputPolicy) -> (String, String) {
    let bundle = Bundle {
        entries: vec![entry],
        ..Bundle::default()
    };
    let shaped = shape(bundle, &BundlePlace::default(), policy);
    let [shaped] = &shaped[..] else {
        panic!("{shaped:?}")
    };
    let json = serde_json::to_value(&shaped.output).unwrap();
    let format = json["format"].as_str().unwrap().to_owned();
    let fate = match &shaped.output {
        CodeOutput::Inline {
            truncated: Some(true),
            ..
        } => "inline…",
        CodeOutput::Inline { .. } => "inline",
        CodeOutput::Artifact { .. } => "artifact",
        CodeOutput::Rejected { .. } => json["reason"].as_str().unwrap(),
    };
    assert_eq!(shaped.payload.is_some(), fate == "artifact");
    (format, fate.to_owned())
}

#[test]
fn a_table_that_was_exported_comes_after_what_is_shown_of_it() {
    let bundle = |path: &str| Bundle {
        entries: vec![
            text("text/plain", "x"),
            json("application/vnd.crownest.table+json", "{}"),
        ],
        export: Some(Export {
            path: path.to_owned(),
            format: "csv".to_owned(),
        }),
        ..Bundle::default()
    };
    let policy = OutputPolicy {
        tables: Some(TableExport::Csv),
        ..CONTRACT
    };
    let kinds = |path, policy| {
        let shaped = shape(bundle(path), &BundlePlace::default(), policy);
        shaped
            .iter()
            .map(|shaped| serde_json::to_value(&shaped.output).unwrap()["kind"].clone())
            .collect::<Vec<_>>()
    };
    let good = "/workspace/.crownest/exports/1-1.csv";
    assert_eq!(kinds(good, policy), ["inline", "inline", "artifact"]);
    assert_eq!(
        kinds("/etc/1.csv", policy),
        ["inline", "inline", "rejected"]
    );
    assert_eq!(kinds(good, CONTRACT), ["inline", "inline"], "unasked");
}
