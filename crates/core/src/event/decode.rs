//! One event's JSON object, in one pass.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::attribute::{
    check_base64, check_extension, check_name, check_text, check_time, check_type, duplicate,
    is_traceparent,
};
use super::rejection::{Problem, RejectReason, excerpt};
use super::{EXTENSIONS_MAX, Event, EventLimits};

/// What the object held. A broken rule is noted and reading goes on, so that
/// text which is no JSON further on is still told apart.
#[derive(Default)]
pub(super) struct Members<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    tenant: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    datacontenttype: Option<Cow<'a, str>>,
    dataschema: Option<Cow<'a, str>>,
    traceparent: Option<Cow<'a, str>>,
    idempotency_key: Option<Cow<'a, str>>,
    correlation_key: Option<Cow<'a, str>>,
    data_base64: Option<Cow<'a, str>>,
    extensions: Vec<(Cow<'a, str>, &'a RawValue)>,
    data: Option<&'a RawValue>,
    /// One bit per known member that was there, `null` included.
    seen: u32,
    problem: Option<Problem>,
}

/// What the message says about the event.
#[derive(Clone, Copy)]
pub(super) struct Envelope<'a> {
    pub tenant: &'a str,
    /// The subject's type; absent for an event of a batch.
    pub kind: Option<&'a str>,
}

impl<'a> Members<'a> {
    /// The event, after every rule that concerns more than one member.
    pub fn take_event(
        &mut self,
        raw: &'a str,
        envelope: Envelope<'a>,
        limits: &EventLimits,
    ) -> Result<Event<'a>, Problem> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        if let Some(other) = self.specversion.as_deref().filter(|version| *version != "1.0") {
            return Err(Problem::new(
                RejectReason::UnsupportedSpecversion,
                format!("`specversion` is `{}`; only `1.0` is read here", excerpt(other)),
            ));
        }
        let text_max = limits.attribute_bytes_max;
        let [id, source, kind] = self.take_required()?;
        check_text("id", &id, text_max)?;
        check_text("source", &source, text_max)?;
        check_type(&kind)?;
        for (name, value) in [
            ("subject", &self.subject),
            ("datacontenttype", &self.datacontenttype),
            ("dataschema", &self.dataschema),
            ("idempotencykey", &self.idempotency_key),
            ("correlationkey", &self.correlation_key),
        ] {
            value.as_deref().map_or(Ok(()), |value| check_text(name, value, text_max))?;
        }
        self.time.as_deref().map_or(Ok(()), check_time)?;
        self.data_base64.as_deref().map_or(Ok(()), check_base64)?;
        self.extensions.retain(|(_, value)| value.get() != "null");
        for (name, value) in &self.extensions {
            check_extension(name, value.get(), text_max)?;
        }
        if self.data.is_some() && self.data_base64.is_some() {
            return Err(Problem::bad_attribute(
                "`data` and `data_base64` are both there; send one of them",
            ));
        }
        agrees(RejectReason::TenantMismatch, "tenant", self.tenant.as_deref(), envelope.tenant)?;
        if let Some(expected) = envelope.kind {
            agrees(RejectReason::TypeMismatch, "type", Some(&kind), expected)?;
        }
        Ok(Event {
            tenant: envelope.tenant,
            id,
            source,
            kind,
            time: self.time.take(),
            subject: self.subject.take(),
            datacontenttype: self.datacontenttype.take(),
            dataschema: self.dataschema.take(),
            traceparent: self
                .traceparent
                .take()
                .filter(|value| value.len() <= text_max && is_traceparent(value)),
            idempotency_key: self.idempotency_key.take(),
            correlation_key: self.correlation_key.take(),
            extensions: std::mem::take(&mut self.extensions),
            data: self.data,
            data_base64: self.data_base64.take(),
            raw,
        })
    }

    /// `id`, `source` and `type`, or all that is missing of what every event has.
    fn take_required(&mut self) -> Result<[Cow<'a, str>; 3], Problem> {
        match (self.specversion.take(), self.id.take(), self.source.take(), self.kind.take()) {
            (Some(_), Some(id), Some(source), Some(kind)) => Ok([id, source, kind]),
            (specversion, id, source, kind) => Err(missing([
                ("specversion", specversion.is_none()),
                ("id", id.is_none()),
                ("source", source.is_none()),
                ("type", kind.is_none()),
            ])),
        }
    }

    fn note(&mut self, problem: Problem) {
        self.problem.get_or_insert(problem);
    }

    fn slot(&mut self, known: Known) -> &mut Option<Cow<'a, str>> {
        match known {
            Known::Specversion => &mut self.specversion,
            Known::Id => &mut self.id,
            Known::Source => &mut self.source,
            Known::Type => &mut self.kind,
            Known::Tenant => &mut self.tenant,
            Known::Time => &mut self.time,
            Known::Subject => &mut self.subject,
            Known::Datacontenttype => &mut self.datacontenttype,
            Known::Dataschema => &mut self.dataschema,
            Known::Traceparent => &mut self.traceparent,
            Known::IdempotencyKey => &mut self.idempotency_key,
            Known::CorrelationKey => &mut self.correlation_key,
            Known::DataBase64 => &mut self.data_base64,
        }
    }

    fn set_known(&mut self, known: Known, value: Attribute<'a>) {
        let bit = 1_u32 << (known as u32);
        if self.seen & bit != 0 {
            self.note(duplicate(known.name()));
        }
        self.seen |= bit;
        match value {
            Attribute::Text(text) => *self.slot(known) = Some(text),
            // An attribute that is not set may be written as `null`.
            Attribute::Null => {}
            Attribute::Other => {
                self.note(Problem::bad_attribute(format!("`{}` is not a string", known.name())));
            }
        }
    }

    fn set_data(&mut self, data: &'a RawValue) {
        if self.data.replace(data).is_some() {
            self.note(duplicate("data"));
        }
    }

    fn set_extension(&mut self, name: Cow<'a, str>, value: &'a RawValue) {
        if let Err(problem) = check_name(&name) {
            return self.note(problem);
        }
        if self.extensions.iter().any(|(other, _)| *other == name) {
            return self.note(duplicate(&name));
        }
        if self.extensions.len() >= EXTENSIONS_MAX {
            return self.note(Problem::bad_attribute(format!(
                "there are more than {EXTENSIONS_MAX} extension attributes; put them into `data`"
            )));
        }
        self.extensions.push((name, value));
    }
}

