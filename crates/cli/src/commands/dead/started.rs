//! What the event of a letter has started: told, before a replay starts it once more.
//!
//! A rejection claims no key. So the event may have started work before it was refused, as under a
//! contract that only warned then, or since, where it was corrected and published again.

use std::collections::HashMap;

use fermata_core::event::idempotency_of;
use fermata_core::identity::SourcePosition;
use fermata_jetstream::StreamReader;
use fermata_wire::dead::DeadLetter;
use fermata_wire::replay::replay_id;
use serde_json::{Map, Value, json};

use super::replayed::{REQUEST_KNOWN_MS, Replayed, earlier, rejected_as};
use super::request::{Request, original_event};
use crate::broker_session::BrokerSession;
use crate::error::CliError;
use crate::journal_view::{EventKey, Sought, Started, Starts};
use crate::output::{Output, RECORDS_READ, Tone, counted, time_text};

/// Runs of one start that are named; the others are counted.
const RUNS_NAMED_MAX: usize = 3;

/// The key of an event, as far as it can be told of one that was refused; `tenant` is whose it is where it
/// does not say so itself.
pub(super) fn key_of_event(event: &Map<String, Value>, tenant: &str) -> Option<EventKey> {
    let text = |name| event.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let tenant = text("tenant").unwrap_or(tenant);
    let key = match text("idempotencykey") {
        Some(key) => idempotency_of(tenant, Some(key), "", ""),
        None => idempotency_of(tenant, None, text("source")?, text("id")?),
    };
    Some(EventKey { tenant: tenant.to_owned(), key })
}

/// The key of a letter's event; nothing where its bytes do not tell.
pub(super) fn key_of(letter: &DeadLetter) -> Option<EventKey> {
    key_of_event(&original_event(letter).ok()?, &letter.tenant)
}

/// Reads the journals for what the keys started, for what became of requests to replay that are said to be
/// refused, and whether others for the same keys were decided.
pub(super) async fn look<'a>(
    keys: impl Iterator<Item = &'a EventKey>,
    replays: impl Iterator<Item = &'a Replayed>,
    session: &BrokerSession,
    output: &Output,
) -> Result<Starts, CliError> {
    let mut sought = Sought::new(session.engine_config().await?.partitions);
    keys.for_each(|key| sought.add_key(key));
    for replayed in replays {
        sought.add_replay(replay_id(&replayed.request));
        if let (Some(place), Some(_)) = (replayed.place(), &replayed.refused) {
            sought.add_place(place);
        }
    }
    let progress = output.counter(RECORDS_READ);
    let starts = Starts::read(&StreamReader::new(session.broker()), sought, &progress).await;
    progress.finish_and_clear();
    starts
}

