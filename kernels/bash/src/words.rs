//! Finds out what a cursor in a piece of shell code stands on. No parser: enough of the syntax to
//! tell a command from an argument, and what of a word has been typed already.

/// What the word before a cursor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The name of a command.
    Command,
    /// An argument, or the file of a redirection.
    Argument,
    /// After `$` or `${`.
    Variable,
    /// In a comment: nothing to complete.
    Comment,
}

/// The word that ends at a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) place: Place,
    /// Where what a match replaces begins, in code points.
    pub(crate) start: usize,
    /// The same behind the last slash.
    pub(crate) part_start: usize,
    /// What it stands for, without quotes.
    pub(crate) text: String,
    /// The quote that is open at the cursor.
    pub(crate) quote: Option<char>,
    /// The command whose argument it is.
    pub(crate) command: Option<String>,
}

/// Words after which a command begins.
const BEFORE_COMMAND: [&str; 12] = [
    "if", "then", "else", "elif", "do", "while", "until", "!", "time", "{", "coproc", "exec",
];
/// Longest code that is looked at, from its end.
const CODE_CHARS_MAX: usize = 64 * 1024;

/// Reads `code` up to its end, which is where the cursor is.
struct Scanner {
    at: usize,
    start: usize,
    part_start: usize,
    text: String,
    /// Where in `text` the last `$name` began, and its position.
    dollar: Option<(usize, usize)>,
    quote: Option<char>,
    in_word: bool,
    is_command: bool,
    is_file: bool,
    command: Option<String>,
    is_comment: bool,
}

impl Scanner {
    fn new(at: usize) -> Self {
        Self {
            at,
            start: at,
            part_start: at,
            text: String::new(),
            dollar: None,
            quote: None,
            in_word: false,
            is_command: true,
            is_file: false,
            command: None,
            is_comment: false,
        }
    }

    fn begin_word(&mut self) {
        if !self.in_word {
            self.in_word = true;
            self.start = self.at;
            self.part_start = self.at;
            self.text.clear();
            self.dollar = None;
        }
    }

    fn push(&mut self, character: char) {
        if let Some((from, _)) = self.dollar {
            let is_braced = self.text[from..].starts_with('{');
            let is_first = self.text.len() == from;
            let goes_on = character.is_alphanumeric() || character == '_';
            if !(goes_on || is_first && character == '{' || is_braced && character == '!') {
                self.dollar = None;
            }
        }
        self.text.push(character);
        if character == '/' {
            self.part_start = self.at + 1;
        }
        if character == '$' {
            self.dollar = Some((self.text.len(), self.at + 1));
        }
    }

    fn end_word(&mut self) {
        if !self.in_word {
            return;
        }
        self.in_word = false;
        let is_assignment = self.text.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        });
        if self.is_file {
            self.is_file = false;
        } else if self.is_command && !is_assignment && !BEFORE_COMMAND.contains(&self.text.as_str())
        {
            self.is_command = false;
            self.command = Some(std::mem::take(&mut self.text));
        }
    }

    fn begin_command(&mut self) {
        self.end_word();
        self.is_command = true;
        self.is_file = false;
        self.command = None;
    }

    fn unquoted(&mut self, character: char) {
        match character {
            ' ' | '\t' => self.end_word(),
            '\n' | ';' | '|' | '&' | '(' | ')' | '`' => self.begin_command(),
            '<' | '>' => {
                // The number of a descriptor is no word.
                if !self.text.bytes().all(|byte| byte.is_ascii_digit()) {
                    self.end_word();
                }
                self.in_word = false;
                self.is_file = true;
            }
            '#' if !self.in_word => self.is_comment = true,
            '\'' | '"' => {
                self.begin_word();
                self.quote = Some(character);
                // What is typed inside of a quote is replaced there.
                if self.text.is_empty() {
                    self.start = self.at + 1;
                    self.part_start = self.at + 1;
                }
            }
            _ => {
                self.begin_word();
                self.push(character);
            }
        }
    }

    fn finish(mut self) -> Word {
        if !self.in_word {
            self.text.clear();
            self.dollar = None;
            self.start = self.at;
            self.part_start = self.at;
        }
        let place = if self.is_comment {
            Place::Comment
        } else if self.dollar.is_some() && self.quote != Some('\'') {
            Place::Variable
        } else if self.is_command && !self.is_file {
            Place::Command
        } else {
            Place::Argument
        };
        if let (Place::Variable, Some((from, start))) = (place, self.dollar) {
            let name = self.text[from..].to_owned();
            let bare = name.trim_start_matches(['{', '!', '#']);
            self.start = start + (name.chars().count() - bare.chars().count());
            self.text = bare.to_owned();
        }
        Word {
            place,
            start: self.start,
            part_start: self.part_start,
            text: self.text,
            quote: self.quote,
            command: self.command,
        }
    }
}

