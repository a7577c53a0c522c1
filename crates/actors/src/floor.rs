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
    use std::collections::BTreeSet;

    use fermata_wire::stages::WaitingMark;
    use proptest::prelude::*;

    use super::*;
    use crate::lanes::is_passed;

    /// A stream, and which of its messages are acknowledged.
    struct Stream<T> {
        messages: Vec<T>,
        acknowledged: BTreeSet<usize>,
    }

    impl<T> Default for Stream<T> {
        fn default() -> Self {
            Self { messages: Vec::new(), acknowledged: BTreeSet::new() }
        }
    }

    impl<T> Stream<T> {
        fn end(&self) -> u64 {
            self.messages.len() as u64
        }

        fn floor(&self) -> u64 {
            let missing = (0..).find(|index| !self.acknowledged.contains(index));
            missing.expect("a finite set") as u64
        }

        /// Some message that is not acknowledged.
        fn held(&self, pick: usize) -> Option<usize> {
            let held = (0..self.messages.len()).filter(|index| !self.acknowledged.contains(index));
            let held = held.collect::<Vec<_>>();
            (!held.is_empty()).then(|| held[pick % held.len()])
        }
    }

    /// What a message of ADMITTED stands for.
    #[derive(Clone, Copy)]
    enum Stands {
        For(u64),
        /// Everything in WAITING up to this sequence.
        Mark(u64),
    }

    #[derive(Default)]
    struct World {
        events: Stream<u64>,
        admitted: Stream<Stands>,
        /// A work queue: whatever its lanes, each frame is acknowledged on its own.
        waiting: Stream<u64>,
        matched: Stream<u64>,
        commands: BTreeSet<u64>,
        /// Marks that processes think they hold, as they were given them: some may be paused.
        marks: Vec<(usize, WaitingMark)>,
    }

    /// How far a listener comes with an event that it spills.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Spilled {
        Stored,
        Marked,
        Acknowledged,
    }

    #[derive(Debug, Clone)]
    enum Act {
        Publish,
        /// A listener takes an event; apart, or with these stages behind it in memory.
        /// When its acknowledgement is lost, the event comes again.
        Listen {
            pick: usize,
            fused: u8,
            lost: bool,
        },
        /// A listener spills an event, or is killed on the way.
        Spill {
            pick: usize,
            until: Spilled,
        },
        /// A matcher takes from some lane.
        Drain {
            pick: usize,
            fused: bool,
        },
        /// A matcher takes a frame; a mark it keeps, or cannot read if it is an old one.
        Match {
            pick: usize,
            fused: bool,
            old: bool,
        },
        /// A process looks at what it keeps, however long after it was given it.
        Acknowledge {
            pick: usize,
        },
        Build {
            pick: usize,
        },
        Ask,
    }

    fn act() -> impl Strategy<Value = Act> {
        let until =
            prop_oneof![Just(Spilled::Stored), Just(Spilled::Marked), Just(Spilled::Acknowledged)];
        prop_oneof![
            2 => Just(Act::Publish),
            1 => (any::<usize>(), 0..3_u8, any::<bool>()).prop_map(|(pick, fused, lost)| Act::Listen {
                pick,
                fused,
                lost
            }),
            2 => (any::<usize>(), until).prop_map(|(pick, until)| Act::Spill { pick, until }),
            2 => (any::<usize>(), any::<bool>()).prop_map(|(pick, fused)| Act::Drain { pick, fused }),
            2 => (any::<usize>(), any::<bool>(), any::<bool>())
                .prop_map(|(pick, fused, old)| Act::Match { pick, fused, old }),
            2 => any::<usize>().prop_map(|pick| Act::Acknowledge { pick }),
            1 => any::<usize>().prop_map(|pick| Act::Build { pick }),
            3 => Just(Act::Ask),
        ]
    }

    impl World {
        fn answer(&self, question: Question) -> u64 {
            match question {
                Question::Acknowledged(Hold::Events) => self.events.floor(),
                Question::Acknowledged(Hold::Admitted) => self.admitted.floor(),
                Question::Acknowledged(Hold::Matched) => self.matched.floor(),
                Question::End(Hold::Events) => self.events.end(),
                Question::End(Hold::Admitted) => self.admitted.end(),
                Question::End(Hold::Matched) => self.matched.end(),
            }
        }

        fn act(&mut self, act: &Act) {
            match *act {
                Act::Publish => self.events.messages.push(self.events.end() + 1),
                Act::Listen { pick, fused, lost } => {
                    let Some(index) = self.events.held(pick) else { return };
                    let position = self.events.messages[index];
                    match fused {
                        0 => self.admitted.messages.push(Stands::For(position)),
                        1 => self.matched.messages.push(position),
                        _ => drop(self.commands.insert(position)),
                    }
                    if !lost {
                        self.events.acknowledged.insert(index);
                    }
                }
                Act::Spill { pick, until } => {
                    let Some(index) = self.events.held(pick) else { return };
                    self.waiting.messages.push(self.events.messages[index]);
                    if until >= Spilled::Marked {
                        self.admitted.messages.push(Stands::Mark(self.waiting.end()));
                    }
                    if until >= Spilled::Acknowledged {
                        self.events.acknowledged.insert(index);
                    }
                }
                Act::Drain { pick, fused } => {
                    let Some(index) = self.waiting.held(pick) else { return };
                    self.pass(self.waiting.messages[index], fused);
                    self.waiting.acknowledged.insert(index);
                }
                Act::Match { pick, fused, old } => {
                    let Some(index) = self.admitted.held(pick) else { return };
                    match self.admitted.messages[index] {
                        Stands::For(position) => {
                            self.pass(position, fused);
                            self.admitted.acknowledged.insert(index);
                        }
                        Stands::Mark(_) if old => {}
                        Stands::Mark(up_to) => self.marks.push((index, WaitingMark { up_to })),
                    }
                }
                Act::Acknowledge { pick } => {
                    let Some((index, mark)) = self.marks.get(pick % self.marks.len().max(1)) else {
                        return;
                    };
                    // As the first sequence that is left tells it.
                    if is_passed(*mark, self.waiting.floor()) {
                        self.admitted.acknowledged.insert(*index);
                    }
                }
                Act::Build { pick } => {
                    let Some(index) = self.matched.held(pick) else { return };
                    self.commands.insert(self.matched.messages[index]);
                    self.matched.acknowledged.insert(index);
                }
                Act::Ask => {}
            }
        }

        fn pass(&mut self, position: u64, fused: bool) {
            match fused {
                true => drop(self.commands.insert(position)),
                false => self.matched.messages.push(position),
            }
        }
    }

    proptest! {
        #[test]
        fn every_event_up_to_the_floor_has_its_command(acts in prop::collection::vec(act(), 0..200)) {
            let mut world = World::default();
            let mut look = Look::default();
            for act in acts {
                world.act(&act);
                if matches!(act, Act::Ask)
                    && let Progress::Told(floor) = look.answered(Some(world.answer(look.asks())))
                {
                    for position in 1..=floor {
                        prop_assert!(world.commands.contains(&position), "{position} of {floor}");
                    }
                }
            }
        }

        #[test]
        fn steady_traffic_does_not_starve_the_floor(rounds in 10..50_usize) {
            let mut world = World::default();
            let mut look = Look::default();
            let mut told = 0;
            // Each round more comes in than has left, and one message of each hop is done.
            for _ in 0..rounds {
                for act in [
                    Act::Publish,
                    Act::Listen { pick: 0, fused: 0, lost: false },
                    Act::Match { pick: 0, fused: false, old: false },
                    Act::Publish,
                    Act::Listen { pick: 0, fused: 0, lost: false },
                    Act::Build { pick: 0 },
                ] {
                    world.act(&act);
                }
                if let Progress::Told(floor) = look.answered(Some(world.answer(look.asks()))) {
                    told = floor;
                }
            }
            prop_assert!(told > 0);
        }
    }

    #[test]
    fn what_waits_in_lanes_holds_the_floor_until_it_is_drained() {
        let mut world = World::default();
        let mut look = Look::default();
        world.act(&Act::Publish);
        world.act(&Act::Spill { pick: 0, until: Spilled::Acknowledged });
        world.act(&Act::Match { pick: 0, fused: true, old: false });
        let mut ask = |world: &World| look.answered(Some(world.answer(look.asks())));
        assert_eq!((ask(&world), ask(&world)), (Progress::Ask, Progress::Ask));

        world.act(&Act::Acknowledge { pick: 0 });
        assert_eq!(ask(&world), Progress::Wait);
        world.act(&Act::Drain { pick: 0, fused: true });
        assert_eq!(ask(&world), Progress::Wait, "the mark is still there");
        world.act(&Act::Acknowledge { pick: 0 });

        assert_eq!((ask(&world), ask(&world)), (Progress::Ask, Progress::Told(1)));
    }

    #[test]
    fn what_nobody_answers_is_asked_again() {
        let mut look = Look::default();
        assert_eq!(look.answered(Some(7)), Progress::Ask);

        for _ in 0..3 {
            assert_eq!(look.answered(None), Progress::Wait);
            assert_eq!(look.asks(), Question::End(Hold::Admitted));
        }
        look.begin_anew();

        assert_eq!(look.asks(), Question::Acknowledged(Hold::Events));
    }
}
