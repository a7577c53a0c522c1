//! The event of a letter as a request to decide it once more, repaired as asked.

use fermata_actors::listener::NO_TENANT;
use fermata_core::digest::Digest;
use fermata_core::event::{
    EventLimits, Form, MessageHeaders, REPLAY_REASON_ATTRIBUTE, REPLAY_UNLESS_ATTRIBUTE,
    REPLAYED_BY_ATTRIBUTE, RejectReason, SUBJECT_PREFIX, UNLESS_STARTED, decode_message,
    parse_subject, read_form,
};
use fermata_core::json::check_unique_keys;
use fermata_wire::dead::DeadLetter;
use serde_json::{Map, Value};

use super::edit::{merge, object, patch, twice, unusable};
use super::hints::{hint, is_refused_request};
use super::replay::ReplayArguments;
use super::replayed::original_of;
use super::started::key_of_event;
use crate::broker_session::random_id;
use crate::commands::definitions::read_text;
use crate::error::CliError;
use crate::journal_view::EventKey;

/// Stages whose letters hold no event: commands, tasks, and what a webhook was to be told.
const STAGES_WITHOUT_EVENTS: [&str; 3] = ["coordinator", "escalator", "tasks"];

/// Stands in the subject of an event that has no type, which goes nowhere.
const NO_TYPE: &str = "none";

/// An event that is to be replayed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) tenant: String,
    pub(super) subject: String,
    pub(super) webhook_id: String,
    pub(super) body: String,
    /// What the event claims where it starts work.
    pub(super) key: EventKey,
}

impl Request {
    /// Names the request anew where it was decided before and its event rejected, as `letter`: its partition
    /// knows the former name. Asked for again without an answer it is the same once more.
    pub(super) fn rename_after(&mut self, letter: &str) {
        self.webhook_id = name_of(&format!("{}\n{letter}", self.webhook_id));
    }
}

/// The name of a request that follows from `text`.
fn name_of(text: &str) -> String {
    let digest = Digest::of(text.as_bytes()).to_string();
    format!("replay_{}", digest.get(..32).unwrap_or(&digest))
}

/// Whether what a letter holds is an event, or was to be one.
pub(super) fn holds_event(letter: &DeadLetter) -> bool {
    !STAGES_WITHOUT_EVENTS.contains(&letter.stage.as_str())
}

