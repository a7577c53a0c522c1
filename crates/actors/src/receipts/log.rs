//! What is kept of a partition's audit log.

use std::ops::Range;

use fermata_audit::{BLOCK_LEAVES, Hash, TreeIndex};
use fermata_jetstream::StoredMessage;
use fermata_wire::audit::AuditFrame;

/// A log as far as it was read: of each block of [`BLOCK_LEAVES`] entries two hashes, and where it
/// begins.
#[derive(Debug, Default)]
pub(super) struct Log {
    index: TreeIndex,
    /// Sequence of the message in which each block begins.
    blocks: Vec<u64>,
    /// The last message that was read.
    last: u64,
}

/// An entry that is proven, or beside one.
#[derive(Debug, Clone)]
pub(super) struct ReadEntry {
    pub(super) header: Vec<u8>,
    pub(super) commitment: [u8; 32],
    pub(super) leaf: Hash,
}

impl Log {
    /// Entries that were read.
    pub(super) fn size(&self) -> u64 {
        self.index.size()
    }

    /// The last message that was read; 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn index(&self) -> &TreeIndex {
        &self.index
    }

    /// The message in which the block of entry `index` begins.
    pub(super) fn begin_of(&self, index: u64) -> Option<u64> {
        self.blocks.get(usize::try_from(index / BLOCK_LEAVES).ok()?).copied()
    }

    /// Takes the next message, whole or nothing of it; one that nobody of ours wrote has no entries.
    ///
    /// Whether a leaf is that of its entry, the signed root shows.
    pub(super) fn take(&mut self, message: &StoredMessage) -> Result<(), String> {
        if message.writer.is_some() {
            let frame = decode(message)?;
            let first = self.size();
            if let Some((entry, wanted)) =
                frame.entries.iter().zip(first..).find(|(entry, wanted)| entry.index != *wanted)
            {
                let (sequence, found) = (message.sequence, entry.index);
                return Err(format!("message {sequence} of audit has entry {found}, not {wanted}"));
            }
            for entry in &frame.entries {
                if self.size().is_multiple_of(BLOCK_LEAVES) {
                    self.blocks.push(message.sequence);
                }
                self.index.push(Hash(*entry.leaf));
            }
        }
        self.last = message.sequence;
        Ok(())
    }
}

/// Those entries of a message that are wanted.
pub(super) fn entries_of(
    message: &StoredMessage,
    wanted: &Range<u64>,
) -> Result<Vec<ReadEntry>, String> {
    if message.writer.is_none() {
        return Ok(Vec::new());
    }
    let entries = decode(message)?.entries.into_iter();
    let entries = entries.filter(|entry| wanted.contains(&entry.index)).map(|entry| ReadEntry {
        header: entry.header.to_vec(),
        commitment: *entry.commitment,
        leaf: Hash(*entry.leaf),
    });
    Ok(entries.collect())
}

fn decode(message: &StoredMessage) -> Result<AuditFrame<'_>, String> {
    AuditFrame::decode(&message.payload)
        .map_err(|error| format!("message {} of audit cannot be read: {error}", message.sequence))
}

#[cfg(test)]
mod tests {
    use fermata_audit::leaf_hash;
    use fermata_wire::audit::Entry;

    use super::*;

    /// Message `sequence` of a log, with entries of these indices.
    fn message(sequence: u64, indices: Range<u64>) -> StoredMessage {
        let header = b"header".to_vec();
        let parts: Vec<_> = indices
            .map(|index| {
                let mut commitment = [0; 32];
                commitment[..8].copy_from_slice(&index.to_be_bytes());
                (index, commitment, leaf_hash(&header, &commitment).0)
            })
            .collect();
        let entries = parts.iter().map(|(index, commitment, leaf)| Entry {
            index: *index,
            header: &header,
            commitment,
            leaf,
        });
        let frame = AuditFrame { journal_sequence: sequence, entries: entries.collect() };
        StoredMessage {
            sequence,
            broker_time_ns: 0,
            writer: Some("w".to_owned()),
            subject: "audit".into(),
            headers: None,
            payload: frame.encode().unwrap().into(),
        }
    }

    #[test]
    fn a_block_is_found_again_in_the_message_in_which_it_begins() {
        let mut log = Log::default();
        let messages = [message(1, 0..100), message(2, 100..300), message(3, 300..900)];
        for message in &messages {
            log.take(message).unwrap();
        }

        let begins: Vec<_> =
            [0, 255, 256, 511, 512, 899, 1_024].map(|index| log.begin_of(index)).into();

        assert_eq!(begins, [Some(1), Some(1), Some(2), Some(2), Some(3), Some(3), None]);
        let read = entries_of(&messages[1], &(256..512)).unwrap();
        assert_eq!(read.len(), 44);
        assert_eq!(&read[0].commitment[..8], 256_u64.to_be_bytes());
        assert_eq!((log.size(), log.last()), (900, 3));
    }

    #[test]
    fn what_nobody_of_ours_wrote_is_stepped_over() {
        let mut log = Log::default();
        let foreign = StoredMessage { writer: None, ..message(1, 0..3) };

        log.take(&foreign).unwrap();
        log.take(&message(2, 0..3)).unwrap();

        assert_eq!((log.size(), log.last()), (3, 2));
        assert_eq!(entries_of(&foreign, &(0..3)).unwrap().len(), 0);
    }

    #[test]
    fn a_message_that_does_not_follow_is_refused_whole() {
        let mut log = Log::default();
        log.take(&message(1, 0..3)).unwrap();

        for other in [message(2, 0..3), message(2, 4..5)] {
            let said = log.take(&other).unwrap_err();
            assert!(said.contains("not 3"), "{said}");
            assert_eq!((log.size(), log.last()), (3, 1));
        }
        let broken = StoredMessage { payload: b"x".as_slice().into(), ..message(2, 3..4) };
        assert!(log.take(&broken).is_err());
    }
}
