//! `complete`: names that begin with what was typed. Made of the state that is known and of
//! directories, without a word to the shell: nothing there can change by it.

use crate::snapshot::Snapshot;
use crate::words::{self, Place, Word};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Matches of one answer.
const MATCHES_MAX: usize = 200;
/// Entries that are read of one directory, and directories of `PATH`.
const ENTRIES_MAX: usize = 50_000;
const PATH_DIRECTORIES_MAX: usize = 64;
/// Commands whose arguments are names of variables.
const TAKE_VARIABLES: [&str; 7] = [
    "unset", "export", "readonly", "declare", "local", "typeset", "read",
];
/// Commands whose arguments are directories.
const TAKE_DIRECTORIES: [&str; 3] = ["cd", "pushd", "rmdir"];
/// What has to be escaped in a word without quotes.
const SPECIAL: &str = " \t\n\\'\"$`&;|<>()*?[]{}!#~";

pub(crate) const KEYWORDS: [&str; 22] = [
    "!", "[[", "]]", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for",
    "function", "if", "in", "select", "then", "time", "until", "while", "{", "}",
];
pub(crate) const BUILTINS: [&str; 61] = [
    ".",
    ":",
    "[",
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "cd",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "declare",
    "dirs",
    "disown",
    "echo",
    "enable",
    "eval",
    "exec",
    "exit",
    "export",
    "false",
    "fc",
    "fg",
    "getopts",
    "hash",
    "help",
    "history",
    "jobs",
    "kill",
    "let",
    "local",
    "logout",
    "mapfile",
    "popd",
    "printf",
    "pushd",
    "pwd",
    "read",
    "readarray",
    "readonly",
    "return",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "test",
    "times",
    "trap",
    "true",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "wait",
];

/// Names and their kinds, sorted, each once.
type Matches = BTreeMap<String, Option<&'static str>>;

/// The answer for a cursor in `code`.
pub(crate) fn answer(code: &str, cursor: Option<usize>, state: &Snapshot) -> Map<String, Value> {
    let length = code.chars().count();
    let cursor = cursor.unwrap_or(length).min(length);
    let word = words::before(code, cursor);
    let mut matches = Matches::new();
    let mut start = word.start;
    let is_path = word.text.contains('/') || word.text.starts_with('~');
    match word.place {
        Place::Comment => {}
        Place::Variable => add_variables(&word.text, state, &mut matches),
        Place::Command if !is_path => add_commands(&word.text, state, &mut matches),
        Place::Command => start = add_files(&word, state, &mut matches),
        Place::Argument => {
            let command = word.command.as_deref().unwrap_or_default();
            if TAKE_VARIABLES.contains(&command) {
                add_variables(&word.text, state, &mut matches);
            }
            if matches.is_empty() {
                start = add_files(&word, state, &mut matches);
            }
        }
    }
    let omitted = matches.len().saturating_sub(MATCHES_MAX);
    let listed: Vec<Value> = matches
        .into_iter()
        .take(MATCHES_MAX)
        .map(|(text, kind)| match kind {
            Some(kind) => json!({"text": text, "kind": kind}),
            None => json!({"text": text}),
        })
        .collect();
    let mut answer = Map::new();
    answer.insert("matches".to_owned(), listed.into());
    answer.insert("start".to_owned(), start.into());
    answer.insert("end".to_owned(), cursor.into());
    if omitted > 0 {
        answer.insert("omitted".to_owned(), omitted.into());
    }
    answer
}

fn add_variables(typed: &str, state: &Snapshot, matches: &mut Matches) {
    for variable in &state.variables {
        if variable.name.starts_with(typed) {
            matches.insert(variable.name.clone(), Some("variable"));
        }
    }
}

fn add_commands(typed: &str, state: &Snapshot, matches: &mut Matches) {
    for directory in search_path(state) {
        for entry in entries(&directory) {
            if entry.name.starts_with(typed) && entry.is_program {
                matches.insert(entry.name, Some("file"));
            }
        }
    }
    let keywords = KEYWORDS.iter().chain(&BUILTINS);
    for name in keywords.filter(|name| name.starts_with(typed)) {
        matches.insert((*name).to_owned(), Some("keyword"));
    }
    let aliases = state.aliases.iter().map(|(name, _)| name);
    let functions = state.functions.iter().map(|function| &function.name);
    for name in aliases
        .chain(functions)
        .filter(|name| name.starts_with(typed))
    {
        matches.insert(name.clone(), Some("function"));
    }
}

/// Files below the directory that was typed. Returns where the last part of the path begins: what
/// stands before it stays as it was written.
fn add_files(word: &Word, state: &Snapshot, matches: &mut Matches) -> usize {
    let (parent, typed) = word
        .text
        .rsplit_once('/')
        .map_or(("", &*word.text), |(parent, typed)| {
            (if parent.is_empty() { "/" } else { parent }, typed)
        });
    let directories_only = word
        .command
        .as_deref()
        .is_some_and(|command| TAKE_DIRECTORIES.contains(&command));
    for entry in entries(&resolve(parent, state)) {
        let is_hidden = entry.name.starts_with('.') && !typed.starts_with('.');
        if entry.name.starts_with(typed) && !is_hidden && (entry.is_directory || !directories_only)
        {
            let mut text = escape(&entry.name, word.quote);
            if entry.is_directory {
                text.push('/');
            }
            matches.insert(text, Some("file"));
        }
    }
    word.part_start
}

