//! The long fault tests against a real broker: engines in processes of their own
//! are killed and paused, the broker is killed, everything is littered with
//! garbage, the plugin misbehaves throughout; and nothing accepted is lost. The
//! same with three servers, of which one is killed, stopped, cut off or without
//! power, and with a disk that is full, bits that flip, lines that carry one way
//! only, and clocks that are set; and some of all that at once.
//!
//! Some need rights that not every machine gives; where they are missing a test
//! is not run and says so (`fermata_tests::rights`).
//!
//! `FAULT_SEED` repeats the choices of a run, `FAULT_SECONDS` bounds the rounds
//! of all tests together; healing and checking come on top.

#[path = "fault/bit_flip.rs"]
mod bit_flip;
#[path = "fault/bounds.rs"]
mod bounds;
#[path = "fault/cancels.rs"]
mod cancels;
#[path = "fault/clock.rs"]
mod clock;
#[path = "fault/cluster.rs"]
mod cluster;
#[path = "fault/disk.rs"]
mod disk;
#[path = "fault/disturbances.rs"]
mod disturbances;
#[path = "fault/faults.rs"]
mod faults;
#[path = "fault/ground.rs"]
mod ground;
#[path = "fault/load.rs"]
mod load;
#[path = "fault/matching.rs"]
mod matching;
#[path = "fault/mix.rs"]
mod mix;
#[path = "fault/one_way.rs"]
mod one_way;
#[path = "fault/partition.rs"]
mod partition;
#[path = "fault/power.rs"]
mod power;
#[path = "fault/process.rs"]
mod process;
#[path = "fault/rights.rs"]
mod rights;
#[path = "fault/scene.rs"]
mod scene;
#[path = "fault/targets.rs"]
mod targets;
#[path = "fault/workers.rs"]
mod workers;

use std::time::{Duration, Instant};

use fermata_actors::lease_keeper::RENEW_INTERVAL;
use fermata_core::record::Kind;
use fermata_jetstream::PublishOutcome;
use fermata_jetstream::topology::LEASE_TTL;
use fermata_tests::garbage;
use fermata_wire::MessageKind;
use fermata_wire::commands::CommandFrame;
use rand::RngExt as _;

use disturbances::{is_of_commands, littered};
use load::{CALLS, Load, MIXED, WIDE};
use scene::Scene;

/// Kills of an engine unless `FAULT_KILLS` says otherwise.
const ENGINE_KILLS: u32 = 20;
const BROKER_KILLS: u32 = 10;
const GARBAGE_ROUNDS: u32 = 30;

/// How long a worker may stand on a busy machine before it renews a lease that is due.
const RENEWED_LATE_MAX: Duration = Duration::from_secs(5);

/// How long the lease of a worker that is stopped holds at the least. Whoever took over without
/// waiting for that would need a second or two.
const LEASE_LEFT_MIN: Duration =
    LEASE_TTL.saturating_sub(RENEW_INTERVAL).saturating_sub(RENEWED_LATE_MAX);

