//! What the driver knows of its shell: the last state that it wrote down, that of a new one, and
//! in which order variables appeared. Makes the text that gives a new shell the old one's state.

use crate::lines::{WRAPPING_WORDS, is_name};
use crate::quoting::{single, unquote, value_length};
use crate::snapshot::{Snapshot, Trap, Variable, is_of_bash};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// Longest preview of a variable.
const PREVIEW_CHARS_MAX: usize = 200;
/// Options that would end or disturb the shell while it takes the rest over: set last.
const DISTURBING_OPTIONS: [&str; 5] = ["errexit", "nounset", "xtrace", "verbose", "noexec"];

/// Options with which no shell can live as long as a context: it would end after one command.
const DEADLY_OPTIONS: [&str; 1] = ["onecmd"];

/// The state of one context.
#[derive(Debug, Default)]
pub(crate) struct State {
    last: Option<Snapshot>,
    /// What a new shell has before any cell.
    baseline: HashMap<String, Variable>,
    baseline_functions: HashSet<String>,
    /// Names of variables and functions, in the order in which they appeared.
    order: Vec<String>,
}

impl State {
    /// The state before any cell.
    pub(crate) fn begin(&mut self, snapshot: Snapshot) {
        self.baseline = snapshot
            .variables
            .iter()
            .map(|variable| (variable.name.clone(), variable.clone()))
            .collect();
        self.baseline_functions = snapshot.functions.iter().map(|f| f.name.clone()).collect();
        self.order.clear();
        self.last = Some(snapshot);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    pub(crate) fn last(&self) -> Option<&Snapshot> {
        self.last.as_ref()
    }

    /// Takes over what the shell has written. Where it ended inside of functions, what is theirs
    /// stays as it was before.
    pub(crate) fn adopt(&mut self, mut snapshot: Snapshot) {
        if snapshot.end.in_function
            && let Some(before) = &self.last
        {
            let local = std::mem::take(&mut snapshot.end.local);
            snapshot.variables.retain(|v| !local.contains(&v.name));
            let old = |name: &String| before.variable(name).cloned();
            snapshot.variables.extend(local.iter().filter_map(old));
            snapshot.arguments.clone_from(&before.arguments);
        }
        let names: HashSet<&str> = snapshot
            .variables
            .iter()
            .map(|variable| variable.name.as_str())
            .chain(snapshot.functions.iter().map(|f| f.name.as_str()))
            .collect();
        self.order.retain(|name| names.contains(name.as_str()));
        let known: HashSet<&str> = self.order.iter().map(String::as_str).collect();
        let mut new: Vec<String> = names
            .into_iter()
            .filter(|name| !known.contains(name))
            .map(str::to_owned)
            .collect();
        new.sort_unstable();
        self.order.extend(new);
        self.last = Some(snapshot);
    }

    /// Aliases of words that every cell is wrapped in.
    pub(crate) fn harmful_aliases(&self) -> Vec<&'static str> {
        let aliases = self.last.iter().flat_map(|snapshot| &snapshot.aliases);
        aliases
            .filter_map(|(name, _)| WRAPPING_WORDS.iter().find(|word| *word == name).copied())
            .collect()
    }

    /// Forgets what cannot be taken over: the next shell begins anew.
    pub(crate) fn forget(&mut self) {
        self.last = None;
        self.order.clear();
    }

    /// Whether tenant code made it, or changed what it found.
    fn is_made_by_code(&self, variable: &Variable) -> bool {
        !is_of_bash(&variable.name)
            && variable.name != "OLDPWD"
            && self.baseline.get(&variable.name) != Some(variable)
    }

