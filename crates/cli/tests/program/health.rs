//! `fermata doctor`.

use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::engine_config::agree_on_engine_config;
use fermata_jetstream::leases::{Leases, partition_key, worker_key};
use fermata_jetstream::{Broker, ConnectOptions, Publisher, PublisherOptions};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::process::{Answer, Running};
use crate::support::{Ended, SOON, Stage, examined_until, free_port, run, signer, topology};

fn health(ended: &Ended, name: &str) -> Value {
    let check = ended.check("name", name);
    check.unwrap_or_else(|| panic!("no check `{name}` in {}", ended.stdout))["health"].clone()
}

#[tokio::test]
async fn an_engine_that_lives_and_owns_everything_is_in_order() {
    let stage = Stage::new().await;
    let leases = Leases::open(&stage.broker).await.unwrap();
    let monitor = stage.server.monitor_url().unwrap().to_owned();

    let examine = async || {
        for key in [worker_key("w"), partition_key("control"), partition_key("0")] {
            // It may be held since the time before, and run out right now.
            let _ = leases.acquire(&key, "w".into()).await;
        }
        stage.run(&["doctor", "--json", "--monitor-url", &monitor]).await
    };
    let examined = examined_until(examine, |ended| ended.code == 0 && is_in_time(ended)).await;

    assert_eq!(examined.code, 0, "{}", examined.stdout);
    for name in ["broker", "server", "engine", "streams", "workers", "partitions", "clock"] {
        assert_eq!(health(&examined, name), "ok", "{name}: {}", examined.stdout);
    }
    // The test's broker does not sync every message.
    assert_eq!(health(&examined, "durability"), "warn");
}

