//! What must hold, checked as messages are stored and effects start.
//!
//! The streams are the ground truth here: each message is looked at once, when
//! the broker stores it. What lives only in a worker (a live state, an effect
//! that starts) is held against them.

mod completion;
mod loss;
mod owners;
mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use fermata_audit::{Checkpoint, Tree, Verifier};
use fermata_core::digest::Digest;
use fermata_core::effect::Attempt;
use fermata_core::identity::{RunId, StreamPosition, Tenant};
use fermata_core::partition::Partition;
use fermata_core::plan::Executable;
use fermata_core::record::{Header, Kind};
use fermata_partition::fold::{Decoded, JournalFold, decode};
use fermata_partition::message::Message;
use fermata_partition::owner::Undecidable;
use fermata_partition::snapshot::FrozenFold;
use fermata_wire::audit::AuditFrame;
use uuid::Uuid;

use crate::broker::{Stream, StreamName};
use crate::trace::Broken;

pub(crate) use completion::{EventSource, Expected};
pub(crate) use reference::{Leaf, Reference};

/// Everything that is held against the streams.
pub(crate) struct Invariants {
    /// The journal as read so far.
    pub(crate) reference: Reference,
    /// What the load has put in.
    pub(crate) expected: Expected,
    verifier: Verifier,
    audited: u64,
    audited_sequence: u64,
    /// Root of the audit log by size, after each of its messages.
    roots: BTreeMap<u64, fermata_audit::Hash>,
    tree: Tree,
    signed: u64,
    /// Entries that subscribers were sent.
    pub(crate) fed: BTreeSet<u64>,
    started: BTreeSet<(RunId, Arc<str>, u32)>,
    commits: BTreeMap<(RunId, Arc<str>), u32>,
    /// What owners could not decide.
    blamed: BTreeSet<Undecidable>,
    /// Comparisons of a live state with the fold.
    pub(crate) folds_compared: u64,
    /// What the journal lost, where that was accepted.
    lost: Option<loss::Lost>,
}

impl Invariants {
    pub(crate) fn new(
        fold: JournalFold,
        plans: &[(Digest, Arc<Executable>)],
        verifier: Verifier,
    ) -> Self {
        Self {
            reference: Reference::new(fold, plans),
            expected: Expected::default(),
            verifier,
            audited: 0,
            audited_sequence: 0,
            roots: BTreeMap::new(),
            tree: Tree::new(),
            signed: 0,
            fed: BTreeSet::new(),
            started: BTreeSet::new(),
            commits: BTreeMap::new(),
            blamed: BTreeSet::new(),
            folds_compared: 0,
            lost: None,
        }
    }

    /// Looks at a message that was just stored.
    pub(crate) fn on_stored(
        &mut self,
        name: StreamName,
        message: &Message,
        commands: &Stream,
    ) -> Result<(), Broken> {
        match name {
            StreamName::Commands => Ok(()),
            StreamName::Journal => self.on_journal(message, commands),
            StreamName::Audit => self.invariant_leaves_are_records(message),
            StreamName::Checkpoints => self.invariant_checkpoints_are_true(message),
        }
    }

    fn on_journal(&mut self, message: &Message, commands: &Stream) -> Result<(), Broken> {
        let undecodable = |error| Broken::new("journal_is_readable", format!("{error:?}"));
        let decoded = decode(message).map_err(undecodable)?;
        if let Decoded::Frame(frame, records) = &decoded {
            let mut headers = records.iter().map(|(header, _)| header);
            let accepts = headers.any(|header| header.kind == Kind::TruncationAccepted);
            self.reference.invariant_epochs_never_fall(message.sequence, &frame.head, accepts)?;
            invariant_positions_are_those_of_the_stream(frame.head.position, commands)?;
            for (header, record) in records {
                self.reference.take(message.sequence, header, record)?;
            }
            for sealed in &frame.records {
                self.reference.push_leaf(sealed, message.sequence);
            }
        }
        self.reference.invariant_journal_folds(message.sequence, &decoded)
    }

