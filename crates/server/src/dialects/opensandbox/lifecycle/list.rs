//! `GET /sandboxes`

use super::record::{self, Sandbox};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::extract::QueryArgs;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use crownest_api::{Scope, limits};
use crownest_store::{Limit, PageRequest, SandboxFilter};
use serde::Serialize;

/// Sandboxes on one page when nothing is said, and the most.
const PAGE_SIZE_DEFAULT: usize = 20;
const PAGE_SIZE_MAX: usize = 200;
/// Rows that one request looks at, newest first. More are only there when ended sandboxes are
/// asked for; the oldest of those are then not found.
const ROWS_MAX: usize = 10_000;
/// Rows asked of the store at once.
const ROWS_AT_ONCE: u64 = 500;
/// States in one filter.
const STATES_MAX: usize = 16;

pub(super) fn router() -> Router<App> {
    Router::new().route("/sandboxes", get(list))
}

#[derive(Debug, Serialize)]
pub(super) struct Listed<T> {
    pub items: Vec<T>,
    pub pagination: Pagination,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pagination {
    pub page: usize,
    pub page_size: usize,
    pub total_items: usize,
    pub total_pages: usize,
    pub has_next_page: bool,
}

/// Which page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paging {
    page: usize,
    size: usize,
}

impl Default for Paging {
    fn default() -> Self {
        Self {
            page: 1,
            size: PAGE_SIZE_DEFAULT,
        }
    }
}

impl Paging {
    /// Takes one parameter of a query; false when it is none of these.
    pub(super) fn take(&mut self, name: &str, value: &str) -> ApiResult<bool> {
        let (field, max) = match name {
            "page" => (&mut self.page, usize::MAX),
            "pageSize" => (&mut self.size, PAGE_SIZE_MAX),
            _ => return Ok(false),
        };
        let number = value.parse().ok().filter(|n| (1..=max).contains(n));
        *field = number.ok_or_else(|| {
            let most = if max == usize::MAX {
                String::new()
            } else {
                format!(" and at most {max}")
            };
            ApiError::field(
                name,
                format!("{name} must be an integer of at least 1{most}"),
            )
        })?;
        Ok(true)
    }

    /// The page of `all`.
    pub(super) fn of<T>(self, all: Vec<T>) -> Listed<T> {
        let total = all.len();
        let before = (self.page - 1).saturating_mul(self.size);
        self.found(
            all.into_iter().skip(before).take(self.size).collect(),
            total,
        )
    }

    /// Number and size of the page.
    pub(super) fn numbers(self) -> ApiResult<(u32, u32)> {
        let small = |number| u32::try_from(number);
        let (Ok(page), Ok(size)) = (small(self.page), small(self.size)) else {
            return Err(ApiError::field("page", "page is too large"));
        };
        Ok((page, size))
    }

    /// This page, of `total` items.
    pub(super) fn found<T>(self, items: Vec<T>, total: usize) -> Listed<T> {
        let total_pages = total.div_ceil(self.size);
        Listed {
            items,
            pagination: Pagination {
                page: self.page,
                page_size: self.size,
                total_items: total,
                total_pages,
                has_next_page: self.page < total_pages,
            },
        }
    }
}

#[derive(Debug, Default)]
struct Query {
    states: Vec<String>,
    filter: SandboxFilter,
    paging: Paging,
}

/// Live sandboxes, newest first, whichever dialect made them; ended ones when their states are
/// asked for.
async fn list(
    State(app): State<App>,
    caller: Caller<{ Scope::SandboxRead as u8 }>,
    QueryArgs(query): QueryArgs<Vec<(String, String)>>,
) -> ApiResult<Json<Listed<Sandbox>>> {
    let Query {
        states,
        mut filter,
        paging,
    } = parse(query)?;
    filter.project_ids.clone_from(&caller.project_ids);
    filter.include_ended = states.iter().any(|state| record::is_over(state));
    let mut found = Vec::new();
    let mut page = PageRequest {
        after: None,
        limit: Limit::new(ROWS_AT_ONCE).expect("a page of the store"),
    };
    let mut looked_at = 0;
    while looked_at < ROWS_MAX {
        let rows = app.store.sandboxes(&caller.org_id, &filter, &page).await?;
        looked_at += rows.rows.len();
        for row in &rows.rows {
            let sandbox = record::wire(&app, row);
            if states.is_empty() || states.iter().any(|state| state == sandbox.status.state) {
                found.push(sandbox);
            }
        }
        if rows.next.is_none() {
            break;
        }
        page.after = rows.next;
    }
    Ok(Json(paging.of(found)))
}

fn parse(query: Vec<(String, String)>) -> ApiResult<Query> {
    let mut parsed = Query::default();
    for (name, value) in query {
        match name.as_str() {
            "state" => parsed.states.push(value),
            // Within its one value the pairs are encoded once more.
            "metadata" => {
                let pairs: Vec<(String, String)> = serde_urlencoded::from_str(&value)
                    .map_err(|_| ApiError::field("metadata", "metadata must be k=v&k2=v2"))?;
                parsed.filter.metadata.extend(pairs);
            }
            _ => {
                parsed.paging.take(&name, &value)?;
            }
        }
    }
    if parsed.states.len() > STATES_MAX {
        return Err(ApiError::field("state", "too many states"));
    }
    let labels = &parsed.filter.metadata;
    if labels.len() > limits::METADATA_KEYS_MAX {
        return Err(ApiError::field("metadata", "too many metadata filters"));
    }
    if labels
        .iter()
        .any(|(k, v)| k.contains('\0') || v.contains('\0'))
    {
        return Err(ApiError::field(
            "metadata",
            "a metadata filter contains NUL",
        ));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> ApiResult<Query> {
        let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        parse(pairs.iter().map(pair).collect())
    }

    #[test]
    fn metadata_is_encoded_once_more_inside_its_value() {
        let parsed = query(&[
            ("metadata", "project=Apollo&note=Demo%20Test%26"),
            ("state", "Running"),
            ("state", "Paused"),
            ("page", "2"),
            ("pageSize", "3"),
        ])
        .unwrap();
        assert_eq!(parsed.filter.metadata["note"], "Demo Test&");
        assert_eq!(parsed.filter.metadata["project"], "Apollo");
        assert_eq!(parsed.states, ["Running", "Paused"]);
        assert_eq!(parsed.paging, Paging { page: 2, size: 3 });
        for bad in [
            ("page", "0"),
            ("page", "x"),
            ("pageSize", "201"),
            ("pageSize", "-1"),
        ] {
            assert!(query(&[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pages_are_counted() {
        let page = |page, size, all: usize| Paging { page, size }.of((0..all).collect::<Vec<_>>());
        let second = page(2, 3, 7);
        assert_eq!(second.items, [3, 4, 5]);
        assert!(second.pagination.has_next_page);
        assert_eq!(second.pagination.total_pages, 3);
        let last = page(3, 3, 7);
        assert_eq!(last.items, [6]);
        assert!(!last.pagination.has_next_page);
        assert!(page(usize::MAX, 200, 7).items.is_empty());
        assert_eq!(page(1, 3, 0).pagination.total_pages, 0);
    }
}
