//! A user who goes on publishing whatever happens: each event again under the
//! same id until its acknowledgement is there.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use fermata_jetstream::{PublishOutcome, Publisher};
use fermata_tests::events;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Time between two events, where nothing else is said.
const PAUSE: Duration = Duration::from_millis(8);
/// Time before an event is published again that is not known to be stored.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Events that are under way at once.
const UNDER_WAY_MAX: usize = 64;

pub const WORKFLOWS: [&str; 4] = [
    "
workflow:
  name: calls
  version: '1'
  tasks:
    - id: first
      http: { plugin: sink, path: /unsteady, body: \"{'n': input.n}\" }
      timeout: 500ms
      retry: { max_attempts: 10, initial: 20ms, max: 200ms, on: [timeout, connect, http_5xx] }
    - { id: left, depends_on: [first], noop: {} }
    - id: right
      depends_on: [first]
      http: { plugin: sink, path: /drop-once, body: tasks.first.output }
      timeout: 2s
      retry: { max_attempts: 10, initial: 20ms, max: 200ms, on: [timeout, connect, http_5xx] }
    - { id: last, depends_on: [left, right], transform: \"{'n': input.n}\" }
",
    "
workflow:
  name: noops
  version: '1'
  tasks:
    - { id: a, noop: {} }
    - { id: b, depends_on: [a], noop: {} }
    - { id: c, depends_on: [b], noop: {} }
",
    "
workflow:
  name: talks
  version: '1'
  tasks:
    - { id: pause, delay: 50ms }
    - { id: say, depends_on: [pause], emit: { type: load.said, data: \"{'n': input.n}\" } }
    - { id: hear, wait: { event: load.tell, correlation: input.key, timeout: 10m } }
    - id: serve
      depends_on: [say, hear]
      queue: work
      # Nothing that hangs: a time limit here is longer than the broker's wait for a worker's word.
      http: { plugin: sink, path: /drop-once, body: \"{'n': input.n}\" }
      timeout: 60s
      retry: { max_attempts: 10, initial: 20ms, max: 200ms, on: [timeout, connect, http_5xx] }
",
    "
workflow:
  name: pauses
  version: '1'
  tasks:
    - { id: rest, delay: 400ms }
    - id: after
      depends_on: [rest]
      http: { plugin: sink, path: /drop-once, body: \"{'n': input.n}\" }
      timeout: 2s
      retry: { max_attempts: 10, initial: 20ms, max: 200ms, on: [timeout, connect, http_5xx] }
",
];

/// The node of a run that rests, and how long.
pub const REST: (&str, Duration) = ("rest", Duration::from_millis(400));

/// The queue that workers serve.
pub const QUEUE: &str = "work";

pub const STRATEGIES: &str = "
strategies:
  - { name: calls, version: 1, tenant: '*', on: load.call, workflow: { name: calls, version: '1' }, variables: { n: event.data.n } }
  - { name: noops, version: 1, tenant: '*', on: load.noop, workflow: { name: noops, version: '1' } }
  - { name: talks, version: 1, tenant: '*', on: load.talk, workflow: { name: talks, version: '1' }, variables: { n: event.data.n, key: event.id } }
  - { name: pauses, version: 1, tenant: '*', on: load.pause, workflow: { name: pauses, version: '1' }, variables: { n: event.data.n } }
  - { name: ignore, version: 1, tenant: '*', on: load.ignore, action: ignore }
  - { name: said, version: 1, tenant: '*', on: load.said, action: ignore }
";

/// Whether a node of the workflows calls the sink.
pub fn is_http(node: &str) -> bool {
    matches!(node, "first" | "right" | "serve" | "after")
}

/// What was published and acknowledged.
#[derive(Debug, Default)]
pub struct Published {
    /// Sequence in EVENTS and bytes of each.
    pub acknowledged: Vec<(u64, Bytes)>,
    /// Publishes whose outcome was not known, or that were refused.
    pub repeated: u64,
    /// The longest time between two acknowledgements.
    pub longest_pause: Duration,
    /// From when to when events were published, nanoseconds since 1970.
    pub during_ns: Range<i64>,
}

/// The user.
pub struct Load {
    stop: watch::Sender<bool>,
    begun: watch::Receiver<u64>,
    kinds: &'static [&'static str],
    task: JoinHandle<Published>,
}

impl Load {
    /// Begins to publish; `kinds` are taken in turn.
    pub fn start(publisher: Publisher, kinds: &'static [&'static str]) -> Self {
        Self::start_at(publisher, kinds, PAUSE)
    }

    /// The same with this time between two events.
    pub fn start_at(publisher: Publisher, kinds: &'static [&'static str], pause: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (begins, begun) = watch::channel(0);
        let task = tokio::spawn(publish_until(publisher, kinds, pause, begins, stopped));
        Self { stop, begun, kinds, task }
    }

    /// What somebody needs to publish events again.
    pub fn past(&self) -> Past {
        Past { begun: self.begun.clone(), kinds: self.kinds }
    }

    /// Ends with everything acknowledged that was begun.
    pub async fn stop(self) -> Published {
        self.stop.send_replace(true);
        self.task.await.expect("a user who does not panic")
    }
}

/// What was published so far.
#[derive(Clone)]
pub struct Past {
    begun: watch::Receiver<u64>,
    kinds: &'static [&'static str],
}

impl Past {
    /// How many events there are.
    pub fn count(&self) -> u64 {
        *self.begun.borrow()
    }

    /// The subject and the bytes of one.
    pub fn event(&self, number: u64) -> (String, Bytes) {
        let (kind, told) = told(self.kinds, number);
        (subject_of(kind), events::event(kind, told))
    }
}

/// Kind and id of an event by its number: every tenth repeats an earlier one.
fn told(kinds: &'static [&'static str], number: u64) -> (&'static str, u64) {
    let id = if number % 10 == 9 { number - 7 } else { number };
    (kinds[usize::try_from(id).expect("a small number") % kinds.len()], id)
}

fn subject_of(kind: &str) -> String {
    format!("fermata.events.{}.{kind}", events::TENANT)
}

/// Most are calls and noops; some nobody wants; every tenth repeats an earlier one.
pub const MIXED: &[&str] =
    &["load.call", "load.noop", "load.noop", "load.call", "load.ignore", "load.noop", "load.typo"];
/// The same, and runs that pause, publish, wait for each other's events and use a queue.
pub const WIDE: &[&str] = &[
    "load.call",
    "load.noop",
    "load.talk",
    "load.noop",
    "load.call",
    "load.ignore",
    "load.talk",
    "load.noop",
    "load.typo",
];
/// Runs that rest and then call, and calls that are tried again: all of them by journal time.
pub const TIMED: &[&str] = &["load.pause", "load.call", "load.pause", "load.noop"];
/// All kinds of runs, and events that begin none.
pub const ALL: &[&str] = &[
    "load.call",
    "load.noop",
    "load.talk",
    "load.pause",
    "load.noop",
    "load.ignore",
    "load.call",
    "load.typo",
];
/// What is published behind each `load.talk`: the event that its run waits for.
const TELL: &str = "load.tell";
/// Calls only.
pub const CALLS: &[&str] = &["load.call"];

async fn publish_until(
    publisher: Publisher,
    kinds: &'static [&'static str],
    pause: Duration,
    begins: watch::Sender<u64>,
    stopped: watch::Receiver<bool>,
) -> Published {
    let begun_ns = now_ns();
    let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut under_way = JoinSet::new();
    let mut pace = tokio::time::interval(pause);
    let mut id = 0;
    while !*stopped.borrow() {
        pace.tick().await;
        let permit = room.clone().acquire_owned().await.expect("an open semaphore");
        let (kind, told) = told(kinds, id);
        let publisher = publisher.clone();
        under_way.spawn(async move {
            let mut published = vec![publish(&publisher, kind, events::event(kind, told)).await];
            if kind == "load.talk" {
                published.push(publish(&publisher, TELL, tell(told)).await);
            }
            drop(permit);
            published
        });
        id += 1;
        begins.send_replace(id);
    }
    let mut published = Published { during_ns: begun_ns..now_ns(), ..Published::default() };
    let mut times = Vec::new();
    for (sequence, bytes, repeated, at) in under_way.join_all().await.into_iter().flatten() {
        published.acknowledged.push((sequence, bytes));
        published.repeated += repeated;
        times.push(at);
    }
    times.sort_unstable();
    let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
    published.longest_pause = pauses.max().unwrap_or_default();
    published
}

fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    i64::try_from(now.as_nanos()).expect("a time before 2262")
}

/// The event that the run of the talk `id` waits for.
fn tell(id: u64) -> Bytes {
    let event = serde_json::json!({
        "specversion": "1.0", "id": format!("told-{id}"), "source": "/t", "type": TELL,
        "tenant": events::TENANT, "correlationkey": id.to_string(), "data": { "n": id },
    });
    event.to_string().into()
}

async fn publish(publisher: &Publisher, kind: &str, bytes: Bytes) -> (u64, Bytes, u64, Instant) {
    let (sequence, repeated) = publish_until_stored(publisher, subject_of(kind), &bytes).await;
    (sequence, bytes, repeated, Instant::now())
}

/// Publishes the same again until it is stored; its sequence, and how often it was not known to be.
pub async fn publish_until_stored(
    publisher: &Publisher,
    subject: String,
    bytes: &Bytes,
) -> (u64, u64) {
    let mut repeated = 0;
    loop {
        let outcome = publisher.publish(subject.clone(), None, bytes.clone()).await.await;
        if let PublishOutcome::Stored { sequence, .. } = outcome {
            return (sequence, repeated);
        }
        repeated += 1;
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
