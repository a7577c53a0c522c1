//! `GET /audit/{partition}/receipts` of a running engine.

use serde_json::{Value, json};

use crate::engine::{RunningEngine, event};
use crate::process::Answer;
use crate::support::SOON;

const STRATEGIES: &str = "
strategies:
  - { name: quiet, version: 1, tenant: '*', on: noted, action: ignore }
";

const ARGUMENTS: [&str; 5] = ["--http", "127.0.0.1:0", "--http-receipts", "--partitions", "1"];

/// Enough records for several blocks of 256, in more messages than one.
const EVENTS: usize = 700;

/// Asks until the record is signed.
async fn receipts(engine: &RunningEngine, records: &[usize]) -> Answer {
    let query: Vec<_> = records.iter().map(|record| format!("record={record}")).collect();
    let path = format!("/audit/0/receipts?{}", query.join("&"));
    engine.up.until(&path, |answer| answer.status != 404).await
}

async fn publish(engine: &RunningEngine, ids: std::ops::Range<usize>) {
    for batch in ids.collect::<Vec<_>>().chunks(100) {
        let events: Vec<_> = batch.iter().map(|id| event(id, "noted")).collect();
        engine.publish(&json!(events).to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_engine_gives_the_receipts_that_the_command_makes_while_its_log_grows() {
    let engine = RunningEngine::start(&ARGUMENTS, &[]).await;
    engine.apply("strategy", STRATEGIES).await;
    let key = engine.do_it(&["audit", "key"]).await;
    let key = key.trim();

    for (from, to, asked) in [
        (0, EVENTS, vec![0, 1, 255, 256, EVENTS - 1]),
        (EVENTS, EVENTS + 300, vec![3, 511, 512, EVENTS + 299]),
    ] {
        publish(&engine, from..to).await;
        let answer = receipts(&engine, &asked).await;
        assert_eq!(answer.status, 200, "{}", answer.body);

        let lines: Vec<Value> =
            answer.body.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let indices: Vec<_> = lines.iter().map(|line| line["index"].as_u64().unwrap()).collect();
        assert_eq!(indices, asked.iter().map(|index| *index as u64).collect::<Vec<_>>());
        let file = engine.path("receipts");
        std::fs::write(&file, &answer.body).expect("a file");
        let checked = engine.do_it(&["audit", "check-receipt", &file, "--vkey", key]).await;
        assert!(checked.contains("hold"), "{checked}");
    }
    let command =
        ["--json", "audit", "prove", "--partition", "0", "--record", "17", "--record", "600"];
    let lines = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    };
    let same = async {
        loop {
            let given = lines(&receipts(&engine, &[17, 600]).await.body);
            let made = lines(&engine.do_it(&command).await);
            // The last record may have been signed between the two.
            if given[0]["checkpoint"] == made[0]["checkpoint"] {
                return (given, made);
            }
        }
    };
    let (given, made) = tokio::time::timeout(SOON, same).await.expect("nothing happens any more");
    assert_eq!(given, made);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_partitions_that_are_not_there_have_no_receipt() {
    let engine = RunningEngine::start(&ARGUMENTS, &[]).await;

    for (path, status, said) in [
        ("/audit/0/receipts?record=99999", 404, "record 99999 is not among the"),
        ("/audit/7/receipts?record=0", 404, "there is no partition `7`"),
        ("/audit/x/receipts?record=0", 404, "`x` is no partition"),
        ("/audit/0/receipts", 400, "name the records"),
        ("/audit/control/receipts?record=first", 400, "`record=first` is not"),
    ] {
        let answer = engine.up.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.json()["detail"].as_str().unwrap().contains(said), "{}", answer.body);
    }
    let many: Vec<_> = (0..17).map(|record| format!("record={record}")).collect();
    let answer = engine.up.get(&format!("/audit/0/receipts?{}", many.join("&"))).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_receipts_where_they_are_not_switched_on() {
    let engine = RunningEngine::start(&["--http", "127.0.0.1:0", "--partitions", "1"], &[]).await;

    let answer = engine.up.get("/audit/0/receipts?record=0").await;

    assert_eq!(answer.status, 403, "{}", answer.body);
    assert!(answer.body.contains("--http-receipts"), "{}", answer.body);
    engine.stop().await;
}
