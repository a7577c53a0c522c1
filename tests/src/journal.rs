//! Reading what partitions have decided.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fermata_core::identity::PartitionId;
use fermata_core::record::{Header, Record};
use fermata_jetstream::StreamReader;
use fermata_jetstream::reader::Holes;
use fermata_partition::fold::{Decoded, decode};
use fermata_partition::message::Message;

/// Every record of a partition, in order.
///
/// # Panics
///
/// When the journal cannot be read or decoded.
pub async fn records(reader: &StreamReader, partition: PartitionId) -> Vec<(Header, Record)> {
    let stream = format!("JOURNAL_{partition}");
    let mut replay = reader.replay(&stream, 1, Holes::Refused).await.expect("a replay");
    let mut found = Vec::new();
    loop {
        let batch = replay.next_batch(1_000).await.expect("a batch");
        if batch.is_empty() {
            return found;
        }
        for message in batch {
            let message = Message {
                sequence: message.sequence,
                broker_time_ns: message.broker_time_ns,
                writer: message.writer,
                payload: message.payload,
            };
            if let Decoded::Frame(_, records) = decode(&message).expect("a readable message") {
                found.extend(records);
            }
        }
    }
}

/// Every record of all data partitions.
pub async fn all_records(reader: &StreamReader, partitions: u16) -> Vec<(Header, Record)> {
    let mut found = Vec::new();
    for partition in 0..partitions {
        found.extend(records(reader, PartitionId(partition)).await);
    }
    found
}

/// Reads all records again and again until `enough` says so.
///
/// # Panics
///
/// When it does not within `limit`.
pub async fn records_until(
    reader: &StreamReader,
    partitions: u16,
    limit: Duration,
    enough: impl Fn(&[(Header, Record)]) -> bool,
) -> Vec<(Header, Record)> {
    let begun = Instant::now();
    loop {
        let found = all_records(reader, partitions).await;
        if enough(&found) {
            return found;
        }
        assert!(begun.elapsed() < limit, "not within {limit:?}; recorded: {:?}", tally(&found));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// How many records there are of each kind.
#[must_use]
pub fn tally(records: &[(Header, Record)]) -> BTreeMap<&'static str, usize> {
    let mut tally = BTreeMap::new();
    for (header, _) in records {
        *tally.entry(header.kind.as_str()).or_default() += 1;
    }
    tally
}
