//! A spawner that is being restarted is waited for, briefly.

use super::spawner::SpawnerError;
use std::time::Duration;

/// Tries of one command while the spawner is away.
const TRIES_MAX: u32 = 6;
/// Pause before the second try; doubled each time, 1.5 s all together.
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// Does it again while the spawner is not connected.
pub(super) async fn retried<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, SpawnerError>
where
    F: Future<Output = Result<T, SpawnerError>>,
{
    let mut pause = PAUSE_FIRST;
    for _ in 1..TRIES_MAX {
        match attempt().await {
            Err(SpawnerError::Disconnected(_)) => tokio::time::sleep(pause).await,
            other => return other,
        }
        pause *= 2;
    }
    attempt().await
}
