//! `fermata dead replay`: an event is decided once more, after repair.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use fermata_core::event::{
    EventLimits, Form, MessageHeaders, REPLAY_HEADER, REPLAY_REASON_ATTRIBUTE,
    REPLAYED_BY_ATTRIBUTE, SUBJECT_PREFIX, decode_message, parse_subject, read_form,
};
use fermata_core::{digest::Digest, json::told};
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_jetstream::{Bytes, Headers, StreamReader};
use fermata_wire::dead::DeadLetter;
use fermata_wire::replay::{ID_HEADER, ReplayKeys, SIGNATURE_HEADER, TIMESTAMP_HEADER, replay_id};
use serde_json::{Map, Value, json};

use super::near::{NearLetters, not_there};
use super::replayed::earlier;
use super::show::hint;
use super::{DeadLetters, Replayed};
use crate::arrived::for_each_event;
use crate::broker_session::{BrokerSession, asking_user, random_id, stored_by};
use crate::commands::definitions::read_text;
use crate::error::{CliError, ExitCode};
use crate::local_engine::replay_keys;
use crate::output::{Output, Tone};

/// Stages whose letters hold no event: commands, tasks, and what a webhook was to be told.
const STAGES_WITHOUT_EVENTS: [&str; 3] = ["coordinator", "escalator", "tasks"];

/// Arguments of `fermata dead replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArguments {
    /// Ids of dead letters, as listed; also `<sequence>.<index>` of an event that is still in EVENTS
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// File with the repaired event, whole, as JSON
    #[arg(long, value_name = "FILE", conflicts_with = "edit")]
    pub data: Option<PathBuf>,
    /// What to change in the event: a JSON merge patch (RFC 7396)
    #[arg(long, value_name = "JSON")]
    pub edit: Option<String>,
    /// Why; signed with the event as its extension `replayreason`, recorded and audited, at most 512 bytes
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Names the request instead of what follows from the letter and the event; another name is another replay
    #[arg(long, value_name = "TEXT")]
    pub id: Option<String>,
    /// Have the event decided once more though it was replayed before
    #[arg(long, conflicts_with = "id")]
    pub again: bool,
    /// Who asks; goes along as `replayedby`, likewise, at most 128 bytes; default: the user of the operating system
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// File with the secrets; default: the variable FERMATA_REPLAY_SECRETS
    #[arg(long, value_name = "FILE")]
    pub replay_secrets: Option<PathBuf>,
}

/// An event that is to be replayed.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    tenant: String,
    subject: String,
    webhook_id: String,
    body: String,
}

