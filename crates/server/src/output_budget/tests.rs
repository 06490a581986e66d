use super::*;
use proptest::prelude::*;

fn budget(max_bytes: u64) -> OutputBudget {
    OutputBudget {
        max_bytes,
        ..OutputBudget::default()
    }
}

fn fitted(budget: &Budget, pieces: &[&str]) -> Fitted {
    let mut budgeted = Budgeted::new(budget);
    for piece in pieces {
        budgeted.push(piece);
    }
    let lost = budgeted.has_lost();
    let fitted = budgeted.finish();
    assert!(
        !lost || !stream_is_whole(&fitted.counts),
        "what is lost stays lost"
    );
    fitted
}

/// The text and the counts do not depend on where the text was cut: in two at every place, in
/// single characters.
fn fitted_everywhere(budget: &Budget, text: &str) -> Fitted {
    let whole = fitted(budget, &[text]);
    let ends = text.char_indices().map(|(at, c)| (at, at + c.len_utf8()));
    let singles: Vec<&str> = ends.map(|(at, end)| &text[at..end]).collect();
    let cuts = text.char_indices().map(|(at, _)| at);
    let mut ways: Vec<Vec<&str>> = cuts.map(|at| vec![&text[..at], &text[at..]]).collect();
    ways.push(singles);
    for way in ways {
        let got = fitted(budget, &way);
        assert_eq!(got.text, whole.text, "{way:?}");
        assert_eq!(got.counts, whole.counts, "{way:?}");
    }
    whole
}

fn stripped(text: &str) -> String {
    let asked = OutputBudget {
        strip_ansi: Some(true),
        ..budget(1 << 20)
    };
    let fitted = fitted_everywhere(&Budget::check(asked).unwrap(), text);
    let counts = fitted.counts;
    assert_eq!(
        counts.total_bytes,
        fitted.text.len() as u64 + counts.stripped_bytes
    );
    fitted.text
}

fn collapsed(text: &str) -> (String, u64) {
    let asked = OutputBudget {
        collapse_repeats: Some(true),
        ..budget(1 << 20)
    };
    let fitted = fitted_everywhere(&Budget::check(asked).unwrap(), text);
    (fitted.text, fitted.counts.collapsed_lines)
}

#[test]
fn sequences_go_and_text_stays_wherever_it_is_cut() {
    let cases = [
        ("plain é \u{85} \t text\n", "plain é \u{85} \t text\n"),
        ("\u{1b}[31mred\u{1b}[0m", "red"),
        ("\u{1b}[38;2;1;2;3m\u{1b}[?25l\u{1b}[ qx", "x"),
        (
            "\u{1b}]0;title\u{7}a\u{1b}]8;;http://é\u{1b}\\link\u{1b}]8;;\u{1b}\\",
            "alink",
        ),
        ("\u{1b}(B\u{1b}=\u{1b}7x\u{1b}8\u{1b}M", "x"),
        (
            "\u{1b}P1$r0m\u{1b}\\x\u{1b}_app\u{9c}y\u{1b}^pm\u{7}z",
            "xyz",
        ),
        ("\u{9b}1mone\u{9d}title\u{9c}two\u{84}", "onetwo"),
        // A string that is never ended, one that ends in another sequence, one that is cancelled.
        ("\u{1b}]0;never\nnext", "\nnext"),
        ("\u{1b}]0;a\u{1b}[31mb", "b"),
        ("\u{1b}]0;a\u{18}b\u{1b}[3\u{1a}c", "bc"),
        // Not a sequence after all: what cannot be part of one is text.
        ("\u{1b}[3\nx\u{1b}é\u{1b}", "\nxé"),
        ("\u{1b}\u{1b}[1mx", "x"),
        ("\u{1b}[1\u{1b}[2mx", "x"),
        ("tail\u{1b}[", "tail"),
    ];
    for (text, wanted) in cases {
        assert_eq!(stripped(text), wanted, "{text:?}");
    }
}

#[test]
fn a_sequence_that_never_ends_hides_little() {
    let asked = OutputBudget {
        strip_ansi: Some(true),
        ..budget(1 << 20)
    };
    let budget = Budget::check(asked).unwrap();
    for begin in ["\u{1b}]", "\u{1b}["] {
        let text = format!("{begin}{}", "1".repeat(200_000));
        let got = fitted(&budget, &[&text]);
        assert!(got.counts.stripped_bytes < 70_000, "{begin:?}");
        assert!(got.text.len() > 130_000);
    }
}

