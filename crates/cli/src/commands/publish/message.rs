//! From bytes to a message that the engine will take.

use std::fmt;

use fermata_core::event::{
    DataForm, Event, EventLimits, MESSAGE_BYTES_MAX, RejectReason, SUBJECT_PREFIX, decode_message,
    msgpack_of_json, parse_subject,
};
use fermata_core::identity::Tenant;
use fermata_core::json::{check_unique_keys, key_twice, told};
use fermata_jetstream::{Bytes, Headers};
use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::PublishArguments;
use super::claim::Claim;
use crate::broker_session::random_id;
use crate::error::CliError;
use crate::output::excerpt;

/// What to do with a file or line that is no JSON.
const NO_JSON: &str = r#"an event is a JSON object such as `{"id": "1", "type": "scan.stored", "data": {}}`; data that is no event goes with `--data-file FILE --tenant NAME --type TYPE`, and `--data-type` where it is no JSON"#;

/// What to do about a key that is there twice.
pub(super) const TWICE: &str = "whoever reads it takes the last of both: keep one of them, or publish it as it is with `--no-check`";

/// What a type of an event is.
const TYPE_RULE: &str = "a type is tokens parted by dots, none of them empty, `*` or `>`, without spaces and control characters, 256 bytes at most";

/// Characters of a type that is none that are shown.
const TYPE_CHARACTERS_MAX: usize = 80;

/// Type in the subject of a batch, whose events have types of their own.
const BATCH_TYPE: &str = "batch";

/// One message with an event or a batch of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventMessage {
    /// Where it was read from.
    pub(super) origin: String,
    /// Where it goes to.
    pub(super) subject: String,
    /// How many events it holds.
    pub(super) events: usize,
    is_batch: bool,
    pub(super) payload: Bytes,
    /// Names and values of its headers.
    headers: Vec<(String, String)>,
    /// Data that has to be stored first.
    pub(super) claim: Option<Claim>,
}

/// How events are published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Attributes as headers.
    pub(super) binary: bool,
    /// MessagePack instead of JSON.
    pub(super) msgpack: bool,
}

/// Why something is not published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Refused {
    from: String,
    /// Place in the batch.
    index: Option<u32>,
    /// Stable reason code.
    reason: &'static str,
    detail: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.from)?;
        if let Some(index) = self.index {
            write!(formatter, ", event {index}")?;
        }
        write!(formatter, ": {} ({})", self.detail, self.reason)
    }
}

impl Refused {
    /// A line that is longer than any message.
    pub(super) fn too_long(from: String, bytes: usize) -> Self {
        let detail = format!("the line has {bytes} bytes, a message at most {MESSAGE_BYTES_MAX}");
        Self { from, index: None, reason: "too_large", detail }
    }
}

impl EventMessage {
    /// Finds out the subject: `tenant` and `kind` as typed, else as the events say.
    pub(super) fn new(
        origin: String,
        bytes: Vec<u8>,
        tenant: Option<&str>,
        kind: Option<&str>,
    ) -> Result<Self, Refused> {
        let parsed = serde_json::from_slice::<Value>(&bytes);
        let (is_batch, events) = match &parsed {
            Ok(Value::Array(events)) => (true, events.as_slice()),
            Ok(event) => (false, std::slice::from_ref(event)),
            Err(_) => (bytes.trim_ascii_start().first() == Some(&b'['), [].as_slice()),
        };
        let refuse = |reason, detail: &str| {
            Err(Refused { from: origin.clone(), index: None, reason, detail: detail.to_owned() })
        };
        // Without a type and a tenant of its own it goes nowhere, on purpose or not.
        if let Err(error) = &parsed
            && (tenant.is_none() || kind.is_none())
        {
            let why = told(error, std::str::from_utf8(&bytes).unwrap_or_default());
            return refuse("not_json", &format!("this is no JSON: {why}; {NO_JSON}"));
        }
        let Some(tenant) = tenant.or_else(|| common(events, "tenant")) else {
            let detail =
                "whose event is it? name the tenant with `--tenant`, or in the event as `tenant`";
            return refuse("no_tenant", detail);
        };
        let kind = kind.or(if is_batch { Some(BATCH_TYPE) } else { common(events, "type") });
        let Some(kind) = kind else {
            let detail = "the event has no `type`; name one with `--type`";
            return refuse("no_type", detail);
        };
        // One that is none would be nobody's: its event is filed under the tenant `unknown`.
        if let Err(error) = tenant.parse::<Tenant>() {
            return refuse("bad_subject", &error.to_string());
        }
        let subject = format!("{SUBJECT_PREFIX}{tenant}.{kind}");
        if parse_subject(&subject).is_err() {
            // The tenant is one.
            let kind = excerpt(kind, TYPE_CHARACTERS_MAX);
            return refuse("bad_subject", &format!("`{kind}` is no type of an event; {TYPE_RULE}"));
        }
        // Of what cannot be read nobody knows; it is one of something.
        let events = if parsed.is_ok() { events.len() } else { 1 };
        let media_type = if is_batch {
            "application/cloudevents-batch+json"
        } else {
            "application/cloudevents+json"
        };
        let headers = vec![("Content-Type".to_owned(), media_type.to_owned())];
        Ok(Self { origin, subject, events, is_batch, payload: bytes.into(), headers, claim: None })
    }

