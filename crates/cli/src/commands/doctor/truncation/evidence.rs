//! What there is to see before a loss is accepted, and why it may not be.

use fermata_actors::checkpoint_folder::read_note;
use fermata_actors::checkpoint_log::{SignedNote, newest_of_stream};
use fermata_audit::{Checkpoint, Verifier};
use fermata_core::digest::Digest;
use fermata_core::identity::PartitionId;
use fermata_core::record::TruncationAccepted;
use fermata_jetstream::StreamReader;
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::topology::{ARCHIVE_BUCKET, SNAPSHOTS_BUCKET, journal_stream};
use fermata_partition::truncation::JournalEnd;
use fermata_wire::journal::JournalFrame;
use serde_json::{Value, json};

use super::Asked;
use super::lost::{Lost, LostAttempt, entries_end, read_lost};
use crate::broker_session::{BrokerSession, EngineConfig};
use crate::commands::audit::{AcceptedLoss, verify_with};
use crate::error::CliError;
use crate::output::{Output, Tone, counted};

/// How many attempts are named to people.
const ATTEMPTS_SHOWN: usize = 20;

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// Records are lost, and can be gone on behind.
    Loss(Box<Evidence>),
    /// They were, and somebody accepted that.
    Accepted(AcceptedLoss),
}

/// A loss that can be accepted, with what shows it.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) partition: PartitionId,
    /// Where the journal ends.
    pub(super) last_sequence: u64,
    pub(super) end: JournalEnd,
    pub(super) accepted: TruncationAccepted,
    lost: Lost,
    /// Snapshots of what is lost: nobody may begin from them.
    snapshots: Vec<String>,
}

fn refused<T>(text: impl Into<String>) -> Result<T, CliError> {
    Err(CliError::Refused(text.into()))
}

/// Reads everything, and refuses where it does not fit together.
pub(super) async fn read(
    session: &BrokerSession,
    config: &EngineConfig,
    asked: &Asked,
    output: &Output,
) -> Result<Found, CliError> {
    let partition = asked.partition;
    let reader = StreamReader::new(session.broker());
    let checkpoint = newest_checkpoint(&reader, config, asked).await?;
    let (last_sequence, first_sequence, end) = journal_end(&reader, partition).await?;
    let (from, signed) = (end.records, checkpoint.checkpoint.size());
    let progress = output.progress(0, "messages read");
    if from >= signed {
        let audit = verify_with(session, config, partition, None, &progress).await?;
        progress.finish_and_clear();
        return match audit.losses.into_iter().next_back() {
            Some(loss) => Ok(Found::Accepted(loss)),
            None => refused(format!(
                "partition {partition} lost no record that was signed: its journal holds {from}, {signed} were signed"
            )),
        };
    }
    let (published, audit_last) = entries_end(&reader, partition).await?;
    if published < signed {
        return refused(format!(
            "the audit log of partition {partition} holds {}, and {signed} were signed: without the \
             others nobody can show what the log was, and going on would contradict what was signed. Restore the \
             stream `AUDIT_{partition}` from a copy that holds them, then try again",
            counted(published, "entry", "entries")
        ));
    }
    let lost = read_lost(&reader, partition, audit_last, (from, signed, published)).await?;
    let Some(subtrees) = lost.subtrees.as_ref() else {
        return refused(format!(
            "the audit log of partition {partition} does not hold every entry from {from} on: restore the stream \
             `AUDIT_{partition}`"
        ));
    };
    let accepted = TruncationAccepted {
        from,
        signed,
        next: published,
        checkpoint: String::from_utf8_lossy(&checkpoint.note).into_owned(),
        subtrees: subtrees.iter().map(|hash| Digest(hash.0)).collect(),
        by: asked.by.clone(),
        reason: asked.reason.clone(),
    };
    let audit = verify_with(session, config, partition, Some(accepted.clone()), &progress).await?;
    progress.finish_and_clear();
    if !audit.is_sound() && journal_end(&reader, partition).await?.0 != last_sequence {
        // Somebody else accepted it meanwhile: what is there now counts.
        return Box::pin(read(session, config, asked, output)).await;
    }
    if !audit.is_sound() {
        return refused(format!(
            "what is left of partition {partition} is not what was signed, so nothing can be accepted: {}. Keep \
             everything as it is, and restore the stream that was changed",
            audit.findings().join("; ")
        ));
    }
    let snapshots = snapshots_ahead(session, partition, last_sequence, first_sequence).await?;
    nothing_archived(session, partition, last_sequence).await?;
    let evidence = Evidence { partition, last_sequence, end, accepted, lost, snapshots };
    Ok(Found::Loss(Box::new(evidence)))
}

