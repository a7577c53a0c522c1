//! A partition that has no room for another key: what it rejects is filed with its
//! bytes, shown, and decided once more.

use std::io::Write as _;

use fermata_core::record::Kind;
use fermata_jetstream::StreamReader;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::engine::{RunningEngine, event};
use crate::operations::{count, kinds};
use crate::support::{SOON, examined_until};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

const WORKFLOW: &str = "
workflow: { name: one, version: '1', tasks: [{ id: a, noop: {} }] }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: asked.start, workflow: { name: one, version: '1' } }
";

/// Room for three keys, and as many ids of commands.
const ARGUMENTS: [&str; 4] = ["--partitions", "1", "--keys-max", "3"];

async fn until(engine: &RunningEngine, kind: Kind, expected: f64) -> Vec<Kind> {
    let reader = StreamReader::new(&engine.broker().await);
    let enough = async {
        loop {
            let kinds = kinds(&reader, "0").await;
            if count(&kinds, kind) >= expected {
                return kinds;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let found = tokio::time::timeout(SOON, enough).await;
    found.unwrap_or_else(|_| panic!("no {expected} {kind:?}\n{}", engine.up.logs.all()))
}

async fn letters(engine: &RunningEngine) -> Vec<Value> {
    let listed = engine.do_it(&["dead", "list", "--stage", "partition", "--json"]).await;
    listed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_room_for_its_key_is_filed_once_and_can_be_replayed() {
    let mut file = NamedTempFile::new().expect("a file");
    writeln!(file, "{SECRET}").expect("a file");
    let secrets = file.path().to_str().expect("text").to_owned();
    let arguments = [&ARGUMENTS[..], &["--replay-secrets", &secrets]].concat();
    let mut engine = RunningEngine::start(&arguments, &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    let batch = (0..5).map(|id| event(id, "asked.start")).collect::<Vec<_>>();

    engine.publish(&Value::from(batch).to_string()).await;

    let found = until(&engine, Kind::EventFiled, 2.0).await;
    assert_eq!((count(&found, Kind::EventStarted), count(&found, Kind::EventRejected)), (3.0, 2.0));
    let filed = letters(&engine).await;
    let told = |letter: &Value| [&letter["id"], &letter["reason"]].map(|text| text.to_string());
    let mut all = filed.iter().map(told).collect::<Vec<_>>();
    all.sort();
    assert_eq!(all, [["\"1.3\"", "\"window_full\""], ["\"1.4\"", "\"window_full\""]], "{filed:?}");
    let shown = engine.do_it(&["dead", "show", "1.4"]).await;
    assert!(shown.contains("asked.start") && shown.contains("\"4\""), "{shown}");

    // The next owner files nothing again.
    engine.kill_and_restart(&arguments).await;
    let doctor = async || engine.run(&["doctor", "--json"]).await;
    examined_until(doctor, |ended| ended.check("code", "key_window_filling").is_some()).await;
    assert_eq!(letters(&engine).await.len(), 2);
    engine.do_it(&["dead", "replay", "1.4", "--replay-secrets", &secrets]).await;

    let after = until(&engine, Kind::EventStarted, 4.0).await;
    assert_eq!(count(&after, Kind::EventFiled), 2.0);
    assert_eq!(count(&after, Kind::EventRejected), 2.0);
}