/// The directory that a path names where the shell is.
fn resolve(parent: &str, state: &Snapshot) -> PathBuf {
    let home = || state.value("HOME").unwrap_or_default();
    let current = state.directory.as_deref().unwrap_or("/");
    match parent.strip_prefix('~') {
        Some("") => PathBuf::from(home()),
        Some(rest) if rest.starts_with('/') => PathBuf::from(format!("{}{rest}", home())),
        _ => Path::new(current).join(parent),
    }
}

fn search_path(state: &Snapshot) -> Vec<PathBuf> {
    let path = state.value("PATH").unwrap_or_default();
    path.split(':')
        .filter(|directory| directory.starts_with('/'))
        .take(PATH_DIRECTORIES_MAX)
        .map(PathBuf::from)
        .collect()
}

/// The first program of that name.
pub(crate) fn find_program(name: &str, state: &Snapshot) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(resolve(name, state)).filter(is_program);
    }
    search_path(state)
        .into_iter()
        .map(|directory| directory.join(name))
        .find(is_program)
}

struct Entry {
    name: String,
    is_directory: bool,
    is_program: bool,
}

fn entries(directory: &Path) -> Vec<Entry> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .take(ENTRIES_MAX)
        .filter_map(|entry| {
            let kind = entry.file_type().ok()?;
            let kind_of_target = if kind.is_symlink() {
                fs::metadata(entry.path()).ok()
            } else {
                None
            };
            let is_directory = kind_of_target
                .as_ref()
                .map_or_else(|| kind.is_dir(), fs::Metadata::is_dir);
            let is_file = kind_of_target
                .as_ref()
                .map_or_else(|| kind.is_file(), fs::Metadata::is_file);
            Some(Entry {
                name: entry.file_name().into_string().ok()?,
                is_directory,
                is_program: is_file,
            })
        })
        .collect()
}

fn escape(name: &str, quote: Option<char>) -> String {
    match quote {
        Some('\'') => name.to_owned(),
        Some(_) => escape_all(name, "\\\"$`"),
        None => escape_all(name, SPECIAL),
    }
}

fn escape_all(name: &str, special: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for character in name.chars() {
        if special.contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Function, Variable};

    fn state(directory: &str) -> Snapshot {
        let variable = |name: &str, value: &str| Variable {
            name: name.into(),
            attributes: String::new(),
            value: Some(value.as_bytes().to_vec()),
        };
        Snapshot {
            variables: vec![
                variable("lonely", "\"1\""),
                variable("HOME", &format!("\"{directory}\"")),
                variable("PATH", "\"/usr/bin:/bin\""),
            ],
            functions: vec![Function {
                name: "lonely_function".into(),
                attributes: String::new(),
                text: Vec::new(),
            }],
            directory: Some(directory.into()),
            ..Snapshot::default()
        }
    }

    fn texts(answer: &Map<String, Value>) -> Vec<&str> {
        let matches = answer["matches"].as_array().unwrap();
        matches
            .iter()
            .map(|m| m["text"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn variables_functions_and_programs_are_found() {
        let state = state("/");
        assert_eq!(texts(&answer("echo $lon", None, &state)), ["lonely"]);
        assert_eq!(
            texts(&answer("lonely_f", None, &state)),
            ["lonely_function"]
        );
        assert_eq!(texts(&answer("unset lonel", None, &state)), ["lonely"]);
        assert!(texts(&answer("ech", None, &state)).contains(&"echo"));
        assert!(texts(&answer("mkdi", None, &state)).contains(&"mkdir"));
        assert_eq!(texts(&answer("# ech", None, &state)), Vec::<&str>::new());
        let found = answer("mkdi x", Some(4), &state);
        assert_eq!(
            (found["start"].as_u64(), found["end"].as_u64()),
            (Some(0), Some(4))
        );
    }

    #[test]
    fn files_are_found_and_escaped() {
        let directory =
            std::env::temp_dir().join(format!("crownest-complete-{}", std::process::id()));
        fs::create_dir_all(directory.join("sub dir")).unwrap();
        fs::write(directory.join("sub.txt"), "").unwrap();
        fs::write(directory.join(".hidden"), "").unwrap();
        let state = state(directory.to_str().unwrap());
        let found = answer("cat sub", None, &state);
        assert_eq!(texts(&found), ["sub.txt", "sub\\ dir/"]);
        assert_eq!(found["start"].as_u64(), Some(4));
        assert_eq!(texts(&answer("cd s", None, &state)), ["sub\\ dir/"]);
        assert_eq!(texts(&answer("cat \"sub d", None, &state)), ["sub dir/"]);
        assert_eq!(texts(&answer("cat .h", None, &state)), [".hidden"]);
        let found = answer("cat ~/sub.t", None, &state);
        assert_eq!(
            (texts(&found), found["start"].as_u64()),
            (vec!["sub.txt"], Some(6))
        );
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn the_rest_is_counted() {
        let mut state = state("/");
        for number in 0..500 {
            let mut variable = state.variables[0].clone();
            variable.name = format!("many_{number}");
            state.variables.push(variable);
        }
        let found = answer("echo $many_", None, &state);
        assert_eq!(texts(&found).len(), MATCHES_MAX);
        assert_eq!(found["omitted"].as_u64(), Some(300));
    }

    #[test]
    fn lists_of_words_are_in_order() {
        assert!(KEYWORDS.is_sorted() && BUILTINS.is_sorted());
    }
}
