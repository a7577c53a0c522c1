//! Workers join and leave while events come.

use std::time::{Duration, Instant};

use fermata_actors::lease_keeper::preferred;
use fermata_core::identity::PartitionId;
use fermata_jetstream::topology::LEASE_TTL;
use fermata_tests::journal::JournalWatch;

use crate::load::{Load, MIXED};
use crate::scene::{PARTITIONS, Scene};

/// How long partitions may take to find their owners: the lease of one that was killed runs out
/// first; the rest is for a loaded machine.
const BALANCE_LIMIT: Duration = Duration::from_secs(LEASE_TTL.as_secs() * 4);

const ROUNDS: u32 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_join_and_leave_under_load_lose_and_double_nothing() {
    let mut scene = Scene::set("workers join and leave").await;
    let mut watches = scene.watches();
    let [a, b] = ["w-a", "w-b"].map(|worker| scene.engine(worker));
    let load = Load::start(scene.publisher.clone(), MIXED);
    balance(&scene, &mut watches, &["w-a", "w-b"], "two start").await;

    let (mut rounds, mut b) = (0, Some(b));
    while rounds < ROUNDS && scene.has_time_for_one_more(rounds) {
        let two = b.take().unwrap_or_else(|| scene.engine("w-b"));
        let [c, d] = ["w-c", "w-d"].map(|worker| scene.engine(worker));
        balance(&scene, &mut watches, &["w-a", "w-b", "w-c", "w-d"], "two join two").await;
        scene.wait(200..1_000).await;
        c.leave().await;
        balance(&scene, &mut watches, &["w-a", "w-b", "w-d"], "one of four leaves").await;
        two.kill().await;
        d.leave().await;
        balance(&scene, &mut watches, &["w-a"], "one of three is killed, one leaves").await;
        rounds += 1;
        scene.wait(200..1_000).await;
    }
    let published = load.stop().await;

    scene.heal_and_check(&published, rounds).await;
    a.kill().await;
}

/// Waits until every partition is owned by the worker that should own it.
pub async fn balance(scene: &Scene, watches: &mut [JournalWatch], workers: &[&str], what: &str) {
    let workers = workers.iter().map(|&worker| worker.to_owned()).collect::<Vec<_>>();
    let partitions = (0..PARTITIONS).map(PartitionId).chain([PartitionId::CONTROL]);
    let wanted = partitions.map(|partition| preferred(&workers, partition).unwrap_or_default());
    let wanted = wanted.collect::<Vec<_>>();
    let begun = Instant::now();
    loop {
        let owners = scene.owners(watches).await;
        if owners == wanted {
            let seconds = begun.elapsed().as_secs_f64();
            let name = scene.name;
            return println!("fault: {name}: {what}: balanced after {seconds:.1} s");
        }
        assert!(begun.elapsed() < BALANCE_LIMIT, "{what}: {owners:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
