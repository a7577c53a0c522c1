//! More strategies than one command may have, applied with the program to its own engine.

use fermata_core::record::Kind;
use fermata_jetstream::StreamReader;

use crate::engine::{RunningEngine, event};
use crate::operations::kinds;
use crate::support::SOON;

const WORKFLOW: &str = "
workflow: { name: noop, version: '1', tasks: [{ id: a, noop: {} }] }
";

/// A bundle of strategies that start a workflow, each of a type of its own.
fn bundle(count: usize, version: u32, workflow: &str) -> String {
    let one = |at| {
        format!(
            "
  - {{ name: many-{at}, version: {version}, tenant: '*', on: many.t{at}, when: event.data.n > {at}, workflow: {{ name: {workflow}, version: '1' }} }}"
        )
    };
    format!("strategies:{}", (0..count).map(one).collect::<String>())
}

async fn started(engine: &RunningEngine) -> usize {
    let reader = StreamReader::new(&engine.broker().await);
    let mut found = 0;
    for partition in ["0", "1", "2", "3"] {
        let kinds = kinds(&reader, partition).await;
        found += kinds.iter().filter(|kind| **kind == Kind::RunStarted).count();
    }
    found
}

#[tokio::test]
async fn a_bundle_that_needs_several_commands_is_applied_and_again_and_refused_as_a_whole() {
    let engine = RunningEngine::start(&["--partitions", "4"], &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    let (many, broken) = (engine.path("many.yaml"), engine.path("broken.yaml"));
    std::fs::write(&many, bundle(4_000, 1, "noop")).expect("a file");

    // The last one is in the second command: it is refused before the first one is sent.
    let sound = bundle(4_000, 1, "noop");
    let (before, last) = sound.rsplit_once("name: noop").expect("a workflow");
    std::fs::write(&broken, format!("{before}name: unknown{last}")).expect("a file");
    let refused = engine.run(&["strategy", "apply", &broken]).await;
    assert_eq!(refused.code, 1, "{}{}", refused.stdout, refused.stderr);
    assert!(
        refused.stdout.contains("`unknown` version `1`, which is not defined"),
        "{}",
        refused.stdout
    );
    assert!(
        refused.stdout.contains("strategy `many-3999` starts workflow `unknown`"),
        "{}",
        refused.stdout
    );
    assert!(refused.stdout.contains("nothing was applied; revision 1 stays"), "{}", refused.stdout);
    let listed = engine.run(&["strategy", "list"]).await;
    assert!(listed.code == 0 && !listed.stdout.contains("many-"), "{}", listed.stdout);

    let applied = engine.run(&["strategy", "apply", &many]).await;
    assert_eq!(applied.code, 0, "{}{}", applied.stdout, applied.stderr);
    assert!(applied.stderr.contains("it is sent in 2, and each is active"), "{}", applied.stderr);
    assert_eq!(
        applied.stdout,
        "applied: 4000 strategies in 2 commands; definitions are at revision 3\n"
    );
    engine.up.logs.until_applied(&applied.stdout).await;
    let again = engine.run(&["strategy", "apply", &many, "--json"]).await;
    assert_eq!(again.code, 0, "{}{}", again.stdout, again.stderr);
    let told = serde_json::json!({
        "revision": 3, "problems": [], "parts": { "applied": 2, "of": 2 },
        "unchanged": 4_000, "changed": 0,
    });
    assert_eq!(again.json(), [told]);

    let mut order = event("e-1", "many.t3999");
    order["data"]["n"] = 4_000.into();
    engine.publish(&order.to_string()).await;
    let wait = async {
        while started(&engine).await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("a run, in time");

    let listed = engine.run(&["strategy", "list"]).await;
    assert_eq!((listed.code, listed.stdout.lines().count()), (0, 4_001), "{}", listed.stderr);
    assert!(listed.stdout.contains("many-3999"), "{}", listed.stdout);
    let retired = engine.run(&["strategy", "retire", "many-0"]).await;
    assert_eq!(retired.code, 0, "{}{}", retired.stdout, retired.stderr);
    engine.stop().await;
}