    /// Lines that give a new shell this state. `directory`: that of the context.
    pub(crate) fn restoring(&self, directory: Option<&str>) -> Vec<u8> {
        let mut text = Vec::new();
        if let Some(directory) = directory {
            push_line(&mut text, &format!("\\builtin cd -- {}", single(directory)));
        }
        let Some(snapshot) = &self.last else {
            return text;
        };
        if let Some(directory) = &snapshot.directory {
            push_line(&mut text, &format!("\\builtin cd -- {}", single(directory)));
        }
        for directory in snapshot.directory_stack.iter().rev() {
            let push = format!("\\builtin pushd -n -- {} >&2", single(directory));
            push_line(&mut text, &push);
        }
        self.push_variables(snapshot, &mut text);
        text.extend_from_slice(&prefixed(&snapshot.shopt));
        text.extend_from_slice(&prefixed(&snapshot.umask));
        for Trap { line, .. } in &snapshot.traps {
            text.extend_from_slice(b"\\builtin ");
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        push_functions(snapshot, &mut text);
        for (name, value) in &snapshot.aliases {
            text.extend_from_slice(format!("\\builtin alias -- {name}=").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        text.extend_from_slice(b"\\builtin set -- ");
        text.extend_from_slice(&snapshot.arguments);
        text.push(b'\n');
        let (disturbing, calm): (Vec<&[u8]>, Vec<&[u8]>) = snapshot
            .options
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| !names_one_of(line, &DEADLY_OPTIONS))
            .partition(|line| names_one_of(line, &DISTURBING_OPTIONS));
        text.extend_from_slice(&prefixed(&calm.concat()));
        text.extend_from_slice(&prefixed(&disturbing.concat()));
        text
    }

    fn push_variables(&self, snapshot: &Snapshot, text: &mut Vec<u8>) {
        for variable in &snapshot.variables {
            if !is_of_bash(&variable.name) && is_name(&variable.name) {
                push_variable(variable, text);
            }
        }
        for name in self.baseline.keys() {
            if !is_of_bash(name) && is_name(name) && snapshot.variable(name).is_none() {
                push_line(text, &format!("\\builtin unset -v {name}"));
            }
        }
    }

    /// The answer to `variables`: what code made, in the order in which it appeared.
    pub(crate) fn listing(&self) -> Vec<Value> {
        let Some(snapshot) = &self.last else {
            return Vec::new();
        };
        let variables: HashMap<&str, &Variable> = snapshot
            .variables
            .iter()
            .filter(|variable| self.is_made_by_code(variable))
            .map(|variable| (variable.name.as_str(), variable))
            .collect();
        let mut listed = Vec::new();
        for name in &self.order {
            if let Some(variable) = variables.get(name.as_str()) {
                listed.push(describe(variable));
            }
            if let Some(function) = snapshot.function(name)
                && !self.baseline_functions.contains(name)
            {
                listed.push(json!({
                    "name": name,
                    "type": "function",
                    "kind": "function",
                    "preview": preview(&String::from_utf8_lossy(&function.text)),
                }));
            }
        }
        listed
    }
}

/// Whether a line of `set +o` is about one of these options.
fn names_one_of(line: &[u8], options: &[&str]) -> bool {
    let name = line.trim_ascii_end().rsplit(|byte| *byte == b' ').next();
    options.iter().any(|option| name == Some(option.as_bytes()))
}

/// In steps: behind `builtin`, bash does not take a list for the value of a declaration, and what
/// is readonly cannot be given one.
fn push_variable(variable: &Variable, text: &mut Vec<u8>) {
    let name = &variable.name;
    let first: String = variable.attributes.chars().filter(|a| *a != 'r').collect();
    let first = if first.is_empty() { "-" } else { &first };
    push_line(text, &format!("\\builtin declare -{first} {name}"));
    if let Some(value) = &variable.value {
        // A reference would be followed by a plain assignment.
        let is_reference = variable.attributes.contains('n');
        let head = if is_reference {
            format!("\\builtin declare -n {name}=")
        } else {
            format!("{name}=")
        };
        text.extend_from_slice(head.as_bytes());
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    if variable.attributes.contains('r') {
        push_line(text, &format!("\\builtin declare -r {name}"));
    }
}

fn push_line(text: &mut Vec<u8>, line: &str) {
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
}

/// `\builtin ` before every line that is a command.
fn prefixed(lines: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(lines.len() * 2);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b"shopt ") || line.starts_with(b"set ") || line.starts_with(b"umask ") {
            text.extend_from_slice(b"\\builtin ");
            text.extend_from_slice(line);
        }
    }
    text
}

fn push_functions(snapshot: &Snapshot, text: &mut Vec<u8>) {
    for function in &snapshot.functions {
        text.extend_from_slice(&function.text);
        if !function.text.ends_with(b"\n") {
            text.push(b'\n');
        }
    }
    for function in &snapshot.functions {
        if !function.attributes.is_empty() && !function.text.is_empty() {
            let flags = &function.attributes;
            let declare = format!("\\builtin declare -f{flags} -- {}", single(&function.name));
            push_line(text, &declare);
        }
    }
}

/// One entry of the answer to `variables`.
fn describe(variable: &Variable) -> Value {
    let has = |letter| variable.attributes.contains(letter);
    let is_list = has('a') || has('A');
    let mut kind = vec![if has('A') {
        "map"
    } else if has('a') {
        "array"
    } else if has('n') {
        "reference"
    } else if has('i') {
        "integer"
    } else {
        "string"
    }];
    kind.extend(
        [(has('r'), "readonly"), (has('x'), "exported")]
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, word)| *word),
    );
    let value = variable.value.as_deref().unwrap_or_default();
    let (text, size) = if is_list {
        let text = String::from_utf8_lossy(value).into_owned();
        (text, elements(value))
    } else {
        let text = String::from_utf8_lossy(&unquote(value)).into_owned();
        let size = text.chars().count();
        (text, size)
    };
    let mut entry = json!({
        "name": variable.name,
        "type": kind.join(", "),
        "kind": "variable",
        "preview": preview(&text),
    });
    if let Some(fields) = entry.as_object_mut()
        && !has('i')
        && !has('n')
    {
        fields.insert("size".to_owned(), size.into());
    }
    entry
}

