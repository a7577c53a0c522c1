//! Finding messages that the client library cannot be given.
//!
//! Whoever may publish may publish a header block that is no text, or a line in it that is no header. The
//! broker stores and delivers it, and the client library gives up the connection over it, each time. The
//! library does not say why; but only the connection that carries deliveries is lost, the other one is not.

use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;

use tokio::time::Instant;

use crate::{
    api::{ApiError, ask_to_read},
    connection::{Connection, Losses},
    held_message::{HeldMessage, Wanted, held_message},
};

/// How far is looked after the connection was lost alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Messages, and bytes of them, of the oldest that are not acknowledged.
    oldest: (u64, usize),
    /// Of the newest that were delivered.
    newest: (u64, usize),
}

/// After the first loss: what the lost requests can have brought, two of them. What was delivered last is the
/// likeliest reason, and mostly the loss has another one.
pub(crate) const FIRST_LOOK: Reach = Reach { oldest: (0, 0), newest: (1_000, 16 * 1024 * 1024) };

/// After another one soon after: twice as many as all workers may hold by default. An answer carries the whole
/// message, so 64 MiB of either half are 3 KiB for each. One between them is found when it has become one of
/// the oldest.
pub(crate) const SECOND_LOOK: Reach =
    Reach { oldest: (20_000, 64 * 1024 * 1024), newest: (20_000, 64 * 1024 * 1024) };

/// How many are asked for at the same time: of the largest ones 16 MiB.
const ASKED_AT_ONCE: usize = 16;

/// Within which time another loss counts as a second one: an unreadable message costs the connection at each
/// delivery, every 30 s by default, and any other reason hardly comes twice.
const LOST_AGAIN_WITHIN: Duration = Duration::from_secs(60);

/// Losses of the connection that carries deliveries, while the other one stayed.
#[derive(Debug, Default)]
pub(crate) struct LoneLosses {
    last: Option<Instant>,
}

impl LoneLosses {
    /// How far it is worth to look for a message that is the reason of what was lost between two times.
    pub(crate) fn reach(&mut self, before: Losses, after: Losses, now: Instant) -> Option<Reach> {
        if !after.only_consuming_since(before) {
            return None;
        }
        let last = self.last.replace(now);
        let again = after.consumed_since(before) > 1
            || last.is_some_and(|last| now.duration_since(last) <= LOST_AGAIN_WITHIN);
        Some(if again { SECOND_LOOK } else { FIRST_LOOK })
    }
}

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
    connection: &Connection,
    stream_name: &str,
    consumer: &str,
    reach: Reach,
) -> Result<Found, ApiError> {
    let operation = format!("CONSUMER.INFO.{stream_name}.{consumer}");
    let info: ConsumerInfo = ask_to_read(connection, &operation, &()).await?;
    let (floor, delivered) = (info.ack_floor.stream_seq, info.delivered.stream_seq);
    let read = |sequence| held_message(connection, stream_name, Wanted::sequence(sequence));
    let (oldest, newest) = looked_at(floor, delivered, reach);
    let mut messages = faulty(oldest, reach.oldest.1, read).await?;
    let mut newest = faulty(newest.rev(), reach.newest.1, read).await?;
    newest.reverse();
    messages.extend(newest);
    Ok(Found { acknowledged_up_to: floor, messages })
}