/// The larger of what the stream and the file of this machine hold.
async fn newest_checkpoint(
    reader: &StreamReader,
    config: &EngineConfig,
    asked: &Asked,
) -> Result<SignedNote, CliError> {
    let verifier = Verifier::parse(&config.audit_vkey)?;
    let (_, stored) = newest_of_stream(reader, verifier.clone(), asked.partition).await?;
    let path = asked.checkpoints.join(format!("{}.checkpoint", asked.partition));
    let origin = config.audit_origin(asked.partition);
    let read = read_note(&path, &origin).await;
    let file = match read.map_err(CliError::io(format!("read `{}`", path.display())))? {
        Some(note) => match Checkpoint::open(&note, &[verifier]) {
            Ok(checkpoint) => Some(SignedNote { note: note.into(), checkpoint }),
            Err(error) => {
                return refused(format!("the checkpoint in `{}` is none: {error}", path.display()));
            }
        },
        None => None,
    };
    let newest = stored.into_iter().chain(file);
    let newest = newest.filter(|note| note.checkpoint.origin() == origin);
    match newest.max_by_key(|note| note.checkpoint.size()) {
        Some(newest) => Ok(newest),
        None => refused(format!("no checkpoint of `{origin}` is found: nothing shows a loss")),
    }
}

/// Last and first sequence of the journal, and what its last frame says.
async fn journal_end(
    reader: &StreamReader,
    partition: PartitionId,
) -> Result<(u64, u64, JournalEnd), CliError> {
    let stream = journal_stream(partition);
    let state = reader.stream_state(&stream).await?;
    let mut sequence = state.last_sequence;
    while sequence > 0 && sequence >= state.first_sequence {
        let Some(message) = reader.read_one(&stream, sequence).await? else {
            return refused(format!(
                "message {sequence} of stream `{stream}` is missing before its end: restore the stream"
            ));
        };
        if message.writer.is_some() {
            let frame = JournalFrame::decode(&message.payload)
                .map_err(CliError::unreadable(format!("message {sequence} of `{stream}`")))?;
            return Ok((state.last_sequence, state.first_sequence, JournalEnd::of(&frame)));
        }
        sequence -= 1;
    }
    refused(format!(
        "the stream `{stream}` holds no frame: with nothing left there is nothing to go on from. Restore the stream"
    ))
}

/// Snapshots that hold more than the journal. Without them one must be left to begin from,
/// or the whole journal.
async fn snapshots_ahead(
    session: &BrokerSession,
    partition: PartitionId,
    last_sequence: u64,
    first_sequence: u64,
) -> Result<Vec<String>, CliError> {
    let folder =
        ObjectFolder::open(session.broker(), SNAPSHOTS_BUCKET, &partition.to_string()).await?;
    let names = folder.list().await?;
    let is_ahead = |name: &String| name.parse::<u64>().is_ok_and(|ends| ends > last_sequence);
    let (ahead, others): (Vec<_>, Vec<_>) = names.into_iter().partition(is_ahead);
    let begins = |name: &String| name.parse::<u64>().is_ok_and(|ends| ends + 1 >= first_sequence);
    if first_sequence > 1 && !others.iter().any(begins) {
        return refused(format!(
            "the journal of partition {partition} begins at {first_sequence}, and no snapshot that ends before \
             {last_sequence} is left to begin from: restore the bucket `OBJ_{SNAPSHOTS_BUCKET}` or the stream"
        ));
    }
    Ok(ahead)
}

