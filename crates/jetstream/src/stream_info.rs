//! What a stream holds, as its leader says, and whether who says it is believed (ADR 29).
//!
//! Two kinds of answers look like a stream that lost what it had, and are none:
//!
//! - While a stream has no leader, each member of its group answers for it, with what it holds itself, and
//!   names no leader (nats-server 2.15; a new stream's members tell of an empty one).
//! - A leader that lost its replicas goes on answering, with what it had, until it notices.
//!
//! Both are asked again for a while, and are errors then.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, sleep};

use crate::api::{ApiError, READ_ANSWER_LIMIT, ask_to_read};
use crate::connection::Connection;
use crate::pull::nanoseconds;

/// How long a replica may have been silent for its leader to be believed: leaders are heard every second,
/// and no other one is elected before they were silent for 4 s.
const REPLICA_SILENCE_MAX: Duration = Duration::from_secs(4);

/// How long a leader that does not hear a majority is asked again: one that has just been elected hears it
/// soon. A stream without a leader is asked as long as an election may take, [`READ_ANSWER_LIMIT`].
const MAJORITY_PATIENCE: Duration = Duration::from_secs(3);

/// Pause before it is asked again.
const MAJORITY_PAUSE: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
struct Told<T> {
    #[serde(flatten)]
    answer: T,
    /// Nothing where there is one server alone, or that server as the leader.
    cluster: Option<ClusterInfo>,
}

#[derive(Deserialize)]
struct ClusterInfo {
    #[serde(default)]
    leader: Option<String>,
    #[serde(default)]
    replicas: Vec<ReplicaInfo>,
}

#[derive(Deserialize)]
struct ReplicaInfo {
    /// Nanoseconds since the leader last heard it; 0 when it never did.
    #[serde(default)]
    active: u64,
}

impl ClusterInfo {
    fn is_led(&self) -> bool {
        self.leader.as_ref().is_some_and(|leader| !leader.is_empty())
    }

    /// Whether there is a leader that has heard enough replicas lately to make a majority with itself.
    fn is_believed(&self) -> bool {
        let replicas = self.replicas.len();
        let silence_max = nanoseconds(REPLICA_SILENCE_MAX);
        let heard = |replica: &&ReplicaInfo| (1..silence_max).contains(&replica.active);
        let others = self.replicas.iter().filter(heard).count();
        self.is_led() && (others + 1) * 2 > replicas + 1
    }

    fn patience(&self) -> Duration {
        if self.is_led() { MAJORITY_PATIENCE } else { READ_ANSWER_LIMIT }
    }
}

/// Asks what `stream` holds; `body` says what else to tell, `()` nothing.
///
/// # Errors
/// When the broker refuses or does not answer, and [`ApiError::CutOff`] when for 3 s a leader answers that
/// is not believed, or for 20 s there is none.
///
/// # Cancel safety
/// Can be dropped.
pub(crate) async fn stream_info<T: DeserializeOwned>(
    connection: &Connection,
    stream: &str,
    body: &impl Serialize,
) -> Result<T, ApiError> {
    let begun = Instant::now();
    loop {
        let told: Told<T> = ask_to_read(connection, &format!("STREAM.INFO.{stream}"), body).await?;
        let Some(cluster) = told.cluster.filter(|cluster| !cluster.is_believed()) else {
            return Ok(told.answer);
        };
        if begun.elapsed() >= cluster.patience() {
            return Err(ApiError::CutOff { stream: stream.to_owned() });
        }
        sleep(MAJORITY_PAUSE).await;
    }
}

#[derive(Deserialize)]
struct Timed {
    /// RFC 3339; every answer of the broker about a stream has it.
    #[serde(default)]
    ts: String,
}

/// The time of the broker that answers for `stream`, since 1970: what is stored carries its time, with which
/// that of another machine cannot be compared. Nothing where it tells none.
///
/// # Errors
/// As [`stream_info`].
///
/// # Cancel safety
/// Can be dropped.
pub(crate) async fn broker_time(
    connection: &Connection,
    stream: &str,
) -> Result<Option<Duration>, ApiError> {
    let told: Timed = stream_info(connection, stream, &()).await?;
    Ok(since_1970(&told.ts))
}

fn since_1970(text: &str) -> Option<Duration> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos()).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whether a leader is believed that heard its replicas so many milliseconds ago; 0 is never.
    fn is_believed(leader: &serde_json::Value, heard_ms_ago: &[u64]) -> bool {
        let replica = |ms: &u64| json!({ "name": "n", "active": ms * 1_000_000 });
        let replicas = heard_ms_ago.iter().map(replica).collect::<Vec<_>>();
        let cluster = json!({ "leader": leader, "replicas": replicas });
        let info: ClusterInfo = serde_json::from_value(cluster).expect("an answer of the broker");
        info.is_believed()
    }

    #[test]
    fn a_leader_is_believed_while_it_hears_a_majority() {
        for (heard_ms_ago, believed) in [
            (&[][..], true),
            (&[800, 900], true),
            (&[800, 60_000], true),
            (&[800, 0], true),
            (&[4_000, 60_000], false),
            (&[0, 0], false),
            (&[800, 900, 60_000, 60_000], true),
            (&[800, 60_000, 60_000, 60_000], false),
        ] {
            assert_eq!(is_believed(&json!("n-1"), heard_ms_ago), believed, "{heard_ms_ago:?}");
        }
    }

    #[test]
    fn the_time_of_the_broker_is_read_to_the_nanosecond() {
        let read = since_1970("2026-11-22T14:38:16.123456789Z");

        assert_eq!(read, Some(Duration::from_nanos(1_795_358_296_123_456_789)));
        assert_eq!(since_1970(""), None);
    }

    #[test]
    fn who_answers_for_a_stream_without_a_leader_is_not_believed() {
        // The members of its group are listed, each as one that was heard.
        assert!(!is_believed(&json!(null), &[800, 900, 800]));
        assert!(!is_believed(&json!(""), &[800, 900, 800]));
        assert!(!is_believed(&json!(null), &[]));
    }
}
