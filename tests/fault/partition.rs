//! One of three servers is cut off from the other two, while clients still reach all of them.

use std::time::{Duration, Instant};

use fermata_jetstream::{Broker, ConnectOptions, Durability, StreamReader};
use fermata_tests::cluster::ask;
use fermata_tests::networks::Networks;
use fermata_tests::rights::{network_namespaces, not_run};
use futures_util::future::join_all;
use serde_json::Value;

use crate::ground::{Ground, SERVERS};
use crate::load::{Load, MIXED};
use crate::process::EngineProcess;
use crate::scene::Scene;

/// How long a server is cut off: long enough for the others to elect a leader (4 to 9 s), and for
/// what the old one says to be old.
const CUT_FOR: Duration = Duration::from_secs(14);

/// How long it is cut off at the most while it tells nothing old.
const CUT_MAX: Duration = Duration::from_secs(60);

/// From when on after the cut nobody may be told what is old.
const STALE_MAX: Duration = Duration::from_secs(5);

/// Pause between two looks at both sides.
const POLL: Duration = Duration::from_millis(250);

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// What is looked at on both sides.
const STREAMS: [&str; 5] = ["JOURNAL_0", "JOURNAL_1", "JOURNAL_2", "JOURNAL_3", "EVENTS"];

const ROUNDS: u32 = 4;

/// What was seen of streams on both sides of the cut.
#[derive(Debug, Default)]
struct Seen {
    /// Answers of the server that was cut off that were behind the others'.
    old_answers: u32,
    /// Those that our reader took for true.
    believed: u32,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_cut_off_decides_nothing_and_is_not_believed() {
    const NAME: &str = "a server that is cut off decides nothing and is not believed";
    if let Err(reason) = network_namespaces() {
        return not_run(NAME, &reason);
    }
    let networks = Networks::new(u8::try_from(SERVERS).expect("few"), 0);
    let ground = Ground::cluster_at(Durability::Process, networks.places()).await;
    let mut scene = Scene::set_on("server cut off", ground).await;
    let load = Load::start(scene.publisher.clone(), MIXED);

    let (mut rounds, mut old_answers) = (0, 0);
    let mut engines = Vec::<EngineProcess>::new();
    while rounds < ROUNDS && (old_answers == 0 || scene.has_time_for_one_more(rounds)) {
        // The first time it leads a journal, then perhaps it does not.
        let leader = scene.leader_of_journal(0).await;
        let cut = (leader + usize::try_from(rounds).expect("few")) % SERVERS;
        let other = (cut + 1) % SERVERS;
        for engine in engines.drain(..) {
            engine.kill().await;
        }
        // One worker on each side: the one that is cut off can do nothing.
        let (cut_url, other_url) =
            (scene.ground.servers[cut].url(), scene.ground.servers[other].url());
        engines.push(scene.engine_at(&cut_url, "w-a"));
        engines.push(scene.engine_at(&other_url, "w-b"));
        scene.wait(2_000..3_000).await;

        networks.cut_off(u8::try_from(cut).expect("few"));
        let seen = watch_both_sides(&cut_url, &other_url, old_answers == 0).await;
        networks.join_again(u8::try_from(cut).expect("few"));

        println!(
            "fault: server cut off: round {rounds}: server {} of {SERVERS}: {seen:?}",
            cut + 1
        );
        assert_eq!(seen.believed, 0, "what a server said that was cut off was believed");
        old_answers += seen.old_answers;
        rounds += 1;
        scene.wait(500..1_500).await;
    }
    // Or nothing was there that could have been believed.
    assert!(old_answers > 0, "no server that was cut off told anything old");
    let published = load.stop().await;

    scene.heal_and_check(&published, rounds).await;
    for engine in engines {
        engine.kill().await;
    }
}

/// Looks at all streams on both sides until [`CUT_FOR`] has passed; where something old must be
/// told, until it was or [`CUT_MAX`] has passed.
async fn watch_both_sides(cut_url: &str, other_url: &str, must_be_told: bool) -> Seen {
    let cut = Broker::connect(cut_url, ConnectOptions::default()).await.expect("a connection");
    let other = Broker::connect(other_url, ConnectOptions::default()).await.expect("a connection");
    let (begun, mut seen) = (Instant::now(), Seen::default());
    let goes_on = |seen: &Seen| {
        let limit = if must_be_told && seen.old_answers == 0 { CUT_MAX } else { CUT_FOR };
        begun.elapsed() < limit
    };
    while goes_on(&seen) {
        let counts = begun.elapsed() >= STALE_MAX;
        // Side by side: the old leader gives up soon, and nearly no answer that is not believed
        // comes before its limit.
        let looks = join_all(STREAMS.map(|stream| look(&cut, &other, stream))).await;
        if counts {
            seen.old_answers += looks.iter().map(|look| look.old_answers).sum::<u32>();
            seen.believed += looks.iter().map(|look| look.believed).sum::<u32>();
        }
        tokio::time::sleep(POLL).await;
    }
    seen
}

/// Looks at a stream on both sides once.
async fn look(cut: &Broker, other: &Broker, stream: &str) -> Seen {
    // The later answer must not be older.
    let Some(before) = last_sequence(other, stream).await else { return Seen::default() };
    let reader = StreamReader::new(cut);
    let believed = tokio::time::timeout(ANSWER_LIMIT, reader.stream_state(stream));
    let (told, believed) = tokio::join!(last_sequence(cut, stream), believed);
    let is_old = |last: u64| u32::from(last < before);
    let believed = believed.ok().and_then(Result::ok).map(|state| state.last_sequence);
    Seen { old_answers: told.map_or(0, is_old), believed: believed.map_or(0, is_old) }
}

/// What the leader that this server knows says, whether it may be believed or not.
async fn last_sequence(broker: &Broker, stream: &str) -> Option<u64> {
    let operation = format!("STREAM.INFO.{stream}");
    let asked = ask(broker, &operation, &Value::Null);
    let info = tokio::time::timeout(ANSWER_LIMIT, asked).await.ok()??;
    info["state"]["last_seq"].as_u64()
}
