//! A journal that lost its end goes on behind what somebody accepted, and behind
//! nothing else; its audit log goes on with it.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]
#![expect(clippy::wildcard_enum_match_arm, reason = "outputs that a test does not look at")]

use bytes::Bytes;
use fermata_audit::{Checkpoint, Hash, Signer, Subtrees, commitment, leaf_hash, root_of};
use fermata_core::digest::Digest;
use fermata_core::identity::{JournalTime, PartitionId, StreamPosition};
use fermata_core::partition::{Decision, Limits, Partition};
use fermata_core::record::{ForeignSkipped, PartitionOwned, Record, TruncationAccepted};
use fermata_core::relay::Relayed;
use fermata_partition::auditor::{AuditHalt, Auditor, AuditorConfig, Input, Output};
use fermata_partition::fold::{FoldError, JournalFold, decode};
use fermata_partition::message::{AppendOutcome, Message, Now};
use fermata_partition::truncation::{Acceptance, JournalEnd, NotAcceptable};
use fermata_wire::audit::AuditFrame;
use fermata_wire::journal::{FrameBuilder, FrameHead, JournalFrame};
use proptest::prelude::*;
use uuid::Uuid;

const ORIGIN: &str = "engine/0";
const POSITION: StreamPosition = StreamPosition { sequence: 7, broker_time_ns: 70 };

fn signer() -> Signer {
    Signer::from_seed("engine", [3; 32]).expect("a key")
}

fn incarnation(epoch: u64) -> Uuid {
    Uuid::from_u128(0x00c0_ffee << 64 | u128::from(epoch))
}

fn owned(epoch: u64) -> Record {
    let owned = PartitionOwned { epoch, worker: "w".into(), incarnation: incarnation(epoch) };
    Record::of_partition(owned.into())
}

fn head(epoch: u64, number: u64) -> FrameHead {
    let time = JournalTime(1_000 * epoch + number);
    FrameHead { epoch, incarnation: incarnation(epoch), number, time, position: POSITION, floor: 3 }
}

fn encode(head: &FrameHead, first: u64, records: &[Record]) -> Bytes {
    let mut builder = FrameBuilder::default();
    for (record, index) in records.iter().zip(first..) {
        builder.push(record, index, head.time, [4; 16]).expect("a record");
    }
    builder.finish(head, first).expect("a frame").into()
}

fn message(sequence: u64, payload: Bytes) -> Message {
    Message { sequence, broker_time_ns: 0, writer: Some("w".to_owned()), payload }
}

/// The journal of one owner: its takeover, then frames of so many records each.
fn journal(frames: &[usize]) -> Vec<Message> {
    let mut messages = vec![message(1, encode(&head(1, 0), 0, &[owned(1)]))];
    let mut next = 1;
    for (records, number) in frames.iter().zip(1..) {
        let skipped = Record::of_partition(ForeignSkipped { sequence: number }.into());
        let payload = encode(&head(1, number), next, &vec![skipped; *records]);
        messages.push(message(number + 1, payload));
        next += *records as u64;
    }
    messages
}

fn leaves(journal: &[Message]) -> Vec<Hash> {
    let of = |message: &Message| {
        let frame = JournalFrame::decode(&message.payload).expect("a frame");
        let leaf = |record: &fermata_wire::journal::SealedRecord<'_>| {
            leaf_hash(record.header, &commitment(record.salt, record.payload))
        };
        frame.records.iter().map(leaf).collect::<Vec<_>>()
    };
    journal.iter().flat_map(of).collect()
}

fn end_of(journal: &[Message]) -> JournalEnd {
    JournalEnd::of(&JournalFrame::decode(&journal.last().unwrap().payload).expect("a frame"))
}

fn accepted(leaves: &[Hash], from: u64, signed: u64, next: u64) -> TruncationAccepted {
    let over = |from: u64, to: u64| {
        let mut subtrees = Subtrees::over(from, to);
        leaves[from as usize..to as usize].iter().for_each(|leaf| subtrees.push(*leaf));
        subtrees.finish().expect("all leaves")
    };
    let checkpoint = Checkpoint::new(ORIGIN, signed, root_of(&leaves[..signed as usize]), 9);
    let subtrees = [over(from, signed), over(signed, next)].concat();
    TruncationAccepted {
        from,
        signed,
        next,
        checkpoint: checkpoint.expect("a checkpoint").sign(&signer()),
        subtrees: subtrees.into_iter().map(|hash| Digest(hash.0)).collect(),
        by: "ada".to_owned(),
        reason: "a power cut".to_owned(),
    }
}

