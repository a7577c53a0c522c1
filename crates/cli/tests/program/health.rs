//! `fermata doctor`.

use fermata_jetstream::leases::{Leases, partition_key, worker_key};
use serde_json::Value;

use crate::support::{Ended, Stage, run};

fn health(ended: &Ended, name: &str) -> Value {
    let checks = ended.json();
    let check = checks.iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no check `{name}` in {}", ended.stdout))["health"].clone()
}

#[tokio::test]
async fn an_engine_that_lives_and_owns_everything_is_in_order() {
    let stage = Stage::new().await;
    let leases = Leases::open(&stage.broker).await.unwrap();
    for key in [worker_key("w"), partition_key("control"), partition_key("0")] {
        leases.acquire(&key, "w".into()).await.unwrap();
    }

    let monitor = stage.server.monitor_url().unwrap().to_owned();
    let examined = stage.run(&["doctor", "--json", "--monitor-url", &monitor]).await;

    assert_eq!(examined.code, 0, "{}", examined.stdout);
    for name in ["broker", "engine", "streams", "workers", "partitions", "clock"] {
        assert_eq!(health(&examined, name), "ok", "{name}: {}", examined.stdout);
    }
    // The test's broker does not sync every message.
    assert_eq!(health(&examined, "durability"), "warn");
}

#[tokio::test]
async fn an_engine_without_workers_fails_with_a_hint() {
    let stage = Stage::new().await;

    let examined = stage.run(&["doctor", "--json"]).await;

    assert_eq!(examined.code, 1);
    assert_eq!(health(&examined, "workers"), "fail");
    assert_eq!(health(&examined, "partitions"), "fail");
}

#[tokio::test]
async fn without_a_broker_it_says_so() {
    let examined = run(&["doctor", "--json", "--nats-url", "nats://127.0.0.1:9"]).await;

    assert_eq!((examined.code, health(&examined, "broker")), (1, "fail".into()));
}
