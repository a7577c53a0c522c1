//! What a stream waits for before messages are taken from it: the definitions, and for the way in
//! their flags, which say whether the engine takes events in.

use std::sync::Arc;

use fermata_jetstream::topology::{ADMITTED_STREAM, EVENTS_STREAM, WAITING_STREAM};
use tokio::sync::watch;

use crate::definitions::Snapshot;
use crate::ports::Ports;
use crate::readiness::missing_definitions;

/// Guards one stream. Only the way in is ever closed: what was taken is decided.
#[derive(Debug, Clone)]
pub struct Switch(Guard);

#[derive(Debug, Clone)]
enum Guard {
    /// The way in: open while the flags say so.
    Flags(watch::Receiver<Arc<Snapshot>>),
    /// Before a matcher: without definitions nothing matches, and accepted events would be decided
    /// as if nobody wanted them.
    Definitions(watch::Receiver<Arc<Snapshot>>),
    /// What comes later was matched.
    Open,
}

impl Switch {
    /// The switch of `stream`.
    #[must_use]
    pub fn of(stream: &str, ports: &Ports) -> Self {
        Self(match stream {
            EVENTS_STREAM => Guard::Flags(ports.definitions.clone()),
            ADMITTED_STREAM | WAITING_STREAM => Guard::Definitions(ports.definitions.clone()),
            _ => Guard::Open,
        })
    }

    /// Waits until messages may be taken. What was defined and switched off before this
    /// process began is known first.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn until_on(&mut self, ports: &Ports) {
        match &mut self.0 {
            Guard::Open => {}
            Guard::Definitions(definitions) => {
                // Later this process is no further behind than any other that goes on.
                let is_first = definitions.borrow().revision == 0;
                if is_first {
                    until_known(ports).await;
                }
            }
            Guard::Flags(definitions) => {
                until_known(ports).await;
                if !definitions.borrow().flags.takes_events() {
                    tracing::warn!("events are not taken in: switched off (`fermata flags list`)");
                }
                // The watch lasts as long as its receivers.
                let _ = definitions.wait_for(|snapshot| snapshot.flags.takes_events()).await;
            }
        }
    }

    /// Waits until messages may not be taken any more.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn until_off(&mut self) {
        let off = match &mut self.0 {
            Guard::Flags(definitions) => {
                definitions.wait_for(|snapshot| !snapshot.flags.takes_events()).await.is_ok()
            }
            Guard::Definitions(_) | Guard::Open => false,
        };
        if !off {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until what is defined is active here.
async fn until_known(ports: &Ports) {
    while let Some(awaited) = missing_definitions(ports).await {
        tracing::debug!(%awaited, "events wait until the definitions are known");
        tokio::time::sleep(crate::hop::AGAIN_AFTER).await;
    }
}
