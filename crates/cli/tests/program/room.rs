//! `fermata doctor --repair room` on a server that has only so much room for streams.

use std::collections::BTreeMap;

use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::usage::stream_usages;
use serde_json::Value;

use crate::support::{Ended, SOON, Stage};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const PAYLOADS: &str = "OBJ_fermata-payloads";

/// How many bytes each stream may hold.
async fn sizes(stage: &Stage) -> BTreeMap<String, u64> {
    let usages = stream_usages(&stage.broker).await.expect("the streams");
    usages.into_iter().map(|usage| (usage.name, usage.bytes_max.unwrap_or(0))).collect()
}

/// Runs `doctor --repair room`, with the address at which the server tells its limit.
async fn repair(stage: &Stage, arguments: &[&str]) -> Ended {
    let monitor = stage.server.monitor_url().expect("it was asked for");
    let repair = ["doctor", "--repair", "room", "--monitor-url", monitor];
    stage.run(&[repair.as_slice(), arguments].concat()).await
}

/// The option with its size that an error says is the most that fits.
fn most(refused: &Ended) -> String {
    let (_, most) = refused.stderr.split_once("the most that fits is `").expect(&refused.stderr);
    most.split_once('`').expect("its end").0.to_owned()
}

#[tokio::test]
async fn more_room_than_the_server_has_is_refused_with_the_most_that_fits() {
    let stage = Stage::with_store(10 * GIB).await;
    let before = sizes(&stage).await;

    for dry in [&["--dry-run"][..], &[]] {
        let refused = repair(&stage, &[&["--stream-room", "16GiB"], dry].concat()).await;

        assert_eq!(refused.code, 1, "{}{}", refused.stdout, refused.stderr);
        for part in ["the server has 10.0 GiB for streams, of which 4.0 GiB", "nothing was changed"]
        {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
        assert_eq!(most(&refused), "--stream-room 9GiB");
        assert_eq!(sizes(&stage).await, before);
    }
    let enlarged = repair(&stage, &["--stream-room", "9GiB"]).await;

    assert_eq!(enlarged.code, 0, "{}{}", enlarged.stdout, enlarged.stderr);
    let after = sizes(&stage).await;
    assert!(after["EVENTS"] > before["EVENTS"], "{after:?}");
    let beyond = repair(&stage, &["--stream-room", "10GiB", "--dry-run"]).await;
    assert_eq!(beyond.code, 1, "{}", beyond.stdout);
    assert!(beyond.stderr.contains("raise `max_file_store`"), "{}", beyond.stderr);
}

#[tokio::test]
async fn where_the_limit_is_not_known_and_one_is_refused_all_are_set_back() {
    let stage = Stage::with_store(10 * GIB).await;
    let before = sizes(&stage).await;

    let refused = stage.run(&["doctor", "--repair", "room", "--stream-room", "16GiB"]).await;

    assert_eq!(refused.code, 3, "{}{}", refused.stdout, refused.stderr);
    let told = "the streams were not enlarged; ";
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
    assert!(refused.stderr.contains("have the room again that they had"), "{}", refused.stderr);
    assert_eq!(sizes(&stage).await, before);
}

/// Leaves a stream that has something as much room as it takes.
async fn fill(stage: &Stage, stream: &str, subject: &str) {
    stage.append(subject, 0, vec![7; 700_000]).await;
    let core = CoreMessages::new(&stage.broker);
    let ask = async |operation: &str, body: Vec<u8>| {
        let subject = format!("$JS.API.STREAM.{operation}.{stream}");
        let answer = core.request(&subject, body.into(), SOON).await.expect("an answer");
        serde_json::from_slice::<Value>(&answer.payload).expect("JSON")
    };
    let info = ask("INFO", Vec::new()).await;
    let mut config = info["config"].clone();
    config["max_bytes"] = info["state"]["bytes"].clone();
    let updated = ask("UPDATE", config.to_string().into_bytes()).await;
    assert_eq!(updated["error"], Value::Null);
}

#[tokio::test]
async fn without_a_size_those_that_fill_have_twice_as_much_and_no_other_is_touched() {
    let stage = Stage::with_store(10 * GIB).await;
    fill(&stage, "JOURNAL_0", "fermata.journal.0").await;
    let mut expected = sizes(&stage).await;

    let enlarged = repair(&stage, &["--json"]).await;

    assert_eq!(enlarged.code, 0, "{}{}", enlarged.stdout, enlarged.stderr);
    let told = enlarged.json().into_iter().map(|line| line["stream"].clone()).collect::<Vec<_>>();
    assert_eq!(told, ["JOURNAL_0"]);
    let size = expected.get_mut("JOURNAL_0").expect("a stream");
    *size = (*size * 2).div_ceil(MIB) * MIB;
    assert_eq!(sizes(&stage).await, expected);
}

#[tokio::test]
async fn the_store_of_payloads_is_enlarged_alone() {
    let stage = Stage::with_store(10 * GIB).await;
    let mut expected = sizes(&stage).await;

    let twice = repair(&stage, &["--only", "payloads"]).await;
    assert_eq!(twice.code, 0, "{}{}", twice.stdout, twice.stderr);
    let size = expected.get_mut(PAYLOADS).expect("a stream");
    *size = *size * 2 / MIB * MIB;
    assert_eq!(sizes(&stage).await, expected);
    let named = ["doctor", "--repair", "room", "--only", PAYLOADS, "--to", "1GiB"];
    let named = stage.run(&named).await;
    assert_eq!(named.code, 0, "{}{}", named.stdout, named.stderr);
    expected.insert(PAYLOADS.to_owned(), GIB);
    assert_eq!(sizes(&stage).await, expected);

    let refused = repair(&stage, &["--only", "payloads", "--to", "8GiB"]).await;

    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert_eq!(sizes(&stage).await, expected);
    let most = most(&refused);
    let most: Vec<_> = most.split(' ').collect();
    let given = repair(&stage, &[&["--only", "payloads"], most.as_slice()].concat()).await;
    assert_eq!(given.code, 0, "{}{}", given.stdout, given.stderr);
    let reserved: u64 = sizes(&stage).await.values().sum();
    assert!(reserved <= 10 * GIB && reserved > 10 * GIB - 2 * MIB, "{reserved}");
    let unknown = repair(&stage, &["--only", "payload"]).await;
    assert_eq!(unknown.code, 2, "{}", unknown.stderr);
}