fn acceptance(accepted: TruncationAccepted) -> Acceptance {
    let incarnation = Uuid::from_u128(0xacce);
    Acceptance { accepted, time: JournalTime(5_000), incarnation, salt: [6; 16] }
}

/// A journal that lost records, and what was signed and published of it.
#[derive(Debug, Clone)]
struct Cut {
    frames: Vec<usize>,
    left: Vec<Message>,
    leaves: Vec<Hash>,
    signed: u64,
}

impl Cut {
    /// Keeps `kept` messages of the journal; all records but the last `unsigned` were signed.
    fn new(frames: &[usize], kept: usize, unsigned: u64) -> Self {
        let mut left = journal(frames);
        let leaves = leaves(&left);
        left.truncate(kept);
        let from = end_of(&left).records;
        let signed = (leaves.len() as u64).saturating_sub(unsigned).max(from + 1);
        Self { frames: frames.to_vec(), left, leaves, signed }
    }

    fn from(&self) -> u64 {
        end_of(&self.left).records
    }

    fn next(&self) -> u64 {
        self.leaves.len() as u64
    }

    fn accepted(&self) -> TruncationAccepted {
        accepted(&self.leaves, self.from(), self.signed, self.next())
    }

    /// What is left, what accepts the loss, and the takeover behind it.
    fn accepting(&self, accepted: TruncationAccepted) -> Vec<Message> {
        let next = accepted.next;
        let mut journal = self.left.clone();
        let frame = acceptance(accepted).frame(&end_of(&journal)).expect("acceptable");
        let sequence = journal.len() as u64 + 1;
        journal.push(message(sequence, frame.payload));
        let taken = FrameHead { time: JournalTime(6_000), ..head(2, 0) };
        journal.push(message(sequence + 1, encode(&taken, next + 1, &[owned(2)])));
        journal
    }
}

fn cut() -> impl Strategy<Value = Cut> {
    prop::collection::vec(1_usize..9, 1..20)
        .prop_flat_map(|frames| (1..=frames.len(), Just(frames), 0_u64..12))
        .prop_map(|(kept, frames, unsigned)| Cut::new(&frames, kept, unsigned))
}

fn folded(journal: &[Message]) -> Result<JournalFold, FoldError> {
    let mut fold = JournalFold::new(PartitionId(0), Limits::default());
    for message in journal {
        fold.fold(message.sequence, &decode(message)?)?;
    }
    Ok(fold)
}

fn is_disordered(journal: &[Message]) -> bool {
    matches!(folded(journal), Err(FoldError::Disordered { .. }))
}