#[tokio::test]
async fn each_server_of_a_cluster_is_asked_and_one_that_cannot_write_fails() {
    let stage = Stage::new().await;
    let well = stage.server.monitor_url().unwrap().to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let full = format!("http://{}", listener.local_addr().unwrap());
    let answers = axum::Router::new()
        .route(
            "/healthz",
            axum::routing::get(|| async {
                let text = r#"{"status":"unavailable","error":"no space left on device"}"#;
                (axum::http::StatusCode::SERVICE_UNAVAILABLE, text)
            }),
        )
        .route(
            "/jsz",
            axum::routing::get(|| async { r#"{"storage":1,"config":{"max_storage":100}}"# }),
        );
    let serving = tokio::spawn(axum::serve(listener, answers).into_future());

    let both = format!("{well},{full}");
    let examined = stage.run(&["doctor", "--json", "--monitor-url", &both]).await;
    serving.abort();

    assert_eq!(examined.code, 1, "{}", examined.stdout);
    let found = check(&examined, "server_unwell")["found"].as_str().unwrap().to_owned();
    assert!(found.starts_with(&full) && found.contains("no space left"), "{found}");
    let servers = examined.json().iter().filter(|check| check["name"] == "server").count();
    assert_eq!(servers, 2, "{}", examined.stdout);
}

#[tokio::test]
async fn an_engine_without_workers_fails_with_a_hint() {
    let stage = Stage::new().await;

    let examined = stage.run(&["doctor", "--json"]).await;

    assert_eq!(examined.code, 1);
    assert_eq!(health(&examined, "workers"), "fail");
    assert_eq!(health(&examined, "partitions"), "fail");
    // Nobody was there to be asked: that is not in order, and told by the first two.
    for name in ["answers", "roles", "names", "settings", "halted", "standstill", "calls"] {
        assert_eq!(health(&examined, name), "skipped", "{name}: {}", examined.stdout);
    }
    let shown = stage.run(&["doctor"]).await.stdout;
    let told = "skipped  not checked: no worker lives that could be asked";
    assert_eq!(shown.matches(told).count(), 7, "{shown}");
}

#[tokio::test]
async fn without_a_broker_it_says_so() {
    let examined = run(&["doctor", "--json", "--nats-url", "nats://127.0.0.1:9"]).await;

    assert_eq!((examined.code, health(&examined, "broker")), (1, "fail".into()));
}

fn check(ended: &Ended, code: &str) -> Value {
    let check = ended.check("code", code);
    check.unwrap_or_else(|| panic!("no `{code}` in {}", ended.stdout))
}

/// Whether the clocks could be compared, and agree.
fn is_in_time(ended: &Ended) -> bool {
    ended.check("name", "clock").is_some_and(|check| check["health"] == "ok")
}

#[tokio::test]
async fn a_stream_that_is_otherwise_is_told_with_the_difference() {
    let stage = Stage::new().await;
    let core = CoreMessages::new(&stage.broker);
    let ask = async |operation: &str, body: Vec<u8>| {
        let subject = format!("$JS.API.STREAM.{operation}.EVENTS");
        let answer = core.request(&subject, body.into(), SOON).await.expect("an answer");
        serde_json::from_slice::<Value>(&answer.payload).expect("JSON")
    };
    let mut config = ask("INFO", Vec::new()).await["config"].take();
    config["discard"] = "old".into();
    let updated = ask("UPDATE", config.to_string().into_bytes()).await;
    assert_eq!(updated["error"], Value::Null);

    let examined = stage.run(&["doctor", "--json"]).await;

    let drift = check(&examined, "stream_drift");
    assert_eq!((&drift["health"], examined.code), (&"fail".into(), 1));
    let expected = serde_json::json!([
        { "stream": "EVENTS", "field": "discard", "expected": "new", "found": "old" }
    ]);
    assert_eq!(drift["details"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halted_partition_is_told_with_the_reason_that_its_worker_gives() {
    let stage = Stage::bare().await;
    topology().apply(&stage.broker).await.expect("streams");
    stage.append("fermata.journal.0", 0, b"no frame of ours".to_vec()).await;
    let worker = Running::worker(
        &stage,
        "worker",
        "coordinator",
        &["--http", "127.0.0.1:0", "--partitions", "1", "--name", "w-1"],
    )
    .await;
    let is_halted = |answer: &Answer| answer.reasons().contains(&"partition_halted".to_owned());
    worker.until("/ready", is_halted).await;

    let doctor = async || stage.run(&["doctor", "--json"]).await;
    let told = |ended: &Ended| ended.check("code", "partition_halted").is_some();
    let examined = examined_until(doctor, told).await;

    let halted = check(&examined, "partition_halted");
    assert_eq!((&halted["health"], examined.code), (&"fail".into(), 1));
    let detail = &halted["details"][0];
    assert_eq!((&detail["partition"], &detail["worker"]), (&"0".into(), &"w-1".into()));
    let reason = detail["reason"].as_str().expect("text");
    assert!(reason.contains("journal message 1 is ours and cannot be decoded"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_with_one_name_and_workers_with_other_settings_are_told() {
    let stage = Stage::bare().await;
    topology().apply(&stage.broker).await.expect("streams");
    let start = async |folder: &str, name: &str, path: &str, more: &[&str]| {
        let plugin = format!("reports=http://127.0.0.1:9/{path}");
        let own = ["--partitions", "1", "--name", name, "--plugin", &plugin];
        Running::worker(&stage, folder, "coordinator", &[&own, more].concat()).await
    };
    let key = stage.folder.path().join("first").join("audit.key").display().to_string();
    let first = start("first", "w-1", "token-a", &[]).await;
    let same = start("second", "w-2", "token-a", &["--audit-key", &key]).await;
    let have_answered = |ended: &Ended| {
        let answers = ended.check("name", "answers");
        let found = answers.map_or_else(String::new, |check| check["found"].to_string());
        found.contains("w-1 ") && found.contains("w-2 ")
    };
    let doctor = async || stage.run(&["doctor", "--json"]).await;
    let alike = examined_until(&doctor, have_answered).await;
    assert_eq!((health(&alike, "names"), health(&alike, "settings")), ("ok".into(), "ok".into()));

    let differing = ["--audit-key", &key, "--keys-max", "5000"];
    let other = start("third", "w-1", "token-b", &differing).await;
    let examined = examined_until(&doctor, |ended| ended.stdout.contains("name_twice")).await;

    let twice = check(&examined, "name_twice");
    assert_eq!((&twice["health"], examined.code), (&"fail".into(), 1));
    let processes = twice["details"][0]["processes"].as_array().expect("a list");
    let processes = processes.iter().map(|process| process["process_id"].as_u64());
    let processes = processes.collect::<Vec<_>>();
    for worker in [&first, &other] {
        assert!(processes.contains(&Some(worker.id().into())), "{twice}");
    }
    let differs = check(&examined, "config_differs");
    assert_eq!(differs["health"], "warn");
    let found = differs["found"].as_str().expect("text");
    let keys_max = format!("5000 at w-1 (process {})", other.id());
    for told in ["`http.plugins.reports` is set at ", "set otherwise at ", &keys_max] {
        assert!(found.contains(told), "{found}");
    }
    assert!(!examined.stdout.contains("token-"), "{}", examined.stdout);
    drop((first, same, other));
}

/// A server whose users may not do everything; it ends with the value.
struct Restricted {
    _server: tokio::process::Child,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Restricted {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let store = folder.path().join("store").display().to_string();
        let config = format!(
            r#"
            listen: "127.0.0.1:{port}"
            jetstream {{ store_dir: "{store}" }}
            authorization {{ users = [
              {{ user: all, password: a }}
              {{ user: some, password: s, permissions: {{
                  publish: {{ deny: ["fermata.commands.>", "fermata.journal.>"] }}
                  subscribe: {{ deny: ["fermata.audit.>"] }}
              }} }}
            ] }}"#
        );
        let file = folder.path().join("server.conf");
        std::fs::write(&file, config).expect("a file");
        let (binary, _) = fermata_jetstream::server::find_server_binary().expect("a nats-server");
        let mut server = tokio::process::Command::new(binary);
        server.arg("-c").arg(&file).stderr(std::process::Stdio::null()).kill_on_drop(true);
        let server = server.spawn().expect("a server");
        Self { _server: server, _folder: folder, port }
    }

    fn url(&self, user: &str) -> String {
        format!("nats://{user}@127.0.0.1:{}", self.port)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_does_not_allow_is_named_though_the_client_sees_a_time_out() {
    let server = Restricted::start().await;
    let broker = Broker::connect(&server.url("all:a"), ConnectOptions::default()).await;
    let broker = broker.expect("a connection");
    topology().apply(&broker).await.expect("streams");
    let publisher = Publisher::new(&broker, PublisherOptions::default()).await.unwrap();
    let config = serde_json::json!({
        "engine": "e", "partitions": 1, "audit_vkey": signer().vkey(), "version": 1,
    });
    let payload = config.to_string().into_bytes().into();
    agree_on_engine_config(&broker, &publisher, "w", payload).await.expect("an agreement");

    let restricted = server.url("some:s");
    let examined = run(&["--nats-url", &restricted, "doctor", "--json"]).await;
    let as_worker = run(&["--nats-url", &restricted, "doctor", "--json", "--as-worker"]).await;
    let allowed =
        run(&["--nats-url", &server.url("all:a"), "doctor", "--json", "--as-worker"]).await;

    let details = |ended: &Ended| check(ended, "permission_missing")["details"].to_string();
    let (examined, as_worker) = (details(&examined), details(&as_worker));
    for subject in ["fermata.commands.control", "fermata.audit.*"] {
        assert!(examined.contains(subject), "{subject}: {examined}");
    }
    assert!(!examined.contains("fermata.journal"), "{examined}");
    assert!(as_worker.contains("fermata.journal.control"), "{as_worker}");
    assert_eq!(health(&allowed, "permissions"), "ok");
    // Nothing was stored by trying.
    let reader = fermata_jetstream::StreamReader::new(&broker);
    for stream in ["EVENTS", "COMMANDS_control", "JOURNAL_control", "DEAD", "KV_fermata-leases"] {
        assert_eq!(reader.stream_state(stream).await.expect("a stream").last_sequence, 0);
    }
}

/// The broker of `stage` by another address, where `change` is made to what it says.
async fn that_says(
    stage: &Stage,
    change: impl Fn(&str) -> String + Send + Copy + 'static,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let server = stage.server.url().strip_prefix("nats://").unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (mut from_client, mut to_client) = client.into_split();
            let server = TcpStream::connect(&server).await.unwrap();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let mut bytes = vec![0; 1 << 20];
                while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
                    let said = change(std::str::from_utf8(&bytes[..length]).expect("text"));
                    if to_client.write_all(said.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// `text` with another year in what the broker says of its time; the length stays.
fn a_year_ahead(text: &str) -> String {
    let mut parts = text.split("\"ts\":\"");
    let mut said = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let year = part.get(..4).and_then(|year| year.parse::<u32>().ok());
        let rest = year.and_then(|_| part.get(4..)).unwrap_or(part);
        let year = year.map(|year| (year + 1).to_string()).unwrap_or_default();
        said = format!("{said}\"ts\":\"{year}{rest}");
    }
    said
}

#[tokio::test]
async fn a_broker_that_is_too_old_and_one_with_another_time_are_told() {
    let stage = Stage::new().await;
    let old = that_says(&stage, |text| {
        let said = text.split_once("\"version\":\"").filter(|_| text.starts_with("INFO "));
        let Some((before, (_, rest))) =
            said.and_then(|(before, rest)| Some((before, rest.split_once('"')?)))
        else {
            return text.to_owned();
        };
        format!("{before}\"version\":\"2.11.9\"{rest}")
    });
    let (old, ahead) = (old.await, that_says(&stage, a_year_ahead).await);

    let at = async |url: &str| run(&["doctor", "--json", "--nats-url", url]).await;
    let examined = examined_until(async || at(&old).await, is_in_time).await;
    assert_eq!(check(&examined, "server_too_old")["found"], "version 2.11.9");
    assert_eq!(examined.code, 1, "{}", examined.stdout);

    let is_compared = |ended: &Ended| ended.check("code", "clock_skew").is_some();
    let examined = examined_until(async || at(&ahead).await, is_compared).await;
    assert_eq!(check(&examined, "clock_skew")["health"], "fail", "{}", examined.stdout);
    assert_eq!((examined.code, health(&examined, "broker")), (1, "ok".into()));
    examined_until(async || at(&stage.server.url()).await, is_in_time).await;
}
