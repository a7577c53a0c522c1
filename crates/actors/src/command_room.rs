//! Room of COMMANDS that intake leaves to others.
//!
//! What comes of events goes the same way as results, cancels, decisions and what partitions
//! tell each other. Were a stream full of events, nothing could end any more. So the builder
//! publishes what came of events only while a stream is filled to less than
//! [`INTAKE_PERCENT_MAX`] (`fill`).
//!
//! Nor do events stand there by the minute: what one builder publishes and the partition has
//! not decided is bounded by what it decides in a quarter of a second (`window`), so that a
//! tenant that publishes more than the engine gets done waits where another one can pass it.
//!
//! Beyond either bound a frame waits, in order, its source is not acknowledged, and events stay
//! where they are. Everything else may use all of the stream.

mod decided;
mod fill;
mod looking;
mod window;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fermata_core::identity::PartitionId;
use fermata_jetstream::{Broker, PublishOutcome, StreamReader};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{timeout, timeout_at};

use self::decided::Asking;
pub use self::decided::QUESTIONS_AT_ONCE_MAX;
use self::fill::{Admission, Fill};
pub use self::fill::{INTAKE_PERCENT_MAX, LOOK_INTERVAL, LOOK_INTERVAL_NEAR};
use self::looking::Looking;
pub use self::window::{
    AHEAD_MAX, ASK_INTERVAL, ASK_INTERVAL_MAX, STANDSTILL, UNSERVED_MAX, UNSERVED_PAUSE,
    WINDOW_FIRST, WINDOW_MAX, WINDOW_MIN,
};
use self::window::{Question, Window};
use crate::source::HOLD_MAX;

/// How long a frame that waits for room waits between two looks at what is known, unless news
/// come.
const WAIT_PAUSE: Duration = Duration::from_millis(20);

/// How long a frame waits for room while nothing passes before it, until its source comes again:
/// not longer, so that another worker may try. After [`HOLD_MAX`] the source comes again anyway,
/// so nothing waits beyond that.
pub const ROOM_WAIT: Duration = Duration::from_secs(60);

/// How long intake counts as short of room after a frame has waited for it.
pub const SHORT_FOR: Duration = Duration::from_secs(1);

/// Bytes that the broker adds to a message, roughly.
const MESSAGE_BYTES: u64 = 64;

/// What is known of the room of each partition's COMMANDS. Clones share it.
#[derive(Debug, Clone)]
pub struct CommandRoom {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    reader: StreamReader,
    rooms: Mutex<HashMap<PartitionId, Arc<Room>>>,
    /// Questions that may be asked beside those under way.
    questions: Arc<Semaphore>,
    began: Instant,
    /// Until when intake is short of room, milliseconds since it began.
    short_until_ms: AtomicU64,
}

/// One partition's.
#[derive(Debug, Default)]
struct Room {
    known: Mutex<Known>,
    /// Whose turn it is of those that wait: in order.
    turn: tokio::sync::Mutex<()>,
    /// Something has changed.
    news: Notify,
    /// When the last frame was let through.
    passed: Mutex<Option<tokio::time::Instant>>,
}

#[derive(Debug, Default)]
struct Known {
    fill: Fill,
    window: Window,
}

/// What a frame waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Open,
    /// How full the stream is has not been asked yet.
    Unknown,
    /// The stream is as full as events may make it.
    Full,
    /// The partition is to decide first what it was given.
    Undecided,
}

/// What the broker is to be asked beside, if anything.
#[derive(Debug, Default)]
struct Ask {
    /// How full the stream is, after so many bytes had ended.
    look: Option<u64>,
    question: Option<Question>,
}

impl Known {
    /// Decides on a frame, which counts from then on if it is let through.
    fn enter(&mut self, bytes: u64, commands: u64, now: Instant) -> (Entry, Ask) {
        let mut ask = Ask::default();
        let entry = match self.window.admits(commands, now) {
            false => Entry::Undecided,
            true => {
                ask.look = self.fill.look(now);
                match self.fill.admit(bytes) {
                    Admission::Publish => {
                        self.window.begin(commands, now);
                        Entry::Open
                    }
                    Admission::Unknown => Entry::Unknown,
                    Admission::Wait => Entry::Full,
                }
            }
        };
        ask.question = self.window.question(now);
        (entry, ask)
    }
}

impl Room {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passed(&self) -> MutexGuard<'_, Option<tokio::time::Instant>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a frame's turn and its entry; false when nothing has passed for [`ROOM_WAIT`]
    /// before, or [`HOLD_MAX`] is over.
    async fn pass(&self, enters: impl Future<Output = ()>) -> bool {
        let enters = async {
            let _turn = self.turn.lock().await;
            enters.await;
            *self.passed() = Some(tokio::time::Instant::now());
        };
        let mut enters = pin!(enters);
        let begun = tokio::time::Instant::now();
        let mut until = begun + ROOM_WAIT;
        while timeout_at(until, &mut enters).await.is_err() {
            let last = self.passed().map_or(begun, |passed| passed.max(begun));
            until = (last + ROOM_WAIT).min(begun + HOLD_MAX);
            if until <= tokio::time::Instant::now() {
                return false;
            }
        }
        true
    }
}

