//! Room of COMMANDS that intake leaves to others.
//!
//! What comes of events goes the same way as results, cancels, decisions and what partitions
//! tell each other. Were a stream full of events, nothing could end any more. So the builder
//! publishes what came of events only while a stream is filled to less than
//! [`INTAKE_PERCENT_MAX`]; beyond, it waits, its source is not acknowledged, and events stay
//! where they are. Everything else may use all of the stream.
//!
//! How full a stream is, is known of old: what the broker said last, and what this process has
//! published that the answer may not show. Other builders' part is missing until the next look;
//! looks come often where it matters, and the rest of the stream is room for that.

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

/// How long a frame that waits for room waits between two looks at what is known.
const WAIT_PAUSE: Duration = Duration::from_millis(20);

/// How long a frame waits for room before its source comes again: not longer, so that another
/// worker may try.
pub const ROOM_WAIT: Duration = Duration::from_secs(60);

/// Bytes that the broker adds to a message, roughly.
const MESSAGE_BYTES: u64 = 64;

/// How full a stream was.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    bytes: u64,
    bytes_max: u64,
}

/// What is known of one partition's COMMANDS.
#[derive(Debug, Default)]
struct Room {
    look: Option<Look>,
    /// Bytes of all frames that were let through.
    begun: u64,
    /// Bytes of those whose publish has ended, stored or not.
    ended: u64,
    /// What had ended when the look was asked for: an answer may not show the rest yet.
    ended_before_look: u64,
    is_looking: bool,
}

impl Room {
    /// Bytes that the stream may hold beyond what the look shows.
    fn unseen(&self) -> u64 {
        self.begun.saturating_sub(self.ended_before_look)
    }

    /// Percent to which the stream is filled with so many bytes more; without a limit none.
    fn percent_with(&self, look: &Look, bytes: u64) -> u64 {
        let filled = look.bytes.saturating_add(self.unseen()).saturating_add(bytes);
        filled.saturating_mul(100).checked_div(look.bytes_max).unwrap_or(0)
    }

    fn is_old(&self, look: &Look, now: Instant) -> bool {
        let near = self.percent_with(look, 0) >= NEAR_PERCENT;
        let interval = if near { LOOK_INTERVAL_NEAR } else { LOOK_INTERVAL };
        now.saturating_duration_since(look.at) >= interval
    }

    /// Decides on a frame of so many bytes, which count from then on if it is let through.
    ///
    /// One at a time asks the broker; meanwhile the others go by what is known.
    fn admit(&mut self, bytes: u64, now: Instant) -> Admission {
        let old = self.look.as_ref().is_none_or(|look| self.is_old(look, now));
        if old && !std::mem::replace(&mut self.is_looking, true) {
            return Admission::Look { ended: self.ended };
        }
        let Some(look) = &self.look else {
            return Admission::Wait;
        };
        // A stream smaller than a frame takes one when it is empty.
        let filled = look.bytes.saturating_add(self.unseen());
        if filled > 0 && self.percent_with(look, bytes) > INTAKE_PERCENT_MAX {
            return Admission::Wait;
        }
        self.begun = self.begun.saturating_add(bytes);
        Admission::Publish
    }

    /// Takes what the broker said to a look that was asked for when `ended` bytes had ended.
    fn looked(&mut self, answer: Option<(u64, u64)>, ended: u64, at: Instant) {
        self.is_looking = false;
        match (answer, &mut self.look) {
            (Some((bytes, bytes_max)), look) => {
                *look = Some(Look { at, bytes, bytes_max });
                self.ended_before_look = ended;
            }
            // What was known holds until the broker answers again; it refuses when full.
            (None, Some(look)) => look.at = at,
            (None, look @ None) => *look = Some(Look { at, bytes: 0, bytes_max: 0 }),
        }
    }
}

/// What a frame of intake may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Publish,
    /// The broker is to be asked first, after so many bytes had ended.
    Look {
        ended: u64,
    },
    /// Later.
    Wait,
}

/// What is known of the room of each partition's COMMANDS. Clones share it.
#[derive(Debug, Clone)]
pub struct CommandRoom {
    broker: Broker,
    rooms: Rooms,
}

type Rooms = Arc<Mutex<HashMap<PartitionId, Room>>>;

fn with<T>(rooms: &Rooms, partition: PartitionId, act: impl FnOnce(&mut Room) -> T) -> T {
    act(rooms.lock().unwrap_or_else(PoisonError::into_inner).entry(partition).or_default())
}

/// The bytes of a frame that may be published; keep it until the publish has ended.
#[derive(Debug)]
#[must_use = "the bytes count as stored once this is dropped"]
pub struct Admitted {
    rooms: Rooms,
    partition: PartitionId,
    bytes: u64,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        with(&self.rooms, self.partition, |room| {
            room.ended = room.ended.saturating_add(self.bytes)
        });
    }
}