    /// Each audit entry is the one derived from the journal, in order, 1:1.
    fn invariant_leaves_are_records(&mut self, message: &Message) -> Result<(), Broken> {
        let broken = |detail: String| Broken::new("invariant_leaves_are_records", detail);
        if message.writer.is_none() {
            return Ok(());
        }
        let frame =
            AuditFrame::decode(&message.payload).map_err(|error| broken(error.to_string()))?;
        for entry in &frame.entries {
            if entry.index != self.audited {
                let (found, next) = (entry.index, self.audited);
                return Err(broken(format!("entry {found} stands where {next} is next")));
            }
            let leaf = self.reference.leaf(entry.index);
            let same = leaf.is_some_and(|leaf| {
                *leaf.header == *entry.header
                    && leaf.commitment == *entry.commitment
                    && leaf.hash.as_bytes() == entry.leaf
            });
            if !same {
                return Err(broken(format!("entry {} is not its record's", entry.index)));
            }
            if let Some(leaf) = leaf {
                self.tree.push(leaf.hash);
            }
            self.audited += 1;
        }
        if frame.journal_sequence < self.audited_sequence {
            return Err(broken("journal sequences of entries fall".to_owned()));
        }
        self.audited_sequence = frame.journal_sequence;
        self.roots.insert(self.audited, self.tree.root());
        Ok(())
    }

    /// Subscribers are sent stored entries as they are stored, each to its tenant.
    pub(crate) fn invariant_the_feed_tells_what_is_stored(
        &mut self,
        tenant: &Option<Tenant>,
        frame: &[u8],
    ) -> Result<(), Broken> {
        let broken =
            |detail: String| Err(Broken::new("invariant_the_feed_tells_what_is_stored", detail));
        let frame = match AuditFrame::decode(frame) {
            Ok(frame) => frame,
            Err(error) => return broken(error.to_string()),
        };
        for entry in &frame.entries {
            let index = entry.index;
            let leaf = self.reference.leaf(index).filter(|_| index < self.audited);
            if leaf.is_none_or(|leaf| leaf.hash.as_bytes() != entry.leaf) {
                return broken(format!("entry {index} is sent and not stored like that"));
            }
            let header = fermata_wire::envelope::read::<Header>("record header", entry.header);
            if header.is_ok_and(|header| header.tenant != *tenant) {
                return broken(format!("entry {index} is sent to {tenant:?}"));
            }
            self.fed.insert(index);
        }
        Ok(())
    }

    /// A checkpoint is signed, covers what is stored, has its root, and never
    /// covers less than the one before it.
    fn invariant_checkpoints_are_true(&mut self, message: &Message) -> Result<(), Broken> {
        let broken = |detail: String| Broken::new("invariant_checkpoints_are_true", detail);
        let checkpoint = Checkpoint::open(&message.payload, std::slice::from_ref(&self.verifier))
            .map_err(|error| broken(error.to_string()))?;
        let size = checkpoint.size();
        if self.roots.get(&size) != Some(&checkpoint.root()) {
            return Err(broken(format!("the log never had the root signed for size {size}")));
        }
        if size < self.signed {
            return Err(broken(format!("size {size} follows size {}", self.signed)));
        }
        self.signed = size;
        Ok(())
    }

    /// What an owner takes for committed is what the journal holds there.
    pub(crate) fn invariant_committed_is_stored(
        sequence: u64,
        frame: Option<&Bytes>,
        journal: &Stream,
    ) -> Result<(), Broken> {
        let stored = journal.ever(sequence);
        let same = stored.is_some_and(|stored| match frame {
            Some(frame) => stored.writer.is_some() && stored.payload == *frame,
            None => stored.writer.is_none(),
        });
        if same {
            return Ok(());
        }
        let detail = format!("an owner takes journal message {sequence} for one that it is not");
        Err(Broken::new("invariant_committed_is_stored", detail))
    }

    /// An attempt starts once, after the record that orders it is durable.
    pub(crate) fn invariant_intent_is_durable(&mut self, attempt: &Attempt) -> Result<(), Broken> {
        let name = (attempt.run, attempt.node.clone(), attempt.attempt);
        let broken = |what: &str| {
            let detail = format!("attempt {} of {} {what}", attempt.attempt, attempt.key());
            Err(Broken::new("invariant_intent_is_durable", detail))
        };
        if self.reference.dispatched(&name).is_none() {
            return broken("starts and no durable record orders it");
        }
        match self.started.insert(name) {
            true => Ok(()),
            false => broken("starts twice"),
        }
    }

    /// A worker of a queue makes no attempt that no durable record orders; it may
    /// be given one again. What a lost record ordered waits in its queue still.
    pub(crate) fn invariant_a_task_was_ordered(&mut self, attempt: &Attempt) -> Result<(), Broken> {
        let name = (attempt.run, attempt.node.clone(), attempt.attempt);
        if self.reference.dispatched(&name).is_none() && !self.was_lost(attempt) {
            let detail = format!("attempt {} of {}", attempt.attempt, attempt.key());
            return Err(Broken::new("invariant_a_task_was_ordered", detail));
        }
        self.started.insert(name);
        Ok(())
    }

