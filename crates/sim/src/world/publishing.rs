//! Publishes on their way to the broker, and their answers on the way back.

use bytes::Bytes;
use fermata_partition::append::Send;
use fermata_partition::message::AppendOutcome;

use super::{Happening, Reply, World};
use crate::broker::{Fate, Publish, StreamName};
use crate::invariants::Invariants;
use crate::trace::Broken;
use crate::worker::Work;
use fermata_partition::{auditor, owner};

/// How long a sender waits for an acknowledgement, milliseconds.
const ANSWER_MS_MAX: u64 = 2_000;

/// How long a request may be under way, milliseconds.
const DELAY_MS_MAX: u64 = 30_000;

impl World {
    pub(super) fn publish_fenced(
        &mut self,
        stream: StreamName,
        send: Send,
        later: bool,
        reply: Reply,
    ) -> Result<(), Broken> {
        if stream == StreamName::Journal {
            let journal = self.broker.stream(StreamName::Journal);
            Invariants::invariant_one_append_is_in_flight(&send.writer, journal)?;
        }
        let publish = Publish {
            stream,
            expected_last_sequence: Some(send.expected_last_sequence),
            writer: Some(send.writer),
            payload: send.payload,
        };
        let pause_ms = if later { self.dice.between(100, 1_000) } else { 0 };
        self.publish(publish, pause_ms, reply);
        Ok(())
    }

    pub(super) fn publish(&mut self, publish: Publish, pause_ms: u64, reply: Reply) {
        let fate = Fate::draw(&self.faults, &mut self.dice);
        let arrives = pause_ms + self.dice.between(1, 20);
        let gives_up = pause_ms + ANSWER_MS_MAX;
        if fate != Fate::Plain {
            self.log.line(
                self.now_ms,
                format_args!("publish to {:?} will be {fate:?}", publish.stream),
            );
        }
        match fate {
            Fate::Plain => self.arrive_after(arrives, publish, Some(reply)),
            Fate::RequestLost => {
                self.after(gives_up, Happening::Answer(reply, AppendOutcome::Unknown));
            }
            Fate::AckLost => {
                self.arrive_after(arrives, publish, None);
                self.after(gives_up, Happening::Answer(reply, AppendOutcome::Unknown));
            }
            Fate::Delayed => {
                let late = pause_ms + self.dice.between(ANSWER_MS_MAX / 2, DELAY_MS_MAX);
                self.arrive_after(late, publish, None);
                self.after(gives_up, Happening::Answer(reply, AppendOutcome::Unknown));
            }
            Fate::Duplicated => {
                let late = arrives + self.dice.between(1, DELAY_MS_MAX);
                self.arrive_after(late, publish.clone(), None);
                self.arrive_after(arrives, publish, Some(reply));
            }
        }
    }

    fn arrive_after(&mut self, after_ms: u64, publish: Publish, reply: Option<Reply>) {
        self.arrivals_pending += 1;
        self.after(after_ms, Happening::Arrive { publish, reply });
    }

    pub(super) fn arrive(&mut self, publish: &Publish, reply: Option<Reply>) -> Result<(), Broken> {
        self.arrivals_pending -= 1;
        let time_ms = super::EPOCH_MS + self.now_ms;
        let outcome = self.broker.arrive(publish, time_ms, &self.faults, &mut self.dice);
        self.log.line(
            self.now_ms,
            format_args!(
                "{:?} gets {} bytes of {:?} behind {:?}: {outcome:?}",
                publish.stream,
                publish.payload.len(),
                publish.writer,
                publish.expected_last_sequence
            ),
        );
        if let AppendOutcome::Stored { sequence } = outcome {
            self.stored(publish.stream, sequence)?;
        }
        if let Some(reply) = reply {
            let back = self.dice.between(1, 20);
            self.after(back, Happening::Answer(reply, outcome));
        }
        Ok(())
    }

    fn stored(&mut self, stream: StreamName, sequence: u64) -> Result<(), Broken> {
        self.invariant_a_cut_partition_stores_nothing(stream)?;
        let commands = self.broker.stream(StreamName::Commands);
        let Some(message) = self.broker.stream(stream).ever(sequence) else { return Ok(()) };
        if stream == StreamName::Commands {
            self.invariants.expected.command_stored(sequence, &message.payload);
        }
        self.invariants.on_stored(stream, message, commands)
    }

    pub(super) fn answer(&mut self, reply: Reply, outcome: AppendOutcome) -> Result<(), Broken> {
        let (worker, generation, work) = match reply {
            Reply::Owner { worker, generation, seat } => {
                (worker, generation, Work::OwnerInput(seat, owner::Input::Appended(outcome)))
            }
            Reply::Auditor { worker, generation, auditor } => {
                let input = auditor::Input::Appended(outcome);
                (worker, generation, Work::AuditorInput(auditor, input))
            }
            Reply::Outcome { worker, generation, id } => {
                (worker, generation, Work::OutcomeAnswered(id, outcome))
            }
            Reply::Checkpoint { worker, generation, seat } => {
                (worker, generation, Work::CheckpointAnswered(seat, outcome))
            }
            Reply::Relay { worker, generation, seat, up_to } => {
                let target = fermata_core::identity::PartitionId(0);
                let input = owner::Input::Relayed { target, up_to, outcome };
                (worker, generation, Work::OwnerInput(seat, input))
            }
            Reply::Load(item) => {
                self.load_answered(item, outcome);
                return Ok(());
            }
        };
        self.happen(Happening::ToWorker { worker, generation, work })
    }

    pub(super) fn publish_load(&mut self, item: usize) -> Result<(), Broken> {
        let Some(payload) = self.load.frame(item, &mut self.dice)? else { return Ok(()) };
        self.publish_command(payload, Reply::Load(item));
        Ok(())
    }

    pub(super) fn publish_command(&mut self, payload: Bytes, reply: Reply) {
        let publish = Publish {
            stream: StreamName::Commands,
            expected_last_sequence: None,
            writer: None,
            payload,
        };
        self.publish(publish, 0, reply);
    }

    /// There is one partition, so what it sends comes back to it.
    pub(super) fn publish_relay(
        &mut self,
        worker: usize,
        seat: u64,
        relay: owner::Relay,
        pause_ms: u64,
    ) {
        let generation = self.generation(worker);
        let publish = Publish {
            stream: StreamName::Commands,
            expected_last_sequence: None,
            writer: None,
            payload: relay.frame,
        };
        let up_to = relay.up_to;
        self.publish(publish, pause_ms, Reply::Relay { worker, generation, seat, up_to });
    }

    fn load_answered(&mut self, item: usize, outcome: AppendOutcome) {
        let stored = matches!(outcome, AppendOutcome::Stored { .. });
        if stored && !self.load.is_acknowledged(item) {
            let (sources, cancel) = self.load.acknowledge(item);
            self.invariants.expected.accepted.extend(sources);
            self.invariants.expected.cancels.extend(cancel);
        }
        let again = !stored || self.throws(self.faults.redelivery);
        if again {
            let after = self.dice.between(50, 4_000);
            self.after(after, Happening::Load(item));
        }
    }

    /// Somebody who is not ours writes into the journal or the audit log.
    pub(super) fn intrude(&mut self) {
        if self.healed {
            return;
        }
        for stream in [StreamName::Journal, StreamName::Audit] {
            if self.throws(self.faults.foreign) {
                let payload = Bytes::from(self.dice.bytes16().to_vec());
                let publish =
                    Publish { stream, expected_last_sequence: None, writer: None, payload };
                self.arrive_after(1, publish, None);
            }
        }
        self.after(1_000, Happening::Intrude);
    }
}
