//! The power of servers is cut: what they did not sync is gone.

use std::time::{Duration, Instant};

use fermata_jetstream::Durability;
use fermata_jetstream::server::{Placement, cluster_ready, loopback_places};
use fermata_tests::disks::LoopDisk;
use fermata_tests::rights::{loop_mounts, not_run};
use fermata_tests::snapshots::Snapshots;

use crate::ground::{Ground, SERVERS};
use crate::load::{Load, MIXED};
use crate::process::log_of;
use crate::scene::{PARTITIONS, Scene};

const ROUNDS: u32 = 6;

/// How long an engine may take to notice that its broker lost what it had acknowledged.
const NOTICE_LIMIT: Duration = Duration::from_secs(60);

/// How the log names what is beyond repair.
const HALTED: &str = "the partition is halted";

/// Puts a server's streams onto a disk.
fn on(disk: &LoopDisk, place: Placement) -> Placement {
    let store_dir = Some(disk.path().join("streams"));
    Placement { store_dir, ..place }
}

/// Cuts the power of these servers at one moment, and starts them again.
async fn cut_power(ground: &mut Ground, disks: &[LoopDisk], servers: &[usize]) {
    // What stands still acknowledges nothing between the cut of its disk and its own end.
    servers.iter().for_each(|server| ground.pause(*server));
    servers.iter().for_each(|server| disks[*server].cut());
    for server in servers {
        ground.servers[*server].kill().await.expect("a killed server");
        disks[*server].replace();
    }
    for server in servers {
        ground.servers[*server].restart().await.expect("a server that starts again");
    }
    cluster_ready(&ground.servers).await.expect("servers that answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_of_the_only_server_loses_nothing_acknowledged_where_all_is_synced() {
    const NAME: &str = "a power cut of the only server loses nothing acknowledged";
    if let Err(reason) = loop_mounts() {
        return not_run(NAME, &reason);
    }
    let disks = [LoopDisk::new()];
    let ground = Ground::alone_at(Durability::Power, on(&disks[0], Placement::default())).await;
    let mut scene = Scene::set_on("power cut of one server", ground).await;
    let engine = scene.engine("w-a");
    let load = Load::start(scene.publisher.clone(), MIXED);

    let mut rounds = 0;
    while rounds < ROUNDS && scene.has_time_for_one_more(rounds) {
        scene.wait(1_000..2_500).await;
        cut_power(&mut scene.ground, &disks, &[0]).await;
        rounds += 1;
    }
    scene.wait(500..1_000).await;
    let published = load.stop().await;

    scene.heal_and_check(&published, rounds).await;
    engine.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_of_one_and_of_all_of_three_servers_loses_nothing_where_all_is_synced() {
    const NAME: &str = "a power cut of one and of all of three servers loses nothing acknowledged";
    if let Err(reason) = loop_mounts() {
        return not_run(NAME, &reason);
    }
    let disks = (0..SERVERS).map(|_| LoopDisk::new()).collect::<Vec<_>>();
    let places = loopback_places(SERVERS).expect("free ports").into_iter();
    let places = places.zip(&disks).map(|(place, disk)| on(disk, place)).collect();
    let ground = Ground::cluster_at(Durability::Power, places).await;
    let mut scene = Scene::set_on("power cut of three servers", ground).await;
    let engine = scene.engine("w-a");
    let load = Load::start(scene.publisher.clone(), MIXED);

    let mut rounds = 0;
    while rounds < 2 || rounds < ROUNDS && scene.has_time_for_one_more(rounds) {
        scene.wait(1_000..2_500).await;
        let leader = scene.leader_of_journal(0).await;
        let all = [0, 1, 2];
        let without_power = if rounds % 2 == 0 { &all[leader..=leader] } else { &all };
        cut_power(&mut scene.ground, &disks, without_power).await;
        rounds += 1;
    }
    scene.wait(500..1_000).await;
    let published = load.stop().await;

    scene.heal_and_check(&published, rounds).await;
    engine.kill().await;
}

/// The control: that the other tests lose nothing means something only if this one does.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_without_syncing_loses_what_was_acknowledged_and_the_engine_halts() {
    const NAME: &str =
        "a power cut without syncing loses what was acknowledged, and the engine halts";
    if let Err(reason) = loop_mounts() {
        return not_run(NAME, &reason);
    }
    let disks = [LoopDisk::new()];
    let ground = Ground::alone_at(Durability::Process, on(&disks[0], Placement::default())).await;
    let mut scene = Scene::set_on("power cut without syncing", ground).await;
    // What is lost is looked for in journals.
    scene.snapshots = Snapshots::Seldom;
    let engine = scene.engine("w-a");

    let lost = lost_without_syncing(&mut scene, &disks).await;

    assert!(lost > 0, "nothing was lost: this harness would not see it");
    all_halt(&scene, 1).await;
    // Whoever starts after it is not fooled either.
    engine.kill().await;
    let engine = scene.engine("w-a");
    all_halt(&scene, 2).await;
    engine.kill().await;
}

/// The control of what three servers lose: a copy on each is no help when all lose their power.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_of_all_of_three_servers_without_syncing_loses_what_was_acknowledged() {
    const NAME: &str =
        "a power cut of all of three servers without syncing loses what was acknowledged";
    if let Err(reason) = loop_mounts() {
        return not_run(NAME, &reason);
    }
    let disks = (0..SERVERS).map(|_| LoopDisk::new()).collect::<Vec<_>>();
    let places = loopback_places(SERVERS).expect("free ports").into_iter();
    let places = places.zip(&disks).map(|(place, disk)| on(disk, place)).collect();
    let ground = Ground::cluster_at(Durability::Process, places).await;
    let mut scene = Scene::set_on("power cut of three servers without syncing", ground).await;
    scene.snapshots = Snapshots::Seldom;
    let engine = scene.engine("w-a");

    let lost = lost_without_syncing(&mut scene, &disks).await;

    assert!(lost > 0, "nothing was lost: this harness would not see it");
    engine.kill().await;
}

