//! What is on its way to the broker, and what came of it.

use std::collections::VecDeque;
use std::time::Duration;

use fermata_core::event::MESSAGE_BYTES_MAX;
use fermata_jetstream::{Broker, PublishReceipt, Publisher};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::Instant;

use super::message::{EventMessage, Form, Refused};
use super::{PublishArguments, REFUSED_SHOWN_MAX, print_refused};
use crate::broker_session::{stored_by, stored_sequence};
use crate::error::CliError;
use crate::output::{Output, counted, span_text};

/// What came of everything so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    messages: u64,
    events: u64,
    bytes: u64,
    /// Events or messages that were not published.
    pub(super) refused: usize,
}

impl Tally {
    /// Tells of something unusable.
    pub(super) fn refuse(
        &mut self,
        refused: &Refused,
        output: &mut Output,
    ) -> Result<(), CliError> {
        self.refused += 1;
        if self.refused <= REFUSED_SHOWN_MAX || output.is_json() {
            print_refused(refused, output)?;
        }
        Ok(())
    }

    /// Tells how many of the refused were not shown.
    pub(super) fn print_hidden(&self, output: &mut Output) -> Result<(), CliError> {
        let hidden = self.refused.saturating_sub(REFUSED_SHOWN_MAX);
        if hidden == 0 || output.is_json() {
            return Ok(());
        }
        output.line(&format!("and {hidden} more"))
    }
}

/// Messages on their way, in order.
pub(super) struct Sending {
    broker: Broker,
    publisher: Publisher,
    form: Form,
    batch_events: usize,
    in_flight_max: usize,
    in_flight: VecDeque<(EventMessage, PublishReceipt)>,
    /// Events that are in flight no more, and of which nobody knows that they are stored: one whose answer is
    /// awaited, and those that no server took and that are to be sent again.
    unsettled: usize,
    /// Lines that wait to be published together.
    batch: Option<EventMessage>,
    pace: Option<Pace>,
    /// Lines are many: a summary instead of a line for each.
    many: bool,
    begun: Instant,
    progress: ProgressBar,
    /// What came of everything so far.
    pub(super) tally: Tally,
}

/// When the next event may go.
struct Pace {
    interval: Duration,
    next: Instant,
}

impl Sending {
    /// Nothing is on its way.
    pub(super) fn new(
        broker: Broker,
        publisher: Publisher,
        arguments: &PublishArguments,
        tally: Tally,
        many: bool,
        output: &Output,
    ) -> Self {
        let begun = Instant::now();
        let pace = arguments
            .rate
            .and_then(|rate| Duration::try_from_secs_f64(rate.recip()).ok())
            .map(|interval| Pace { interval, next: begun });
        Self {
            broker,
            publisher,
            form: arguments.form(),
            batch_events: arguments.batch.map_or(1, usize::from),
            in_flight_max: usize::from(arguments.max_in_flight),
            in_flight: VecDeque::new(),
            unsettled: 0,
            batch: None,
            pace,
            many,
            begun,
            progress: if many { output.counter("events stored") } else { ProgressBar::hidden() },
            tally,
        }
    }

    /// Whether lines wait for a batch to become full.
    pub(super) fn has_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// Publishes a line, or adds it to the batch that waits.
    pub(super) async fn send_line(
        &mut self,
        message: EventMessage,
        output: &mut Output,
    ) -> Result<(), CliError> {
        if self.batch_events == 1 {
            return self.send_in_form(message, output).await;
        }
        let waiting = match self.batch.take() {
            None => message.into_batch(),
            Some(waiting) if waiting.takes(&message, self.batch_events, MESSAGE_BYTES_MAX) => {
                waiting.with(&message)
            }
            Some(full) => {
                self.send_in_form(full, output).await?;
                message.into_batch()
            }
        };
        let is_full = waiting.events >= self.batch_events;
        self.batch = Some(waiting);
        if is_full { self.send_batch(output).await } else { Ok(()) }
    }

    /// Publishes the batch that waits, full or not.
    pub(super) async fn send_batch(&mut self, output: &mut Output) -> Result<(), CliError> {
        match self.batch.take() {
            Some(batch) => self.send_in_form(batch, output).await,
            None => Ok(()),
        }
    }

    async fn send_in_form(
        &mut self,
        message: EventMessage,
        output: &mut Output,
    ) -> Result<(), CliError> {
        match message.in_form(self.form) {
            Ok(message) => self.send(message, output).await,
            Err(refused) => self.tally.refuse(&refused, output),
        }
    }

    /// Publishes a message that has its form.
    pub(super) async fn send(
        &mut self,
        message: EventMessage,
        output: &mut Output,
    ) -> Result<(), CliError> {
        self.wait_for_turn(message.events, output).await?;
        self.put_in_flight(message).await;
        self.settle(self.in_flight_max.saturating_sub(1), output).await
    }

    /// Waits until `events` more may go. What is slower than its rate does not
    /// catch up: the rate is a bound, not a mean.
    async fn wait_for_turn(&mut self, events: usize, output: &mut Output) -> Result<(), CliError> {
        let Some(pace) = &mut self.pace else { return Ok(()) };
        let now = Instant::now();
        let turn = pace.next.max(now);
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        pace.next = turn + pace.interval.saturating_mul(events);
        if turn > now {
            if turn - now > Duration::from_secs(1) {
                // What was sent is told before a long wait.
                self.settle(0, output).await?;
            }
            tokio::time::sleep_until(turn).await;
        }
        Ok(())
    }

