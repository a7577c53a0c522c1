//! One message as a stream holds it, asked for by name and answered as JSON.
//!
//! A broker stores any bytes as headers and takes any bytes as a subject; the client library gives up the
//! connection when it is delivered some that it cannot read, at each delivery again. Such a message can be
//! read here, for the answer carries both encoded; what is wrong with it is told.

use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, StatusCode, Subject};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::Error as _};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    WRITER_HEADER,
    api::{ApiError, NO_MESSAGE_FOUND, ask_to_read},
    connection::Connection,
    delivery::StoredMessage,
};

/// First line of a header block.
const VERSION: &str = "NATS/1.0";

/// Which message of a stream is asked for.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub(crate) enum Wanted<'a> {
    /// The one with this sequence.
    Sequence {
        /// The sequence.
        seq: u64,
    },
    /// The first one from this sequence on.
    From {
        /// The sequence.
        seq: u64,
        /// Subjects that it may have.
        next_by_subj: &'a str,
    },
    /// The newest one of a subject.
    Newest {
        /// The subject.
        last_by_subj: &'a str,
    },
}

impl Wanted<'_> {
    pub(crate) fn sequence(seq: u64) -> Self {
        Self::Sequence { seq }
    }

    pub(crate) fn from(seq: u64) -> Self {
        Self::From { seq, next_by_subj: ">" }
    }
}

/// A message with what could be read of its headers.
#[derive(Debug)]
pub(crate) struct HeldMessage {
    pub(crate) sequence: u64,
    pub(crate) broker_time_ns: i64,
    pub(crate) subject: Subject,
    pub(crate) payload: Bytes,
    pub(crate) headers: HeaderMap,
    /// Why the client library would give up the connection over it.
    pub(crate) fault: Option<&'static str>,
}

impl HeldMessage {
    /// Bytes of its payload and of its headers.
    pub(crate) fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, values)| {
            let name: &str = name.as_ref();
            values.iter().map(|value| name.len() + value.as_str().len()).sum::<usize>()
        });
        self.payload.len() + headers.sum::<usize>()
    }

    /// As a reader gets it. What cannot be delivered was not written by us: it has no writer.
    pub(crate) fn stored(self) -> StoredMessage {
        let writer = self.headers.get(WRITER_HEADER).map(|value| value.as_str().to_owned());
        StoredMessage {
            sequence: self.sequence,
            broker_time_ns: self.broker_time_ns,
            writer: writer.filter(|_| self.fault.is_none()),
            subject: self.subject,
            headers: (!self.headers.is_empty()).then_some(self.headers),
            payload: self.payload,
        }
    }
}

/// Asks the leader of `stream` for one message; nothing when the stream does not hold it.
pub(crate) async fn held_message(
    connection: &Connection,
    stream: &str,
    wanted: Wanted<'_>,
) -> Result<Option<HeldMessage>, ApiError> {
    match ask_to_read::<Answer>(connection, &format!("STREAM.MSG.GET.{stream}"), &wanted).await {
        Ok(answer) => Ok(Some(answer.message.0)),
        Err(ApiError::Refused { code: NO_MESSAGE_FOUND, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
struct Answer {
    message: Told,
}

/// Read by hand, so that whatever is wrong with it becomes an error of the answer.
struct Told(HeldMessage);

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            subject: String,
            seq: u64,
            time: String,
            #[serde(default)]
            hdrs: String,
            #[serde(default)]
            data: String,
        }
        let Raw { subject, seq, time, hdrs, data } = Raw::deserialize(deserializer)?;
        let time = OffsetDateTime::parse(&time, &Rfc3339).map_err(D::Error::custom)?;
        let block = STANDARD.decode(hdrs).map_err(D::Error::custom)?;
        let payload = STANDARD.decode(data).map_err(D::Error::custom)?;
        let (headers, fault) = read_headers(&block);
        // The broker writes this character for bytes of a subject that are no text.
        let subject_fault = subject.contains('\u{fffd}').then_some("its subject is no UTF-8");
        Ok(Self(HeldMessage {
            sequence: seq,
            broker_time_ns: i64::try_from(time.unix_timestamp_nanos()).map_err(D::Error::custom)?,
            subject: Subject::from(subject),
            payload: payload.into(),
            headers,
            fault: fault.or(subject_fault),
        }))
    }
}

/// Reads a header block as the client library does, going on where that gives up; tells why it would.
fn read_headers(block: &[u8]) -> (HeaderMap, Option<&'static str>) {
    let mut headers = HeaderMap::new();
    if block.is_empty() {
        return (headers, None);
    }
    let text = String::from_utf8_lossy(block);
    let mut fault = match &text {
        std::borrow::Cow::Borrowed(_) => None,
        std::borrow::Cow::Owned(_) => Some("its headers are no UTF-8"),
    };
    let mut lines = text.lines().peekable();
    if let Some(wrong) = wrong_version(lines.next().unwrap_or_default()) {
        fault = fault.or(Some(wrong));
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let mut value = String::new();
        let named = line.split_once(':').map(|(name, first)| {
            value.push_str(first.trim_start());
            HeaderName::from_str(name)
        });
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        match named {
            Some(Ok(name)) => headers.append(name, value.trim_end()),
            Some(Err(_)) => fault = fault.or(Some("a header has a name that is none")),
            None => fault = fault.or(Some("a line of its headers has no colon")),
        }
    }
    (headers, fault)
}

fn wrong_version(line: &str) -> Option<&'static str> {
    let Some(rest) = line.strip_prefix(VERSION).map(str::trim) else {
        return Some("its headers do not begin with `NATS/1.0`");
    };
    let status = rest.split_once(' ').map_or(rest, |(status, _)| status.trim());
    let readable = status.is_empty() || status.parse::<StatusCode>().is_ok();
    (!readable).then_some("its headers begin with a status that is none")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_of(lines: &[u8]) -> Option<&'static str> {
        read_headers(&[b"NATS/1.0\r\n", lines, b"\r\n\r\n"].concat()).1
    }

    #[test]
    fn headers_that_the_client_library_reads_have_no_fault() {
        for lines in [
            &b""[..],
            b"ce-id: 1",
            b"a: b\r\nc:d\r\n  and more",
            b"empty:",
            "emoji: \u{1f600}".as_bytes(),
        ] {
            assert_eq!(fault_of(lines), None, "{lines:?}");
        }
        assert_eq!(read_headers(b"").1, None);
        assert_eq!(read_headers(b"NATS/1.0 503 gone\r\n\r\n").1, None);
    }

    #[test]
    fn each_fault_is_told_and_the_other_headers_are_kept() {
        for (lines, fault) in [
            (&b"ce-id: \xff\xfe"[..], "its headers are no UTF-8"),
            (b"no colon", "a line of its headers has no colon"),
            (b"a b: c", "a header has a name that is none"),
        ] {
            let lines = [lines, b"\r\nkept: yes"].concat();
            assert_eq!(fault_of(&lines), Some(fault), "{lines:?}");
            let (headers, _) = read_headers(&[b"NATS/1.0\r\n", &*lines].concat());
            assert_eq!(headers.get("kept").map(|value| value.as_str()), Some("yes"));
        }
        assert!(read_headers(b"HTTP/1.1\r\na: b\r\n").1.is_some());
        assert!(read_headers(b"NATS/1.0 x\r\na: b\r\n").1.is_some());
    }
}