#[test]
fn lines_that_repeat_are_counted() {
    let line = "this line is long enough to be worth it\n";
    let cases = [
        ("a\na\na\n".to_owned(), "a\na\na\n".to_owned(), 0),
        (
            line.repeat(4),
            format!("{line}[the line above 3 more times]\n"),
            3,
        ),
        (
            line.repeat(2),
            format!("{line}[the line above 1 more time]\n"),
            1,
        ),
        (
            format!("x\n{}y\n{}", line.repeat(2), line.repeat(2)),
            format!(
                "x\n{line}[the line above 1 more time]\ny\n{line}[the line above 1 more time]\n"
            ),
            2,
        ),
        // What is not a whole line is no repetition.
        (
            format!("{line}{}", line.trim_end()),
            format!("{line}{}", line.trim_end()),
            0,
        ),
        ("\n\n\n\n".to_owned(), "\n\n\n\n".to_owned(), 0),
        (
            "\n".repeat(100),
            "\n[the line above 99 more times]\n".to_owned(),
            99,
        ),
    ];
    for (text, wanted, lines) in cases {
        assert_eq!(collapsed(&text), (wanted, lines), "{text:?}");
    }
}

#[test]
fn of_a_line_that_was_written_over_the_last_state_is_shown() {
    let cases = [
        ("10%\r50%\r100%\ndone\n", "100%\ndone\n"),
        ("\r10%\r100%", "100%"),
        ("a\r\nb\r\n", "a\r\nb\r\n"),
        ("a\r\r\n", "a\r\r\n"),
        ("10%\r100%\r", "100%\r"),
        ("\r\r\r", "\r\r\r"),
        ("a\r\rb\n", "b\n"),
    ];
    for (text, wanted) in cases {
        assert_eq!(collapsed(text), (wanted.to_owned(), 0), "{text:?}");
    }
}

#[test]
fn long_lines_pass_as_they_are() {
    let long = "x".repeat(16 * 1024 + 1);
    let asked = OutputBudget {
        collapse_repeats: Some(true),
        ..budget(1 << 20)
    };
    let budget = Budget::check(asked).unwrap();
    let text = format!("{long}\n{long}\n{long}\rover\n");
    for size in [1, 1000, 16 * 1024, 16 * 1024 + 1, 100_000] {
        let pieces: Vec<String> = text
            .as_bytes()
            .chunks(size)
            .map(|piece| String::from_utf8(piece.to_vec()).unwrap())
            .collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let got = fitted(&budget, &pieces);
        assert!(stream_is_whole(&got.counts) && got.text == text, "{size}");
    }
}

#[test]
fn beginning_and_end_are_kept_by_lines_and_the_rest_is_counted() {
    let text: String = (0..1_000).map(|n| format!("line {n}\n")).collect();
    let budget = Budget::check(budget(512)).unwrap();
    let got = fitted_everywhere(&budget, &text[..2_000]);
    assert!(got.text.len() <= 512);
    let got = fitted(&budget, &[&text]);
    assert!(got.text.len() <= 512);
    let (head, rest) = got.text.split_once("[... ").unwrap();
    let (mark, tail) = rest.split_once(" left out ...]\n").unwrap();
    assert!(head.starts_with("line 0\nline 1\n") && head.ends_with('\n'));
    assert!(tail.starts_with("line ") && tail.ends_with("line 999\n"));
    let kept = head.len() + tail.len();
    let lines = head.lines().count() + tail.lines().count();
    assert_eq!(
        mark,
        format!("{} bytes in {} lines", text.len() - kept, 1_000 - lines)
    );
    assert_eq!(got.counts.omitted_lines, 1_000 - lines as u64);
    assert!(head.len() > 170 && tail.len() > 170, "{head} {tail}");
}

#[test]
fn one_long_line_is_cut_within_characters_never() {
    let text = "é".repeat(10_000);
    let got = fitted(&Budget::check(budget(300)).unwrap(), &[&text]);
    assert!(got.text.len() <= 300);
    let kept = got.text.matches('é').count() as u64 * 2;
    assert_eq!(got.counts.omitted_bytes, 20_000 - kept);
    assert!(got.text.contains("\n[... 1"), "{}", got.text);
}

