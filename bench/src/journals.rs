//! Reading journals: what was decided, and how fast it is folded again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use fermata_actors::journal_archive::JournalReplay;
use fermata_core::identity::PartitionId;
use fermata_core::partition::Limits;
use fermata_core::record::{Header, Kind};
use fermata_jetstream::topology::journal_stream;
use fermata_partition::fold::{JournalFold, decode};
use fermata_partition::message::Message;
use fermata_wire::journal::JournalFrame;
use miette::{IntoDiagnostic as _, miette};

use crate::client::Client;
use crate::definitions::Applied;

/// Messages read at once.
const BATCH: usize = 1_000;

/// How many records of each kind the data partitions hold.
pub async fn tally(
    client: &Client,
    partitions: u16,
) -> miette::Result<BTreeMap<&'static str, u64>> {
    let mut tally = BTreeMap::new();
    each(client, partitions, |header| *tally.entry(header.kind.as_str()).or_default() += 1).await?;
    Ok(tally)
}

/// Shows every record of the data partitions, one partition after the other.
pub async fn each(
    client: &Client,
    partitions: u16,
    mut show: impl FnMut(&Header),
) -> miette::Result<()> {
    for partition in 0..partitions {
        let journal = JournalReplay::open(&client.reader, PartitionId(partition), 1).await;
        let mut replay = journal.into_diagnostic()?;
        loop {
            let batch = replay.next_batch(BATCH).await.into_diagnostic()?;
            if batch.is_empty() {
                break;
            }
            for message in batch.iter().filter(|message| message.writer.is_some()) {
                let frame = JournalFrame::decode(&message.payload).into_diagnostic()?;
                for record in &frame.records {
                    show(&record.header().into_diagnostic()?);
                }
            }
        }
    }
    Ok(())
}

/// When the broker stored a message of a journal.
pub async fn stored_at(
    client: &Client,
    partition: PartitionId,
    sequence: u64,
) -> miette::Result<SystemTime> {
    let message = client.reader.read_one(&journal_stream(partition), sequence).await;
    let message = message.into_diagnostic()?.ok_or_else(|| miette!("a record is gone"))?;
    let since = u64::try_from(message.broker_time_ns).into_diagnostic()?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_nanos(since))
}

/// Fails unless there are exactly `n` records of `kind`: a figure for work that was not done is none.
pub async fn expect(
    client: &Client,
    partitions: u16,
    kind: Kind,
    n: u64,
) -> miette::Result<BTreeMap<&'static str, u64>> {
    let tally = tally(client, partitions).await?;
    match tally.get(kind.as_str()) {
        Some(found) if *found == n => Ok(tally),
        _ => Err(miette!("expected {n} records `{}`, the journals hold {tally:?}", kind.as_str())),
    }
}

/// Replays the journals as a new owner does, one partition after the other, and says how many
/// records that were and how long it took.
pub async fn fold(
    client: &Client,
    partitions: u16,
    applied: &Applied,
) -> miette::Result<(u64, Duration)> {
    let begun = Instant::now();
    let mut records = 0;
    for partition in 0..partitions {
        let mut fold = JournalFold::new(PartitionId(partition), Limits::default());
        for (digest, plan) in &applied.plans {
            fold.add_plan(*digest, plan.clone());
        }
        let journal = JournalReplay::open(&client.reader, PartitionId(partition), 1).await;
        let mut replay = journal.into_diagnostic()?;
        loop {
            let batch = replay.next_batch(BATCH).await.into_diagnostic()?;
            if batch.is_empty() {
                break;
            }
            for stored in batch {
                let message = Message {
                    sequence: stored.sequence,
                    broker_time_ns: stored.broker_time_ns,
                    writer: stored.writer,
                    payload: stored.payload,
                };
                let decoded = decode(&message).into_diagnostic()?;
                fold.fold(message.sequence, &decoded).into_diagnostic()?;
            }
        }
        records += fold.next_index();
    }
    Ok((records, begun.elapsed()))
}
