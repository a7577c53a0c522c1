//! The fenced append: stored only if the stream still ends where the writer believes.

use async_nats::{HeaderMap, HeaderName, HeaderValue, Subject};
use bytes::Bytes;

use crate::{
    WRITER_HEADER,
    outcome::PublishOutcome,
    publisher::{PublishReceipt, Publisher},
};

/// Header by which the broker compares the end of the stream before it stores.
const FENCE_HEADER: &str = "Nats-Expected-Last-Sequence";

/// The same for the last message of the subject alone, in a stream of many subjects.
const SUBJECT_FENCE_HEADER: &str = "Nats-Expected-Last-Subject-Sequence";

impl Publisher {
    /// Publishes if the newest message of `subject` has sequence `expected_last_sequence` in its
    /// stream (0: there is none), and waits for the answer.
    ///
    /// # Cancel safety
    /// When dropped, the outcome is unknown.
    pub async fn publish_behind(
        &self,
        subject: impl Into<Subject>,
        expected_last_sequence: u64,
        payload: Bytes,
    ) -> PublishOutcome {
        let mut headers = HeaderMap::new();
        headers.insert(
            HeaderName::from_static(SUBJECT_FENCE_HEADER),
            HeaderValue::from(expected_last_sequence),
        );
        self.publish(subject, Some(headers), payload).await.await
    }

    /// Appends to the stream of `subject` if its last sequence is `expected_last_sequence`, and waits for the answer.
    ///
    /// The fence protects only with one append in flight per stream: with several, an intruder makes one
    /// fail and the rest are stored with a hole. After [`PublishOutcome::Unknown`] send the identical
    /// payload with the identical fence again: at most one copy can be stored. A `writer` with a line
    /// break is refused without being sent.
    ///
    /// # Cancel safety
    /// When dropped, the outcome is unknown.
    pub async fn append(
        &self,
        subject: impl Into<Subject>,
        expected_last_sequence: u64,
        writer: &str,
        payload: Bytes,
    ) -> PublishOutcome {
        self.send_append(subject, expected_last_sequence, writer, payload).await.await
    }

    /// As [`Publisher::append`], but returns once the append is queued for sending.
    ///
    /// # Cancel safety
    /// When dropped, the outcome is unknown.
    pub async fn send_append(
        &self,
        subject: impl Into<Subject>,
        expected_last_sequence: u64,
        writer: &str,
        payload: Bytes,
    ) -> PublishReceipt {
        let Some(mut headers) = writer_headers(writer) else {
            return self
                .refuse(format!("the writer `{writer:?}` has a line break and cannot be a header"))
                .await;
        };
        headers.insert(
            HeaderName::from_static(FENCE_HEADER),
            HeaderValue::from(expected_last_sequence),
        );
        self.publish(subject, Some(headers), payload).await
    }
}

/// Headers that name the writer of a message and nothing else; nothing when `writer` has a line break.
pub fn writer_headers(writer: &str) -> Option<HeaderMap> {
    let value: HeaderValue = writer.parse().ok()?;
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(WRITER_HEADER), value);
    Some(headers)
}
