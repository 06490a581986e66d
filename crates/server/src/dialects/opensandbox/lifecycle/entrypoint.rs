//! What a sandbox runs from its start.
//!
//! A container lives as long as its entrypoint, so many have one that only waits. A sandbox here
//! lives by itself: such an entrypoint is taken as done. Any other runs as a command of the
//! sandbox, with a record and a log like those of `/v1`; when it ends, the sandbox goes on.

use crate::auth::Principal;
use crate::commands::{CheckedCommand, Wait};
use crate::error::{ApiError, ApiResult};
use crownest_api::command::RunCommand;

/// What an entrypoint is when none is named.
pub(super) const DEFAULT: [&str; 3] = ["tail", "-f", "/dev/null"];
/// Starts the interpreters of the original's image, which ours has without being started. The
/// first is that of older images.
const INTERPRETERS: [&str; 2] = [
    "/opt/opensandbox/code-interpreter.sh",
    "/opt/code-interpreter/code-interpreter.sh",
];

/// Whether it does nothing but keep a container alive.
pub(super) fn only_waits(argv: &[String]) -> bool {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["sleep", "infinity"] => true,
        [script] => INTERPRETERS.contains(script),
        words => *words == DEFAULT,
    }
}

/// The command that runs it.
pub(super) fn command(argv: &[String], who: &Principal) -> ApiResult<CheckedCommand> {
    if argv.first().is_some_and(String::is_empty) {
        let message = "entrypoint begins with the name of a program";
        return Err(ApiError::field("entrypoint", message));
    }
    let words: Vec<String> = argv.iter().map(|word| quoted(word)).collect();
    let request = RunCommand {
        command: format!("exec {}", words.join(" ")),
        cwd: None,
        env: None,
        timeout_ms: None,
        collect: None,
        collect_on: None,
        background: Some(true),
        require_command_read: None,
    };
    CheckedCommand::check(request, Wait::Begin, who)
}

/// One word of a shell's line.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_needs_no_process() {
        let argv = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        for words in [
            &["tail", "-f", "/dev/null"][..],
            &["/opt/opensandbox/code-interpreter.sh"],
            &["/opt/code-interpreter/code-interpreter.sh"],
            &["sleep", "infinity"],
        ] {
            assert!(only_waits(&argv(words)), "{words:?}");
        }
        for words in [
            &["tail", "-f", "/var/log/x"][..],
            &["python", "app.py"],
            &["/bin/bash"],
        ] {
            assert!(!only_waits(&argv(words)), "{words:?}");
        }
    }

    #[test]
    fn words_stay_words() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's $HOME"), "'it'\\''s $HOME'");
    }
}
