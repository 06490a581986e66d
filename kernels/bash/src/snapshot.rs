//! The state of a shell as the script in `lines.rs` prints it: read, nothing else.
//!
//! All of it is written by tenant code's shell and may be anything.

use crate::lines::{OWN_PREFIX, READ_FUNCTION};
use crate::quoting::{unquote, value_length};
use crate::report::FailingLine;

/// Sections of the text, each ended by a zero byte; the last is `end`.
const SECTIONS: usize = 15;
/// Variables that belong to bash itself, and that a new shell makes for itself.
const OF_BASH: &[&str] = &[
    "BASH",
    "BASHOPTS",
    "BASHPID",
    "BASH_ALIASES",
    "BASH_ARGC",
    "BASH_ARGV",
    "BASH_ARGV0",
    "BASH_CMDS",
    "BASH_COMMAND",
    "BASH_LINENO",
    "BASH_LOADABLES_PATH",
    "BASH_REMATCH",
    "BASH_SOURCE",
    "BASH_SUBSHELL",
    "BASH_TRAPSIG",
    "BASH_VERSINFO",
    "BASH_VERSION",
    "BASH_XTRACEFD",
    "COMP_WORDBREAKS",
    "DIRSTACK",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "HISTFILE",
    "LINENO",
    "MAILCHECK",
    "OPTERR",
    "OPTIND",
    "PIPESTATUS",
    "PPID",
    "PS0",
    "PS1",
    "PS2",
    "PWD",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SRANDOM",
    "TMOUT",
    "UID",
    "_",
];

/// One line of `declare -p`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// Letters of its attributes, none for a plain string.
    pub(crate) attributes: String,
    /// As bash prints it, quotes and brackets included; None without a value.
    pub(crate) value: Option<Vec<u8>>,
}

/// One line of `declare -F`, with the text of `declare -f`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) attributes: String,
    /// Empty if its text could not be found.
    pub(crate) text: Vec<u8>,
}

/// What `trap -p` prints for one signal, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trap {
    pub(crate) signal: String,
    pub(crate) line: Vec<u8>,
}

/// Everything that outlives a shell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) variables: Vec<Variable>,
    pub(crate) functions: Vec<Function>,
    pub(crate) aliases: Vec<(String, Vec<u8>)>,
    pub(crate) shopt: Vec<u8>,
    pub(crate) options: Vec<u8>,
    /// Those of tenant code.
    pub(crate) traps: Vec<Trap>,
    /// The driver's own, or others in their place.
    pub(crate) has_trap_on_exit: bool,
    pub(crate) has_trap_on_error: bool,
    pub(crate) directory: Option<String>,
    /// Below the current one, top first.
    pub(crate) directory_stack: Vec<String>,
    pub(crate) umask: Vec<u8>,
    pub(crate) arguments: Vec<u8>,
    pub(crate) has_jobs: bool,
    /// Written by a shell that ended.
    pub(crate) end: End,
}

/// How a shell ended that could still write its state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Line of the cell from which the function was called that ended it.
    pub(crate) line: Option<usize>,
    /// What the ERR trap wrote last.
    pub(crate) failing: Option<FailingLine>,
    /// It was inside of functions: these names are theirs, and the arguments are.
    pub(crate) local: Vec<String>,
    pub(crate) in_function: bool,
}

