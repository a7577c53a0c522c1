//! An event as a message in binary mode: attributes in headers, data in the message.
//!
//! What is written reads back as the same event (`read_form`), but for what headers
//! and bytes cannot tell: extensions become text, data in MessagePack is
//! `application/json` from there on, and `text/*` in UTF-8 is `data` whether it was
//! text or base64. An event of which more would change is not written.

use super::form::{Encoding, Form, read_form};
use super::headers::{ATTRIBUTE_HEADER_PREFIX, MessageHeaders, header_value};
use super::msgpack::msgpack_of_json;
use super::rejection::{Problem, RejectReason, excerpt};
use super::{Event, EventLimits, Subject};

/// A message in binary mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinaryMessage {
    /// Names and values of its headers.
    pub headers: Vec<(String, String)>,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// In which form data goes that is a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataForm {
    /// In that of its own media type.
    AsDeclared,
    /// As MessagePack, also where it is declared to be JSON.
    Msgpack,
}

impl Event<'_> {
    /// The event as a message in binary mode. Its data goes in its own media type:
    /// JSON as it is, MessagePack converted, `text/*` as the text, `data_base64` as
    /// its bytes. Extensions that are numbers or truth values become text: headers
    /// know nothing else.
    ///
    /// # Errors
    ///
    /// Why it cannot be written so, when it would not read back: a stable reason, and
    /// what exactly is wrong.
    pub fn to_binary(&self, form: DataForm) -> Result<BinaryMessage, (RejectReason, String)> {
        let written = self.written(form).and_then(|message| {
            self.read_back(&message)?;
            Ok(message)
        });
        written.map_err(|problem| (problem.reason, problem.detail))
    }

    /// Whether its data is JSON by its media type, as it is where none is named.
    #[must_use]
    pub fn declares_json(&self) -> bool {
        Encoding::of(self.datacontenttype.as_deref()) == Ok(Encoding::Json)
    }

    fn written(&self, form: DataForm) -> Result<BinaryMessage, Problem> {
        let (payload, data_type) = self.body(form)?;
        let mut headers = vec![("ce-specversion".to_owned(), "1.0".to_owned())];
        let mut push = |name: &str, value: &str| {
            headers.push((format!("{ATTRIBUTE_HEADER_PREFIX}{name}"), header_value(value)));
        };
        push("tenant", self.tenant);
        let elsewhere = ["data_base64", "datacontenttype"];
        for (name, value) in self.named_texts().filter(|(name, _)| !elsewhere.contains(name)) {
            push(name, value);
        }
        if let Some(data_type) = data_type {
            push("datacontenttype", data_type);
        }
        for (name, value) in &self.extensions {
            match serde_json::from_str::<String>(value.get()) {
                Ok(text) => push(name, &text),
                Err(_) => push(name, value.get()),
            }
        }
        Ok(BinaryMessage { headers, payload })
    }

    /// The bytes of the data, and what they are.
    fn body(&self, form: DataForm) -> Result<(Vec<u8>, Option<&str>), Problem> {
        let declared = self.datacontenttype.as_deref();
        let encoding = Encoding::of(declared)?;
        let (payload, data_type) = match (self.data, &self.data_base64) {
            (None, None) => return Ok((Vec::new(), declared)),
            (Some(data), _) => match (encoding, form) {
                (Encoding::Json, DataForm::AsDeclared) => {
                    (data.get().as_bytes().to_vec(), declared)
                }
                (Encoding::Msgpack, DataForm::AsDeclared) => (msgpack(data.get())?, declared),
                (Encoding::Json | Encoding::Msgpack, DataForm::Msgpack) => {
                    (msgpack(data.get())?, Some("application/msgpack"))
                }
                (Encoding::Text, DataForm::AsDeclared) => match serde_json::from_str(data.get()) {
                    Ok(text) => (String::into_bytes(text), declared),
                    Err(_) => return Err(not_in(declared, "the data is not a JSON string")),
                },
                (Encoding::Text, DataForm::Msgpack) => {
                    return Err(not_in(declared, "the data is no MessagePack"));
                }
                (Encoding::Other, _) => {
                    let detail = "what its bytes are is not known; give them as `data_base64`";
                    return Err(not_in(declared, detail));
                }
            },
            // Without a type its bytes would be read as the JSON they are not said to be.
            (None, Some(digits)) => {
                (bytes_of_base64(digits), Some(declared.unwrap_or("application/octet-stream")))
            }
        };
        if payload.is_empty() {
            return Err(not_in(declared, "data without a byte is none there; leave it out"));
        }
        Ok((payload, data_type))
    }

    /// Refuses a message that would not be read as an event.
    fn read_back(&self, message: &BinaryMessage) -> Result<(), Problem> {
        let BinaryMessage { headers, payload } = message;
        let limits = EventLimits::default();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let subject = Subject { tenant: self.tenant, kind: &self.kind };
        let Form::Converted(events) = read_form(&MessageHeaders::new(headers), payload, &limits)
        else {
            return Ok(());
        };
        for event in &events {
            let read = event.decode(0, payload, subject, &limits);
            read.map_err(|rejected| Problem::new(rejected.reason, rejected.detail))?;
        }
        Ok(())
    }
}

fn msgpack(json: &str) -> Result<Vec<u8>, Problem> {
    msgpack_of_json(json).map_err(|detail| Problem::new(RejectReason::NotMsgpack, detail))
}

fn not_in(declared: Option<&str>, why: &str) -> Problem {
    let declared = excerpt(declared.unwrap_or("application/json"));
    let detail =
        format!("the event has no form in binary mode: `datacontenttype` is `{declared}`, {why}");
    Problem::new(RejectReason::UnsupportedContentType, detail)
}

/// The bytes of base64 that was checked; padding and what is no digit is left out.
fn bytes_of_base64(digits: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(digits.len() / 4 * 3), 0_u32, 0_u32);
    for digit in digits.bytes().filter_map(value) {
        bits = (bits << 6 | u32::from(digit)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.extend(u8::try_from(bits >> count & 0xff));
        }
    }
    bytes
}