/// A question to the broker, which nobody asks twice at a time.
struct Looking<'a> {
    rooms: &'a Rooms,
    partition: PartitionId,
    ended: u64,
    answer: Option<(u64, u64)>,
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        let (answer, ended) = (self.answer, self.ended);
        with(self.rooms, self.partition, |room| room.looked(answer, ended, Instant::now()));
    }
}

impl CommandRoom {
    /// Asks `broker`.
    #[must_use]
    pub fn new(broker: Broker) -> Self {
        Self { broker, rooms: Arc::default() }
    }

    /// Whether events wait for partitions to decide what was published before them, or did
    /// within the last second.
    #[must_use]
    pub fn is_short(&self) -> bool {
        false
    }

    /// Waits until a frame of so many bytes may be published for `partition`; none when it may
    /// not within [`ROOM_WAIT`].
    ///
    /// # Cancel safety
    ///
    /// Can be dropped: what was not let through does not count.
    pub async fn wait_for(&self, partition: PartitionId, bytes: usize) -> Option<Admitted> {
        let bytes = MESSAGE_BYTES.saturating_add(bytes as u64);
        let begun = Instant::now();
        let mut told = false;
        loop {
            match with(&self.rooms, partition, |room| room.admit(bytes, Instant::now())) {
                Admission::Publish => {
                    return Some(Admitted { rooms: self.rooms.clone(), partition, bytes });
                }
                Admission::Look { ended } => {
                    let rooms = &self.rooms;
                    let mut looking = Looking { rooms, partition, ended, answer: None };
                    let room = room_of(&self.broker, &commands_stream(partition)).await;
                    looking.answer = room.ok().map(|room| (room.bytes, room.max_bytes));
                    continue;
                }
                Admission::Wait => {}
            }
            if begun.elapsed() >= ROOM_WAIT {
                return None;
            }
            if begun.elapsed() >= LOOK_INTERVAL && !std::mem::replace(&mut told, true) {
                let percent = INTAKE_PERCENT_MAX;
                tracing::warn!(%partition, percent, "COMMANDS is filled as far as events may; intake waits for room");
            }
            tokio::time::sleep(WAIT_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn looked_at(bytes: u64, bytes_max: u64) -> Room {
        let mut room = Room::default();
        room.looked(Some((bytes, bytes_max)), 0, Instant::now());
        room
    }

    fn is_old_after(room: &Room, interval: Duration) -> bool {
        let look = room.look.expect("a look");
        room.is_old(&look, look.at + interval)
    }

    #[test]
    fn a_stream_without_a_limit_is_never_filled() {
        assert_eq!(looked_at(u64::MAX, 0).admit(7, Instant::now()), Admission::Publish);
    }

    #[test]
    fn a_stream_that_fills_is_looked_at_more_often() {
        let mut room = looked_at(10, 100);
        assert!(!is_old_after(&room, LOOK_INTERVAL_NEAR));
        assert!(is_old_after(&room, LOOK_INTERVAL));

        assert_eq!(room.admit(45, Instant::now()), Admission::Publish);

        assert!(is_old_after(&room, LOOK_INTERVAL_NEAR), "what is published counts");
    }

    #[test]
    fn only_one_asks_and_the_others_go_by_what_is_known() {
        let mut room = looked_at(10, 100);
        let later = Instant::now() + LOOK_INTERVAL;

        assert_eq!(room.admit(1, later), Admission::Look { ended: 0 });
        assert_eq!(room.admit(1, later), Admission::Publish);
        assert_eq!(room.admit(70, later), Admission::Wait);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Admit(u64),
        Store(usize),
        Ask,
        Answer,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..30_u64).prop_map(Step::Admit),
            3 => (0..8_usize).prop_map(Step::Store),
            1 => Just(Step::Ask),
            1 => Just(Step::Answer),
        ]
    }

    proptest! {
        /// An answer tells of a moment between question and answer, and frames are on their way
        /// all the while: whatever the order, events never fill more than is theirs.
        #[test]
        fn one_builder_never_fills_more_than_is_for_events(
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let bytes_max = 100;
            let mut room = looked_at(0, bytes_max);
            let (mut stored, mut on_the_way, mut asked) = (0, Vec::new(), None);
            let now = Instant::now();
            for step in steps {
                match step {
                    Step::Admit(bytes) => {
                        room.is_looking = true;
                        if room.admit(bytes, now) == Admission::Publish {
                            on_the_way.push(bytes);
                        }
                    }
                    Step::Store(at) if at < on_the_way.len() => {
                        let bytes = on_the_way.swap_remove(at);
                        stored += bytes;
                        room.ended += bytes;
                    }
                    Step::Store(_) => {}
                    Step::Ask => asked = Some((room.ended, stored)),
                    Step::Answer => {
                        if let Some((ended, seen)) = asked.take() {
                            room.looked(Some((seen, bytes_max)), ended, now);
                        }
                    }
                }
                prop_assert!(stored * 100 / bytes_max <= INTAKE_PERCENT_MAX, "{stored} stored");
            }
        }
    }
}
