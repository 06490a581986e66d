//! What came out of a run or a process.

use crownest_init::link::{EventKind, ExecOutcome, RunOutcome, Stream};

/// Everything that a run or a process said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) kernel: Vec<serde_json::Value>,
    pub(crate) end: Option<EventKind>,
}

impl Said {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub(crate) fn outcome(&self) -> RunOutcome {
        match &self.end {
            Some(EventKind::RunDone { outcome, .. }) => outcome.clone(),
            other => panic!("not the end of a run: {other:?}"),
        }
    }

    pub(crate) fn exec_outcome(&self) -> ExecOutcome {
        match &self.end {
            Some(EventKind::ExecDone { outcome, .. }) => outcome.clone(),
            other => panic!("not the end of a process: {other:?}"),
        }
    }

    pub(crate) fn add(&mut self, kind: EventKind, body: &[u8]) {
        match kind {
            EventKind::Output {
                stream: Stream::Stdout,
                ..
            } => self.stdout.extend(body),
            EventKind::Output {
                stream: Stream::Stderr,
                ..
            } => self.stderr.extend(body),
            EventKind::Kernel { .. } => self.kernel.push(serde_json::from_slice(body).unwrap()),
            end => self.end = Some(end),
        }
    }
}