    /// Waits for the oldest until at most `keep` are in flight.
    pub(super) async fn settle(
        &mut self,
        keep: usize,
        output: &mut Output,
    ) -> Result<(), CliError> {
        while self.in_flight.len() > keep {
            let Some((message, receipt)) = self.in_flight.pop_front() else { break };
            self.unsettled += message.events;
            let sequence = match stored_sequence(&message.subject, &receipt.await) {
                // No server leads the stream: nothing was stored.
                Err(CliError::NoEngine) => {
                    let not_taken = self.settle_behind(output).await?;
                    let sequence = self.send_again(&message).await?;
                    for message in not_taken {
                        self.unsettled -= message.events;
                        self.put_in_flight(message).await;
                    }
                    sequence
                }
                answered => answered?,
            };
            self.stored(&message, sequence, output)?;
        }
        Ok(())
    }

    /// Tells that a message is stored.
    fn stored(
        &mut self,
        message: &EventMessage,
        sequence: u64,
        output: &mut Output,
    ) -> Result<(), CliError> {
        self.unsettled = self.unsettled.saturating_sub(message.events);
        self.tally.messages += 1;
        self.tally.events += message.events as u64;
        self.tally.bytes += message.payload.len() as u64;
        self.progress.inc(message.events as u64);
        if output.is_json() {
            let EventMessage { origin, subject, events, .. } = message;
            output.json_line(&json!({
                "sequence": sequence, "subject": subject, "events": events, "from": origin,
            }))?;
        } else if !self.many {
            let events = if message.events == 1 { "event" } else { "events" };
            let (count, subject) = (message.events, &message.subject);
            output.line(&format!("stored at {sequence}: {count} {events} on {subject}"))?;
        }
        Ok(())
    }

    /// Waits for all that is in flight behind a message that nobody took; those that nobody took either, in
    /// their order, to be sent behind it. What was stored stands before it then, which is told: the order
    /// of the file is another one.
    async fn settle_behind(&mut self, output: &mut Output) -> Result<Vec<EventMessage>, CliError> {
        let mut not_taken = Vec::new();
        let mut before = 0;
        while let Some((message, receipt)) = self.in_flight.pop_front() {
            self.unsettled += message.events;
            match stored_sequence(&message.subject, &receipt.await) {
                Ok(sequence) => {
                    before += message.events;
                    self.stored(&message, sequence, output)?;
                }
                Err(CliError::NoEngine) => not_taken.push(message),
                Err(error) => return Err(error),
            }
        }
        if before > 0 {
            output.note(&format!(
                "the broker's servers elected a leader meanwhile: {before} events are stored before others \
                 that come before them here"
            ));
        }
        Ok(not_taken)
    }

    async fn put_in_flight(&mut self, message: EventMessage) {
        let (subject, headers) = (message.subject.clone(), message.headers());
        let receipt = self.publisher.publish(subject, Some(headers), message.payload.clone()).await;
        self.in_flight.push_back((message, receipt));
    }

    async fn send_again(&self, message: &EventMessage) -> Result<u64, CliError> {
        let publish = async || {
            let (subject, headers) = (message.subject.clone(), message.headers());
            self.publisher.publish(subject, Some(headers), message.payload.clone()).await.await
        };
        stored_by(&self.broker, &message.subject, publish).await
    }

    fn unanswered(&self) -> usize {
        let in_flight: usize = self.in_flight.iter().map(|(message, _)| message.events).sum();
        in_flight + self.unsettled
    }

    /// How much is stored and how much may be, for who ends it early; `id` is that of the event of the command
    /// line.
    pub(super) fn told_under_way(&self, id: Option<&str>) -> String {
        let unanswered = self.unanswered();
        let stored = counted(self.tally.events, "event is stored", "events are stored");
        match unanswered {
            0 => stored,
            unanswered => {
                let id = id.map(|id| format!("; publish it again with `--id {id}`"));
                format!(
                    "{stored}, and {unanswered} more may be: the broker did not answer yet{}",
                    id.unwrap_or_default()
                )
            }
        }
    }

    /// Tells what came of all; also when something ended it early.
    pub(super) fn finish(self, output: &mut Output) -> Result<Tally, CliError> {
        self.progress.finish_and_clear();
        let unanswered = self.unanswered();
        let Self { tally, begun, many, .. } = self;
        tally.print_hidden(output)?;
        if !many {
            return Ok(tally);
        }
        let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if output.is_json() {
            output.json_line(&json!({ "summary": {
                "messages": tally.messages, "events": tally.events, "bytes": tally.bytes,
                "refused": tally.refused, "unanswered": unanswered, "milliseconds": milliseconds,
            }}))?;
        } else {
            let per_second = tally.events.saturating_mul(1_000) / milliseconds.max(1);
            let row = [
                tally.messages.to_string(),
                tally.events.to_string(),
                tally.bytes.to_string(),
                tally.refused.to_string(),
                unanswered.to_string(),
                span_text(milliseconds),
                per_second.to_string(),
            ];
            let columns =
                ["MESSAGES", "EVENTS", "BYTES", "REFUSED", "UNANSWERED", "TIME", "EVENTS/S"];
            output.table(&columns, vec![row.to_vec()], "")?;
        }
        Ok(tally)
    }
}
