//! Room of COMMANDS that intake leaves to others.
//!
//! What comes of events goes the same way as results, cancels, decisions and what partitions
//! tell each other. Were a stream full of events, nothing could end any more. So the builder
//! publishes what came of events only while a stream is filled to less than
//! [`INTAKE_PERCENT_MAX`]; beyond, it waits, its source is not acknowledged, and events stay
//! where they are. Everything else may use all of the stream.
//!
//! How full a stream is, is known of old: what the broker said last, and what this process has
//! published since. Other builders' part is missing until the next look; looks come often
//! where it matters, and the rest of the stream is room for that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fermata_core::identity::PartitionId;
use fermata_jetstream::Broker;
use fermata_jetstream::purge::room_of;
use fermata_jetstream::topology::commands_stream;

/// Percent of its bytes up to which events may fill COMMANDS of a partition.
pub const INTAKE_PERCENT_MAX: u64 = 80;

/// Percent from which on the broker is asked more often.
const NEAR_PERCENT: u64 = 50;

/// How often the broker is asked how full a stream is that has room, at most.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The same for one that has not: what is purged is noticed after that at the latest.
pub const LOOK_INTERVAL_NEAR: Duration = Duration::from_millis(100);

/// How long a frame waits for room before its source comes again: not longer, so that another
/// worker may try.
pub const ROOM_WAIT: Duration = Duration::from_secs(60);

/// Bytes that the broker adds to a message, roughly.
const MESSAGE_BYTES: u64 = 64;

/// How full a stream was, and what was added since.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    bytes: u64,
    bytes_max: u64,
    published: u64,
}

impl Look {
    /// Percent to which the stream is filled with so many bytes more; without a limit none.
    fn percent_with(&self, bytes: u64) -> u64 {
        let filled = self.bytes.saturating_add(self.published).saturating_add(bytes);
        filled.saturating_mul(100).checked_div(self.bytes_max).unwrap_or(0)
    }

    fn is_old(&self, now: Instant) -> bool {
        let near = self.percent_with(0) >= NEAR_PERCENT;
        let interval = if near { LOOK_INTERVAL_NEAR } else { LOOK_INTERVAL };
        now.saturating_duration_since(self.at) >= interval
    }
}

/// What is known of the room of each partition's COMMANDS. Clones share it.
#[derive(Debug, Clone)]
pub struct CommandRoom {
    broker: Broker,
    looks: Arc<Mutex<HashMap<PartitionId, Look>>>,
}

/// What a frame of intake may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Publish,
    /// The broker is to be asked first.
    Look,
    /// Later.
    Wait,
}

impl CommandRoom {
    /// Asks `broker`.
    #[must_use]
    pub fn new(broker: Broker) -> Self {
        Self { broker, looks: Arc::default() }
    }

    /// Waits until a frame of so many bytes may be published for `partition`; false when it
    /// may not within [`ROOM_WAIT`].
    ///
    /// # Cancel safety
    ///
    /// Can be dropped; the bytes may count until the next look.
    pub async fn wait_for(&self, partition: PartitionId, bytes: usize) -> bool {
        let bytes = MESSAGE_BYTES.saturating_add(bytes as u64);
        let begun = Instant::now();
        let mut told = false;
        loop {
            match self.admit(partition, bytes, Instant::now()) {
                Admission::Publish => return true,
                Admission::Look => {
                    self.look(partition).await;
                    continue;
                }
                Admission::Wait => {}
            }
            if begun.elapsed() >= ROOM_WAIT {
                return false;
            }
            if !std::mem::replace(&mut told, true) {
                let percent = INTAKE_PERCENT_MAX;
                tracing::warn!(%partition, percent, "COMMANDS is filled as far as events may; intake waits for room");
            }
            tokio::time::sleep(LOOK_INTERVAL_NEAR).await;
        }
    }

    fn admit(&self, partition: PartitionId, bytes: u64, now: Instant) -> Admission {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(look) = looks.get_mut(&partition).filter(|look| !look.is_old(now)) else {
            return Admission::Look;
        };
        // A stream smaller than a frame takes one when it is empty.
        let filled = look.bytes.saturating_add(look.published);
        if filled > 0 && look.percent_with(bytes) > INTAKE_PERCENT_MAX {
            return Admission::Wait;
        }
        look.published = look.published.saturating_add(bytes);
        Admission::Publish
    }

    async fn look(&self, partition: PartitionId) {
        let room = room_of(&self.broker, &commands_stream(partition)).await;
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        match (room, looks.get_mut(&partition)) {
            (Ok(room), _) => {
                let (bytes, bytes_max) = (room.bytes, room.max_bytes);
                looks.insert(partition, Look { at, bytes, bytes_max, published: 0 });
            }
            // What was known holds until the broker answers again; it refuses when full.
            (Err(_), Some(look)) => look.at = at,
            (Err(_), None) => {
                let unknown = Look { at, bytes: 0, bytes_max: 0, published: 0 };
                looks.insert(partition, unknown);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn look(bytes: u64, bytes_max: u64, published: u64) -> Look {
        Look { at: Instant::now(), bytes, bytes_max, published }
    }

    #[test]
    fn a_stream_without_a_limit_is_never_filled() {
        assert_eq!(look(u64::MAX, 0, 1).percent_with(7), 0);
    }

    #[test]
    fn a_stream_that_fills_is_looked_at_more_often() {
        let later = |look: &Look, interval| look.is_old(look.at + interval);

        assert!(!later(&look(10, 100, 0), LOOK_INTERVAL_NEAR));
        assert!(later(&look(10, 100, 0), LOOK_INTERVAL));
        assert!(later(&look(10, 100, 45), LOOK_INTERVAL_NEAR), "what is published counts");
    }

    proptest! {
        #[test]
        fn what_this_process_publishes_counts_like_what_is_stored(
            stored in 0..1_000_000_u64,
            published in 0..1_000_000_u64,
            bytes in 0..1_000_000_u64,
            bytes_max in 1..1_000_000_u64,
        ) {
            prop_assert_eq!(
                look(stored, bytes_max, published).percent_with(bytes),
                look(stored + published + bytes, bytes_max, 0).percent_with(0)
            );
        }
    }
}