/// A start, for people.
pub(super) fn text(started: &Started, replays: &[&Replayed]) -> String {
    let Started { runs, time_ms, source, replay } = started;
    let named = runs.iter().take(RUNS_NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>();
    let more = match runs.len().saturating_sub(RUNS_NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = match runs.len() {
        0 => "taken for whoever waits for it",
        1 => "run ",
        _ => "runs ",
    };
    let by = replay.map(|replay| {
        let named = replays.iter().find(|replayed| replay_id(&replayed.request) == replay);
        named.map_or(", a replay".to_owned(), |named| format!(", the replay `{}`", named.request))
    });
    format!(
        "{what}{}{more} at {}, for {source} of EVENTS{}",
        named.join(", "),
        time_text(*time_ms),
        by.unwrap_or_default()
    )
}

/// A start, for programs.
pub(super) fn to_json(started: &Started) -> Value {
    let Started { runs, time_ms, source, replay } = started;
    json!({
        "runs": runs, "time": time_text(*time_ms), "event": source.to_string(), "replay": replay,
    })
}

/// A replay that is to be asked for.
#[derive(Debug)]
pub(super) struct Planned {
    /// The letter's id.
    pub(super) id: String,
    /// When what it holds came.
    pub(super) time_ms: u64,
    pub(super) request: Request,
    /// The letter of the same request as it was asked for before, where its event was rejected then.
    pub(super) after: Option<String>,
}

/// A replay that is not asked for, and why.
#[derive(Debug)]
pub(super) struct LeftOut {
    id: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    /// The event has started work.
    Started(Started),
    /// It is the event of another one, which is asked for.
    SameEvent { other: String },
    /// So it is, and that one was asked for before and is not decided yet.
    Undecided(Replayed),
}

/// Parts what would start work that was started already, as the journals tell.
///
/// # Errors
///
/// Where another replay of a letter was asked for, or one of the name that it is given was rejected.
pub(super) fn part(
    planned: Vec<Planned>,
    replays: &[Replayed],
    starts: &Starts,
    is_named: bool,
    now_ms: u64,
) -> Result<(Vec<Planned>, Vec<LeftOut>), CliError> {
    let (mut kept, mut left_out) = (Vec::new(), Vec::new());
    let mut taken: HashMap<u128, (String, String)> = HashMap::new();
    for Planned { id, time_ms, mut request, mut after } in planned {
        let of_letter = replays.iter().filter(|replayed| replayed.id == id).collect::<Vec<_>>();
        // No more names than there are replays.
        for _ in &of_letter {
            let Some(letter) = rejected_as(&of_letter, &request.webhook_id) else { break };
            if is_named {
                return Err(name_is_known(&id, &request.webhook_id, letter));
            }
            request.rename_after(letter);
            after = Some(letter.to_owned());
        }
        if !is_named && let Some(earlier) = earlier(&of_letter, &request.webhook_id, now_ms) {
            return Err(asked_already(&id, earlier));
        }
        // The same request is the same replay, and starts nothing more while it is known.
        let is_own = |started: &&Started| {
            started.replay == Some(replay_id(&request.webhook_id))
                && now_ms.saturating_sub(started.time_ms) < REQUEST_KNOWN_MS
        };
        let started = starts.of(&request.key, time_ms).filter(|started| !is_own(started)).last();
        if let Some(started) = started {
            left_out.push(LeftOut { id, why: Why::Started(started.clone()) });
            continue;
        }
        let mut others = replays.iter().filter(|other| other.id != id && other.is_beside(&request));
        if let Some(other) = others.find(|other| other.is_undecided(starts, now_ms)) {
            left_out.push(LeftOut::undecided(id, other.clone()));
            continue;
        }
        match taken.get(&request.key.key) {
            Some((other, named)) if *named != request.webhook_id => {
                left_out.push(LeftOut { id, why: Why::SameEvent { other: other.clone() } });
            }
            Some(_) | None => {
                taken.insert(request.key.key, (id.clone(), request.webhook_id.clone()));
                kept.push(Planned { id, time_ms, request, after });
            }
        }
    }
    Ok((kept, left_out))
}

fn name_is_known(id: &str, request: &str, letter: &str) -> CliError {
    CliError::Refused(format!(
        "the replay of `{id}` as `{request}` was decided, and its event rejected: `fermata dead show {letter}` says why. \
         Under that name nothing more comes of it: give another `--id`, or none; nothing was sent"
    ))
}

fn asked_already(id: &str, earlier: &Replayed) -> CliError {
    CliError::Refused(format!(
        "a replay of `{id}` was asked for already, {}; what is asked for now would be another one, and start \
         what it starts once more. If that is meant, or that one was refused, say `--again`; nothing was sent",
        earlier.text()
    ))
}

/// That nothing is left to be asked for.
pub(super) fn all_left_out(left_out: &[LeftOut], replays: &[Replayed]) -> CliError {
    let told = left_out.iter().map(|left_out| left_out.text(replays)).collect::<Vec<_>>();
    let whose = match left_out {
        [LeftOut { id, .. }] => format!("the event of `{id}`"),
        _ => format!("each event of these {}", counted(left_out.len(), "letter", "letters")),
    };
    let has_started = left_out.iter().any(|left_out| matches!(left_out.why, Why::Started(_)));
    let what = if has_started { "has started work already" } else { "is asked for already" };
    CliError::Refused(format!(
        "{whose} {what}: {}. A replay would start its work once more; if that is meant, say `--again`; nothing was \
         sent",
        told.join("; ")
    ))
}

impl LeftOut {
    /// A letter of an event that another replay may start the work of.
    pub(super) const fn undecided(id: String, other: Replayed) -> Self {
        Self { id, why: Why::Undecided(other) }
    }

    fn text(&self, replays: &[Replayed]) -> String {
        let Self { id, why } = self;
        match why {
            Why::Started(started) => {
                let replays = replays.iter().collect::<Vec<_>>();
                format!("{id}: {}", text(started, &replays))
            }
            Why::SameEvent { other } => format!("{id}: the same event as {other}"),
            Why::Undecided(other) => format!(
                "{id}: the same event as {}, a replay of which was asked for {} and is not known to be decided",
                other.id,
                other.text()
            ),
        }
    }

    /// Tells of it beside those that are asked for.
    pub(super) fn tell(&self, replays: &[Replayed], output: &mut Output) -> Result<(), CliError> {
        if output.is_json() {
            let Self { id, why } = self;
            return output.json_line(&match why {
                Why::Started(started) => {
                    json!({ "id": id, "left_out": "started", "started": to_json(started) })
                }
                Why::SameEvent { other } => {
                    json!({ "id": id, "left_out": "same_event", "same_as": other })
                }
                Why::Undecided(other) => {
                    let request = other.to_json();
                    json!({ "id": id, "left_out": "undecided", "same_as": other.id, "request": request })
                }
            });
        }
        let title = output.tone(Tone::Warning, "left out");
        let why = match self.why {
            Why::Started(_) => {
                "its event has started work already; `--again` replays it all the same"
            }
            Why::SameEvent { .. } | Why::Undecided(_) => {
                "to replay both starts its work twice; `--again` does"
            }
        };
        output.line(&format!("{title}: {}; {why}", self.text(replays)))
    }
}

/// The place of an event as letters name it.
pub(super) fn place_of(id: &str) -> Option<SourcePosition> {
    let (sequence, index) = id.split_once('.')?;
    Some(SourcePosition { sequence: sequence.parse().ok()?, index: index.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::super::letters::testing::letter;
    use super::super::replayed::RefusedRequest;
    use super::*;

    fn key(text: &str) -> Option<u128> {
        let event = serde_json::from_str::<Map<String, Value>>(text).unwrap();
        key_of_event(&event, "acme").map(|key| key.key)
    }

    fn replayed(request: &str, sequence: u64, refused: Option<RefusedRequest>) -> Replayed {
        let (id, request, detail) = ("7.0".to_owned(), request.to_owned(), "ann".to_owned());
        let (key, sequence, is_withdrawn) = (Some(1), Some(sequence), false);
        Replayed { id, request, detail, time_ms: 1_000, sequence, key, is_withdrawn, refused }
    }

    #[test]
    fn a_replay_whose_event_was_rejected_is_asked_for_anew_and_once() {
        let rejected = |letter: &str, is_known| {
            let (letter, reason) = (letter.to_owned(), "variables_failed".to_owned());
            Some(RefusedRequest { letter, reason, is_known })
        };
        let asked = |replays: &[Replayed], is_named| {
            let request = Request {
                tenant: "acme".to_owned(),
                subject: "fermata.events.acme.a".to_owned(),
                webhook_id: "first".to_owned(),
                body: "{}".to_owned(),
                key: EventKey { tenant: "acme".to_owned(), key: 1 },
            };
            let planned = Planned { id: "7.0".to_owned(), time_ms: 0, request, after: None };
            let starts = Starts::of_places([], &[]);
            let (mut kept, left_out) = part(vec![planned], replays, &starts, is_named, 2_000)?;
            assert_eq!(kept.len() + left_out.len(), 1);
            let Some(Planned { request, after, .. }) = kept.pop() else {
                return Err(CliError::Refused("left out".to_owned()));
            };
            Ok::<_, CliError>((request.webhook_id, after))
        };

        // Without an answer it is the same replay, and without room it comes again under its name.
        for unchanged in [None, rejected("9.0", false)] {
            let again = asked(&[replayed("first", 9, unchanged)], false).unwrap();
            assert_eq!(again, ("first".to_owned(), None));
        }
        let first = replayed("first", 9, rejected("9.0", true));
        let (second, after) = asked(std::slice::from_ref(&first), false).unwrap();
        assert!(second != "first" && after.as_deref() == Some("9.0"), "{second} {after:?}");
        // Typed again before that is decided it is that one, and behind its rejection a third.
        let both = [first.clone(), replayed(&second, 11, None)];
        assert_eq!(asked(&both, false).unwrap().0, second);
        let both = [first.clone(), replayed(&second, 11, rejected("11.0", true))];
        let (third, after) = asked(&both, false).unwrap();
        assert!(![second.as_str(), "first"].contains(&&*third), "{third}");
        assert_eq!(after.as_deref(), Some("11.0"));

        // Another letter of the same event waits for what was asked for before; a refused one asks nothing.
        let other = |refused| Replayed { id: "8.0".to_owned(), ..replayed("other", 12, refused) };
        assert!(asked(&[other(rejected("12.0", true))], false).is_ok());
        assert!(asked(&[Replayed { key: Some(2), ..other(None) }], false).is_ok());
        assert_eq!(asked(&[other(None)], false).unwrap_err().to_string(), "left out");

        let named = asked(&[first], true).unwrap_err().to_string();
        assert!(named.contains("`fermata dead show 9.0`") && named.contains("another `--id`"));
    }

    #[test]
    fn an_event_has_its_key_whatever_else_it_lacks() {
        let plain = idempotency_of("acme", None, "/s", "1");

        assert_eq!(key(r#"{"id":"1","source":"/s"}"#), Some(plain));
        assert_eq!(key(r#"{"id":"1","source":"/s","tenant":"acme","data":[]}"#), Some(plain));
        let other = idempotency_of("globex", None, "/s", "1");
        assert_eq!(key(r#"{"id":"1","source":"/s","tenant":"globex"}"#), Some(other));
        let named = idempotency_of("acme", Some("k"), "/s", "1");
        assert_eq!(key(r#"{"idempotencykey":"k"}"#), Some(named));
        assert_eq!(key(r#"{"id":"1"}"#), None);
        assert_eq!(key_of(&letter("7.0", b"{")), None);
    }
}
