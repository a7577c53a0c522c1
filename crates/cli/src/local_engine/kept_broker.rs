//! The engine's own broker: started with the engine, and again when it ends by itself.

use std::path::PathBuf;
use std::time::Duration;

use fermata_jetstream::server::ServerError;
use fermata_jetstream::{ManagedServer, ServerOptions};
use tokio::time::Instant;

use crate::error::CliError;

/// How often a broker that ends by itself is started again within [`BROKER_RESTARTS_WINDOW`]. Default 3:
/// one that was killed for want of memory comes back, one that cannot run does not try for ever.
pub const BROKER_RESTARTS_MAX: usize = 3;

/// How long a restart counts. Default 10 minutes.
pub const BROKER_RESTARTS_WINDOW: Duration = Duration::from_secs(10 * 60);

/// How much longer each restart of a window waits than the one before; the first does not wait.
const BROKER_RESTART_PAUSE: Duration = Duration::from_secs(1);

/// A broker that is there for as long as this value.
#[derive(Debug)]
pub(super) struct KeptBroker {
    server: ManagedServer,
    monitor_file: PathBuf,
    restarts: Restarts,
    /// Why the newest try to start it again failed, if it did.
    failed: Option<ServerError>,
}

impl Drop for KeptBroker {
    fn drop(&mut self) {
        // A file that tells of a broker which is gone only misleads.
        let _ = std::fs::remove_file(&self.monitor_file);
    }
}

impl KeptBroker {
    /// Starts it; `monitor_file` tells from then on where it can be monitored.
    pub(super) async fn start(
        options: ServerOptions,
        monitor_file: PathBuf,
    ) -> Result<Self, CliError> {
        let server = ManagedServer::start(options).await?;
        let broker = Self { server, monitor_file, restarts: Restarts::default(), failed: None };
        broker.tell_monitor_url()?;
        Ok(broker)
    }

    /// Where it listens, also after a restart.
    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    /// Starts it again, on the same port and data, whenever it ends by itself. Gives why it does
    /// so no longer.
    ///
    /// # Cancel safety
    ///
    /// The broker may be down; asked again, it is started.
    pub(super) async fn keep(&mut self) -> CliError {
        loop {
            self.server.ended().await;
            let Some(pause) = self.restarts.next(Instant::now()) else {
                return CliError::BrokerEnded { log: self.log(), last: self.failed.take() };
            };
            let log = self.log();
            tracing::warn!(log, ?pause, "the engine's own broker ended; it is started again");
            tokio::time::sleep(pause).await;
            match self.server.restart().await {
                Ok(()) => {
                    self.failed = None;
                    if let Err(error) = self.tell_monitor_url() {
                        tracing::warn!(%error, "where the broker can be monitored is not told");
                    }
                    let url = self.url();
                    tracing::info!(url, "the broker is back, with all that was stored");
                }
                Err(error) => {
                    tracing::warn!(%error, "the broker could not be started again");
                    self.failed = Some(error);
                }
            }
        }
    }

    /// Ends it.
    pub(super) async fn stop(mut self) -> Result<(), CliError> {
        Ok(self.server.stop().await?)
    }

    /// Where it can be monitored.
    pub(super) fn monitor_url(&self) -> Option<String> {
        self.server.monitor_url().map(str::to_owned)
    }

    fn tell_monitor_url(&self) -> Result<(), CliError> {
        let Some(url) = self.server.monitor_url() else { return Ok(()) };
        let file = &self.monitor_file;
        std::fs::write(file, format!("{url}\n"))
            .map_err(CliError::io(format!("write `{}`", file.display())))
    }

    fn log(&self) -> String {
        self.server.data_dir().join("nats-server.log").display().to_string()
    }
}

/// Keeps the engine's own broker, if it has one; gives why it is not kept any longer.
pub(super) async fn keep(broker: &mut Option<KeptBroker>) -> CliError {
    match broker {
        Some(broker) => broker.keep().await,
        None => std::future::pending().await,
    }
}

/// When it was started again.
#[derive(Debug, Default)]
struct Restarts(Vec<Instant>);

impl Restarts {
    /// How long to wait before the next one; nothing when there were too many.
    fn next(&mut self, now: Instant) -> Option<Duration> {
        self.0.retain(|before| now.duration_since(*before) < BROKER_RESTARTS_WINDOW);
        let before = u32::try_from(self.0.len()).ok()?;
        if self.0.len() >= BROKER_RESTARTS_MAX {
            return None;
        }
        self.0.push(now);
        Some(BROKER_RESTART_PAUSE * before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_bounded_within_the_window_and_each_waits_longer() {
        let (mut restarts, begun) = (Restarts::default(), Instant::now());
        let soon = begun + Duration::from_secs(5);
        let later = begun + BROKER_RESTARTS_WINDOW;

        let first = restarts.next(begun);
        let pauses = [first, restarts.next(soon), restarts.next(soon), restarts.next(soon)];

        let [none, one, two] = [0, 1, 2].map(|pauses| Some(BROKER_RESTART_PAUSE * pauses));
        assert_eq!(pauses, [none, one, two, None]);
        // The first has come off the window, and no other.
        assert_eq!([restarts.next(later), restarts.next(later)], [two, None]);
    }
}
