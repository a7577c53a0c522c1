//! That a replay of an event was asked for: noted behind its letter in the stream DEAD, by the program
//! that asks.
//!
//! The journal knows a replay by the id of its request, and not which letter it was for. The note is for
//! people; nothing is decided by it but whether they are asked to say that they mean it. It has an id of
//! its own, for whoever lists an id once must not lose the letter to it.

use std::collections::{HashMap, HashSet, VecDeque};

use fermata_core::event::REPLAY_HEADER;
use fermata_core::identity::SourcePosition;
use fermata_jetstream::{Bytes, Publisher};
use fermata_wire::dead::DeadLetter;
use fermata_wire::replay::{ID_HEADER, replay_id};
use fermata_wire::subjects;
use serde_json::{Value, json};

use super::request::Request;
use crate::broker_session::stored_sequence;
use crate::error::CliError;
use crate::journal_view::Starts;
use crate::output::time_text;

/// Stage of the notes, which is none that refuses anything.
const NOTE_STAGE: &str = "replays";

/// Reason of the notes.
const NOTE_REASON: &str = "replayed";

/// What the ids of the notes begin with; the request's name follows.
const NOTE_ID: &str = "REPLAY.";

/// Header of a note that is stored behind its request: where that stands in EVENTS.
const STORED_HEADER: &str = "Fermata-Stored";

/// Header of a note: the key of the event that is asked for, in hexadecimal. Letters of one event have one key.
const KEY_HEADER: &str = "Fermata-Key";

/// Header of a note that is stored behind one of the same request, which was not sent after all.
const WITHDRAWN_HEADER: &str = "Fermata-Withdrawn";

/// How long the same request is safely the same replay: an hour less than the 24 that partitions know it,
/// for their time is not that of this machine.
pub(super) const REQUEST_KNOWN_MS: u64 = 23 * 60 * 60 * 1_000;

/// How long after a request its refusal may be on its way to a journal. Default an hour: what no listener
/// acknowledged comes again within a minute, or when one is started.
const REFUSED_WITHIN_MS: u64 = 60 * 60 * 1_000;

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
    /// Where the request stands in EVENTS; nothing from older programs, and where nobody knows whether
    /// it was stored.
    pub sequence: Option<u64>,
    /// The key of the event that was asked for, as repaired; nothing from older programs.
    pub key: Option<u128>,
    /// That the request was not sent: its note stands for nothing.
    pub is_withdrawn: bool,
    /// That the request was refused: then the event was not decided once more.
    pub refused: Option<RefusedRequest>,
}

/// The letter of a request to replay that was refused where events are listened to, or whose event was rejected
/// once more behind that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRequest {
    /// Its id.
    pub letter: String,
    /// Why, a reason code.
    pub reason: String,
    /// Whether its partition knows the request: under the same id nothing more is decided.
    pub is_known: bool,
}

/// Stages that reject the events of requests which were taken as such; a listener does for their contract and data.
const STAGES_BEHIND: [&str; 4] = ["listener", "matcher", "builder", "partition"];

/// Reasons for which a partition rejects a replay and does not remember its id: there was no room for it.
const NOT_REMEMBERED: [&str; 2] = ["window_full", "outbox_full"];

impl RefusedRequest {
    /// That a letter is of such a request, where it is: the listener keeps the headers of what it refuses.
    pub(super) fn of(letter: &DeadLetter) -> Option<Self> {
        let is_header = |(name, _): &(String, String)| name.eq_ignore_ascii_case(REPLAY_HEADER);
        let is_request = letter.stage == "listener" && letter.headers.iter().any(is_header);
        let (id, reason) = (&letter.id, &letter.reason);
        is_request.then(|| Self { letter: id.clone(), reason: reason.clone(), is_known: false })
    }

    /// That a letter is of an event that may be a request's: where it stands tells whose it is.
    pub(super) fn behind(letter: &DeadLetter) -> Option<Self> {
        let (id, reason) = (&letter.id, &letter.reason);
        let may_be = STAGES_BEHIND.contains(&letter.stage.as_str()) && id.ends_with(".0");
        // What a listener rejects is not told to the partition as a request.
        let is_known = letter.stage != "listener" && !NOT_REMEMBERED.contains(&reason.as_str());
        may_be.then(|| Self { letter: id.clone(), reason: reason.clone(), is_known })
    }
}

