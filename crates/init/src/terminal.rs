//! Where a process reads from: nowhere, a pipe, or a terminal of its own. Shared by both ends of
//! the link.
//!
//! A terminal is a pair of the sandbox's own devpts. Init holds the side of the user, the process
//! is session leader with the other side as its controlling terminal, stdin, stdout and stderr: so
//! there is one stream of output, [`super::link::Stream::Stdout`].

use serde::{Deserialize, Serialize};

/// Longest piece of input in one [`super::link::Request::ExecInput`].
pub const EXEC_INPUT_BYTES_MAX: usize = 64 * 1024;
/// Input of one process that it has not read yet and that init keeps; more is refused with
/// `too_many`.
pub const EXEC_INPUT_QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Pieces of that input, since the smallest has one byte.
pub const EXEC_INPUT_PIECES_MAX: usize = 64;
/// Rows and columns of a terminal, each.
pub const TERMINAL_CELLS_MAX: u16 = 4_096;

/// How large a terminal is, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub cols: u16,
}

impl TerminalSize {
    /// What terminals have where nobody says anything else.
    pub const DEFAULT: Self = Self { rows: 24, cols: 80 };

    /// Whether a program can be told of it: no side is 0 or beyond [`TERMINAL_CELLS_MAX`].
    #[must_use]
    pub fn is_possible(self) -> bool {
        let possible = |cells| (1..=TERMINAL_CELLS_MAX).contains(&cells);
        possible(self.rows) && possible(self.cols)
    }
}

/// Where a process started by `Exec` reads from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// A pipe that `ExecInput` fills.
    Pipe,
    /// A terminal, for stdout and stderr as well.
    Terminal(TerminalSize),
}

impl Stdin {
    pub(crate) fn is_null(&self) -> bool {
        *self == Self::Null
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_terminals() {
        assert!(TerminalSize::DEFAULT.is_possible());
        for (rows, cols) in [(0, 80), (24, 0), (TERMINAL_CELLS_MAX + 1, 80)] {
            assert!(!TerminalSize { rows, cols }.is_possible());
        }
    }

    /// A change here is a change of protocol.
    #[test]
    fn wire_shapes() {
        let shape = |stdin: Stdin| serde_json::to_string(&stdin).unwrap();
        assert_eq!(shape(Stdin::Pipe), r#""pipe""#);
        let terminal = Stdin::Terminal(TerminalSize::DEFAULT);
        assert_eq!(shape(terminal), r#"{"terminal":{"rows":24,"cols":80}}"#);
    }
}
