//! What a run is given beside its code, and what it cost.

use serde::{Deserialize, Serialize};

/// Longest line that answers a run's `input`.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;

/// What is unusual about a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOptions {
    /// Asks about the context instead of running a cell. It has the context's turn, its timeout
    /// and its end as a run has them; the answer is a `Kernel` event. What is printed meanwhile
    /// belongs to nobody: it is dropped, and counted with the background output of the next run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<Query>,
    /// Somebody answers when the code asks for a line.
    #[serde(default, skip_serializing_if = "is_false")]
    pub input: bool,
    /// The run outlives the server that started it: init marks it in its hello.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep: bool,
    /// Format of the file that the driver writes beside each table that it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_export: Option<String>,
}

impl RunOptions {
    /// Whether nothing is unusual.
    #[must_use]
    pub fn are_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// A question about a context; the code that it is about is the body of its request. Places are
/// counted in Unicode code points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "query", rename_all = "snake_case")]
pub enum Query {
    /// What may stand at `cursor`.
    Complete { cursor: u64 },
    /// What stands at `cursor`; with `detail` 1 its source too.
    Inspect { cursor: u64, detail: u8 },
    /// What is defined; at most `limit` of it.
    Variables { limit: u32 },
}

/// What a run cost, as init read it from the kernel: nothing in it is the driver's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunUsage {
    /// Processor time from the start of the run to its end: of the interpreter with all its
    /// threads, and of the children that it has waited for meanwhile. A thread that was left
    /// behind by an earlier run counts for the run during which it works; a child that still
    /// lives does not count yet.
    pub cpu_us: u64,
    /// Memory of the interpreter that is resident at the end, pages that it shares with its
    /// zygote included.
    pub memory_bytes: u64,
    /// The most that was ever resident since the interpreter was started.
    pub memory_peak_bytes: u64,
    /// By how much this run has raised that; 0 when it stayed below an earlier peak.
    pub memory_peak_growth_bytes: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_takes_no_room_and_what_is_not_comes_back() {
        assert_eq!(serde_json::to_string(&RunOptions::default()).unwrap(), "{}");
        let options = RunOptions {
            query: Some(Query::Inspect {
                cursor: 4,
                detail: 1,
            }),
            input: true,
            keep: true,
            table_export: Some("csv".into()),
        };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(
            text,
            r#"{"query":{"query":"inspect","cursor":4,"detail":1},"input":true,"keep":true,"table_export":"csv"}"#
        );
        assert_eq!(serde_json::from_str::<RunOptions>(&text).unwrap(), options);
    }
}
