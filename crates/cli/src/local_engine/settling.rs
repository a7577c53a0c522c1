//! How long an engine takes until it has settled: until it works, or says what it cannot do.

use std::time::{Duration, Instant};

use fermata_actors::Engine;
use fermata_actors::readiness::{NotReady, Obstacle};

use crate::error::CliError;

/// How long an engine may take until what is published is decided at once. A
/// takeover replays its journal, and the leases of a worker that died run out in 15 s.
pub const READY_LIMIT: Duration = Duration::from_secs(300);

/// How often it says what it waits for.
pub const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Waits until what is published is decided at once, but by what is halted here, which is given.
pub(super) async fn settled(engine: &Engine) -> Result<Vec<Obstacle>, CliError> {
    let begun = Instant::now();
    loop {
        let source = match engine.settled_within(TELL_INTERVAL).await {
            Ok(halted) => return Ok(halted),
            Err(NotReady::Waiting { awaited, .. }) if begun.elapsed() < READY_LIMIT => {
                tracing::warn!(%awaited, "the engine is not ready yet");
                continue;
            }
            Err(NotReady::Waiting { awaited, .. }) => {
                Box::new(NotReady::Waiting { limit: READY_LIMIT, awaited })
            }
            Err(ended @ NotReady::Ended) => Box::new(ended),
        };
        return Err(CliError::Failed { action: "starting the engine".to_owned(), source });
    }
}