/// The word before the cursor, which counts code points.
pub(crate) fn before(code: &str, cursor: usize) -> Word {
    let from = cursor.saturating_sub(CODE_CHARS_MAX);
    let mut scanner = Scanner::new(from);
    let mut characters = code.chars().skip(from).take(cursor - from).peekable();
    while let Some(character) = characters.next() {
        if scanner.is_comment {
            if character == '\n' {
                scanner.is_comment = false;
                scanner.begin_command();
            }
        } else if character == '\\' && scanner.quote != Some('\'') {
            scanner.begin_word();
            if let Some(escaped) = characters.next() {
                scanner.at += 1;
                scanner.text.push(escaped);
            }
        } else if scanner.quote == Some(character) {
            scanner.quote = None;
        } else if scanner.quote.is_some()
            || character == '{' && scanner.text.ends_with('$') && scanner.in_word
        {
            scanner.push(character);
        } else if character == '(' && scanner.text.ends_with('$') && scanner.in_word {
            scanner.in_word = false;
            scanner.begin_command();
        } else {
            scanner.unquoted(character);
        }
        scanner.at += 1;
    }
    scanner.finish()
}

/// The name under the cursor: what `inspect` is asked about.
pub(crate) fn around(code: &str, cursor: usize) -> Option<String> {
    let characters: Vec<char> = code.chars().collect();
    let cursor = cursor.min(characters.len());
    let is_name = |c: &char| c.is_alphanumeric() || "_-.:+@/![]{%^,".contains(*c);
    let start = characters[..cursor]
        .iter()
        .rposition(|c| !is_name(c))
        .map_or(0, |at| at + 1);
    let end = characters[cursor..]
        .iter()
        .position(|c| !is_name(c))
        .map_or(characters.len(), |at| cursor + at);
    let name: String = characters[start..end].iter().collect();
    let has_dollar = start > 0 && characters[start - 1] == '$';
    let name = if has_dollar {
        let bare = name.trim_start_matches(['{', '!']);
        let length = bare
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(bare.len());
        format!("${}", &bare[..length])
    } else {
        name
    };
    (!name.is_empty() && name != "$").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(code: &str) -> Word {
        before(code, code.chars().count())
    }

    fn place(code: &str) -> (Place, String, usize) {
        let word = word(code);
        (word.place, word.text, word.start)
    }

    #[test]
    fn commands_and_arguments_are_told_apart() {
        assert_eq!(place("gre"), (Place::Command, "gre".into(), 0));
        assert_eq!(place("ls sr"), (Place::Argument, "sr".into(), 3));
        assert_eq!(place("a; b | c && gi"), (Place::Command, "gi".into(), 12));
        assert_eq!(place("if tr"), (Place::Command, "tr".into(), 3));
        assert_eq!(place("X=1 Y=2 ma"), (Place::Command, "ma".into(), 8));
        assert_eq!(place("x=$(da"), (Place::Command, "da".into(), 4));
        assert_eq!(place("ls\nca"), (Place::Command, "ca".into(), 3));
        assert_eq!(place("cat <in"), (Place::Argument, "in".into(), 5));
        assert_eq!(place("2>er"), (Place::Argument, "er".into(), 2));
        assert_eq!(place("ls "), (Place::Argument, String::new(), 3));
        assert_eq!(place("ls # com"), (Place::Comment, String::new(), 8));
        assert_eq!(word("unset fo").command.as_deref(), Some("unset"));
    }

    #[test]
    fn variables_are_found_in_words_and_quotes() {
        assert_eq!(place("echo $HO"), (Place::Variable, "HO".into(), 6));
        assert_eq!(place("echo ${HO"), (Place::Variable, "HO".into(), 7));
        assert_eq!(place("echo \"x $HO"), (Place::Variable, "HO".into(), 9));
        assert_eq!(place("echo '$HO").0, Place::Argument);
        assert_eq!(place("ls $HOME/sr").0, Place::Argument);
        assert_eq!(place("echo $"), (Place::Variable, String::new(), 6));
    }

    #[test]
    fn positions_count_code_points() {
        assert_eq!(place("echo 'ä🦀'; ec"), (Place::Command, "ec".into(), 11));
        assert_eq!(place("cat \"my fi"), (Place::Argument, "my fi".into(), 5));
        assert_eq!(place("cat my\\ fi"), (Place::Argument, "my fi".into(), 4));
    }

    #[test]
    fn the_name_under_the_cursor() {
        assert_eq!(around("half 3", 2).as_deref(), Some("half"));
        assert_eq!(around("echo ${name%x}", 8).as_deref(), Some("$name"));
        assert_eq!(around("echo $name", 10).as_deref(), Some("$name"));
        assert_eq!(around("a | ", 4), None);
        assert_eq!(around("", 9), None);
    }

    #[test]
    fn any_cursor_in_any_text_is_survived() {
        for code in ["\\", "'\"`$({", "a\\", "${", "$(", "äö $", "x=\"$"] {
            for cursor in 0..10 {
                before(code, cursor);
                around(code, cursor);
            }
        }
    }
}
