//! Ending a worker in order: what is under way ends and is done once, and
//! another worker takes over at once.

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use fermata_core::record::Kind;
use fermata_jetstream::leases::{Leases, partition_key};
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use crate::engine::event;
use crate::operations::{count, kinds};
use crate::process::Running;
use crate::support::{SOON, Stage, write_key};

const WORKFLOW: &str = "
workflow:
  name: slow
  version: '1'
  tasks:
    - { id: held, http: { plugin: gate, path: /held, body: '{}' } }
    - { id: after, depends_on: [held], http: { plugin: gate, path: /after, body: '{}' } }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: slow.start, workflow: { name: slow, version: '1' } }
";

/// A plugin that answers when it is let; it ends with the test.
pub struct Gate {
    /// Where it listens.
    pub url: String,
    /// Path and attempt of each call, when it comes.
    calls: mpsc::UnboundedReceiver<(String, String)>,
    answers: Arc<Semaphore>,
}

impl Gate {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (seen, calls) = mpsc::unbounded_channel();
        let answers = Arc::new(Semaphore::new(0));
        let route = |path: &'static str, waits: bool| {
            let (seen, answers) = (seen.clone(), answers.clone());
            let call = move |headers: HeaderMap| async move {
                let attempt = headers["fermata-attempt"].to_str().expect("text").to_owned();
                let _ = seen.send((path.to_owned(), attempt));
                if waits {
                    answers.acquire().await.expect("a gate").forget();
                }
                "{}"
            };
            post(call)
        };
        let router = Router::new()
            .route("/held", route("held", true))
            .route("/after", route("after", false));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, calls, answers }
    }

    pub async fn next(&mut self) -> (String, String) {
        let call = tokio::time::timeout(SOON, self.calls.recv()).await.expect("in time");
        call.expect("a running plugin")
    }

    pub fn let_one_go(&self) {
        self.answers.add_permits(1);
    }
}

async fn worker(stage: &Stage, gate: &Gate, name: &str, arguments: &[&str]) -> Running {
    let key = stage.folder.path().join("audit.key");
    write_key(&key);
    let key = key.display().to_string();
    let plugin = format!("gate={}", gate.url);
    let own = [
        ["--name", name],
        ["--audit-key", &key],
        ["--plugin", &plugin],
        ["--partitions", "2"],
        ["--http", "127.0.0.1:0"],
    ];
    let all = [own.as_flattened(), arguments].concat();
    Running::worker(stage, name, "listener,matcher,builder,coordinator", &all).await
}

/// A worker with a run whose first attempt is held by the plugin.
async fn holding(stage: &Stage, gate: &mut Gate, arguments: &[&str]) -> Running {
    let worker = worker(stage, gate, "w-1", arguments).await;
    worker.until("/ready", |answer| answer.status == 200).await;
    let path = |name: &str| stage.folder.path().join(name).display().to_string();
    for (command, yaml) in [("workflow", WORKFLOW), ("strategy", STRATEGIES)] {
        std::fs::write(path(command), yaml).expect("a file");
        let applied = stage.run(&[command, "apply", &path(command)]).await;
        assert_eq!(applied.code, 0, "{}{}", applied.stdout, applied.stderr);
        worker.logs.until_applied(&applied.stdout).await;
    }
    std::fs::write(path("event.json"), event("e", "slow.start").to_string()).expect("a file");
    let published = stage.run(&["publish", &path("event.json")]).await;
    assert_eq!(published.code, 0, "{}{}", published.stdout, published.stderr);
    assert_eq!(gate.next().await, ("held".to_owned(), "1".to_owned()));
    worker
}

async fn all_kinds(stage: &Stage) -> Vec<Kind> {
    let reader = fermata_jetstream::StreamReader::new(&stage.broker);
    let mut all = kinds(&reader, "0").await;
    all.extend(kinds(&reader, "1").await);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_ends_in_time_is_made_once_and_its_run_goes_on_elsewhere() {
    let (stage, mut gate) = (Stage::bare().await, Gate::start().await);
    let mut first = holding(&stage, &mut gate, &["--drain-seconds", "25"]).await;

    first.signal(Signal::TERM);
    first.until("/ready", |answer| answer.reasons() == ["draining"]).await;
    let second = worker(&stage, &gate, "w-2", &[]).await;
    // What has nothing under way is taken over while the first one still waits.
    second
        .until("/metrics", |answer| {
            answer.body.contains("{partition=\"control\",state=\"owning\"} 1\n")
        })
        .await;
    gate.let_one_go();
    let ended = first.ended().await;
    // The lease of one that was killed would be its own for another 10 s at least.
    let leases = Leases::open(&stage.broker).await.expect("leases");
    for partition in ["control", "0", "1"] {
        let lease = leases.get(&partition_key(partition)).await.expect("an answer");
        let owner = lease.as_ref().and_then(|lease| lease.worker());
        assert_ne!(owner, Some("w-1"), "partition {partition} is still its own");
    }
    let after = gate.next().await;

    assert_eq!(ended, Some(0), "{}", first.logs.all());
    assert_eq!(after, ("after".to_owned(), "1".to_owned()));
    second
        .until("/metrics", |answer| {
            answer.body.contains("agent_workflow_latency_p95_seconds_count 1\n")
        })
        .await;
    let kinds = all_kinds(&stage).await;
    for (kind, expected) in
        [(Kind::NodeDispatched, 2.0), (Kind::NodeSucceeded, 2.0), (Kind::RunSucceeded, 1.0)]
    {
        assert_eq!(count(&kinds, kind), expected, "{kind:?}");
    }
    assert!(gate.calls.try_recv().is_err(), "no call was repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_does_not_end_in_time_is_told_of_and_made_again_elsewhere() {
    let (stage, mut gate) = (Stage::bare().await, Gate::start().await);
    let mut first = holding(&stage, &mut gate, &["--drain-seconds", "1"]).await;

    first.signal(Signal::INT);
    let ended = first.ended().await;
    let second = worker(&stage, &gate, "w-2", &[]).await;
    let again = gate.next().await;

    assert_eq!(ended, Some(1), "{}", first.logs.all());
    assert!(first.logs.all().contains("attempts had not ended within the limit"));
    assert_eq!(again, ("held".to_owned(), "2".to_owned()), "{}", second.logs.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let (stage, mut gate) = (Stage::bare().await, Gate::start().await);
    let mut worker = holding(&stage, &mut gate, &["--drain-seconds", "3600"]).await;

    worker.signal(Signal::TERM);
    worker.until("/ready", |answer| answer.reasons() == ["draining"]).await;
    worker.signal(Signal::TERM);

    assert_eq!(worker.ended().await, Some(130), "{}", worker.logs.all());
}