impl Scene {
    async fn wait(&mut self, milliseconds: std::ops::Range<u64>) {
        let milliseconds = self.dice.random_range(milliseconds);
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_again_and_again_loses_and_repeats_nothing() {
    let mut scene = Scene::set("engine killed").await;
    let load = Load::start(scene.publisher.clone(), WIDE);

    let kills = std::env::var("FAULT_KILLS").ok();
    let kills = kills.map_or(ENGINE_KILLS, |kills| kills.parse().expect("a number of kills"));
    let mut rounds = 0;
    while rounds < kills && scene.has_time(rounds) {
        let engine = scene.engine("w-a");
        scene.wait(300..1_500).await;
        engine.kill().await;
        rounds += 1;
    }
    let engine = scene.engine("w-a");
    scene.wait(500..1_000).await;
    let published = load.stop().await;

    scene.heal_and_check(&published, rounds).await;
    engine.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_again_and_again_loses_nothing_acknowledged() {
    let mut scene = Scene::set("broker killed").await;
    let engine = scene.engine("w-a");
    let load = Load::start(scene.publisher.clone(), WIDE);

    let mut rounds = 0;
    while rounds < BROKER_KILLS && scene.has_time(rounds) {
        scene.wait(500..2_500).await;
        scene.ground.servers[0].kill().await.expect("a killed broker");
        scene.wait(0..500).await;
        scene.ground.servers[0].restart().await.expect("a broker that starts again");
        rounds += 1;
    }
    scene.wait(500..1_000).await;
    let published = load.stop().await;

    scene.heal_and_check(&published, rounds).await;
    engine.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_sleeps_past_its_lease_stands_down_when_it_wakes() {
    let mut scene = Scene::set("owner paused").await;
    let limit = LEASE_TTL * 3;
    let one = scene.engine("w-a");
    let mut watches = scene.watches();
    let load = Load::start(scene.publisher.clone(), MIXED);
    scene.wait(1_000..2_000).await;
    let two = scene.engine("w-b");
    let begun = Instant::now();
    while !scene.owners(&mut watches).await.iter().any(|owner| owner == "w-b") {
        assert!(begun.elapsed() < limit, "the second worker gets no partition");
        scene.wait(100..200).await;
    }
    scene.wait(500..1_500).await;
    let before = scene.owners(&mut watches).await;
    assert!(before.iter().any(|owner| owner == "w-a"), "{before:?}");

    one.pause();
    let begun = Instant::now();
    while !scene.owners(&mut watches).await.iter().all(|owner| owner == "w-b") {
        assert!(begun.elapsed() < limit, "not all is taken over: {before:?}");
        scene.wait(100..200).await;
    }
    assert!(begun.elapsed() > LEASE_LEFT_MIN, "a living owner was pre-empted");
    // The new owner appends more than its takeover.
    let frames = |watches: &[fermata_tests::journal::JournalWatch]| {
        watches.iter().map(|watch| watch.messages.len()).sum::<usize>()
    };
    let (taken_over, begun) = (frames(&watches), Instant::now());
    while frames(&watches) < taken_over + 20 {
        assert!(begun.elapsed() < limit, "the new owner does not go on");
        let _ = scene.owners(&mut watches).await;
        scene.wait(50..100).await;
    }
    let taken_over = scene.owners(&mut watches).await;
    one.resume();
    // Longer than renewing a lease takes: what it takes back it was given back.
    tokio::time::sleep(LEASE_TTL / 3 + Duration::from_secs(3)).await;
    let published = load.stop().await;

    assert!(taken_over.iter().all(|owner| owner == "w-b"), "{taken_over:?}");
    scene.heal_and_check(&published, 1).await;
    one.kill().await;
    two.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_under_load_stops_nothing() {
    let mut scene = Scene::set("garbage").await;
    let mut engine = scene.engine("w-a");
    let load = Load::start(scene.publisher.clone(), MIXED);

    let sound = CommandFrame { floor: 0, commands: Vec::new() }.encode().expect("a frame");
    let (mut rounds, mut commands) = (0, 0);
    while rounds < GARBAGE_ROUNDS && scene.has_time(rounds) {
        let messages = garbage::messages(MessageKind::Commands, &sound, scene.dice.random());
        for subject in littered() {
            commands += usize::from(is_of_commands(&subject));
            litter(&mut scene, subject, &messages).await;
        }
        rounds += 1;
        scene.wait(100..400).await;
        // Who comes next reads over all of it.
        if rounds % 10 == 0 {
            engine.kill().await;
            engine = scene.engine("w-a");
        }
    }
    let published = load.stop().await;

    scene.heal_and_check(&published, rounds).await;
    let mut watches = scene.watches();
    let _ = scene.owners(&mut watches).await;
    let poisoned = watches
        .iter()
        .map(|watch| fermata_tests::journal::count(&watch.records, Kind::CommandPoisoned));
    assert_eq!(poisoned.sum::<usize>(), commands);
    engine.kill().await;
}

/// Publishes one of the messages, whichever the dice say.
async fn litter(scene: &mut Scene, subject: String, messages: &[(&'static str, bytes::Bytes)]) {
    let (_, bytes) = &messages[scene.dice.random_range(0..messages.len())];
    let outcome = scene.publisher.publish(subject.clone(), None, bytes.clone()).await.await;
    assert!(matches!(outcome, PublishOutcome::Stored { .. }), "{subject}: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_hangs_and_hides_what_it_did_is_asked_until_it_answers() {
    let mut scene = Scene::set("plugin").await;
    let engine = scene.engine("w-a");
    let load = Load::start(scene.publisher.clone(), CALLS);
    scene.wait(5_000..6_000).await;
    let published = load.stop().await;

    scene.heal_and_check(&published, 1).await;
    let effects = scene.sink.effects();
    // Each call broke its first connection at least; some more than that.
    let (asked_once, repeated): (Vec<_>, Vec<_>) =
        effects.iter().partition(|(_, effect)| effect.attempts.len() == 1);
    assert!(asked_once.iter().all(|(key, _)| !key.contains("/right/")), "{asked_once:?}");
    assert!(repeated.len() > effects.len() / 2, "{} of {}", repeated.len(), effects.len());
    engine.kill().await;
}
