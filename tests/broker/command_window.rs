//! A flood of events: what stands in COMMANDS stays little while the partition decides, and
//! nothing waits for one that does not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fermata_actors::command_room::{STANDSTILL, WINDOW_FIRST};
use fermata_actors::listener::LISTENER_CONSUMER;
use fermata_actors::{Engine, Role};
use fermata_core::identity::PartitionId;
use fermata_core::record::Kind;
use fermata_jetstream::Durability;
use fermata_jetstream::StreamReader;
use fermata_jetstream::progress::shared_progress;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::topology::{EVENTS_STREAM, commands_stream, journal_stream};
use fermata_tests::engine::all_owned;
use fermata_tests::journal::{count, records_of_until};
use fermata_tests::{TestBroker, TestEngine, definitions, events};
use fermata_wire::commands::CommandFrame;
use fermata_wire::journal::JournalFrame;
use fermata_wire::subjects;

const LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
const ONLY: PartitionId = PartitionId(0);

const MESSAGES: u64 = 400;
const EVENTS_OF_MESSAGE: u64 = 100;
const EVENTS: u64 = MESSAGES * EVENTS_OF_MESSAGE;

/// How often what is undecided must be seen at least before the partition pauses.
const LOOKS_MIN: u32 = 5;

const WORKFLOW: &str = "
workflow: { name: one, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: one, version: '1' } }
";

fn engine(broker: &TestBroker, name: &str) -> TestEngine {
    TestEngine { partitions: 1, ..TestEngine::at(broker.url()) }.named(name)
}

async fn owner(broker: &TestBroker, name: &str) -> Engine {
    let owner = engine(broker, name).with_roles([Role::Coordinator]).start(broker.folder()).await;
    all_owned(&[&owner], 2).await;
    owner
}

async fn intake(broker: &TestBroker) -> Engine {
    let stages = [Role::Listener, Role::Matcher, Role::Builder];
    engine(broker, "intake").with_roles(stages).start(broker.folder()).await
}

/// Publishes all events, and returns the last one's sequence.
async fn flood(engine: &Engine) -> u64 {
    let mut last = 0;
    for message in 0..MESSAGES {
        let ids = (0..EVENTS_OF_MESSAGE).map(|place| message * EVENTS_OF_MESSAGE + place);
        let texts = ids.map(|id| {
            let event = events::event("demo.start", id);
            String::from_utf8(event.to_vec()).expect("JSON")
        });
        let batch = format!("[{}]", texts.collect::<Vec<_>>().join(","));
        last = events::publish_raw(&engine.ports().publisher, "demo.start", batch.into()).await;
    }
    last
}

/// Sequence of COMMANDS up to which the journal says that everything is decided.
async fn decided(reader: &StreamReader) -> u64 {
    let (stream, subject) = (journal_stream(ONLY), subjects::journal(ONLY));
    let newest = reader.last_of_subject(&stream, &subject).await.expect("a journal");
    let newest = newest.expect("a message");
    JournalFrame::decode(&newest.payload).expect("a frame").head.position.sequence
}

/// Commands by their sequences, as far as they were read.
#[derive(Default)]
struct Commands(BTreeMap<u64, usize>);

impl Commands {
    async fn read(&mut self, reader: &StreamReader) {
        let from = self.0.last_key_value().map_or(1, |(last, _)| last + 1);
        let replay = reader.replay(&commands_stream(ONLY), from, Holes::Refused).await;
        let mut replay = replay.expect("commands");
        loop {
            let batch = replay.next_batch(1_000).await.expect("commands");
            if batch.is_empty() {
                return;
            }
            for message in batch {
                let frame = CommandFrame::decode(&message.payload).expect("a frame");
                self.0.insert(message.sequence, frame.commands.len());
            }
        }
    }

    fn behind(&self, decided: u64) -> usize {
        self.0.range(decided + 1..).map(|(_, commands)| commands).sum()
    }

    fn all(&self) -> usize {
        self.behind(0)
    }
}

