//! COMMANDS that fill up: events are held back early enough that everything else still fits.

use std::time::{Duration, Instant};

use fermata_actors::Role;
use fermata_actors::command_room::{INTAKE_PERCENT_MAX, LOOK_INTERVAL};
use fermata_actors::listener::LISTENER_CONSUMER;
use fermata_core::command::{CancelCommand, Command};
use fermata_core::identity::{PartitionId, RunId, SourcePosition};
use fermata_core::record::Kind;
use fermata_jetstream::progress::shared_progress;
use fermata_jetstream::purge::room_of;
use fermata_jetstream::topology::{EVENTS_STREAM, commands_stream};
use fermata_jetstream::{Broker, Durability, PublishOutcome};
use fermata_partition::snapshot::SnapshotPolicy;
use fermata_tests::engine::all_owned;
use fermata_tests::journal::{count, records_of_until};
use fermata_tests::{TestBroker, TestEngine, definitions, events};
use fermata_wire::commands::CommandFrame;
use fermata_wire::subjects;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(90);
const ONLY: PartitionId = PartitionId(0);

/// What COMMANDS may hold here: much less than comes of all events.
const ROOM_BYTES: u64 = 256 * 1024;
const EVENTS: u64 = 2_000;

const WORKFLOW: &str = "
workflow: { name: one, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: one, version: '1' } }
";

async fn with_room(broker: &TestBroker, bytes: u64) {
    let client = async_nats::connect(broker.url()).await.expect("a connection");
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream.get_stream(commands_stream(ONLY)).await.expect("a stream");
    let config = stream.cached_info().config.clone();
    let max_bytes = i64::try_from(bytes).expect("a size");
    let config = async_nats::jetstream::stream::Config { max_bytes, ..config };
    jetstream.update_stream(config).await.expect("a stream with other room");
}

async fn filled_percent(broker: &Broker) -> u64 {
    let room = room_of(broker, &commands_stream(ONLY)).await.expect("a stream");
    room.bytes * 100 / room.max_bytes
}

/// A command of somebody who is no event.
fn cancel(number: u128) -> Command {
    let tenant = events::TENANT.parse().expect("a tenant");
    let source = SourcePosition { sequence: 1, index: 0 };
    let run = RunId::new(ONLY, &tenant, number, source, "start", None);
    let reason = "it is not wanted any more".repeat(8);
    let id = Uuid::from_u128(number);
    Command::Cancel(CancelCommand { id, run, by: "me".to_owned(), reason, reply_to: None })
}

#[tokio::test(flavor = "multi_thread")]
async fn events_leave_room_in_commands_for_everything_else_and_none_is_lost() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = || TestEngine { partitions: 1, ..TestEngine::at(broker.url()) };
    let first = engine().start(broker.folder()).await;
    all_owned(&[&first], 2).await;
    definitions::apply_yaml(&first, &[WORKFLOW], STRATEGIES).await;
    first.shut_down().await;
    with_room(&broker, ROOM_BYTES).await;

    // Nobody decides: what comes of events stays in COMMANDS.
    let stages = [Role::Listener, Role::Matcher, Role::Builder];
    let intake = engine().named("intake").with_roles(stages).start(broker.folder()).await;
    let ports = intake.ports();
    let mut last = 0;
    for id in 0..EVENTS {
        last = events::publish(&ports.publisher, "demo.start", id).await;
    }
    let filled = async {
        while filled_percent(&ports.broker).await < INTAKE_PERCENT_MAX / 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, filled).await.expect("COMMANDS fills");
    let begun = Instant::now();
    while begun.elapsed() < LOOK_INTERVAL * 3 {
        let percent = filled_percent(&ports.broker).await;
        assert!(percent <= INTAKE_PERCENT_MAX, "events fill {percent} % of it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let held = shared_progress(&ports.broker, EVENTS_STREAM, LISTENER_CONSUMER).await;
    let acknowledged = held.expect("a consumer").acknowledged_up_to;
    assert!(acknowledged < last, "everything is acknowledged, and stands nowhere");
    for number in 0..40 {
        let frame = CommandFrame { floor: 0, commands: vec![cancel(number)] };
        let bytes = frame.encode().expect("a frame").into();
        let outcome = ports.publisher.publish(subjects::commands(ONLY), None, bytes).await.await;
        assert!(matches!(outcome, PublishOutcome::Stored { .. }), "{outcome:?}");
    }

    let often = SnapshotPolicy {
        records_max: 200,
        interval_ms: 500,
        rest_ms: 100,
        segment_bytes: 10_000,
        ..SnapshotPolicy::default()
    };
    let owner = engine().named("owner").with_roles([Role::Coordinator]).with_snapshots(often);
    let owner = owner.start(broker.folder()).await;
    let expected = usize::try_from(EVENTS).expect("a few");
    let all = |found: &[_]| count(found, Kind::RunSucceeded) >= expected;
    let found = records_of_until(&owner.ports().reader, &[ONLY], LIMIT, all).await;
    assert_eq!(count(&found, Kind::RunStarted), expected);
    assert_eq!(count(&found, Kind::RunSucceeded), expected);
    intake.shut_down().await;
    owner.shut_down().await;
}
