//! An engine whose tasks others run, workers that can be killed, and a service
//! that answers when it is told to.

use std::path::PathBuf;
use std::time::Duration;

use fermata_actors::Engine;
use fermata_actors::task_worker::ServedQueues;
use fermata_core::identity::RunId;
use fermata_core::record::Kind;
use fermata_executors::ExecutorsConfig;
use fermata_jetstream::core_messages::{CoreMessage, Subscription};
use fermata_jetstream::work_queue::WorkQueue;
use fermata_jetstream::{Bytes, Durability};
use fermata_tests::journal::{Entry, count, records_until, run_of};
use fermata_tests::{TestBroker, TestEngine, definitions, events};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// How long the broker waits to hear of a task, where a scene says nothing else.
pub(super) const WAIT: Duration = Duration::from_secs(1);

pub(super) struct Scene {
    // Ends last: the engine needs it to shut down.
    pub(super) engine: Engine,
    pub(super) asked: Subscription,
    pub(super) broker: TestBroker,
    /// How long the broker waits to hear of a task.
    pub(super) wait: Duration,
}

fn executors() -> ExecutorsConfig {
    let mut executors = ExecutorsConfig::default();
    executors.nats.subjects = vec!["work.>".to_owned()];
    executors
}

/// A workflow of one task for the queue `gpu` that asks on `work.ask`.
pub(super) fn asking(task: &str, nats: &str) -> String {
    format!(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - {{ id: ask, queue: gpu, {task}, nats: {{ subject: work.ask, body: input.n{nats} }} }}
"
    )
}

impl Scene {
    /// An engine that serves no queue.
    pub(super) async fn with(workflow: &str) -> Self {
        let broker = TestBroker::start(Durability::Process).await;
        let engine = TestEngine::at(broker.url()).with_executors(executors());
        let engine = engine.start(broker.folder()).await;
        engine.ready().await;
        let strategy = "
strategies:
  - name: start
    version: 1
    tenant: '*'
    on: demo.start
    workflow: { name: under-test, version: '1' }
    variables: { n: event.data.n }
";
        definitions::apply_yaml(&engine, &[workflow], strategy).await;
        let asked = engine.ports().core.subscribe("work.>").await.expect("a subscription");
        Self { engine, asked, broker, wait: WAIT }
    }

    /// A worker that does nothing but serve the queue.
    pub(super) async fn worker(&self, name: &str, permits: usize) -> Engine {
        self.worker_at(self.broker.url(), name, permits).await
    }

    /// The same, connected at `url`.
    pub(super) async fn worker_at(&self, url: String, name: &str, permits: usize) -> Engine {
        worker(url, self.broker.folder().to_owned(), name.to_owned(), permits, self.wait).await
    }

    /// The same in a runtime of its own, with which it dies.
    pub(super) async fn mortal_worker(&self, name: &str) -> Runtime {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (url, folder) = (self.broker.url(), self.broker.folder().to_owned());
        let worker = worker(url, folder, name.to_owned(), 4, self.wait);
        runtime.spawn(worker).await.expect("a worker");
        runtime
    }

    /// Takes from the queue as a worker does that never answers.
    pub(super) async fn by_hand(&self) -> WorkQueue {
        WorkQueue::open(&self.engine.ports().broker, "gpu", self.wait).await.expect("a queue")
    }

    pub(super) async fn publish(&self, id: u64) {
        events::publish(&self.engine.ports().publisher, "demo.start", id).await;
    }

    /// The next question of a task.
    pub(super) async fn question(&mut self) -> CoreMessage {
        let next = tokio::time::timeout(LIMIT, self.asked.next()).await;
        next.expect("a question in time").expect("a question")
    }

    /// Whether another question comes within `limit`.
    pub(super) async fn is_asked_within(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.asked.next()).await.is_ok()
    }

    pub(super) async fn answer(&self, question: &CoreMessage) {
        let to = question.reply.clone().expect("somebody waits");
        let core = &self.engine.ports().core;
        core.publish_core(to, Bytes::from_static(b"{\"done\":true}")).await.expect("an answer");
    }

    pub(super) async fn until(&self, enough: impl Fn(&[Entry]) -> bool) -> Vec<Entry> {
        records_until(&self.engine.ports().reader, 2, LIMIT, enough).await
    }

    pub(super) async fn until_kinds(&self, kind: Kind, number: usize) -> Vec<Entry> {
        self.until(|records| count(records, kind) >= number).await
    }

    pub(super) async fn until_kind(&self, kind: Kind) -> (Vec<Entry>, RunId) {
        let records = self.until_kinds(kind, 1).await;
        let run = run_of(&records, kind).expect("a run");
        (records, run)
    }

    /// Asks the broker's API.
    pub(super) async fn api(&self, request: &str, body: &Value) -> Value {
        let client = async_nats::connect(self.broker.url()).await.expect("a connection");
        let payload = body.to_string().into();
        let answer = client.request(format!("$JS.API.{request}"), payload).await;
        serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON")
    }

    /// How many tasks of each queue may wait from now on.
    pub(super) async fn bound_queues(&self, tasks: i64) {
        let mut config = self.api("STREAM.INFO.TASKS", &json!({})).await["config"].take();
        config["max_msgs_per_subject"] = tasks.into();
        let answer = self.api("STREAM.UPDATE.TASKS", &config).await;
        assert!(answer["error"].is_null(), "{answer}");
    }

    /// How often the broker gave a task to a worker.
    pub(super) async fn deliveries(&self) -> u64 {
        let info = self.api("CONSUMER.INFO.TASKS.tasks-gpu", &json!({})).await;
        info["delivered"]["consumer_seq"].as_u64().expect("a number")
    }

    /// Waits until that is so many.
    pub(super) async fn until_deliveries(&self, deliveries: u64) {
        until(async || self.deliveries().await == deliveries).await;
    }

    /// Waits until the stream of tasks holds so many.
    pub(super) async fn until_tasks_are_stored(&self, tasks: u64) {
        until(async || self.tasks_stored().await == tasks).await;
    }

    /// Waits until the newest task has this sequence.
    pub(super) async fn until_last_task(&self, sequence: u64) {
        let last = async || {
            let info = self.api("STREAM.INFO.TASKS", &json!({})).await;
            info["state"]["last_seq"].as_u64() == Some(sequence)
        };
        until(last).await;
    }

    pub(super) async fn tasks_stored(&self) -> u64 {
        let info = self.api("STREAM.INFO.TASKS", &json!({})).await;
        info["state"]["messages"].as_u64().expect("a number")
    }
}

async fn worker(
    url: String,
    folder: PathBuf,
    name: String,
    permits: usize,
    wait: Duration,
) -> Engine {
    let queues = ServedQueues { names: vec!["gpu".to_owned()], permits, wait };
    let engine = TestEngine::at(url).named(&name).with_roles([]).with_queues(queues);
    engine.with_executors(executors()).start(&folder).await
}

/// Waits until `holds`.
async fn until(holds: impl AsyncFn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LIMIT, "it does not come to hold");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// The value of a header of a question.
pub(super) fn header(question: &CoreMessage, name: &str) -> String {
    let headers = question.headers.as_ref().expect("headers");
    headers.get(name).expect("the header").as_str().to_owned()
}
