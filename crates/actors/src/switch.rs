//! Whether the engine takes events in: the flags of the definitions, as the way
//! in asks for them.

use std::sync::Arc;

use fermata_jetstream::topology::EVENTS_STREAM;
use tokio::sync::watch;

use crate::definitions::Snapshot;
use crate::ports::Ports;
use crate::readiness::missing_definitions;

/// Guards one stream. Only the way in is ever closed: what was taken is decided.
#[derive(Debug, Clone)]
pub struct Switch {
    definitions: Option<watch::Receiver<Arc<Snapshot>>>,
}

impl Switch {
    /// The switch of `stream`.
    #[must_use]
    pub fn of(stream: &str, ports: &Ports) -> Self {
        let is_guarded = stream == EVENTS_STREAM;
        Self { definitions: is_guarded.then(|| ports.definitions.clone()) }
    }

    /// Waits until messages may be taken. What was switched off before this
    /// process began is known first.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn until_on(&mut self, ports: &Ports) {
        let Some(definitions) = &mut self.definitions else { return };
        while let Some(awaited) = missing_definitions(ports).await {
            tracing::debug!(%awaited, "events wait until it is known whether they are taken in");
            tokio::time::sleep(crate::hop::AGAIN_AFTER).await;
        }
        if !definitions.borrow().flags.takes_events() {
            tracing::warn!("events are not taken in: switched off (`fermata flags list`)");
        }
        // The watch lasts as long as its receivers.
        let _ = definitions.wait_for(|snapshot| snapshot.flags.takes_events()).await;
    }

    /// Waits until messages may not be taken any more.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn until_off(&mut self) {
        let off = match &mut self.definitions {
            Some(definitions) => {
                definitions.wait_for(|snapshot| !snapshot.flags.takes_events()).await.is_ok()
            }
            None => false,
        };
        if !off {
            std::future::pending::<()>().await;
        }
    }
}
