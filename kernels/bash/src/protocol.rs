//! The messages of `kernels/PROTOCOL.md` as this driver reads and writes them.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What init says.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Op {
    Start {
        cwd: String,
        env: BTreeMap<String, String>,
    },
    Execute(Execute),
    Query(Query),
    InputReply {
        run: u64,
        value: Option<String>,
    },
    Interrupt {
        run: u64,
    },
    /// Of a later version of the protocol.
    #[serde(other)]
    Unknown,
}

/// One cell.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Execute {
    pub(crate) run: u64,
    pub(crate) code: String,
    pub(crate) cwd: Option<String>,
    #[serde(default)]
    pub(crate) input: bool,
}

/// One question about the context.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) run: u64,
    pub(crate) query: String,
    #[serde(default)]
    pub(crate) code: String,
    pub(crate) cursor: Option<usize>,
    #[serde(default)]
    pub(crate) detail: u8,
    pub(crate) limit: Option<usize>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    Error,
    Interrupted,
}

/// The `error` of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) name: &'static str,
    pub(crate) message: String,
    pub(crate) traceback: Vec<String>,
    pub(crate) line: Option<usize>,
}

pub(crate) fn ready(version: &str) -> Value {
    json!({"ev": "ready", "language": "bash", "version": version})
}

pub(crate) fn error(run: u64, failure: &Failure) -> Value {
    let mut event = json!({
        "ev": "error",
        "run": run,
        "name": failure.name,
        "message": failure.message,
        "traceback": failure.traceback,
    });
    if let (Some(line), Some(fields)) = (failure.line, event.as_object_mut()) {
        fields.insert("line".to_owned(), line.into());
    }
    event
}

pub(crate) fn notice(run: u64, code: &str, message: &str) -> Value {
    json!({"ev": "notice", "run": run, "code": code, "message": message})
}

pub(crate) fn input(run: u64, prompt: &str, password: bool) -> Value {
    json!({"ev": "input", "run": run, "prompt": prompt, "password": password})
}

pub(crate) fn answer(run: u64, answer: &Map<String, Value>) -> Value {
    json!({"ev": "answer", "run": run, "answer": answer})
}

pub(crate) fn done(run: u64, status: Status, count: u64) -> Value {
    let status = match status {
        Status::Ok => "ok",
        Status::Error => "error",
        Status::Interrupted => "interrupted",
    };
    json!({"ev": "done", "run": run, "status": status, "count": count})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_are_read_and_unknown_ones_pass() {
        let op = |text| serde_json::from_str::<Op>(text).unwrap();
        assert_eq!(
            op(r#"{"op":"execute","run":3,"code":"ls","language":"bash"}"#),
            Op::Execute(Execute {
                run: 3,
                code: "ls".into(),
                cwd: None,
                input: false
            })
        );
        assert_eq!(
            op(r#"{"op":"input_reply","run":3,"value":null}"#),
            Op::InputReply {
                run: 3,
                value: None
            }
        );
        assert_eq!(op(r#"{"op":"later","x":[1]}"#), Op::Unknown);
    }

    #[test]
    fn a_line_is_told_only_when_it_is_known() {
        let mut failure = Failure {
            name: "ExitCode",
            message: "m".into(),
            traceback: vec![],
            line: None,
        };
        assert_eq!(error(1, &failure).get("line"), None);
        failure.line = Some(4);
        assert_eq!(error(1, &failure)["line"], 4);
    }
}
