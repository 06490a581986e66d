use super::*;
use serde_json::json;

fn answer(query: Query, code: &str, json: &serde_json::Value) -> QueryAnswer {
    QueryAnswer {
        outcome: QueryOutcome::Answered,
        json: Some(RawValue::from_string(json.to_string()).unwrap()),
        query,
        code_points: code_points(code),
    }
}

fn refused(checked: ApiResult<CheckedQuery>) -> String {
    let details = checked.unwrap_err().details.unwrap();
    details["field"].as_str().unwrap().to_owned()
}

#[test]
fn questions_are_checked() {
    let complete = |code: &str, cursor| {
        CheckedQuery::complete(CompleteCode {
            code: code.into(),
            cursor,
            timeout_ms: None,
        })
    };
    // Code points, not bytes.
    let at_end = complete("prü", None).unwrap();
    assert_eq!(at_end.query, Query::Complete { cursor: 3 });
    assert_eq!(at_end.timeout, Duration::from_secs(5));
    assert_eq!(refused(complete("prü", Some(4))), "cursor");
    let long = "x".repeat(limits::CODE_SOURCE_BYTES_MAX + 1);
    assert_eq!(refused(complete(&long, None)), "code");
    let inspect = |detail, timeout_ms| {
        CheckedQuery::inspect(InspectCode {
            code: "x".into(),
            cursor: Some(0),
            detail,
            timeout_ms,
        })
    };
    assert_eq!(refused(inspect(Some(2), None)), "detail");
    assert_eq!(refused(inspect(None, Some(30_001))), "timeoutMs");
    assert_eq!(refused(CheckedQuery::variables(Some(0), None)), "limit");
    assert_eq!(refused(CheckedQuery::variables(Some(1_001), None)), "limit");
}

#[test]
fn completions_are_bounded_and_what_is_left_out_is_counted() {
    let mut matches = vec![
        json!({"text": "sqrt", "kind": "function", "more": [1]}),
        json!({"text": "sq", "kind": "no such kind"}),
        json!({"text": ""}),
        json!({"text": 7}),
        json!("sqrt"),
        json!({"text": "x".repeat(COMPLETION_BYTES_MAX + 1)}),
    ];
    matches.extend((0..300).map(|n| json!({"text": format!("n{n}")})));
    let said = json!({"matches": matches, "omitted": 5, "start": 9, "end": 90});
    let got = answer(Query::Complete { cursor: 2 }, "sqü", &said).completions();
    assert_eq!(got.outcome, QueryOutcome::Answered);
    let kept = limits::COMPLETIONS_MAX - 2;
    assert_eq!(got.matches.len(), kept);
    assert_eq!(got.omitted, Some(5 + 306 - kept as u64));
    assert_eq!((got.start, got.end), (3, 3), "places are within the code");
    assert_eq!(
        (
            &got.matches[0].text[..],
            got.matches[0].kind,
            got.matches[1].kind
        ),
        ("sqrt", Some(NameKind::Function), None)
    );
}

#[test]
fn answers_of_another_shape_are_none() {
    for said in [
        json!(null),
        json!([]),
        json!({"matches": {}, "start": 0, "end": 0}),
        json!({"matches": [], "start": -1, "end": 0}),
        json!({"variables": "x"}),
    ] {
        let asked = answer(Query::Complete { cursor: 1 }, "x", &said);
        let got = asked.completions();
        assert_eq!(got.outcome, QueryOutcome::NoAnswer, "{said}");
        assert_eq!((got.matches.len(), got.start, got.end), (0, 1, 1));
        assert_eq!(asked.variables().outcome, QueryOutcome::NoAnswer);
        assert!(!asked.inspection().found);
    }
}

#[test]
fn nothing_found_needs_no_data() {
    for (said, found) in [
        (json!({"found": false}), false),
        (json!({"found": false, "data": {}}), false),
        (json!({"found": true}), true),
    ] {
        let query = Query::Inspect {
            cursor: 0,
            detail: 0,
        };
        let got = answer(query, "", &said).inspection();
        assert_eq!(got.outcome, QueryOutcome::Answered, "{said}");
        assert_eq!((got.found, got.data.len()), (found, 0), "{said}");
    }
}

#[test]
fn inspections_hold_text_that_runs_nowhere() {
    let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
    let said = json!({"found": true, "data": {
        "text/plain": "é".repeat(200_000), "text/html": "<script>", "image/svg+xml": "<svg>",
        "text/markdown": "ok", "application/json": {"a": 1}, "image/png": "aGk=",
    }});
    let got = answer(
        Query::Inspect {
            cursor: 0,
            detail: 0,
        },
        "",
        &said,
    )
    .inspection();
    let types: Vec<&str> = got.data.keys().map(String::as_str).collect();
    assert_eq!(types, ["application/json", "text/markdown", "text/plain"]);
    assert_eq!(got.truncated, Some(true));
    let OutputValue::Text(text) = &got.data["text/plain"] else {
        panic!()
    };
    assert_eq!(text.len(), limits::INSPECTION_BYTES_MAX);
    let text = format!(r#"{{"found":true,"data":{{"application/json":{deep}}}}}"#);
    let got = QueryAnswer {
        json: Some(RawValue::from_string(text).unwrap()),
        ..answer(
            Query::Inspect {
                cursor: 0,
                detail: 0,
            },
            "",
            &json!(1),
        )
    };
    assert!(got.inspection().data.is_empty());
}

#[test]
fn variables_are_cut_and_shapes_are_numbers() {
    let said = json!({"omitted": 1, "variables": [
        {"name": "n".repeat(300), "type": "T", "kind": "variable", "shape": [2, 3], "size": 6,
         "preview": "p".repeat(300)},
        {"name": "bad", "type": "T", "shape": [1, "x"], "size": -1, "kind": 7},
        {"name": "deep", "type": "T", "shape": vec![1; 33]},
        {"type": "no name"},
        {"name": "over", "type": "T"},
    ]});
    let got = answer(Query::Variables { limit: 3 }, "", &said).variables();
    assert_eq!(got.omitted, Some(3));
    let [first, bad, deep] = &got.variables[..] else {
        panic!("{got:?}")
    };
    assert_eq!(
        (first.name.len(), first.preview.len()),
        (NAME_CHARS_MAX, PREVIEW_CHARS_MAX)
    );
    assert_eq!(
        (first.shape.as_deref(), first.size),
        (Some(&[2, 3][..]), Some(6))
    );
    // A dimension that is none makes the others another shape.
    assert_eq!((bad.shape.as_deref(), bad.size), (None, None));
    assert_eq!(bad.kind, NameKind::Variable);
    assert_eq!(deep.shape, None);
}

#[test]
fn a_list_of_millions_is_not_kept() {
    let many = format!(r#"{{"variables":[{}1]}}"#, "{},".repeat(1_000_000));
    let got = QueryAnswer {
        json: Some(RawValue::from_string(many).unwrap()),
        ..answer(Query::Variables { limit: 3 }, "", &json!(1))
    };
    let got = got.variables();
    assert_eq!((got.variables.len(), got.omitted), (0, Some(1_000_001)));
}
