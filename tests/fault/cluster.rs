//! Three servers, each with a copy of every stream; one of them is killed or stopped.

use std::time::{Duration, Instant};

use fermata_jetstream::Durability;
use fermata_tests::cluster::leader_of;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_whose_leader_is_killed_again_and_again_loses_nothing_acknowledged() {
    let ground = Ground::cluster(Durability::Process).await;
    let mut scene = Scene::set_on("leader killed", ground).await;
    let engine = scene.engine("w-a");
    let load = Load::start(scene.publisher.clone(), MIXED);
    scene.wait(500..1_000).await;

    let mut rounds = 0;
    while rounds < ROUNDS && scene.has_time_for_one_more(rounds) {
        let leader = scene.leader_of_journal(u16::try_from(rounds % 4).expect("small")).await;
        scene.ground.servers[leader].kill().await.expect("a killed server");
        scene.wait(1_000..3_000).await;
        scene.ground.servers[leader].restart().await.expect("a server that starts again");
        rounds += 1;
        scene.wait(500..1_500).await;
    }
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
