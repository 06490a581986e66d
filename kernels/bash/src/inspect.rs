//! `inspect`: what a name means. A function, an alias and a variable are known from the state;
//! `help` of a builtin is the one thing that the shell is asked for.

use crate::complete::{BUILTINS, KEYWORDS, find_program};
use crate::quoting::unquote;
use crate::snapshot::{Snapshot, Variable};
use serde_json::{Map, Value, json};

/// Longest text of an answer.
const TEXT_CHARS_MAX: usize = 64 * 1024;
/// Lines of a function that are shown without `detail`.
const LINES_SHORT: usize = 12;

/// What a name is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Text(String),
    /// A builtin or keyword: the shell knows more.
    Help(&'static str),
    Nothing,
}

/// Looks for `name`, which begins with `$` where only a variable is meant.
pub(crate) fn find(name: &str, detail: u8, state: &Snapshot) -> Found {
    if let Some(bare) = name.strip_prefix('$') {
        return state.variable(bare).map_or(Found::Nothing, |variable| {
            Found::Text(declaration(variable))
        });
    }
    if let Some((_, value)) = state.aliases.iter().find(|(alias, _)| alias == name) {
        let value = String::from_utf8_lossy(&unquote(value)).into_owned();
        return Found::Text(format!("{name} is an alias of {value}"));
    }
    if let Some(builtin) = KEYWORDS.iter().find(|keyword| **keyword == name) {
        return Found::Help(builtin);
    }
    if let Some(function) = state.function(name) {
        let text = String::from_utf8_lossy(&function.text);
        let mut shown: Vec<&str> = text.lines().collect();
        if detail == 0 && shown.len() > LINES_SHORT {
            shown.truncate(LINES_SHORT);
            shown.push("…");
        }
        return Found::Text(clip(&format!("{name} is a function\n{}", shown.join("\n"))));
    }
    if let Some(builtin) = BUILTINS.iter().find(|builtin| **builtin == name) {
        return Found::Help(builtin);
    }
    if let Some(path) = find_program(name, state) {
        return Found::Text(format!("{name} is {}", path.display()));
    }
    match state.variable(name) {
        Some(variable) => Found::Text(declaration(variable)),
        None => Found::Nothing,
    }
}

fn declaration(variable: &Variable) -> String {
    let attributes = match variable.attributes.as_str() {
        "" => "-",
        some => some,
    };
    let mut text = format!("declare -{attributes} {}", variable.name);
    if let Some(value) = &variable.value {
        text.push('=');
        text.push_str(&String::from_utf8_lossy(value));
    }
    clip(&text)
}

/// The answer with `text`, or that there is none.
pub(crate) fn answer(text: Option<&str>) -> Map<String, Value> {
    let mut answer = Map::new();
    answer.insert("found".to_owned(), text.is_some().into());
    if let Some(text) = text {
        answer.insert("data".to_owned(), json!({"text/plain": clip(text)}));
    }
    answer
}

fn clip(text: &str) -> String {
    if text.chars().count() <= TEXT_CHARS_MAX {
        return text.to_owned();
    }
    let kept: String = text.chars().take(TEXT_CHARS_MAX).collect();
    let left_out = text.len() - kept.len();
    format!("{kept}… ({left_out} bytes more)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Function;

    fn state() -> Snapshot {
        Snapshot {
            variables: vec![Variable {
                name: "n".into(),
                attributes: "i".into(),
                value: Some(b"\"5\"".to_vec()),
            }],
            functions: vec![Function {
                name: "half".into(),
                attributes: String::new(),
                text: b"half () \n{ \n    echo $(($1 / 2))\n}\n".to_vec(),
            }],
            aliases: vec![("ll".into(), b"'ls -l'".to_vec())],
            ..Snapshot::default()
        }
    }

    #[test]
    fn every_kind_of_name_is_found() {
        let state = state();
        let text = |name| match find(name, 1, &state) {
            Found::Text(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text("n"), "declare -i n=\"5\"");
        assert_eq!(text("$n"), "declare -i n=\"5\"");
        assert_eq!(text("ll"), "ll is an alias of ls -l");
        assert!(text("half").contains("echo $(($1 / 2))"));
        assert_eq!(find("for", 0, &state), Found::Help("for"));
        assert_eq!(find("cd", 0, &state), Found::Help("cd"));
        assert_eq!(find("$cd", 0, &state), Found::Nothing);
        assert_eq!(find("no_such_name", 0, &state), Found::Nothing);
    }
}
