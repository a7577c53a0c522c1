//! The auditor of a partition: committed records into a signed log (DESIGN
//! decision 11).
//!
//! ```text
//! journal ack ─► leaves ─► AUDIT append ─► AUDIT ack ─► tree ─► checkpoint
//! ```
//!
//! The log is a function of the journal, so an auditor derives it from the
//! first record on whenever it starts, and holds what is stored against that:
//! the signed checkpoint's root must come out at the checkpoint's size, and
//! every entry stored after it must be the one derived. What is missing behind
//! them is appended. A log shorter than its checkpoint, or different, halts.

mod derive;

use std::collections::VecDeque;

use bytes::Bytes;
use fermata_audit::{Checkpoint, Hash, Signer, Tree};
use fermata_core::identity::Tenant;
use fermata_wire::audit::{AuditFrame, Entry};
use thiserror::Error;

use crate::append::{FencedAppend, ReadAnswer, Send, Step};
use crate::message::{AppendOutcome, Message, Now};
use derive::{DerivedFrame, derive};

/// Bytes of headers, commitments and leaves in one stored audit frame. Frames
/// of the journal that are ready are put together up to it.
pub const AUDIT_FRAME_BYTES_TARGET: usize = 256 * 1024;

/// Least time between two appends to the audit log under load, milliseconds,
/// unless a frame is full. The log is not on the way of any decision, so under
/// load it pays to append less often and more at once.
pub const APPEND_INTERVAL_MS_MIN: u64 = 10;

/// An append of at least so many bytes is load; after a smaller one the next
/// goes out as soon as there is something to append.
pub const LOAD_BYTES_MIN: usize = 16 * 1024;

/// Least time between two checkpoints, milliseconds: a signature and two
/// synced writes each.
pub const CHECKPOINT_INTERVAL_MS_MIN: u64 = 100;

/// Longest time that a stored entry goes without a checkpoint, milliseconds.
pub const CHECKPOINT_INTERVAL_MS_MAX: u64 = 1_000;

/// What an auditor is made of.
pub struct AuditorConfig {
    /// First line of the checkpoints: engine and partition.
    pub origin: String,
    /// Signs checkpoints.
    pub signer: Signer,
    /// Tag of its appends; unique to this attempt to own the partition.
    pub writer: String,
    /// The newest checkpoint that the stream or the file holds, read before
    /// the partition is taken over: the journal then covers it.
    pub checkpoint: Option<Checkpoint>,
}

/// What an auditor is told.
#[derive(Debug)]
pub enum Input {
    /// The next message of the journal, from the first on; `None` for a
    /// foreign message.
    Journal {
        /// Its sequence.
        sequence: u64,
        /// Its bytes.
        frame: Option<Bytes>,
    },
    /// The journal is replayed up to what is live: from here on the auditor appends.
    Live,
    /// The next stored message of the audit log, in order, of those asked for.
    Stored(Message),
    /// The audit log was read to its end.
    StoredEnd {
        /// Its last sequence.
        last_sequence: u64,
    },
    /// What became of the append.
    Appended(AppendOutcome),
    /// The answer to [`Output::ReadAudit`].
    Read(ReadAnswer),
    /// Time has passed.
    Tick,
}

/// What an auditor wants done.
#[derive(Debug)]
pub enum Output {
    /// Append to the audit log and answer with [`Input::Appended`].
    Append(Send),
    /// The same after a short pause.
    AppendLater(Send),
    /// Read this message of the audit log and answer with [`Input::Read`].
    ReadAudit {
        /// Its sequence.
        sequence: u64,
        /// Whether to pause first.
        later: bool,
    },
    /// Read the audit log from the message that holds entry `from`, or from its
    /// first message when none does: [`Input::Stored`] for every message, those
    /// included that nobody of ours wrote, then [`Input::StoredEnd`].
    ReadStored {
        /// The first index wanted.
        from: u64,
    },
    /// Send these entries of a tenant to subscribers; `None` is the engine.
    Feed {
        /// Whose entries they are.
        tenant: Option<Tenant>,
        /// An encoded audit frame.
        frame: Vec<u8>,
    },
    /// Store this signed note in the checkpoint stream and the synced file.
    Checkpoint {
        /// The note.
        note: String,
        /// Entries that it covers.
        size: u64,
        /// The journal message that holds the last of them.
        journal_sequence: u64,
    },
    /// The log cannot be trusted: stop and tell a person.
    Halt(AuditHalt),
    /// Another auditor was first, or the log was read to end early: this one
    /// knows no longer what is stored. The whole attempt to own the partition
    /// ends with it: only an owner that replays knows whether it still is one.
    StandDown {
        /// The other one's tag.
        by: String,
    },
}

