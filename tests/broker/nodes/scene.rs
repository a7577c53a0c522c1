//! An engine with one workflow that every `demo.start` begins, and a plugin.

use std::time::Duration;

use fermata_core::command::{CancelCommand, Command};
use fermata_core::identity::RunId;
use fermata_core::plan::FailureClass;
use fermata_core::record::{Body, Kind};
use fermata_executors::ExecutorsConfig;
use fermata_jetstream::Durability;
use fermata_tests::journal::{Entry, count, of_run, records_until, run_of};
use fermata_tests::{Sink, TestBroker, TestEngine, definitions, events};
use serde_json::Value;
use uuid::Uuid;

pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Scene {
    // Ends last: the engine needs it to shut down.
    pub(super) engine: fermata_actors::Engine,
    pub(super) sink: Sink,
    executors: ExecutorsConfig,
    pub(super) broker: TestBroker,
}

impl Scene {
    pub(super) async fn with(workflow: &str) -> Self {
        Self::with_executors(workflow, |_| ()).await
    }

    /// As [`Self::with`], where executors may do more than call the sink.
    pub(super) async fn with_executors(
        workflow: &str,
        configure: impl FnOnce(&mut ExecutorsConfig),
    ) -> Self {
        let broker = TestBroker::start(Durability::Process).await;
        let sink = Sink::start().await;
        let mut executors = sink.executors();
        configure(&mut executors);
        let engine = TestEngine::at(broker.url()).with_executors(executors.clone());
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
        Self { engine, sink, executors, broker }
    }

    /// The same, after the engine has ended and another one has taken over.
    pub(super) async fn restarted(self) -> Self {
        let Self { engine, sink, executors, broker } = self;
        engine.shut_down().await;
        let engine = TestEngine::at(broker.url()).with_executors(executors.clone());
        let engine = engine.start(broker.folder()).await;
        engine.ready().await;
        Self { engine, sink, executors, broker }
    }

    pub(super) async fn publish(&self, id: u64) {
        events::publish(&self.engine.ports().publisher, "demo.start", id).await;
    }

    pub(super) async fn until(&self, enough: impl Fn(&[Entry]) -> bool) -> Vec<Entry> {
        records_until(&self.engine.ports().reader, 2, LIMIT, enough).await
    }

    pub(super) async fn until_kind(&self, kind: Kind) -> (Vec<Entry>, RunId) {
        let records = self.until(|records| count(records, kind) > 0).await;
        let run = run_of(&records, kind).expect("a run");
        (records, run)
    }

    /// Sends a message whose answer is to go to `reply`, and waits until the broker has it.
    pub(super) async fn ask_with_reply(&self, subject: &str, reply: &str, message: &Value) {
        let client = async_nats::connect(self.broker.url()).await.expect("a connection");
        let (subject, reply) = (subject.to_owned(), reply.to_owned());
        let payload = message.to_string().into();
        client.publish_with_reply(subject, reply, payload).await.expect("sent");
        client.flush().await.expect("flushed");
    }

    pub(super) async fn cancel(&self, run: RunId, id: Uuid) -> String {
        let core = &self.engine.ports().core;
        let inbox = format!("_INBOX.test.{}", Uuid::from_bytes(rand::random()).simple());
        let mut answers = core.subscribe(&inbox).await.expect("a subscription");
        let (by, reason) = ("ada".to_owned(), "not needed any more".to_owned());
        let command = CancelCommand { id, run, by, reason, reply_to: Some(inbox.into()) };
        let partition = run.partition();
        definitions::publish_command(&self.engine, partition, Command::Cancel(command)).await;
        let answer = tokio::time::timeout(LIMIT, answers.next()).await.expect("an answer in time");
        let answer: serde_json::Value =
            serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON");
        answer["answer"].as_str().expect("an answer").to_owned()
    }
}

/// The class and text with which a node of `run` failed for good.
pub(super) fn failure_of(records: &[Entry], run: RunId) -> Option<(FailureClass, String)> {
    of_run(records, run).into_iter().find_map(|(_, record)| match &record.body {
        Body::NodeFailed(failed) => Some((failed.class, failed.detail.clone())),
        _ => None,
    })
}

/// What the node `id` of `run` answered.
pub(super) fn output_of(records: &[Entry], run: RunId, id: &str) -> Option<Value> {
    of_run(records, run).into_iter().find_map(|(header, record)| match &record.body {
        Body::NodeSucceeded(succeeded) if header.node.as_deref() == Some(id) => {
            Some(succeeded.output.parse())
        }
        _ => None,
    })
}