/// What is archived is not lost.
async fn nothing_archived(
    session: &BrokerSession,
    partition: PartitionId,
    last_sequence: u64,
) -> Result<(), CliError> {
    let folder =
        ObjectFolder::open(session.broker(), ARCHIVE_BUCKET, &partition.to_string()).await?;
    let end = |name: &String| name.split_once('-').and_then(|(_, last)| last.parse::<u64>().ok());
    match folder.list().await?.iter().filter_map(end).max() {
        Some(archived) if archived > last_sequence => refused(format!(
            "the archive of partition {partition} holds its journal up to message {archived}, and the stream ends at \
             {last_sequence}: these messages are not lost. Restore the stream from it"
        )),
        Some(_) | None => Ok(()),
    }
}

impl Evidence {
    /// Removes the snapshots of what is lost.
    pub(super) async fn remove_snapshots(&self, session: &BrokerSession) -> Result<(), CliError> {
        if self.snapshots.is_empty() {
            return Ok(());
        }
        let owner = self.partition.to_string();
        let folder = ObjectFolder::open(session.broker(), SNAPSHOTS_BUCKET, &owner).await?;
        for name in &self.snapshots {
            folder.remove(name).await?;
        }
        Ok(())
    }

    /// Shows people what is lost, and what follows from it.
    pub(super) fn show(&self, output: &mut Output) -> Result<(), CliError> {
        if output.is_json() {
            return Ok(());
        }
        let TruncationAccepted { from, signed, next, .. } = &self.accepted;
        let Self { partition, lost, .. } = self;
        let title = output.tone(Tone::Warning, &format!("partition {partition}"));
        output.line(&format!(
            "{title}: its journal holds records 0 to {}; records {from} to {} are lost. {signed} were signed, {next} \
             published in the audit log, which proves them",
            from.saturating_sub(1),
            next.saturating_sub(1)
        ))?;
        for (kind, count) in &lost.kinds {
            output.line(&format!("  {count:>8} {kind}"))?;
        }
        let runs = lost.runs.len();
        output.line(&format!(
            "{}. Commands that are still stored are decided again. What \
             these records ordered may be done once more, also where its plugin is not idempotent; attempts under way \
             in what is left are ordered again, or end as unknown; what was sent to other partitions stays sent.",
            counted(
                runs,
                "run goes back to where it stood before",
                "runs go back to where they stood before"
            )
        ))?;
        for LostAttempt { run, node, attempt } in lost.attempts.iter().take(ATTEMPTS_SHOWN) {
            output
                .line(&format!("  may happen again: run {run}, node {node}, attempt {attempt}"))?;
        }
        let listed = lost.attempts.len().min(ATTEMPTS_SHOWN);
        let more = (lost.attempts.len() - listed) as u64 + lost.attempts_omitted;
        if more > 0 {
            output.line(&format!("  and {more} more; `--json` lists them"))?;
        }
        if !self.snapshots.is_empty() {
            let one = "snapshot holds more than the journal and is removed.";
            let many = "snapshots hold more than the journal and are removed.";
            output.line(&counted(self.snapshots.len(), one, many))?;
        }
        Ok(())
    }

    pub(super) fn json(&self, answer: &str, sequence: Option<u64>) -> Value {
        let TruncationAccepted { from, signed, next, by, reason, .. } = &self.accepted;
        json!({
            "repair": "halted_partition",
            "partition": self.partition.to_string(),
            "answer": answer,
            "loss": { "from": from, "signed": signed, "next": next, "by": by, "reason": reason },
            "kinds": self.lost.kinds,
            "runs": self.lost.runs,
            "attempts": self.lost.attempts,
            "attempts_omitted": self.lost.attempts_omitted,
            "snapshots_removed": self.snapshots,
            "journal_sequence": sequence,
        })
    }
}
