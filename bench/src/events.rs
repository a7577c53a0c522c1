//! Events to publish, and publishing them.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use fermata_core::event::{EventLimits, decode_message, parse_subject};
use fermata_core::identity::{PartitionId, RunId, SourcePosition, Tenant};
use fermata_jetstream::{PublishOutcome, PublishReceipt, Publisher};
use indicatif::ProgressBar;
use miette::{IntoDiagnostic as _, miette};

/// Tenant of all events, where a case has one tenant.
pub const TENANT: &str = "acme";

/// Publishes in flight at once.
pub const WINDOW: usize = 1_024;

/// Bytes of an event, about.
const EVENT_BYTES: usize = 256;

/// Events between two looks at the progress bar.
const PROGRESS_EVERY: u64 = 1_000;

/// Events of one type, told apart by number.
#[derive(Debug, Clone)]
pub struct Events {
    head: String,
    tail: String,
    subject: String,
}

impl Events {
    /// Events of type `kind`.
    pub fn of(kind: &str) -> Self {
        Self::by(TENANT, kind)
    }

    /// Events of type `kind` of `tenant`.
    pub fn by(tenant: &str, kind: &str) -> Self {
        let head = r#"{"specversion":"1.0","id":""#.to_owned();
        let middle =
            format!(r#"","source":"/bench","type":"{kind}","tenant":"{tenant}","data":{{"text":""#);
        let end = r#""}}"#;
        // An id has 10 digits.
        let padding = EVENT_BYTES.saturating_sub(head.len() + 10 + middle.len() + end.len());
        let tail = format!("{middle}{}{end}", "x".repeat(padding));
        Self { head, tail, subject: format!("fermata.events.{tenant}.{kind}") }
    }

    /// Where they are published.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Event `number`.
    pub fn one(&self, number: u64) -> Bytes {
        let mut text = String::with_capacity(EVENT_BYTES);
        self.write(number, &mut text);
        text.into()
    }

    /// The run that `strategy` starts for event `number`, stored as message `sequence`.
    pub fn run_of(
        &self,
        number: u64,
        sequence: u64,
        strategy: &str,
        partitions: u16,
    ) -> miette::Result<RunId> {
        let (payload, subject) = (self.one(number), parse_subject(&self.subject));
        let subject = subject.into_diagnostic()?;
        let tenant = subject.tenant.parse::<Tenant>().into_diagnostic()?;
        let decoded = decode_message(None, &payload, subject, &EventLimits::default());
        let Some(Ok(event)) = decoded.into_iter().next() else {
            return Err(miette!("the event cannot be decoded"));
        };
        let key = event.idempotency();
        let of = [tenant.as_str().as_bytes(), &key.to_be_bytes()];
        let partition = PartitionId::of(&of, partitions);
        let source = SourcePosition { sequence, index: 0 };
        Ok(RunId::new(partition, &tenant, key, source, strategy, None))
    }

    /// A batch of events from `first` on.
    pub fn batch(&self, first: u64, count: u64) -> Bytes {
        let mut text = String::from("[");
        for number in first..first + count {
            if number > first {
                text.push(',');
            }
            self.write(number, &mut text);
        }
        text.push(']');
        text.into()
    }

    fn write(&self, number: u64, text: &mut String) {
        text.push_str(&self.head);
        text.push_str(&format!("{number:010}"));
        text.push_str(&self.tail);
    }
}

/// Publishes events `0..n`, `per_message` in each message, and waits until all are stored.
pub async fn publish(
    publisher: &Publisher,
    events: &Events,
    n: u64,
    per_message: u64,
    progress: &ProgressBar,
) -> miette::Result<()> {
    publish_these(publisher, events, 0..n, per_message, progress).await
}

/// The same for events of these numbers.
pub async fn publish_these(
    publisher: &Publisher,
    events: &Events,
    numbers: Range<u64>,
    per_message: u64,
    progress: &ProgressBar,
) -> miette::Result<()> {
    let mut receipts: VecDeque<PublishReceipt> = VecDeque::with_capacity(WINDOW);
    let subject = fermata_jetstream::Subject::from(events.subject());
    let Range { start: mut first, end } = numbers;
    while first < end {
        let count = per_message.min(end - first);
        let payload = if per_message == 1 { events.one(first) } else { events.batch(first, count) };
        if receipts.len() == WINDOW
            && let Some(receipt) = receipts.pop_front()
        {
            stored(receipt.await)?;
        }
        receipts.push_back(publisher.publish(subject.clone(), None, payload).await);
        first += count;
        if first.is_multiple_of(PROGRESS_EVERY) {
            progress.set_position(first);
        }
    }
    for receipt in receipts {
        stored(receipt.await)?;
    }
    progress.set_position(end);
    Ok(())
}

/// Whether a publish was stored.
pub fn stored(outcome: PublishOutcome) -> miette::Result<u64> {
    match outcome {
        PublishOutcome::Stored { sequence, .. } => Ok(sequence),
        PublishOutcome::Refused { description, .. } => {
            Err(miette!("the broker refused a publish: {description}"))
        }
        PublishOutcome::Unknown => Err(miette!("a publish was not answered")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_of_the_size_and_can_be_decoded() {
        let events = Events::of("bench.ignore");
        let subject = parse_subject(events.subject()).unwrap();

        assert_eq!(events.one(7).len(), EVENT_BYTES);
        let batch = events.batch(5, 100);
        let decoded = decode_message(None, &batch, subject, &EventLimits::default());
        assert_eq!(decoded.len(), 100);
        assert!(decoded.iter().all(Result::is_ok));
    }
}
