//! Three servers, each with a copy of every stream; one of them is killed or stopped.

use std::time::{Duration, Instant};

use fermata_jetstream::topology::journal_stream;
use fermata_jetstream::{Broker, Durability, StreamReader};
use fermata_tests::cluster::{ask, leader_of};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::ground::Ground;
use crate::load::{Load, MIXED};
use crate::scene::Scene;

/// How long a stream may be without a leader: the servers elect one within 9 s after the last sign
/// of the old one, and a client may have to find another server first.
const ELECTION_LIMIT: Duration = Duration::from_secs(30);

/// How long publishers and owners may wait at the longest when one of three servers is gone. An
/// append that was not answered is sent again after 5 s, and may meet another election then.
const PAUSE_LIMIT: Duration = Duration::from_secs(40);

/// How long a stopped server stands still.
const STOPPED_FOR: Duration = Duration::from_secs(8);

const ROUNDS: u32 = 6;

impl Scene {
    /// Which server leads the journal of a partition.
    pub async fn leader_of_journal(&self, partition: u16) -> usize {
        let begun = Instant::now();
        loop {
            if let Some(leader) = leader_of(&self.broker, &format!("JOURNAL_{partition}")).await {
                return self.ground.index_of(&leader);
            }
            assert!(begun.elapsed() < ELECTION_LIMIT, "journal {partition} has no leader");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Asks where `stream` ends until it is told to stop: never before `last`, whoever answers. How often
/// somebody answered who named no leader.
async fn ends_never_before(
    broker: Broker,
    stream: String,
    last: u64,
    mut stop: oneshot::Receiver<()>,
) -> u32 {
    let (reader, mut leaderless) = (StreamReader::new(&broker), 0);
    while stop.try_recv().is_err() {
        let info = ask(&broker, &format!("STREAM.INFO.{stream}"), &Value::Null).await;
        let names_no_leader = |info: &Value| {
            info["error"].is_null() && info["cluster"]["leader"].as_str().is_none_or(str::is_empty)
        };
        leaderless += u32::from(info.as_ref().is_some_and(names_no_leader));
        if let Ok(state) = reader.stream_state(&stream).await {
            assert!(state.last_sequence >= last, "{stream} ends at {state:?}, and had {last}");
        }
    }
    leaderless
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_whose_leader_is_killed_again_and_again_loses_nothing_acknowledged() {
    let ground = Ground::cluster(Durability::Process).await;
    let mut scene = Scene::set_on("leader killed", ground).await;
    let engine = scene.engine("w-a");
    let load = Load::start(scene.publisher.clone(), MIXED);
    scene.wait(500..1_000).await;

    let (mut rounds, mut leaderless) = (0, 0);
    while rounds < ROUNDS && scene.has_time_for_one_more(rounds) {
        let partition = u16::try_from(rounds % 4).expect("small");
        let leader = scene.leader_of_journal(partition).await;
        let stream = journal_stream(partition);
        let state = StreamReader::new(&scene.broker).stream_state(&stream).await;
        let last = state.expect("a leader").last_sequence;
        let (stop, stopped) = oneshot::channel();
        let asking = tokio::spawn(ends_never_before(scene.broker.clone(), stream, last, stopped));
        scene.ground.servers[leader].kill().await.expect("a killed server");
        scene.wait(1_000..3_000).await;
        stop.send(()).expect("somebody who asks");
        leaderless += asking.await.expect("a stream that ends where it did");
        scene.ground.servers[leader].restart().await.expect("a server that starts again");
        rounds += 1;
        scene.wait(500..1_500).await;
    }
    println!("{leaderless} answers for a journal without a leader, and none of them believed");
    let published = load.stop().await;

    assert!(published.longest_pause < PAUSE_LIMIT, "{:?}", published.longest_pause);
    let healed = scene.heal_and_check(&published, rounds).await;
    assert!(healed.journal_pause < PAUSE_LIMIT, "{:?}", healed.journal_pause);
    engine.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stands_still_for_eight_seconds_doubles_nothing_when_it_goes_on() {
    let ground = Ground::cluster(Durability::Process).await;
    let mut scene = Scene::set_on("leader stopped", ground).await;
    let engine = scene.engine("w-a");
    let load = Load::start(scene.publisher.clone(), MIXED);
    scene.wait(500..1_000).await;

    let mut rounds = 0;
    while rounds < ROUNDS && scene.has_time_for_one_more(rounds) {
        let leader = scene.leader_of_journal(u16::try_from(rounds % 4).expect("small")).await;
        scene.ground.pause(leader);
        tokio::time::sleep(STOPPED_FOR).await;
        scene.ground.resume(leader);
        rounds += 1;
        scene.wait(500..1_500).await;
    }
    let published = load.stop().await;

    assert!(published.longest_pause < PAUSE_LIMIT, "{:?}", published.longest_pause);
    let healed = scene.heal_and_check(&published, rounds).await;
    assert!(healed.journal_pause < PAUSE_LIMIT, "{:?}", healed.journal_pause);
    engine.kill().await;
}
