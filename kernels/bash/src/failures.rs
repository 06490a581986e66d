//! What the `error` of a run says: exit codes, errors of parsing, signals.

use crate::protocol::{Execute, Failure};

/// Longest line that is passed on.
const LINE_CHARS_MAX: usize = 8 * 1024;

impl Failure {
    pub(crate) fn plain(name: &'static str, message: String) -> Self {
        Self {
            traceback: vec![format!("{name}: {message}")],
            name,
            message,
            line: None,
        }
    }
}

/// What can be said of a cell before the shell sees it.
pub(crate) fn refuse(execute: &Execute) -> Option<Failure> {
    if execute.code.contains('\0') {
        return Some(Failure::plain(
            "SyntaxError",
            "the code contains a zero byte".to_owned(),
        ));
    }
    let cwd = execute.cwd.as_ref()?;
    let error = std::fs::read_dir(cwd).err()?;
    Some(Failure::plain(
        "WorkingDirectory",
        format!("cannot enter {cwd}: {error}"),
    ))
}

pub(crate) fn interrupted() -> Failure {
    Failure {
        name: "Interrupted",
        message: "SIGINT".to_owned(),
        traceback: vec!["Interrupted: SIGINT".to_owned()],
        line: None,
    }
}

/// A cell whose last command failed, or that ended the shell.
pub(crate) fn exit_code(status: i32, line: Option<usize>, code: &str) -> Failure {
    let meaning = match status {
        126 => " (not executable)".to_owned(),
        127 => " (command not found)".to_owned(),
        129..=192 => format!(" ({})", signal_name(status - 128)),
        _ => String::new(),
    };
    let message = format!("exit status {status}{meaning}");
    let mut traceback = Vec::new();
    // A cell of one line can have failed in no other.
    let line = line.or_else(|| (code.trim_end().lines().count() == 1).then_some(1));
    if let Some((line, source)) =
        line.and_then(|line| Some((line, code.lines().nth(line.checked_sub(1)?)?)))
    {
        traceback.push(format!("line {line}: {}", clip(source.trim())));
    }
    traceback.push(format!("ExitCode: {message}"));
    Failure {
        name: "ExitCode",
        message,
        traceback,
        line,
    }
}

pub(crate) fn signal_name(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let index = usize::try_from(number - 1).ok();
    index
        .and_then(|index| NAMES.get(index))
        .map_or_else(|| format!("signal {number}"), |name| format!("SIG{name}"))
}

/// What bash says about the file `path`, without its name: `line 3: syntax error …`
pub(crate) fn complaints(text: &str, path: &str) -> Vec<String> {
    let mark = format!("{path}: ");
    text.lines()
        .filter_map(|line| line.split_once(&mark))
        .map(|(_, complaint)| complaint)
        .filter(|complaint| complaint.starts_with("line "))
        .map(clip)
        .collect()
}

pub(crate) fn describe_syntax_error(said: &[String], code: &str) -> Failure {
    let (line, message) = said
        .first()
        .and_then(|first| first.strip_prefix("line "))
        .and_then(|rest| rest.split_once(": "))
        .map_or((None, "syntax error"), |(line, message)| {
            (line.parse::<usize>().ok(), message)
        });
    let message = message.strip_prefix("syntax error: ").unwrap_or(message);
    let mut traceback = said.to_vec();
    traceback.push(format!("SyntaxError: {message}"));
    Failure {
        name: "SyntaxError",
        message: message.to_owned(),
        traceback,
        // The end of the file is one line below the code.
        line: line.map(|line| line.min(code.lines().count().max(1))),
    }
}

fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(LINE_CHARS_MAX).collect();
    // No colours, and nothing that a terminal obeys.
    clipped.retain(|character| !character.is_control() || character == '\t');
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_those_about_the_cell() {
        let text = "bash-5.2$ bash: /d/cell: line 4: syntax error near unexpected token `fi'\n\
                    bash: /d/cell: line 4: `fi fi'\nbash: warning: here-document at line 1\n";
        let said = complaints(text, "/d/cell");
        assert_eq!(said.len(), 2);
        let failure = describe_syntax_error(&said, "a\nb\nc\nfi fi\n");
        assert_eq!(failure.line, Some(4));
        assert_eq!(failure.message, "syntax error near unexpected token `fi'");
        assert_eq!(failure.traceback.len(), 3);
        let end = vec!["line 3: syntax error: unexpected end of file".to_owned()];
        let failure = describe_syntax_error(&end, "if true\nthen");
        assert_eq!(
            (failure.line, failure.message.as_str()),
            (Some(2), "unexpected end of file")
        );
    }

    #[test]
    fn an_exit_code_says_what_it_means() {
        let failure = exit_code(139, Some(2), "true\n  crash \u{1b}[1m\n");
        assert_eq!(failure.message, "exit status 139 (SIGSEGV)");
        assert_eq!(failure.traceback[0], "line 2: crash [1m");
        assert_eq!(exit_code(1, None, "a\nb").line, None);
        assert_eq!(exit_code(1, None, "only\n").line, Some(1));
        assert_eq!(exit_code(1, Some(99), "a").traceback.len(), 1);
    }

    #[test]
    fn a_zero_byte_is_refused() {
        let execute = |code: &str, cwd: Option<&str>| Execute {
            run: 1,
            code: code.into(),
            cwd: cwd.map(str::to_owned),
            input: false,
        };
        assert!(refuse(&execute("a\0b", None)).is_some());
        assert!(refuse(&execute("a", Some("/no/such"))).is_some());
        assert_eq!(refuse(&execute("a", Some("/"))), None);
    }
}