    /// The same message, whose event refers to data that has to be stored first.
    pub(super) fn with_claim(self, claim: Option<Claim>) -> Self {
        Self { claim, ..self }
    }

    /// The same event as the only one of a batch; a batch stays what it is.
    pub(super) fn into_batch(self) -> Self {
        if self.is_batch {
            return self;
        }
        let tenant = parse_subject(&self.subject).map_or("", |subject| subject.tenant);
        let subject = format!("{SUBJECT_PREFIX}{tenant}.{BATCH_TYPE}");
        let payload = [b"[", self.payload.trim_ascii(), b"]"].concat().into();
        let headers =
            vec![("Content-Type".to_owned(), "application/cloudevents-batch+json".to_owned())];
        Self { subject, is_batch: true, payload, headers, ..self }
    }

    /// Whether an event goes into this batch as well.
    pub(super) fn takes(&self, other: &Self, events_max: usize, bytes_max: usize) -> bool {
        let tenant = |message: &Self| {
            parse_subject(&message.subject).map(|subject| subject.tenant.to_owned()).ok()
        };
        !other.is_batch
            && self.events < events_max
            && self.payload.len() + other.payload.len() < bytes_max
            && tenant(self) == tenant(other)
    }

    /// This batch with one more event.
    pub(super) fn with(self, other: &Self) -> Self {
        let open = self.payload.strip_suffix(b"]").unwrap_or(&self.payload);
        let payload = [open, b",", other.payload.trim_ascii(), b"]"].concat().into();
        Self { payload, events: self.events + 1, ..self }
    }

    /// The same message in the form that was asked for.
    pub(super) fn in_form(self, form: Form) -> Result<Self, Refused> {
        if form == Form::default() {
            return Ok(self);
        }
        let refuse = |reason, detail: String| Refused {
            from: self.origin.clone(),
            index: None,
            reason,
            detail,
        };
        if !form.binary {
            let text = std::str::from_utf8(&self.payload)
                .map_err(|error| refuse("not_utf8", error.to_string()))?;
            let payload = msgpack_of_json(text).map_err(|error| refuse("not_msgpack", error))?;
            let batch = if self.is_batch { "-batch" } else { "" };
            let media_type = format!("application/cloudevents{batch}+msgpack");
            let headers = vec![("Content-Type".to_owned(), media_type)];
            return Ok(Self { payload: payload.into(), headers, ..self });
        }
        if self.is_batch {
            let detail = "binary mode has no batches; leave `--binary` out or send single events";
            return Err(refuse("bad_batch", detail.to_owned()));
        }
        let data = if form.msgpack { DataForm::Msgpack } else { DataForm::AsDeclared };
        let event = self.decoded().map_err(|detail| refuse("bad_attribute", detail))?;
        let written = event.to_binary(data);
        let message = written.map_err(|(reason, detail)| refuse(reason.as_str(), detail))?;
        Ok(Self { payload: message.payload.into(), headers: message.headers, ..self })
    }