/// A frame that may be published; say what became of it.
#[derive(Debug)]
#[must_use = "it counts as possibly stored once this is dropped"]
pub struct Admitted {
    room: Arc<Room>,
    bytes: u64,
    commands: u64,
    outcome: Option<PublishOutcome>,
}

impl Admitted {
    /// Takes what became of the frame. One that is dropped without may be stored.
    pub fn ended(mut self, outcome: PublishOutcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut known = self.room.known();
        known.fill.end(self.bytes);
        match &self.outcome {
            Some(PublishOutcome::Stored { sequence, .. }) => {
                known.window.stored(*sequence, self.commands, Instant::now());
            }
            Some(PublishOutcome::Refused { .. }) => known.window.refused(self.commands),
            Some(PublishOutcome::Unknown) | None => known.window.lost_sight(self.commands),
        }
        drop(known);
        self.room.news.notify_one();
    }
}

impl CommandRoom {
    /// Asks `broker`.
    #[must_use]
    pub fn new(broker: &Broker) -> Self {
        let shared = Shared {
            reader: StreamReader::new(broker),
            rooms: Mutex::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS_AT_ONCE_MAX)),
            began: Instant::now(),
            short_until_ms: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether events wait for room, or did within [`SHORT_FOR`]: for partitions to decide what
    /// was published before them, or because a stream is filled to [`INTAKE_PERCENT_MAX`].
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.now_ms() < self.shared.short_until_ms.load(Ordering::Relaxed)
    }

    /// The owner of `partition`, which runs in this process, has committed a frame, and decided its
    /// commands up to `sequence`: then nobody need be asked.
    pub fn decided_up_to(&self, partition: PartitionId, sequence: u64) {
        let room = self.rooms().get(&partition).cloned();
        // Nothing was published for it here.
        let Some(room) = room else { return };
        room.known().window.decided_up_to(sequence, Instant::now());
        room.news.notify_one();
    }

    /// Waits until a frame of so many bytes and commands may be published for `partition`,
    /// behind those that wait already; none when nothing passes for [`ROOM_WAIT`].
    ///
    /// # Cancel safety
    ///
    /// Can be dropped: what was not let through does not count.
    pub async fn wait_for(
        &self,
        partition: PartitionId,
        bytes: usize,
        commands: u64,
    ) -> Option<Admitted> {
        let room = self.rooms().entry(partition).or_default().clone();
        let bytes = MESSAGE_BYTES.saturating_add(bytes as u64);
        if !room.pass(self.enter(partition, &room, bytes, commands)).await {
            return None;
        }
        Some(Admitted { room, bytes, commands, outcome: None })
    }

    /// Waits until the frame whose turn it is may be published.
    async fn enter(&self, partition: PartitionId, room: &Arc<Room>, bytes: u64, commands: u64) {
        let begun = Instant::now();
        let mut told = false;
        loop {
            let (entry, ask) = room.known().enter(bytes, commands, Instant::now());
            self.ask(partition, room, ask);
            match entry {
                Entry::Open => return,
                Entry::Unknown => {}
                Entry::Full => {
                    self.is_short_now();
                    if begun.elapsed() >= LOOK_INTERVAL && !std::mem::replace(&mut told, true) {
                        let percent = INTAKE_PERCENT_MAX;
                        tracing::warn!(%partition, percent, "COMMANDS is filled as far as events may; intake waits for room");
                    }
                }
                Entry::Undecided => self.is_short_now(),
            }
            let _ = timeout(WAIT_PAUSE, room.news.notified()).await;
        }
    }

    /// Nobody waits for an answer: frames go by what is known meanwhile.
    fn ask(&self, partition: PartitionId, room: &Arc<Room>, Ask { look, question }: Ask) {
        if let Some(ended) = look {
            let looking = Looking::new(room.clone(), ended);
            tokio::spawn(looking.look(self.shared.reader.clone(), partition));
        }
        if let Some(question) = question {
            let asking = Asking::new(room.clone(), question);
            // Without a turn it ends here, and has no answer.
            if let Ok(turn) = self.shared.questions.clone().try_acquire_owned() {
                tokio::spawn(asking.ask(self.shared.reader.clone(), partition, turn));
            }
        }
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<PartitionId, Arc<Room>>> {
        self.shared.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.shared.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_short_now(&self) {
        let until_ms = self.now_ms().saturating_add(SHORT_FOR.as_millis() as u64);
        self.shared.short_until_ms.fetch_max(until_ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
