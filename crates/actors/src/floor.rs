//! The floor of events: up to where everything in EVENTS has its command in a
//! partition's COMMANDS.
//!
//! A partition absorbs a command at or below the floor as a redelivery, so a
//! floor that is too high loses events. That EVENTS is acknowledged up to *F*
//! is not enough: a listener that runs apart acknowledges when its frame is in
//! ADMITTED. So the floor follows the events through the streams, in this order:
//!
//! 1. read *F*, up to where the listeners' consumer is acknowledged;
//! 2. then read *A*, the last sequence of ADMITTED: whatever a listener made of
//!    events up to *F* was stored before it acknowledged them, so it is a command,
//!    or a frame at or below *A*;
//! 3. wait until the matchers' consumer is acknowledged up to *A*: those frames
//!    have become commands, or frames in MATCHED;
//! 4. then read *M*, the last sequence of MATCHED: those frames are at or below it;
//! 5. wait until the builders' consumer is acknowledged up to *M*.
//!
//! What waits in lanes is behind marks in ADMITTED, which count as its frames: one is acknowledged
//! only after everything that it stands for is (`lanes.rs`).
//!
//! Now a command for each event up to *F* is stored, whichever process had it, and
//! a frame that is published from here on stands behind them. Waiting for a fixed
//! *A* and *M*, instead of looking anew each time, ends under steady traffic too.
//! Acknowledgements that are read late only make the floor lower. An end that is
//! read too low would make it too high, so all of it is read over one connection
//! that was not interrupted; see `docs/adr/0019-floor-of-events.md`.

#[cfg(test)]
mod laws;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fermata_jetstream::progress::{end_of, shared_progress};
use fermata_jetstream::topology::{ADMITTED_STREAM, EVENTS_STREAM, MATCHED_STREAM};

use crate::builder::BUILDER_CONSUMER;
use crate::listener::LISTENER_CONSUMER;
use crate::matcher::MATCHER_CONSUMER;
use crate::ports::Ports;

/// How often the broker is asked how far the events have come.
pub const FLOOR_INTERVAL: Duration = Duration::from_secs(1);

/// The floor as one process knows it: it never falls, and is 0 at first.
#[derive(Debug, Clone, Default)]
pub struct Floor(Arc<AtomicU64>);

impl Floor {
    /// Sequence of EVENTS up to which every event has its command. What a frame
    /// says must be read before the frame is published.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The floor as soon as one is known; nothing if none is within `limit`.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub(crate) async fn known_within(&self, limit: Duration) -> Option<u64> {
        let known = async {
            while self.get() == 0 {
                tokio::time::sleep(FLOOR_INTERVAL).await;
            }
            self.get()
        };
        tokio::time::timeout(limit, known).await.ok()
    }

    /// Keeps it up to date, until dropped.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn follow(self, ports: Ports) {
        let mut look = Look::default();
        let mut interruptions = ports.broker.interruptions();
        loop {
            tokio::time::sleep(FLOOR_INTERVAL).await;
            loop {
                let answer = read(&ports, look.asks()).await;
                let now = ports.broker.interruptions();
                if now != interruptions {
                    interruptions = now;
                    look.begin_anew();
                    break;
                }
                match look.answered(answer) {
                    Progress::Ask => {}
                    Progress::Wait => break,
                    Progress::Told(floor) => {
                        self.0.fetch_max(floor, Ordering::Relaxed);
                        break;
                    }
                }
            }
        }
    }
}

/// What is asked of the broker next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// Up to where a stream's consumer is acknowledged.
    Acknowledged(Hold),
    /// The last sequence of a stream; 0 when it holds nothing.
    End(Hold),
}

/// Where events can be before they are commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Events,
    Admitted,
    Matched,
}

/// What to do after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Ask on at once.
    Ask,
    /// Ask again later.
    Wait,
    /// This is the floor.
    Told(u64),
}

/// One look along the way of the events; see the head of this file.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    told: u64,
    step: Step,
}

#[derive(Debug, Clone, Copy, Default)]
enum Step {
    #[default]
    Events,
    AdmittedEnd {
        floor: u64,
    },
    Admitted {
        floor: u64,
        end: u64,
    },
    MatchedEnd {
        floor: u64,
    },
    Matched {
        floor: u64,
        end: u64,
    },
}

impl Look {
    fn asks(&self) -> Question {
        match self.step {
            Step::Events => Question::Acknowledged(Hold::Events),
            Step::AdmittedEnd { .. } => Question::End(Hold::Admitted),
            Step::Admitted { .. } => Question::Acknowledged(Hold::Admitted),
            Step::MatchedEnd { .. } => Question::End(Hold::Matched),
            Step::Matched { .. } => Question::Acknowledged(Hold::Matched),
        }
    }

    /// Takes the answer to what was asked; nothing when there was none.
    fn answered(&mut self, answer: Option<u64>) -> Progress {
        let Some(sequence) = answer else { return Progress::Wait };
        self.step = match self.step {
            Step::Events if sequence > self.told => Step::AdmittedEnd { floor: sequence },
            Step::AdmittedEnd { floor } if sequence > 0 => Step::Admitted { floor, end: sequence },
            Step::AdmittedEnd { floor } => Step::MatchedEnd { floor },
            Step::Admitted { floor, end } if sequence >= end => Step::MatchedEnd { floor },
            Step::MatchedEnd { floor } if sequence > 0 => Step::Matched { floor, end: sequence },
            Step::MatchedEnd { floor } => return self.tell(floor),
            Step::Matched { floor, end } if sequence >= end => return self.tell(floor),
            Step::Events | Step::Admitted { .. } | Step::Matched { .. } => return Progress::Wait,
        };
        Progress::Ask
    }

    fn tell(&mut self, floor: u64) -> Progress {
        *self = Self { told: floor, step: Step::Events };
        Progress::Told(floor)
    }

    fn begin_anew(&mut self) {
        self.step = Step::Events;
    }
}

async fn read(ports: &Ports, question: Question) -> Option<u64> {
    let answer = match question {
        Question::Acknowledged(hold) => {
            let (stream, consumer) = (hold.stream(), hold.consumer());
            shared_progress(&ports.broker, stream, consumer)
                .await
                .map(|progress| progress.acknowledged_up_to)
                .map_err(|error| error.to_string())
        }
        Question::End(hold) => {
            end_of(&ports.broker, hold.stream()).await.map_err(|error| error.to_string())
        }
    };
    // A consumer that nobody made yet is no fault either: nobody took what is there.
    answer.inspect_err(|error| tracing::debug!(?question, error, "the floor is not known")).ok()
}

impl Hold {
    fn stream(self) -> &'static str {
        match self {
            Self::Events => EVENTS_STREAM,
            Self::Admitted => ADMITTED_STREAM,
            Self::Matched => MATCHED_STREAM,
        }
    }

    fn consumer(self) -> &'static str {
        match self {
            Self::Events => LISTENER_CONSUMER,
            Self::Admitted => MATCHER_CONSUMER,
            Self::Matched => BUILDER_CONSUMER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn the_first_floor_is_waited_for() {
        let floor = Floor::default();
        let follower = floor.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LIMIT / 2).await;
            follower.0.store(7, Ordering::Relaxed);
        });

        assert_eq!(floor.known_within(LIMIT).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_floor_that_nobody_tells_is_not_waited_for_longer_than_its_limit() {
        let begun = tokio::time::Instant::now();

        assert_eq!(Floor::default().known_within(LIMIT).await, None);
        assert_eq!(begun.elapsed(), LIMIT);
    }
}
