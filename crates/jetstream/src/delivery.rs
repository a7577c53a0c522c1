//! What the broker tells about a delivered message, in its reply subject and headers.

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;

use crate::WRITER_HEADER;

/// A message as a stream holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the broker stored it, in nanoseconds since 1970 on the broker's clock.
    pub broker_time_ns: i64,
    /// Who wrote it, from the header [`WRITER_HEADER`]; a message without it is foreign.
    pub writer: Option<String>,
    /// Subject that it was published to.
    pub subject: Subject,
    /// Its headers.
    pub headers: Option<HeaderMap>,
    /// Its bytes.
    pub payload: Bytes,
}

/// The numbers in the reply subject of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeliveryPosition {
    pub(crate) delivered_count: u64,
    pub(crate) stream_sequence: u64,
    /// Counts what the consumer delivered, redeliveries included: a hole in it is a lost delivery.
    pub(crate) consumer_sequence: u64,
    pub(crate) broker_time_ns: i64,
    /// How many messages of the stream are left for the consumer after this one.
    pub(crate) pending: u64,
}

impl DeliveryPosition {
    /// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>`,
    /// and the newer form with domain and account hash before the stream and a random token at the end (ADR-15).
    pub(crate) fn read(reply: &str) -> Option<Self> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        // The short form has seven tokens here; stream and consumer come first in it, domain and account before them in the long one.
        let skip = if rest.bytes().filter(|byte| *byte == b'.').count() < 8 { 2 } else { 4 };
        let mut tokens = rest.split('.').skip(skip);
        let delivered_count = tokens.next()?.parse().ok()?;
        let stream_sequence = tokens.next()?.parse().ok()?;
        let consumer_sequence = tokens.next()?.parse().ok()?;
        let broker_time_ns = tokens.next()?.parse().ok()?;
        let pending = tokens.next()?.parse().ok()?;
        Some(Self { delivered_count, stream_sequence, consumer_sequence, broker_time_ns, pending })
    }

    /// Where an acknowledgement of a message that never arrived goes. The broker takes the counts that it
    /// remembers and not those that stand here.
    pub(crate) fn reply_for(stream: &str, consumer: &str, stream_sequence: u64) -> Subject {
        Subject::from(format!("$JS.ACK.{stream}.{consumer}.1.{stream_sequence}.1.0.0"))
    }

    pub(crate) fn of(message: &Message) -> Option<Self> {
        Self::read(message.reply.as_ref()?)
    }
}

/// The writer named in the headers of a message.
pub(crate) fn writer_of(message: &Message) -> Option<String> {
    Some(message.headers.as_ref()?.get(WRITER_HEADER)?.as_str().to_owned())
}

/// Turns a delivery into the message that the stream holds.
pub(crate) fn stored_message(message: Message, position: DeliveryPosition) -> StoredMessage {
    StoredMessage {
        sequence: position.stream_sequence,
        broker_time_ns: position.broker_time_ns,
        writer: writer_of(&message),
        subject: message.subject,
        headers: message.headers,
        payload: message.payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: DeliveryPosition = DeliveryPosition {
        delivered_count: 2,
        stream_sequence: 15,
        consumer_sequence: 33,
        broker_time_ns: 1_700_000_000_123_456_789,
        pending: 9,
    };

    #[test]
    fn a_reply_subject_made_here_names_its_message() {
        let reply = DeliveryPosition::reply_for("EVENTS", "listener", 15);

        let position = DeliveryPosition::read(&reply).expect("a position");
        assert_eq!(position.stream_sequence, 15);
    }

    #[test]
    fn both_forms_of_a_reply_subject_say_the_same() {
        let short = "$JS.ACK.EVENTS.listener.2.15.33.1700000000123456789.9";
        let long = "$JS.ACK.hub.ACCOUNTHASH.EVENTS.listener.2.15.33.1700000000123456789.9.r4nd0m";

        assert_eq!(DeliveryPosition::read(short), Some(EXPECTED));
        assert_eq!(DeliveryPosition::read(long), Some(EXPECTED));
    }

    #[test]
    fn a_reply_subject_of_another_kind_is_no_position() {
        for reply in
            ["_INBOX.a.b", "$JS.ACK.EVENTS.listener.2.x.33.1.9", "$JS.ACK.", "$JS.ACK.a.b.1"]
        {
            assert_eq!(DeliveryPosition::read(reply), None);
        }
    }
}