/// Cuts the power of all servers, of which none syncs; tells how many acknowledged events are
/// gone.
async fn lost_without_syncing(scene: &mut Scene, disks: &[LoopDisk]) -> u64 {
    let load = Load::start(scene.publisher.clone(), MIXED);
    scene.wait(1_000..1_500).await;
    // So far it is as after two minutes; what comes now is younger.
    disks.iter().for_each(LoopDisk::sync);
    scene.wait(1_500..2_000).await;
    let published = load.stop().await;
    // What is decided is signed within a second; the checkpoint's file survives.
    scene.wait(1_500..2_000).await;

    let all = (0..disks.len()).collect::<Vec<_>>();
    cut_power(&mut scene.ground, disks, &all).await;

    let acknowledged = published.acknowledged.iter().map(|(sequence, _)| *sequence).max();
    let state = async {
        loop {
            match scene.reader.stream_state("EVENTS").await {
                Ok(state) => return state,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let state = tokio::time::timeout(NOTICE_LIMIT, state).await.expect("a stream");
    let lost = acknowledged.unwrap_or_default().saturating_sub(state.last_sequence);
    let last = state.last_sequence;
    println!(
        "fault: power cut without syncing: {lost} acknowledged events of {last} and more lost"
    );
    lost
}

/// Waits until each data partition was halted so many times.
async fn all_halt(scene: &Scene, times: usize) {
    let (begun, log) = (Instant::now(), log_of(scene.ground.folder(), "w-a"));
    loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let halted = |partition: u16| {
            let partition = format!("partition={partition} ");
            let lines = text.lines().filter(|line| line.contains(HALTED));
            lines.filter(|line| line.contains(&partition)).count()
        };
        let counts = (0..PARTITIONS).map(halted).collect::<Vec<_>>();
        if counts.iter().all(|count| *count >= times) {
            return;
        }
        assert!(begun.elapsed() < NOTICE_LIMIT, "partitions halted so often: {counts:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
