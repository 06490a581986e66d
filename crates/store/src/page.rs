//! Paging: the position in a list that is ordered newest first by (creation time, id).

use crate::{Micros, StoreError};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::str::FromStr;

/// Rows of a page when the client does not say.
pub const PAGE_ROWS_DEFAULT: u16 = 50;
/// Most rows of one page.
pub const PAGE_ROWS_MAX: u16 = 500;
/// Longest encoded cursor that is looked at.
pub const CURSOR_BYTES_MAX: usize = 256;

/// How many rows a page may have: 1 to [`PAGE_ROWS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(u16);

impl Limit {
    /// `None` when `rows` is not between 1 and [`PAGE_ROWS_MAX`].
    pub fn new(rows: u64) -> Option<Self> {
        let rows = u16::try_from(rows).ok()?;
        (1..=PAGE_ROWS_MAX).contains(&rows).then_some(Self(rows))
    }

    pub(crate) fn rows(self) -> i64 {
        i64::from(self.0)
    }

    /// One row more than the page holds: its presence says that there is a next page.
    pub(crate) fn probe(self) -> i64 {
        i64::from(self.0) + 1
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(PAGE_ROWS_DEFAULT)
    }
}

/// A position in a list: the row after which the next page starts.
///
/// `Display` gives the opaque text that clients keep, `FromStr` reads it back. A cursor holds no
/// authority: it only says where to continue in a list that is filtered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    at: Micros,
    id: String,
}

impl Cursor {
    /// The position of a row.
    pub fn new(at: Micros, id: impl Into<String>) -> Self {
        Self { at, id: id.into() }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(format!("{}.{}", self.at, self.id)))
    }
}

impl FromStr for Cursor {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let invalid = || StoreError::Invalid { what: "cursor" };
        if text.len() > CURSOR_BYTES_MAX {
            return Err(invalid());
        }
        let plain = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        let plain = String::from_utf8(plain).map_err(|_| invalid())?;
        let (at, id) = plain.split_once('.').ok_or_else(invalid)?;
        let at = at.parse().map_err(|_| invalid())?;
        let clean = !id.is_empty()
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !clean {
            return Err(invalid());
        }
        Ok(Self {
            at,
            id: id.to_owned(),
        })
    }
}

/// Which page of a list. `Default` is the first page of [`PAGE_ROWS_DEFAULT`] rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// `None` starts at the newest row.
    pub after: Option<Cursor>,
    /// Most rows wanted.
    pub limit: Limit,
}

impl PageRequest {
    /// The position below which rows are wanted. Without a cursor it is above every row, so that
    /// one statement with one index range serves all pages.
    pub(crate) fn below(&self) -> (Micros, &str) {
        self.after
            .as_ref()
            .map_or((Micros::MAX, ""), |cursor| (cursor.at, &cursor.id))
    }
}

impl PageRequest {
    /// [`PageRequest::below`] for a list that ends before `to`: one bound instead of two, because
    /// with two SQLite picks a worse index.
    pub(crate) fn below_and_before(&self, to: Micros) -> (Micros, &str) {
        // No id is empty, so nothing of the time `to` itself is below this.
        self.below().min((to, ""))
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Newest first, at most the limit that was asked for.
    pub rows: Vec<T>,
    /// Where the next page starts; `None` on the last page.
    pub next: Option<Cursor>,
}

/// A row that can stand in a paged list.
pub(crate) trait Listed {
    fn position(&self) -> Cursor;
}

impl<T> Page<T> {
    /// Makes a page of what a statement with `LIMIT probe` returned.
    pub(crate) fn from_probe(mut rows: Vec<T>, limit: Limit) -> Self
    where
        T: Listed,
    {
        let full = usize::from(limit.0);
        let more = rows.len() > full;
        rows.truncate(full);
        let next = if more {
            rows.last().map(Listed::position)
        } else {
            None
        };
        Self { rows, next }
    }
}

#[cfg(test)]
mod tests {
    use super::{CURSOR_BYTES_MAX, Cursor, Limit};
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn a_cursor_survives_the_trip_through_a_client(
            at in any::<i64>(),
            id in "[A-Za-z0-9_-]{1,60}",
        ) {
            let cursor = Cursor::new(at, id);
            let text = cursor.to_string();
            assert!(text.len() <= CURSOR_BYTES_MAX);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            assert_eq!(text.parse::<Cursor>().unwrap(), cursor);
        }

        #[test]
        fn any_text_is_a_cursor_or_refused(text in ".{0,80}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
            }
        }
    }

    #[test]
    fn cursors_with_other_contents_are_refused() {
        use base64::Engine as _;
        let encode = |plain: &str| super::URL_SAFE_NO_PAD.encode(plain);
        let long = format!("1.{}", "a".repeat(CURSOR_BYTES_MAX));
        for plain in [
            "",
            ".",
            "1.",
            "x.sbx_1",
            "1",
            "1.a\0b",
            "1.a b",
            "9223372036854775808.a",
            &long,
        ] {
            assert!(encode(plain).parse::<Cursor>().is_err(), "{plain:?}");
        }
        assert!(encode("-5.sbx_1").parse::<Cursor>().is_ok());
    }

    #[test]
    fn a_limit_is_one_to_five_hundred() {
        for refused in [0, 501, 65_536, u64::MAX] {
            assert_eq!(Limit::new(refused), None);
        }
        for accepted in [1, 500] {
            assert!(Limit::new(accepted).is_some());
        }
    }
}
