//! Opening a PostgreSQL database.

use crate::{StoreError, StoreOptions, migrate};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};
use std::str::FromStr;
use std::time::Duration;

/// A connection that was idle longer is asked for a sign of life before it is used, because the
/// server may have restarted; a busy one is not, because that is one more round trip.
const TRUSTED_IDLE: Duration = Duration::from_secs(2);
/// Prepared statements that a connection keeps. The crate has fewer, so none is prepared twice.
const STATEMENTS_CACHED: usize = 128;
/// Longest that one statement runs; the ones here take milliseconds.
const STATEMENT_TIMEOUT_MS: u32 = 30_000;

pub(crate) async fn open(url: &str, options: &StoreOptions) -> Result<PgPool, StoreError> {
    let connect = PgConnectOptions::from_str(url)
        .map_err(|_| StoreError::UnsupportedUrl)?
        .application_name("crownest")
        .statement_cache_capacity(STATEMENTS_CACHED)
        // One statement waiting for a lock must not wait longer than its caller was promised.
        .options([
            ("lock_timeout", options.busy_timeout.as_millis().to_string()),
            ("statement_timeout", STATEMENT_TIMEOUT_MS.to_string()),
        ])
        .disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(options.postgres_connections_max.max(1))
        .acquire_timeout(options.busy_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for < TRUSTED_IDLE {
                    return Ok(true);
                }
                // A failed sign of life drops this connection and the pool tries another.
                Ok(connection.ping().await.is_ok())
            })
        })
        .connect_with(connect)
        .await
        .map_err(|source| StoreError::Connect { source })?;
    migrate::postgres(&pool).await?;
    Ok(pool)
}
