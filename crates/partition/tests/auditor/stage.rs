//! A journal, an audit log in memory, and one auditor after the other.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use fermata_audit::{Checkpoint, Hash, Signer, commitment, leaf_hash, root_of};
use fermata_core::identity::{JournalTime, StreamPosition, Tenant};
use fermata_core::record::{Body, EndReason, Header, Record, RunClosing};
use fermata_partition::append::{ReadAnswer, Send};
use fermata_partition::auditor::{Auditor, AuditorConfig, Input, Output, StoredFrom};
use fermata_partition::message::{AppendOutcome, Message, Now};
use fermata_wire::audit::AuditFrame;
use fermata_wire::envelope::read;
use fermata_wire::journal::{FrameBuilder, FrameHead, JournalFrame};
use uuid::Uuid;

/// Bytes of a name that makes the entries of a message too many for one append.
const LARGE_BYTES: usize = 60_000;

const TENANTS: [Option<&str>; 3] = [None, Some("acme"), Some("globex")];

/// What happens next.
#[derive(Debug, Clone)]
pub enum Step {
    /// So many messages of the journal are told, or that the replay is over.
    Tell(usize),
    /// The oldest thing that was asked for happens.
    Answer(Fate),
    /// So many milliseconds pass.
    Pass(u64),
    /// Somebody who is none of ours writes to the audit log.
    Foreign,
    /// An append of an auditor that has ended arrives.
    Late,
    /// The auditor ends; the next one's replay sees so many messages more.
    Crash { further: usize },
}

/// What becomes of an append; everything else that was asked for just happens.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    Stored,
    AcknowledgementLost,
    Lost,
    Refused,
    ConflictReported,
}

/// A journal of `messages`; the records of message `large` have long headers.
pub fn journal(messages: &[Option<Vec<u8>>], large: Option<usize>) -> Vec<Message> {
    let mut index = 0;
    let frame = |(number, tenants): (usize, &Option<Vec<u8>>)| {
        let sequence = number as u64 + 1;
        let payload = match tenants {
            Some(tenants) => frame(sequence, tenants, &mut index, large == Some(number)),
            None => Bytes::from_static(b"nobody's"),
        };
        let writer = tenants.is_some().then(|| "owner".to_owned());
        Message { sequence, broker_time_ns: 0, writer, payload }
    };
    messages.iter().enumerate().map(frame).collect()
}

fn frame(number: u64, tenants: &[u8], index: &mut u64, large: bool) -> Bytes {
    let time = JournalTime(1_000);
    let first = *index;
    let mut builder = FrameBuilder::default();
    for tenant in tenants {
        let body = Body::from(RunClosing { reason: EndReason::TimedOut });
        let tenant = TENANTS[usize::from(*tenant)].map(|name| name.parse().expect("a tenant"));
        let node = large.then(|| "x".repeat(LARGE_BYTES).into());
        let record = Record { tenant, node, ..Record::of_partition(body) };
        builder.push(&record, *index, time, [2; 16]).expect("a record");
        *index += 1;
    }
    let (incarnation, position) = (Uuid::nil(), StreamPosition::default());
    let head = FrameHead { epoch: 1, incarnation, number, time, position, floor: 0 };
    builder.finish(&head, first).expect("a frame").into()
}

/// An entry as it must come out.
#[derive(Debug, Clone, PartialEq)]
struct Expected {
    header: Vec<u8>,
    commitment: [u8; 32],
    leaf: Hash,
    sequence: u64,
}

pub struct Stage {
    journal: Vec<Message>,
    expected: Vec<Expected>,
    audit: Vec<Message>,
    checkpoint: Option<Checkpoint>,
    sent: BTreeSet<u64>,
    backlog_bytes_max: usize,
    auditor: Auditor,
    auditors: u64,
    now_ms: u64,
    /// Messages told to this auditor, and after how many its replay is over.
    told: usize,
    replay: usize,
    is_over: bool,
    asked: VecDeque<Output>,
    late: Vec<Send>,
}

impl Stage {
    pub fn new(journal: Vec<Message>, backlog_bytes_max: usize) -> Self {
        let expected = journal.iter().flat_map(expected).collect();
        Self {
            expected,
            audit: Vec::new(),
            checkpoint: None,
            sent: BTreeSet::new(),
            backlog_bytes_max,
            auditor: auditor(0, None, backlog_bytes_max),
            auditors: 1,
            now_ms: 1_000,
            told: 0,
            replay: 0,
            is_over: false,
            asked: VecDeque::new(),
            late: Vec::new(),
            journal,
        }
    }

    pub fn holds_back_from(&self) -> Option<u64> {
        self.auditor.holds_back_from()
    }

    pub fn stored(&self) -> usize {
        let ours = self.audit.iter().filter(|message| message.writer.is_some());
        ours.map(|message| frame_of(&message.payload).entries.len()).sum()
    }

    pub fn sent(&self) -> usize {
        self.sent.len()
    }

