//! The lines that bash reads from this driver. Pure text.
//!
//! `\builtin` and not `builtin`: no alias can stand for it. A function can; what the driver does
//! then is in `run.rs`. Every block begins with an empty line: a SIGINT that bash has not looked at
//! yet throws away the character that it reads next.

use crate::quoting::single;
use std::fmt::Write as _;
use std::os::fd::RawFd;

/// Begins the names of the variables that this driver needs inside the shell.
pub(crate) const OWN_PREFIX: &str = "__crownest_";
/// Words of the syntax that the lines below begin commands with. An alias could stand for them.
pub(crate) const WRAPPING_WORDS: [&str; 5] = ["{", "}", "[[", "!", "function"];
/// The function that asks for input.
pub(crate) const READ_FUNCTION: &str = "read";

/// Numbers of the descriptors that only the shell itself has, not what it starts. High, so that
/// what bash saves while a cell runs is above them and out of the way of a cell's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrivateFds {
    pub(crate) stdout: RawFd,
    pub(crate) stderr: RawFd,
    pub(crate) null: RawFd,
    pub(crate) started: RawFd,
}

impl PrivateFds {
    /// Redirections of a cell. Each private descriptor becomes a copy of another high one before it
    /// is closed: bash then saves the real one above that number, where no cell's `exec 10>file`
    /// overwrites it.
    fn of_cell(&self, stdin: Option<&str>) -> String {
        let Self {
            stdout,
            stderr,
            null,
            started,
        } = *self;
        let stdin = match stdin {
            None => format!("<&{null}"),
            Some(path) => {
                let spare = self.highest() + 1;
                format!("{spare}<{} <&{spare} {spare}>&-", single(path))
            }
        };
        format!(
            "{stdin} >&{stdout} 2>&{stderr} {stdout}>&{null} {stderr}>&{null} {started}>&{null} \
             {null}>&{stdout} {stdout}>&- {stderr}>&- {started}>&- {null}>&-"
        )
    }

    fn highest(&self) -> RawFd {
        self.stdout
            .max(self.stderr)
            .max(self.null)
            .max(self.started)
    }
}

/// What a new shell reads first.
pub(crate) fn boot(keep: &str, leaving: &str) -> String {
    format!(
        "PS1= PS2=\n\
         \\builtin unset -v PROMPT_COMMAND PS0 MAILCHECK HISTFILE TMOUT\n\
         \\builtin set +o history +o histexpand\n\
         \\builtin shopt -u checkwinsize\n\
         \\builtin shopt -s extglob\n\
         {}{}",
        trap_on_error(),
        trap_on_exit(keep, leaving)
    )
}

/// Remembers the line that failed, as long as a cell runs.
pub(crate) fn trap_on_error() -> String {
    format!(
        "\\builtin trap '{OWN_PREFIX}line=${{BASH_LINENO:+$?:$LINENO:${{BASH_LINENO[*]}}:}}\
         ${{BASH_LINENO:-${OWN_PREFIX}line}}' ERR\n"
    )
}

/// Writes down the state of a shell that ends.
pub(crate) fn trap_on_exit(keep: &str, leaving: &str) -> String {
    let commands = format!(
        "\\builtin . {} >|{} 2>/dev/null",
        single(keep),
        single(leaving)
    );
    format!("\\builtin trap {} EXIT\n", single(&commands))
}

/// Says that everything before it has been read.
pub(crate) fn booted(sequence: u64) -> String {
    format!("\n\\builtin printf '\\1b;{sequence};%s\\2' \"$BASH_VERSION\" >&2\n")
}

/// The environment and the directory of the context.
pub(crate) fn start<'a>(cwd: &str, env: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let mut text = String::from("\n");
    for (name, value) in env {
        writeln!(text, "\\builtin export {name}={}", single(value)).expect("writing to a String");
    }
    writeln!(text, "\\builtin cd -- {}", single(cwd)).expect("writing to a String");
    // The context begins here: there is nothing to go back to.
    text.push_str("\\builtin unset -v OLDPWD\n\\builtin export OLDPWD\n");
    text
}

/// Whether bash takes it as the name of a variable.
pub(crate) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The file of a cell: one group, so that an error of expansion (`set -u`, `${x:?}`) ends all of
/// it as it would end a script, and so that nothing runs of what cannot be parsed. Its first line
/// is the code's first line.
pub(crate) fn cell_file(
    code: &str,
    sequence: u64,
    last_status: i32,
    fds: &PrivateFds,
    stdin: Option<&str>,
) -> String {
    // The status of the cell before, for its `$?`. Neither errexit nor ERR looks at these.
    let status = match last_status {
        0 => "[[ 1 ]]".to_owned(),
        1 => "! [[ 1 ]]".to_owned(),
        other => format!("(exit {other}) && [[ 1 ]]"),
    };
    format!(
        "{{ {{ {OWN_PREFIX}cell={sequence}; {status}; }} 2>/dev/null; {code}\n\n}} {}\n",
        fds.of_cell(stdin)
    )
}

/// How a cell is run.
#[derive(Debug)]
pub(crate) struct CellLines<'a> {
    pub(crate) sequence: u64,
    pub(crate) file: &'a str,
    pub(crate) cwd: Option<&'a str>,
    pub(crate) fds: PrivateFds,
    pub(crate) token: &'a str,
    /// Defines the function that asks for input.
    pub(crate) read_function: Option<&'a str>,
}

