//! Input of a cell: `read` asks, through a function of that name that exists while such a cell
//! runs. Two named pipes: questions to the driver, lines to the shell.
//!
//! Only the shell's own `read` is asked for, and only where its stdin is that of the cell: nobody
//! can see whether another program waits for a line, so those read an empty file.

use crate::lines::READ_FUNCTION;
use crate::place::Place;
use crate::quoting::single;
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// Longest question: the arguments of `read`.
const QUESTION_BYTES_MAX: usize = 64 * 1024;
/// Longest prompt that is passed on.
const PROMPT_CHARS_MAX: usize = 4 * 1024;
/// Names of the two pipes.
const QUESTIONS: &str = "ask";
const ANSWERS: &str = "answer";
/// Letters of the options of `read` that take an argument.
const WITH_ARGUMENT: &str = "adinNptu";

/// What `read` was called with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) prompt: String,
    pub(crate) password: bool,
    /// It reads from a descriptor of its own: nothing to ask.
    pub(crate) elsewhere: bool,
}

/// The pipes of one run.
#[derive(Debug)]
pub(crate) struct Input {
    questions: File,
    question: Vec<u8>,
    answers: File,
    /// Part of a line that the pipe has not taken yet.
    backlog: Vec<u8>,
    pub(crate) stdin_path: String,
    pub(crate) function: String,
    /// A question has been passed on and not been answered.
    pub(crate) asking: bool,
}

impl Input {
    pub(crate) fn open(place: &Place) -> io::Result<Self> {
        let (questions, questions_path) = place.pipe(QUESTIONS)?;
        let (answers, answers_path) = place.pipe(ANSWERS)?;
        let stdin_path = place.empty_stdin()?;
        Ok(Self {
            questions,
            question: Vec::new(),
            answers,
            function: read_function(&stdin_path, &questions_path, &answers_path),
            backlog: Vec::new(),
            stdin_path,
            asking: false,
        })
    }

    pub(crate) fn questions(&self) -> &File {
        &self.questions
    }

    /// To be watched for room while part of a line waits.
    pub(crate) fn waiting_answers(&self) -> Option<&File> {
        (!self.backlog.is_empty()).then_some(&self.answers)
    }

    /// Reads the pipe; the question in it, when it is whole.
    pub(crate) fn take_question(&mut self) -> Option<Question> {
        let mut buffer = [0_u8; 4096];
        loop {
            match rustix::io::read(&self.questions, &mut buffer) {
                Ok(count @ 1..) => self.question.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        if self.question.len() > QUESTION_BYTES_MAX {
            self.question.clear();
            return None;
        }
        let arguments = arguments(&self.question)?;
        self.question.clear();
        // What an earlier question left unread is not the answer to this one.
        self.backlog.clear();
        while matches!(rustix::io::read(&self.answers, &mut buffer), Ok(1..)) {}
        Some(parse(&arguments))
    }

    /// Gives the shell a line, or the end of the file: another pipe takes the place of the one
    /// that it has open, to which nobody writes any more.
    pub(crate) fn reply(&mut self, value: Option<&str>, place: &Place) -> io::Result<()> {
        self.asking = false;
        match value {
            Some(line) => {
                self.backlog.extend_from_slice(line.as_bytes());
                self.backlog.push(b'\n');
                self.flush();
            }
            None => self.answers = place.pipe(ANSWERS)?.0,
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) {
        let mut written = 0;
        while written < self.backlog.len() {
            match rustix::io::write(&self.answers, &self.backlog[written..]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.backlog.drain(..written);
    }
}

/// The function. It opens the pipe of lines before it asks, so that an end of file finds a reader.
fn read_function(stdin: &str, questions: &str, answers: &str) -> String {
    format!(
        "function {READ_FUNCTION} {{ if [[ /dev/stdin -ef {stdin} ]]; then \
         {{ \\builtin printf '%s\\0' \"$#\" \"$@\" >|{questions}; \\builtin {READ_FUNCTION} \"$@\"; }} \
         <{answers}; else \\builtin {READ_FUNCTION} \"$@\"; fi; }}\n",
        stdin = single(stdin),
        questions = single(questions),
        answers = single(answers),
    )
}

/// `<count>\0<argument>\0…`, when all of them are there.
fn arguments(text: &[u8]) -> Option<Vec<String>> {
    let mut parts = text
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|part| part.strip_suffix(b"\0"))
        .map(|part| String::from_utf8_lossy(part).into_owned());
    let count: usize = parts.next()?.parse().ok()?;
    let arguments: Vec<String> = parts.collect();
    (arguments.len() >= count).then_some(arguments)
}

fn parse(arguments: &[String]) -> Question {
    let mut question = Question::default();
    let mut arguments = arguments.iter();
    while let Some(word) = arguments.next() {
        let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            break;
        };
        if letters == "-" {
            break;
        }
        for (at, letter) in letters.char_indices() {
            if letter == 's' {
                question.password = true;
            }
            if WITH_ARGUMENT.contains(letter) {
                let rest = &letters[at + letter.len_utf8()..];
                let argument = if rest.is_empty() {
                    arguments.next().map_or("", String::as_str)
                } else {
                    rest
                };
                match letter {
                    'p' => question.prompt = argument.chars().take(PROMPT_CHARS_MAX).collect(),
                    'u' => question.elsewhere = argument != "0",
                    _ => {}
                }
                break;
            }
        }
    }
    question
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Question {
        parse(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn the_options_of_read_are_understood() {
        let question = asked(&["-rsp", "name? ", "x"]);
        assert_eq!(
            (question.prompt.as_str(), question.password),
            ("name? ", true)
        );
        assert_eq!(asked(&["-pname: ", "-s"]).prompt, "name: ");
        assert!(
            !asked(&["-d", "s", "x"]).password,
            "an argument is no option"
        );
        assert!(!asked(&["--", "-s"]).password && !asked(&["x", "-s"]).password);
        assert!(asked(&["-u", "5", "x"]).elsewhere && !asked(&["-u0", "x"]).elsewhere);
        assert_eq!(asked(&["-p"]), Question::default());
    }

    #[test]
    fn a_question_is_read_when_it_is_whole() {
        assert_eq!(arguments(b"2\0-p\0"), None);
        assert_eq!(arguments(b"2\0-p\0\0").unwrap(), ["-p", ""]);
        assert_eq!(arguments(b"0\0").unwrap(), Vec::<String>::new());
        assert_eq!(arguments(b"junk\0"), None);
    }
}
