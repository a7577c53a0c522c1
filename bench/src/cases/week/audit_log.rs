//! What the audit log of the week's partition takes: the real auditor, whose appends and
//! checkpoints are stored at once and forgotten but for their sizes. Nothing is ever purged of
//! them, so they grow with the runs, by as much each day.

use bytes::Bytes;
use fermata_audit::Signer;
use fermata_partition::auditor::{
    Auditor, AuditorConfig, BACKLOG_BYTES_MAX, Input, Output, StoredFrom,
};
use fermata_partition::message::{AppendOutcome, Message, Now};
use miette::{IntoDiagnostic as _, miette};

const ORIGIN: &str = "fermata.bench/partition/0";

/// Signs checkpoints; anybody may know it.
const SEED: [u8; 32] = [7; 32];

/// An auditor and the sizes of what it stored.
pub struct AuditLog {
    auditor: Auditor,
    /// Up to which message of the journal it was told.
    told: u64,
    appended: u64,
    bytes: u64,
    checkpoints: u64,
    checkpoint_bytes: u64,
}

impl AuditLog {
    /// The auditor of a journal that begins.
    pub fn start() -> miette::Result<Self> {
        let auditor = Auditor::new(AuditorConfig {
            origin: ORIGIN.to_owned(),
            signer: Signer::from_seed(ORIGIN, SEED).into_diagnostic()?,
            writer: "bench".to_owned(),
            checkpoint: None,
            backlog_bytes_max: BACKLOG_BYTES_MAX,
            behind: None,
        });
        let mut log =
            Self { auditor, told: 0, appended: 0, bytes: 0, checkpoints: 0, checkpoint_bytes: 0 };
        log.handle(Input::Live, Now { wall_ms: 0, monotonic_ms: 0 })?;
        Ok(log)
    }

    /// Takes what the journal has that was not told yet.
    pub fn follow<'a>(
        &mut self,
        journal: impl DoubleEndedIterator<Item = &'a Message>,
        now: Now,
    ) -> miette::Result<()> {
        let new = journal.rev().take_while(|message| message.sequence > self.told);
        let new: Vec<(u64, Bytes)> =
            new.map(|message| (message.sequence, message.payload.clone())).collect();
        for (sequence, frame) in new.into_iter().rev() {
            self.told = sequence;
            self.handle(Input::Journal { sequence, frame: Some(frame) }, now)?;
        }
        self.handle(Input::Tick, now)
    }

    /// Bytes of AUDIT.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records that are in it.
    pub fn records(&self) -> u64 {
        self.auditor.size()
    }

    /// Bytes of CHECKPOINTS.
    pub fn checkpoint_bytes(&self) -> u64 {
        self.checkpoint_bytes
    }

    /// Checkpoints that were signed.
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    fn handle(&mut self, input: Input, now: Now) -> miette::Result<()> {
        let mut outputs = Vec::new();
        self.auditor.handle(input, now, &mut outputs);
        while !outputs.is_empty() {
            let answers = std::mem::take(&mut outputs).into_iter();
            for output in answers {
                if let Some(answer) = self.answered(output)? {
                    self.auditor.handle(answer, now, &mut outputs);
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, output: Output) -> miette::Result<Option<Input>> {
        Ok(match output {
            Output::Append(send) | Output::AppendLater(send) => {
                self.appended += 1;
                self.bytes += send.payload.len() as u64;
                Some(Input::Appended(AppendOutcome::Stored { sequence: self.appended }))
            }
            Output::Checkpoint { note, .. } => {
                self.checkpoints += 1;
                self.checkpoint_bytes += note.len() as u64;
                None
            }
            Output::ReadStored { from: StoredFrom::Entry(_) | StoredFrom::Sequence(_) } => {
                Some(Input::StoredEnd { read_to: self.appended, last_sequence: self.appended })
            }
            Output::Feed { .. } | Output::Marked(_) => None,
            other @ (Output::ReadAudit { .. }
            | Output::ReadJournal { .. }
            | Output::Halt(_)
            | Output::StandDown { .. }) => {
                return Err(miette!("the auditor does what it has no reason for: {other:?}"));
            }
        })
    }
}