#[test]
fn what_fits_is_whole_to_the_last_byte() {
    for length in [0, 1, 100, 299, 300] {
        let text = "x".repeat(length);
        let got = fitted(&Budget::check(budget(300)).unwrap(), &[&text]);
        assert!(stream_is_whole(&got.counts) && got.text == text, "{length}");
    }
    let over = fitted(&Budget::check(budget(300)).unwrap(), &[&"x".repeat(301)]);
    assert!(!stream_is_whole(&over.counts) && over.text.len() <= 300);
}

#[test]
fn shares_of_beginning_and_end_can_be_chosen() {
    let text: String = (0..1_000).map(|n| format!("{n:04}\n")).collect();
    let with = |head, tail| {
        let asked = OutputBudget {
            head,
            tail,
            ..budget(628)
        };
        let got = fitted(&Budget::check(asked).unwrap(), &[&text]);
        let (head, rest) = got.text.split_once("[...").unwrap();
        let (_, tail) = rest.split_once("...]\n").unwrap();
        (head.len(), tail.len())
    };
    assert_eq!(with(Some(100), None), (100, 400));
    assert_eq!(with(None, Some(100)), (400, 100));
    assert_eq!(with(Some(0), Some(100)), (0, 100));
    assert_eq!(with(Some(50), Some(0)), (50, 0));
    assert_eq!(with(None, None), (250, 250));
    for (head, tail) in [
        (Some(501), None),
        (Some(400), Some(101)),
        (None, Some(u64::MAX)),
        (Some(u64::MAX), Some(u64::MAX)),
    ] {
        let asked = OutputBudget {
            head,
            tail,
            ..budget(628)
        };
        assert!(Budget::check(asked).is_err(), "{head:?} {tail:?}");
    }
    for bytes in [0, 255, (32 << 20) + 1, u64::MAX] {
        assert!(Budget::check(budget(bytes)).is_err(), "{bytes}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is printed, however it is cut: the budget holds, every byte is accounted for, and
    /// the result is the same as of one piece.
    #[test]
    fn every_byte_is_kept_or_counted(
        parts in proptest::collection::vec(
            "[a-c]{0,3}\n?|(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n){0,4}|\u{1b}\\[[0-9;]{0,4}m?|\u{1b}\\][^\u{1b}]{0,8}\u{7}?|[\r\n\u{9b}\u{1b}é\u{20ac}]{0,4}|\\PC{0,20}",
            0..60,
        ),
        bytes in 256_u64..1_200,
        strip in proptest::bool::ANY,
        collapse in proptest::bool::ANY,
    ) {
        let asked = OutputBudget {
            strip_ansi: Some(strip),
            collapse_repeats: Some(collapse),
            ..budget(bytes)
        };
        let budget = Budget::check(asked).unwrap();
        let text = parts.concat();
        let pieces: Vec<&str> = parts.iter().map(String::as_str).collect();
        let got = fitted(&budget, &pieces);
        let whole = fitted(&budget, &[&text]);
        prop_assert_eq!(&got.text, &whole.text);
        prop_assert_eq!(got.counts, whole.counts);
        prop_assert!(got.text.len() as u64 <= bytes);
        let counts = got.counts;
        prop_assert_eq!(counts.total_bytes, text.len() as u64);
        let lost = counts.omitted_bytes + counts.stripped_bytes + counts.collapsed_bytes;
        if lost == 0 {
            prop_assert_eq!(&got.text, &text);
        }
        // Marks come on top of what was kept, and may be left out themselves.
        prop_assert!(got.text.len() as u64 + lost >= counts.total_bytes);
        if !collapse {
            let mark = got.text.lines().find(|line| line.starts_with("[... ") && line.ends_with(" left out ...]"));
            let mark_bytes = mark.filter(|_| counts.omitted_bytes > 0).map_or(0, |mark| mark.len() as u64 + 1);
            let over = got.text.len() as u64 + lost - counts.total_bytes;
            // The mark, and perhaps the end of the line before it.
            prop_assert!(over == mark_bytes || over == mark_bytes + 1, "{} {}", over, mark_bytes);
        }
        if strip {
            let escapes = got.text.contains('\u{1b}');
            prop_assert!(!escapes);
        }
    }
}