/// Why an audit log cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuditHalt {
    /// Fewer entries than were signed.
    #[error(
        "the audit log does not hold the last of the {signed} entries that were signed; entries are gone"
    )]
    BehindCheckpoint {
        /// Entries that the checkpoint covers.
        signed: u64,
    },
    /// An entry is not stored, and later ones are.
    #[error("the audit log does not hold entry {index}, but later ones; entries are gone")]
    EntryMissing {
        /// Its index.
        index: u64,
    },
    /// The journal holds fewer records than were signed.
    #[error("the journal holds {found} records, {signed} were signed; records are gone")]
    JournalBehindCheckpoint {
        /// Entries that the checkpoint covers.
        signed: u64,
        /// Records that are there.
        found: u64,
    },
    /// The journal's records do not give the signed root.
    #[error("the journal's first {size} records do not give the signed root; a record was changed")]
    RootMismatch {
        /// Entries that the checkpoint covers.
        size: u64,
    },
    /// A stored entry is not the one that the journal gives.
    #[error("audit entry {index} is not the one that the journal gives")]
    EntryMismatch {
        /// Its index.
        index: u64,
    },
    /// A message of the journal or of the audit log cannot be read.
    #[error("message {sequence} of the {stream} cannot be read: {detail}")]
    Unreadable {
        /// Which stream.
        stream: &'static str,
        /// Its sequence.
        sequence: u64,
        /// Why.
        detail: String,
    },
}

/// One partition's auditor.
pub struct Auditor {
    config: AuditorConfig,
    phase: Phase,
    append: FencedAppend,
    /// Over the stored entries.
    tree: Tree,
    tree_journal_sequence: u64,
    /// Derived and not stored, in order.
    pending: VecDeque<DerivedFrame>,
    in_flight: usize,
    stored: VecDeque<Message>,
    stored_end: Option<u64>,
    frames_written: u64,
    signed_size: u64,
    /// Leaf of the last entry that the checkpoint covers, until it was found stored.
    anchor: Option<Hash>,
    signed_at_ms: u64,
    rests_until_ms: u64,
    pending_bytes: usize,
    stored_since_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Deriving from the journal; nothing is held against the log yet.
    Replaying,
    /// Holding what is stored behind the checkpoint against what is derived.
    Comparing,
    /// Appending.
    Live,
    Ended,
}

/// How a stored message stands to what was derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Adopted {
    /// Its entries are those derived, or nobody's.
    Known,
    /// It goes on where the derived entries end. These end with the record by
    /// which the partition was taken over, and it is stored: so another owner
    /// has gone on from there. (A journal that was cut is no such case: there
    /// the takeover stands where the log has another entry.)
    Ahead,
}

impl std::fmt::Debug for Auditor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Auditor")
            .field("origin", &self.config.origin)
            .field("phase", &self.phase)
            .field("size", &self.tree.size())
            .finish_non_exhaustive()
    }
}

impl Auditor {
    /// An auditor that has derived nothing yet.
    #[must_use]
    pub fn new(config: AuditorConfig) -> Self {
        let signed_size = config.checkpoint.as_ref().map_or(0, Checkpoint::size);
        Self {
            config,
            phase: Phase::Replaying,
            append: FencedAppend::new(0),
            tree: Tree::new(),
            tree_journal_sequence: 0,
            pending: VecDeque::new(),
            in_flight: 0,
            stored: VecDeque::new(),
            stored_end: None,
            frames_written: 0,
            signed_size,
            anchor: None,
            signed_at_ms: 0,
            rests_until_ms: 0,
            pending_bytes: 0,
            stored_since_ms: None,
        }
    }

