//! The floor over a model of the stages, fused and apart, and of lanes.

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