fn missing(attributes: [(&str, bool); 4]) -> Problem {
    let names = attributes.iter().filter(|(_, is_missing)| *is_missing);
    let names = names.map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>();
    let detail = match names.split_last() {
        Some((last, [])) => format!("{last} is missing; every event has it"),
        Some((last, others)) => {
            format!("{} and {last} are missing; every event has them", others.join(", "))
        }
        None => String::new(),
    };
    Problem::new(RejectReason::MissingAttribute, detail)
}

fn agrees(
    reason: RejectReason,
    name: &str,
    found: Option<&str>,
    expected: &str,
) -> Result<(), Problem> {
    match found {
        Some(found) if found != expected => Err(Problem::new(
            reason,
            format!(
                "the event's {name} is `{}`, the subject's is `{}`; they must agree",
                excerpt(found),
                excerpt(expected)
            ),
        )),
        Some(_) | None => Ok(()),
    }
}

/// The members whose value is text or absent.
#[derive(Clone, Copy)]
enum Known {
    Specversion,
    Id,
    Source,
    Type,
    Tenant,
    Time,
    Subject,
    Datacontenttype,
    Dataschema,
    Traceparent,
    IdempotencyKey,
    CorrelationKey,
    DataBase64,
}

impl Known {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "specversion" => Self::Specversion,
            "id" => Self::Id,
            "source" => Self::Source,
            "type" => Self::Type,
            "tenant" => Self::Tenant,
            "time" => Self::Time,
            "subject" => Self::Subject,
            "datacontenttype" => Self::Datacontenttype,
            "dataschema" => Self::Dataschema,
            "traceparent" => Self::Traceparent,
            "idempotencykey" => Self::IdempotencyKey,
            "correlationkey" => Self::CorrelationKey,
            "data_base64" => Self::DataBase64,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Specversion => "specversion",
            Self::Id => "id",
            Self::Source => "source",
            Self::Type => "type",
            Self::Tenant => "tenant",
            Self::Time => "time",
            Self::Subject => "subject",
            Self::Datacontenttype => "datacontenttype",
            Self::Dataschema => "dataschema",
            Self::Traceparent => "traceparent",
            Self::IdempotencyKey => "idempotencykey",
            Self::CorrelationKey => "correlationkey",
            Self::DataBase64 => "data_base64",
        }
    }
}

enum Key<'a> {
    Known(Known),
    Data,
    Extension(Cow<'a, str>),
}

impl<'a> Key<'a> {
    fn from_name(name: Cow<'a, str>) -> Self {
        match Known::from_name(&name) {
            Some(known) => Self::Known(known),
            None if name == "data" => Self::Data,
            None => Self::Extension(name),
        }
    }
}

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Key<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an attribute name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Key<'de>, E> {
                Ok(Key::from_name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Key<'de>, E> {
                Ok(Key::from_name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

enum Attribute<'a> {
    Text(Cow<'a, str>),
    Null,
    Other,
}

impl<'de> Deserialize<'de> for Attribute<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AttributeVisitor)
    }
}

struct AttributeVisitor;

impl<'de> Visitor<'de> for AttributeVisitor {
    type Value = Attribute<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an attribute value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Attribute<'de>, E> {
        Ok(Attribute::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Attribute<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Attribute::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Attribute<'de>, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Attribute::Other)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an event, which is a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if members.problem.is_some() {
                // Nothing more is kept, and nothing more is said about it.
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match key {
                Key::Known(known) => members.set_known(known, map.next_value()?),
                Key::Data => members.set_data(map.next_value()?),
                Key::Extension(name) => {
                    let value: &RawValue = map.next_value()?;
                    members.set_extension(name, value);
                }
            }
        }
        Ok(members)
    }
}
