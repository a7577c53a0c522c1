//! Janitor of the streams that all partitions share: EVENTS and the hops.
//!
//! Run by the owner of the control partition, so that one process does it. Like
//! every purge it is safe whoever does it: nothing above what the consumer of a
//! stream has acknowledged is touched. Of EVENTS moreover nothing that a partition
//! may still have to file, see `events_needed`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fermata_jetstream::Broker;
use fermata_jetstream::api::ApiError;
use fermata_jetstream::progress::shared_progress;
use fermata_jetstream::purge::{StreamRoom, purge_before, room_of};
use fermata_jetstream::topology::{ADMITTED_STREAM, EVENTS_STREAM, MATCHED_STREAM};

use super::events_needed::{FollowedFloor, first_needed};
use super::readers::describe;
use crate::builder::BUILDER_CONSUMER;
use crate::lease_term::LeaseView;
use crate::listener::LISTENER_CONSUMER;
use crate::matcher::MATCHER_CONSUMER;
use crate::ports::Ports;

/// How often the shared streams are looked at.
pub const HOPS_INTERVAL: Duration = Duration::from_secs(10);

/// Percent of its bytes above which EVENTS is purged, oldest first. Below it
/// events are kept for people, however old.
pub const EVENTS_PERCENT_MAX: u64 = 70;

/// Percent of its bytes down to which it is purged then: so that not every look
/// purges a little.
pub const EVENTS_PERCENT_KEPT: u64 = 60;

/// Why EVENTS is not purged although it holds too much, for people; nothing while all is well.
#[derive(Debug, Clone, Default)]
pub(super) struct EventsHeld(Arc<Mutex<Option<String>>>);

impl EventsHeld {
    pub(super) fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells whether it was another one before.
    pub(super) fn set(&self, reason: Option<String>) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *held != reason;
        *held = reason;
        changed
    }
}

/// Purges what nobody needs of the shared streams, for as long as the lease says
/// that nobody else does. Says in `held` why EVENTS is not.
pub(super) async fn purge_shared_streams(ports: Ports, mut lease: LeaseView, held: EventsHeld) {
    let mut floor = FollowedFloor::start(&ports);
    while lease.until_held().await {
        for (stream, consumer) in [
            (ADMITTED_STREAM, MATCHER_CONSUMER),
            (MATCHED_STREAM, BUILDER_CONSUMER),
            (EVENTS_STREAM, LISTENER_CONSUMER),
        ] {
            let purged = match stream == EVENTS_STREAM {
                true => purge_events(&ports, &mut floor, &held).await,
                false => purge_shared_stream(&ports.broker, stream, consumer, u64::MAX).await,
            };
            match purged {
                Ok(0) => {}
                Ok(messages) => tracing::debug!(stream, messages, "messages are purged"),
                // A consumer that nobody made yet has acknowledged nothing.
                Err(error) => {
                    tracing::debug!(stream, error = describe(&error), "nothing could be purged")
                }
            }
        }
        tokio::time::sleep(HOPS_INTERVAL).await;
    }
}

/// Purges EVENTS where there are too many, but for those that are needed.
async fn purge_events(
    ports: &Ports,
    floor: &mut FollowedFloor,
    held: &EventsHeld,
) -> Result<u64, ApiError> {
    if events_kept_from(room_of(&ports.broker, EVENTS_STREAM).await?, u64::MAX) == 0 {
        held.set(None);
        return Ok(0);
    }
    match first_needed(ports, floor).await {
        Ok(needed) => {
            if held.set(None) {
                tracing::info!("it is known again which events are needed");
            }
            purge_shared_stream(&ports.broker, EVENTS_STREAM, LISTENER_CONSUMER, needed).await
        }
        Err(reason) => {
            if held.set(Some(reason.to_string())) {
                tracing::warn!(%reason, "EVENTS fills up and is not purged: it is not known which events are needed; `fermata doctor` tells what to do");
            }
            Ok(0)
        }
    }
}

/// Purges what nobody needs of one shared stream, and tells how many messages that were: nothing
/// that `consumer` has not acknowledged or that stands at or behind `needed`, of EVENTS only what
/// is too much.
///
/// # Errors
///
/// When the broker refuses or does not answer, or the consumer is not there.
///
/// # Cancel safety
///
/// They may be gone.
pub async fn purge_shared_stream(
    broker: &Broker,
    stream: &str,
    consumer: &str,
    needed: u64,
) -> Result<u64, ApiError> {
    let acknowledged = shared_progress(broker, stream, consumer).await?.acknowledged_up_to;
    let first = match stream == EVENTS_STREAM {
        true => events_kept_from(room_of(broker, stream).await?, acknowledged),
        // The last acknowledged message stays: it shows where the stream was.
        false => acknowledged,
    };
    purge_before(broker, stream, first.min(needed)).await
}

/// The first sequence of EVENTS that stays; 0 where all does. Messages are taken
/// to be alike in size: if they are not, the next look purges the rest.
fn events_kept_from(room: StreamRoom, acknowledged: u64) -> u64 {
    let StreamRoom { first_sequence, messages, bytes, max_bytes } = room;
    let most = max_bytes / 100 * EVENTS_PERCENT_MAX;
    if max_bytes == 0 || bytes <= most || messages == 0 {
        return 0;
    }
    let excess = bytes.saturating_sub(max_bytes / 100 * EVENTS_PERCENT_KEPT);
    let gone = u128::from(messages) * u128::from(excess) / u128::from(bytes);
    let gone = u64::try_from(gone).unwrap_or(u64::MAX);
    first_sequence.saturating_add(gone).min(acknowledged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn events_are_purged_to_what_is_kept_when_there_are_too_many_bytes() {
        let room =
            |bytes| StreamRoom { first_sequence: 101, messages: 90, bytes, max_bytes: 1_000 };

        assert_eq!(events_kept_from(room(700), 1_000), 0, "there is room");
        assert_eq!(events_kept_from(room(900), 1_000), 101 + 30);
        assert_eq!(events_kept_from(room(900), 110), 110, "others are not acknowledged");
    }

    proptest! {
        #[test]
        fn nothing_is_purged_that_is_not_acknowledged(
            first_sequence in 1_u64..u64::MAX / 2,
            messages: u32,
            bytes: u64,
            max_bytes: u64,
            acknowledged: u64,
        ) {
            let messages = u64::from(messages);
            let room = StreamRoom { first_sequence, messages, bytes, max_bytes };
            let kept_from = events_kept_from(room, acknowledged);
            prop_assert!(kept_from <= acknowledged);
            prop_assert!(kept_from <= first_sequence + messages, "the last message stays or is next");
        }
    }
}
