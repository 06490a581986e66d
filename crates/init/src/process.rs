//! One process, as /proc tells of it.
//!
//! Who runs it: init, on text in which tenant code chooses the name of the program.

/// One process, as of a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub state: u8,
    pub group: i32,
    pub session: i32,
}

impl Process {
    /// Reads `/proc/<pid>/stat`; none when it is not one.
    ///
    /// The program's name is in parentheses and may contain anything, parentheses too.
    #[must_use]
    pub fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let group = fields.nth(1)?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        Some(Self {
            pid,
            state,
            group,
            session,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_move_the_fields() {
        let stat = b"7 (a) S 1 1 1 (\xff) T 1 22 33 0 -1";
        let process = Process::parse(7, stat).unwrap();
        assert_eq!(
            process,
            Process {
                pid: 7,
                state: b'T',
                group: 22,
                session: 33
            }
        );
        assert_eq!(Process::parse(7, b"7 (x"), None);
        assert_eq!(Process::parse(7, b"7 (x) S"), None);
    }
}
