//! One bit of what a server stored is another one when it starts again.

use std::time::{Duration, Instant};

use fermata_core::identity::PartitionId;
use fermata_jetstream::Durability;
use fermata_tests::bit_flips::flip_a_bit;
use fermata_tests::cluster::lead;
use fermata_tests::journal::JournalWatch;
use fermata_tests::snapshots::Snapshots;

use crate::ground::{Ground, SERVERS};
use crate::load::{Load, MIXED};
use crate::process::log_of;
use crate::scene::{PARTITIONS, Scene};

/// How long an engine may take to find it.
const NOTICE_LIMIT: Duration = Duration::from_secs(60);

/// How the log names what is beyond repair.
const HALTED: &str = "the partition is halted";

/// Frames that the partition which is whole appends while the others are halted.
const FRAMES: usize = 20;

const ROUNDS: u32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flips_on_the_only_server_halts_the_partition_and_no_other() {
    let mut scene = Scene::set_on("bit flipped", Ground::alone(Durability::Process).await).await;
    // What is damaged must not be purged before it is read.
    scene.snapshots = Snapshots::Seldom;
    // What a partition goes by; the last partition stays whole.
    let halted = run_and_flip(&mut scene, &["JOURNAL_0"], true).await;
    assert_eq!(halted, [0]);
    // A server that looks through what it stores takes what is damaged for the end.
    let halted = run_and_flip(&mut scene, &["JOURNAL_1", "COMMANDS_2"], false).await;
    assert_eq!(halted, [0, 1, 2]);
}

/// Runs an engine, flips a bit of these streams after the server ended (or was killed), and starts
/// both again; the partitions that are halted then, when another one goes on.
async fn run_and_flip(scene: &mut Scene, streams: &[&str], in_order: bool) -> Vec<u16> {
    let engine = scene.engine("w-a");
    let load = Load::start(scene.publisher.clone(), MIXED);
    scene.wait(2_000..3_000).await;
    let _ = load.stop().await;
    // What is decided is signed within a second.
    scene.wait(1_500..2_000).await;
    engine.kill().await;
    let server = &mut scene.ground.servers[0];
    match in_order {
        true => server.stop().await.expect("a stopped server"),
        false => server.kill().await.expect("a killed server"),
    }
    let store = server.data_dir().to_owned();
    for stream in streams {
        println!("fault: {}: {}", scene.name, flip_a_bit(&store, stream, &mut scene.dice));
    }
    scene.ground.servers[0].restart().await.expect("a server that starts again");

    let log = log_of(scene.ground.folder(), "w-a");
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    let before = text().len();
    let engine = scene.engine("w-a");
    let load = Load::start(scene.publisher.clone(), MIXED);
    let whole = PARTITIONS - 1;
    let mut watch = JournalWatch::new(PartitionId(whole));
    watch.read(&scene.reader).await.expect("a journal");
    let (begun, frames) = (Instant::now(), watch.messages.len());
    let halted = loop {
        let text = text()[before..].to_owned();
        let is_halted = |partition: &u16| {
            let named = format!("partition={partition} ");
            let mut lines = text.lines().filter(|line| line.contains(HALTED));
            lines.any(|line| line.contains(&named))
        };
        let halted = (0..PARTITIONS).filter(is_halted).collect::<Vec<_>>();
        let _ = watch.read(&scene.reader).await;
        let goes_on = watch.messages.len() >= frames + FRAMES;
        let of = |stream: &&str| halted.iter().any(|one| stream.ends_with(&format!("_{one}")));
        if goes_on && streams.iter().all(of) {
            let lines = text.lines().filter(|line| line.contains(HALTED));
            lines.for_each(|line| println!("fault: {}: {line}", scene.name));
            break halted;
        }
        let more = watch.messages.len() - frames;
        assert!(begun.elapsed() < NOTICE_LIMIT, "{more} frames; halted: {halted:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let _ = load.stop().await;
    engine.kill().await;
    halted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flips_on_one_of_three_servers_loses_nothing() {
    let ground = Ground::cluster(Durability::Process).await;
    let mut scene = Scene::set_on("bit flipped on one of three", ground).await;
    scene.snapshots = Snapshots::Seldom;
    let engine = scene.engine("w-a");
    let load = Load::start(scene.publisher.clone(), MIXED);
    scene.wait(1_500..2_500).await;

    let mut rounds = 0;
    while rounds < ROUNDS && scene.has_time_for_one_more(rounds) {
        let partition = u16::try_from(rounds).expect("few") % PARTITIONS;
        let leader = scene.leader_of_journal(partition).await;
        // The one that leads the journal, then others.
        let server = (leader + usize::try_from(rounds).expect("few")) % SERVERS;
        let streams = ["JOURNAL", "AUDIT", "COMMANDS"].map(|name| format!("{name}_{partition}"));
        scene.ground.servers[server].kill().await.expect("a killed server");
        let store = scene.ground.servers[server].data_dir().to_owned();
        for stream in streams.iter().map(String::as_str).chain(["EVENTS"]) {
            let flipped = flip_a_bit(&store, stream, &mut scene.dice);
            println!("fault: bit flipped on server {}: {flipped}", server + 1);
        }
        scene.ground.servers[server].restart().await.expect("a server that starts again");
        scene.wait(500..1_500).await;
        // What it holds is what counts now, if the others have not mended it.
        let name = scene.ground.names()[server].clone();
        for stream in streams.iter().map(String::as_str).chain(["EVENTS"]) {
            lead(&scene.broker, stream, &name).await;
        }
        rounds += 1;
        scene.wait(500..1_500).await;
    }
    let published = load.stop().await;

    scene.heal_and_check(&published, rounds).await;
    engine.kill().await;
}
