//! Follows one journal and hands its messages to the thread of the index.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fermata_core::identity::PartitionId;
use fermata_jetstream::StoredMessage;
use fermata_store::FrameChanges;
use tokio::sync::mpsc;

use super::ProjectorError;
use super::source::{FrameSource, Frames};

/// Journal messages taken at a time.
const BATCH_MESSAGES: usize = 32;

/// A message of a journal. It is read where it is applied: that takes as long as applying it,
/// and this side runs among the engine's own work.
#[derive(Debug)]
pub(super) struct FollowedFrame {
    pub partition: PartitionId,
    pub message: StoredMessage,
    /// Messages before it are missing.
    pub gap: bool,
    /// Said of the journal once a message of it cannot be read: an answer without what it says
    /// would be wrong, so nothing behind it is applied.
    pub unreadable: Arc<AtomicBool>,
}

impl FollowedFrame {
    /// What it changes; nothing when it, or one before it, cannot be read.
    pub fn read(&self) -> Option<FrameChanges> {
        if self.unreadable.load(Ordering::Relaxed) {
            return None;
        }
        let (partition, message) = (self.partition, &self.message);
        let sequence = message.sequence;
        if message.writer.is_none() {
            return Some(FrameChanges::foreign(partition, sequence, &message.payload));
        }
        match FrameChanges::read(partition, sequence, &message.payload) {
            Ok(changes) if self.gap => Some(changes.after_gap()),
            Ok(changes) => Some(changes),
            Err(error) => {
                tracing::error!(%partition, sequence, %error, "a journal message cannot be read; the read model stays behind it");
                self.unreadable.store(true, Ordering::Relaxed);
                None
            }
        }
    }
}

/// Follows the journal of one partition.
pub(super) struct Following<S> {
    pub partition: PartitionId,
    pub source: Arc<S>,
    pub frames: mpsc::Sender<FollowedFrame>,
}

impl<S: FrameSource> Following<S> {
    /// Hands every message from `wanted` on to the index; ends when nobody takes them.
    pub async fn run(self, mut wanted: u64) -> Result<(), ProjectorError> {
        let mut frames = self.source.frames_from(self.partition, wanted).await?;
        let unreadable = Arc::<AtomicBool>::default();
        let mut missing = false;
        loop {
            for message in frames.next(BATCH_MESSAGES).await? {
                if unreadable.load(Ordering::Relaxed) {
                    return std::future::pending().await;
                }
                let (partition, sequence) = (self.partition, message.sequence);
                if sequence > wanted {
                    tracing::warn!(%partition, wanted, sequence, "the journal begins later; older runs are left out");
                    missing = true;
                }
                wanted = sequence + 1;
                let gap = message.writer.is_some() && std::mem::take(&mut missing);
                let unreadable = unreadable.clone();
                let frame = FollowedFrame { partition, message, gap, unreadable };
                if self.frames.send(frame).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(writer: Option<&str>, unreadable: &Arc<AtomicBool>) -> FollowedFrame {
        let message = StoredMessage {
            sequence: 7,
            broker_time_ns: 0,
            writer: writer.map(str::to_owned),
            headers: None,
            subject: "fermata.journal.0".into(),
            payload: b"no frame".as_slice().into(),
        };
        let (partition, unreadable) = (PartitionId(0), unreadable.clone());
        FollowedFrame { partition, message, gap: false, unreadable }
    }

    #[test]
    fn nothing_is_read_behind_a_message_that_cannot_be_read() {
        let unreadable = Arc::default();
        assert!(frame(None, &unreadable).read().is_some(), "nobody of ours wrote it");

        assert!(frame(Some("w.1.0"), &unreadable).read().is_none());

        assert!(frame(None, &unreadable).read().is_none());
    }
}
