//! What a cluster says about its streams, and what each of its servers holds of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::{Broker, StoredMessage, StreamReader};
use serde_json::{Value, json};

use crate::audit::messages;

/// How long the API may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long a stream may take to have the leader that is wanted.
const LEADER_LIMIT: Duration = Duration::from_secs(60);

/// Pause between two looks at it.
const POLL: Duration = Duration::from_millis(50);

/// Asks the broker's JetStream API; nothing when it does not answer.
pub async fn ask(broker: &Broker, operation: &str, body: &Value) -> Option<Value> {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let subject = format!("$JS.API.{operation}");
    let answer = CoreMessages::new(broker).request(&subject, body, ANSWER_LIMIT).await.ok()?;
    serde_json::from_slice(&answer.payload).ok()
}

/// Name of the server that leads a stream, as far as it has one.
pub async fn leader_of(broker: &Broker, stream: &str) -> Option<String> {
    let info = ask(broker, &format!("STREAM.INFO.{stream}"), &Value::Null).await?;
    info["cluster"]["leader"].as_str().map(str::to_owned)
}

/// Makes `server` the leader of a stream.
///
/// # Panics
///
/// When it does not become the leader.
pub async fn lead(broker: &Broker, stream: &str, server: &str) {
    let begun = Instant::now();
    while leader_of(broker, stream).await.as_deref() != Some(server) {
        assert!(begun.elapsed() < LEADER_LIMIT, "{server} does not come to lead {stream}");
        let wanted = json!({ "placement": { "preferred": server } });
        let _ = ask(broker, &format!("STREAM.LEADER.STEPDOWN.{stream}"), &wanted).await;
        tokio::time::sleep(POLL).await;
    }
}

/// How often servers are read again whose streams went on between two of them.
const READS_MAX: u32 = 5;

/// What every server holds of a stream, each read as its leader, is the same; returns it.
///
/// # Panics
///
/// When it is not.
pub async fn the_same_on_all(
    broker: &Broker,
    stream: &str,
    servers: &[String],
) -> Vec<StoredMessage> {
    for _ in 0..READS_MAX {
        if let Some(held) = same_now(broker, stream, servers).await {
            return held;
        }
    }
    panic!("{stream} goes on while its servers are read");
}

/// The same, read once; nothing when another server leads by now, and when a later one has more, and
/// all that was read before.
async fn same_now(broker: &Broker, stream: &str, servers: &[String]) -> Option<Vec<StoredMessage>> {
    let reader = StreamReader::new(broker);
    let mut first: Option<Vec<StoredMessage>> = None;
    for server in servers {
        lead(broker, stream, server).await;
        let mut held = messages(&reader, stream).await;
        if leader_of(broker, stream).await.as_ref() != Some(server) {
            return None;
        }
        let Some(first) = &mut first else {
            first = Some(held);
            continue;
        };
        // What was purged between the two is on neither.
        if let (Some(one), Some(other)) = (first.first(), held.first()) {
            let from = one.sequence.max(other.sequence);
            first.retain(|message| message.sequence >= from);
            held.retain(|message| message.sequence >= from);
        }
        assert!(first.len() <= held.len(), "{stream}: {server} has less than {}", servers[0]);
        for (one, other) in first.iter().zip(&held) {
            let same = one.sequence == other.sequence
                && one.subject == other.subject
                && one.writer == other.writer
                && one.broker_time_ns == other.broker_time_ns
                && one.payload == other.payload;
            assert!(same, "message {} of {stream} on {} and {server}", one.sequence, servers[0]);
        }
        if first.len() < held.len() {
            return None;
        }
    }
    Some(first.unwrap_or_default())
}