    fn decoded(&self) -> Result<Event<'_>, String> {
        let subject = parse_subject(&self.subject).map_err(|error| error.to_string())?;
        decode_message(None, &self.payload, subject, &EventLimits::default())
            .into_iter()
            .next()
            .ok_or_else(|| "there is no event".to_owned())?
            .map_err(|rejected| rejected.detail)
    }

    /// The message, if the engine will take every event in it.
    pub(super) fn checked(self) -> Result<Self, Refused> {
        let refused = match parse_subject(&self.subject) {
            Err(_) => None,
            Ok(subject) => {
                let content_type = self.headers.first().map(|(_, value)| value.as_str());
                decode_message(content_type, &self.payload, subject, &EventLimits::default())
                    .into_iter()
                    .find_map(Result::err)
                    .map(|rejected| Refused {
                        from: self.origin.clone(),
                        // What is refused as a whole is so for no single event of it.
                        index: (rejected.original.len() < self.payload.len())
                            .then_some(rejected.index),
                        reason: rejected.reason.as_str(),
                        detail: match rejected.reason == RejectReason::NotJson {
                            true => format!("{}; {NO_JSON}", rejected.detail),
                            false => rejected.detail,
                        },
                    })
            }
        };
        match refused {
            Some(refused) => Err(refused),
            None => Ok(self),
        }
    }

    /// The message, if no object in it has a key twice. The engine takes such data as it came, and what reads it
    /// takes the last; in a file that a person wrote it is a slip.
    pub(super) fn with_unique_keys(self) -> Result<Self, Refused> {
        let text = std::str::from_utf8(&self.payload).unwrap_or_default();
        let Some(error) = key_twice(text) else { return Ok(self) };
        let detail = format!("{error}; {TWICE}");
        Err(Refused { from: self.origin, index: None, reason: "duplicate_key", detail })
    }

    /// Headers of the message.
    pub(super) fn headers(&self) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in &self.headers {
            headers.append(name.as_str(), value.as_str());
        }
        headers
    }
}

/// The text that all events give an attribute; nothing when they differ.
fn common<'v>(events: &'v [Value], attribute: &str) -> Option<&'v str> {
    let first = events.first()?.get(attribute)?.as_str()?;
    let same = |event: &Value| event.get(attribute).and_then(Value::as_str) == Some(first);
    events.iter().all(same).then_some(first)
}

