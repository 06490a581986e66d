use super::*;

fn bundle(json: &str) -> Bundle {
    match parse(json.as_bytes()) {
        Some(RunEvent::Result(bundle) | RunEvent::Display { bundle, .. }) => bundle,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_result_keeps_text_as_text_and_json_as_json() {
    let got = bundle(
        r#"{"ev":"result","run":1,"count":3,"data":{"text/plain":"a\nb","application/json":{"x":[1]}},"metadata":{"crownest":{"omitted":[{"mime":"text/html","bytes":9000000}]}}}"#,
    );
    assert_eq!(got.execution_count, Some(3));
    let BundleValue::Text(text) = got.get("text/plain").unwrap() else {
        panic!()
    };
    assert_eq!(text, "a\nb");
    let BundleValue::Json(json) = got.get("application/json").unwrap() else {
        panic!()
    };
    assert_eq!(json.get(), r#"{"x":[1]}"#);
    assert_eq!(
        got.omitted,
        [Omitted {
            mime: "text/html".into(),
            bytes: 9_000_000
        }]
    );
}

#[test]
fn what_the_metadata_says_is_read_part_by_part() {
    let metadata = |ours: &str| {
        bundle(&format!(
            r#"{{"ev":"display","data":{{}},"metadata":{{"crownest":{ours}}}}}"#
        ))
    };
    let omitted = r#""omitted":[{"mime":"text/html","bytes":9}]"#;
    let export = r#""export":{"path":"/a","format":"csv","bytes":-1}"#;
    let got = metadata(&format!("{{{omitted},{export}}}"));
    let (path, format) = ("/a".to_owned(), "csv".to_owned());
    assert_eq!(got.export, Some(Export { path, format }));
    assert_eq!(got.omitted.len(), 1);
    let got = metadata(&format!(r#"{{{omitted},"export":["/a"]}}"#));
    assert_eq!((got.export, got.omitted.len()), (None, 1));
    let got = metadata(&format!(r#"{{"omitted":7,{export}}}"#));
    assert_eq!((got.export.is_some(), got.omitted.len()), (true, 0));
    assert_eq!(metadata("[]").export, None);
}

#[test]
fn bad_representations_go_and_good_ones_stay() {
    let got = bundle(
        r#"{"ev":"display","data":{"nonsense":"x","text/html":{"a":1},"image/png\n":"x","text/plain":"ok"},"display_id":"d","update":true}"#,
    );
    assert_eq!(got.entries.len(), 1);
    assert_eq!(got.entries[0].mime, "text/plain");
}

#[test]
fn entries_are_bounded() {
    let many: Vec<String> = (0..200).map(|i| format!(r#""text/x{i}":"v""#)).collect();
    let got = bundle(&format!(
        r#"{{"ev":"result","data":{{{}}}}}"#,
        many.join(",")
    ));
    assert_eq!(got.entries.len(), BUNDLE_ENTRIES_MAX);
}

#[test]
fn errors_are_cut() {
    let lines = vec!["é".repeat(4_500); 1_200];
    let json = serde_json::json!({
        "ev": "error", "name": "N".repeat(500), "message": "m".repeat(200_000),
        "traceback": lines, "line": -4,
    });
    let Some(RunEvent::Error {
        name,
        message,
        traceback,
        line,
    }) = parse(json.to_string().as_bytes())
    else {
        panic!()
    };
    assert_eq!(name.len(), NAME_CHARS_MAX);
    let left_out = 200_000 - MESSAGE_BYTES_MAX;
    let marked = format!("{}… [{left_out} bytes left out]", "m".repeat(64 * 1024));
    assert_eq!(message, marked);
    let (last, lines) = traceback.split_last().unwrap();
    assert_eq!((lines.len(), &**last), (1_000, "… [200 lines left out]"));
    // Nine thousand bytes, cut between two characters.
    let cut = format!("{}… [808 bytes left out]", "é".repeat(4_096));
    assert!(lines.iter().all(|line| *line == cut));
    assert_eq!(line, None);
}

#[test]
fn what_fits_is_left_as_it_is() {
    let json = serde_json::json!({
        "ev": "error", "name": "N", "message": "m".repeat(MESSAGE_BYTES_MAX),
        "traceback": vec!["l".repeat(TRACEBACK_LINE_BYTES_MAX); TRACEBACK_LINES_MAX],
    });
    let Some(RunEvent::Error {
        message, traceback, ..
    }) = parse(json.to_string().as_bytes())
    else {
        panic!()
    };
    assert_eq!(message, "m".repeat(MESSAGE_BYTES_MAX));
    assert_eq!(traceback.len(), TRACEBACK_LINES_MAX);
    assert!(
        traceback
            .iter()
            .all(|l| l.len() == TRACEBACK_LINE_BYTES_MAX)
    );
}

#[test]
fn notices_and_prompts_are_cut_and_codes_are_words() {
    let json = serde_json::json!({
        "ev": "notice", "run": 1, "code": "state_not_kept", "message": "m".repeat(10_000),
    });
    let Some(RunEvent::Notice { code, message }) = parse(json.to_string().as_bytes()) else {
        panic!()
    };
    assert_eq!(code, "state_not_kept");
    let cut = format!("{}… [5904 bytes left out]", "m".repeat(4_096));
    assert_eq!(message, cut);
    for bad in ["", "A", "a b", "a\n", &"a".repeat(65)] {
        let json = serde_json::json!({ "ev": "notice", "code": bad, "message": "x" });
        assert!(parse(json.to_string().as_bytes()).is_none(), "{bad}");
    }
    let json = serde_json::json!({ "ev": "input", "prompt": "é".repeat(5_000) });
    let Some(RunEvent::Input {
        prompt,
        password: false,
    }) = parse(json.to_string().as_bytes())
    else {
        panic!()
    };
    let cut = format!("{}… [5904 bytes left out]", "é".repeat(2_048));
    assert_eq!(prompt, cut);
    let Some(RunEvent::Answer(answer)) = parse(br#"{"ev":"answer","answer":{"a": [1]}}"#) else {
        panic!()
    };
    assert_eq!(answer.get(), r#"{"a": [1]}"#);
}

#[test]
fn hostile_json_is_dropped() {
    let deep = format!(
        "{}{}",
        r#"{"ev":"result","data":{"a/json":"#,
        "[".repeat(100_000)
    );
    for json in [
        "",
        "null",
        "[]",
        r#"{"ev":"done","status":"ok"}"#,
        r#"{"ev":"ready"}"#,
        r#"{"ev":"result"}"#,
        r#"{"ev":"result","ev":"result","data":{}}"#,
        r#"{"ev":"result","data":[1]}"#,
        r#"{"ev":"error","message":"no name"}"#,
        r#"{"ev":"error","name":"E","traceback":"no list"}"#,
        r#"{"ev":"answer"}"#,
        r#"{"ev":"notice","message":"x"}"#,
        r#"{"ev":"input","prompt":"x","password":1}"#,
        deep.as_str(),
    ] {
        assert!(
            parse(json.as_bytes()).is_none(),
            "{}",
            &json[..json.len().min(60)]
        );
    }
    assert!(parse(&[0xff, 0xfe]).is_none());
}

proptest::proptest! {
    #[test]
    fn parse_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = parse(&bytes);
    }
}
