//! Pages of the API from and to pages of the store.

use crate::error::{ApiError, ApiResult};
use crownest_api::limits;
use crownest_api::page::{Page, PageQuery};
use crownest_store as store;

/// The page that a query asks for.
pub(crate) fn request(query: &PageQuery) -> ApiResult<store::PageRequest> {
    let limit = match query.limit {
        None => store::Limit::default(),
        Some(rows) => store::Limit::new(rows.into()).ok_or_else(|| {
            let max = limits::PAGE_ITEMS_MAX;
            ApiError::field("limit", format!("limit must be between 1 and {max}"))
        })?,
    };
    let after = match query.cursor.as_deref() {
        None | Some("") => None,
        Some(cursor) => Some(
            cursor
                .parse()
                .map_err(|_| ApiError::field("cursor", "cursor is not one that a list gave"))?,
        ),
    };
    Ok(store::PageRequest { after, limit })
}

/// A page for a client.
pub(super) fn answer<R, T>(page: store::Page<R>, wire: impl FnMut(R) -> T) -> Page<T> {
    Page {
        has_more: page.next.is_some(),
        next_cursor: page.next.map(|cursor| cursor.to_string()),
        data: page.rows.into_iter().map(wire).collect(),
    }
}
