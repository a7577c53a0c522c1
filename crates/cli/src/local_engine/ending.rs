//! How an engine in this process comes to its end: asked by a signal, or by itself.

use std::time::Duration;

use super::LocalEngine;
use crate::error::{CliError, ExitCode};

/// Requests to end: Ctrl-C and SIGTERM. From the first of these on, the process
/// no longer ends by itself on either.
#[derive(Debug)]
pub struct EndRequests {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl EndRequests {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// When the operating system takes no handler.
    pub fn listen() -> Result<Self, CliError> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let terminate =
                signal(SignalKind::terminate()).map_err(CliError::io("listen for SIGTERM"))?;
            let interrupt =
                signal(SignalKind::interrupt()).map_err(CliError::io("listen for Ctrl-C"))?;
            Ok(Self { terminate, interrupt })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        // An error means that there is no handler: then the system ends the process.
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// What ended by itself.
#[derive(Debug)]
pub enum Ended {
    /// The engine gave up.
    Engine,
    /// The engine's broker: its own is not started again, or has another engine's data.
    Broker(CliError),
}

/// Stays until asked to end, or until the engine ends by itself. On the first
/// request it drains; on a second one it ends at once.
///
/// # Errors
///
/// When the engine or its broker ended by itself, or could not be ended.
///
/// # Cancel safety
///
/// As a kill: nothing accepted is lost.
pub async fn stay(
    mut running: LocalEngine,
    requests: &mut EndRequests,
    limit: Duration,
) -> Result<ExitCode, CliError> {
    let ended = tokio::select! {
        biased;
        () = requests.next() => None,
        ended = running.ended() => Some(ended),
    };
    match ended {
        None => drain(running, requests, limit).await,
        Some(Ended::Broker(error)) => {
            running.abandon().await;
            Err(error)
        }
        Some(Ended::Engine) => {
            running.shut_down(Duration::ZERO).await?;
            let source = "the engine gave up; its last log lines say why".into();
            Err(CliError::Failed { action: "running the engine".to_owned(), source })
        }
    }
}

/// Ends `running` in order, unless another request to end comes meanwhile.
///
/// # Errors
///
/// When the broker could not be ended.
///
/// # Cancel safety
///
/// As a kill: nothing accepted is lost.
pub async fn drain(
    running: LocalEngine,
    requests: &mut EndRequests,
    limit: Duration,
) -> Result<ExitCode, CliError> {
    tracing::info!(
        ?limit,
        "asked to end: attempts under way may end within the limit; asked again, it ends at once"
    );
    let drained = tokio::select! {
        drained = running.shut_down(limit) => drained?,
        () = requests.next() => {
            tracing::warn!("asked to end at once; what was under way is ordered again");
            return Ok(ExitCode::Interrupted);
        }
    };
    if drained.cut.is_empty() {
        return Ok(ExitCode::Success);
    }
    let partitions = drained.cut.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    tracing::warn!(
        partitions,
        ?limit,
        "attempts had not ended within the limit; their next owner orders them again"
    );
    Ok(ExitCode::Findings)
}