/// The id of the letter that a refused request was to replay, where the request names one: another
/// program may have sent it, and says there what it likes.
pub(super) fn original_of(letter: &DeadLetter) -> Option<&str> {
    let named = letter.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(REPLAY_HEADER));
    let (_, id) = named?;
    let (sequence, index) = id.split_once('.')?;
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    (is_number(sequence) && is_number(index)).then_some(id)
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
        let sequence = header(STORED_HEADER).and_then(|sequence| sequence.parse().ok());
        let key = header(KEY_HEADER).and_then(|key| u128::from_str_radix(&key, 16).ok());
        let is_withdrawn = header(WITHDRAWN_HEADER).is_some();
        let (detail, time_ms) = (letter.detail, letter.time_ms);
        Some(Self { id, request, detail, time_ms, sequence, key, is_withdrawn, refused: None })
    }

    /// Takes the place of the note of the same request that was stored before it was sent, or is a new one;
    /// one that withdraws it takes it away.
    pub(super) fn note_in(self, notes: &mut VecDeque<Self>) {
        let is_same = |other: &Self| {
            other.sequence.is_none()
                && (&other.id, &other.request, other.time_ms)
                    == (&self.id, &self.request, self.time_ms)
        };
        let same = notes.iter().rposition(is_same);
        if self.is_withdrawn {
            same.map(|same| notes.remove(same));
            return;
        }
        match same.and_then(|same| notes.get_mut(same)) {
            Some(other) => *other = self,
            None => notes.push_back(self),
        }
    }

    /// Stores the note behind the letter of `tenant`, and tells where.
    pub(super) async fn store(
        &self,
        tenant: &str,
        event_subject: &str,
        publisher: &Publisher,
    ) -> Result<u64, CliError> {
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
            headers: self.headers(),
            attempts: None,
            trace: None,
        };
        let subject = subjects::dead(tenant, NOTE_STAGE);
        let payload = Bytes::from(note.encode()?);
        let outcome = publisher.publish(subject.clone(), None, payload).await.await;
        stored_sequence(&subject, &outcome)
    }

    fn headers(&self) -> Vec<(String, String)> {
        let named =
            [(REPLAY_HEADER, self.id.clone()), (ID_HEADER, self.request.clone())].into_iter();
        let stored = self.sequence.map(|sequence| (STORED_HEADER, sequence.to_string()));
        let key = self.key.map(|key| (KEY_HEADER, format!("{key:032x}")));
        let withdrawn = self.is_withdrawn.then(|| (WITHDRAWN_HEADER, "yes".to_owned()));
        let headers = named.chain(stored).chain(key).chain(withdrawn);
        headers.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Where the request stands in EVENTS: it is a message with one event.
    pub(super) fn place(&self) -> Option<SourcePosition> {
        self.sequence.map(|sequence| SourcePosition { sequence, index: 0 })
    }

    /// Whether it is another request for the event that `request` is for: what both start has one key.
    pub(super) fn is_beside(&self, request: &Request) -> bool {
        self.key == Some(request.key.key) && self.request != request.webhook_id
    }

    /// Whether something may still come of it that no journal tells yet. One that is nowhere to be found was
    /// perhaps never sent, or is older than the journals: it counts as long as its partition would know it.
    pub(super) fn is_undecided(&self, starts: &Starts, now_ms: u64) -> bool {
        let is_recent = now_ms.saturating_sub(self.time_ms) < REQUEST_KNOWN_MS;
        let was_decided = starts.has_decided(replay_id(&self.request));
        self.refused.is_none() && is_recent && !was_decided
    }

    /// The id of the letter that is filed where the request is refused: it is a message with one event.
    pub(super) fn letter_of_request(&self) -> Option<String> {
        self.place().map(|place| place.to_string())
    }

    /// When, under which name, by whom and why.
    pub(super) fn text(&self) -> String {
        format!("{} as `{}` by {}", time_text(self.time_ms), self.request, self.detail)
    }

    pub(super) fn to_json(&self) -> Value {
        let Self { request, detail, time_ms, sequence, refused, .. } = self;
        let refused = refused.as_ref().map(
            |RefusedRequest { letter, reason, .. }| json!({ "letter": letter, "reason": reason }),
        );
        json!({
            "time": time_text(*time_ms), "request": request, "detail": detail,
            "sequence": sequence, "refused": refused,
        })
    }
}

/// The replays with what letters say of their requests.
pub(super) fn settled(
    notes: VecDeque<Replayed>,
    refused: impl Iterator<Item = RefusedRequest>,
) -> Vec<Replayed> {
    let refused: HashMap<_, _> = refused.map(|refused| (refused.letter.clone(), refused)).collect();
    let notes = notes.into_iter().map(|mut replayed| {
        let letter = replayed.letter_of_request();
        replayed.refused = letter.and_then(|letter| refused.get(&letter).cloned());
        replayed
    });
    without_copies(notes)
}