    /// An attempt is released within the lease, or after one more append than
    /// the one that orders it was acknowledged, up to `committed`.
    pub(crate) fn invariant_effects_are_released_within_the_lease(
        &self,
        attempt: &Attempt,
        within_lease: bool,
        committed: u64,
    ) -> Result<(), Broken> {
        let name = (attempt.run, attempt.node.clone(), attempt.attempt);
        let ordered = self.reference.dispatched(&name).unwrap_or(u64::MAX);
        if within_lease || ordered < committed {
            return Ok(());
        }
        let (key, number) = (attempt.key(), attempt.attempt);
        let detail = format!("attempt {number} of {key} after the lease, at message {committed}");
        Err(Broken::new("invariant_effects_are_released_within_the_lease", detail))
    }

    /// A receiver commits each effect once, however often it is attempted.
    pub(crate) fn invariant_one_commit_per_effect(
        &mut self,
        attempt: &Attempt,
    ) -> Result<(), Broken> {
        let repeated = self.may_be_repeated(attempt.run, &attempt.node);
        let commits = self.commits.entry((attempt.run, attempt.node.clone())).or_default();
        *commits += 1;
        if *commits == 1 || repeated {
            return Ok(());
        }
        let detail = format!("{}/{} was committed {commits} times", attempt.run, attempt.node);
        Err(Broken::new("invariant_one_commit_per_effect", detail))
    }

    /// The live state of a quiet owner is the fold of the journal.
    pub(crate) fn invariant_live_state_is_the_fold(
        &mut self,
        live: &Partition,
    ) -> Result<(), Broken> {
        self.folds_compared += 1;
        let folded = self.reference.summary_at(live.time());
        let live = live.summary();
        if folded == live {
            return Ok(());
        }
        let detail = format!("\n  live   {live}\n  folded {folded}");
        Err(Broken::new("invariant_live_state_is_the_fold", detail))
    }

    /// A snapshot is what the journal folds to at its end: read and folded on, it
    /// must come to the same. That of the newest message is held against it here;
    /// what follows, by `invariant_a_snapshot_and_its_tail_are_the_fold`.
    pub(crate) fn invariant_a_snapshot_is_the_fold(
        &self,
        frozen: &FrozenFold,
    ) -> Result<(), Broken> {
        let fold = self.reference.fold();
        if frozen.sequence() != fold.last_sequence() || frozen.state() == fold.freeze().state() {
            return Ok(());
        }
        let (taken, folded) = (frozen.state(), fold.freeze().state());
        let detail = format!("\n  taken  {taken:?}\n  folded {folded:?}");
        Err(Broken::new("invariant_a_snapshot_is_the_fold", detail))
    }

    /// How often the effect of `node` was committed.
    pub(crate) fn commits(&self, run: RunId, node: &Arc<str>) -> u32 {
        self.commits.get(&(run, node.clone())).copied().unwrap_or(0)
    }

    /// Attempts that started.
    pub(crate) fn attempts_started(&self) -> u64 {
        self.started.len() as u64
    }

    pub(crate) fn audited(&self) -> u64 {
        self.audited
    }

    pub(crate) fn signed(&self) -> u64 {
        self.signed
    }
}

/// A position recorded in the journal is that of a stored message of COMMANDS.
fn invariant_positions_are_those_of_the_stream(
    position: StreamPosition,
    commands: &Stream,
) -> Result<(), Broken> {
    let stored = commands.ever(position.sequence).map_or(0, |message| message.broker_time_ns);
    if stored == position.broker_time_ns && position.sequence <= commands.last() {
        return Ok(());
    }
    let detail = format!("{position:?} is no position of COMMANDS");
    Err(Broken::new("invariant_positions_are_those_of_the_stream", detail))
}

/// Whether a record of this kind changes its run.
pub(crate) fn changes_run(header: &Header) -> bool {
    use Kind as K;
    header.kind.ends_run()
        || [
            K::RunStarted,
            K::NodeDispatched,
            K::NodeSucceeded,
            K::NodeRetrying,
            K::NodeFailed,
            K::NodeSkipped,
            K::NodeUnknown,
            K::RunClosing,
            K::NodeDelayed,
            K::NodeAccepted,
            K::NodeWaiting,
        ]
        .contains(&header.kind)
}

/// Ids that a command carries, seen once each.
pub(crate) fn insert_once(
    seen: &mut BTreeSet<Uuid>,
    id: Uuid,
    what: &'static str,
) -> Result<(), Broken> {
    match seen.insert(id) {
        true => Ok(()),
        false => {
            Err(Broken::new("invariant_each_command_is_decided_once", format!("{what} {id} twice")))
        }
    }
}