/// Runs the file of a cell.
pub(crate) fn cell(lines: &CellLines<'_>) -> String {
    let mut text = String::from("\n");
    if let Some(function) = lines.read_function {
        text.push_str(function);
    }
    // One line: bash has read all of it when it says that it has begun, so a SIGINT from then on
    // ends the cell and nothing else.
    let run = format!(
        "\\builtin printf . >&{}; \\builtin . {}",
        lines.fds.started,
        single(lines.file)
    );
    match lines.cwd {
        None => writeln!(text, "{OWN_PREFIX}line=; {run}"),
        Some(cwd) => writeln!(
            text,
            "{OWN_PREFIX}line= {OWN_PREFIX}old=${{OLDPWD-}} {OWN_PREFIX}from=$PWD; \
             \\builtin cd -- {} && {OWN_PREFIX}there=$PWD && {{ {run}; }}",
            single(cwd)
        ),
    }
    .expect("writing to a String");
    text.push('\n');
    text.push_str(&cell_over(lines.sequence, 0, lines.token));
    text
}

/// Says that a cell is over. The last line is for a shell without builtins: an error of expansion
/// needs none. It would end a shell with errexit. `copy` counts how often this was said before.
pub(crate) fn cell_over(sequence: u64, copy: u32, token: &str) -> String {
    let own = OWN_PREFIX;
    format!(
        "{own}status=$?; \\builtin printf '\\1c;{sequence};{copy};%s;%s;%s\\2' \
         \"${own}status\" \"${{{own}cell-}}\" \"${{{own}line-}}\" >&2\n\
         [[ $- == *e* ]] || ${{{token}?c;{sequence};{copy};${own}status;${{{own}cell-}};${{{own}line-}}}}\n"
    )
}

/// After a run with a directory of its own: back, unless the code itself went elsewhere.
pub(crate) fn go_back() -> String {
    let own = OWN_PREFIX;
    format!(
        "{{ [[ $PWD = \"${{{own}there-}}\" ]] && \\builtin cd -- \"${own}from\" \
         && OLDPWD=${own}old; }} || [[ 1 ]]\n\
         \\builtin unset -v {own}there {own}from {own}old\n"
    )
}

/// After a run with input.
pub(crate) fn forget_read() -> String {
    format!("\\builtin unset -f {READ_FUNCTION}\n")
}

/// Runs `command` with its output in `file`, then says so.
pub(crate) fn question(sequence: u64, command: &str, file: &str) -> String {
    format!(
        "{command} >|{} 2>/dev/null || [[ 1 ]]\n\
         \\builtin printf '\\1a;{sequence}\\2' >&2\n",
        single(file)
    )
}

/// The script that prints the state of the shell; `snapshot.rs` reads it. Also run by the EXIT
/// trap, maybe inside of functions, whose own variables are not the shell's.
pub(crate) const KEEP_SCRIPT: &str = r#"\builtin printf 'crownest;%s;%s;%s\0' "$?" "${BASH_LINENO[*]}" "${__crownest_line-}"
\builtin declare -p; \builtin printf '\0'
\builtin declare -f; \builtin printf '\0'
\builtin declare -F; \builtin printf '\0'
\builtin alias -p; \builtin printf '\0'
\builtin shopt -p || [[ 1 ]]; \builtin printf '\0'
\builtin set +o; \builtin printf '\0'
\builtin trap -p; \builtin printf '\0'
\builtin pwd; \builtin printf '\0'
\builtin dirs -l -p; \builtin printf '\0'
\builtin umask -p; \builtin printf '\0'
\builtin printf '%q ' "$@"; \builtin printf '\0'
\builtin jobs -p; \builtin printf '\0'
[[ ${#FUNCNAME[@]} -gt 2 ]] && \builtin local -p; \builtin printf '\0end'
"#;

#[cfg(test)]
mod tests {
    use super::*;

    const FDS: PrivateFds = PrivateFds {
        stdout: 60,
        stderr: 61,
        null: 62,
        started: 63,
    };

    #[test]
    fn a_cell_keeps_its_line_numbers() {
        let file = cell_file("echo 1\necho 2 # end", 5, 0, &FDS, None);
        assert_eq!(file.lines().nth(1), Some("echo 2 # end"));
        assert!(file.lines().next().unwrap().ends_with("; echo 1"));
        assert!(cell_file("", 5, 7, &FDS, None).contains("(exit 7) && [[ 1 ]]"));
    }

    #[test]
    fn nothing_private_is_left_open_in_a_cell() {
        let redirections = FDS.of_cell(Some("/d/stdin"));
        for fd in [60, 61, 62, 63, 64] {
            assert!(redirections.contains(&format!("{fd}>&-")), "{redirections}");
        }
    }

    #[test]
    fn names_are_those_that_bash_takes() {
        for name in ["a", "_", "A1_b"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "1a", "a.b", "a-b", "ä", "a b", "a;b"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn every_block_begins_with_an_empty_line() {
        let lines = CellLines {
            sequence: 1,
            file: "/d/cell",
            cwd: Some("/it's"),
            fds: FDS,
            token: "T",
            read_function: None,
        };
        let text = cell(&lines);
        assert!(text.starts_with('\n') && text.ends_with('\n'));
        assert!(text.contains(r"\builtin cd -- '/it'\''s' &&"), "{text}");
        assert!(booted(1).starts_with('\n'));
    }
}
