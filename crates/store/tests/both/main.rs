//! The store's behaviour, the same on both databases: every test function runs once on a fresh
//! SQLite file and once on a fresh database of a private PostgreSQL server.

#![allow(
    clippy::unwrap_used,
    reason = "a panic in a test, or in what it calls, is the report"
)]

/// Makes a `sqlite` and a `postgres` test of every named function.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $test() { crate::bed::on_sqlite(super::$test); })*
        }
        mod postgres {
            $(#[test] fn $test() { crate::bed::on_postgres(super::$test); })*
        }
    };
}

mod bed;
mod postgres_server;
mod rows;

mod agents;
mod api_keys;
mod artifacts;
mod bootstrap;
mod code_runs;
mod commands;
mod concurrency;
mod contexts;
mod crash;
mod idempotency;
mod open;
mod paging;
mod previews;
mod recorded;
mod records;
mod sandboxes;
mod snapshots;
mod tenants;
mod workspace_runs;