/// Those that no client can be given, until so many bytes were read.
async fn faulty<F>(
    sequences: impl Iterator<Item = u64>,
    bytes_max: usize,
    read: impl Fn(u64) -> F,
) -> Result<Vec<HeldMessage>, ApiError>
where
    F: Future<Output = Result<Option<HeldMessage>, ApiError>>,
{
    let mut messages = Vec::new();
    let mut bytes = 0;
    let mut looks = stream::iter(sequences.map(read)).buffered(ASKED_AT_ONCE);
    while let Some(held) = looks.try_next().await? {
        let Some(held) = held else { continue };
        bytes += held.bytes();
        messages.extend(held.fault.is_some().then_some(held));
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(messages)
}

/// How many tasks of one queue are looked at, the oldest first: one behind them is found when they are done.
const TASKS_LOOKED_AT_MAX: usize = 1_000;

/// The unreadable ones among the tasks on `subject` that a consumer has delivered, in order. Done tasks are
/// not in the stream any more.
pub(crate) async fn among_tasks(
    connection: &Connection,
    stream_name: &str,
    consumer: &str,
    subject: &str,
) -> Result<Vec<HeldMessage>, ApiError> {
    let operation = format!("CONSUMER.INFO.{stream_name}.{consumer}");
    let info: ConsumerInfo = ask_to_read(connection, &operation, &()).await?;
    let mut messages = Vec::new();
    let mut next = info.ack_floor.stream_seq + 1;
    for _ in 0..TASKS_LOOKED_AT_MAX {
        let wanted = Wanted::From { seq: next, next_by_subj: subject };
        let Some(held) = held_message(connection, stream_name, wanted).await? else { break };
        if held.sequence > info.delivered.stream_seq {
            break;
        }
        next = held.sequence + 1;
        messages.extend(Some(held).filter(|held| held.fault.is_some()));
    }
    Ok(messages)
}

/// The sequences after `floor` up to `delivered`, as many as are looked at: the oldest, and the newest.
fn looked_at(
    floor: u64,
    delivered: u64,
    reach: Reach,
) -> (RangeInclusive<u64>, RangeInclusive<u64>) {
    let oldest_end = delivered.min(floor.saturating_add(reach.oldest.0));
    let newest_start = oldest_end.max(delivered.saturating_sub(reach.newest.0));
    (floor + 1..=oldest_end, newest_start + 1..=delivered)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as a second look reaches.
    const MANY: u64 = SECOND_LOOK.oldest.0 + SECOND_LOOK.newest.0;

    fn all(floor: u64, delivered: u64) -> Vec<u64> {
        let (oldest, newest) = looked_at(floor, delivered, SECOND_LOOK);
        oldest.chain(newest).collect()
    }

    fn held(sequence: u64, bytes: usize, fault: Option<&'static str>) -> HeldMessage {
        HeldMessage {
            sequence,
            broker_time_ns: 0,
            subject: "a".into(),
            payload: vec![0; bytes].into(),
            headers: async_nats::HeaderMap::new(),
            fault,
        }
    }

    #[test]
    fn each_message_is_looked_at_once_while_they_are_few() {
        for (floor, delivered) in [(0, 0), (7, 7), (0, 1), (10, MANY + 10)] {
            let expected: Vec<_> = (floor + 1..=delivered).collect();
            assert_eq!(all(floor, delivered), expected, "{floor} {delivered}");
        }
    }

    #[test]
    fn of_too_many_the_oldest_and_the_newest_are_looked_at() {
        let delivered = 10 * MANY;
        let sequences = all(5, delivered);

        assert_eq!(sequences.len() as u64, MANY);
        assert_eq!(sequences.first(), Some(&6));
        assert_eq!(sequences.last(), Some(&delivered));
        assert!(sequences.is_sorted_by(|one, next| one < next));
        let (oldest, newest) = looked_at(5, delivered, FIRST_LOOK);
        assert!(oldest.is_empty() && newest.eq(delivered - 999..=delivered));
    }

    #[tokio::test]
    async fn no_more_is_read_once_so_many_bytes_were() {
        let asked = std::cell::Cell::new(0);
        let read = |sequence: u64| {
            asked.set(asked.get() + 1);
            let fault = sequence.is_multiple_of(2).then_some("unreadable");
            async move { Ok(Some(held(sequence, 1_000, fault))) }
        };
        let found = faulty(1..=1_000, 10_000, read).await.unwrap();

        let sequences: Vec<_> = found.iter().map(|held| held.sequence).collect();
        assert_eq!(sequences, [2, 4, 6, 8, 10]);
        assert!(asked.get() <= 10 + ASKED_AT_ONCE, "{}", asked.get());
    }

    #[test]
    fn all_is_looked_at_only_when_the_connection_is_lost_again_within_a_minute() {
        let lost = Losses::testing;
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut losses = LoneLosses::default();
        let mut reach = |before, now, at| losses.reach(before, now, after(at));

        assert_eq!(reach(lost(0, 0), lost(0, 1), 0), Some(FIRST_LOOK), "once");
        assert_eq!(reach(lost(0, 1), lost(1, 2), 1), None, "the server went");
        assert_eq!(reach(lost(1, 2), lost(1, 3), 100), Some(FIRST_LOOK), "long after");
        assert_eq!(reach(lost(1, 3), lost(1, 4), 130), Some(SECOND_LOOK), "soon after");
        assert_eq!(reach(lost(1, 4), lost(1, 4), 131), None, "not lost");
        assert_eq!(reach(lost(1, 4), lost(1, 6), 500), Some(SECOND_LOOK), "twice at once");
    }
}