/// The event of a letter, repaired as asked, ready to be sent.
pub(super) fn request(
    arguments: &ReplayArguments,
    letter: &DeadLetter,
    by: &str,
) -> Result<Request, CliError> {
    let id = &letter.id;
    if !holds_event(letter) {
        let (stage, hint) = (&letter.stage, hint(letter));
        return Err(CliError::Usage(format!(
            "`{id}` of the stage `{stage}` holds no event that could be replayed; {hint}"
        )));
    }
    let mut event = match &arguments.data {
        Some(file) => {
            let (text, what) = (read_text(file)?, format!("`{}`", file.display()));
            let event = object(&text, &what)?;
            check_unique_keys(&text).map_err(|error| twice(&what, &error))?;
            event
        }
        None => {
            let mut event = original_event(letter)?;
            // Who asked for what was refused, and why, is not who asks now.
            event.remove(REPLAY_REASON_ATTRIBUTE);
            event
        }
    };
    if let Some(edit) = &arguments.edit {
        merge(&mut event, patch(edit)?);
    }
    if let Some(reason) = &arguments.reason {
        event.insert(REPLAY_REASON_ATTRIBUTE.to_owned(), reason.as_str().into());
    }
    let tenant = match event.get("tenant").and_then(Value::as_str) {
        Some(tenant) => tenant.to_owned(),
        // The listener's name for who is not known; a tenant of that name can be named.
        None if letter.tenant == NO_TENANT => {
            return Err(CliError::Usage(format!(
                "the event of `{id}` names no tenant, nor does its subject: say whose it is, as with `--edit \
                 '{{\"tenant\": \"acme\"}}'`"
            )));
        }
        None => {
            event.insert("tenant".to_owned(), letter.tenant.as_str().into());
            letter.tenant.clone()
        }
    };
    let kind = event.get("type").and_then(Value::as_str).filter(|kind| !kind.is_empty());
    // One without a type is refused below for what it lacks, wherever it would go to.
    let subject = format!("{SUBJECT_PREFIX}{tenant}.{}", kind.unwrap_or(NO_TYPE));
    // The same letter with the same repair is the same replay, whoever asks for it and however often.
    event.remove(REPLAYED_BY_ATTRIBUTE);
    event.remove(REPLAY_UNLESS_ATTRIBUTE);
    let asked = Value::Object(event.clone()).to_string();
    let key = key_of_event(&event, &tenant);
    event.insert(REPLAYED_BY_ATTRIBUTE.to_owned(), by.into());
    if !arguments.again {
        // What starts its work from now on until this is decided is known where it is decided.
        event.insert(REPLAY_UNLESS_ATTRIBUTE.to_owned(), UNLESS_STARTED.into());
    }
    let body = Value::Object(event).to_string();
    if let Some((reason, problem)) = problem(&subject, &body)? {
        let edited = if arguments.edit.is_some() { ", edited like that," } else { "" };
        let way = match reason {
            Some(RejectReason::MissingAttribute) => way_of_missing(&body, letter),
            Some(_) | None => "repair it with `--edit` or `--data`".to_owned(),
        };
        return Err(CliError::Usage(format!(
            "the event of `{id}`{edited} would be refused again: {problem}; {way}"
        )));
    }
    // What is not refused for what it lacks has one.
    let key = key.ok_or_else(|| unusable(&format!("the event of `{id}`"), "it has no key"))?;
    let again = if arguments.again { format!("\n{}", random_id()) } else { String::new() };
    let named = format!("{}/{id}\n{asked}{again}", letter.stage);
    let webhook_id = arguments.id.clone().unwrap_or_else(|| name_of(&named));
    Ok(Request { tenant, subject, webhook_id, body, key })
}

/// Why the engine would refuse an event: the reason, where it is the event's, and for people.
fn problem(subject: &str, body: &str) -> Result<Option<(Option<RejectReason>, String)>, CliError> {
    let parsed = match parse_subject(subject) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Some((None, error.to_string()))),
    };
    let limits = EventLimits::default();
    match decode_message(None, body.as_bytes(), parsed, &limits).into_iter().next() {
        Some(Ok(event)) => {
            event.replayed().map_err(|problem| {
                CliError::Usage(format!("{problem}; `--by` and `--reason` give what is said here"))
            })?;
            Ok(None)
        }
        Some(Err(rejected)) => Ok(Some((Some(rejected.reason), rejected.detail))),
        None => Ok(None),
    }
}

/// How to give an event what it lacks: its type is probably that of the letter's subject.
fn way_of_missing(body: &str, letter: &DeadLetter) -> String {
    let event: Value = serde_json::from_str(body).unwrap_or_default();
    let kind = parse_subject(&letter.subject).map(|subject| subject.kind);
    // What is shown may be typed into a shell, and whoever publishes chooses the subject.
    let plain =
        |kind: &&str| kind.chars().all(|letter| letter.is_alphanumeric() || ".-_".contains(letter));
    let kind = kind.ok().filter(plain).unwrap_or("order.placed");
    let lacking = [("specversion", "1.0"), ("id", "1"), ("source", "/shop"), ("type", kind)];
    let lacking =
        lacking.into_iter().filter(|(name, _)| event.get(name).is_none_or(Value::is_null));
    let lacking = lacking.map(|(name, value)| (name.to_owned(), Value::from(value)));
    let patch = Value::Object(lacking.collect());
    format!("name what is missing in `--edit`, as in `--edit '{patch}'`")
}

