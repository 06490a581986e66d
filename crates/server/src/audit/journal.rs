//! Audit events on their way to the store, in files, so that killing the server costs none of them.
//!
//! A line of JSON for each, appended by one write(2): it is in the kernel when that returns, which
//! outlives the process, not the machine. Two files take turns: while the events of one are
//! written to the store, new ones go to the other. A file whose events have arrived is emptied.
//! Does not own: when that is (the writer of the log).

use crownest_store::AuditEvent;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The most that is read of one file: many times what a full queue takes.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
const ENDING: &str = "jsonl";

/// One of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Side(usize);

/// The files of this server.
#[derive(Debug)]
pub(super) struct Journal {
    files: [(PathBuf, File); 2],
    current: Side,
    /// The last append failed, which is said once.
    failing: bool,
}

/// A file of a server that is gone.
#[derive(Debug)]
pub(super) struct Left(PathBuf);

impl Journal {
    /// Two new files in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let boot = uuid::Uuid::now_v7();
        let file = |side: usize| -> io::Result<(PathBuf, File)> {
            let path = dir.join(format!("{boot}-{side}.{ENDING}"));
            let mut options = OpenOptions::new();
            options.append(true).create_new(true).mode(0o600);
            let file = options.open(&path)?;
            Ok((path, file))
        };
        Ok(Self {
            files: [file(0)?, file(1)?],
            current: Side(0),
            failing: false,
        })
    }

    /// Adds an event to the current side. An event that does not fit is said and goes on to the
    /// store all the same.
    pub(super) fn append(&mut self, event: &AuditEvent) {
        let mut line = serde_json::to_vec(event).expect("strings and numbers have a form in JSON");
        line.push(b'\n');
        let outcome = self.files[self.current.0].1.write_all(&line);
        match outcome {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(%error, "the audit journal cannot be written: a crash costs the last events");
            }
            Err(_) => {}
        }
    }

    /// From here on events go to the other side, which is empty; the one that had them until now.
    pub(super) fn swap(&mut self) -> Side {
        let full = self.current;
        self.current = Side(1 - full.0);
        full
    }

    /// Empties a side whose events are in the store.
    pub(super) fn clear(&mut self, side: Side) {
        if let Err(error) = self.files[side.0].1.set_len(0) {
            // They are found in the store when they are restored once more.
            tracing::warn!(%error, "emptying an audit journal failed");
        }
    }

    /// Removes both files, when nothing will be added any more.
    pub(super) fn remove(&mut self) {
        for (path, _) in &self.files {
            let _ = fs::remove_file(path);
        }
    }
}

/// The journals in `dir` that are not `own`.
pub(super) fn left(dir: &Path, own: Option<&Journal>) -> Vec<Left> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == ENDING))
        .filter(|path| own.is_none_or(|own| own.files.iter().all(|(mine, _)| mine != path)))
        .collect();
    // Names begin with the time of their server's start.
    paths.sort();
    paths.into_iter().map(Left).collect()
}

impl Left {
    /// Its events, and how many lines are none: the last one of a full disk may be torn.
    pub(super) fn read(&self) -> (Vec<AuditEvent>, usize) {
        let mut text = Vec::new();
        let read = File::open(&self.0).and_then(|f| f.take(FILE_BYTES_MAX).read_to_end(&mut text));
        if let Err(error) = read {
            tracing::error!(%error, file = %self.0.display(), "reading an audit journal failed");
        }
        let lines = text.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        let (mut events, mut torn) = (Vec::new(), 0);
        for line in lines {
            match serde_json::from_slice(line) {
                Ok(event) => events.push(event),
                Err(_) => torn += 1,
            }
        }
        (events, torn)
    }

    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, file = %self.0.display(), "removing an audit journal failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> AuditEvent {
        AuditEvent {
            id: id.to_owned(),
            org_id: "org_a".to_owned(),
            project_id: None,
            at: 1,
            actor_kind: "api_key".to_owned(),
            actor_id: "key_1".to_owned(),
            action: "code.run".to_owned(),
            resource_kind: "sandbox".to_owned(),
            resource_id: "sbx_1".to_owned(),
            outcome: "a line\nbreak".to_owned(),
            request_id: Some("req_1".to_owned()),
            details: "{}".to_owned(),
        }
    }

    #[test]
    fn what_was_not_cleared_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.append(&event("1"));
        let first = journal.swap();
        journal.append(&event("2"));
        journal.clear(first);
        let second = journal.swap();
        journal.append(&event("3"));
        assert_ne!(first, second);
        assert!(
            left(dir.path(), Some(&journal)).is_empty(),
            "its own are no one's rest"
        );

        let found = left(dir.path(), None);
        let mut events: Vec<_> = found.iter().flat_map(|one| one.read().0).collect();
        events.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(events, [event("2"), event("3")]);
        journal.remove();
        assert!(left(dir.path(), None).is_empty());
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.append(&event("1"));
        let path = journal.files[0].0.clone();
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(br#"{"id": "2", "or"#).unwrap();
        let (events, torn) = left(dir.path(), None)[0].read();
        assert_eq!((events, torn), (vec![event("1")], 1));
    }
}