/// The replays as the journals tell of them: a listener may file a letter and end before it hands on that it
/// refused, and another one, which knows the secret, take the request after all. With `now_ms`
/// a recent refusal that no journal has proves nothing yet, either.
pub(super) fn settled_by(
    replays: Vec<Replayed>,
    starts: &Starts,
    now_ms: Option<u64>,
) -> Vec<Replayed> {
    let replays = replays.into_iter().map(|mut replayed| {
        if let Some(place) = replayed.place() {
            let is_recent =
                now_ms.is_some_and(|now| now.saturating_sub(replayed.time_ms) < REFUSED_WITHIN_MS);
            if starts.was_decided(place) || (is_recent && !starts.was_rejected(place)) {
                replayed.refused = None;
            }
        }
        replayed
    });
    without_copies(replays)
}

/// Behind one that was not refused the same request is only a copy of it, and is left out; so it is behind one
/// that was decided and rejected, while its partition knows it.
fn without_copies(replays: impl Iterator<Item = Replayed>) -> Vec<Replayed> {
    let mut taken = HashSet::new();
    let mut rejected: HashMap<(String, String), u64> = HashMap::new();
    let is_new = |replayed: &Replayed| {
        let request = (replayed.id.clone(), replayed.request.clone());
        match &replayed.refused {
            None => {
                let before = rejected.get(&request);
                let is_copy = before.is_some_and(|before| {
                    replayed.time_ms.saturating_sub(*before) < REQUEST_KNOWN_MS
                });
                !is_copy && taken.insert(request)
            }
            Some(_) if taken.contains(&request) => false,
            Some(refused) => {
                if refused.is_known {
                    rejected.insert(request, replayed.time_ms);
                }
                true
            }
        }
    };
    replays.filter(is_new).collect()
}

/// The newest letter of the same request for the same letter, where its event was decided and rejected.
pub(super) fn rejected_as<'a>(replays: &[&'a Replayed], request: &str) -> Option<&'a str> {
    let same = replays.iter().rev().filter(|replayed| replayed.request == request);
    let refused = same.filter_map(|replayed| replayed.refused.as_ref());
    refused.filter(|refused| refused.is_known).map(|refused| refused.letter.as_str()).next()
}

/// The replay of the same letter that `request` would repeat the effect of: another request for it, or
/// the same one so long ago that its partition has forgotten it. One that was refused had none, nor had one
/// whose event was rejected once more.
pub(super) fn earlier<'a>(
    replays: &[&'a Replayed],
    request: &str,
    now_ms: u64,
) -> Option<&'a Replayed> {
    let mut taken = replays.iter().filter(|replayed| replayed.refused.is_none());
    let is_known = |replayed: &&&Replayed| {
        replayed.request == request && now_ms.saturating_sub(replayed.time_ms) < REQUEST_KNOWN_MS
    };
    match taken.clone().find(is_known) {
        Some(_) => None,
        None => taken.next_back().copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::letters::testing::letter;
    use super::*;

    fn replayed(request: &str, time_ms: u64) -> Replayed {
        let (id, detail) = ("7.0".to_owned(), "alice: a typo".to_owned());
        let (request, sequence, refused) = (request.to_owned(), Some(9), None);
        let (key, is_withdrawn) = (None, false);
        Replayed { id, request, detail, time_ms, sequence, key, is_withdrawn, refused }
    }

    #[test]
    fn another_request_is_another_replay_and_the_same_one_until_it_is_forgotten_is_not() {
        let (first, second) = (replayed("a", 1_000), replayed("b", 2_000));
        let both = [&first, &second];

        assert_eq!(earlier(&both, "c", 3_000), Some(&second));
        assert_eq!(earlier(&both, "a", 3_000), None);
        assert_eq!(earlier(&both, "a", 1_000 + REQUEST_KNOWN_MS), Some(&second));
        assert_eq!(earlier(&[], "a", 3_000), None);
        // Nothing came of one that was refused.
        let (letter, reason) = ("9.0".to_owned(), "replay_forged".to_owned());
        let refused = Some(RefusedRequest { letter, reason, is_known: false });
        let second = Replayed { refused, ..second };
        assert_eq!(earlier(&[&first, &second], "c", 3_000), Some(&first));
        assert_eq!(earlier(&[&second], "c", 3_000), None);
    }

    #[test]
    fn a_letter_of_a_request_names_what_was_to_be_replayed_where_it_is_a_letter() {
        let named = |value: &str| {
            let headers = vec![("Fermata-replay".to_owned(), value.to_owned())];
            let letter = DeadLetter { headers, ..letter("9.0", b"{}") };
            original_of(&letter).map(str::to_owned)
        };

        assert_eq!(named("7.0").as_deref(), Some("7.0"));
        for value in ["http", "", "7", "7.x", "-1.0", "7.0.1"] {
            assert_eq!(named(value), None, "{value}");
        }
        assert_eq!(original_of(&letter("9.0", b"{}")), None);
        assert_eq!(RefusedRequest::of(&letter("9.0", b"{}")), None);
    }
}