/// Replays all, or none where one of them cannot be used.
pub(super) async fn replay(
    arguments: &ReplayArguments,
    session: &BrokerSession,
    dead: &DeadLetters,
    near: &NearLetters,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let keys = replay_keys(arguments.replay_secrets.as_deref())?;
    if keys.is_empty() {
        let text = "a replay has to be signed: set FERMATA_REPLAY_SECRETS, or name a file with \
                    `--replay-secrets`; the engine's listeners must know the same secret (`echo \
                    \"whsec_$(head -c 32 /dev/urandom | base64)\" > replay.secrets` makes one). \
                    Without one, publish the event again as it should be";
        return Err(CliError::Usage(text.to_owned()));
    }
    if arguments.ids.len() > 1 && (arguments.data.is_some() || arguments.id.is_some()) {
        let text = "`--data` and `--id` are for one letter at a time";
        return Err(CliError::Usage(text.to_owned()));
    }
    let by = arguments.by.clone().unwrap_or_else(asking_user);
    let mut requests = Vec::new();
    for id in &arguments.ids {
        let letter = match dead.of_id(id).last() {
            // One that was filed without its bytes may still stand in EVENTS.
            Some(filed) if filed.letter.original.is_empty() => {
                from_events(id, session).await?.unwrap_or_else(|| filed.letter.clone())
            }
            Some(filed) => filed.letter.clone(),
            None => from_events(id, session).await?.ok_or_else(|| not_there(id, near))?,
        };
        let replays = dead.replays_of(id);
        let request = request(arguments, &letter, &by)?;
        if arguments.id.is_none()
            && !arguments.again
            && let Some(earlier) = earlier(&replays, &request.webhook_id, now_ms())
        {
            return Err(refused(id, earlier));
        }
        let is_noted = replays.iter().any(|replayed| replayed.request == request.webhook_id);
        requests.push((id, request, is_noted));
    }
    let detail = match &arguments.reason {
        Some(reason) => format!("{by}: {reason}"),
        None => by,
    };
    let publisher = session.publisher().await?;
    for (id, request, is_noted) in requests {
        let Request { tenant, subject, webhook_id, body } = &request;
        let headers = signed_headers(&keys, &request, id, now_ms() / 1_000)?;
        let payload = Bytes::from(body.clone());
        let asked = Replayed {
            id: id.clone(),
            request: webhook_id.clone(),
            detail: detail.clone(),
            time_ms: now_ms(),
        };
        // First, for a request without an answer may be stored all the same.
        if !is_noted && let Err(error) = asked.store(tenant, subject, &publisher).await {
            // It is only not told by `fermata dead list`.
            output.note(&format!("that a replay of {id} is asked for could not be noted: {error}"));
        }
        let publish = async || {
            let (headers, payload) = (Some(headers.clone()), payload.clone());
            publisher.publish(subject.clone(), headers, payload).await.await
        };
        let sequence = stored_by(session.broker(), subject, publish).await?;
        if output.is_json() {
            let replay = replay_id(webhook_id);
            output.json_line(&json!({
                "id": id, "sequence": sequence, "subject": subject, "request": webhook_id,
                "replay": replay,
            }))?;
        } else {
            let title = output.tone(Tone::Good, "requested");
            output.line(&format!("{title}: replay of {id} on {subject}, stored at {sequence}"))?;
        }
    }
    Ok(ExitCode::Success)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn refused(id: &str, earlier: &Replayed) -> CliError {
    CliError::Refused(format!(
        "a replay of `{id}` was asked for already, {}; what is asked for now would be another one, and start \
         what it starts once more. If that is meant, or that one was refused, say `--again`; nothing was sent",
        earlier.text()
    ))
}

fn signed_headers(
    keys: &ReplayKeys,
    request: &Request,
    id: &str,
    now_seconds: u64,
) -> Result<Headers, CliError> {
    let Request { webhook_id, body, .. } = request;
    let signature = keys
        .sign(webhook_id, now_seconds, body.as_bytes())
        .ok_or_else(|| CliError::Usage("there is no secret to sign with".to_owned()))?;
    let mut headers = Headers::new();
    headers.insert("Content-Type", "application/cloudevents+json");
    headers.insert(REPLAY_HEADER, fermata_core::event::header_value(id));
    headers.insert(ID_HEADER, webhook_id.as_str());
    headers.insert(TIMESTAMP_HEADER, now_seconds.to_string());
    headers.insert(SIGNATURE_HEADER, signature);
    Ok(headers)
}

/// An event without a letter that is still in EVENTS, as if it had been filed.
async fn from_events(id: &str, session: &BrokerSession) -> Result<Option<DeadLetter>, CliError> {
    let Some((sequence, index)) = id.split_once('.') else { return Ok(None) };
    let (Ok(sequence), Ok(index)) = (sequence.parse::<u64>(), index.parse::<usize>()) else {
        return Ok(None);
    };
    let reader = StreamReader::new(session.broker());
    let Some(message) = reader.read_one(EVENTS_STREAM, sequence).await? else { return Ok(None) };
    let Ok(subject) = parse_subject(&message.subject) else { return Ok(None) };
    let mut events = Vec::new();
    for_each_event(&message, subject, |event| {
        let owned = event.map(|event| (event.tenant.to_owned(), event.raw.as_bytes().to_vec()));
        events.push(owned.ok());
    });
    let Some(Some((tenant, original))) = events.into_iter().nth(index) else { return Ok(None) };
    Ok(Some(DeadLetter {
        id: id.to_owned(),
        tenant,
        stage: "partition".to_owned(),
        reason: String::new(),
        detail: String::new(),
        subject: message.subject.to_string(),
        original: original.into(),
        time_ms: 0,
        headers: Vec::new(),
        attempts: None,
        trace: None,
    }))
}

/// The event of a letter, repaired as asked, ready to be sent.
fn request(
    arguments: &ReplayArguments,
    letter: &DeadLetter,
    by: &str,
) -> Result<Request, CliError> {
    let id = &letter.id;
    if STAGES_WITHOUT_EVENTS.contains(&letter.stage.as_str()) {
        let (stage, hint) = (&letter.stage, hint(letter));
        return Err(CliError::Usage(format!(
            "`{id}` of the stage `{stage}` holds no event that could be replayed; {hint}"
        )));
    }
    let mut event = match &arguments.data {
        Some(file) => object(&read_text(file)?, &format!("`{}`", file.display()))?,
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
        None => {
            event.insert("tenant".to_owned(), letter.tenant.as_str().into());
            letter.tenant.clone()
        }
    };
    let kind = event.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let subject = format!("{SUBJECT_PREFIX}{tenant}.{kind}");
    // The same letter with the same repair is the same replay, whoever asks for it and however often.
    event.remove(REPLAYED_BY_ATTRIBUTE);
    let asked = Value::Object(event.clone()).to_string();
    event.insert(REPLAYED_BY_ATTRIBUTE.to_owned(), by.into());
    let body = Value::Object(event).to_string();
    let checked = match parse_subject(&subject) {
        Ok(parsed) => {
            let limits = EventLimits::default();
            let outcome = decode_message(None, body.as_bytes(), parsed, &limits).into_iter().next();
            match outcome {
                Some(Ok(event)) => {
                    event.replayed().map_err(|problem| {
                        let text =
                            format!("{problem}; `--by` and `--reason` give what is said here");
                        CliError::Usage(text)
                    })?;
                    None
                }
                Some(Err(rejected)) => Some(rejected.detail),
                None => None,
            }
        }
        Err(error) => Some(error.to_string()),
    };
    if let Some(problem) = checked {
        return Err(CliError::Usage(format!(
            "the event of `{id}` would be refused again: {problem}; repair it with `--edit` or `--data`"
        )));
    }
    let again = if arguments.again { format!("\n{}", random_id()) } else { String::new() };
    let named = format!("{}/{id}\n{asked}{again}", letter.stage);
    let digest = Digest::of(named.as_bytes()).to_string();
    let default = || format!("replay_{}", digest.get(..32).unwrap_or(&digest));
    let webhook_id = arguments.id.clone().unwrap_or_else(default);
    Ok(Request { tenant, subject, webhook_id, body })
}

/// The event that a letter's bytes are, whatever their form.
fn original_event(letter: &DeadLetter) -> Result<Map<String, Value>, CliError> {
    let headers = letter.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let headers = MessageHeaders::new(headers);
    let what = format!("the event of `{}`", letter.id);
    match read_form(&headers, &letter.original, &EventLimits::default()) {
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

/// What `--edit` says.
fn patch(text: &str) -> Result<Map<String, Value>, CliError> {
    let why = match serde_json::from_str(text) {
        Ok(Value::Object(members)) => return Ok(members),
        Ok(_) => "is no JSON object".to_owned(),
        Err(error) => format!("is no JSON: {}", told(&error, text)),
    };
    Err(CliError::Usage(format!(
        "`--edit` {why}; it is a JSON merge patch (RFC 7396), which names what changes in the event, as in `--edit \
         '{{\"data\": {{\"amount\": 12}}}}'`, and removes what it gives as null"
    )))
}

fn object(text: &str, what: &str) -> Result<Map<String, Value>, CliError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(unusable(what, "it is no JSON object")),
        Err(error) => Err(unusable(what, &told(&error, ""))), // a word of it may be secret
    }
}

fn unusable(what: &str, why: &str) -> CliError {
    CliError::Usage(format!(
        "{what} cannot be used: {why}; write the event anew and name the file with `--data`"
    ))
}

/// Merges a patch into an object (RFC 7396).
fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(&name);
            }
            Value::Object(inner) => {
                let place = target.entry(name).or_insert(Value::Null);
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                if let Value::Object(members) = place {
                    merge(members, inner);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                target.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn an_edit_that_is_no_patch_is_told_with_its_place_and_one_that_is() {
        for (edit, why) in [
            ("[\n1 2]", "is no JSON: expected `,` or `]`, found `2` at line 2 column 3"),
            ("[1]", "is no JSON object"),
        ] {
            let told = patch(edit).unwrap_err().to_string();

            assert!(told.starts_with(&format!("`--edit` {why}")), "{told}");
            assert!(told.contains("`--edit '{\"data\": {\"amount\": 12}}'`"), "{told}");
        }
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
