//! What the check of a partition came to.

use fermata_audit::Report;
use fermata_core::identity::{JournalTime, PartitionId};
use fermata_core::record::TruncationAccepted;
use fermata_jetstream::StoredMessage;
use fermata_partition::truncation::loss_of;
use fermata_wire::WireError;
use fermata_wire::journal::JournalFrame;
use serde::Serialize;

use super::kept::KeptAudit;
use crate::output::counted;

/// Most messages that cannot be read and are listed; of the rest only the number is kept.
pub const UNREADABLE_MAX: usize = 256;

/// A message of ours that cannot be read, and so holds nothing that could be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The stream.
    pub stream: String,
    /// The message.
    pub sequence: u64,
    /// Why not.
    pub reason: String,
}

/// Messages that cannot be read, as far as they are listed.
#[derive(Debug, Default)]
pub(super) struct UnreadableMessages {
    pub(super) list: Vec<Unreadable>,
    pub(super) omitted: u64,
}

impl UnreadableMessages {
    /// Notes `message` of `stream`.
    pub(super) fn note(&mut self, stream: String, message: &StoredMessage, error: &WireError) {
        let reason = match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        self.list(Unreadable { stream, sequence: message.sequence, reason });
    }

    /// Notes the last message of `stream`, behind which nothing shows that it is not handed out.
    pub(super) fn note_missing(&mut self, stream: String, sequence: u64) {
        let reason = "the stream ends with it, and the broker has it no more or cannot read it";
        self.list(Unreadable { stream, sequence, reason: reason.to_owned() });
    }

    fn list(&mut self, message: Unreadable) {
        if self.list.len() >= UNREADABLE_MAX {
            self.omitted += 1;
            return;
        }
        self.list.push(message);
    }
}

/// What the check of a partition came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionAudit {
    /// The partition.
    pub partition: PartitionId,
    /// What was found.
    pub report: Report,
    /// Messages that cannot be read; at most [`UNREADABLE_MAX`].
    pub unreadable: Vec<Unreadable>,
    /// How many more cannot be read.
    pub unreadable_omitted: u64,
    /// Records that were kept long enough and are removed: their entries were checked, they were not.
    pub removed: u64,
    /// Checkpoints that were kept outside, compared with the log.
    pub kept: Vec<KeptAudit>,
    /// Losses of records that somebody accepted: the entries were checked, the records are gone.
    pub losses: Vec<AcceptedLoss>,
}

/// Records that are lost, and that somebody accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AcceptedLoss {
    /// Index of the first of them.
    pub from: u64,
    /// Index behind the last of them, and that of the record that accepts it.
    pub next: u64,
    /// Entries that were signed then; those from there on were published only.
    pub signed: u64,
    /// Who accepted it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, journal time, milliseconds since 1970.
    pub time_ms: u64,
    /// The message of the journal that says so.
    pub journal_sequence: u64,
}

impl AcceptedLoss {
    /// Reads what the frame in `message` accepts; nothing in most.
    ///
    /// # Errors
    ///
    /// When it is ours and cannot be read.
    pub fn of(message: &StoredMessage) -> Result<Option<Self>, WireError> {
        if message.writer.is_none() {
            return Ok(None);
        }
        let frame = JournalFrame::decode(&message.payload)?;
        let accepted = loss_of(&frame.records)?;
        Ok(accepted.map(|accepted| Self::new(&accepted, frame.head.time, message.sequence)))
    }

    pub(super) fn new(
        accepted: &TruncationAccepted,
        time: JournalTime,
        journal_sequence: u64,
    ) -> Self {
        let TruncationAccepted { from, next, signed, by, reason, .. } = accepted;
        Self {
            from: *from,
            next: *next,
            signed: *signed,
            by: by.clone(),
            reason: reason.clone(),
            time_ms: time.0,
            journal_sequence,
        }
    }

    fn text(&self) -> String {
        let Self { from, next, by, reason, journal_sequence, .. } = self;
        let last = next - 1;
        format!(
            "records {from} to {last} are lost, which {by} accepted (\u{201c}{reason}\u{201d}, message \
             {journal_sequence} of the journal); their entries in the audit log stand for them"
        )
    }
}

impl PartitionAudit {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let departed = |kept: &KeptAudit| kept.departure.is_some();
        self.report.is_sound() && self.unreadable.is_empty() && !self.kept.iter().any(departed)
    }

    /// Everything that is wrong, in words.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let unreadable = self.unreadable.iter().map(|message| {
            let Unreadable { stream, sequence, reason } = message;
            format!("message {sequence} of stream `{stream}` cannot be read: {reason}")
        });
        let omitted = self.report.findings_omitted.saturating_add(self.unreadable_omitted);
        let findings = self.report.findings.iter().map(ToString::to_string);
        let kept = self.kept.iter().filter_map(KeptAudit::finding);
        kept.chain(findings).chain(unreadable).chain(more(omitted)).collect()
    }

    /// What is strange and no failure, in words.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let removed = (self.removed > 0).then(|| {
            let removed = counted(
                self.removed,
                "record was kept long enough and is removed",
                "records were kept long enough and are removed",
            );
            format!(
                "{removed} from the archive; what the audit log has of that was \
                 checked without it"
            )
        });
        let losses = self.losses.iter().map(AcceptedLoss::text);
        let notices = self.report.notices.iter().map(ToString::to_string);
        removed
            .into_iter()
            .chain(losses)
            .chain(notices)
            .chain(more(self.report.notices_omitted))
            .collect()
    }
}

fn more(omitted: u64) -> Option<String> {
    (omitted > 0).then(|| format!("and {omitted} more"))
}