/// The event that the arguments describe.
pub(super) fn inline_event(arguments: &PublishArguments) -> Result<Vec<u8>, CliError> {
    let Some(kind) = &arguments.kind else {
        let text = "name files to publish, or describe an event with `--type` and `--tenant`";
        return Err(CliError::Usage(text.to_owned()));
    };
    let now = OffsetDateTime::now_utc().format(&Rfc3339);
    let mut event = Map::from_iter([
        ("specversion".to_owned(), json!("1.0")),
        ("id".to_owned(), json!(arguments.id.clone().unwrap_or_else(|| random_id().to_string()))),
        ("source".to_owned(), json!(arguments.source)),
        ("type".to_owned(), json!(kind)),
    ]);
    if let Ok(now) = now {
        event.insert("time".to_owned(), json!(now));
    }
    if let Some(data) = &arguments.data {
        let text = data;
        let data: Value = serde_json::from_str(text).map_err(|error| {
            let why = told(&error, text);
            CliError::Usage(format!(
                "`--data` is no JSON: {why}; write it in single quotes of the shell, as in `--data \
                 '{{\"amount\": 12}}'` or, for a text, `--data '\"done\"'`; what is no JSON goes with `--data-file`"
            ))
        })?;
        check_unique_keys(text).map_err(|error| {
            CliError::Usage(format!(
                "in `--data` {error}; only the last of both would be sent: keep one of them"
            ))
        })?;
        event.insert("datacontenttype".to_owned(), json!("application/json"));
        event.insert("data".to_owned(), data);
    }
    Ok(Value::Object(event).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str =
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"a.b","tenant":"acme"}"#;

    fn message(
        text: &str,
        tenant: Option<&str>,
        kind: Option<&str>,
    ) -> Result<EventMessage, Refused> {
        EventMessage::new("f".to_owned(), text.as_bytes().to_vec(), tenant, kind)
            .and_then(EventMessage::checked)
    }

    #[test]
    fn an_event_says_itself_where_it_goes() {
        assert_eq!(message(EVENT, None, None).unwrap().subject, "fermata.events.acme.a.b");
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_with_its_place() {
        let twice = EVENT.replace('}', ",\"data\":{\"n\":1,\n\"n\":2}}");

        let refused = message(&twice, None, None).unwrap().with_unique_keys().unwrap_err();
        assert_eq!(refused.reason, "duplicate_key");
        assert!(refused.detail.starts_with("`n` is there twice at line 2 column 3;"), "{refused}");
        let same_key_in_two = EVENT.replace('}', r#","data":[{"n":1},{"n":{"n":2}}]}"#);
        assert!(message(&same_key_in_two, None, None).unwrap().with_unique_keys().is_ok());
    }

    #[test]
    fn a_batch_goes_as_one_message_under_its_own_type() {
        let batch = message(&format!("[{EVENT},{EVENT}]"), None, None).unwrap();

        assert_eq!((batch.subject.as_str(), batch.events), ("fermata.events.acme.batch", 2));
        let content_type = batch.headers().get("Content-Type").map(ToString::to_string);
        assert_eq!(content_type.as_deref(), Some("application/cloudevents-batch+json"));
    }

    #[test]
    fn an_event_that_the_engine_would_refuse_is_refused_here_with_its_reason() {
        let refused = message(EVENT, Some("globex"), None).unwrap_err();
        assert_eq!(refused.reason, "tenant_mismatch");

        let without_id = r#"{"specversion":"1.0","source":"/s","type":"a"}"#;
        let refused = message(&format!("[{EVENT},{without_id}]"), Some("acme"), None).unwrap_err();
        assert_eq!((refused.reason, refused.index), ("missing_attribute", Some(1)));
    }

    #[test]
    fn lines_become_a_batch_of_one_tenant() {
        let batch = message(EVENT, None, None).unwrap().into_batch();
        let same = message(EVENT, None, None).unwrap();
        let other = message(&EVENT.replace("acme", "globex"), None, None).unwrap();

        assert!(batch.takes(&same, 2, 10_000) && !batch.takes(&same, 1, 10_000));
        assert!(!batch.takes(&other, 2, 10_000) && !batch.takes(&same, 2, 100));
        let two = batch.with(&same);
        assert_eq!((two.events, two.subject.as_str()), (2, "fermata.events.acme.batch"));
        assert_eq!(two.payload, format!("[{EVENT},{EVENT}]"));
        assert!(two.checked().is_ok());
    }

    #[test]
    fn an_event_takes_the_form_that_was_asked_for() {
        let text = EVENT.replace("}", r#","data":{"n":1}}"#);
        let form = |binary, msgpack| {
            message(&text, None, None).and_then(|message| message.in_form(Form { binary, msgpack }))
        };

        let msgpack = form(false, true).unwrap();
        assert_eq!(msgpack.payload.first(), Some(&0x86));
        let binary = form(true, false).unwrap();
        assert_eq!(binary.payload, r#"{"n":1}"#);
        assert_eq!(binary.headers().get("ce-id").map(ToString::to_string).as_deref(), Some("1"));
        let both = form(true, true).unwrap();
        assert_eq!(both.payload, &b"\x81\xa1n\x01"[..]);
        let batch = message(&format!("[{EVENT}]"), None, None).unwrap();
        let refused = batch.in_form(Form { binary: true, msgpack: false }).unwrap_err();
        assert_eq!(refused.reason, "bad_batch");
    }

    #[test]
    fn data_goes_in_its_own_media_type_and_what_has_no_form_is_refused() {
        let written = |data: &str, msgpack| {
            let text = EVENT.replace('}', &format!(",{data}}}"));
            let message = message(&text, None, None).unwrap();
            message.in_form(Form { binary: true, msgpack }).map(|message| message.payload)
        };
        for (data, payload) in [
            (r#""datacontenttype":"text/plain","data":"say \"hello\"""#, &b"say \"hello\""[..]),
            (r#""datacontenttype":"image/png","data_base64":"/wA=""#, b"\xff\x00"),
            (r#""datacontenttype":"application/msgpack","data":{"n":1}"#, b"\x81\xa1n\x01"),
            (r#""datacontenttype":"application/json","data":{"n": 1}"#, br#"{"n": 1}"#),
        ] {
            assert_eq!(written(data, false).unwrap(), payload, "{data}");
        }
        for (data, msgpack, reason) in [
            (
                r#""datacontenttype":"application/xml","data":"<a/>""#,
                false,
                "unsupported_content_type",
            ),
            (r#""datacontenttype":"text/plain","data":{"n":1}"#, false, "unsupported_content_type"),
            (r#""datacontenttype":"text/plain","data":"""#, false, "unsupported_content_type"),
            (r#""datacontenttype":"text/plain","data":"hello""#, true, "unsupported_content_type"),
            (r#""datacontenttype":"application/json","data_base64":"/wA=""#, false, "not_utf8"),
            (
                r#""datacontenttype":"application/msgpack","data_base64":"wQ==""#,
                false,
                "not_msgpack",
            ),
        ] {
            assert_eq!(written(data, msgpack).unwrap_err().reason, reason, "{data}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place_and_the_way_for_other_data() {
        for (tenant, kind) in
            [(None, None), (Some("acme"), None), (None, Some("a")), (Some("acme"), Some("a"))]
        {
            let refused = message("{\"id\":\n oops}", tenant, kind).unwrap_err();

            assert_eq!(refused.reason, "not_json", "{refused}");
            for part in ["at line 2 column 2", "`--data-file FILE", "`--data-type`"] {
                assert!(refused.detail.contains(part), "{refused}");
            }
        }
    }

    #[test]
    fn garbage_can_be_published_on_purpose_when_the_subject_is_named() {
        let garbage = EventMessage::new("f".to_owned(), b"{".to_vec(), Some("acme"), Some("a"));

        assert_eq!(garbage.unwrap().subject, "fermata.events.acme.a");
    }

    #[test]
    fn a_batch_without_events_is_refused_unless_it_is_meant() {
        let refused = message(" []\n", Some("acme"), None).unwrap_err();

        assert_eq!((refused.reason, refused.index), ("bad_batch", None));
        assert_eq!(refused.to_string(), "f: the batch holds no event (bad_batch)");
        let meant = EventMessage::new("f".to_owned(), b"[]".to_vec(), Some("acme"), None);
        assert_eq!(meant.unwrap().events, 0);
    }

    #[test]
    fn a_tenant_that_the_engine_takes_for_none_is_refused() {
        for name in ["_engine", "-x", "", "a.b", "a b", "*"] {
            let refused = message(EVENT, Some(name), None).unwrap_err();

            assert_eq!(refused.reason, "bad_subject", "{name}");
            assert!(refused.detail.contains("is not a tenant name; use 1 to 64"), "{refused}");
        }
    }

    #[test]
    fn a_type_that_is_none_is_refused_by_the_rule_for_types() {
        for kind in ["a b", "a..b", "*", "a.>", "", &"x".repeat(257)] {
            let refused = message(EVENT, None, Some(kind)).unwrap_err();

            assert_eq!(refused.reason, "bad_subject", "{kind}");
            let told = "is no type of an event; a type is tokens parted by dots";
            assert!(
                refused.detail.contains(told) && !refused.detail.contains("tenant"),
                "{refused}"
            );
        }
    }

    #[test]
    fn without_a_tenant_nothing_is_published() {
        let text = EVENT.replace(r#","tenant":"acme""#, "");

        assert_eq!(message(&text, None, None).unwrap_err().reason, "no_tenant");
    }
}