fn preview(text: &str) -> String {
    if text.chars().count() <= PREVIEW_CHARS_MAX {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(PREVIEW_CHARS_MAX - 1).collect();
    short.push('…');
    short
}

/// Number of elements of `([0]="a" [1]="b")`.
fn elements(list: &[u8]) -> usize {
    let mut rest = list
        .strip_prefix(b"(")
        .and_then(|list| list.strip_suffix(b")"))
        .unwrap_or_default()
        .trim_ascii();
    let mut count = 0;
    while !rest.is_empty() {
        count += 1;
        rest = rest[value_length(rest).max(1)..].trim_ascii_start();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, attributes: &str, value: Option<&str>) -> Variable {
        Variable {
            name: name.into(),
            attributes: attributes.into(),
            value: value.map(|value| value.as_bytes().to_vec()),
        }
    }

    fn with(variables: Vec<Variable>) -> Snapshot {
        Snapshot {
            variables,
            options: b"set -o errexit\nset +o noglob\nset +o interactive-comments\n".to_vec(),
            directory: Some("/it's".into()),
            ..Snapshot::default()
        }
    }

    #[test]
    fn variables_are_listed_as_they_appeared() {
        let mut state = State::default();
        state.begin(with(vec![variable("HOME", "x", Some("\"/root\""))]));
        state.adopt(with(vec![
            variable("HOME", "x", Some("\"/root\"")),
            variable("z", "", Some("\"1\"")),
        ]));
        state.adopt(with(vec![
            variable("HOME", "x", Some("\"/home\"")),
            variable("RANDOM", "i", Some("\"7\"")),
            variable("a", "ar", Some("([0]=\"x\" [1]=$'y\\n z' )")),
            variable("n", "ix", Some("\"5\"")),
            variable("z", "", Some("\"1\"")),
        ]));
        let listed = state.listing();
        let names: Vec<_> = listed.iter().map(|v| v["name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            ["HOME", "z", "a", "n"],
            "one that is there from the start has its place"
        );
        assert_eq!(
            (listed[2]["type"].as_str(), listed[2]["size"].as_u64()),
            (Some("array, readonly"), Some(2))
        );
        assert_eq!(
            (listed[3]["type"].as_str(), listed[3].get("size")),
            (Some("integer, exported"), None)
        );
    }

    #[test]
    fn a_new_shell_gets_everything_and_errexit_last() {
        let mut state = State::default();
        state.begin(with(vec![variable("GONE", "x", Some("\"1\""))]));
        let mut snapshot = with(vec![
            variable("UID", "ir", Some("\"0\"")),
            variable("s", "", Some("$'a\\nb'")),
            variable("l", "ar", Some("([0]=\"1\")")),
            variable("a;b", "", None),
        ]);
        snapshot.arguments = b"a\\ b ".to_vec();
        state.adopt(snapshot);
        let text = String::from_utf8(state.restoring(Some("/workspace"))).unwrap();
        assert!(text.starts_with("\\builtin cd -- '/workspace'\n\\builtin cd -- '/it'\\''s'\n"));
        assert!(
            text.contains("\\builtin declare -- s\ns=$'a\\nb'\n"),
            "{text}"
        );
        assert!(text.contains("\\builtin declare -a l\nl=([0]=\"1\")\n\\builtin declare -r l\n"));
        assert!(text.contains("unset -v GONE\n") && text.contains("set -- a\\ b \n"));
        assert!(!text.contains("UID") && !text.contains("a;b"), "{text}");
        assert!(text.ends_with("\\builtin set -o errexit\n"), "{text}");
    }

    #[test]
    fn what_belongs_to_a_function_stays_behind() {
        let mut state = State::default();
        state.begin(with(vec![]));
        state.adopt(with(vec![variable("x", "", Some("\"1\""))]));
        let mut ended = with(vec![
            variable("x", "", Some("\"2\"")),
            variable("y", "", Some("\"3\"")),
        ]);
        ended.end.in_function = true;
        ended.end.local = vec!["x".into()];
        state.adopt(ended);
        let last = state.last().unwrap();
        assert_eq!(last.value("x").as_deref(), Some("1"));
        assert_eq!(last.value("y").as_deref(), Some("3"));
    }

    #[test]
    fn previews_are_short_and_lists_are_counted() {
        assert_eq!(preview(&"ä".repeat(500)).chars().count(), PREVIEW_CHARS_MAX);
        assert_eq!(elements(br#"([0]="a b" [1]=$'c )' )"#), 2);
        assert_eq!(elements(b"()"), 0);
        assert_eq!(elements(b"no list"), 0);
    }
}
