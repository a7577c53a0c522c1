//! The disk of the broker is full.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fermata_actors::readiness::Obstacle;
use fermata_jetstream::Durability;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::monitoring::health;
use fermata_jetstream::server::Placement;
use fermata_tests::disks::SmallDisk;
use fermata_tests::rights::{memory_mounts, not_run};
use fermata_tests::{TestEngine, sink};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::ground::Ground;
use crate::load::{Load, MIXED};
use crate::process::log_of;
use crate::scene::{PARTITIONS, Scene};

/// What the disk holds, and what is left of it when it is filled.
const DISK_BYTES: u64 = 256 << 20;
const LEFT_BYTES: u64 = 1 << 20;

/// How long it may take until the disk is full and the operator is told.
const TELL_LIMIT: Duration = Duration::from_secs(60);

/// How long nothing may happen while it is full.
const STILL_FOR: Duration = Duration::from_secs(2);

/// How the engine's log tells it: what it has no partition for it cannot say of a journal.
const TOLD: [&str; 2] = ["the journal takes nothing", "the broker takes no lease of this worker"];

/// What `fermata doctor` must say of it.
const FOUND: [&str; 2] = ["partition_stands_still", "server_unwell"];

/// Those of [`FOUND`] that `fermata doctor` finds to be wrong, in order.
async fn found(scene: &Scene, monitor: &str) -> Vec<String> {
    // `make fault` builds it beside the engine.
    let program = Path::new(env!("CARGO_BIN_EXE_fault_engine")).with_file_name("fermata");
    let mut doctor = Command::new(program);
    doctor.arg("--data-dir").arg(scene.ground.folder()).args(["--nats-url", &scene.ground.url()]);
    doctor.args(["doctor", "--json", "--monitor-url", monitor]).stdin(Stdio::null());
    let ended = tokio::time::timeout(TELL_LIMIT, doctor.kill_on_drop(true).output()).await;
    let ended = ended.expect("it ends while the disk is full").expect("the program `fermata`");
    let printed = String::from_utf8(ended.stdout).expect("text");
    let checks = printed.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let checks = checks.collect::<Vec<_>>();
    assert!(checks.len() > FOUND.len(), "it did not look around: {printed}");
    let failed = checks.iter().filter(|check| check["health"] == "fail");
    let codes = failed.filter_map(|check| check["code"].as_str().map(str::to_owned));
    let mut codes = codes.filter(|code| FOUND.contains(&&**code)).collect::<Vec<_>>();
    codes.sort_unstable();
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_effects_is_told_and_loses_nothing_accepted() {
    const NAME: &str = "a full disk stops effects, is told, and loses nothing accepted";
    if let Err(reason) = memory_mounts() {
        return not_run(NAME, &reason);
    }
    let disk = SmallDisk::new(DISK_BYTES);
    let store_dir = Some(disk.path().join("streams"));
    let place = Placement { store_dir, ..Placement::default() };
    let ground = Ground::alone_at(Durability::Process, place).await;
    let mut scene = Scene::set_on("disk full", ground).await;
    let engine = scene.engine("w-a");
    let watched = TestEngine { partitions: PARTITIONS, ..TestEngine::at(scene.ground.url()) };
    let watched = watched.named("w-b").with_executors(sink::executors_for(scene.sink.url()));
    let watched = watched.start(scene.ground.folder()).await;
    let load = Load::start(scene.publisher.clone(), MIXED);
    scene.wait(1_000..1_500).await;

    disk.fill_but(LEFT_BYTES);
    let begun = Instant::now();
    let log = log_of(scene.ground.folder(), "w-a");
    let monitor = scene.ground.servers[0].monitor_url().expect("a monitor").to_owned();
    let told = || {
        std::fs::read_to_string(&log).is_ok_and(|text| TOLD.iter().any(|told| text.contains(told)))
    };
    while !told() || health(&monitor).await.is_ok_and(|health| health.is_ok()) {
        let health = health(&monitor).await;
        assert!(begun.elapsed() < TELL_LIMIT, "nobody is told; the server says {health:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // One worker is this process, and says of itself what `/ready` does; what is stored is read.
    let still = |obstacles: &[Obstacle]| {
        obstacles.iter().any(|obstacle| obstacle.code() == "partition_stands_still")
    };
    let codes = |obstacles: &[Obstacle]| obstacles.iter().map(Obstacle::code).collect::<Vec<_>>();
    let mut obstacles = watched.obstacles().await;
    while !still(&obstacles) {
        assert!(begun.elapsed() < TELL_LIMIT, "the reason is not told: {obstacles:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        obstacles = watched.obstacles().await;
    }
    println!("fault: disk full: not ready: {:?}: {}", codes(&obstacles), obstacles[0]);
    assert_eq!(found(&scene, &monitor).await, FOUND);
    let first = scene.reader.read_one("EVENTS", 1).await.expect("a read");
    assert!(first.is_some(), "what is stored cannot be read");
    let journal = scene.reader.stream_state("JOURNAL_0").await.expect("a stream");
    let last = scene.reader.read_one("JOURNAL_0", journal.last_sequence).await;
    assert!(last.expect("a read").is_some(), "the end of a journal cannot be read");
    let question = json!({ "query": { "limit": 5 } }).to_string();
    let asked = CoreMessages::new(&scene.broker);
    let listed = asked.request("fermata.query.runs", question.into(), TELL_LIMIT).await;
    let listed = listed.expect("an answer of the read model").payload;
    let listed = serde_json::from_slice::<Value>(&listed).expect("JSON");
    assert_eq!(listed["ok"]["runs"].as_array().map(Vec::len), Some(5), "{listed}");
    println!(
        "fault: disk full: told after {:.1} s; the server says {:?}",
        begun.elapsed().as_secs_f64(),
        health(&monitor).await
    );
    let attempts = |scene: &Scene| {
        scene.sink.effects().values().map(|effect| effect.attempts.len()).sum::<usize>()
    };
    let before = attempts(&scene);
    tokio::time::sleep(STILL_FOR).await;
    assert_eq!(attempts(&scene), before, "an effect started that no record can order");

    // Room alone does not heal the server; a restart does.
    disk.empty();
    scene.ground.servers[0].restart().await.expect("a server that starts again");
    scene.wait(1_000..1_500).await;
    let published = load.stop().await;

    scene.heal_and_check(&published, 1).await;
    assert_eq!(found(&scene, &monitor).await, [""; 0]);
    assert!(attempts(&scene) > before, "no effect started again");
    watched.shut_down().await;
    engine.kill().await;
}