    /// How many entries the newest checkpoint covers.
    pub fn signed(&self) -> usize {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size() as usize)
    }

    /// Whether an append is under way.
    pub fn appends(&self) -> bool {
        let is_append =
            |asked: &Output| matches!(asked, Output::Append(_) | Output::AppendLater(_));
        self.asked.iter().any(is_append)
    }

    pub fn go(&mut self, step: Step) {
        match step {
            Step::Tell(count) => (0..count).for_each(|_| self.tell()),
            Step::Answer(fate) => self.answer(fate),
            Step::Pass(ms) => {
                self.now_ms += ms;
                self.handle(Input::Tick);
            }
            Step::Foreign => {
                self.store(None, Bytes::from_static(b"nobody's"));
            }
            Step::Late => {
                if let Some(send) = self.late.pop() {
                    self.publish(&send);
                }
            }
            Step::Crash { further } => self.crash(further),
        }
    }

    /// Lets everything come to its end.
    pub fn finish(&mut self) {
        for _ in 0..100_000 {
            if self.told == self.journal.len() && self.auditor.is_quiet() {
                return;
            }
            self.tell();
            self.answer(Fate::Stored);
            self.go(Step::Pass(10));
        }
        panic!("{:?} never comes to rest", self.auditor);
    }

    pub fn assert_the_log_is_that_of_the_journal(&self) {
        let ours = self.audit.iter().filter(|message| message.writer.is_some());
        let mut stored = Vec::new();
        for message in ours {
            let frame = frame_of(&message.payload);
            for entry in &frame.entries {
                assert_eq!(entry.index, stored.len() as u64);
                stored.push((entry.header.to_vec(), *entry.commitment, Hash(*entry.leaf)));
            }
            let last = stored.len().checked_sub(1).map(|last| self.expected[last].sequence);
            assert_eq!(Some(frame.journal_sequence), last);
        }
        let expected = self.expected.iter();
        let expected: Vec<_> =
            expected.map(|entry| (entry.header.clone(), entry.commitment, entry.leaf)).collect();
        assert!(stored == expected, "{} stored, {} expected", stored.len(), expected.len());
        assert_eq!(self.sent.len(), expected.len(), "everything was sent");
        assert_eq!(self.signed(), expected.len());
    }

    fn crash(&mut self, further: usize) {
        let asked = std::mem::take(&mut self.asked);
        self.late.extend(asked.into_iter().filter_map(|output| match output {
            Output::Append(send) | Output::AppendLater(send) => Some(send),
            _ => None,
        }));
        self.auditor = auditor(self.auditors, self.checkpoint.clone(), self.backlog_bytes_max);
        self.auditors += 1;
        // Whoever takes over has read everything that was committed before.
        self.replay = self.replay.max(self.told).saturating_add(further).min(self.journal.len());
        (self.told, self.is_over) = (0, false);
    }

    fn tell(&mut self) {
        if self.told == self.replay && !self.is_over {
            self.is_over = true;
            return self.handle(Input::Live);
        }
        let Some(message) = self.journal.get(self.told) else { return };
        let frame = message.writer.is_some().then(|| message.payload.clone());
        let sequence = message.sequence;
        self.told += 1;
        self.handle(Input::Journal { sequence, frame });
    }

    fn handle(&mut self, input: Input) {
        let now = Now { wall_ms: self.now_ms, monotonic_ms: self.now_ms };
        let mut outputs = Vec::new();
        self.auditor.handle(input, now, &mut outputs);
        self.assert_the_backlog_is_bounded();
        for output in outputs {
            match output {
                Output::Feed { tenant, frame } => self.take_feed(tenant.as_ref(), &frame),
                Output::Checkpoint { note, .. } => self.take_checkpoint(&note),
                Output::StandDown { .. } => return self.crash(0),
                Output::Halt(reason) => panic!("{reason}"),
                asked => self.asked.push_back(asked),
            }
        }
    }

    fn assert_the_backlog_is_bounded(&self) {
        let message = self.journal.iter().map(|message| 3 * message.payload.len()).max();
        let most = self.backlog_bytes_max.saturating_add(message.unwrap_or(0));
        assert!(self.auditor.backlog_bytes() <= most, "{}", self.auditor.backlog_bytes());
        let all_stored = self.auditor.size() == self.told_entries();
        let settled = self.auditor.is_live() && self.auditor.holds_back_from().is_none();
        assert!(!settled || all_stored, "the owner goes on before its auditor");
    }

    fn told_entries(&self) -> u64 {
        let told = self.told as u64;
        self.expected.iter().filter(|entry| entry.sequence <= told).count() as u64
    }

    fn answer(&mut self, fate: Fate) {
        let Some(asked) = self.asked.pop_front() else { return };
        match asked {
            Output::Append(send) | Output::AppendLater(send) => {
                let outcome = match fate {
                    Fate::Stored => self.publish(&send),
                    Fate::AcknowledgementLost => {
                        self.publish(&send);
                        AppendOutcome::Unknown
                    }
                    Fate::Lost => {
                        self.late.push(send);
                        AppendOutcome::Unknown
                    }
                    Fate::Refused => AppendOutcome::Refused,
                    Fate::ConflictReported => AppendOutcome::Conflict,
                };
                self.handle(Input::Appended(outcome));
            }
            Output::ReadAudit { sequence, .. } => {
                let last_sequence = self.audit.len() as u64;
                let answer = match self.audit.get(sequence as usize - 1) {
                    Some(message) => ReadAnswer::Found(message.clone()),
                    None => ReadAnswer::Absent { last_sequence },
                };
                self.handle(Input::Read(answer));
            }
            Output::ReadStored { from } => {
                let from = match from {
                    // Any message from the first on to the one that holds it.
                    StoredFrom::Entry(_) => 1,
                    StoredFrom::Sequence(sequence) => sequence,
                };
                let messages = self.audit.get(from as usize - 1..).unwrap_or_default();
                let messages: Vec<_> = messages.iter().take(2).cloned().collect();
                let read_to = messages.last().map_or(from - 1, |message| message.sequence);
                messages.into_iter().for_each(|message| self.handle(Input::Stored(message)));
                let last_sequence = self.audit.len() as u64;
                self.handle(Input::StoredEnd { read_to, last_sequence });
            }
            Output::ReadJournal { from, to } => {
                // A read may see less than it was asked for.
                let to = if to % 3 == 0 { from } else { to };
                let messages = self.journal[from as usize - 1..to as usize].to_vec();
                self.handle(Input::JournalAgain(messages));
            }
            other => panic!("{other:?}"),
        }
    }

    fn publish(&mut self, send: &Send) -> AppendOutcome {
        if send.expected_last_sequence != self.audit.len() as u64 {
            return AppendOutcome::Conflict;
        }
        let sequence = self.store(Some(send.writer.clone()), send.payload.clone());
        AppendOutcome::Stored { sequence }
    }

    fn store(&mut self, writer: Option<String>, payload: Bytes) -> u64 {
        let sequence = self.audit.len() as u64 + 1;
        self.audit.push(Message { sequence, broker_time_ns: 0, writer, payload });
        sequence
    }

    fn take_feed(&mut self, tenant: Option<&Tenant>, frame: &[u8]) {
        let stored = self.stored() as u64;
        for entry in &frame_of(frame).entries {
            assert!(entry.index < stored, "entry {} was sent before it was stored", entry.index);
            let header: Header = read("record header", entry.header).expect("a header");
            assert_eq!(header.tenant.as_ref(), tenant);
            let expected = &self.expected[entry.index as usize];
            assert_eq!((entry.header, Hash(*entry.leaf)), (&*expected.header, expected.leaf));
            self.sent.insert(entry.index);
        }
    }

    fn take_checkpoint(&mut self, note: &str) {
        let checkpoint = Checkpoint::open(note.as_bytes(), &[signer().verifier()]).expect("ours");
        let size = checkpoint.size() as usize;
        assert!(size <= self.stored(), "signed before it was stored");
        let leaves: Vec<_> = self.expected[..size].iter().map(|entry| entry.leaf).collect();
        assert_eq!(checkpoint.root(), root_of(&leaves));
        assert_eq!(checkpoint.journal_sequence(), self.expected[size - 1].sequence);
        let unsent = (0..size as u64).find(|index| !self.sent.contains(index));
        assert_eq!(unsent, None, "signed before it was sent");
        let last = self.checkpoint.as_ref().map_or(0, Checkpoint::size);
        assert!(checkpoint.size() > last, "signed twice");
        self.checkpoint = Some(checkpoint);
    }
}

fn signer() -> Signer {
    Signer::from_seed("test", [1; 32]).expect("a key")
}

fn auditor(number: u64, checkpoint: Option<Checkpoint>, backlog_bytes_max: usize) -> Auditor {
    let (origin, writer) = ("test/0".to_owned(), format!("auditor-{number}"));
    let (signer, behind) = (signer(), None);
    Auditor::new(AuditorConfig { origin, signer, writer, checkpoint, backlog_bytes_max, behind })
}

fn frame_of(payload: &[u8]) -> AuditFrame<'_> {
    AuditFrame::decode(payload).expect("a frame")
}

/// The entries of a journal message, computed without the auditor.
fn expected(message: &Message) -> Vec<Expected> {
    if message.writer.is_none() {
        return Vec::new();
    }
    let frame = JournalFrame::decode(&message.payload).expect("a frame");
    let entry = |record: &fermata_wire::journal::SealedRecord<'_>| {
        let commitment = commitment(record.salt, record.payload);
        let (header, leaf) = (record.header.to_vec(), leaf_hash(record.header, &commitment));
        Expected { header, commitment, leaf, sequence: message.sequence }
    };
    frame.records.iter().map(entry).collect()
}
