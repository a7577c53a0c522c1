//! Bytes that a letter does not have, from EVENTS, as long as that holds them.

use fermata_core::event::{Event, MessageHeaders, Rejected, parse_subject};
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_jetstream::{Bytes, StoredMessage, StreamReader};
use fermata_wire::dead::DeadLetter;

use super::FiledLetter;
use super::started::place_of;
use crate::arrived::for_each_event;
use crate::broker_session::BrokerSession;
use crate::error::CliError;

/// Content types of one event that stood in a batch.
const ONE_OF_JSON: &str = "application/cloudevents+json";
const ONE_OF_MSGPACK: &str = "application/cloudevents+msgpack";

/// One event as EVENTS has it.
struct Arrived {
    tenant: String,
    subject: String,
    original: Bytes,
    headers: Vec<(String, String)>,
    is_usable: bool,
}

/// An event without a letter that is still in EVENTS, as if it had been filed.
pub(super) async fn event_without_letter(
    id: &str,
    session: &BrokerSession,
) -> Result<Option<DeadLetter>, CliError> {
    let arrived = read(id, session).await?.filter(|arrived| arrived.is_usable);
    Ok(arrived.map(|Arrived { tenant, subject, original, headers, .. }| DeadLetter {
        id: id.to_owned(),
        tenant,
        stage: "partition".to_owned(),
        reason: String::new(),
        detail: String::new(),
        subject,
        original,
        time_ms: 0,
        headers,
        attempts: None,
        trace: None,
    }))
}

/// Where the bytes are that a letter is shown or replayed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    ByLetter,
    ByEvents,
    /// It was filed without them, and EVENTS has them no longer.
    Nowhere,
}

impl Held {
    pub(super) fn as_str(self) -> Option<&'static str> {
        match self {
            Self::ByLetter => Some("letter"),
            Self::ByEvents => Some("events"),
            Self::Nowhere => None,
        }
    }
}

/// The letter with its bytes: one that was filed without them may still stand in EVENTS.
pub(super) async fn whole(
    filed: &FiledLetter,
    session: &BrokerSession,
) -> Result<(FiledLetter, Held), CliError> {
    let FiledLetter { sequence, letter } = filed;
    if !letter.original.is_empty() {
        return Ok((filed.clone(), Held::ByLetter));
    }
    let Some(Arrived { original, headers, .. }) = read(&letter.id, session).await? else {
        return Ok((filed.clone(), Held::Nowhere));
    };
    if original.is_empty() {
        return Ok((filed.clone(), Held::ByLetter));
    }
    let letter = DeadLetter { original, headers, ..letter.clone() };
    Ok((FiledLetter { sequence: *sequence, letter }, Held::ByEvents))
}

/// That a letter is to be replayed whose bytes nobody has any more.
pub(super) fn held_nowhere(letter: &DeadLetter) -> CliError {
    let DeadLetter { id, detail, .. } = letter;
    CliError::NotFound(format!(
        "the letter `{id}` was filed without its bytes ({detail}), and EVENTS does not hold its event any longer: give \
         the event whole with `--data FILE`, or publish it again as it should be"
    ))
}

async fn read(id: &str, session: &BrokerSession) -> Result<Option<Arrived>, CliError> {
    let Some(place) = place_of(id) else { return Ok(None) };
    let reader = StreamReader::new(session.broker());
    let message = reader.read_one(EVENTS_STREAM, place.sequence).await?;
    Ok(message.and_then(|message| arrived(&message, place.index)))
}

/// The event with this place in its message.
fn arrived(message: &StoredMessage, index: u32) -> Option<Arrived> {
    let headers = message.headers.iter().flat_map(|headers| headers.iter());
    let headers = headers.flat_map(|(name, values)| {
        values.iter().map(move |value| (AsRef::<str>::as_ref(name), value.as_str()))
    });
    let headers = headers.collect::<Vec<_>>();
    let of_message =
        || headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let payload = &message.payload;
    let Ok(subject) = parse_subject(&message.subject) else { return None };
    let part_of = |content_type: &str| vec![("Content-Type".to_owned(), content_type.to_owned())];
    let is_msgpack = MessageHeaders::new(headers.iter().copied())
        .content_type()
        .is_some_and(|content_type| content_type.to_ascii_lowercase().contains("msgpack"));
    let mut events = Vec::new();
    for_each_event(message, subject, |event| {
        events.push(match event {
            // Behind the listener it is structured JSON, whatever it came as.
            Ok(Event { tenant, raw, .. }) => {
                let (tenant, raw) = (tenant.to_owned(), raw.as_bytes());
                (tenant, Bytes::copy_from_slice(raw), part_of(ONE_OF_JSON), true)
            }
            Err(Rejected { original, .. }) => {
                let headers = match (original.len() < payload.len(), is_msgpack) {
                    (false, _) => of_message().collect(),
                    (true, true) => part_of(ONE_OF_MSGPACK),
                    (true, false) => part_of(ONE_OF_JSON),
                };
                (subject.tenant.to_owned(), Bytes::copy_from_slice(original), headers, false)
            }
        });
    });
    let (tenant, original, headers, is_usable) =
        events.into_iter().nth(usize::try_from(index).ok()?)?;
    let subject = message.subject.to_string();
    Some(Arrived { tenant, subject, original, headers, is_usable })
}
