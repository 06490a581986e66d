//! From the columns of a row to the fields of a struct, the same way for both databases.

use crate::StoreError;
use serde::Serialize;
use sqlx::error::BoxDynError;
use sqlx::{ColumnIndex, Decode, Row, Type};
use std::collections::BTreeMap;

/// A field that is made from one column.
pub(crate) trait Column: Sized {
    /// What the database stores: a type that both drivers know.
    type Sql;

    fn from_sql(sql: Self::Sql) -> Result<Self, BoxDynError>;
}

macro_rules! stored_as_is {
    ($($field:ty),*) => {$(
        impl Column for $field {
            type Sql = $field;

            fn from_sql(sql: $field) -> Result<Self, BoxDynError> {
                Ok(sql)
            }
        }
    )*};
}
stored_as_is!(
    String,
    Option<String>,
    i64,
    Option<i64>,
    bool,
    Vec<u8>,
    Option<Vec<u8>>
);

impl Column for BTreeMap<String, String> {
    type Sql = String;

    fn from_sql(sql: String) -> Result<Self, BoxDynError> {
        Ok(serde_json::from_str(&sql)?)
    }
}

impl Column for Vec<String> {
    type Sql = String;

    fn from_sql(sql: String) -> Result<Self, BoxDynError> {
        Ok(serde_json::from_str(&sql)?)
    }
}

impl Column for Option<Vec<String>> {
    type Sql = Option<String>;

    fn from_sql(sql: Option<String>) -> Result<Self, BoxDynError> {
        Ok(sql.map(|text| serde_json::from_str(&text)).transpose()?)
    }
}

/// The field made from the column `name`.
pub(crate) fn column<'r, C, R>(row: &'r R, name: &'static str) -> sqlx::Result<C>
where
    C: Column,
    R: Row,
    C::Sql: Decode<'r, R::Database> + Type<R::Database>,
    &'static str: ColumnIndex<R>,
{
    let sql = row.try_get::<C::Sql, _>(name)?;
    C::from_sql(sql).map_err(|source| sqlx::Error::ColumnDecode {
        index: name.to_owned(),
        source,
    })
}

/// Implements `FromRow` for both databases: every named field comes from the column of its name.
macro_rules! row {
    ($row:ident { $($field:ident),* $(,)? }) => {
        row!(@for sqlx::sqlite::SqliteRow, $row { $($field),* });
        row!(@for sqlx::postgres::PgRow, $row { $($field),* });
    };
    (@for $source:ty, $row:ident { $($field:ident),* }) => {
        impl sqlx::FromRow<'_, $source> for $row {
            fn from_row(row: &$source) -> sqlx::Result<Self> {
                Ok(Self { $($field: crate::column::column(row, stringify!($field))?),* })
            }
        }
    };
}
pub(crate) use row;

/// Strings in JSON as they are stored.
pub(crate) fn json<T: Serialize>(strings: &T) -> String {
    serde_json::to_string(strings).expect("lists and maps of strings are always JSON")
}

/// PostgreSQL cannot look at a NUL character, even an escaped one; one such row would make every
/// filtered list of its tenant fail. Refused on both databases, so that both behave the same.
pub(crate) fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), StoreError> {
    let nul = |text: &String| text.contains('\0');
    if metadata.iter().any(|(key, value)| nul(key) || nul(value)) {
        return Err(StoreError::Invalid { what: "metadata" });
    }
    Ok(())
}
