//! The shell around an auditor: the audit log, checkpoints.

use bytes::Bytes;
use fermata_partition::auditor::{Input, Output, StoredFrom};
use fermata_partition::message::{AppendOutcome, Message};
use fermata_wire::audit::AuditFrame;

use super::{Reply, World};
use crate::broker::{Publish, StreamName};
use crate::trace::Broken;
use crate::worker::{Note, Work};

/// Messages of the audit log that a read hands over at once.
const STORED_MESSAGES_MAX: usize = 3;

impl World {
    pub(super) fn tell_auditor(
        &mut self,
        worker: usize,
        auditor: u64,
        inputs: impl IntoIterator<Item = Input>,
    ) {
        let now_ms = self.now_ms;
        let Some(known) = self.workers.get_mut(worker) else { return };
        let now = known.now(now_ms);
        let Some(seat) = known.audit_of(auditor) else { return };
        let mut outputs = Vec::new();
        for input in inputs {
            seat.auditor.handle(input, now, &mut outputs);
        }
        for output in outputs.into_iter().rev() {
            known.queue.push_front(Work::AuditorOutput(auditor, output));
        }
    }

    pub(super) fn do_auditor(
        &mut self,
        worker: usize,
        auditor: u64,
        output: Output,
    ) -> Result<(), Broken> {
        let generation = self.generation(worker);
        let Some(seat) = self.workers.get_mut(worker).and_then(|known| known.audit_of(auditor))
        else {
            return Ok(());
        };
        let seat = seat.id;
        self.invariant_a_cut_journal_is_not_audited(&output)?;
        match output {
            Output::Append(send) => {
                let reply = Reply::Auditor { worker, generation, auditor };
                return self.publish_fenced(StreamName::Audit, send, false, reply);
            }
            Output::AppendLater(send) => {
                let reply = Reply::Auditor { worker, generation, auditor };
                return self.publish_fenced(StreamName::Audit, send, true, reply);
            }
            Output::ReadAudit { sequence, later } => {
                let audit = self.broker.stream(StreamName::Audit);
                let answer = audit.read(sequence, &self.faults, &mut self.dice);
                let after = self.dice.between(1, 30) + if later { 300 } else { 0 };
                let work = Work::AuditorInput(auditor, Input::Read(answer));
                self.reach_worker(worker, after, work);
            }
            Output::ReadStored { from } => {
                let stored = self.broker.stream(StreamName::Audit);
                let from = match from {
                    StoredFrom::Entry(index) => holding(stored.messages(), index),
                    StoredFrom::Sequence(sequence) => sequence,
                };
                let messages = stored.from(from).iter().take(STORED_MESSAGES_MAX).cloned();
                let messages: Vec<_> = messages.collect();
                let read_to = messages.last().map_or(from - 1, |message| message.sequence);
                let after = self.dice.between(1, 50);
                self.reach_worker(worker, after, Work::Stored { auditor, messages, read_to });
            }
            Output::ReadJournal { from, to } => {
                let work = Work::ReadJournal { auditor, from, to };
                let after = self.dice.between(1, 30);
                self.reach_worker(worker, after, work);
            }
            Output::Feed { tenant, frame } => {
                return self.invariants.invariant_the_feed_tells_what_is_stored(&tenant, &frame);
            }
            Output::Checkpoint { note, size, .. } => {
                self.say(worker, format_args!("signs size {size}"));
                if let Some(seat) =
                    self.workers.get_mut(worker).and_then(|known| known.seat_of(seat))
                {
                    seat.checkpoints.waiting = Some(Note { text: note.into(), size });
                }
                self.next_checkpoint(worker, seat);
            }
            Output::Marked(mark) => return self.marked(worker, auditor, &mark),
            Output::Halt(reason) if self.may_audit_halt(&reason) => {
                self.say(worker, "an auditor halts: the journal lost its end");
            }
            Output::Halt(reason) => {
                return Err(Broken::new("invariant_nothing_halts", reason.to_string()));
            }
            Output::StandDown { by } => {
                self.say(worker, format_args!("auditor stands down for {by}"));
                self.give_up(worker);
            }
        }
        Ok(())
    }

    /// The audit log was read: its messages, and then where it ends, which a
    /// message that came meanwhile may have moved.
    pub(super) fn stored_read(
        &mut self,
        worker: usize,
        auditor: u64,
        messages: Vec<Message>,
        read_to: u64,
    ) {
        let last_sequence = self.broker.stream(StreamName::Audit).last();
        let inputs = messages.into_iter().map(Input::Stored);
        let end = Input::StoredEnd { read_to, last_sequence };
        self.tell_auditor(worker, auditor, inputs.chain([end]));
    }

