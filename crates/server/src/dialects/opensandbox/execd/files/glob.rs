//! Patterns of file names.
//!
//! `*` and `?` stop at slashes, `**` does not, `[a-c]` and `[!a-c]` are one character, `{a,b}` is
//! either, a backslash takes what follows as it is. A pattern without a slash is about the last
//! component of a path, one with a slash about all of it. Matching takes time in proportion to
//! pattern times path, whatever they are.

/// Longest pattern.
const PATTERN_BYTES_MAX: usize = 1_024;
/// What braces may make of one pattern.
const ALTERNATIVES_MAX: usize = 64;

/// Why a pattern is none. The texts are for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GlobError {
    #[error("the pattern is longer than {} bytes", PATTERN_BYTES_MAX)]
    TooLong,
    #[error("the pattern has more than {} alternatives", ALTERNATIVES_MAX)]
    Alternatives,
    #[error("the pattern has a bracket, brace or backslash without its end")]
    Unfinished,
}

/// A pattern.
#[derive(Debug)]
pub(crate) struct Glob {
    alternatives: Vec<Vec<Token>>,
    /// About whole paths and not about names.
    whole: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// One character that is no slash.
    One,
    /// Any number of them.
    Many,
    /// Any number of any characters.
    Anything,
    /// Nothing, or anything up to a slash and the slash.
    Directories,
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
}

impl Glob {
    pub(crate) fn new(pattern: &str) -> Result<Self, GlobError> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(GlobError::TooLong);
        }
        let pattern: Vec<char> = pattern.chars().collect();
        let mut alternatives = Vec::new();
        expand(&pattern, &mut alternatives)?;
        let parsed: Result<Vec<_>, _> = alternatives.iter().map(|chars| parse(chars)).collect();
        Ok(Self {
            alternatives: parsed?,
            whole: pattern.contains(&'/'),
        })
    }

    /// Whether a path without a leading slash matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or_default();
        let text: Vec<char> = if self.whole { path } else { name }.chars().collect();
        self.alternatives
            .iter()
            .any(|tokens| matches(tokens, &text))
    }
}

/// Writes out the first pair of braces, then what that leaves.
fn expand(pattern: &[char], out: &mut Vec<Vec<char>>) -> Result<(), GlobError> {
    let mut waiting = vec![pattern.to_vec()];
    while let Some(pattern) = waiting.pop() {
        let Some((open, close, commas)) = braces(&pattern)? else {
            out.push(pattern);
            if out.len() > ALTERNATIVES_MAX {
                return Err(GlobError::Alternatives);
            }
            continue;
        };
        let starts = std::iter::once(open).chain(commas.iter().copied());
        let ends = commas.iter().copied().chain(std::iter::once(close));
        for (start, end) in starts.zip(ends) {
            let middle = &pattern[start + 1..end];
            waiting.push([&pattern[..open], middle, &pattern[close + 1..]].concat());
        }
        if waiting.len() > ALTERNATIVES_MAX {
            return Err(GlobError::Alternatives);
        }
    }
    Ok(())
}

/// Where the first braces open and close, and their own commas.
fn braces(pattern: &[char]) -> Result<Option<(usize, usize, Vec<usize>)>, GlobError> {
    let mut open = None;
    let mut depth = 0_usize;
    let mut commas = Vec::new();
    let mut at = 0;
    while let Some(c) = pattern.get(at) {
        match c {
            '\\' => at += 1,
            '[' => at = class_end(pattern, at)?,
            '{' => {
                depth += 1;
                open = open.or(Some(at));
            }
            ',' if depth == 1 => commas.push(at),
            '}' if depth > 0 => {
                depth -= 1;
                if let (0, Some(open)) = (depth, open) {
                    return Ok(Some((open, at, commas)));
                }
            }
            _ => {}
        }
        at += 1;
    }
    match open {
        Some(_) => Err(GlobError::Unfinished),
        None => Ok(None),
    }
}