/// Derives the journal, with the log of entries `stored`, to where it signs; the entries
/// that were appended, and the checkpoint.
fn audited(
    journal: &[Message],
    stored: &[Bytes],
    checkpoint: Option<Checkpoint>,
) -> Result<(Vec<u64>, Checkpoint), AuditHalt> {
    let mut auditor = Auditor::new(AuditorConfig {
        origin: ORIGIN.to_owned(),
        signer: signer(),
        writer: "w".to_owned(),
        checkpoint,
        backlog_bytes_max: usize::MAX,
        behind: None,
    });
    let now = Now { wall_ms: 0, monotonic_ms: 10_000 };
    let (mut outputs, mut appended) = (Vec::new(), Vec::new());
    for message in journal {
        let (sequence, frame) = (message.sequence, Some(message.payload.clone()));
        auditor.handle(Input::Journal { sequence, frame }, now, &mut outputs);
    }
    auditor.handle(Input::Live, now, &mut outputs);
    while !outputs.is_empty() {
        match outputs.remove(0) {
            Output::ReadStored { .. } => {
                for (payload, sequence) in stored.iter().zip(1..) {
                    let stored = message(sequence, payload.clone());
                    auditor.handle(Input::Stored(stored), now, &mut outputs);
                }
                let read_to = stored.len() as u64;
                let end = Input::StoredEnd { read_to, last_sequence: read_to };
                auditor.handle(end, now, &mut outputs);
            }
            Output::Append(send) => {
                let sequence = send.expected_last_sequence + 1;
                let frame = AuditFrame::decode(&send.payload).expect("a frame");
                appended.extend(frame.entries.iter().map(|entry| entry.index));
                let outcome = AppendOutcome::Stored { sequence };
                auditor.handle(Input::Appended(outcome), now, &mut outputs);
            }
            Output::Checkpoint { note, .. } => {
                let checkpoint = Checkpoint::open(note.as_bytes(), &[signer().verifier()]);
                return Ok((appended, checkpoint.expect("a checkpoint")));
            }
            Output::Halt(reason) => return Err(reason),
            Output::Feed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    panic!("nothing was signed")
}

/// The log of entries of a journal, one message for each of the journal's.
fn audit_log(journal: &[Message]) -> Vec<Bytes> {
    let entries = |message: &Message| {
        let frame = JournalFrame::decode(&message.payload).expect("a frame");
        let parts = frame.records.iter().map(|record| {
            let commitment = commitment(record.salt, record.payload);
            (record.header, commitment, leaf_hash(record.header, &commitment))
        });
        let parts = parts.collect::<Vec<_>>();
        let entries = (frame.first_record_index..).zip(&parts);
        let entries = entries.map(|(index, (header, commitment, leaf))| {
            fermata_wire::audit::Entry { index, header, commitment, leaf: leaf.as_bytes() }
        });
        let frame = AuditFrame { journal_sequence: message.sequence, entries: entries.collect() };
        Bytes::from(frame.encode().expect("a frame"))
    };
    journal.iter().map(entries).collect()
}

fn checkpoint_of(leaves: &[Hash], signed: u64) -> Checkpoint {
    Checkpoint::new(ORIGIN, signed, root_of(&leaves[..signed as usize]), 9).expect("a checkpoint")
}

/// No file of past failures: their inputs become tests of their own.
fn without_files() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(without_files())]

    #[test]
    fn a_journal_folds_behind_the_loss_that_was_accepted_and_uses_no_index_again(cut in cut()) {
        let before = folded(&cut.left).expect("what is left folds");

        let after = folded(&cut.accepting(cut.accepted())).expect("it folds");

        prop_assert_eq!(before.next_index(), cut.from());
        prop_assert_eq!(after.next_index(), cut.next() + 2);
        prop_assert_eq!(after.partition().position(), before.partition().position());
        // What the lost records may have sent to other partitions is not sent over, those that the
        // audit log had not come to included.
        let left_out = after.partition().outbox().last() - before.partition().outbox().last();
        prop_assert!(left_out > u64::from(u32::MAX), "{left_out}");
    }

    /// Whatever else jumps halts: another beginning, another end, beside other records,
    /// in another epoch, or nothing that says so at all.
    #[test]
    fn nothing_but_the_accepted_jump_folds(cut in cut(), by in 1_u64..4, what in 0_usize..7) {
        let accepted = cut.accepted();
        let end = end_of(&cut.left);
        let jump = FrameHead { incarnation: Uuid::from_u128(0xacce), number: 0, time: JournalTime(5_000), ..end.head };
        let record = |accepted: TruncationAccepted| Record::of_partition(accepted.into());
        let skipped = Record::of_partition(ForeignSkipped { sequence: 1 }.into());
        let next = cut.next();
        let payload = match what {
            0 => encode(&jump, next, &[record(TruncationAccepted { from: accepted.from + by, ..accepted })]),
            1 => encode(&jump, next + by, &[record(accepted)]),
            2 => encode(&jump, next, &[record(accepted), skipped]),
            3 => encode(&jump, next, &[skipped, record(accepted)]),
            4 => encode(&FrameHead { epoch: jump.epoch + by, ..jump }, next, &[record(accepted)]),
            5 => encode(&head(1, end.head.number + 1), next, &[skipped]),
            // A loss of nothing.
            _ => encode(&jump, accepted.from, &[record(TruncationAccepted { next: accepted.from, signed: accepted.from, ..accepted })]),
        };
        let mut journal = cut.left.clone();
        journal.push(message(journal.len() as u64 + 1, payload));

        prop_assert!(is_disordered(&journal));
    }

    /// Who accepted wrote one frame and owns nothing; nor does the owner before it go on.
    #[test]
    fn behind_an_acceptance_only_a_takeover_folds(cut in cut()) {
        let mut journal = cut.accepting(cut.accepted());
        journal.pop();
        let end = end_of(&cut.left);
        let skipped = Record::of_partition(ForeignSkipped { sequence: 1 }.into());
        let of_old_owner = FrameHead { number: end.head.number + 1, time: JournalTime(9_000), ..end.head };
        let payload = encode(&of_old_owner, cut.next() + 1, &[skipped]);
        journal.push(message(journal.len() as u64 + 1, payload));

        prop_assert!(is_disordered(&journal));
    }

    #[test]
    fn an_audit_log_goes_on_behind_the_entries_that_it_holds(cut in cut(), later: bool) {
        let journal = cut.accepting(cut.accepted());
        let stored = audit_log(&self::journal(&cut.frames));
        let newest = checkpoint_of(&cut.leaves, if later { cut.next() } else { cut.signed });

        let (appended, signed) = audited(&journal, &stored, Some(newest)).expect("it goes on");

        prop_assert_eq!(appended, vec![cut.next(), cut.next() + 1]);
        let all = [cut.leaves.clone(), leaves(&journal[cut.left.len()..])].concat();
        prop_assert_eq!((signed.size(), signed.root()), (all.len() as u64, root_of(&all)));
        // And once more, with the checkpoint that covers the acceptance.
        let mut stored = stored;
        stored.extend(audit_log(&journal[cut.left.len()..]));
        let further = FrameHead { number: 1, time: JournalTime(7_000), ..head(2, 0) };
        let skipped = Record::of_partition(ForeignSkipped { sequence: 1 }.into());
        let mut journal = journal;
        journal.push(message(journal.len() as u64 + 1, encode(&further, cut.next() + 2, &[skipped])));
        let (appended, signed) = audited(&journal, &stored, Some(signed)).expect("it goes on");
        prop_assert_eq!((appended, signed.size()), (vec![cut.next() + 2], cut.next() + 3));
    }

    #[test]
    fn an_acceptance_of_other_leaves_halts_the_log(
        cut in cut(),
        at: prop::sample::Index,
        bit: u8,
    ) {
        let mut forged = cut.leaves.clone();
        let from = cut.from() as usize;
        forged[from + at.index(cut.signed as usize - from)].0[usize::from(bit / 8)] ^= 1 << (bit % 8);
        let mut accepted = accepted(&forged, cut.from(), cut.signed, cut.next());
        accepted.checkpoint = cut.accepted().checkpoint;
        let newest = checkpoint_of(&cut.leaves, cut.signed);

        let halted = audited(&cut.accepting(accepted), &[], Some(newest));

        prop_assert!(matches!(halted, Err(AuditHalt::LossUnproved { .. })), "{:?}", halted);
    }

    #[test]
    fn what_was_published_of_lost_records_must_still_be_stored(cut in cut()) {
        let stored = audit_log(&self::journal(&cut.frames));
        let newest = checkpoint_of(&cut.leaves, cut.signed);
        let short = &stored[..stored.len() - 1];

        let halted = audited(&cut.accepting(cut.accepted()), short, Some(newest));

        prop_assert!(matches!(halted, Err(AuditHalt::BehindCheckpoint { .. })), "{:?}", halted);
    }
}