/// How many commands may be undecided when so many are decided: the window doubles when all that
/// it held is decided, so it is no larger than what was decided and the first one. What is on its
/// way then is not held: for that, two doublings in any case.
fn undecided_max(decided: usize) -> usize {
    let first = usize::try_from(WINDOW_FIRST).expect("a few");
    (4 * first).max(first + decided)
}

async fn every_event_is_decided_once(reader: &StreamReader) {
    let expected = usize::try_from(EVENTS).expect("a few");
    let all = |found: &[_]| count(found, Kind::RunSucceeded) >= expected;
    let found = records_of_until(reader, &[ONLY], LIMIT, all).await;
    assert_eq!(count(&found, Kind::EventStarted), expected);
    assert_eq!(count(&found, Kind::RunStarted), expected);
    assert_eq!(count(&found, Kind::RunSucceeded), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_stays_out_of_commands_while_they_are_decided() {
    let broker = TestBroker::start(Durability::Process).await;
    let owner = owner(&broker, "owner").await;
    definitions::apply_yaml(&owner, &[WORKFLOW], STRATEGIES).await;
    flood(&owner).await;

    let intake = intake(&broker).await;
    let (reader, room) = (&owner.ports().reader, &intake.ports().room);
    let (mut commands, mut was_short) = (Commands::default(), false);
    let (mut looks, mut has_paused) = (0, false);
    let begun = Instant::now();
    let (mut last, mut moved_at) = (0, begun);
    while commands.all() < usize::try_from(EVENTS).expect("a few") {
        assert!(begun.elapsed() < LIMIT, "{} commands", commands.all());
        commands.read(reader).await;
        // Asked for last, it can only make less of what was undecided.
        let up_to = decided(reader).await;
        let undecided = commands.behind(up_to);
        // All that waits passes a partition that stands still, and stays undecided for long; half
        // as long, as whoever lets it pass may have heard nothing for longer.
        has_paused |= looks > 0 && moved_at.elapsed() > STANDSTILL / 2;
        if undecided == 0 || up_to > last {
            (last, moved_at) = (up_to, Instant::now());
        }
        // What had passed it is decided.
        has_paused &= undecided > 0;
        if undecided > 0 && !has_paused {
            looks += 1;
            let most = undecided_max(commands.all() - undecided);
            assert!(undecided <= most, "{undecided} commands were undecided, not {most} at most");
        }
        was_short |= room.is_short();
        tokio::time::sleep(POLL).await;
    }

    assert!(was_short, "no event had to wait");
    println!("commands were seen to be undecided {looks} times");
    assert!(looks >= LOOKS_MIN, "only {looks} times");
    every_event_is_decided_once(reader).await;
    let rested = async {
        while room.is_short() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(LIMIT, rested).await.expect("nobody waits any more");
    intake.shut_down().await;
    owner.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_nobody_owns_holds_no_events_up_and_the_next_owner_decides_all() {
    let broker = TestBroker::start(Durability::Process).await;
    let first = owner(&broker, "first").await;
    definitions::apply_yaml(&first, &[WORKFLOW], STRATEGIES).await;
    let last = flood(&first).await;
    let intake = intake(&broker).await;
    let ports = intake.ports();
    let some = |found: &[_]| count(found, Kind::RunStarted) > 0;
    records_of_until(&ports.reader, &[ONLY], LIMIT, some).await;

    first.shut_down().await;
    let passed = async {
        loop {
            let held = shared_progress(&ports.broker, EVENTS_STREAM, LISTENER_CONSUMER).await;
            if held.is_ok_and(|held| held.acknowledged_up_to >= last) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(LIMIT, passed).await.expect("all events pass");
    let mut commands = Commands::default();
    commands.read(&ports.reader).await;
    assert!(commands.all() >= usize::try_from(EVENTS).expect("a few"));

    let second = owner(&broker, "second").await;
    every_event_is_decided_once(&ports.reader).await;
    intake.shut_down().await;
    second.shut_down().await;
}
