//! Words as bash writes and reads them: single quotes out, `declare -p` values in.

/// `text` as one word that bash takes as it is.
pub(crate) fn single(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for character in text.chars() {
        if character == '\'' {
            quoted.push_str("'\\''");
        } else {
            quoted.push(character);
        }
    }
    quoted.push('\'');
    quoted
}

/// Length of the value at the start of `text` as `declare -p` prints one: a list in brackets, or
/// a word made of quoted and bare pieces. Ends at a line feed or blank outside of all quotes.
pub(crate) fn value_length(text: &[u8]) -> usize {
    let mut at = 0;
    let mut depth = 0_usize;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = after_double(text, at + 1),
            b'\'' => at = after_single(text, at + 1),
            b'$' if text.get(at + 1) == Some(&b'\'') => at = after_ansi(text, at + 2),
            b'\\' => at += 2,
            b'(' => {
                depth += 1;
                at += 1;
            }
            b')' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'\n' | b' ' if depth == 0 => break,
            _ => at += 1,
        }
    }
    at.min(text.len())
}

fn after_double(text: &[u8], mut at: usize) -> usize {
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn after_single(text: &[u8], at: usize) -> usize {
    text.get(at..)
        .and_then(|rest| rest.iter().position(|byte| *byte == b'\''))
        .map_or(text.len(), |length| at + length + 1)
}

fn after_ansi(text: &[u8], mut at: usize) -> usize {
    while let Some(byte) = text.get(at) {
        match byte {
            b'\'' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// What a word of `declare -p`, `alias -p` or `trap -p` stands for.
pub(crate) fn unquote(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut at = 0;
    while let Some(byte) = word.get(at) {
        match byte {
            b'"' => {
                let end = after_double(word, at + 1);
                double(inside(word, at + 1, end), &mut plain);
                at = end;
            }
            b'\'' => {
                let end = after_single(word, at + 1);
                plain.extend_from_slice(inside(word, at + 1, end));
                at = end;
            }
            b'$' if word.get(at + 1) == Some(&b'\'') => {
                let end = after_ansi(word, at + 2);
                ansi(inside(word, at + 2, end), &mut plain);
                at = end;
            }
            b'\\' => {
                plain.extend(word.get(at + 1));
                at += 2;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    plain
}

/// Between a quote and the closing one before `end`.
fn inside(word: &[u8], start: usize, end: usize) -> &[u8] {
    word.get(start..end.saturating_sub(1)).unwrap_or_default()
}

fn double(quoted: &[u8], plain: &mut Vec<u8>) {
    let mut bytes = quoted.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escaped = bytes
            .next_if(|next| byte == b'\\' && matches!(next, b'\\' | b'"' | b'$' | b'`' | b'\n'));
        plain.push(escaped.unwrap_or(byte));
    }
}

fn ansi(quoted: &[u8], plain: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(byte) = quoted.get(at) {
        at += 1;
        if *byte != b'\\' {
            plain.push(*byte);
            continue;
        }
        let Some(letter) = quoted.get(at) else { break };
        at += 1;
        match letter {
            b'n' => plain.push(b'\n'),
            b't' => plain.push(b'\t'),
            b'r' => plain.push(b'\r'),
            b'a' => plain.push(7),
            b'b' => plain.push(8),
            b'v' => plain.push(11),
            b'f' => plain.push(12),
            b'e' | b'E' => plain.push(27),
            b'0'..=b'7' => {
                let mut value = u32::from(letter - b'0');
                for _ in 0..2 {
                    let Some(digit @ b'0'..=b'7') = quoted.get(at) else {
                        break;
                    };
                    value = value * 8 + u32::from(digit - b'0');
                    at += 1;
                }
                plain.push(u8::try_from(value & 0xff).unwrap_or_default());
            }
            other => plain.push(*other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_whole() {
        assert_eq!(single("it's $x"), r"'it'\''s $x'");
        assert_eq!(unquote(single("it's $x\n").as_bytes()), b"it's $x\n");
    }

    #[test]
    fn values_of_declare_are_read() {
        assert_eq!(
            unquote(br#""plain \$HOME \`x\` \"q\" \\b !""#),
            b"plain $HOME `x` \"q\" \\b !"
        );
        assert_eq!(
            unquote("$'\\001\\377ä\\n\\''".as_bytes()),
            b"\x01\xff\xc3\xa4\n'"
        );
        assert_eq!(unquote(b"a\\ b"), b"a b");
    }

    #[test]
    fn a_value_ends_where_its_quotes_end() {
        for value in [
            r#""a b""#,
            r#"([0]="a" [1]=$'b\nc' [2]="d ) e")"#,
            r#"([$'k\n"']=$'v\n' [b]="x" )"#,
            r"$'it\'s'",
            "bare",
            "",
        ] {
            let text = format!("{value}\ndeclare -- next=\"1\"\n");
            assert_eq!(value_length(text.as_bytes()), value.len(), "{value}");
        }
        assert_eq!(value_length(b"\"two\nlines\"\nx"), 11);
    }

    #[test]
    fn what_never_ends_ends_with_the_text() {
        for text in ["\"open", "'open", "$'open", "(open", "\\"] {
            assert_eq!(value_length(text.as_bytes()), text.len(), "{text}");
            unquote(text.as_bytes());
        }
    }
}
