//! From what is derived to what is stored: appends, and what follows from them.

use fermata_audit::Hash;
use fermata_wire::audit::AuditFrameBuilder;

use super::feed::Feed;
use super::{
    APPEND_INTERVAL_MS_MIN, AUDIT_FRAME_BYTES_TARGET, AuditHalt, Auditor, LOAD_BYTES_MIN, Output,
    Phase,
};
use crate::append::Step;
use crate::message::Now;

impl Auditor {
    /// Appends what is derived and not stored, if nothing is in flight.
    pub(super) fn flush(&mut self, now: Now, outputs: &mut Vec<Output>) {
        if self.append.is_busy() || self.backlog.front().is_none() {
            return;
        }
        let rested = now.monotonic_ms >= self.rests_until_ms;
        if !rested && self.backlog.bytes() < AUDIT_FRAME_BYTES_TARGET {
            return;
        }
        let mut frame = AuditFrameBuilder::default();
        let mut count = 0;
        let mut journal_sequence = 0;
        for derived in self.backlog.frames() {
            let room = AUDIT_FRAME_BYTES_TARGET.saturating_sub(frame.bytes());
            let places = derived.next_fitting(room);
            if count > 0 && derived.entries.bytes(places.clone()) > room {
                break;
            }
            let whole = places.end == derived.entries.len();
            count += places.len();
            journal_sequence = derived.journal_sequence;
            derived.write(places, &mut frame);
            if !whole {
                break;
            }
        }
        let rest_ms = if frame.bytes() >= LOAD_BYTES_MIN { APPEND_INTERVAL_MS_MIN } else { 0 };
        self.rests_until_ms = now.monotonic_ms + rest_ms;
        let payload = match frame.finish(journal_sequence) {
            Ok(payload) => payload,
            Err(error) => {
                let (stream, detail) = ("journal", error.to_string());
                let sequence = journal_sequence;
                return self.halt(AuditHalt::Unreadable { stream, sequence, detail }, outputs);
            }
        };
        self.in_flight = count;
        let first = self.tree.size();
        let writer = format!("{}.audit.{}.{first}", self.config.writer, self.frames_written);
        self.frames_written += 1;
        outputs.push(Output::Append(self.append.begin(writer, payload.into())));
    }

    /// Goes on with the append in flight.
    pub(super) fn follow(&mut self, step: Step, now: Now, outputs: &mut Vec<Output>) {
        match step {
            Step::Send(send) | Step::Foreign { send, .. } => outputs.push(Output::Append(send)),
            Step::SendLater(send) => outputs.push(Output::AppendLater(send)),
            Step::Read { sequence } => outputs.push(Output::ReadAudit { sequence, later: false }),
            Step::ReadLater { sequence } => {
                outputs.push(Output::ReadAudit { sequence, later: true });
            }
            Step::Committed { .. } => {
                let count = std::mem::take(&mut self.in_flight);
                self.stored_now(count, now, outputs);
            }
            Step::Lost { by } => {
                self.phase = Phase::Ended;
                outputs.push(Output::StandDown { by });
            }
            // One read says so, and a read may be old. Whoever derives the log
            // again finds out.
            Step::Truncated { last_sequence } => {
                self.phase = Phase::Ended;
                let by = format!("nobody: the audit log was read to end at {last_sequence}");
                outputs.push(Output::StandDown { by });
            }
            Step::Ignore => {}
        }
    }

    /// The next `count` entries are stored, by whomever: they go into the tree
    /// and to subscribers. Nobody else may have sent them: whoever stored them
    /// may have ended before it did.
    pub(super) fn stored_now(&mut self, mut count: usize, now: Now, outputs: &mut Vec<Output>) {
        let mut feed = Feed::default();
        while count > 0 {
            let Some(front) = self.backlog.front() else { break };
            let places = front.taken..(front.taken + count).min(front.entries.len());
            let journal_sequence = front.journal_sequence;
            feed.add(journal_sequence, &front.entries, places.clone());
            let leaves = places.clone().filter_map(|place| front.entries.get(place));
            let leaves = leaves.map(|entry| Hash(*entry.leaf)).collect::<Vec<_>>();
            for leaf in leaves {
                self.push_leaf(leaf, journal_sequence);
            }
            count -= places.len();
            self.backlog.store(places.len());
        }
        feed.finish(outputs);
        self.stored_since_ms.get_or_insert(now.monotonic_ms);
    }
}