impl Snapshot {
    /// None when it is not whole.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let sections: Vec<&[u8]> = text.split(|byte| *byte == 0).collect();
        if sections.len() != SECTIONS || sections[SECTIONS - 1] != b"end" {
            return None;
        }
        let end = parse_end(sections[0], sections[13])?;
        let mut variables = parse_declarations(sections[1]);
        let directory = back_home(&mut variables, path(sections[8]));
        variables.retain(|variable| !variable.name.starts_with(OWN_PREFIX));
        let all_traps = parse_traps(sections[7]);
        let has_trap = |signal| all_traps.iter().any(|(trap, _)| trap.signal == signal);
        Some(Self {
            variables,
            functions: parse_functions(sections[2], sections[3])
                .into_iter()
                .filter(|function| !is_own_function(function))
                .collect(),
            aliases: parse_aliases(sections[4]),
            shopt: sections[5].to_vec(),
            options: sections[6].to_vec(),
            has_trap_on_exit: has_trap("EXIT"),
            has_trap_on_error: has_trap("ERR"),
            traps: all_traps
                .into_iter()
                .filter_map(|(trap, is_own)| (!is_own).then_some(trap))
                .collect(),
            directory_stack: lines(sections[9]).into_iter().skip(1).collect(),
            directory,
            umask: sections[10].to_vec(),
            arguments: sections[11].to_vec(),
            has_jobs: !sections[12].is_empty(),
            end,
        })
    }

    /// Whether the text is the beginning of a state, that is, too long or cut by a full disk.
    pub(crate) fn was_begun(text: &[u8]) -> bool {
        text.starts_with(b"crownest;")
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|variable| variable.name == name)
    }

    /// The plain value of a scalar.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        let value = self.variable(name)?.value.as_ref()?;
        Some(String::from_utf8_lossy(&unquote(value)).into_owned())
    }

    pub(crate) fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }
}

/// Whether bash keeps it for itself.
pub(crate) fn is_of_bash(name: &str) -> bool {
    OF_BASH.binary_search(&name).is_ok()
}

/// A shell that ended in a run with a directory of its own, and is still there: where it was before
/// that run.
fn back_home(variables: &mut [Variable], directory: Option<String>) -> Option<String> {
    let own = |name: &str| {
        let name = format!("{OWN_PREFIX}{name}");
        let value = variables.iter().find(|v| v.name == name)?.value.clone()?;
        Some(value)
    };
    let plain = |value: Vec<u8>| String::from_utf8(unquote(&value)).ok();
    let (Some(there), Some(from), old) = (own("there"), own("from"), own("old")) else {
        return directory;
    };
    if plain(there) != directory {
        return directory;
    }
    if let Some(variable) = variables.iter_mut().find(|v| v.name == "OLDPWD") {
        variable.value = old;
    }
    plain(from)
}

/// `crownest;<status>;<callers>;<failing line>`, and the variables of the innermost function.
fn parse_end(header: &[u8], local: &[u8]) -> Option<End> {
    let header = String::from_utf8_lossy(header);
    let mut fields = header.strip_prefix("crownest;")?.split(';');
    let _status = fields.next()?;
    // The innermost is the line that runs the script itself.
    let callers: Vec<usize> = fields
        .next()?
        .split_whitespace()
        .skip(1)
        .map_while(|line| line.parse().ok())
        .collect();
    Some(End {
        line: (callers.len() >= 2).then(|| callers[callers.len() - 2]),
        failing: FailingLine::read(fields.next()?),
        in_function: callers.len() >= 2,
        local: parse_declarations(local)
            .into_iter()
            .map(|variable| variable.name)
            .collect(),
    })
}

/// `declare -<attributes> <name>[=<value>]`, one after the other. A value may have line feeds.
fn parse_declarations(text: &[u8]) -> Vec<Variable> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let length = rest
            .iter()
            .position(|byte| matches!(byte, b'=' | b'\n'))
            .unwrap_or(rest.len());
        let has_value = rest.get(length) == Some(&b'=');
        let value = has_value.then(|| {
            let value = &rest[length + 1..];
            value[..value_length(value)].to_vec()
        });
        let step = length + value.as_ref().map_or(0, |value| value.len() + 1);
        // To the end of the line, whatever else is there.
        let tail = &rest[step..];
        at += step
            + tail
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(tail.len(), |end| end + 1);
        let head = String::from_utf8_lossy(&rest[..length]);
        let mut words = head.split(' ');
        if words.next() != Some("declare") {
            continue;
        }
        if let (Some(attributes), Some(name)) = (words.next(), words.next()) {
            found.push(Variable {
                name: name.to_owned(),
                attributes: attributes.trim_start_matches('-').to_owned(),
                value,
            });
        }
    }
    found
}