/// Where the class that begins at `open` ends. A bracket right at its beginning is a member.
fn class_end(pattern: &[char], open: usize) -> Result<usize, GlobError> {
    let mut at = open + 1;
    if matches!(pattern.get(at), Some('!' | '^')) {
        at += 1;
    }
    let first = at;
    loop {
        match pattern.get(at) {
            None => return Err(GlobError::Unfinished),
            Some(']') if at > first => return Ok(at),
            Some('\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

fn parse(pattern: &[char]) -> Result<Vec<Token>, GlobError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = pattern.get(at) {
        match c {
            '\\' => {
                at += 1;
                let literal = pattern.get(at).ok_or(GlobError::Unfinished)?;
                tokens.push(Token::Literal(*literal));
            }
            '?' => tokens.push(Token::One),
            '[' => {
                let end = class_end(pattern, at)?;
                tokens.push(class(&pattern[at + 1..end])?);
                at = end;
            }
            '*' => {
                let begins = at == 0 || pattern[at - 1] == '/';
                let stars = pattern[at..].iter().take_while(|c| **c == '*').count();
                at += stars - 1;
                tokens.push(match (stars, pattern.get(at + 1)) {
                    (1, _) => Token::Many,
                    (_, Some('/')) if begins => {
                        at += 1;
                        Token::Directories
                    }
                    _ => Token::Anything,
                });
            }
            c => tokens.push(Token::Literal(*c)),
        }
        at += 1;
    }
    Ok(tokens)
}

fn class(inside: &[char]) -> Result<Token, GlobError> {
    let negated = matches!(inside.first(), Some('!' | '^'));
    let mut at = usize::from(negated);
    let mut ranges = Vec::new();
    while at < inside.len() {
        let from = member(inside, &mut at)?;
        let is_range = inside.get(at) == Some(&'-') && at + 1 < inside.len();
        let to = if is_range {
            at += 1;
            member(inside, &mut at)?
        } else {
            from
        };
        ranges.push((from, to));
    }
    Ok(Token::Class { ranges, negated })
}

fn member(inside: &[char], at: &mut usize) -> Result<char, GlobError> {
    if inside.get(*at) == Some(&'\\') {
        *at += 1;
    }
    let found = inside.get(*at).ok_or(GlobError::Unfinished)?;
    *at += 1;
    Ok(*found)
}

/// Follows all ways through the pattern at once.
fn matches(tokens: &[Token], text: &[char]) -> bool {
    let mut now = Places::none(tokens.len());
    now.reach(tokens, 0);
    for c in text {
        let mut next = Places::none(tokens.len());
        for (at, token) in tokens.iter().enumerate() {
            match token {
                Token::Directories if now.reached[at] || now.within[at] => {
                    if *c == '/' {
                        next.reach(tokens, at);
                    } else {
                        next.within[at] = true;
                    }
                }
                _ if !now.reached[at] => {}
                Token::Many if *c != '/' => next.reach(tokens, at),
                Token::Anything => next.reach(tokens, at),
                token if one(token, *c) => next.reach(tokens, at + 1),
                _ => {}
            }
        }
        now = next;
    }
    now.reached[tokens.len()]
}

struct Places {
    /// `reached[i]`: the first `i` tokens can have taken what was read.
    reached: Vec<bool>,
    /// `within[i]`: token `i` has taken the beginning of a directory's name.
    within: Vec<bool>,
}

impl Places {
    fn none(tokens: usize) -> Self {
        Self {
            reached: vec![false; tokens + 1],
            within: vec![false; tokens + 1],
        }
    }

    /// Reaches a place, and those behind it that are reached by taking nothing.
    fn reach(&mut self, tokens: &[Token], from: usize) {
        for at in from..self.reached.len() {
            self.reached[at] = true;
            let may_be_empty = matches!(
                tokens.get(at),
                Some(Token::Many | Token::Anything | Token::Directories)
            );
            if !may_be_empty {
                return;
            }
        }
    }
}

fn one(token: &Token, c: char) -> bool {
    match token {
        Token::Literal(literal) => *literal == c,
        Token::One => c != '/',
        Token::Class { ranges, negated } => {
            let inside = ranges.iter().any(|(from, to)| (*from..=*to).contains(&c));
            c != '/' && inside != *negated
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matched(pattern: &str, path: &str) -> bool {
        Glob::new(pattern).unwrap().matches(path)
    }

    #[test]
    fn names_and_paths() {
        for (pattern, path) in [
            ("**", "a/b"),
            ("*", "a/b"),
            ("*.txt", "a/b.txt"),
            ("b?", "a/bc"),
            ("[a-c]x[!0-9]", "axy"),
            ("[]]", "]"),
            ("[a-]", "-"),
            ("[\\]]", "]"),
            ("\\*", "*"),
            ("{a,b{c,d}}.{x,y}", "bd.y"),
            ("{a}", "a"),
            ("a{,b}", "a"),
            ("**/b", "a/x/b"),
            ("**/b", "b"),
            ("a/**", "a/b/c"),
            ("a/**/c", "a/c"),
            ("a/**/c", "a/b/b/c"),
            ("a/*/c", "a/b/c"),
            ("*/**", "a/b"),
            ("ä*", "äö"),
        ] {
            assert!(matched(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.txt", "a/b.txtx"),
            ("a", "a/b"),
            ("b?", "b"),
            ("[!a]", "a"),
            ("a/*", "a/b/c"),
            ("**/b", "ab"),
            ("a/**/c", "a/bc"),
            ("*", ""),
            ("?", "ab"),
        ] {
            let empty_name = path.is_empty();
            assert!(!matched(pattern, path) || empty_name, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for pattern in ["[", "[]", "{", "{a,", "\\", "[a\\"] {
            assert_eq!(
                Glob::new(pattern).err(),
                Some(GlobError::Unfinished),
                "{pattern}"
            );
        }
        assert_eq!(
            Glob::new(&"x".repeat(2_000)).err(),
            Some(GlobError::TooLong)
        );
        let many = "{a,b}".repeat(20);
        assert_eq!(Glob::new(&many).err(), Some(GlobError::Alternatives));
        let nested = format!("{}{}", "{a,".repeat(200), "}".repeat(200));
        assert_eq!(Glob::new(&nested).err(), Some(GlobError::Alternatives));
    }

    #[test]
    fn bad_patterns_take_no_longer() {
        let pattern = format!("{}b", "*a".repeat(500));
        let path = "a".repeat(4_000);
        assert!(!matched(&pattern, &path));
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_stars_match_it(name in "[a-z.]{1,20}", cut in 0..20_usize) {
            prop_assert!(matched(&name, &name));
            let (front, back) = name.split_at(cut.min(name.len()));
            let star = format!("{front}*{back}");
            prop_assert!(matched(&star, &name));
            let mark = format!("{front}?{back}");
            prop_assert!(!matched(&mark, &name));
        }

        #[test]
        fn nothing_panics(pattern in "[\\[\\]{}*?!,/a\\\\-]{0,30}", path in "[a/-]{0,20}") {
            if let Ok(glob) = Glob::new(&pattern) {
                glob.matches(&path);
            }
        }
    }
}