    /// Reads journal messages again, of which a read may see only the first, or none yet.
    pub(super) fn read_journal_again(&mut self, worker: usize, auditor: u64, from: u64, to: u64) {
        let journal = self.broker.stream(StreamName::Journal);
        if from <= journal.purged_to() {
            self.say(worker, "finds the journal purged");
            return self.give_up(worker);
        }
        let seen = journal.seen_by_read(&self.faults, &mut self.dice).min(to);
        let failed = self.throws(self.faults.read_failed);
        if seen < from || failed {
            return self.reach_worker(worker, 300, Work::ReadJournal { auditor, from, to });
        }
        let journal = self.broker.stream(StreamName::Journal).from(from).iter();
        let messages = journal.take_while(|message| message.sequence <= seen).cloned().collect();
        self.tell_auditor(worker, auditor, [Input::JournalAgain(messages)]);
    }

    pub(super) fn committed(
        &mut self,
        worker: usize,
        seat: u64,
        sequence: u64,
        frame: Option<Bytes>,
    ) {
        let Some(seat) = self.workers.get_mut(worker).and_then(|known| known.seat_of(seat)) else {
            return;
        };
        seat.committed = sequence;
        let auditor = seat.auditor_id;
        self.tell_auditor(worker, auditor, [Input::Journal { sequence, frame }]);
    }

    pub(super) fn go_live(&mut self, worker: usize, seat: u64) {
        let Some(seat) = self.workers.get_mut(worker).and_then(|known| known.seat_of(seat)) else {
            return;
        };
        let auditor = seat.auditor_id;
        self.tell_auditor(worker, auditor, [Input::Live]);
    }

    fn next_checkpoint(&mut self, worker: usize, seat: u64) {
        let known = self.workers.get_mut(worker).and_then(|known| known.seat_of(seat));
        let idle = known.is_some_and(|seat| seat.checkpoints.in_flight.is_none());
        if idle {
            self.publish_checkpoint(worker, seat);
        }
    }

    pub(super) fn publish_checkpoint(&mut self, worker: usize, seat: u64) {
        let generation = self.generation(worker);
        let known = self.workers.get_mut(worker).and_then(|known| known.seat_of(seat));
        let Some((expected, payload)) = known.and_then(|seat| seat.checkpoints.next()) else {
            return;
        };
        let publish = Publish {
            stream: StreamName::Checkpoints,
            expected_last_sequence: Some(expected),
            writer: Some(format!("checkpoint-{seat}")),
            payload,
        };
        self.publish(publish, 0, Reply::Checkpoint { worker, generation, seat });
    }

    pub(super) fn checkpoint_answered(&mut self, worker: usize, seat: u64, outcome: AppendOutcome) {
        let stored = self.broker.stream(StreamName::Checkpoints);
        let (last, newest) = (stored.last(), stored.messages().last());
        let newest = newest.and_then(|message| {
            let verifiers = std::slice::from_ref(&self.verifier);
            fermata_audit::Checkpoint::open(&message.payload, verifiers).ok()
        });
        let newest = newest.map_or(0, |checkpoint| checkpoint.size());
        let Some(known) = self.workers.get_mut(worker).and_then(|known| known.seat_of(seat)) else {
            return;
        };
        // A refusal or no answer: the same again. A conflict: an own copy, or
        // another auditor's; what covers more than that goes behind it.
        let again = match outcome {
            AppendOutcome::Stored { .. } | AppendOutcome::Conflict => {
                known.checkpoints.learn(last, newest);
                false
            }
            AppendOutcome::Refused | AppendOutcome::Unknown => true,
        };
        match again {
            true => self.reach_worker(worker, 200, Work::PublishCheckpoint(seat)),
            false => self.publish_checkpoint(worker, seat),
        }
    }
}

/// The sequence of the message that holds entry `index`; the first if none does.
fn holding(messages: &[Message], index: u64) -> u64 {
    let holds = |message: &&Message| {
        message.writer.is_some()
            && AuditFrame::decode(&message.payload)
                .is_ok_and(|frame| frame.entries.iter().any(|entry| entry.index == index))
    };
    messages.iter().find(holds).map_or(1, |message| message.sequence)
}
