//! That a replay of an event was asked for: noted behind its letter in the stream DEAD, by the program
//! that asks.
//!
//! The journal knows a replay by the id of its request, and not which letter it was for. The note is for
//! people; nothing is decided by it but whether they are asked to say that they mean it. It has an id of
//! its own, for whoever lists an id once must not lose the letter to it.

use fermata_core::event::REPLAY_HEADER;
use fermata_jetstream::{Bytes, Publisher};
use fermata_wire::dead::DeadLetter;
use fermata_wire::replay::ID_HEADER;
use fermata_wire::subjects;
use serde_json::{Value, json};

use crate::broker_session::stored_sequence;
use crate::error::CliError;
use crate::output::time_text;

/// Stage of the notes, which is none that refuses anything.
const NOTE_STAGE: &str = "replays";

/// Reason of the notes.
const NOTE_REASON: &str = "replayed";

/// What the ids of the notes begin with; the request's name follows.
const NOTE_ID: &str = "REPLAY.";

/// How long the same request is safely the same replay: an hour less than the 24 that partitions know it,
/// for their time is not that of this machine.
const REQUEST_KNOWN_MS: u64 = 23 * 60 * 60 * 1_000;

/// A replay that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The letter's id.
    pub id: String,
    /// Names the request, `webhook-id`.
    pub request: String,
    /// Who asked, and why.
    pub detail: String,
    /// When, milliseconds since 1970 by the clock of whoever asked.
    pub time_ms: u64,
}

/// Whether a letter is a note of a replay.
pub(super) fn is_note(letter: &DeadLetter) -> bool {
    letter.stage == NOTE_STAGE && letter.reason == NOTE_REASON
}

impl Replayed {
    /// What a note says; nothing where it is none.
    pub(super) fn of(letter: DeadLetter) -> Option<Self> {
        if !is_note(&letter) {
            return None;
        }
        let header = |wanted: &str| {
            let found = letter.headers.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone())
        };
        let (id, request) = (header(REPLAY_HEADER)?, header(ID_HEADER)?);
        Some(Self { id, request, detail: letter.detail, time_ms: letter.time_ms })
    }

    /// Stores the note behind the letter of `tenant`.
    pub(super) async fn store(
        &self,
        tenant: &str,
        event_subject: &str,
        publisher: &Publisher,
    ) -> Result<(), CliError> {
        let note = DeadLetter {
            id: format!("{NOTE_ID}{}", self.request),
            tenant: tenant.to_owned(),
            stage: NOTE_STAGE.to_owned(),
            reason: NOTE_REASON.to_owned(),
            detail: self.detail.clone(),
            subject: event_subject.to_owned(),
            // What was sent stands in EVENTS.
            original: Bytes::new(),
            time_ms: self.time_ms,
            headers: vec![
                (REPLAY_HEADER.to_owned(), self.id.clone()),
                (ID_HEADER.to_owned(), self.request.clone()),
            ],
            attempts: None,
            trace: None,
        };
        let subject = subjects::dead(tenant, NOTE_STAGE);
        let payload = Bytes::from(note.encode()?);
        let outcome = publisher.publish(subject.clone(), None, payload).await.await;
        stored_sequence(&subject, &outcome).map(|_| ())
    }

    /// When, under which name, by whom and why.
    pub(super) fn text(&self) -> String {
        format!("{} as `{}` by {}", time_text(self.time_ms), self.request, self.detail)
    }

    pub(super) fn to_json(&self) -> Value {
        let Self { request, detail, time_ms, .. } = self;
        json!({ "time": time_text(*time_ms), "request": request, "detail": detail })
    }
}

/// The replay of the same letter that `request` would repeat the effect of: another request for it, or
/// the same one so long ago that its partition has forgotten it.
pub(super) fn earlier<'a>(
    replays: &[&'a Replayed],
    request: &str,
    now_ms: u64,
) -> Option<&'a Replayed> {
    let is_known = |replayed: &&&Replayed| {
        replayed.request == request && now_ms.saturating_sub(replayed.time_ms) < REQUEST_KNOWN_MS
    };
    match replays.iter().find(is_known) {
        Some(_) => None,
        None => replays.last().copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replayed(request: &str, time_ms: u64) -> Replayed {
        let (id, detail) = ("7.0".to_owned(), "alice: a typo".to_owned());
        Replayed { id, request: request.to_owned(), detail, time_ms }
    }

    #[test]
    fn another_request_is_another_replay_and_the_same_one_until_it_is_forgotten_is_not() {
        let (first, second) = (replayed("a", 1_000), replayed("b", 2_000));
        let both = [&first, &second];

        assert_eq!(earlier(&both, "c", 3_000), Some(&second));
        assert_eq!(earlier(&both, "a", 3_000), None);
        assert_eq!(earlier(&both, "a", 1_000 + REQUEST_KNOWN_MS), Some(&second));
        assert_eq!(earlier(&[], "a", 3_000), None);
    }
}
