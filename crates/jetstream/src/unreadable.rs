//! Finding messages that the client library cannot be given.
//!
//! Whoever may publish may publish a header block that is no text, or a line in it that is no header. The
//! broker stores and delivers it, and the client library gives up the connection over it, each time. The
//! library does not say why; but only the connection that carries deliveries is lost, the other one is not.

use async_nats::Client;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;

use crate::{
    api::{ApiError, ask},
    held_message::{HeldMessage, Wanted, held_message},
};

/// How many messages are looked at, half of them the oldest that are not acknowledged and half the newest
/// that were delivered: twice as many as all workers may hold by default. One between them is found when it
/// has become one of the oldest.
pub(crate) const LOOKED_AT_MAX: u64 = 40_000;

/// How many are asked for at the same time.
const ASKED_AT_ONCE: usize = 64;

#[derive(Deserialize)]
struct ConsumerInfo {
    ack_floor: Sequences,
    delivered: Sequences,
}

#[derive(Deserialize)]
struct Sequences {
    #[serde(default)]
    stream_seq: u64,
}

/// What a look brought.
#[derive(Debug)]
pub(crate) struct Found {
    /// Everything up to here is acknowledged.
    pub(crate) acknowledged_up_to: u64,
    /// The unreadable ones after it, in order.
    pub(crate) messages: Vec<HeldMessage>,
}

/// Looks at what a consumer has delivered and may not be acknowledged.
pub(crate) async fn among_delivered(
    client: &Client,
    stream_name: &str,
    consumer: &str,
) -> Result<Found, ApiError> {
    let operation = format!("CONSUMER.INFO.{stream_name}.{consumer}");
    let info: ConsumerInfo = ask(client, &operation, &()).await?;
    let (floor, delivered) = (info.ack_floor.stream_seq, info.delivered.stream_seq);
    let messages = stream::iter(looked_at(floor, delivered))
        .map(|sequence| held_message(client, stream_name, Wanted::sequence(sequence)))
        .buffered(ASKED_AT_ONCE)
        .try_filter_map(async |held| Ok(held.filter(|held| held.fault.is_some())))
        .try_collect()
        .await?;
    Ok(Found { acknowledged_up_to: floor, messages })
}

/// How many tasks of one queue are looked at, the oldest first: one behind them is found when they are done.
const TASKS_LOOKED_AT_MAX: usize = 1_000;

/// The unreadable ones among the tasks on `subject` that a consumer has delivered, in order. Done tasks are
/// not in the stream any more.
pub(crate) async fn among_tasks(
    client: &Client,
    stream_name: &str,
    consumer: &str,
    subject: &str,
) -> Result<Vec<HeldMessage>, ApiError> {
    let operation = format!("CONSUMER.INFO.{stream_name}.{consumer}");
    let info: ConsumerInfo = ask(client, &operation, &()).await?;
    let mut messages = Vec::new();
    let mut next = info.ack_floor.stream_seq + 1;
    for _ in 0..TASKS_LOOKED_AT_MAX {
        let wanted = Wanted::From { seq: next, next_by_subj: subject };
        let Some(held) = held_message(client, stream_name, wanted).await? else { break };
        if held.sequence > info.delivered.stream_seq {
            break;
        }
        next = held.sequence + 1;
        messages.extend(Some(held).filter(|held| held.fault.is_some()));
    }
    Ok(messages)
}

/// The sequences after `floor` up to `delivered`, as many as are looked at.
fn looked_at(floor: u64, delivered: u64) -> impl Iterator<Item = u64> {
    let oldest_end = delivered.min(floor.saturating_add(LOOKED_AT_MAX / 2));
    let newest_start = oldest_end.max(delivered.saturating_sub(LOOKED_AT_MAX / 2));
    (floor + 1..=oldest_end).chain(newest_start + 1..=delivered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_looked_at_once_while_they_are_few() {
        for (floor, delivered) in [(0, 0), (7, 7), (0, 1), (10, LOOKED_AT_MAX + 10)] {
            assert!(looked_at(floor, delivered).eq(floor + 1..=delivered), "{floor} {delivered}");
        }
    }

    #[test]
    fn of_too_many_the_oldest_and_the_newest_are_looked_at() {
        let delivered = 10 * LOOKED_AT_MAX;
        let sequences = looked_at(5, delivered).collect::<Vec<_>>();

        assert_eq!(sequences.len() as u64, LOOKED_AT_MAX);
        assert_eq!(sequences.first(), Some(&6));
        assert_eq!(sequences.last(), Some(&delivered));
        assert!(sequences.is_sorted_by(|one, next| one < next));
    }
}
