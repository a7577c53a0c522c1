//! The auditor of a partition: committed records into a signed log
//! (ADR 12).
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

mod backlog;
mod comparing;
mod derive;
mod feed;
mod halt;
mod loss;
mod mark;
mod signing;
mod storing;

use std::collections::VecDeque;

use bytes::Bytes;
use fermata_audit::{Checkpoint, Hash, Signer, Tree};
use fermata_core::identity::Tenant;

use crate::append::{FencedAppend, ReadAnswer, Send};
use crate::message::{AppendOutcome, Message, Now};
use backlog::Backlog;

pub use backlog::{BACKLOG_BYTES_MAX, READ_AGAIN_MESSAGES_MAX};
pub use halt::AuditHalt;
pub use mark::AuditMark;

/// Bytes of entries in one stored audit frame. Entries that are ready are put
/// together up to it, whichever journal messages they are of.
pub const AUDIT_FRAME_BYTES_TARGET: usize = 256 * 1024;

/// Least time between two appends to the audit log under load, milliseconds,
/// unless a frame is full. The log is not on the way of any decision, so under
/// load it pays to append less often and more at once.
pub const APPEND_INTERVAL_MS_MIN: u64 = 10;

/// An append of at least so many bytes is load; after a smaller one the next
/// goes out as soon as there is something to append.
pub const LOAD_BYTES_MIN: usize = 16 * 1024;

/// Least time between two checkpoints, milliseconds: a signature and two
/// synced writes each, and the stream of checkpoints is kept for ever.
pub const CHECKPOINT_INTERVAL_MS_MIN: u64 = 1_000;

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
    /// Bytes of entries that are kept until they are stored;
    /// [`BACKLOG_BYTES_MAX`] but in tests.
    pub backlog_bytes_max: usize,
    /// What the owner's snapshot says of the entries before it, if it begins
    /// from one. The checkpoint covers them, or the snapshot's own note does.
    pub behind: Option<AuditMark>,
}

/// What an auditor is told.
#[derive(Debug)]
pub enum Input {
    /// The next message of the journal, from the first on that is not in the
    /// snapshot; `None` for a foreign message.
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
    /// The audit log was read up to here; every message up to it that exists
    /// was handed over before.
    StoredEnd {
        /// The last sequence that was looked at.
        read_to: u64,
        /// Where the log ended then.
        last_sequence: u64,
    },
    /// The answer to [`Output::ReadJournal`]: those messages, or the first of them.
    JournalAgain(Vec<Message>),
    /// What became of the append.
    Appended(AppendOutcome),
    /// The answer to [`Output::ReadAudit`].
    Read(ReadAnswer),
    /// Time has passed.
    Tick,
    /// A snapshot ends where there are so many records; they were told before.
    /// Answered by [`Output::Marked`]; the newest one counts.
    Mark(u64),
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
    /// Read some messages of the audit log: [`Input::Stored`] for each, those
    /// included that nobody of ours wrote, then [`Input::StoredEnd`]. More are
    /// asked for when these are taken.
    ReadStored {
        /// Where to begin.
        from: StoredFrom,
    },
    /// Read these messages of the journal, which were told when there was no
    /// room to keep them, and answer with [`Input::JournalAgain`].
    ReadJournal {
        /// The first.
        from: u64,
        /// The last, at most [`READ_AGAIN_MESSAGES_MAX`] in all.
        to: u64,
    },
    /// Send these entries of a tenant to subscribers; `None` is the engine. They
    /// must be on their way before a later [`Output::Checkpoint`] is stored: the
    /// next auditor sends again only what no checkpoint covers.
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
    /// The entries that [`Input::Mark`] asked for are stored and signed.
    Marked(Box<AuditMark>),
}

/// Where to begin reading the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredFrom {
    /// At the message that holds this entry or at an earlier one; at the first
    /// message when none does.
    Entry(u64),
    /// At this sequence.
    Sequence(u64),
}

/// One partition's auditor.
pub struct Auditor {
    config: AuditorConfig,
    phase: Phase,
    append: FencedAppend,
    /// Over the stored entries.
    tree: Tree,
    tree_journal_sequence: u64,
    backlog: Backlog,
    /// Entries in the append under way.
    in_flight: usize,
    /// Read from the audit log and not compared yet.
    stored: VecDeque<Message>,
    /// Up to where the log was read, and where it ended then.
    stored_end: Option<(u64, u64)>,
    frames_written: u64,
    signed_size: u64,
    /// The last entry that the checkpoint covers, or that is known without its record,
    /// until it was found stored.
    anchor: Option<Anchor>,
    signed_at_ms: u64,
    rests_until_ms: u64,
    stored_since_ms: Option<u64>,
    /// Leaf of the last entry that is stored.
    last_leaf: Option<Hash>,
    pending_mark: Option<mark::Pending>,
}