/// `declare -f` prints the functions in the order of `declare -F`; each reaches to where the next
/// one begins, since what ends one may stand in a here-document as well.
fn parse_functions(texts: &[u8], names: &[u8]) -> Vec<Function> {
    let mut functions: Vec<Function> = lines(names)
        .iter()
        .filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            let (_, attributes, name) = (words.next()?, words.next()?, words.next()?);
            Some(Function {
                name: name.to_owned(),
                attributes: attributes.trim_start_matches('-').replace('f', ""),
                text: Vec::new(),
            })
        })
        .collect();
    let mut starts = Vec::with_capacity(functions.len());
    let mut from = 0;
    for function in &functions {
        let start = find_header(&texts[from..], &function.name).map(|at| from + at);
        starts.push(start);
        from = start.map_or(from, |at| at + function.name.len());
    }
    for index in 0..functions.len() {
        if let Some(start) = starts[index] {
            let next = starts[index + 1..].iter().flatten().next();
            functions[index].text = texts[start..*next.unwrap_or(&texts.len())].to_vec();
        }
    }
    functions
}

/// Where the definition of `name` begins: `name () `, or `function name () ` for odd names, at the
/// start of a line, with the bracket on the next.
fn find_header(text: &[u8], name: &str) -> Option<usize> {
    let forms = [
        format!("{name} () \n{{"),
        format!("function {name} () \n{{"),
    ];
    let mut at = 0;
    loop {
        if forms
            .iter()
            .any(|form| text[at..].starts_with(form.as_bytes()))
        {
            return Some(at);
        }
        let line = text[at..].iter().position(|byte| *byte == b'\n')?;
        at += line + 1;
    }
}

/// `alias <name>='<value>'`
fn parse_aliases(text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(body) = rest.strip_prefix(b"alias ") {
        let length = value_length(body);
        let word = &body[..length];
        if let Some(equals) = word.iter().position(|byte| *byte == b'=') {
            let name = String::from_utf8_lossy(&word[..equals]).into_owned();
            let name = name.trim_start_matches("-- ").to_owned();
            found.push((name, word[equals + 1..].to_vec()));
        }
        rest = body.get(length + 1..).unwrap_or_default();
    }
    found
}

/// `trap -- '<commands>' <signal>`, and whether it is the driver's own.
fn parse_traps(text: &[u8]) -> Vec<(Trap, bool)> {
    const HEAD: &[u8] = b"trap -- ";
    let mut traps = Vec::new();
    let mut rest = text;
    while let Some(body) = rest.strip_prefix(HEAD) {
        let commands = value_length(body);
        let tail = body.get(commands + 1..).unwrap_or_default();
        let length = tail
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(tail.len());
        let signal = String::from_utf8_lossy(&tail[..length]).into_owned();
        let is_own =
            matches!(signal.as_str(), "EXIT" | "ERR") && is_own_trap(&unquote(&body[..commands]));
        let end = (HEAD.len() + commands + 1 + length).min(rest.len());
        let line = rest[..end].to_vec();
        traps.push((Trap { signal, line }, is_own));
        rest = tail.get(length + 1..).unwrap_or_default();
    }
    traps
}

/// The one that asks for input, in a shell that ended while it was there.
fn is_own_function(function: &Function) -> bool {
    let text = String::from_utf8_lossy(&function.text);
    function.name == READ_FUNCTION && text.contains("/.crownest-bash-")
}

fn is_own_trap(commands: &[u8]) -> bool {
    let commands = String::from_utf8_lossy(commands);
    commands.starts_with(OWN_PREFIX)
        || (commands.starts_with("\\builtin . ") && commands.contains("/.crownest-bash-"))
}

/// One path; it may hold anything but a zero byte.
fn path(text: &[u8]) -> Option<String> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = std::str::from_utf8(text).ok()?;
    text.starts_with('/').then(|| text.to_owned())
}