/// What the lost records sent is taken already; what is sent behind them is none of it.
#[test]
fn a_sender_that_lost_the_end_of_its_journal_is_heard_behind_what_it_left_out() {
    let mut target = Partition::new(PartitionId(0), Limits::default());
    let mut take = |index, previous, sequence| {
        let relayed = Relayed { source: PartitionId(1), index, previous, command: None };
        target.decide_relayed(&relayed, (sequence, 0), &mut Decision::default());
        target.high_waters().of(PartitionId(1))
    };

    assert_eq!([take(4, 0, 1), take(6, 4, 2)], [4, 6]);
    // The record that queued 6 is lost: the sender goes on from 4, far enough behind it.
    assert_eq!([take(20, 4, 3), take(6, 4, 4), take(21, 20, 5)], [20, 20, 21]);
    // What is ahead of all that was taken stays ahead.
    assert_eq!(take(30, 25, 6), 21);
}

#[test]
fn nothing_is_accepted_where_nothing_is_lost_or_elsewhere_than_at_the_end() {
    let cut = Cut::new(&[3, 3, 3], 2, 0);
    let refused = |accepted: TruncationAccepted| acceptance(accepted).frame(&end_of(&cut.left));

    let whole = TruncationAccepted { signed: 4, next: 4, ..cut.accepted() };
    assert!(matches!(refused(whole), Err(NotAcceptable::NothingLost { found: 4, signed: 4 })));
    let elsewhere = TruncationAccepted { from: 5, ..cut.accepted() };
    assert!(matches!(refused(elsewhere), Err(NotAcceptable::Elsewhere { found: 4, from: 5 })));
    assert!(refused(cut.accepted()).is_ok());
}

#[test]
fn a_loss_that_was_accepted_without_knowing_the_newest_checkpoint_halts_the_log() {
    let cut = Cut::new(&[3, 3, 3], 2, 3);
    let newest = checkpoint_of(&cut.leaves, cut.signed + 1);

    let halted = audited(&cut.accepting(cut.accepted()), &[], Some(newest));

    let expected = AuditHalt::LossBehindCheckpoint { signed: 8, accepted: 7 };
    assert_eq!(halted.err(), Some(expected));
}