/// An entry that must be stored.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    /// Entries up to and with it.
    size: u64,
    /// Its leaf, where it is known.
    leaf: Option<Hash>,
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
    pub fn new(mut config: AuditorConfig) -> Self {
        let signed_size = config.checkpoint.as_ref().map_or(0, Checkpoint::size);
        let behind = config.behind.take();
        let mut auditor = Self {
            backlog: Backlog::new(config.backlog_bytes_max),
            config,
            phase: Phase::Replaying,
            append: FencedAppend::new(0),
            tree: Tree::new(),
            tree_journal_sequence: 0,
            in_flight: 0,
            stored: VecDeque::new(),
            stored_end: None,
            frames_written: 0,
            signed_size,
            anchor: None,
            signed_at_ms: 0,
            rests_until_ms: 0,
            stored_since_ms: None,
            last_leaf: None,
            pending_mark: None,
        };
        if let Some(mark) = behind {
            auditor.begin_behind(mark);
        }
        auditor
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

    /// The first journal message for which the owner must be held back, as its
    /// entries are not stored. `None` while the owner is still taking over (it
    /// must not wait for what may be appended only when it has), and when
    /// nothing is missing or nothing will be stored any more.
    #[must_use]
    pub fn holds_back_from(&self) -> Option<u64> {
        match self.phase {
            Phase::Replaying | Phase::Ended => None,
            Phase::Comparing | Phase::Live => self.backlog.first_sequence(),
        }
    }

    /// Bytes of entries that are derived and not stored.
    #[must_use]
    pub fn backlog_bytes(&self) -> usize {
        self.backlog.bytes()
    }

    /// In how many milliseconds the auditor has something to append and may.
    #[must_use]
    pub fn appends_in_ms(&self, now: Now) -> Option<u64> {
        let waits = self.phase == Phase::Live && !self.append.is_busy() && self.backlog.bytes() > 0;
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
        self.phase == Phase::Live && self.backlog.is_empty() && self.signed_size == self.tree.size()
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
            Input::StoredEnd { read_to, last_sequence } => {
                self.stored_end = Some((read_to, last_sequence));
            }
            Input::JournalAgain(messages) => {
                if let Err(halt) = self.backlog.take_again(messages) {
                    self.halt(halt, outputs);
                }
            }
            Input::Appended(outcome) => {
                let step = self.append.on_outcome(outcome);
                self.follow(step, now, outputs);
            }
            Input::Read(answer) => {
                let step = self.append.on_read(answer);
                self.follow(step, now, outputs);
            }
            Input::Tick => {}
            Input::Mark(size) => self.mark(size, outputs),
        }
        if self.phase == Phase::Comparing {
            self.hold_against_stored(now, outputs);
        }
        if self.phase == Phase::Live {
            self.flush(now, outputs);
            self.sign_if_due(now, outputs);
        }
        if matches!(self.phase, Phase::Comparing | Phase::Live) {
            self.backlog.read_again(outputs);
        }
    }

    fn take_journal(&mut self, sequence: u64, frame: Option<Bytes>, outputs: &mut Vec<Output>) {
        if let Err(halt) = self.backlog.take(sequence, frame.as_ref()) {
            return self.halt(halt, outputs);
        }
        // The signed root vouches for these, entry by entry; the one that somebody
        // accepted a loss behind vouches for what is before it.
        while self.tree.size() < self.signed_size || self.backlog.has_loss() {
            if let Some(loss) = self.backlog.take_loss() {
                if let Err(halt) = self.pass_loss(&loss, sequence) {
                    return self.halt(halt, outputs);
                }
                continue;
            }
            let Some(front) = self.backlog.front() else { return };
            let Some(entry) = front.entries.get(front.taken) else { return };
            let (leaf, journal_sequence) = (Hash(*entry.leaf), front.journal_sequence);
            self.push_leaf(leaf, journal_sequence);
            self.backlog.store(1);
            if self.tree.size() == self.signed_size {
                self.anchor = Some(Anchor { size: self.signed_size, leaf: Some(leaf) });
                let signed = self.config.checkpoint.as_ref().map(Checkpoint::root);
                if signed != Some(self.tree.root()) {
                    return self.halt(AuditHalt::RootMismatch { size: self.signed_size }, outputs);
                }
            }
        }
    }

    fn halt(&mut self, reason: AuditHalt, outputs: &mut Vec<Output>) {
        self.phase = Phase::Ended;
        outputs.push(Output::Halt(reason));
    }
}