fn lines(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sections: [&str; SECTIONS]) -> Vec<u8> {
        sections.join("\0").into_bytes()
    }

    fn example() -> [&'static str; SECTIONS] {
        [
            "crownest;1;2 7 5;1:7:5:",
            "declare -- BASH=\"/bin/bash\"\ndeclare -- __crownest_line=\"\"\n\
             declare -A m=([b]=\"x y\" [$'k\\n\"']=$'v\\n' )\ndeclare -ix n=\"3\"\n\
             declare -x OLDPWD\ndeclare -- s=\"two\nlines\"\ndeclare -- t=\"1\"\n",
            "f () \n{ \n    cat <<E\n}\ng () \nE\n\n}\ng () \n{ \n    :\n}\n",
            "declare -f f\ndeclare -fx g\n",
            "alias ll='ls -l'\nalias q='it'\\''s\nlong'\n",
            "shopt -s extglob\n",
            "set +o errexit\n",
            "trap -- '\\builtin . '\\''/dev/shm/.crownest-bash-1/keep'\\'' >|x' EXIT\n\
             trap -- 'echo \"it'\\''s\"\necho' SIGUSR1\ntrap -- '__crownest_line=1' ERR\n",
            "/work space\n",
            "/work space\n/tmp\n",
            "umask 0022\n",
            "a\\ b ",
            "12\n",
            "declare -- w=\"1\"\n",
            "end",
        ]
    }

    #[test]
    fn a_state_is_read() {
        let state = Snapshot::parse(&text(example())).unwrap();
        let names: Vec<_> = state.variables.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["BASH", "m", "n", "OLDPWD", "s", "t"]);
        assert_eq!(state.value("s").unwrap(), "two\nlines");
        assert_eq!(state.variable("n").unwrap().attributes, "ix");
        assert_eq!(state.variable("OLDPWD").unwrap().value, None);
        assert_eq!(state.aliases[1].0, "q");
        assert_eq!(unquote(&state.aliases[1].1), b"it's\nlong");
        assert_eq!(state.traps.len(), 1);
        assert_eq!(state.traps[0].signal, "SIGUSR1");
        assert!(state.traps[0].line.ends_with(b"echo' SIGUSR1"));
        assert!(state.has_trap_on_exit && state.has_trap_on_error && state.has_jobs);
        assert_eq!(state.directory.as_deref(), Some("/work space"));
        assert_eq!(state.directory_stack, ["/tmp"]);
        assert_eq!((state.end.line, state.end.in_function), (Some(7), true));
        assert_eq!(state.end.failing.map(|f| f.line), Some(7));
        assert_eq!(state.end.local, ["w"]);
    }

    #[test]
    fn functions_keep_their_text_and_attributes() {
        let state = Snapshot::parse(&text(example())).unwrap();
        let f = state.function("f").unwrap();
        assert!(
            f.text.ends_with(b"E\n\n}\n"),
            "{:?}",
            String::from_utf8_lossy(&f.text)
        );
        let g = state.function("g").unwrap();
        assert_eq!(
            (g.attributes.as_str(), &g.text[..]),
            ("x", &b"g () \n{ \n    :\n}\n"[..])
        );
    }

    #[test]
    fn what_is_not_whole_is_no_state() {
        let whole = text(example());
        for cut in 0..whole.len() {
            assert_eq!(Snapshot::parse(&whole[..cut]), None, "cut at {cut}");
        }
        assert!(Snapshot::was_begun(&whole[..20]) && !Snapshot::was_begun(b""));
    }

    #[test]
    fn hostile_sections_do_no_harm() {
        let mut sections = example();
        for (index, junk) in [
            (1, "x=\ndeclare\ndeclare -- \n=\n"),
            (3, "a\nb c\n"),
            (4, "alias "),
            (7, "trap -- 'x\n"),
            (0, "crownest;;;"),
        ] {
            let kept = std::mem::replace(&mut sections[index], junk);
            assert!(Snapshot::parse(&text(sections)).is_some(), "{junk:?}");
            sections[index] = kept;
        }
    }

    #[test]
    fn the_names_of_bash_are_in_order() {
        assert!(OF_BASH.is_sorted());
        assert!(is_of_bash("RANDOM") && !is_of_bash("RANDOMS"));
    }
}
