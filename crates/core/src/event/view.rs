//! What expressions see of an event, and the event as text again.

use serde_json::{Map, Value};

use super::Event;

impl Event<'_> {
    /// The event as expressions see it under the name `event`: `id`,
    /// `source`, `type`, `tenant`, what is there of `time`, `subject`,
    /// `datacontenttype`, `dataschema`, `traceparent`, `idempotencykey`,
    /// `correlationkey`, the extensions, and `data` or `data_base64`.
    ///
    /// # Errors
    ///
    /// The parser's error when `data` is JSON that no value here can hold: a
    /// number beyond the range of a double, or half of a surrogate pair.
    pub fn view(&self) -> Result<Value, serde_json::Error> {
        let mut view = self.attributes_view()?;
        if let (Value::Object(members), Some(data)) = (&mut view, self.data) {
            members.insert("data".to_owned(), serde_json::from_str(data.get())?);
        }
        Ok(view)
    }

    /// As [`Event::view`] without `data`: for expressions that do not look at
    /// it, which spares parsing it.
    ///
    /// # Errors
    ///
    /// As [`Event::view`], for an extension's value; none that decoding lets
    /// pass causes one.
    pub fn attributes_view(&self) -> Result<Value, serde_json::Error> {
        let mut members = Map::new();
        members.insert("tenant".to_owned(), self.tenant.into());
        for (name, value) in self.named_texts() {
            members.insert(name.to_owned(), value.into());
        }
        for (name, value) in &self.extensions {
            members.insert(name.clone().into_owned(), serde_json::from_str(value.get())?);
        }
        Ok(Value::Object(members))
    }

    /// The event as compact CloudEvents JSON, `tenant` included; decoding it
    /// gives the same event.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = String::with_capacity(self.raw.len() + 32);
        text.push_str("{\"specversion\":\"1.0\",\"tenant\":");
        push_string(&mut text, self.tenant);
        let mut push = |name: &str, value: &str| {
            text.push(',');
            push_string(&mut text, name);
            text.push(':');
            text.push_str(value);
        };
        for (name, value) in self.named_texts() {
            let mut quoted = String::new();
            push_string(&mut quoted, value);
            push(name, &quoted);
        }
        for (name, value) in &self.extensions {
            push(name, value.get());
        }
        if let Some(data) = self.data {
            push("data", data.get());
        }
        text.push('}');
        text
    }

    pub(super) fn named_texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let required = [("id", &self.id), ("source", &self.source), ("type", &self.kind)];
        let optional = [
            ("time", &self.time),
            ("subject", &self.subject),
            ("datacontenttype", &self.datacontenttype),
            ("dataschema", &self.dataschema),
            ("traceparent", &self.traceparent),
            ("idempotencykey", &self.idempotency_key),
            ("correlationkey", &self.correlation_key),
            ("data_base64", &self.data_base64),
        ];
        required
            .into_iter()
            .map(|(name, value)| (name, &**value))
            .chain(optional.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))))
    }
}

pub(super) fn push_string(text: &mut String, value: &str) {
    // `Value`'s text form of a string is its JSON form and cannot fail.
    text.push_str(&Value::from(value).to_string());
}
