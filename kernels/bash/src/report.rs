//! What bash says on its own stderr, which is a pipe to this driver while no cell runs: marks that
//! our lines make it print, and between them prompts, traces and errors of parsing.
//!
//! Tenant code can write anything here if it tries. A forged mark ends its own run early.

/// Begins and ends a mark. Bash never prints these bytes itself; a trace shows their escapes.
pub(crate) const MARK_START: u8 = 1;
pub(crate) const MARK_END: u8 = 2;
/// Text kept between two marks, and the longest mark.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Something that bash has reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It has read the lines that prepare it.
    Booted { sequence: u64, version: String },
    /// A cell is over. `entered` is the sequence of the last cell whose code began to run.
    Cell {
        sequence: u64,
        /// Which of the lines that say so has printed it; each interrupt adds one.
        copy: u32,
        status: i32,
        entered: Option<u64>,
        failing: Option<FailingLine>,
        /// Printed by the shell itself, because its builtins have been taken away.
        crippled: bool,
    },
    /// An answer is in its file.
    Answer { sequence: u64 },
}

/// Where a command failed: what the ERR trap has written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FailingLine {
    pub(crate) status: i32,
    pub(crate) line: usize,
}

/// Cuts marks out of the stream.
#[derive(Debug)]
pub(crate) struct Report {
    buffer: Vec<u8>,
    /// What the shell prints in place of a mark: `bash: <token>: <fields>`.
    token: Vec<u8>,
}

impl Report {
    pub(crate) fn new(token: &str) -> Self {
        Self {
            buffer: Vec::new(),
            token: format!("{token}: ").into_bytes(),
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next mark, with the text before it. None: more has to be read.
    pub(crate) fn next_mark(&mut self) -> Option<(Mark, String)> {
        loop {
            let Some(found) = self.find() else {
                self.forget();
                return None;
            };
            let text = String::from_utf8_lossy(&self.buffer[..found.start]).into_owned();
            let fields = String::from_utf8_lossy(&self.buffer[found.fields.clone()]).into_owned();
            self.buffer.drain(..found.end);
            if let Some(mark) = read_mark(&fields, found.crippled) {
                return Some((mark, text));
            }
        }
    }

    fn find(&self) -> Option<Found> {
        let plain = self.find_between(&[MARK_START], &[MARK_END], false);
        let crippled = self.find_between(&self.token, b"\n", true);
        match (plain, crippled) {
            (Some(one), Some(other)) if other.start < one.start => Some(other),
            (Some(one), _) => Some(one),
            (None, other) => other,
        }
    }

    fn find_between(&self, start: &[u8], end: &[u8], crippled: bool) -> Option<Found> {
        let at = position(&self.buffer, start)?;
        let from = at + start.len();
        let length = position(&self.buffer[from..], end)?;
        Some(Found {
            start: at,
            fields: from..from + length,
            end: from + length + end.len(),
            crippled,
        })
    }

    /// Keeps the end of a stream that has no mark.
    fn forget(&mut self) {
        if self.buffer.len() > 2 * TEXT_BYTES_MAX {
            let surplus = self.buffer.len() - TEXT_BYTES_MAX;
            self.buffer.drain(..surplus);
        }
    }
}

struct Found {
    start: usize,
    fields: std::ops::Range<usize>,
    end: usize,
    crippled: bool,
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// `b;<sequence>;<version>`, `c;<sequence>;<copy>;<status>;<entered>;<failing>`, `a;<sequence>`
fn read_mark(fields: &str, crippled: bool) -> Option<Mark> {
    let mut fields = fields.split(';');
    let kind = fields.next()?;
    let sequence = fields.next()?.parse().ok()?;
    match kind {
        "b" => Some(Mark::Booted {
            sequence,
            version: fields.next()?.to_owned(),
        }),
        "c" => Some(Mark::Cell {
            sequence,
            copy: fields.next()?.parse().ok()?,
            status: fields.next()?.parse().unwrap_or_default(),
            entered: fields.next()?.parse().ok(),
            failing: FailingLine::read(fields.next()?),
            crippled,
        }),
        "a" => Some(Mark::Answer { sequence }),
        _ => None,
    }
}

impl FailingLine {
    /// `<status>:<line>:<lines where what runs was called, innermost first>`
    ///
    /// A command of the cell itself has one caller, the driver's own line; what failed further in
    /// was called, at last, by the line before that one.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let status = parts.next()?.parse().ok()?;
        let own = parts.next()?.parse().ok()?;
        let callers: Vec<usize> = parts
            .next()?
            .split_whitespace()
            .map_while(|line| line.parse().ok())
            .collect();
        let line = match callers.len() {
            0 => return None,
            1 => own,
            depth => callers[depth - 2],
        };
        Some(Self { status, line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(report: &mut Report) -> Vec<(Mark, String)> {
        std::iter::from_fn(|| report.next_mark()).collect()
    }

    #[test]
    fn marks_survive_any_split() {
        let stream = b"bash-5.2# \x01c;7;0;3;7;3:2:9:9\x02bash: T: c;7;1;3;7;;\n+ x\n\x01a;8\x02";
        for cut in 0..stream.len() {
            let mut report = Report::new("T");
            report.push(&stream[..cut]);
            let mut found = all(&mut report);
            report.push(&stream[cut..]);
            found.extend(all(&mut report));
            assert_eq!(found.len(), 3, "cut at {cut}");
            let cell = |crippled, failing| Mark::Cell {
                sequence: 7,
                copy: u32::from(crippled),
                status: 3,
                entered: Some(7),
                failing,
                crippled,
            };
            let failing = Some(FailingLine { status: 3, line: 2 });
            assert_eq!(found[0], (cell(false, failing), "bash-5.2# ".into()));
            assert_eq!(found[1].0, cell(true, None));
            assert_eq!(found[2].0, Mark::Answer { sequence: 8 });
        }
    }

    #[test]
    fn what_is_no_mark_is_passed_over() {
        let mut report = Report::new("T");
        report.push(b"\x01\x02\x01z;1\x02\x01c;x;0;1;;\x02\x01b;1;5.2.15\x02");
        assert_eq!(
            all(&mut report).pop().unwrap().0,
            Mark::Booted {
                sequence: 1,
                version: "5.2.15".into()
            }
        );
    }

    #[test]
    fn a_stream_without_marks_is_bounded() {
        let mut report = Report::new("T");
        for _ in 0..1_000 {
            report.push(&[b'x'; 4096]);
            assert_eq!(report.next_mark(), None);
        }
        assert!(report.buffer.len() <= 2 * TEXT_BYTES_MAX);
        report.push(b"\x01a;1\x02");
        assert_eq!(report.next_mark().unwrap().0, Mark::Answer { sequence: 1 });
    }

    #[test]
    fn the_line_is_that_of_the_cell() {
        let line = |text| FailingLine::read(text).map(|found| found.line);
        assert_eq!(line("1:2:6:6"), Some(2));
        assert_eq!(line("1:1:9 7 5:9"), Some(7));
        assert_eq!(line("1:2::"), None);
        assert_eq!(line(""), None);
        assert_eq!(line("x:y:z"), None);
    }
}
