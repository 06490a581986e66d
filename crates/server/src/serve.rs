//! Running the server: from a bound listener to the last flushed row.

use crate::app::App;
use crate::error::ApiError;
use crate::routes;
use axum::serve::ListenerExt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;

/// How long runs and commands may take to finish when the server stops; then their clients are
/// told, and the next server finds their sandboxes.
const RUNS_GRACE: Duration = Duration::from_secs(1);
/// How long answers and background work may take after that.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Why the server could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("registering this node in the store: {0}")]
    RegisterNode(ApiError),
    #[error("reconciling sandboxes: {0}")]
    Recover(ApiError),
    #[error("serving: {0}")]
    Serve(#[from] std::io::Error),
}

/// Serves until `shutdown` resolves, or until another server has taken this node over. Sandboxes
/// are reconciled before the first request is answered, and live on after the last.
///
/// # Errors
/// [`ServeError`]
pub async fn run(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?.to_string();
    app.register_node(address.clone())
        .await
        .map_err(ServeError::RegisterNode)?;
    // Before runs go on, which write artifacts again.
    app.keep_artifacts();
    app.recover().await.map_err(ServeError::Recover)?;
    app.keep_node();
    app.keep_logs();
    app.keep_workspace_runs();
    tracing::info!(address, "serving");

    // Answers are small and clients wait for them: never hold one back for more.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
    });
    let stopping = app.stopping.clone();
    let stop = {
        let stopping = stopping.clone();
        async move {
            tokio::select! {
                () = shutdown => stopping.cancel(),
                () = stopping.cancelled() => {}
            }
        }
    };
    let service = routes::router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(stop);
    let grace_over = async {
        stopping.cancelled().await;
        tokio::time::sleep(RUNS_GRACE).await;
        // Ends every run that is still waited for; its client hears why and lets go.
        app.host.shutdown().await;
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    let served = tokio::select! {
        served = serving.into_future() => served,
        () = grace_over => {
            tracing::warn!("requests were still running when the server stopped");
            Ok(())
        }
    };
    stopping.cancel();
    finish(&app).await;
    Ok(served?)
}

/// Ends what the server itself keeps running, in the order in which it depends on the rest.
async fn finish(app: &App) {
    // The links to sandboxes first: that ends every run that is still waited for here.
    app.host.shutdown().await;
    app.tasks.close();
    if tokio::time::timeout(SHUTDOWN_GRACE, app.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("background work was still running when the server stopped");
    }
    app.audit.flush().await;
    app.store.close().await;
}