    /// Entries that are stored.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Root over the stored entries.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// Journal frames that are not stored as entries yet.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.pending.len()
    }

    /// In how many milliseconds the auditor has something to append and may.
    #[must_use]
    pub fn appends_in_ms(&self, now: Now) -> Option<u64> {
        let waits = self.phase == Phase::Live && !self.append.is_busy() && !self.pending.is_empty();
        waits.then(|| self.rests_until_ms.saturating_sub(now.monotonic_ms))
    }

    /// Whether it appends: before that it only derives and compares, and after
    /// it has ended nothing waits for it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Whether everything derived is stored and signed.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.phase == Phase::Live && self.pending.is_empty() && self.signed_size == self.tree.size()
    }

    /// Takes one input; what is to be done is added to `outputs`, in order.
    pub fn handle(&mut self, input: Input, now: Now, outputs: &mut Vec<Output>) {
        if self.phase == Phase::Ended {
            return;
        }
        match input {
            Input::Journal { sequence, frame } => self.take_journal(sequence, frame, outputs),
            Input::Live => self.compare(outputs),
            Input::Stored(message) => self.stored.push_back(message),
            Input::StoredEnd { last_sequence } => self.stored_end = Some(last_sequence),
            Input::Appended(outcome) => {
                let step = self.append.on_outcome(outcome);
                self.follow(step, now, outputs);
            }
            Input::Read(answer) => {
                let step = self.append.on_read(answer);
                self.follow(step, now, outputs);
            }
            Input::Tick => {}
        }
        if self.phase == Phase::Comparing {
            self.hold_against_stored(now, outputs);
        }
        if self.phase == Phase::Live {
            self.flush(now, outputs);
            self.sign_if_due(now, outputs);
        }
    }

    fn take_journal(&mut self, sequence: u64, frame: Option<Bytes>, outputs: &mut Vec<Output>) {
        let Some(frame) = frame else { return };
        let derived = match derive(sequence, &frame) {
            Ok(derived) => derived,
            Err(halt) => return self.halt(halt, outputs),
        };
        if derived.entries.is_empty() {
            return;
        }
        if self.phase != Phase::Replaying || self.tree.size() >= self.signed_size {
            self.pending_bytes += derived.bytes;
            self.pending.push_back(derived);
            return;
        }
        // The signed root vouches for these, entry by entry.
        for entry in &derived.entries {
            self.tree.push(entry.leaf);
            if self.tree.size() == self.signed_size {
                self.anchor = Some(entry.leaf);
                let signed = self.config.checkpoint.as_ref().map(Checkpoint::root);
                if signed != Some(self.tree.root()) {
                    return self.halt(AuditHalt::RootMismatch { size: self.signed_size }, outputs);
                }
            }
        }
        self.tree_journal_sequence = derived.journal_sequence;
    }

    fn compare(&mut self, outputs: &mut Vec<Output>) {
        if self.phase != Phase::Replaying {
            return;
        }
        if self.tree.size() < self.signed_size {
            let (signed, found) = (self.signed_size, self.tree.size());
            return self.halt(AuditHalt::JournalBehindCheckpoint { signed, found }, outputs);
        }
        self.phase = Phase::Comparing;
        self.stored_end = None;
        self.read_stored(outputs);
    }

    /// Reads from the last signed entry on: a log that was cut behind it holds it.
    fn read_stored(&self, outputs: &mut Vec<Output>) {
        outputs.push(Output::ReadStored { from: self.tree.size().saturating_sub(1) });
    }

    /// Takes over entries that are stored already, each held against the one derived.
    fn hold_against_stored(&mut self, now: Now, outputs: &mut Vec<Output>) {
        while let Some(message) = self.stored.pop_front() {
            match self.adopt(&message, now) {
                Ok(Adopted::Known) => {}
                Ok(Adopted::Ahead) => {
                    self.phase = Phase::Ended;
                    let by = message.writer.unwrap_or_default();
                    return outputs.push(Output::StandDown { by });
                }
                Err(halt) => return self.halt(halt, outputs),
            }
            self.append.advance(message.sequence);
        }
        let Some(end) = self.stored_end.take() else { return };
        if end > self.append.last() {
            // More came while it was read.
            return self.read_stored(outputs);
        }
        if self.anchor.is_some() {
            let signed = self.signed_size;
            return self.halt(AuditHalt::BehindCheckpoint { signed }, outputs);
        }
        self.phase = Phase::Live;
    }

    fn adopt(&mut self, message: &Message, now: Now) -> Result<Adopted, AuditHalt> {
        if message.writer.is_none() {
            return Ok(Adopted::Known);
        }
        let unreadable = |detail: String| AuditHalt::Unreadable {
            stream: "audit log",
            sequence: message.sequence,
            detail,
        };
        let frame =
            AuditFrame::decode(&message.payload).map_err(|error| unreadable(error.to_string()))?;
        for entry in &frame.entries {
            if entry.index < self.tree.size() {
                if entry.index + 1 == self.signed_size
                    && self.anchor.take().is_some_and(|leaf| leaf.as_bytes() != entry.leaf)
                {
                    return Err(AuditHalt::EntryMismatch { index: entry.index });
                }
                continue;
            }
            if entry.index != self.tree.size() {
                return Err(AuditHalt::EntryMissing { index: self.tree.size() });
            }
            let Some(front) = self.pending.front_mut() else {
                return Ok(Adopted::Ahead);
            };
            let taken = front.taken;
            let same = front.entries.get(taken).is_some_and(|derived| {
                derived.header == entry.header
                    && derived.commitment == *entry.commitment
                    && derived.leaf.as_bytes() == entry.leaf
            });
            if !same {
                return Err(AuditHalt::EntryMismatch { index: entry.index });
            }
            if let Some(derived) = front.entries.get(taken) {
                self.tree.push(derived.leaf);
            }
            front.taken += 1;
            if front.taken == front.entries.len() {
                self.tree_journal_sequence = front.journal_sequence;
                self.pending_bytes -= front.bytes;
                self.pending.pop_front();
            }
            self.stored_since_ms.get_or_insert(now.monotonic_ms);
        }
        Ok(Adopted::Known)
    }

    /// Appends what is derived and not stored, if nothing is in flight.
    fn flush(&mut self, now: Now, outputs: &mut Vec<Output>) {
        if self.append.is_busy() || self.pending.is_empty() {
            return;
        }
        let rested = now.monotonic_ms >= self.rests_until_ms;
        if !rested && self.pending_bytes < AUDIT_FRAME_BYTES_TARGET {
            return;
        }
        let mut frames = 0;
        let mut bytes = 0;
        for frame in &self.pending {
            if frames > 0 && bytes + frame.bytes > AUDIT_FRAME_BYTES_TARGET {
                break;
            }
            frames += 1;
            bytes += frame.bytes;
        }
        let rest_ms = if bytes >= LOAD_BYTES_MIN { APPEND_INTERVAL_MS_MIN } else { 0 };
        self.rests_until_ms = now.monotonic_ms + rest_ms;
        let chosen = self.pending.iter().take(frames);
        let journal_sequence = chosen.clone().next_back().map_or(0, |frame| frame.journal_sequence);
        let entries = chosen.flat_map(DerivedFrame::remaining).collect::<Vec<Entry<'_>>>();
        let first = entries.first().map_or(0, |entry| entry.index);
        let payload = match (AuditFrame { journal_sequence, entries }).encode() {
            Ok(payload) => payload,
            Err(error) => {
                let (stream, detail) = ("journal", error.to_string());
                let sequence = journal_sequence;
                return self.halt(AuditHalt::Unreadable { stream, sequence, detail }, outputs);
            }
        };
        self.in_flight = frames;
        let writer = format!("{}.audit.{}.{first}", self.config.writer, self.frames_written);
        self.frames_written += 1;
        outputs.push(Output::Append(self.append.begin(writer, payload.into())));
    }

    fn follow(&mut self, step: Step, now: Now, outputs: &mut Vec<Output>) {
        match step {
            Step::Send(send) | Step::Foreign { send, .. } => outputs.push(Output::Append(send)),
            Step::SendLater(send) => outputs.push(Output::AppendLater(send)),
            Step::Read { sequence } => outputs.push(Output::ReadAudit { sequence, later: false }),
            Step::ReadLater { sequence } => {
                outputs.push(Output::ReadAudit { sequence, later: true });
            }
            Step::Committed { .. } => self.stored_now(now, outputs),
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

    fn stored_now(&mut self, now: Now, outputs: &mut Vec<Output>) {
        for frame in self.pending.drain(..std::mem::take(&mut self.in_flight)) {
            self.pending_bytes -= frame.bytes;
            for entry in frame.entries.iter().skip(frame.taken) {
                self.tree.push(entry.leaf);
            }
            self.tree_journal_sequence = frame.journal_sequence;
            frame.feed(outputs);
        }
        self.stored_since_ms.get_or_insert(now.monotonic_ms);
    }

    fn sign_if_due(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let Some(since) = self.stored_since_ms else { return };
        if self.tree.size() <= self.signed_size {
            self.stored_since_ms = None;
            return;
        }
        let idle = self.pending.is_empty() && !self.append.is_busy();
        let rested = now.monotonic_ms >= self.signed_at_ms + CHECKPOINT_INTERVAL_MS_MIN
            || self.signed_at_ms == 0;
        let overdue = now.monotonic_ms >= since + CHECKPOINT_INTERVAL_MS_MAX;
        if !((idle && rested) || overdue) {
            return;
        }
        let (size, journal_sequence) = (self.tree.size(), self.tree_journal_sequence);
        let Ok(checkpoint) =
            Checkpoint::new(&self.config.origin, size, self.tree.root(), journal_sequence)
        else {
            return;
        };
        let note = checkpoint.sign(&self.config.signer);
        self.signed_size = size;
        self.signed_at_ms = now.monotonic_ms.max(1);
        self.stored_since_ms = None;
        outputs.push(Output::Checkpoint { note, size, journal_sequence });
    }

    fn halt(&mut self, reason: AuditHalt, outputs: &mut Vec<Output>) {
        self.phase = Phase::Ended;
        outputs.push(Output::Halt(reason));
    }
}