/// That a letter stands for a request to replay that was refused, and what to do instead. With `--data`
/// whoever asks says all of the event, and nothing is taken over that nobody may have signed.
pub(super) fn no_event_of_its_own(
    arguments: &ReplayArguments,
    letter: &DeadLetter,
) -> Option<CliError> {
    let original = original_of(letter);
    if !is_refused_request(letter) || (arguments.data.is_some() && original.is_none()) {
        return None;
    }
    let DeadLetter { id, reason, .. } = letter;
    let way = match original {
        Some(original) => format!(
            "replay `{original}`, which it was for, with what it was to repair: `fermata dead replay {original}`"
        ),
        None => "whoever sent it has to send it again, signed anew; to sign the event yourself, write it into a \
                 file (`fermata dead show ID --unmasked` has it) and name that with `--data`"
            .to_owned(),
    };
    Some(CliError::Usage(format!(
        "`{id}` is a request to replay that was refused (`{reason}`), and no event of its own: {way}"
    )))
}

/// The event that a letter's bytes are, whatever their form.
pub(super) fn original_event(letter: &DeadLetter) -> Result<Map<String, Value>, CliError> {
    let headers = letter.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let headers = MessageHeaders::new(headers);
    let what = format!("the event of `{}`", letter.id);
    match read_form(&headers, &letter.original, &EventLimits::default()) {
        // A parser would take the last of both, and nobody have decided that.
        Form::Json if letter.reason == RejectReason::DuplicateAttribute.as_str() => {
            Err(unusable(&what, &letter.detail))
        }
        Form::Json => {
            let text = std::str::from_utf8(&letter.original).unwrap_or_default();
            object(text, &what)
        }
        Form::Converted(events) => match events.into_iter().next().map(|event| event.text) {
            Some(Ok(text)) => object(&text, &what),
            Some(Err((_, detail))) => Err(unusable(&what, &detail)),
            None => Err(unusable(&what, "there is none")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use fermata_jetstream::Bytes;
    use serde_json::json;

    use super::*;

    const EVENT: &str =
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"a.b","data":{"x":1,"y":2}}"#;

    fn letter(original: &str) -> DeadLetter {
        DeadLetter {
            id: "7.0".to_owned(),
            tenant: "acme".to_owned(),
            stage: "builder".to_owned(),
            reason: "input_invalid".to_owned(),
            detail: String::new(),
            subject: "fermata.events.acme.a.b".to_owned(),
            original: Bytes::from(original.to_owned()),
            time_ms: 0,
            headers: Vec::new(),
            attempts: None,
            trace: None,
        }
    }

    fn arguments(edit: Option<&str>) -> ReplayArguments {
        ReplayArguments {
            ids: vec!["7.0".to_owned()],
            data: None,
            edit: edit.map(str::to_owned),
            reason: None,
            id: None,
            again: false,
            by: None,
            replay_secrets: None,
        }
    }

    #[test]
    fn an_event_of_nobody_known_is_not_replayed_for_a_tenant_of_that_name() {
        let unknown = DeadLetter { tenant: NO_TENANT.to_owned(), ..letter(EVENT) };

        let refused = request(&arguments(None), &unknown, "ann").unwrap_err().to_string();
        let named = request(&arguments(Some(r#"{"tenant":"acme"}"#)), &unknown, "ann").unwrap();

        assert!(refused.contains("names no tenant") && refused.contains("--edit"), "{refused}");
        assert_eq!(named.tenant, "acme");
    }

    #[test]
    fn a_key_that_is_there_twice_is_told_with_its_place_and_nobody_chooses_one() {
        let edit = "{\"data\":{\"amount\":1,\n\"amount\":2}}";
        let told = request(&arguments(Some(edit)), &letter(EVENT), "ann").unwrap_err().to_string();
        assert!(
            told.starts_with("in `--edit` `amount` is there twice at line 2 column 8;"),
            "{told}"
        );

        let folder = tempfile::tempdir().unwrap();
        let data = Some(folder.path().join("event.json"));
        let twice = EVENT.replace(r#""y":2"#, r#""x":2"#);
        std::fs::write(data.as_ref().unwrap(), &twice).unwrap();
        let told = request(&ReplayArguments { data, ..arguments(None) }, &letter("{"), "ann");
        assert!(told.unwrap_err().to_string().contains("event.json` `x` is there twice at line 1"));

        // What came and was refused for another reason is replayed as whoever read it took it.
        assert!(request(&arguments(None), &letter(&twice), "ann").is_ok());
        let id_twice = DeadLetter {
            reason: "duplicate_attribute".to_owned(),
            detail: "`id` is there more than once".to_owned(),
            ..letter(&EVENT.replace(r#""id":"1""#, r#""id":"1","id":"2""#))
        };
        let told = request(&arguments(None), &id_twice, "ann").unwrap_err().to_string();
        assert!(
            told.contains("`id` is there more than once") && told.contains("`--data`"),
            "{told}"
        );
    }

    #[test]
    fn an_event_is_repaired_by_a_merge_patch_and_names_its_tenant() {
        let edit = r#"{"data":{"x":null,"y":{"z":3}},"subject":"s"}"#;

        let request = request(&arguments(Some(edit)), &letter(EVENT), "ann").unwrap();

        let body: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(body["data"], json!({"y": {"z": 3}}));
        assert_eq!((&body["subject"], &body["tenant"]), (&json!("s"), &json!("acme")));
        assert_eq!(request.subject, "fermata.events.acme.a.b");
    }

    #[test]
    fn the_same_letter_and_repair_is_the_same_request_and_another_repair_another() {
        let id = |edit| request(&arguments(edit), &letter(EVENT), "ann").unwrap().webhook_id;

        assert_eq!(id(None), id(None));
        assert_ne!(id(None), id(Some(r#"{"subject":"s"}"#)));
    }

    #[test]
    fn who_asks_is_signed_and_no_part_of_what_names_the_request() {
        let asked = |by| request(&arguments(None), &letter(EVENT), by);
        let earlier = EVENT.replace(r#""type""#, r#""replayedby":"x","replayreason":"y","type""#);

        let (ann, bob) = (asked("ann").unwrap(), asked("bob").unwrap());
        let anew = request(&arguments(None), &letter(&earlier), "ann").unwrap();

        assert_eq!(ann.webhook_id, bob.webhook_id);
        let by = |request: &Request| {
            serde_json::from_str::<Value>(&request.body).unwrap()["replayedby"].clone()
        };
        assert_eq!((by(&ann), by(&bob)), (json!("ann"), json!("bob")));
        // Of whoever asked for it before nothing is left.
        assert_eq!(anew, ann);
        for unusable in ["", "a\nb", &"x".repeat(129)] {
            assert!(asked(unusable).is_err(), "{unusable:?}");
        }
        let reason = Some("x".repeat(513));
        let long = ReplayArguments { reason, ..arguments(None) };
        assert!(request(&long, &letter(EVENT), "ann").is_err());
    }

    #[test]
    fn a_replay_that_is_meant_again_is_another_one_each_time() {
        let again = ReplayArguments { again: true, ..arguments(None) };
        let plain = arguments(None);
        let id = |arguments| request(arguments, &letter(EVENT), "ann").unwrap().webhook_id;

        assert_ne!(id(&again), id(&plain));
        assert_ne!(id(&again), id(&again));
    }

    #[test]
    fn what_would_be_refused_again_is_not_sent() {
        for (original, edit) in
            [("{", None), ("[]", None), (EVENT, Some(r#"{"id":null}"#)), (EVENT, Some("[]"))]
        {
            assert!(
                request(&arguments(edit), &letter(original), "ann").is_err(),
                "{original} {edit:?}"
            );
        }
    }

    #[test]
    fn an_event_that_still_lacks_what_every_event_has_is_told_with_what_to_type() {
        let told = |original: &str, edit: Option<&str>| {
            let refused = request(&arguments(edit), &letter(original), "ann").unwrap_err();
            refused.to_string()
        };
        let bare = r#"{"specversion":"1.0","id":"1"}"#;

        let both = told(bare, None);
        let way =
            r#"name what is missing in `--edit`, as in `--edit '{"source":"/shop","type":"a.b"}'`"#;
        assert_eq!(
            both,
            format!(
                "the event of `7.0` would be refused again: `source` and `type` are missing; every event has \
                 them; {way}"
            )
        );
        let still = told(bare, Some(r#"{"source":"/s"}"#));
        let way = "`type` is missing; every event has it; name what is missing in `--edit`, as in";
        let way = format!("{way} `--edit '{{\"type\":\"a.b\"}}'`");
        assert_eq!(
            still,
            format!("the event of `7.0`, edited like that, would be refused again: {way}")
        );
        for (kind, why) in [("7", "`type` is not a string"), ("\"\"", "`type` is empty")] {
            let edit = format!(r#"{{"source":"/s","type":{kind}}}"#);
            let told = told(bare, Some(&edit));
            assert!(told.contains(why) && !told.contains("fermata.events"), "{told}");
        }

        // With a type it goes where that says, whatever the subject was that it came on.
        let edit = r#"{"source":"/s","type":"c.d"}"#;
        let request = request(&arguments(Some(edit)), &letter(bare), "ann").unwrap();
        let body: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(request.subject, "fermata.events.acme.c.d");
        assert_eq!((&body["type"], &body["source"]), (&json!("c.d"), &json!("/s")));
    }

    #[test]
    fn a_request_that_was_refused_is_no_event_of_its_own() {
        let headers = |value: &str| vec![("Fermata-Replay".to_owned(), value.to_owned())];
        let refused = |reason: &str, value: &str, data: bool| {
            let data = data.then(|| PathBuf::from("event.json"));
            let arguments = ReplayArguments { data, ..arguments(None) };
            let (id, reason) = ("9.0".to_owned(), reason.to_owned());
            let letter = DeadLetter { id, reason, headers: headers(value), ..letter(EVENT) };
            no_event_of_its_own(&arguments, &letter).map(|error| error.to_string())
        };

        let told = refused("replay_forged", "7.0", false).unwrap();
        let way = "`9.0` is a request to replay that was refused (`replay_forged`), and no event of its own: \
                   replay `7.0`, which it was for";
        assert!(told.starts_with(way) && told.ends_with("`fermata dead replay 7.0`"), "{told}");
        assert_eq!(refused("replay_forged", "7.0", true), Some(told));
        // Who sent it is not known; with its own file whoever asks signs nothing of it.
        let told = refused("replay_unsigned", "http", false).unwrap();
        assert!(told.contains("`--data`"), "{told}");
        assert_eq!(refused("replay_unsigned", "http", true), None);
        assert_eq!(refused("variables_failed", "7.0", false), None);
    }

    #[test]
    fn what_is_no_event_is_refused_with_what_can_be_done() {
        let task = DeadLetter {
            stage: "tasks".to_owned(),
            reason: "task_poisoned".to_owned(),
            ..letter(EVENT)
        };

        let refused = request(&arguments(None), &task, "ann").unwrap_err().to_string();

        assert!(refused.contains("replay the event that started its run"), "{refused}");
    }

    #[test]
    fn an_event_in_another_form_is_replayed_as_json() {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/s"),
            ("ce-type", "a.b"),
            ("Content-Type", "application/msgpack"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let binary =
            DeadLetter { headers, original: Bytes::from_static(b"\x81\xa1x\x01"), ..letter("") };

        let request = request(&arguments(None), &binary, "ann").unwrap();

        let body: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(body["data"], json!({"x": 1}));
    }
}
